"""Machines whose clocks differ: leases are counted by the database's clock (reliability C3)."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server import clock
from server.domain.job import Job
from server.store.base import Changeset, Store
from server.store.opening import open_store

OFF = [timedelta(minutes=10), timedelta(minutes=-10)]


class Machine:
    """A process on a machine whose clock is off."""

    def __init__(self, store: Store, off: timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.off, self.monkeypatch = store, off, monkeypatch

    def now(self) -> datetime:
        return datetime.now(UTC) + self.off

    async def claim(self, now: datetime, *, lease_seconds: float = 60.0) -> Sequence[Job]:
        """As its worker does: a look at the store, then a claim, both by its own clock."""
        with self.monkeypatch.context() as here:
            here.setattr(clock, "machine_now", self.now)
            await self.store.changed()
            return await self.store.claim(now=now, machine_now=self.now(), lease_seconds=lease_seconds, limit=9)


@pytest.fixture(params=OFF, ids=["ahead", "behind"])
async def machines(request: Any, store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One whose clock is right, and one whose clock is off."""
    other = open_store(url, tmp_path / "master.key")
    yield Machine(store, timedelta(0), monkeypatch), Machine(other, request.param, monkeypatch)
    await other.close()


@pytest.mark.parametrize("first_is_off", [False, True])
async def test_a_lease_is_kept_by_all(machines: Any, samples: Any, first_is_off: bool) -> None:
    """Whichever of the two holds it: the other takes it over when it has run out, and not before."""
    holder, other = reversed(machines) if first_is_off else machines
    await holder.store.commit(Changeset(jobs=(samples.job(),)))
    (job,) = await holder.claim(samples.now, lease_seconds=0.5)
    assert not await other.claim(samples.now)
    await asyncio.sleep(0.6)
    (taken,) = await other.claim(samples.now)
    assert (taken.id, taken.attempts) == (job.id, 2)


async def test_a_holder_is_told_by_its_own_clock(machines: Any, samples: Any) -> None:
    """What a worker has left of its lease it can tell by the clock that it sees."""
    _, off = machines
    await off.store.commit(Changeset(jobs=(samples.job(),)))
    (job,) = await off.claim(samples.now)
    assert abs((job.leased_until - off.now()).total_seconds() - 60) < 5


async def test_clocks_that_agree_are_left_alone(store: Store, samples: Any) -> None:
    """A difference below a second is the way to the server: no time that was given is changed by it."""
    await store.commit(Changeset(jobs=(samples.job(),)))
    (job,) = await store.claim(now=samples.now, machine_now=samples.now, lease_seconds=60, limit=1)
    assert await store.get(Job, id=job.id) == job
    assert job.leased_until == samples.now + timedelta(seconds=60)
