"""Jobs: merged while they wait, leased once, fenced by their token (reliability C3, P7)."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.domain.errors import LeaseLost, UniqueViolation
from server.domain.job import Job, JobKind, JobState
from server.domain.received import Received, ReceivedState
from server.store.base import Changeset, JobForEach, Store, Where

MACHINE = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)


@pytest.fixture
def claim(store: Store, samples: Any) -> Callable[..., Any]:
    """Claims at the samples' time; `seconds` moves the business clock, `machine` the machine's."""

    async def claimed(*, seconds: float = 0, machine: float = 0, limit: int = 10, kinds: Any = ()) -> Any:
        return await store.claim(
            now=samples.now + timedelta(seconds=seconds),
            machine_now=MACHINE + timedelta(seconds=machine),
            lease_seconds=60,
            limit=limit,
            kinds=kinds,
        )

    return claimed


async def test_a_due_job_is_leased(store: Store, samples: Any, claim: Any) -> None:
    """A claim raises attempts, sets the lease by the machine's clock and gives a token; others then find nothing."""
    await store.commit(Changeset(jobs=(samples.job("s1"),)))
    (job,) = await claim()
    assert (job.kind, job.key, job.state, job.attempts) == (JobKind.POLL, "s1", JobState.LEASED, 1)
    assert (job.due_at, job.leased_until) == (samples.now, MACHINE + timedelta(seconds=60))
    assert job.lease_token
    assert await store.get(Job, id=job.id) == job
    assert not await claim()


async def test_a_job_not_due_waits(store: Store, samples: Any, claim: Any) -> None:
    """A job is claimed from its due time on, to the microsecond."""
    await store.commit(Changeset(jobs=(samples.job(seconds=5),)))
    assert not await claim(seconds=4.999999)
    assert len(await claim(seconds=5)) == 1


async def test_the_oldest_comes_first(store: Store, samples: Any, claim: Any) -> None:
    """Claims come in the order of due times, up to the limit."""
    await store.commit(Changeset(jobs=tuple(samples.job(str(n), seconds=-n) for n in range(5))))
    assert [job.key for job in await claim(limit=2)] == ["4", "3"]
    assert [job.key for job in await claim(limit=9)] == ["2", "1", "0"]


async def test_only_the_kinds_asked_for(store: Store, samples: Any, claim: Any) -> None:
    """A worker may ask for some kinds only, for those whose lease ran out too."""
    await store.commit(Changeset(jobs=(samples.job("a", JobKind.POLL), samples.job("a", JobKind.SEND))))
    assert [job.kind for job in await claim(kinds=[JobKind.SEND])] == [JobKind.SEND]
    assert not await claim(kinds=[JobKind.SEND])
    assert not await claim(kinds=[JobKind.MAP], machine=61)
    assert [job.kind for job in await claim(kinds=[JobKind.SEND], machine=61)] == [JobKind.SEND]


@pytest.mark.parametrize(("first", "second"), [(10, 5), (5, 10)])
async def test_a_second_waiting_job_is_merged(
    store: Store, samples: Any, claim: Any, first: float, second: float
) -> None:
    """One of a kind and key waits, at the earlier due time of the two."""
    await store.commit(Changeset(jobs=(samples.job(seconds=first),)))
    await store.commit(Changeset(jobs=(samples.job(seconds=second),)))
    assert await store.next_due() == samples.now + timedelta(seconds=5)
    assert len(await claim(seconds=20)) == 1


async def test_another_participants_key_is_not_merged_away(store: Store, samples: Any) -> None:
    """A key that waits for one participant is refused to another, never silently dropped."""
    await store.commit(Changeset(jobs=(samples.job(),)))
    with pytest.raises(UniqueViolation):
        await store.commit(Changeset(jobs=(samples.job(participant_id=samples.other),)))


async def test_a_running_job_bars_no_new_one(store: Store, samples: Any, claim: Any) -> None:
    """While one runs, the next of its kind and key may wait."""
    await store.commit(Changeset(jobs=(samples.job(),)))
    (running,) = await claim()
    await store.commit(Changeset(jobs=(samples.job(),)))
    (waiting,) = await claim()
    assert waiting.id != running.id


async def test_finish_deletes_with_the_changeset(store: Store, samples: Any, claim: Any) -> None:
    """A step's rows and the end of its job are one transaction."""
    await store.commit(Changeset(jobs=(samples.job(),)))
    (job,) = await claim()
    await store.commit(Changeset(insert=(samples.received(),), finish=job, jobs=(samples.job("s2"),)))
    assert [left.key for left in await store.find(Job)] == ["s2"]
    assert await store.get(Received, id="r1") is not None


async def test_a_lost_lease_writes_nothing(store: Store, samples: Any, claim: Any) -> None:
    """Whose lease ran out and was taken over can neither finish, release nor bury, and nothing of its step is kept."""
    await store.commit(Changeset(jobs=(samples.job(),)))
    (stale,) = await claim()
    (taken,) = await claim(machine=61)
    assert (taken.id, taken.attempts) == (stale.id, 2)
    with pytest.raises(LeaseLost):
        await store.commit(Changeset(insert=(samples.received(),), jobs=(samples.job("s2"),), finish=stale))
    with pytest.raises(LeaseLost):
        await store.release(stale, due_at=samples.now)
    with pytest.raises(LeaseLost):
        await store.bury(stale)
    assert await store.count(Received) == 0
    assert await store.find(Job) == [taken]
    await store.commit(Changeset(finish=taken))


async def test_a_lease_holds_until_it_ends(store: Store, samples: Any, claim: Any) -> None:
    """The machine's clock ends a lease, the business clock does not."""
    await store.commit(Changeset(jobs=(samples.job(),)))
    await claim()
    assert not await claim(seconds=86400, machine=60)
    assert len(await claim(machine=60.000001)) == 1


async def test_a_lease_that_ran_out_but_was_not_taken_still_finishes(store: Store, samples: Any, claim: Any) -> None:
    """Only another claim ends a lease for its holder: the token decides."""
    await store.commit(Changeset(jobs=(samples.job(),)))
    (job,) = await claim()
    await store.commit(Changeset(finish=job))
    assert await store.count(Job) == 0


async def test_release_gives_it_back(store: Store, samples: Any, claim: Any) -> None:
    """A released job waits again until its new due time, attempts kept."""
    await store.commit(Changeset(jobs=(samples.job(),)))
    (job,) = await claim()
    await store.release(job, due_at=samples.now + timedelta(seconds=30))
    assert not await claim(seconds=29)
    (again,) = await claim(seconds=30)
    assert (again.id, again.attempts) == (job.id, 2)


@pytest.mark.parametrize(("waiting", "released", "kept"), [(10, 5, 5), (5, 10, 5)])
async def test_release_beside_a_waiting_one(
    store: Store, samples: Any, claim: Any, waiting: float, released: float, kept: float
) -> None:
    """If one waits already, that one stays with the earlier due time, and the released one is gone."""
    await store.commit(Changeset(jobs=(samples.job(),)))
    (job,) = await claim()
    await store.commit(Changeset(jobs=(samples.job(seconds=waiting),)))
    await store.release(job, due_at=samples.now + timedelta(seconds=released))
    (left,) = await store.find(Job)
    assert left.id != job.id
    assert left.due_at == samples.now + timedelta(seconds=kept)


async def test_a_lost_lease_brings_no_job_forward(store: Store, samples: Any, claim: Any) -> None:
    """A release that fails leaves the waiting job's due time alone."""
    await store.commit(Changeset(jobs=(samples.job(),)))
    (stale,) = await claim()
    await claim(machine=61)
    await store.commit(Changeset(jobs=(samples.job(seconds=50),)))
    with pytest.raises(LeaseLost):
        await store.release(stale, due_at=samples.now)
    assert await store.next_due() == samples.now + timedelta(seconds=50)


async def test_bury_marks_it_dead(store: Store, samples: Any, claim: Any) -> None:
    """A dead job is kept, is never claimed, and bars no new one."""
    await store.commit(Changeset(jobs=(samples.job(),)))
    (job,) = await claim()
    await store.bury(job)
    assert not await claim(machine=61)
    assert [left.state for left in await store.find(Job)] == [JobState.DEAD]
    await store.commit(Changeset(jobs=(samples.job(),)))
    assert len(await claim()) == 1


async def test_next_due_is_the_earliest_that_waits(store: Store, samples: Any, claim: Any) -> None:
    """Leased and dead jobs do not count."""
    assert await store.next_due() is None
    await store.commit(Changeset(jobs=(samples.job("a", seconds=7), samples.job("b", seconds=3))))
    assert await store.next_due() == samples.now + timedelta(seconds=3)
    await claim(seconds=3)
    assert await store.next_due() == samples.now + timedelta(seconds=7)


async def test_a_job_not_leased_can_not_be_finished(store: Store, samples: Any) -> None:
    """A job that only waits has no holder."""
    await store.commit(Changeset(jobs=(samples.job(),)))
    (waiting,) = await store.find(Job)
    for job in (waiting, replace(waiting, state=JobState.LEASED, lease_token="guess")):
        with pytest.raises(LeaseLost):
            await store.commit(Changeset(finish=job))


async def test_sixteen_workers_never_share_a_job(store: Store, samples: Any, claim: Any) -> None:
    """1,000 jobs (STORE_RACE_JOBS by hand), 16 workers at once: each is claimed exactly once."""
    count = int(os.environ.get("STORE_RACE_JOBS", "1000"))
    for start in range(0, count, 500):
        await store.commit(Changeset(jobs=tuple(samples.job(str(n)) for n in range(start, start + 500))))

    async def worker() -> list[str]:
        mine = []
        while jobs := await claim(limit=7):
            mine += [job.key for job in jobs]
        return mine

    shares = await asyncio.gather(*(worker() for _ in range(16)))
    assert sorted((key for share in shares for key in share), key=int) == [str(n) for n in range(count)]


async def test_workers_of_two_processes_never_share_a_job(store: Store, samples: Any, other_process: Any) -> None:
    """Two processes with four workers each share 400 jobs without overlap."""
    await store.commit(Changeset(jobs=tuple(samples.job(str(n), seconds=-n) for n in range(400))))
    started = [
        subprocess.Popen(other_process("claim", 4), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    ids = [line for process in started for line in process.communicate("go\n", timeout=60)[0].split()]
    assert len(ids) == len(set(ids)) == 400
    assert await store.count(Job, Where("state", "==", JobState.LEASED)) == 400


def _assess_each(samples: Any, participant_id: str, state: ReceivedState) -> JobForEach:
    conditions = (Where("participant_id", "==", participant_id), Where("state", "==", state))
    return JobForEach(
        participant_id=participant_id, kind=JobKind.ASSESS, due_at=samples.now, record=Received, where=conditions
    )


async def test_work_for_each_row_is_enqueued(store: Store, samples: Any, claim: Any) -> None:
    """One job for each row that meets the conditions; its key is the row's id, its owner the row's participant."""
    rows = [samples.received(f"r{n}") for n in range(3)]
    await store.commit(Changeset(insert=tuple(rows)))
    wanted = _assess_each(samples, rows[0].participant_id, ReceivedState.RECEIVED)
    await store.commit(Changeset(each=(wanted,)))
    jobs = await claim()
    assert {(job.participant_id, job.key) for job in jobs} == {(row.participant_id, row.id) for row in rows}


async def test_rows_of_the_same_transaction_count(store: Store, samples: Any, claim: Any) -> None:
    """The rows are looked up after those that come with the same Changeset, and waiting jobs are merged as ever."""
    row = samples.received()
    wanted = _assess_each(samples, row.participant_id, ReceivedState.RECEIVED)
    await store.commit(Changeset(insert=(row,), each=(wanted, wanted)))
    assert [job.key for job in await claim()] == [row.id]


async def test_no_row_means_no_work(store: Store, samples: Any, claim: Any) -> None:
    """Nothing is enqueued where nothing is found, nor for another participant's rows."""
    row = samples.received()
    await store.commit(Changeset(insert=(row,)))
    await store.commit(Changeset(each=(_assess_each(samples, "ACCES99999", ReceivedState.RECEIVED),)))
    await store.commit(Changeset(each=(_assess_each(samples, row.participant_id, ReceivedState.ACCEPTED),)))
    assert not await claim()


async def test_a_lease_of_what_is_held_counts_on(store: Store, samples: Any) -> None:
    """A job that a living process has in hand is not taken when its lease runs out; others are, and so is it later."""
    await store.commit(Changeset(jobs=(samples.job("held"), samples.job("other"))))

    async def taken(machine: float, *held: str) -> dict[str, Job]:
        at = MACHINE + timedelta(seconds=machine)
        jobs = await store.claim(now=samples.now, machine_now=at, lease_seconds=60, limit=9, held=held)
        return {job.key: job for job in jobs}

    jobs = await taken(0)
    assert list(await taken(61, jobs["held"].id)) == ["other"]
    await store.commit(Changeset(finish=jobs["held"]))
    assert await store.get(Job, id=jobs["held"].id) is None


async def test_what_waits_is_taken_whatever_is_held(store: Store, samples: Any) -> None:
    """The hold is on the lease: a job that was given back waits for anyone."""
    await store.commit(Changeset(jobs=(samples.job("s1"),)))
    (job,) = await store.claim(now=samples.now, machine_now=MACHINE, lease_seconds=60, limit=9)
    await store.release(job, due_at=samples.now)
    found = await store.claim(now=samples.now, machine_now=MACHINE, lease_seconds=60, limit=9, held=[job.id])
    assert [each.id for each in found] == [job.id]
