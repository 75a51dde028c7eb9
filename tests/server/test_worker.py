"""The worker: what becomes of a job whose step succeeds, fails, loses its lease or is still running at a stop."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from server import worker as worker_module
from server.clock import machine_now
from server.context import Context
from server.domain.coordination import WorkItem
from server.domain.errors import BadConfiguration, Conflict, Deferred, PeerUnavailable, StoreUnavailable
from server.domain.job import Job, JobKind, JobState, NewJob
from server.domain.memory import Remembered
from server.initialise import initialise
from server.pipeline import STEPS
from server.settings import Author, CmsEndpoint, Participant, Settings
from server.store.base import Changeset, Where
from server.store.crypto import generate_master_key
from server.store.opening import open_holds, open_store
from server.worker import MAX_ATTEMPTS, Worker

ENTITY = "ACCES12345"
KIND = JobKind.ASSESS
NAME_OF_A_PATIENT = "Quillfeather"
Step = Callable[[Job, Context], Awaitable[Changeset]]


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = datetime(2026, 8, 20, 18, 30, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


@dataclass
class Shop:
    """A store, a clock and a step of one's own."""

    context: Context
    clock: Clock
    monkeypatch: pytest.MonkeyPatch

    def step(self, step: Step, kind: JobKind = KIND) -> None:
        self.monkeypatch.setitem(STEPS, kind, step)

    async def enqueue(self, *keys: str, kind: JobKind = KIND) -> None:
        jobs = tuple(NewJob(participant_id=ENTITY, kind=kind, key=key, due_at=self.clock.at) for key in keys)
        await self.context.store.commit(Changeset(jobs=jobs))

    async def job(self, key: str = "a") -> Job | None:
        found = await self.context.store.find(Job, Where("participant_id", "==", ENTITY))
        return next((job for job in found if job.key == key), None)

    async def work(self, until: Callable[[], Awaitable[bool]], *, seconds: float = 10.0) -> None:
        """A worker until something is so; then it is stopped, and has ended when this returns."""
        worker = Worker(self.context)
        running = asyncio.create_task(worker.run())
        end = time.monotonic() + seconds
        while not await until():
            assert time.monotonic() < end, "the worker did not get there"
            assert not running.done(), running.result()
            await asyncio.sleep(0.005)
        worker.stop()
        await asyncio.wait_for(running, 10)

    async def waits_again(self, key: str = "a") -> bool:
        job = await self.job(key)
        return job is not None and job.state is JobState.WAITING and job.attempts > 0

    async def is_done(self, key: str = "a") -> bool:
        return await self.job(key) is None


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """One participant without a mailbox, an idle worker's wait of 10 ms."""
    participant = Participant(
        entity_id=ENTITY,
        name="Example Care",
        payer_id="00831",
        cms=CmsEndpoint(base_url="https://cms.example/fhir", token_url="https://cms.example/token", client_id="c"),
        author=Author("1234567893", "Rivera", "Ana"),
    )
    settings = Settings(
        path=tmp_path / "access-facade.toml",
        base_url="https://facade.example",
        store_url=f"sqlite:///{tmp_path / 'access.db'}",
        key_file=tmp_path / "master.key",
        participants={ENTITY: participant},
        clients={},
        worker_idle_seconds=0.01,
    )
    generate_master_key(settings.key_file)
    store, clock = open_store(settings.store_url, settings.key_file), Clock()
    async with httpx2.AsyncClient(trust_env=False) as http:
        yield Shop(Context(settings=settings, store=store, clock=clock, http=http), clock, monkeypatch)
    await store.close()


def _fact(name: str) -> Changeset:
    return Changeset(insert=(Remembered(participant_id=ENTITY, name=name, value="1"),))


async def test_what_a_step_returns_is_written_and_the_job_is_gone(shop: Shop) -> None:
    """Rows and the end of the job are one transaction."""

    async def step(job: Job, _: Context) -> Changeset:
        return _fact(job.key)

    shop.step(step)
    await shop.enqueue("a")
    await shop.work(shop.is_done)
    assert await shop.context.store.get(Remembered, participant_id=ENTITY, name="a") is not None


async def test_a_temporary_failure_waits_as_long_as_the_peer_wishes(shop: Shop) -> None:
    """Retry-After is kept, and not by much more."""

    async def step(_: Job, __: Context) -> Changeset:
        raise PeerUnavailable("busy", retry_after_seconds=40.0)

    shop.step(step)
    await shop.enqueue("a")
    await shop.work(shop.waits_again)
    job = await shop.job()
    assert job is not None
    assert timedelta(seconds=40) <= job.due_at - shop.clock.at <= timedelta(seconds=46)
    assert job.attempts == 1


async def test_temporary_failures_without_a_wish_wait_longer_each_time(shop: Shop) -> None:
    """2 s, 4 s, 8 s, a quarter more or less."""

    async def step(_: Job, __: Context) -> Changeset:
        raise PeerUnavailable("gone")

    shop.step(step)
    await shop.enqueue("a")
    for middle in (2.0, 4.0, 8.0):
        started = shop.clock.at
        await shop.work(partial(_due_after, shop, started))
        job = await shop.job()
        assert job is not None
        assert 0.75 * middle <= (job.due_at - started).total_seconds() <= 1.25 * middle
        shop.clock.at = job.due_at


async def _due_after(shop: Shop, at: datetime) -> bool:
    job = await shop.job()
    return job is not None and job.state is JobState.WAITING and job.due_at > at


async def test_what_is_deferred_is_due_again_to_the_second(shop: Shop) -> None:
    """Not a failure: no backoff, no chance."""

    async def step(_: Job, __: Context) -> Changeset:
        raise Deferred("not yet", retry_after_seconds=7.0)

    shop.step(step)
    await shop.enqueue("a")
    await shop.work(shop.waits_again)
    job = await shop.job()
    assert job is not None
    assert job.due_at - shop.clock.at == timedelta(seconds=7)


async def test_a_conflict_is_run_again_at_once(shop: Shop) -> None:
    """Somebody else wrote first: the step reads again."""
    runs: list[int] = []

    async def step(job: Job, _: Context) -> Changeset:
        runs.append(job.attempts)
        if len(runs) == 1:
            raise Conflict("read again")
        return _fact("done")

    async def done() -> bool:
        shop.clock.at += timedelta(milliseconds=10)
        return await shop.is_done()

    shop.step(step)
    await shop.enqueue("a")
    began = shop.clock.at
    await shop.work(done)
    assert runs == [1, 2]
    assert shop.clock.at - began < timedelta(seconds=5)


async def test_an_unforeseen_failure_is_tried_again_then_buried_and_told(shop: Shop) -> None:
    """A defect is neither fatal nor silent; the item for a person holds no text of the exception."""
    runs: list[int] = []

    async def step(job: Job, _: Context) -> Changeset:
        runs.append(job.attempts)
        raise ValueError(NAME_OF_A_PATIENT)

    async def dead() -> bool:
        shop.clock.at += timedelta(minutes=1)
        job = await shop.job()
        return job is not None and job.state is JobState.DEAD

    shop.step(step)
    await shop.enqueue("a")
    await shop.work(dead)
    assert runs == list(range(1, MAX_ATTEMPTS + 1))
    (item,) = await shop.context.store.find(WorkItem)
    assert (item.kind, NAME_OF_A_PATIENT in item.text) == ("job", False)
    assert "ValueError" in item.text


async def test_a_failing_step_holds_nobody_up(shop: Shop) -> None:
    """Another job of the same kind is done meanwhile."""

    async def step(job: Job, _: Context) -> Changeset:
        if job.key == "bad":
            raise RuntimeError
        return _fact(job.key)

    shop.step(step)
    await shop.enqueue("bad", "good")
    await shop.work(lambda: shop.is_done("good"))
    assert await shop.job("bad") is not None


async def test_a_worker_that_lost_its_lease_writes_nothing(shop: Shop) -> None:
    """Another worker took the job over while the step ran: its changes are dropped, the job stays the other's."""

    async def step(_: Job, context: Context) -> Changeset:
        later = machine_now() + timedelta(seconds=context.settings.lease_seconds + 1)
        await context.store.claim(now=shop.clock.at, machine_now=later, lease_seconds=600, limit=10, kinds=(KIND,))
        return _fact("stale")

    async def taken_over() -> bool:
        job = await shop.job()
        return job is not None and job.attempts == 2

    shop.step(step)
    await shop.enqueue("a")
    await shop.work(taken_over)
    assert await shop.context.store.get(Remembered, participant_id=ENTITY, name="stale") is None
    job = await shop.job()
    assert job is not None
    assert (job.state, job.attempts) == (JobState.LEASED, 2)


async def test_a_step_that_lacks_configuration_is_kept(shop: Shop) -> None:
    """Never buried: a person reads what is missing, and the step goes on by itself when it is there."""
    lacking = [True]

    async def step(job: Job, _: Context) -> Changeset:
        if lacking:
            raise BadConfiguration("no file covers a care period that begins on 2020-01-01: add one")
        return _fact(job.key)

    async def told() -> bool:
        job = await shop.job()
        return job is not None and job.state is JobState.WAITING and job.attempts > 0

    shop.step(step)
    await shop.enqueue("a")
    for _ in range(MAX_ATTEMPTS + 1):
        await shop.work(told)
        shop.clock.at += timedelta(hours=1)
    (item,) = await shop.context.store.find(WorkItem)
    assert item.kind == "configuration"
    assert "2020-01-01" in item.text
    lacking.clear()
    await shop.work(shop.is_done)


async def test_a_store_that_is_gone_for_a_moment_stops_no_worker(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker waits a second and asks again."""
    claim, failed = shop.context.store.claim, list[int]()

    async def failing(**given: object) -> object:
        if not failed:
            failed.append(1)
            raise StoreUnavailable("locked")
        return await claim(**given)  # type: ignore[arg-type]

    async def step(job: Job, _: Context) -> Changeset:
        return _fact(job.key)

    monkeypatch.setattr(shop.context.store, "claim", failing)
    shop.step(step)
    await shop.enqueue("a")
    await shop.work(shop.is_done)
    assert failed


async def test_a_stop_finishes_what_runs_and_begins_nothing(shop: Shop) -> None:
    """Drained: the step that runs is committed, what came after the stop waits for the next worker (C11)."""
    running, go_on = asyncio.Event(), asyncio.Event()

    async def step(job: Job, _: Context) -> Changeset:
        running.set()
        await go_on.wait()
        return _fact(job.key)

    shop.step(step)
    await shop.enqueue("a")
    worker = Worker(shop.context)
    task = asyncio.create_task(worker.run())
    await asyncio.wait_for(running.wait(), 10)
    worker.stop()
    await shop.enqueue("b")
    await asyncio.sleep(0.1)
    assert not task.done()
    go_on.set()
    await asyncio.wait_for(task, 10)
    assert await shop.is_done("a")
    later = await shop.job("b")
    assert later is not None
    assert (later.state, later.attempts) == (JobState.WAITING, 0)


async def test_no_more_jobs_run_at_a_time_than_the_settings_allow(shop: Shop) -> None:
    """`concurrency` is a limit."""
    at_once: list[int] = []
    running: set[str] = set()

    async def step(job: Job, _: Context) -> Changeset:
        running.add(job.key)
        at_once.append(len(running))
        await asyncio.sleep(0.01)
        running.discard(job.key)
        return Changeset()

    async def all_done() -> bool:
        return len(at_once) == 12 and not running

    shop.context = replace(shop.context, settings=replace(shop.context.settings, worker_concurrency=3))
    shop.step(step)
    await shop.enqueue(*(f"job-{number}" for number in range(12)))
    await shop.work(all_done)
    assert max(at_once) == 3


async def test_an_idle_worker_writes_nothing_and_costs_little(shop: Shop) -> None:
    """With nothing due: no commit, and under a fifth of one processor at 25 times the usual pace."""
    other = open_store(shop.context.settings.store_url, shop.context.settings.key_file)
    worker = Worker(shop.context)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0.3)  # the standing jobs are made and done
    before, spent = await other.changed(), time.process_time()
    await asyncio.sleep(1.0)
    spent = time.process_time() - spent
    assert await other.changed() == before
    assert spent < 0.2
    worker.stop()
    await asyncio.wait_for(running, 10)
    await other.close()


async def test_an_idle_worker_asks_for_one_number_only(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody writes and nothing falls due it claims nothing; what another process enqueues is done at once."""
    asked: list[str] = []

    def told(name: str) -> None:
        ask = getattr(shop.context.store, name)

        async def asking(**given: Any) -> Any:
            asked.append(name)
            return await ask(**given)

        monkeypatch.setattr(shop.context.store, name, asking)

    told("changed")
    told("claim")
    worker = Worker(shop.context)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0.5)  # the standing jobs are made and done
    asked.clear()
    await asyncio.sleep(0.5)
    assert asked.count("claim") < asked.count("changed") / 4
    worker.stop()
    await asyncio.wait_for(running, 10)


async def test_the_standing_jobs_exist_once(shop: Shop, tmp_path: Path) -> None:
    """However many workers start: one look for what a crash left, one look into each mailbox."""
    settings = shop.context.settings
    participant = replace(settings.participants[ENTITY], mailbox=tmp_path / "mail")
    shop.context = replace(shop.context, settings=replace(settings, participants={ENTITY: participant}))

    async def both() -> bool:
        kinds = [job.kind for job in await shop.context.store.find(Job)]
        return JobKind.RECOVER in kinds and JobKind.MAILBOX in kinds

    await asyncio.gather(*(shop.work(both) for _ in range(3)))
    kinds = sorted(job.kind for job in await shop.context.store.find(Job))
    assert kinds == [JobKind.MAILBOX, JobKind.RECOVER]


@pytest.mark.parametrize("moment", ["store opened", "at work"])
def test_a_sigterm_ends_the_worker_program_in_order(tmp_path: Path, moment: str) -> None:
    """`access-facade worker`: exit 0, within seconds, nothing said that is not a log line; also before it works."""
    file = tmp_path / "demo" / "access.db"
    reached = file.exists if moment == "store opened" else partial(_is_at_work, file)
    made = initialise(tmp_path / "demo", demo=True)
    text = made.config.read_text().replace('source = "http://127.0.0.1:8090/sandbox/clock"', 'source = "system"')
    made.config.write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-m", "server.cli", "worker", "--config", str(made.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 30
    while not reached():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.002 if moment == "store opened" else 0.05)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, b""), err[-2000:]
    assert b"Traceback" not in err
    assert time.monotonic() - began < 10


def _is_at_work(file: Path) -> bool:
    """Whether a worker has made its standing jobs: from then on a signal is heard."""
    if not file.exists():
        return False
    with contextlib.closing(sqlite3.connect(file)) as store, contextlib.suppress(sqlite3.OperationalError):
        return store.execute("SELECT 1 FROM job WHERE kind = 'recover'").fetchone() is not None
    return False


async def test_what_can_not_be_done_again_waits_for_a_living_process(shop: Shop) -> None:
    """A lease that ran out while another process has the job in hand moves nothing; once that has ended, it does."""
    runs: list[str] = []

    async def step(job: Job, _: Context) -> Changeset:
        runs.append(job.key)
        return Changeset()

    async def looked_again() -> bool:
        return await shop.is_done("b")

    shop.step(step, kind=JobKind.SEND)
    await shop.enqueue("a", kind=JobKind.SEND)
    past = machine_now() - timedelta(hours=1)
    (job,) = await shop.context.store.claim(
        now=shop.clock.at, machine_now=past, lease_seconds=60, limit=9, kinds=(JobKind.SEND,)
    )
    with open_holds(shop.context.settings.store_url).hold(job.id) as ours:
        assert ours
        await shop.enqueue("b", kind=JobKind.SEND)
        await shop.work(looked_again)
        assert runs == ["b"]
    await shop.work(shop.is_done)
    assert runs == ["b", "a"]


async def test_a_person_is_told_which_process_does_not_go_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, with the process and what to do."""

    async def told() -> bool:
        return bool(await shop.context.store.find(WorkItem))

    monkeypatch.setattr(worker_module, "STUCK_SECONDS", -1.0)
    await shop.enqueue("submission-1", kind=JobKind.SEND)
    (job,) = await shop.context.store.claim(
        now=shop.clock.at, machine_now=machine_now(), lease_seconds=60, limit=9, kinds=(JobKind.SEND,)
    )
    with open_holds(shop.context.settings.store_url).hold(job.id):
        await shop.work(told)
        await shop.work(told)
    (item,) = await shop.context.store.find(WorkItem)
    assert (item.kind, item.subject) == ("process", "submission/submission-1")
    assert f"Process {os.getpid()} on " in item.text


@pytest.mark.parametrize(("kind", "kept"), [(JobKind.SEND, True), (KIND, False)])
async def test_an_answer_counts_though_the_lease_is_lost(shop: Shop, kind: JobKind, kept: bool) -> None:
    """What CMS answered is known, whoever has the job by now; what can be done again is left to that one."""

    async def step(_: Job, context: Context) -> Changeset:
        later = machine_now() + timedelta(seconds=context.settings.lease_seconds + 1)
        await context.store.claim(now=shop.clock.at, machine_now=later, lease_seconds=600, limit=10, kinds=(kind,))
        return _fact("answer")

    async def taken_over() -> bool:
        job = await shop.job()
        return job is not None and job.attempts == 2

    shop.step(step, kind=kind)
    await shop.enqueue("a", kind=kind)
    await shop.work(taken_over)
    found = await shop.context.store.get(Remembered, participant_id=ENTITY, name="answer")
    assert (found is not None) is kept


async def test_an_answer_does_not_count_once_another_has_begun(shop: Shop) -> None:
    """The row has moved on since: the late answer is to an earlier try than the one that counts now."""
    await shop.context.store.commit(_fact("row"))

    async def step(_: Job, context: Context) -> Changeset:
        before = await context.store.get(Remembered, participant_id=ENTITY, name="row")
        assert before is not None
        later = machine_now() + timedelta(seconds=context.settings.lease_seconds + 1)
        await context.store.claim(
            now=shop.clock.at, machine_now=later, lease_seconds=600, limit=10, kinds=(JobKind.SEND,)
        )
        await context.store.commit(Changeset(replace=(replace(before, value="another's"),)))
        return Changeset(replace=(replace(before, value="late"),))

    async def taken_over() -> bool:
        job = await shop.job()
        return job is not None and job.attempts == 2

    shop.step(step, kind=JobKind.SEND)
    await shop.enqueue("a", kind=JobKind.SEND)
    await shop.work(taken_over)
    row = await shop.context.store.get(Remembered, participant_id=ENTITY, name="row")
    assert row is not None
    assert row.value == "another's"
