"""The MongoDB engine when things go wrong: conflicts, lost answers, a server that is gone (reliability C4)."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.clock import machine_now
from server.domain.errors import LeaseLost, StoreUnavailable
from server.domain.received import Received
from server.store.base import Changeset, Store
from server.store.mongodb import transactions

Server = Any  # of conftest.py


@pytest.mark.parametrize("fault", ["conflict", "not_primary", "lose_commit", "lose_answer"])
async def test_transient_errors_are_ridden_out(server: Server, store: Store, samples: Any, fault: str) -> None:
    """Every third transaction meets a conflict, a primary that is none any more, a lost commit or a lost answer: each
    is written exactly once."""
    await store.commit(Changeset(insert=(samples.received("first"),)))
    server.faults(**{fault: 3})
    changesets = [Changeset(insert=(samples.received(f"r{n}"),), audit=(samples.audit(f"r{n}"),)) for n in range(90)]
    for start in range(0, 90, 6):
        await asyncio.gather(*map(store.commit, changesets[start : start + 6]))
    server.faults()
    assert await store.count(Received) == 91
    assert (await store.verify_audit()).rows == 90


async def test_a_change_of_the_primary_is_ridden_out(server: Server, store: Store, samples: Any) -> None:
    """Every seventh command of any kind finds no primary: nobody above the store hears of it, no job is taken twice."""
    await store.commit(Changeset(jobs=tuple(samples.job(f"j{n}") for n in range(12))))
    server.faults(stepped_down=7)
    taken: list[str] = []
    for n in range(12):
        await store.commit(Changeset(insert=(samples.received(f"r{n}"),), audit=(samples.audit(f"r{n}"),)))
        jobs = await store.claim(now=samples.now, machine_now=machine_now(), lease_seconds=60, limit=1)
        taken += [job.key for job in jobs]
        assert len(await store.find(Received)) == n + 1
    server.faults()
    assert len(taken) == len(set(taken)) == 12
    assert (await store.verify_audit()).rows == 12


async def test_a_server_that_is_gone_is_told_and_come_back_to(
    server: Server, store: Store, samples: Any, monkeypatch: Any
) -> None:
    """While it is away every call says StoreUnavailable; when it is back the same store object works again."""
    monkeypatch.setattr(transactions, "SECONDS", 0.3)
    await store.commit(Changeset(insert=(samples.received("before"),), jobs=(samples.job(),)))
    server.kill()
    with pytest.raises(StoreUnavailable):
        await store.commit(Changeset(insert=(samples.received("during"),)))
    server.start()
    monkeypatch.setattr(transactions, "SECONDS", 15.0)
    await store.commit(Changeset(insert=(samples.received("after"),)))
    assert {row.id for row in await store.find(Received)} >= {"before", "after"}


async def test_a_restart_under_load_loses_nothing(server: Server, store: Store, samples: Any) -> None:
    """The server is killed three times while 16 tasks write: what was acknowledged is there, once, and chained."""
    acknowledged: list[str] = []
    unsure: list[str] = []

    async def write(task: int) -> None:
        for number in range(20):
            name = f"{task}-{number}"
            row, entry = samples.received(name), samples.audit(name)
            try:
                await store.commit(Changeset(insert=(row,), audit=(entry,)))
                acknowledged.append(name)
            except StoreUnavailable:
                unsure.append(name)

    async def kill() -> None:
        for _ in range(3):
            await asyncio.sleep(0.15)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.start)

    await asyncio.gather(*(write(task) for task in range(16)), kill())
    found = {row.id for row in await store.find(Received)}
    report = await store.verify_audit()
    assert set(acknowledged) <= found
    assert found <= set(acknowledged) | set(unsure)
    assert (report.rows, report.broken_at) == (len(found), None)
    assert len(acknowledged) + len(unsure) == 320


async def test_a_worker_stopped_beyond_its_lease_never_writes(server: Server, store: Store, samples: Any) -> None:
    """50 rounds: a claim is left until its lease ran out and another took it; what the first then writes is refused."""
    machine = datetime(2026, 11, 22, tzinfo=UTC)
    for n in range(50):
        await store.commit(Changeset(jobs=(samples.job(f"j{n}"),)))
        claimed = [
            await store.claim(
                now=samples.now, machine_now=machine + timedelta(seconds=61 * taker), lease_seconds=60, limit=1
            )
            for taker in (0, 1)
        ]
        stale, fresh = (jobs[0] for jobs in claimed)
        written = Changeset(insert=(samples.received(f"stale{n}"),), finish=stale)
        with pytest.raises(LeaseLost):
            await store.commit(written)
        await store.commit(replace(written, insert=(samples.received(f"fresh{n}"),), finish=fresh))
    assert await store.count(Received) == 50


async def test_an_idle_worker_costs_three_small_questions(server: Server, store: Store, samples: Any) -> None:
    """A look for work when there is none: the server's clock, waiting jobs, expired leases. Nothing is written."""
    await store.commit(Changeset(insert=(samples.received("r"),)))
    before, moved = server.faults(), await store.changed()
    for _ in range(20):
        await store.changed()
        assert not await store.claim(now=samples.now, machine_now=samples.now, lease_seconds=60, limit=16)
    assert server.faults() - before <= 20 * 2 + 2  # and what this test's own clients say when they go
    assert await store.changed() == moved


async def test_a_dead_clients_transaction_bars_nobody(server: Server, store: Store, samples: Any) -> None:
    """A client dies within its transaction, which the server ends after a while: the next writer waits, and goes on."""
    server.faults(keep_open=2)
    await store.commit(Changeset(insert=(samples.received("r"),), audit=(samples.audit(),)))
    code = (
        "import sys,time; from pymongo import MongoClient\n"
        f"c = MongoClient('{server.base}/?replicaSet=standin'); s = c.start_session(); s.start_transaction()\n"
        "c['other']['rows'].insert_one({'_id': '1'}, session=s); print('open', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    process.kill()
    process.communicate()
    await store.commit(Changeset(audit=(samples.audit("next"),)))
    assert (await store.verify_audit()).rows == 2
