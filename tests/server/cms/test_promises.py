"""The promises P1 to P8 under any mixture of requests, faults, crashes and jumps of the clock (Hypothesis).

In process and without sockets: a model of CMS stands in the place of the HTTP client, and keeps the truth. What is
checked after each step is what CMS saw, never what we believe we sent.
"""

import asyncio
import json
import ssl
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from starlette.applications import Starlette

from server import pipeline
from server import settings as settings_module
from server.cms import poll as poll_module
from server.cms import submit as submit_module
from server.cms.transport import Answer, NoAnswer
from server.context import Context
from server.domain.job import Job
from server.domain.submission import FINAL, Operation, Submission, SubmissionState
from server.initialise import initialise
from server.store.base import Changeset
from server.store.opening import open_store
from tests.server.cms.conftest import PARTICIPANT, put
from tests.server.conftest import FrozenClock, Installation

BASE = "http://127.0.0.1:1/fhir"
OPERATIONS = ("check-eligibility", "align", "unalign", "report-data")
FAULTS = (
    "drop before",
    "drop after",
    "refuse",
    "no location",
    "elsewhere",
    *("401", "403", "404", "409", "410", "429", "500", "503", "302", "400", "garbage"),
)
RESULTS = {"check-eligibility": "eligible", "align": "aligned", "unalign": "unaligned", "report-data": "success"}
REPEATS = {
    "align": "not-aligned-already-aligned",
    "unalign": "patient-not-aligned",
    "report-data": "duplicate",
    "check-eligibility": "eligible",
}


class Crash(BaseException):
    """The process dies here."""


def answered(status: int, body: bytes = b"", **headers: str) -> Answer:
    """CMS's answer."""
    return Answer(status, [(name.encode(), value.encode()) for name, value in headers.items()], body)


async def nothing_follows(*_: Any) -> Changeset:
    """Care periods and reports have tests of their own."""
    return Changeset()


@dataclass
class Model:
    """CMS: takes a body as many times as it comes, has one effect for it, and remembers everything."""

    clock: FrozenClock

    def __post_init__(self) -> None:
        self.faults: list[str] = []
        self.effects: Counter[bytes] = Counter()
        self.posts: list[tuple[bytes, str]] = []  # body, operation
        self.answers: dict[str, str] = {}  # status URL -> result code
        self.polled: dict[str, list[Any]] = defaultdict(list)
        self.origins: set[str] = set()

    async def exchange(
        self, method: str, target: str, headers: dict[str, str], body: bytes | None, **_: Any
    ) -> Answer | NoAnswer:
        path = urlsplit(target).path
        if path.endswith("/token"):
            return self._json(200, {"access_token": "t", "expires_in": 300})
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "refuse":
            return NoAnswer(False, "refused")
        if method == "GET":
            return self._status(urljoin(BASE, target), fault)
        return self._taken(body or b"", path.rpartition("$")[2], fault)

    def _taken(self, body: bytes, operation: str, fault: str) -> Answer | NoAnswer:
        self.posts.append((body, operation))
        if fault == "drop before":
            return NoAnswer(True, "dropped")
        if fault.isdigit():
            return self._json(int(fault), {"resourceType": "OperationOutcome"})
        self.effects[body] += 1
        url = f"{BASE}/access/Patient/$submission-status/sub-{len(self.answers)}"
        self.answers[url] = RESULTS[operation] if self.effects[body] == 1 else REPEATS[operation]
        if fault == "drop after":
            return NoAnswer(True, "dropped")
        location = {"no location": "", "elsewhere": "https://elsewhere.invalid/x"}.get(fault, url)
        return answered(202, **({"Content-Location": location} if location else {}))

    def _status(self, url: str, fault: str) -> Answer | NoAnswer:
        self.polled[url].append(self.clock.now())
        if fault.startswith("drop"):
            return NoAnswer(True, "dropped")
        if fault.isdigit():
            return self._json(int(fault), {"resourceType": "OperationOutcome"})
        if fault == "garbage":
            return answered(200, b"<html>")
        if fault or len(self.polled[url]) < 2:
            return answered(202)
        result = {"name": "result", "valueCodeableConcept": {"coding": [{"code": self.answers[url]}]}}
        return self._json(200, {"resourceType": "Parameters", "parameter": [result]})

    def _json(self, status: int, content: dict[str, Any]) -> Answer:
        return answered(status, json.dumps(content).encode())


class Everywhere(dict[str, Model]):
    """Whatever origin is asked for leads to the model, which remembers it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model

    def __missing__(self, origin: str) -> Model:
        self._model.origins.add(origin)
        return self._model


class Promises(RuleBasedStateMachine):
    """One participant, three patients, one worker that may die at any commit."""

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.consequences = patch.dict(pipeline.CONSEQUENCES, dict.fromkeys(Operation, nothing_follows))
        self.consequences.start()
        self.folder = TemporaryDirectory()
        made = initialise(Path(self.folder.name) / "demo", demo=True, facade_port=8080, sandbox_port=1)
        loaded = settings_module.load(Path(made.config))
        self.clock, self.patients = FrozenClock(), 0
        self.model = Model(self.clock)
        store = open_store(f"sqlite:///{self.folder.name}/p.db", loaded.key_file)
        participant = loaded.participant(PARTICIPANT)
        cms = replace(participant.cms, base_url=BASE, token_url="http://127.0.0.1:1/token")
        self.settings = replace(
            loaded, participants={PARTICIPANT: replace(participant, cms=cms)}, clock_url=None, mllp=None
        )
        self.store, self.bodies = store, {}
        self.made: dict[str, str] = {}
        self.sent_when_stored: dict[str, int] = {}  # POSTs that CMS had seen when the status URL was first on disk
        self._process()

    def _process(self) -> None:
        """A fresh process: nothing in memory."""
        http = httpx2.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        context = Context(self.settings, self.store, self.clock, http, Everywhere(self.model))
        self.worker = Installation(context, Starlette(), self.clock, None, {})  # type: ignore[arg-type]

    @rule(operation=st.sampled_from(OPERATIONS), patient=st.integers(0, 2))
    def ask(self, operation: str, patient: int) -> None:
        body = json.dumps({"n": len(self.made), "operation": operation}).encode()
        name = self.loop.run_until_complete(put(self.worker, operation, patient=f"patient-{patient}", request=body))
        self.made[name] = operation
        self.bodies[name] = body

    @rule(faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=4))
    def disturb(self, faults: list[str]) -> None:
        self.model.faults += faults

    @rule(seconds=st.sampled_from([0, 5, 11, 31, 70, 400, 4000]))
    def work(self, seconds: int) -> None:
        self.loop.run_until_complete(self.worker.work(until=timedelta(seconds=seconds)))

    @rule(days=st.sampled_from([-1, 1, 425]))
    def the_clock_jumps(self, days: int) -> None:
        self.clock.move(days=days)

    @rule(at=st.sampled_from(["_after", "post", "_about_to_post", "status"]))
    def crash(self, at: str) -> None:
        """Dies on reaching a place in the next step that comes there, then starts again; its leases run out."""
        module = poll_module if at == "status" else submit_module
        original = getattr(module, at)

        async def dies(*_: Any, **__: Any) -> None:
            raise Crash

        setattr(module, at, dies)
        try:
            self.loop.run_until_complete(self.worker.work(until=timedelta(seconds=31)))
        except Crash:
            self._process()
        finally:
            setattr(module, at, original)
        self.loop.run_until_complete(self._leases_run_out())

    async def _leases_run_out(self) -> None:
        for job in await self.store.find(Job):
            if job.lease_token is not None:
                await self.store.release(job, due_at=self.clock.now())

    def _rows(self) -> dict[str, Submission]:
        rows = self.loop.run_until_complete(self.store.find(Submission))
        return {row.id: row for row in rows}

    @invariant()
    def nothing_is_lost(self) -> None:
        """P1, P5: every submission is there, and is final or has a job that will go on with it."""
        if not hasattr(self, "store"):
            return
        rows = self._rows()
        assert rows.keys() == self.made.keys()
        keys = {job.key for job in self.loop.run_until_complete(self.store.find(Job))}
        assert all(row.state in FINAL or name in keys for name, row in rows.items())

    @invariant()
    def the_bytes_are_ours(self) -> None:
        """P2: what CMS got is byte for byte what was stored, and was stored before."""
        if hasattr(self, "store"):
            assert {body for body, _ in self.model.posts} <= set(self.bodies.values())
            assert all(row.request == self.bodies[name] for name, row in self._rows().items())

    @invariant()
    def repeats_come_from_uncertain_only(self) -> None:
        """P3, P4: a body is sent again only where an earlier try was counted; every POST was counted before it left."""
        if not hasattr(self, "store"):
            return
        sent = Counter(body for body, _ in self.model.posts)
        for name, row in self._rows().items():
            assert sent[self.bodies[name]] <= row.posts
            assert row.state is not SubmissionState.BUILT or row.posts == 0

    @invariant()
    def nothing_goes_again_after_a_status_url(self) -> None:
        """P3: from the moment a status URL is on disk, CMS sees no POST of these bytes any more."""
        if not hasattr(self, "store"):
            return
        sent = Counter(body for body, _ in self.model.posts)
        for name, row in self._rows().items():
            if row.content_location is not None:
                count = sent[self.bodies[name]]
                assert self.sent_when_stored.setdefault(name, count) == count
            else:
                assert name not in self.sent_when_stored

    @invariant()
    def one_write_at_a_time(self) -> None:
        """P8: of each patient and track, at most one write is in flight."""
        if not hasattr(self, "store"):
            return
        open_states = (SubmissionState.SENDING, SubmissionState.UNCERTAIN, SubmissionState.ACCEPTED)
        writes = Counter(
            row.patient_id
            for row in self._rows().values()
            if row.state in open_states and row.operation != "check-eligibility"
        )
        assert all(count == 1 for count in writes.values())

    @invariant()
    def the_token_stays_at_home(self) -> None:
        """The bearer is sent to CMS's origin only."""
        if hasattr(self, "store"):
            assert self.model.origins <= {"http://127.0.0.1:1"}

    @invariant()
    def no_poll_comes_early(self) -> None:
        """P6: between two polls of a URL at least 10 s, unless the clock was set back or a 401 was repeated."""
        if hasattr(self, "store"):
            for times in self.model.polled.values():
                gaps = [(b - a).total_seconds() for a, b in zip(times, times[1:], strict=False)]
                assert all(gap == 0 or gap < 0 or gap >= 10 for gap in gaps)

    def teardown(self) -> None:
        """In the end, CMS being well, everything comes to an end that someone knows of.

        Many rounds: what waits for a poll that a clock set back by days made late is tried twice a minute till then.
        """
        if not hasattr(self, "store"):
            return
        try:
            self.model.faults.clear()
            self.loop.run_until_complete(self.worker.work(until=timedelta(days=60), rounds=50_000))
            assert {row.state for row in self._rows().values()} <= FINAL
        finally:
            self.consequences.stop()
            self.loop.run_until_complete(self.store.close())
            self.loop.close()
            self.folder.cleanup()


TestPromises = pytest.mark.filterwarnings("default")(Promises.TestCase)
TestPromises.settings = settings(
    max_examples=25,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
