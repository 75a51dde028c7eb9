"""The promises of the submission engine as invariants of a random history: requests, values, faults of CMS, crashes,
days going by (reliability 2.2, P1 to P5 and P8). `PROMISE_STEPS` and `PROMISE_HISTORIES` make it longer."""

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from inputs import beneficiary, mbi

from profiles import fhir_json
from profiles.canonical import ACCESS, ACCESS_CODES
from sandbox.app import create_app as create_sandbox
from sandbox.app import server as sandbox_server
from sandbox.settings import load as sandbox_settings
from server import settings as settings_module
from server.app import create_app
from server.clock import machine_now
from server.cms.client import connections
from server.context import Context
from server.demo import messages
from server.demo.story import VISITS
from server.domain.coordination import WorkItem
from server.domain.errors import Conflict, Temporary
from server.domain.job import Job, JobKind, JobState
from server.domain.submission import FINAL, Submission, SubmissionState
from server.initialise import InitResult, initialise
from server.pipeline import STEPS
from server.settings import Settings
from server.store.base import Changeset, Where
from server.store.opening import open_store

BEGIN = datetime(2026, 8, 20, 14, 0, tzinfo=UTC)
WRITES = frozenset({"align", "unalign", "report-data"})
UNDER_WAY = frozenset({SubmissionState.SENDING, SubmissionState.UNCERTAIN, SubmissionState.ACCEPTED})
PEOPLE = st.integers(0, 2)
FAULTS = st.sampled_from(
    [
        {"fault": "http", "status": 503, "headers": {"Retry-After": "5"}},
        {"fault": "http", "status": 500},
        {"fault": "http", "status": 401},
        {"fault": "http", "status": 429},
        {"fault": "http", "status": 422},
        {"fault": "reset-before"},
        {"fault": "reset-after"},
        {"fault": "truncate"},
        {"fault": "html"},
        {"fault": "no-location"},
    ]
)
CALLS = st.sampled_from(["token", "align", "unalign", "report-data", "check-eligibility", "status"])
STANDING = (JobKind.RECOVER, JobKind.MAILBOX)
T = TypeVar("T")


class Crash(BaseException):
    """The process is gone: nothing catches it."""


class Clock:
    def __init__(self) -> None:
        self.at = BEGIN

    def now(self) -> datetime:
        return self.at


class Cms:
    """The stand-in CMS on a socket, in a thread; one for all histories."""

    def __init__(self, folder: Path) -> None:
        app = create_sandbox(None)
        server = sandbox_server(app)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.made: InitResult = initialise(folder / "demo", demo=True, sandbox_port=self._socket.getsockname()[1])
        app.state.world.settings = replace(sandbox_settings(folder / "demo" / "sandbox.toml"), latency=0.0, smtp=None)
        self._server = server
        self._thread = threading.Thread(target=server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        while not server.started:
            time.sleep(0.01)
        self.http = httpx2.Client(trust_env=False)

    def stop(self) -> None:
        self.http.close()
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def post(self, path: str, content: Any) -> None:
        self.http.post(f"{self.url}/sandbox/{path}", json=content).raise_for_status()

    def get(self, path: str) -> Any:
        return self.http.get(f"{self.url}/sandbox/{path}").json()


class History(RuleBasedStateMachine):
    """One installation and what happens to it."""

    cms: Cms

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="promises-"))
        self.loop = asyncio.new_event_loop()
        self.clock, self.crash_in, self.crashes, self.sent = Clock(), 0, 0, 0
        self.answered: list[str] = []
        self.stored_urls: dict[str, int] = {}
        self.cms.post("reset", {})
        self.cms.post("faults", [])
        self.cms.post("clock", {"now": BEGIN.isoformat()})
        self.cms.post("beneficiaries", [beneficiary(number) | {"alignments": []} for number in range(3)])
        self.do(self._open())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    # What can happen.

    @rule(person=PEOPLE, name=st.sampled_from(["check-eligibility", "align", "unalign"]))
    def ask(self, person: int, name: str) -> None:
        """An EHR's request, repeated in the same bytes when the process dies under it."""
        self.sent += 1
        path = f"/fhir/access/Patient/${name}?entityId=ACCES12345"
        self._send(path, _request(name, person, self.sent), "application/json", (202,))

    @rule(person=PEOPLE)
    def values(self, person: int) -> None:
        """All that a report needs, through three doors."""
        self.sent += 1
        name, visit = f"V{self.sent:05}", VISITS[self.sent % len(VISITS)][1]
        at = self.clock.at
        self._send("/hl7v2", _of(person, messages.labs(visit, at, name)), "application/hl7-v2", (200, 422))
        self._send("/fhir", _of(person, messages.pressures(visit, at)), "application/fhir+json", (200, 400, 404, 422))
        self._send("/cda", _of(person, messages.clinic(visit, at, name)), "application/cda+xml", (200, 422))

    @rule(call=CALLS, fault=FAULTS)
    def fault(self, call: str, fault: dict[str, Any]) -> None:
        """CMS will get one of the next calls wrong."""
        self.cms.post("faults", [{"call": call, "times": 1, **fault}])

    @rule(commits=st.integers(1, 12), before=st.booleans())
    def crash_soon(self, commits: int, before: bool) -> None:
        """The process will die just before or just after one of its next commits."""
        self.crash_in = -commits if before else commits

    @rule(seconds=st.sampled_from([0, 3, 20, 120, 900]))
    def work(self, seconds: int) -> None:
        """What is due within that time is done."""
        self.do(self._work(self.clock.at + timedelta(seconds=seconds)))

    @precondition(lambda self: self.clock.at < BEGIN + timedelta(days=380))
    @rule(days=st.sampled_from([1, 10, 75, 100]))
    def time_passes(self, days: int) -> None:
        """Nobody works, CMS's clock and ours go on."""
        self.clock.at += timedelta(days=days)
        self.cms.post("clock", {"now": self.clock.at.isoformat()})

    # What must hold.

    @invariant()
    def promises(self) -> None:
        self.do(self._check())

    async def _check(self) -> None:
        store = self.context.store
        rows = list(await store.find(Submission))
        posts = Counter(row["body_sha256"] for row in self.cms.get("journal") if row["accepted"])
        hashes = Counter(row.request_sha256 for row in rows)
        assert set(posts) <= set(hashes), "P2: CMS got bytes that were not written down"
        names = {row.id for row in rows}
        assert set(self.answered) <= names, "P1: a request that was answered is not there"
        busy = Counter(
            (row.patient_id, row.track) for row in rows if row.operation in WRITES and row.state in UNDER_WAY
        )
        assert not busy or max(busy.values()) == 1, "P8: two writes of one patient and track are under way"
        jobs = {job.key for job in await store.find(Job) if job.state is not JobState.DEAD}
        items = {item.subject for item in await store.find(WorkItem, Where("closed_at", "==", None))}
        for row in rows:
            if hashes[row.request_sha256] == 1:
                assert posts[row.request_sha256] <= row.posts, "P2: a POST was not counted before it began"
                self._check_url(row, posts[row.request_sha256])
            if row.state is SubmissionState.NEEDS_REVIEW:
                assert f"submission/{row.id}" in items, "P5: it waits for a person whom nobody told"
            elif row.state not in FINAL:
                assert row.id in jobs, f"P5: {row.state} and nothing is due"

    def _check_url(self, row: Submission, posts: int) -> None:
        if row.state is SubmissionState.ACCEPTED:
            assert self.stored_urls.setdefault(row.id, posts) == posts, "P3: POSTed again after its URL was stored"
        else:
            self.stored_urls.pop(row.id, None)

    def teardown(self) -> None:
        """CMS is well again: all ends, and the record of it is whole."""
        self.crash_in = 0
        self.cms.post("faults", [])
        for _ in range(30):
            self.do(self._work(self.clock.at + timedelta(minutes=30)))
        rows = self.do(self._all())
        chain = self.do(self.context.store.verify_audit())
        self.do(self._close())
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert {row.state for row in rows} <= FINAL, "P5: a submission has no end"
        assert chain.broken_at is None

    async def _all(self) -> list[Submission]:
        return list(await self.context.store.find(Submission))

    # The process.

    async def _open(self) -> None:
        loaded = settings_module.load(self.cms.made.config)
        people = {name: _easy(one) for name, one in loaded.participants.items()}
        chosen = replace(loaded, mllp=None, clock_url=None, participants=people)
        self.stack = contextlib.AsyncExitStack()

        @contextlib.asynccontextmanager
        async def wiring(_: Settings) -> Any:
            store = open_store(f"sqlite:///{self.folder / 'facade.db'}", chosen.key_file)
            store.commit = self._watched(store.commit)  # type: ignore[method-assign]
            async with connections(chosen) as to_cms, httpx2.AsyncClient(trust_env=False) as http:
                yield Context(settings=chosen, store=store, clock=self.clock, http=http, cms=to_cms)
            await store.close()

        app = create_app(chosen, work=False, wiring=wiring)
        await self.stack.enter_async_context(app.router.lifespan_context(app))
        self.context: Context = app.state.context
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://facade.test")
        self.token = ""

    async def _close(self) -> None:
        await self.http.aclose()
        await self.stack.aclose()

    def _watched(self, commit: Callable[[Changeset], Awaitable[None]]) -> Callable[[Changeset], Awaitable[None]]:
        async def watched(changes: Changeset) -> None:
            left, self.crash_in = self.crash_in, self.crash_in - (self.crash_in > 0) + (self.crash_in < 0)
            if left == -1:
                raise Crash
            await commit(changes)
            if left == 1:
                raise Crash

        return watched

    async def _again(self) -> None:
        """After a crash: a new process; the leases of the old one have run out by then."""
        self.crashes += 1
        self.crash_in = 0
        await self._close()
        await self._open()

    def _send(self, path: str, body: bytes, content_type: str, good: tuple[int, ...]) -> None:
        answer = self.do(self._try(path, body, content_type)) or self.do(self._try(path, body, content_type))
        assert answer is not None
        assert answer.status_code in good, answer.text
        if answer.status_code == 202:
            self.answered.append(answer.headers["Content-Location"].rpartition("/")[2])

    async def _try(self, path: str, body: bytes, content_type: str) -> httpx2.Response | None:
        """None: the process died under it."""
        secret = next(client.client_secret for client in self.cms.made.clients if client.client_id == "ehr-1")
        try:
            if not self.token:
                form = {"grant_type": "client_credentials"}
                got = await self.http.post("/auth/token", data=form, auth=("ehr-1", secret))
                self.token = got.json()["access_token"]
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
            return await self.http.post(path, content=body, headers=headers)
        except Crash:
            await self._again()
            return None

    async def _work(self, until: datetime) -> None:
        for _ in range(400):
            claimed = await self.context.store.claim(
                now=self.clock.at,
                machine_now=machine_now() + timedelta(minutes=10 * self.crashes),
                lease_seconds=60,
                limit=1,
                kinds=tuple(kind for kind in JobKind if kind not in STANDING),
            )
            for job in claimed:
                await self._run(job)
            if not claimed and not await self._wait(until):
                break

    async def _wait(self, until: datetime) -> bool:
        """Moves the clock to what is due next, up to a moment; False if nothing is."""
        rows = await self.context.store.find(Job, Where("state", "==", JobState.WAITING), order_by="due_at")
        due = next((row.due_at for row in rows if row.kind not in STANDING), None)
        moved = due is not None and due <= until
        self.clock.at = max(self.clock.at, due if moved and due else until)
        self.cms.post("clock", {"now": self.clock.at.isoformat()})
        return moved

    async def _run(self, job: Job) -> None:
        """As the worker does it; anything unforeseen fails the history."""
        try:
            changes = await STEPS[job.kind](job, self.context)
            await self.context.store.commit(replace(changes, finish=job))
        except Conflict:
            await self.context.store.release(job, due_at=self.clock.at)
        except Temporary as failure:
            wait = timedelta(seconds=failure.retry_after_seconds or 2.0)
            await self.context.store.release(job, due_at=self.clock.at + wait)
        except Crash:
            await self._again()


def _easy(participant: Any) -> Any:
    names = {"disclosure_required": False, "switch_consent_required": False}
    known = {name: value for name, value in names.items() if hasattr(participant, name)}
    return replace(participant, mailbox=None, **known)


def _of(person: int, body: bytes) -> bytes:
    own = body.replace(messages.PATIENT_MBI.encode(), mbi(person).encode())
    return own.replace(b"MRN-20731", f"MRN-{person}".encode())


def _request(name: str, person: int, number: int) -> bytes:
    """An operation's request; `number` makes its bytes its own."""
    made = fhir_json.parse(messages.operation("align" if name == "align" else "check-eligibility", "CKM"))
    made["meta"]["profile"] = [ACCESS(f"access-{name}-in")]
    if name == "unalign":
        reason = {"coding": [{"system": ACCESS_CODES("ACCESSUnalignmentReasonCS"), "code": "geographic-relocated"}]}
        made["parameter"].append({"name": "reason", "valueCodeableConcept": reason})
    made["id"] = f"request-{number}"
    return _of(person, fhir_json.dump(made))


@pytest.fixture(scope="module")
def cms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cms]:
    """One for all histories; each begins with a reset."""
    made = Cms(tmp_path_factory.mktemp("promises"))
    yield made
    made.stop()


def test_the_promises_hold_in_every_history(cms: Cms) -> None:
    """Whatever happens, in whatever order."""
    History.cms = cms
    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=int(os.environ.get("PROMISE_HISTORIES", "12")),
            stateful_step_count=int(os.environ.get("PROMISE_STEPS", "25")),
            deadline=None,
            derandomize="PROMISE_HISTORIES" not in os.environ,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
