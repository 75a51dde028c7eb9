"""Takes due jobs and runs their step. Any number of workers may share one store.

A step's Changeset is committed together with the end of its job, under the job's lease: a worker that was stopped
beyond its lease writes nothing. Temporary failures give the job back, due later; what keeps failing is buried, and a
person is told.
"""

import asyncio
import contextlib
import random
import time
from datetime import datetime, timedelta

from server.clock import machine_now
from server.cms.transitions import retry_wait
from server.context import Context
from server.coordination.configured import webhooks
from server.domain.errors import (
    BadConfiguration,
    Conflict,
    Deferred,
    FacadeError,
    LeaseLost,
    StoreUnavailable,
    Temporary,
)
from server.domain.job import Job, JobKind, NewJob
from server.logs import get_logger
from server.pipeline import STEPS
from server.store.base import Changeset
from server.store.holds import Hold
from server.store.opening import open_holds
from server.work_items import work_item

DEFER_SECONDS = 0.25
# Their steps do what can not be done again: nobody else begins one while its process lives (server/store/holds.py).
HELD = frozenset({JobKind.SEND})
STUCK_SECONDS = 300.0  # in hand for so long: its process does not go on, and a person is told
LACKING_WAIT = timedelta(hours=1)  # until a step that found the settings wrong looks again
LOOK_SECONDS = 5.0  # an idle worker asks for work at least so often: a lease runs out without anyone writing
MAX_ATTEMPTS = 12  # of a step that fails for a reason nobody foresaw

log = get_logger()


class Worker:
    """Runs until it is stopped; what it holds then is finished or given back.

    Polls of CMS have a lane of their own: they are many and slow, and nothing else is to wait for them.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.stopped = asyncio.Event()
        self._deferred: list[tuple[Job, datetime]] = []
        self._deferring: asyncio.Task[None] | None = None
        self._holds = open_holds(context.settings.store_url)
        self._told: set[str] = set()
        others = tuple(kind for kind in JobKind if kind is not JobKind.POLL)
        settings = context.settings
        self._lanes = (
            _Lane(self, kinds=others, limit=settings.worker_concurrency),
            _Lane(self, kinds=(JobKind.POLL,), limit=settings.worker_poll_concurrency, steady=True),
        )

    def stop(self) -> None:
        """Takes no more jobs."""
        self.stopped.set()
        for lane in self._lanes:
            lane.room.set()

    async def run(self) -> None:
        """Until stopped: claim, run, wait for work to become due."""
        await self._standing_jobs()
        await webhooks(self.context)
        await asyncio.gather(*(lane.run() for lane in self._lanes))
        if self._deferring is not None:
            await self._deferring

    async def do(self, job: Job) -> None:
        """Runs the job's step and writes what follows; what can not be done again is in hand as long."""
        if job.kind not in HELD:
            await self._done(job)
            return
        try:
            with self._holds.hold(job.id) as ours:
                if ours:
                    await self._done(job)
                    return
        except StoreUnavailable as failure:
            log.warning("not in hand", job_id=job.id, job_kind=job.kind, error=str(failure))
        self._put_off(job, timedelta(seconds=DEFER_SECONDS))

    async def _done(self, job: Job) -> None:
        context, changes = self.context, Changeset()
        try:
            changes = await STEPS[job.kind](job, context)
            await context.store.commit(changes + Changeset(finish=job))
        except LeaseLost:
            log.warning("lease lost", job_id=job.id, job_kind=job.kind)
            await self._known(job, changes)
        except Conflict:  # somebody else wrote first: look again at once
            await self._give_back(job, timedelta(milliseconds=50))
        except Deferred as later:
            self._put_off(job, timedelta(seconds=later.retry_after_seconds or 0.0))
        except BadConfiguration as lacking:
            await self._lacking(job, lacking)
        except Temporary as failure:
            log.info("later", job_id=job.id, job_kind=job.kind, error=type(failure).__name__)
            await self._give_back(job, retry_wait(job.attempts, failure.retry_after_seconds))
        except Exception as failure:  # the edge: a defect must not stop the worker, nor be lost
            log.error("step failed", job_id=job.id, job_kind=job.kind, exc_info=failure)
            await self._failed(job, failure)

    async def _known(self, job: Job, changes: Changeset) -> None:
        """What a step that can not be done again has learnt counts, whoever has the job now, unless that one has begun
        as well: the revision of the row says so. A status URL of CMS is not thrown away for a clock's sake."""
        if job.kind in HELD:
            with contextlib.suppress(FacadeError):
                await self.context.store.commit(changes)

    async def held(self) -> tuple[str, ...]:
        """The jobs that a living process has in hand. Raises StoreUnavailable."""
        held = self._holds.held()
        for hold in held:
            if hold.seconds > STUCK_SECONDS and hold.job_id not in self._told:
                with contextlib.suppress(FacadeError):  # told when this is looked at again
                    await self._tell_of_stuck(hold)
                    self._told.add(hold.job_id)
        return tuple(hold.job_id for hold in held)

    async def _tell_of_stuck(self, hold: Hold) -> None:
        job = await self.context.store.get(Job, id=hold.job_id)
        if job is None:
            return
        text = (
            f"Process {hold.process} has begun to send this to CMS and neither goes on nor ends. Let it go on, or end "
            "it: then the submission goes on by itself. Until then nobody else sends it, for CMS might get it twice."
        )
        items = await work_item(
            self.context, participant_id=job.participant_id, kind="process", subject=f"submission/{job.key}", text=text
        )
        await self.context.store.commit(Changeset(insert=items))

    def _put_off(self, job: Job, wait: timedelta) -> None:
        """Gives it back together with all others that are put off within a moment: one write to the disk for many."""
        self._deferred.append((job, self.context.clock.now() + wait))
        if self._deferring is None:
            self._deferring = asyncio.create_task(self._release_deferred())

    async def _release_deferred(self) -> None:
        await asyncio.sleep(DEFER_SECONDS)
        deferred, self._deferred, self._deferring = self._deferred, [], None
        released = (self.context.store.release(job, due_at=due_at) for job, due_at in deferred)
        for failure in await asyncio.gather(*released, return_exceptions=True):
            if isinstance(failure, BaseException) and not isinstance(failure, LeaseLost):
                log.warning("not given back", error=type(failure).__name__)  # the lease will run out by itself

    async def _give_back(self, job: Job, wait: timedelta) -> None:
        with contextlib.suppress(FacadeError):  # the lease will run out by itself
            await self.context.store.release(job, due_at=self.context.clock.now() + wait)

    async def _lacking(self, job: Job, failure: BadConfiguration) -> None:
        """A person has to mend the settings or add a file; the job is kept and goes on by itself then."""
        log.warning("configuration lacks something", job_id=job.id, job_kind=job.kind)
        text = f"{str(failure).rstrip('.')}. Until then the step {job.kind} waits; it is tried every hour."
        with contextlib.suppress(FacadeError):
            items = await work_item(
                self.context,
                participant_id=job.participant_id,
                kind="configuration",
                subject=f"job/{job.id}",
                text=text,
            )
            await self.context.store.commit(Changeset(insert=items))
        await self._give_back(job, LACKING_WAIT)

    async def _failed(self, job: Job, failure: Exception) -> None:
        if job.attempts < MAX_ATTEMPTS:
            await self._give_back(job, retry_wait(job.attempts, None))
            return
        name = type(failure).__name__
        text = f"The step {job.kind} failed {job.attempts} times ({name}). Tell whoever keeps this software."
        with contextlib.suppress(FacadeError):
            items = await work_item(
                self.context, participant_id=job.participant_id, kind="job", subject=f"job/{job.id}", text=text
            )
            await self.context.store.commit(Changeset(insert=items))
            await self.context.store.bury(job)

    async def _standing_jobs(self) -> None:
        """The jobs that go on for ever: each renews itself; here they are made if they are missing."""
        now = self.context.clock.now()
        jobs = [NewJob(participant_id="", kind=JobKind.RECOVER, key="recover", due_at=now)]
        jobs += [
            NewJob(participant_id=participant.entity_id, kind=JobKind.MAILBOX, key=participant.entity_id, due_at=now)
            for participant in self.context.settings.participants.values()
            if participant.mailbox is not None
        ]
        await self.context.store.commit(Changeset(jobs=tuple(jobs)))


class _Lane:
    """Jobs of some kinds, up to a limit at a time. `steady`: taken in one batch a tick, not each as it falls due."""

    def __init__(self, worker: Worker, *, kinds: tuple[JobKind, ...], limit: int, steady: bool = False) -> None:
        self._worker, self._context, self._stop = worker, worker.context, worker.stopped
        self._kinds, self._limit, self._steady = kinds, limit, steady
        self._least = max(limit // 2, 1) if steady else 1  # free places that are worth a claim
        self._running: set[asyncio.Task[None]] = set()
        self.room = asyncio.Event()

    async def run(self) -> None:
        """Until stopped; then what runs is finished."""
        seen = -1
        while not self._stop.is_set():
            free = self._limit - len(self._running)
            if free < self._least:
                await self._wait_for_room()
                continue
            changed, jobs = await self._claim(free)
            for job in jobs:
                self._start(job)
            if len(jobs) < free and (self._steady or (not jobs and changed == seen)):
                await self._idle(changed)
            seen = changed
        await self._drain()

    async def _claim(self, limit: int) -> tuple[int, list[Job]]:
        context = self._context
        try:
            changed = await context.store.changed()
            # Before the look who has what in hand: whatever is begun under a lease that holds is seen by that look.
            at = machine_now()
            jobs = await context.store.claim(
                now=context.clock.now(),
                machine_now=at,
                lease_seconds=context.settings.lease_seconds,
                limit=limit,
                kinds=self._kinds,
                held=() if HELD.isdisjoint(self._kinds) else await self._worker.held(),
            )
        except Temporary as failure:
            log.warning("store unavailable", error=type(failure).__name__)
            await asyncio.sleep(1.0)
            return -2, []
        return changed, list(jobs)

    async def _idle(self, seen: int) -> None:
        """Sleeps until somebody has written, a job falls due, or a lease may have run out; a stop ends it at once.

        Each look is at one counter. They are spread by chance, so that many workers do not ask at the same moment.
        """
        end = time.monotonic() + LOOK_SECONDS * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        store, clock = self._context.store, self._context.clock
        with contextlib.suppress(Temporary):  # the next claim waits for a store that is away
            due = await store.next_due()
            while not await self._stopped_within(self._context.settings.worker_idle_seconds):
                if time.monotonic() > end or (due is not None and due <= clock.now()) or await store.changed() != seen:
                    return

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            spread = seconds * random.uniform(0.75, 1.25)  # noqa: S311 - as above
            await asyncio.wait_for(self._stop.wait(), timeout=spread)
        return self._stop.is_set()

    async def _wait_for_room(self) -> None:
        self.room.clear()
        await self.room.wait()

    def _start(self, job: Job) -> None:
        task = asyncio.create_task(self._worker.do(job), name=f"{job.kind} {job.id}")
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self.room.set()

    async def _drain(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=25.0)
