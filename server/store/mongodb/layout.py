"""A database made, brought up to date and checked, before anything is asked of it. Done once, while a process starts.

Several processes may do so at once: every step may be repeated. Collections and indexes come from the record types.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from pymongo import IndexModel, MongoClient
from pymongo.errors import DuplicateKeyError, OperationFailure
from pymongo.synchronous.database import Database

from server.domain.errors import BadConfiguration, StoreDamaged
from server.store.copy import UNFINISHED, UNFINISHED_TEXT
from server.store.crypto import MasterKey
from server.store.mongodb.address import Address
from server.store.mongodb.faults import translating
from server.store.schema import RECORDS, Schema, schema_of

Documents = dict[str, Any]
META: Final = "store_meta"
DATA_KEY: Final = "data_key"
AUDIT_HEAD: Final = "audit_head"
OWN: Final = (META, DATA_KEY, AUDIT_HEAD)
_EXISTS: Final = 48  # NamespaceExists
_OLDEST_WIRE: Final = 9  # MongoDB 4.4
# Step n brings a database of version n to version n + 1. A step may be run twice, by two processes at once.
STEPS: Final[list[Callable[[Database[Documents]], None]]] = []


class Index(NamedTuple):
    """One index. `present`: optional columns without which a unique index passes over the document."""

    columns: tuple[str, ...]
    unique: bool
    present: tuple[str, ...]

    @property
    def model(self) -> IndexModel:
        """As the driver makes it."""
        partial = {"partialFilterExpression": {name: {"$exists": True} for name in self.present}}
        keys = [(name, 1) for name in self.columns]
        return IndexModel(keys, name="__".join(self.columns), unique=self.unique, **(partial if self.present else {}))


def latest() -> int:
    """The version that this release writes."""
    return 1 + len(STEPS)


def prepare(address: Address, master: MasterKey, *, unfinished: bool) -> None:
    """Makes or checks the database; one that a copy did not finish is refused unless `unfinished`.

    Raises BadConfiguration, StoreDamaged, StoreUnavailable.
    """
    with translating(), MongoClient[Documents](address.uri, **address.options) as client:
        _check_server(client)
        database = client[address.database]
        _check_version(database)
        _make_collections(database)
        for kind in RECORDS:
            _make_indexes(database, schema_of(kind))
        _check_master_key(database, master)
        if not unfinished and database[META].find_one({"_id": UNFINISHED}) is not None:
            raise StoreDamaged(UNFINISHED_TEXT)


def indexes(schema: Schema[Any]) -> Iterator[Index]:
    """What a collection has beside `_id`."""
    for names in schema.table.unique:
        yield Index(names, True, tuple(name for name in names if schema.column(name).optional))
    for names in schema.table.indexes:
        yield Index(names, False, ())


def _check_server(client: MongoClient[Documents]) -> None:
    hello = client.admin.command("hello")
    if hello.get("setName") is None and hello.get("msg") != "isdbgrid":
        raise BadConfiguration(
            "the MongoDB server is a standalone one, without transactions: start it as a replica set, of one member at "
            "least (mongod --replSet NAME, then rs.initiate())"
        )
    if hello["maxWireVersion"] < _OLDEST_WIRE:
        raise BadConfiguration("the MongoDB server is too old: 4.4 or later is needed")


def _check_version(database: Database[Documents]) -> None:
    meta = database[META]
    found = meta.find_one({"_id": "schema"})
    if found is None:
        if database.list_collection_names():
            raise BadConfiguration("the database is another program's: name another one in [store] url")
        found = {"_id": "schema", "version": latest(), "columns": _fingerprint()}
        try:
            meta.insert_one(found)
        except DuplicateKeyError:  # another process was first
            found = meta.find_one({"_id": "schema"}) or found
    if found["version"] > latest():
        raise BadConfiguration(
            f"the store has schema version {found['version']}, this release knows {latest()}: run the newer release"
        )
    for version in range(found["version"], latest()):
        STEPS[version - 1](database)
        step = {"$set": {"version": version + 1, "columns": _fingerprint()}}
        found["columns"] = _fingerprint()
        meta.update_one({"_id": "schema", "version": version}, step)
    if found["columns"] != _fingerprint():
        raise StoreDamaged(
            "the store's columns differ from this release's: it was made by a development version: start a new database"
        )


def _fingerprint() -> str:
    """All columns of all collections, as text."""
    return ";".join(f"{kind.TABLE.name}:{','.join(schema_of(kind).names)}" for kind in RECORDS)


def _make_collections(database: Database[Documents]) -> None:
    """A transaction should not have to make one."""
    wanted = {*OWN, *(kind.TABLE.name for kind in RECORDS)}
    for name in sorted(wanted - set(database.list_collection_names())):
        try:
            database.create_collection(name, check_exists=False)
        except OperationFailure as error:
            if error.code != _EXISTS:  # else another process was first
                raise


def _make_indexes(database: Database[Documents], schema: Schema[Any]) -> None:
    collection = database[schema.table.name]
    wanted = list(indexes(schema))
    there = {tuple(name for name, _ in each["key"]): bool(each.get("unique")) for each in _listed(collection)}
    for index in wanted:
        if there.get(index.columns, index.unique) is not index.unique:
            place = f"{schema.table.name} ({', '.join(index.columns)})"
            raise StoreDamaged(f"the store's index on {place} is of another kind: drop it; the next start makes it")
    missing = [index.model for index in wanted if index.columns not in there]
    if missing:
        collection.create_indexes(missing)


def _listed(collection: Any) -> list[dict[str, Any]]:
    return list(collection.index_information().values())


def _check_master_key(database: Database[Documents], master: MasterKey) -> None:
    """Compares the key with the one that made the database, or leaves its mark in a new one."""
    meta = database[META]
    mark = meta.find_one({"_id": "master_key_check"})
    if mark is None and database[DATA_KEY].find_one({}) is None:
        with contextlib.suppress(DuplicateKeyError):  # another process was first
            meta.insert_one({"_id": "master_key_check", "value": master.check})
        mark = meta.find_one({"_id": "master_key_check"})
    if mark is None or not master.fits(bytes(mark["value"])):
        raise StoreDamaged(
            "the master key is not the one this store was made with: put the right file at [store] key_file; "
            "nothing was read or changed"
        )
