"""`store copy` and `store verify`: either direction, resumable, byte for byte."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.domain.errors import StoreDamaged
from server.domain.received import Received
from server.domain.submission import Operation, Submission
from server.store import copy as copying
from server.store.base import Changeset, Where
from server.store.command import copy_store, verify_stores
from server.store.copy import CopyableStore, compare, copy
from server.store.opening import open_copyable, open_store


class Pair:
    """A store of each engine under one master key."""

    def __init__(self, source: Any, target: Any) -> None:
        shutil.copyfile(source.key_file, target.key_file)
        self.source, self.target = source, target
        self.key_file = source.key_file

    def open(self) -> tuple[CopyableStore, CopyableStore]:
        return open_copyable(self.source.url, self.key_file), open_copyable(self.target.url, self.key_file)


@pytest.fixture(params=[("sqlite", "mongodb"), ("mongodb", "sqlite")], ids="-to-".join)
def pair(request: Any, tmp_path: Path, engines: Any) -> Any:
    """Both directions."""
    made = []
    for name in request.param:
        (tmp_path / name).mkdir()
        made.append(engines[name](tmp_path / name))
    yield Pair(*made)
    for engine in made:
        engine.drop()


@pytest.fixture
async def stores(pair: Pair) -> AsyncIterator[tuple[CopyableStore, CopyableStore]]:
    opened = pair.open()
    yield opened
    for store in opened:
        await store.close()


async def fill(store: CopyableStore, samples: Any, count: int = 60) -> None:
    """Rows of several tables and two participants, with blind and sealed values, jobs and chains."""
    for participant in (samples.participant, samples.other):
        ids = [f"{participant}-{n}" for n in range(count)]
        rows = [samples.received(id, participant_id=participant, content_key=f"key {id}", body=b"x" * 50) for id in ids]
        lookups = [samples.lookup(f"v{n}", f"o {n}\n", participant_id=participant) for n in range(count)]
        entries = tuple(samples.audit(id, participant_id=participant) for id in ids)
        jobs = tuple(samples.job(id, participant_id=participant) for id in ids)
        await store.commit(Changeset(insert=(*rows, *lookups), audit=entries, jobs=jobs))


async def test_a_copy_is_the_same_and_is_read(pair: Pair, stores: Any, samples: Any) -> None:
    """Every row arrives, sealed and blind values work, chains hold, and the copy can be opened for use."""
    source, target = stores
    await fill(source, samples)
    done = await copy(source, target)
    assert done.comparison.same
    assert (done.written, done.removed, done.left) == (120 * 4 + 4, 0, 0)  # and two keys, two chains' ends
    opened = open_store(pair.target.url, pair.key_file)
    mine = Where("participant_id", "==", samples.participant)
    (row,) = await opened.find(Received, mine, Where("content_key", "==", f"key {samples.participant}-7"))
    assert row.body == b"x" * 50
    await opened.commit(Changeset(audit=(samples.audit("goes on"),)))
    assert (await opened.verify_audit()).rows == 121
    await opened.close()


async def test_a_second_run_brings_only_what_changed(stores: Any, samples: Any) -> None:
    """Changed, removed and new rows are brought over; a unique value that changed hands is no obstacle."""
    source, target = stores
    await fill(source, samples)
    first = Submission(
        participant_id=samples.participant, id="s1", operation=Operation.ALIGN, patient_id="p", track="CKM", agent="a",
        created_at=samples.now, request_sha256="0", request=b"{}", in_flight_key="p|CKM",
    )  # fmt: skip
    await source.commit(Changeset(insert=(first,)))
    await copy(source, target)
    row = await source.get(Received, id=f"{samples.participant}-3")
    assert row is not None
    freed = replace(first, revision=1, in_flight_key=None)
    second = replace(first, id="s0")
    await source.commit(Changeset(replace=(replace(row, body=b"new"), freed), insert=(second,)))
    done = await copy(source, target)
    assert done.comparison.same
    assert (done.written, done.removed) == (3, 2)
    assert (await copy(source, target)).written == 0


async def test_a_copy_that_was_killed_resumes(pair: Pair, stores: Any, samples: Any, monkeypatch: Any) -> None:
    """What a killed run left half-way can not be opened for use, and the next run goes on from there."""
    source, target = stores
    await fill(source, samples)
    monkeypatch.setattr(copying, "BATCH", 20)
    written = 0

    async def dies(table: Any, rows: Any, write: Any = target.raw_write) -> None:
        nonlocal written
        if written > 200:
            raise KeyboardInterrupt
        await write(table, rows)
        written += len(rows)

    with monkeypatch.context() as killed:
        killed.setattr(target, "raw_write", dies)
        with pytest.raises(KeyboardInterrupt):
            await copy(source, target)
    with pytest.raises(StoreDamaged, match="not finished"):
        open_store(pair.target.url, pair.key_file)
    done = await copy(source, target)
    assert done.comparison.same
    assert 0 < done.written == 484 - written
    await open_store(pair.target.url, pair.key_file).close()


async def test_a_store_of_its_own_is_not_overwritten(stores: Any, samples: Any) -> None:
    """A target with keys of its own is refused before anything is written."""
    source, target = stores
    await fill(source, samples, 3)
    await target.commit(Changeset(insert=(samples.received("mine"),)))
    with pytest.raises(StoreDamaged, match="rows of its own"):
        await copy(source, target)
    assert await target.count(Received) == 1


async def test_a_difference_is_named(pair: Pair, stores: Any, samples: Any) -> None:
    """One changed value in one row is found, and the table named; so is a broken chain."""
    source, target = stores
    await fill(source, samples, 10)
    await copy(source, target)
    pair.target.edit_audit(5, "agent", "nobody")
    found = await compare(source, target)
    assert not found.same
    assert [table.name for table in found.tables if not table.same] == ["audit"]
    assert found.chains[0].broken_at is None
    assert found.chains[1].broken_at == (samples.participant, 5)


async def test_a_source_at_work_is_followed(stores: Any, samples: Any) -> None:
    """While the source goes on writing nothing fails; once it has stopped, a last run makes them the same."""
    source, target = stores
    await fill(source, samples)
    stop = asyncio.Event()

    async def at_work() -> None:
        number = 0
        while not stop.is_set():
            rows = (samples.received(f"new{number}", content_key=f"new {number}"),)
            await source.commit(Changeset(insert=rows, audit=(samples.audit(f"new{number}"),)))
            number += 1

    working = asyncio.create_task(at_work())
    await copy(source, target)
    stop.set()
    await working
    assert (await copy(source, target)).comparison.same


def test_the_commands_copy_and_verify(pair: Pair, samples: Any) -> None:
    """What the command line calls: URLs and the key file in, a result out."""

    async def prepared() -> None:
        source = open_copyable(pair.source.url, pair.key_file)
        await fill(source, samples, 5)
        await source.close()

    asyncio.run(prepared())
    assert not verify_stores(pair.source.url, pair.target.url, pair.key_file).same
    assert copy_store(pair.source.url, pair.target.url, pair.key_file).comparison.same
    assert verify_stores(pair.source.url, pair.target.url, pair.key_file).same


def test_the_sqlite_engine_needs_no_driver() -> None:
    """pymongo is imported only for a mongodb:// URL: it is an extra."""
    code = "import sys; import server.store.opening, server.store.command; sys.exit('pymongo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
