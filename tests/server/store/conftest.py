"""What every test of a store needs. A second engine is added to ENGINES, and passes the same contract tests."""

import atexit
import contextlib
import functools
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import bson
import pytest
from pymongo import MongoClient

from server.domain.audit import AuditEntry
from server.domain.job import JobKind, NewJob
from server.domain.received import Door, Received
from server.domain.resource import Lookup, StoredResource
from server.store.base import Store
from server.store.crypto import generate_master_key
from server.store.mongodb.address import read_address
from server.store.opening import open_store
from server.store.schema import schema_of

PARTICIPANT = "ACCES12345"
OTHER = "ACCES54321"
NOW = datetime(2026, 11, 21, 18, 30, 15, 250000, timezone(timedelta(hours=-5))).astimezone(UTC)


class SqliteEngine:
    """One store of the SQLite engine, and what a person with a disk editor could do to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key_file = folder / "master.key"
        self.path = folder / "access.db"
        self.url = f"sqlite:///{self.path}"
        generate_master_key(self.key_file)

    def open(self) -> Store:
        return open_store(self.url, self.key_file)

    def drop(self) -> None:
        """The folder is the test's own."""

    def bytes_on_disk(self) -> bytes:
        return b"".join(file.read_bytes() for file in self.folder.glob("access.db*"))

    def rows(self, table: str) -> int:
        return int(self._execute(f"SELECT count(*) FROM {table}")[0][0])

    def move_sealed(self, table: str, column: str, *, source: str, target: str) -> None:
        """Copies a sealed value from one row to another."""
        self._execute(
            f"UPDATE {table} SET {column} = (SELECT {column} FROM {table} WHERE id = ?) WHERE id = ?", source, target
        )

    def put_back(self, table: str, column: str) -> Callable[[], None]:
        """Remembers a column's values now; the answer puts them back."""
        before = self._execute(f"SELECT {column}, id FROM {table}")
        return lambda: [self._execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", *row) for row in before] and None

    def audit_rows(self) -> list[list[Any]]:
        """The stored values of the participant's chain."""
        return [list(row) for row in self._execute("SELECT * FROM audit WHERE participant_id = ?", PARTICIPANT)]

    def edit_audit(self, sequence: int, column: str, value: Any) -> None:
        self._audit(f"UPDATE audit SET {column} = ? WHERE participant_id = ? AND sequence = ?", value, sequence)

    def delete_audit(self, sequence: int) -> None:
        self._audit(
            "DELETE FROM audit WHERE participant_id = ? AND sequence >= ? AND sequence <= ?", sequence, sequence
        )

    def cut_audit(self, sequence: int, head_hash: str | None = None) -> None:
        """Removes the rows from `sequence` on, and rewrites the end of the chain if told its hash."""
        self._audit("DELETE FROM audit WHERE participant_id = ? AND sequence >= ?", sequence)
        if head_hash is not None:
            self._execute("UPDATE audit_head SET sequence = ?, hash = ?", sequence - 1, head_hash)

    def turn_back_audit(self, sequence: int) -> None:
        """Lets the end of each chain name an earlier row."""
        self._execute("UPDATE audit_head SET sequence = ?", sequence)

    def remove_audit_chain(self) -> None:
        self._audit("DELETE FROM audit WHERE participant_id = ?")
        self._execute("DELETE FROM audit_head")

    def _audit(self, sql: str, *values: Any) -> None:
        with_participant = [*values]
        with_participant.insert(sql[: sql.index("participant_id")].count("?"), PARTICIPANT)
        for trigger in ("audit_no_update", "audit_no_delete"):
            self._execute(f"DROP TRIGGER IF EXISTS {trigger}")
        self._execute(sql, *with_participant)

    def _execute(self, sql: str, *values: Any) -> list[Any]:
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()


class MongoEngine:
    """A database of its own on one server: the stand-in, or that of ACCESS_FACADE_TEST_MONGODB. The same mischief."""

    def __init__(self, folder: Path) -> None:
        self.key_file = folder / "master.key"
        self.name = f"test_{uuid4().hex[:12]}"
        server = mongodb_url()
        base, _, options = server.partition("?")
        self.url = base.rstrip("/") + f"/{self.name}" + (f"?{options}" if options else "")
        self.server = read_address(server).uri
        generate_master_key(self.key_file)

    def open(self) -> Store:
        return open_store(self.url, self.key_file)

    def bytes_on_disk(self) -> bytes:
        """All that the server was given."""
        with self._database() as database:
            names = database.list_collection_names()
            return b"".join(bson.encode(document) for name in names for document in database[name].find({}))

    def rows(self, table: str) -> int:
        with self._database() as database:
            return database[table].count_documents({})

    def move_sealed(self, table: str, column: str, *, source: str, target: str) -> None:
        with self._database() as database:
            moved = database[table].find_one({"_id": source})
            database[table].update_one({"_id": target}, {"$set": {column: moved[column]}})

    def put_back(self, table: str, column: str) -> Callable[[], None]:
        with self._database() as database:
            before = {row["_id"]: row[column] for row in database[table].find({})}

        def back() -> None:
            with self._database() as database:
                for id, value in before.items():
                    database[table].update_one({"_id": id}, {"$set": {column: value}})

        return back

    def audit_rows(self) -> list[list[Any]]:
        with self._database() as database:
            rows = database["audit"].find({"participant_id": PARTICIPANT}).sort([("_id", 1)])
            return [[row.get(name) for name in schema_of(AuditEntry).names] for row in rows]

    def edit_audit(self, sequence: int, column: str, value: Any) -> None:
        with self._database() as database:
            database["audit"].update_one(
                {"participant_id": PARTICIPANT, "sequence": sequence}, {"$set": {column: value}}
            )

    def delete_audit(self, sequence: int) -> None:
        with self._database() as database:
            database["audit"].delete_one({"participant_id": PARTICIPANT, "sequence": sequence})

    def cut_audit(self, sequence: int, head_hash: str | None = None) -> None:
        with self._database() as database:
            database["audit"].delete_many({"participant_id": PARTICIPANT, "sequence": {"$gte": sequence}})
            if head_hash is not None:
                database["audit_head"].update_many({}, {"$set": {"sequence": sequence - 1, "hash": head_hash}})

    def turn_back_audit(self, sequence: int) -> None:
        with self._database() as database:
            database["audit_head"].update_many({}, {"$set": {"sequence": sequence}})

    def remove_audit_chain(self) -> None:
        with self._database() as database:
            database["audit"].delete_many({"participant_id": PARTICIPANT})
            database["audit_head"].delete_many({})

    @contextlib.contextmanager
    def _database(self) -> Iterator[Any]:
        with MongoClient(self.server, w="majority", journal=True) as client:
            yield client[self.name]

    def drop(self) -> None:
        """Leaves nothing behind."""
        with MongoClient(self.server) as client:
            client.drop_database(self.name)


MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # the stand-in syncs after each statement


@functools.cache
def mongodb_url() -> str:
    """A real server if one is named, else the stand-in, started once in this process's life."""
    named = os.environ.get("ACCESS_FACADE_TEST_MONGODB")
    return named or start_standin(Path(tempfile.mkdtemp(prefix="standin-", dir=MEMORY)))


def start_standin(folder: Path) -> str:
    """Starts it on a free port; ended with this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        str(Path(__file__).with_name("standin.py")),
        "--data-dir",
        str(folder),
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready ")

    def end() -> None:
        process.kill()
        process.communicate()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return f"mongodb://127.0.0.1:{port}/?replicaSet=standin"


ENGINES = {"sqlite": SqliteEngine, "mongodb": MongoEngine}


@dataclass(frozen=True)
class Samples:
    """Rows to write, each as short as the case allows."""

    participant: str = PARTICIPANT
    other: str = OTHER
    now: datetime = NOW

    def received(self, id: str = "r1", **values: Any) -> Received:
        given = {
            "participant_id": PARTICIPANT,
            "door": Door.REST,
            "agent": "ehr-1",
            "content_type": "application/fhir+json",
            "sha256": "0" * 64,
            "received_at": NOW,
            "body": b'{"resourceType":"Observation"}',
        }
        return Received(id=id, **{**given, **values})

    def resource(self, id: str = "o1", **values: Any) -> StoredResource:
        given = {"participant_id": PARTICIPANT, "resource_type": "Observation", "last_updated": NOW, "body": b"{}"}
        return StoredResource(id=id, **{**given, **values})

    def lookup(self, value: str, resource_id: str = "o1", **values: Any) -> Lookup:
        given = {"participant_id": PARTICIPANT, "resource_type": "Observation", "parameter": "code"}
        return Lookup(value=value, resource_id=resource_id, **{**given, **values})

    def audit(self, entity: str = "Observation/o1", **values: Any) -> AuditEntry:
        given = {"participant_id": PARTICIPANT, "action": "C", "subtype": "create", "outcome": "0", "agent": "ehr-1"}
        return AuditEntry(at=NOW, entity=entity, **{**given, **values})

    def job(self, key: str = "s1", kind: JobKind = JobKind.POLL, *, seconds: float = 0, **values: Any) -> NewJob:
        given = {"participant_id": PARTICIPANT, "due_at": NOW + timedelta(seconds=seconds)}
        return NewJob(kind=kind, key=key, **{**given, **values})


@pytest.fixture
def samples() -> Samples:
    """Rows to write."""
    return Samples()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Each engine in turn, with a store that is not open yet."""
    made = ENGINES[request.param](tmp_path)
    yield made
    made.drop()


@pytest.fixture
def engines() -> dict[str, Any]:
    """Both, for tests that need one of each."""
    return ENGINES


@pytest.fixture
async def store(engine: Any) -> AsyncIterator[Store]:
    """An open store of each engine in turn."""
    opened = engine.open()
    yield opened
    await opened.close()


@pytest.fixture
def other_process(engine: Any) -> Callable[..., list[str]]:
    """The command that runs `other_process.py` on the same store: a task and its arguments."""
    script = Path(__file__).with_name("other_process.py")
    return lambda *arguments: [sys.executable, str(script), engine.url, str(engine.key_file), *map(str, arguments)]
