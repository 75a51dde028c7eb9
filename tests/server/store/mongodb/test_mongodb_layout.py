"""Opening a MongoDB store: what is made, checked and refused."""

import logging
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from server.domain.errors import BadConfiguration, StoreDamaged, StoreUnavailable
from server.domain.record import Record
from server.domain.resource import ResourceVersion, StoredResource
from server.store.base import Changeset, Where
from server.store.crypto import generate_master_key
from server.store.mongodb import layout
from server.store.mongodb.address import read_address
from server.store.mongodb.documents import documents_of, key_text
from server.store.opening import open_store
from server.store.schema import RECORDS, schema_of


@pytest.fixture
def mongodb(engines: Any, tmp_path: Path) -> Any:
    made = engines["mongodb"](tmp_path)
    yield made
    made.drop()


@pytest.fixture
def database(mongodb: Any) -> Any:
    with MongoClient(mongodb.server) as client:
        yield client[mongodb.name]


async def test_every_index_is_made(mongodb: Any, database: Any) -> None:
    """Each record type has a collection with the indexes that it asks for."""
    await mongodb.open().close()
    for kind in RECORDS:
        listed = database[kind.TABLE.name].index_information().values()
        there = {(tuple(name for name, _ in each["key"]), bool(each.get("unique"))) for each in listed}
        assert {(index.columns, index.unique) for index in layout.indexes(schema_of(kind))} <= there


LARGE = ("received", "resource", "resource_version", "lookup", "patient_identity", "audit", "submission")


@pytest.mark.parametrize("kind", [each for each in RECORDS if each.TABLE.name in LARGE], ids=lambda k: k.TABLE.name)
def test_a_large_collection_can_be_sharded_by_participant(kind: type[Record]) -> None:
    """In a cluster a unique index must begin with the shard key: all of these do (docs/scaling.md)."""
    assert all(index[0] == "participant_id" for index in kind.TABLE.unique)
    assert kind.TABLE.key in {("id",)} or kind.TABLE.key[0] == "participant_id"


async def test_a_lost_index_is_made_again(mongodb: Any, database: Any) -> None:
    """An index that somebody dropped is there after the next start."""
    await mongodb.open().close()
    name = next(n for n, each in database["job"].index_information().items() if each.get("unique") and n != "_id_")
    database["job"].drop_index(name)
    await mongodb.open().close()
    assert any(each.get("unique") and n != "_id_" for n, each in database["job"].index_information().items())


async def test_an_index_of_another_kind_is_refused(mongodb: Any, database: Any) -> None:
    """A unique index that is not unique would let duplicates in: the start says which."""
    await mongodb.open().close()
    name = next(n for n, each in database["job"].index_information().items() if each.get("unique") and n != "_id_")
    database["job"].drop_index(name)
    database["job"].create_index([("waiting_key", 1)])
    with pytest.raises(StoreDamaged, match=r"job \(waiting_key\)"):
        mongodb.open()


async def test_a_newer_schema_is_refused(mongodb: Any, database: Any) -> None:
    """An older release does not touch a newer release's store."""
    await mongodb.open().close()
    database["store_meta"].update_one({"_id": "schema"}, {"$set": {"version": layout.latest() + 1}})
    with pytest.raises(BadConfiguration, match="newer release"):
        mongodb.open()


async def test_an_older_schema_takes_the_missing_steps(mongodb: Any, database: Any, monkeypatch: Any) -> None:
    """A store of the version before gets the step, once, and the present version."""
    await mongodb.open().close()
    monkeypatch.setattr(layout, "STEPS", [lambda found: found["store_meta"].insert_one({"_id": "step"})])
    await mongodb.open().close()
    await mongodb.open().close()
    assert database["store_meta"].find_one({"_id": "schema"})["version"] == 2
    assert database["store_meta"].count_documents({"_id": "step"}) == 1


async def test_other_columns_are_refused(mongodb: Any, database: Any) -> None:
    """A store of a development version, of the same number but other columns, is refused at the start."""
    await mongodb.open().close()
    database["store_meta"].update_one({"_id": "schema"}, {"$set": {"columns": "other"}})
    with pytest.raises(StoreDamaged, match="columns differ"):
        mongodb.open()


def test_another_programs_database_is_refused(mongodb: Any, database: Any) -> None:
    """Nothing is made in a database that holds something else."""
    database["orders"].insert_one({"_id": "1"})
    with pytest.raises(BadConfiguration, match="another program"):
        mongodb.open()
    assert database.list_collection_names() == ["orders"]


async def test_another_master_key_is_refused(mongodb: Any, tmp_path: Path) -> None:
    """A wrong key is told at once, and leaves no mark."""
    await mongodb.open().close()
    generate_master_key(tmp_path / "other.key")
    with pytest.raises(StoreDamaged, match="master key"):
        open_store(mongodb.url, tmp_path / "other.key")
    await mongodb.open().close()


def test_a_standalone_server_is_refused(tmp_path: Path) -> None:
    """Without a replica set there are no transactions: the start says what to do. (nx-27017 as it is says so.)"""
    generate_master_key(tmp_path / "master.key")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nx = Path(sys.executable).with_name("nx-27017")
    log = ["--log-file", str(tmp_path / "nx.log"), "--pid-file", str(tmp_path / "nx.pid")]
    process = subprocess.Popen(
        [str(nx), "--db", "memory", "-p", str(port), *log], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with pytest.raises(BadConfiguration, match="replica set"):
            open_store(f"mongodb://127.0.0.1:{port}/db", tmp_path / "master.key")
    finally:
        process.kill()
        process.wait()


def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    """A server that does not answer is a temporary matter."""
    generate_master_key(tmp_path / "master.key")
    with pytest.raises(StoreUnavailable):
        open_store("mongodb://127.0.0.1:1/db?serverSelectionTimeoutMS=200", tmp_path / "master.key")


def test_a_password_is_read_from_its_file(tmp_path: Path) -> None:
    """It is never part of the URL, and is quoted for the driver."""
    (tmp_path / "password").write_text("p@ss/word\n")
    url = (
        f"mongodb://facade@db1:27017,db2:27017/clinic?replicaSet=rs0&authSource=admin&passwordFile={tmp_path}/password"
    )
    address = read_address(url)
    assert address.uri == "mongodb://facade:p%40ss%2Fword@db1:27017,db2:27017/clinic?replicaSet=rs0&authSource=admin"
    assert address.database == "clinic"
    assert (address.options["w"], address.options["journal"]) == ("majority", True)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mongodb://user:secret@db/x", "passwordFile"),
        ("mongodb://user@db/x?passwordFile=relative", "absolute"),
        ("mongodb://user@db/x?passwordFile=/nowhere/at/all", "can not be read"),
        ("mongodb://db/x?w=0", "durability"),
        ("mongodb://db/x?readPreference=secondary", "durability"),
        ("mongodb://db:notaport/x", "not a MongoDB address"),
    ],
)
def test_a_bad_address_is_refused_without_its_password(url: str, said: str) -> None:
    """The message names the fault and never the secret."""
    with pytest.raises(BadConfiguration, match=said) as refused:
        read_address(url)
    assert "secret" not in str(refused.value)


def test_keys_keep_their_order() -> None:
    """`_id` sorts as the columns of the key do: whatever is in them, prefixes and numbers too."""
    keys: list[tuple[str | int, ...]] = [
        ("", ""), ("", "a"), ("a", ""), ("a", "\x00"), ("a", "\x01b"), ("a", "\x02"), ("a", "a"), ("a", 2), ("a", 10),
        ("a b", "c"), ("a\n", "c"), ("ab", "c"), ("é", "c"), ("😀", "c"),
    ]  # fmt: skip
    texts = [key for key in keys if isinstance(key[1], str)]
    assert sorted(texts, key=key_text) == sorted(texts)
    assert len({key_text(key) for key in keys}) == len(keys)
    assert key_text(("a", 2)) < key_text(("a", 10))


async def test_control_characters_in_a_key_are_kept(mongodb: Any, samples: Any) -> None:
    """An outsider's text in a key can not reach into another row's."""
    store = mongodb.open()
    rows = [samples.resource(id) for id in ("a", "a\x01b", "a\nb", "b")]
    await store.commit(Changeset(insert=tuple(rows)))
    found = await store.find(type(rows[0]))
    await store.close()
    assert [row.id for row in found] == sorted(row.id for row in rows)


def test_a_question_uses_the_key_or_an_index(samples: Any) -> None:
    """A whole key is asked for by `_id`, its beginning by a range of it, unless an index serves better."""
    resources, versions = documents_of(StoredResource), documents_of(ResourceVersion)
    one = [Where("participant_id", "==", "p"), Where("resource_type", "==", "Observation"), Where("id", "==", "1")]
    assert resources.filter(one, None)["_id"] == "p\x01Observation\x011"
    by_type = resources.filter(one[:2], None)
    assert by_type["_id"] == {"$gte": "p\x01Observation\x01", "$lt": "p\x01Observation\x02"}
    assert "_id" not in resources.filter([*one[:2], Where("patient_id", "==", "x")], None)
    of_one = {"$gte": "p\x01Observation\x011\x01", "$lt": "p\x01Observation\x011\x02"}
    assert versions.filter(one, None)["_id"] == of_one
    twice = [Where("last_updated", ">", samples.now), Where("last_updated", "<", samples.now)]
    assert len(resources.filter(twice, None)["$and"]) == 2


async def test_nothing_secret_is_logged(mongodb: Any, samples: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither bodies nor look-up values appear in an error's words."""
    caplog.set_level(logging.WARNING)
    store = mongodb.open()
    row = samples.received("r1", content_key="canary-1EG4TE5MK73", body=b"canary")
    await store.commit(Changeset(insert=(row,)))
    with pytest.raises(Exception, match="unique") as barred:
        await store.commit(Changeset(insert=(row,)))
    await store.close()
    assert "canary" not in str(barred.value)
    assert "canary" not in caplog.text
