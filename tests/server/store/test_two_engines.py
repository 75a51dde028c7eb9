"""The same operations on both engines give the same answers (Hypothesis)."""

import asyncio
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from server.domain.errors import FacadeError, UniqueViolation
from server.domain.job import Job, JobKind
from server.domain.received import Received
from server.domain.resource import Lookup
from server.store.base import Changeset, Where

IDS = st.sampled_from(["a", "b", "c\n"])
KEYS = st.sampled_from([None, "k1", "k2"])
WHOSE = st.sampled_from(["ACCES12345", "ACCES54321"])
SECONDS = st.integers(0, 5)
KINDS = st.sampled_from([JobKind.POLL, JobKind.SEND])
MACHINE = datetime(2026, 11, 22, tzinfo=UTC)


class BothEngines(RuleBasedStateMachine):
    """Every rule does one thing to both stores; both must succeed alike or fail alike, and then hold the same."""

    engines: ClassVar[dict[str, Any]]
    samples: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.at = []
        for name, kind in self.engines.items():
            (Path(self.folder.name) / name).mkdir()
            self.at.append(kind(Path(self.folder.name) / name))
        self.stores = [at.open() for at in self.at]
        self.machine = MACHINE
        self.held: list[tuple[Job, Job]] = []

    def teardown(self) -> None:
        for store, at in zip(self.stores, self.at, strict=True):
            self.runner.run(store.close())
            at.drop()
        self.runner.close()
        self.folder.cleanup()

    def both(self, ask: Any) -> list[Any]:
        """What each says, or how it fails."""

        async def one(store: Any, index: int) -> Any:
            try:
                return await ask(store, index)
            except UniqueViolation as barred:
                return UniqueViolation, barred.table, barred.index
            except FacadeError as failure:
                return type(failure)

        return [self.runner.run(one(store, index)) for index, store in enumerate(self.stores)]

    def commit(self, make: Any) -> None:
        first, second = self.both(lambda store, index: store.commit(make(index)))
        assert first == second

    @rule(id=IDS, key=KEYS, whose=WHOSE, text=st.text(max_size=5))
    def insert(self, id: str, key: str | None, whose: str, text: str) -> None:
        """A row, a look-up, an audit entry and a job, or none of them."""
        row = self.samples.received(id, participant_id=whose, content_key=key, agent=text)
        lookup = self.samples.lookup(text, id, participant_id=whose)
        entry = self.samples.audit(id, participant_id=whose)
        job = self.samples.job(id, participant_id=whose)
        self.commit(lambda _: Changeset(insert=(row, lookup), audit=(entry,), jobs=(job,)))

    @rule(id=IDS, key=KEYS, behind=st.integers(0, 1))
    def replace_row(self, id: str, key: str | None, behind: int) -> None:
        """As it was read, or one revision behind."""
        rows = self.both(lambda store, _: store.get(Received, id=id))
        assert (rows[0] is None) is (rows[1] is None)
        if rows[0] is not None:
            changed = [replace(row, content_key=key, revision=row.revision - behind) for row in rows]
            self.commit(lambda index: Changeset(replace=(changed[index],)))

    @rule(id=IDS)
    def delete(self, id: str) -> None:
        """A row goes."""
        rows = self.both(lambda store, _: store.get(Received, id=id))
        if rows[0] is not None:
            self.commit(lambda index: Changeset(delete=(rows[index],)))

    @rule(key=IDS, kind=KINDS, whose=WHOSE, seconds=SECONDS)
    def enqueue(self, key: str, kind: JobKind, whose: str, seconds: int) -> None:
        """A job, merged with the one that waits, or barred by another participant's."""
        job = self.samples.job(key, kind, seconds=seconds, participant_id=whose)
        self.commit(lambda _: Changeset(jobs=(job,)))

    @rule(seconds=SECONDS, limit=st.integers(1, 2), kinds=st.sampled_from([(), (JobKind.SEND,)]))
    def claim(self, seconds: int, limit: int, kinds: Any) -> None:
        """The same jobs in the same order; of those due at the same instant any may come first."""
        now = self.samples.now + timedelta(seconds=seconds)
        due = self.both(lambda store, _: store.find(Job, order_by="due_at"))[0]
        if len({job.due_at for job in due}) != len(due):
            return
        claimed = self.both(
            lambda store, _: store.claim(now=now, machine_now=self.machine, lease_seconds=60, limit=limit, kinds=kinds)
        )
        assert [told(job) for job in claimed[0]] == [told(job) for job in claimed[1]]
        self.held += zip(*claimed, strict=True)

    @rule(seconds=st.sampled_from([1, 61]))
    def time_passes(self, seconds: int) -> None:
        """Leases may run out."""
        self.machine += timedelta(seconds=seconds)

    @rule(how=st.sampled_from(["finish", "release", "bury"]), seconds=SECONDS)
    def end(self, how: str, seconds: int) -> None:
        """The oldest lease ends, or turns out to be lost."""
        if not self.held:
            return
        jobs = self.held.pop(0)
        due_at = self.samples.now + timedelta(seconds=seconds)
        if how == "finish":
            self.commit(lambda index: Changeset(finish=jobs[index], insert=(self.samples.received(),)))
        elif how == "release":
            assert len(set(self.both(lambda store, index: store.release(jobs[index], due_at=due_at)))) == 1
        else:
            assert len(set(self.both(lambda store, index: store.bury(jobs[index])))) == 1

    @invariant()
    def same_answers(self) -> None:
        """Rows, orders, counts, look-ups, due times and chains."""
        for whose in ("ACCES12345", "ACCES54321"):
            mine = Where("participant_id", "==", whose)
            for key in ("k1", None):
                where = (mine, Where("content_key", "==", key))
                self.agree(lambda store, _, where=where: store.find(Received, *where))
            self.agree(lambda store, _, mine=mine: store.find(Lookup, mine, descending=True, limit=2))
        self.agree(lambda store, _: store.find(Received, order_by="agent", descending=True))
        self.agree(lambda store, _: store.count(Received, Where("id", "in", ("a", "c\n"))))
        self.agree(lambda store, _: store.next_due())
        jobs = self.both(lambda store, _: store.find(Job))
        assert sorted(map(told, jobs[0])) == sorted(map(told, jobs[1]))
        self.agree(lambda store, _: store.verify_audit())

    def agree(self, ask: Any) -> None:
        """Hashes are each store's own, and so is the order by them."""
        first, second = self.both(ask)
        if isinstance(first, list):
            assert len(first) == len(second)
            if first and not isinstance(first[0], Lookup):
                hashes = {"content_key": None}
                assert [replace(row, **hashes) for row in first] == [replace(row, **hashes) for row in second]
        else:
            assert first == second


def told(job: Job) -> tuple[Any, ...]:
    """What does not hang on chance."""
    return (job.participant_id, job.kind, job.key, job.due_at, job.state, job.attempts, job.revision)


def test_both_engines_give_the_same_answers(engines: Any, samples: Any) -> None:
    """Inserts, changes, jobs, leases and time in any order: the engines differ in nothing that a caller can see."""
    BothEngines.engines, BothEngines.samples = engines, samples
    few = settings(
        max_examples=6, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(BothEngines, settings=few)
