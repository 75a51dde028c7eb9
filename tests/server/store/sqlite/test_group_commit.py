"""Group commit: how many changesets share a sync, and what bounds the event loop's share (reliability B14)."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from server.domain.errors import StoreDamaged, StoreUnavailable
from server.domain.received import Received
from server.domain.resource import Lookup
from server.store.base import Changeset
from server.store.crypto import generate_master_key
from server.store.opening import open_store
from server.store.sqlite import writer


class CountingConnection:
    """Counts commits, and raises what it is told to instead of beginning or committing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.commits = 0
        self.failures: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def execute(self, sql: str, *values: Any) -> Any:
        if code := self.failures.pop(sql, 0):
            error = sqlite3.DatabaseError("as told")
            error.sqlite_errorcode = code
            raise error
        self.commits += sql == "COMMIT"
        return self.connection.execute(sql, *values)


@pytest.fixture
async def counted(tmp_path: Path) -> Any:
    """A store with a data key, and its counting connection."""
    generate_master_key(tmp_path / "master.key")
    store: Any = open_store(f"sqlite:///{tmp_path}/access.db", tmp_path / "master.key")
    await store._key("ACCES12345")
    connection = store._writer._connection = CountingConnection(store._writer._connection)
    yield store, connection
    await store.close()


async def test_a_burst_shares_few_syncs(counted: Any, samples: Any) -> None:
    """320 changesets at once take at most 10 transactions."""
    store, connection = counted
    rows = [samples.received(f"r{n}") for n in range(320)]
    await asyncio.gather(*(store.commit(Changeset(insert=(row,))) for row in rows))
    assert connection.commits <= 10


async def test_large_changesets_end_a_group(counted: Any, samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group ends by its rows too, so that it holds the event loop for some milliseconds at most."""
    monkeypatch.setattr(writer, "ROWS", 20)
    store, connection = counted
    large = [Changeset(insert=tuple(samples.received(f"r{n}-{m}") for m in range(20))) for n in range(5)]
    await asyncio.gather(*map(store.commit, large))
    assert connection.commits == 5


async def test_a_failing_changeset_costs_no_second_sync(counted: Any, samples: Any) -> None:
    """A group with a bad changeset is run again one by one, in the same transaction."""
    store, connection = counted
    rows = [samples.received(f"r{n % 20}") for n in range(21)]
    results = await asyncio.gather(*(store.commit(Changeset(insert=(row,))) for row in rows), return_exceptions=True)
    assert sum(result is not None for result in results) == 1
    assert connection.commits == 1
    assert await store.count(Received) == 20


@pytest.mark.parametrize(
    ("sql", "code", "error"),
    [
        ("BEGIN IMMEDIATE", sqlite3.SQLITE_CORRUPT, StoreDamaged),
        ("BEGIN IMMEDIATE", sqlite3.SQLITE_READONLY, StoreUnavailable),
        ("BEGIN IMMEDIATE", sqlite3.SQLITE_BUSY, None),
        ("COMMIT", sqlite3.SQLITE_FULL, StoreUnavailable),
        ("COMMIT", sqlite3.SQLITE_CORRUPT, StoreDamaged),
    ],
)
async def test_a_group_that_fails_tells_everyone(
    counted: Any, samples: Any, sql: str, code: int, error: type[Exception] | None
) -> None:
    """Whatever ends a transaction, each that waits for it hears of it, nothing was written, and the next may work."""
    store, connection = counted
    connection.failures[sql] = code
    rows = [samples.received(f"r{n}") for n in range(3)]
    results = await asyncio.gather(*(store.commit(Changeset(insert=(row,))) for row in rows), return_exceptions=True)
    assert {type(result) for result in results} == {error or type(None)}
    assert await store.count(Received) == (0 if error else 3)
    await store.commit(Changeset(insert=(samples.received("next"),)))


def test_a_loop_that_ends_leaves_the_store_usable(tmp_path: Path, samples: Any) -> None:
    """A store outlives an event loop that was closed with commits under way."""
    generate_master_key(tmp_path / "master.key")
    store = open_store(f"sqlite:///{tmp_path}/access.db", tmp_path / "master.key")

    async def abandon() -> None:
        await store.commit(Changeset(insert=(samples.received("first"),)))
        for number in range(50):
            commit = asyncio.create_task(store.commit(Changeset(insert=(samples.received(f"r{number}"),))))
            commit.add_done_callback(lambda task: task.cancelled())
        await asyncio.sleep(0)

    async def go_on() -> int:
        await store.commit(Changeset(insert=(samples.received("last"),)))
        return await store.count(Received)

    asyncio.run(abandon())
    assert asyncio.run(asyncio.wait_for(go_on(), 20)) >= 2
    asyncio.run(store.close())


async def test_what_was_begun_shares_the_transaction(counted: Any, samples: Any) -> None:
    """Rows handed over first and what follows in the same turn of the event loop are one transaction."""
    store, connection = counted
    before = connection.commits
    pending = await store.begin(Changeset(insert=(samples.received(),)))
    await pending.commit(Changeset(insert=(samples.resource(),)))
    assert connection.commits == before + 1


async def test_what_was_begun_does_not_wait_for_the_rest(counted: Any, samples: Any) -> None:
    """Rows handed over are written in the next transaction; what comes later follows them."""
    store, _ = counted
    pending = await store.begin(Changeset(insert=(samples.received(),)))
    await store.commit(Changeset(insert=(samples.resource(),)))
    assert len(await store.find(Received)) == 1
    await pending.commit(Changeset(insert=(samples.lookup("a"),)))
    assert await store.find(Lookup)
