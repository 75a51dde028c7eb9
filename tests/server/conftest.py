"""A whole installation: the configuration of `init --demo`, a real store, the doors in process, the stand-in CMS on a
real socket, a frozen clock off UTC, and a worker that does what is due."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette

from profiles import fhir_json
from sandbox.app import create_app as create_sandbox
from sandbox.app import server as sandbox_server
from sandbox.settings import load as sandbox_settings
from server import settings as settings_module
from server.app import create_app
from server.clock import machine_now
from server.cms.client import connections
from server.context import Context
from server.demo import messages
from server.domain.errors import Temporary
from server.domain.job import Job, JobKind
from server.domain.submission import Submission
from server.initialise import InitResult, initialise
from server.pipeline import STEPS
from server.settings import Settings
from server.store.base import Where
from server.store.opening import open_store

STANDING = (JobKind.RECOVER, JobKind.MAILBOX)


class FrozenClock:
    """Stands still until it is moved; starts off UTC on purpose."""

    def __init__(self) -> None:
        self.at = datetime(2026, 8, 20, 18, 30, tzinfo=timezone(timedelta(hours=-7))).astimezone(UTC)

    def now(self) -> datetime:
        return self.at

    def move(self, **delta: float) -> None:
        self.at += timedelta(**delta)


@dataclass
class Cms:
    """The stand-in CMS on a real loopback port."""

    url: str
    http: httpx2.Client

    def journal(self, call: str | None = None) -> list[dict[str, Any]]:
        content = self.http.get(f"{self.url}/sandbox/journal").json()
        rows = content if isinstance(content, list) else content["journal"]
        return [row for row in rows if call in (None, row["call"])]

    def fault(self, call: str, fault: str, **more: Any) -> None:
        plan = [{"call": call, "fault": fault, "times": 1, **more}]
        self.http.post(f"{self.url}/sandbox/faults", json=plan).raise_for_status()


@dataclass
class Installation:
    """Everything a test talks to."""

    context: Context
    app: Starlette
    clock: FrozenClock
    cms: Cms
    secrets: dict[str, str]
    tokens: dict[str, str] = field(default_factory=dict)
    http: httpx2.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=self.app), base_url=BASE)

    async def call(self, client_id: str, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        """One request by a client, with a token; dicts are sent as FHIR JSON."""
        if client_id not in self.tokens:
            form = {"grant_type": "client_credentials"}
            answer = await self.http.post("/auth/token", data=form, auth=(client_id, self.secrets[client_id]))
            self.tokens[client_id] = answer.json()["access_token"]
        content = fhir_json.dump(body) if isinstance(body, dict) else body
        given = {"Authorization": f"Bearer {self.tokens[client_id]}", "Content-Type": "application/json"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.request(method, path, content=content, headers=given | named)

    async def operation(self, name: str, body: bytes, client_id: str = "ehr-1", entity: str = "ACCES12345") -> Any:
        return await self.call(client_id, "POST", f"/fhir/access/Patient/${name}?entityId={entity}", body)

    async def work(self, *, until: timedelta = timedelta(0), rounds: int = 200) -> None:
        """Runs what is due, and what becomes due until `until` later; the clock moves there."""
        end = self.clock.at + until
        for _ in range(rounds):
            jobs = await self._due()
            if not jobs:
                due = await self._next()
                if due is None or due > end:
                    break
                self.clock.at = max(self.clock.at, due)
                continue
            for job in jobs:
                await self._run(job)
        self.clock.at = max(self.clock.at, end)

    async def result(self, submission_id: str) -> Submission:
        """Works until CMS's result is in (the stand-in takes a moment of real time)."""
        for _ in range(100):
            await self.work(until=timedelta(seconds=30))
            row = await self.context.store.get(Submission, id=submission_id)
            assert row is not None
            if row.finished_at is not None:
                return row
            await asyncio.sleep(0.02)
        raise AssertionError(f"no result: {row.state}")

    async def submission(self) -> Submission:
        (row,) = await self.context.store.find(Submission)
        return row

    async def _due(self) -> list[Job]:
        kinds = tuple(kind for kind in JobKind if kind not in STANDING)
        found = await self.context.store.claim(
            now=self.clock.at, machine_now=machine_now(), lease_seconds=60, limit=20, kinds=kinds
        )
        return list(found)

    async def _next(self) -> datetime | None:
        rows = await self.context.store.find(Job, Where("state", "==", "waiting"), order_by="due_at")
        return next((row.due_at for row in rows if row.kind not in STANDING), None)

    async def _run(self, job: Job) -> None:
        try:
            changes = await STEPS[job.kind](job, self.context)
            await self.context.store.commit(replace(changes, finish=job))
        except Temporary as failure:
            wait = timedelta(seconds=failure.retry_after_seconds or 2)
            await self.context.store.release(job, due_at=self.clock.at + wait)


BASE = "http://facade.test"


@pytest.fixture(scope="session")
def sandbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, InitResult]]:
    """One stand-in CMS for all tests, reset for each."""
    folder = tmp_path_factory.mktemp("installation")
    app = create_sandbox(None)
    running = sandbox_server(app, port=0)
    listening = running.config.bind_socket()
    listening.listen(64)
    port = listening.getsockname()[1]
    made = initialise(folder / "demo", demo=True, facade_port=8080, sandbox_port=port)
    loaded = sandbox_settings(folder / "demo" / "sandbox.toml", latency=0.02, data=None)
    app.state.world.settings = replace(loaded, smtp=None, data=None) if hasattr(loaded, "smtp") else loaded
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}", made
    running.should_exit = True
    thread.join(10)


@pytest.fixture
def cms(sandbox_process: tuple[str, InitResult]) -> Iterator[Cms]:
    """The stand-in CMS, back at its start."""
    with httpx2.Client(trust_env=False) as http:
        http.post(f"{sandbox_process[0]}/sandbox/reset").raise_for_status()
        yield Cms(sandbox_process[0], http)


@pytest.fixture
async def installation(
    cms: Cms, sandbox_process: tuple[str, InitResult], tmp_path: Path
) -> AsyncIterator[Installation]:
    """Everything, started."""
    made = sandbox_process[1]
    loaded = settings_module.load(Path(made.config))
    settings: Settings = replace(loaded, base_url=BASE, mllp=None, clock_url=None)
    clock = FrozenClock()

    @contextlib.asynccontextmanager
    async def wiring(_: Settings) -> AsyncIterator[Context]:
        store = open_store(f"sqlite:///{tmp_path / 'facade.db'}", settings.key_file)
        async with connections(settings) as to_cms, httpx2.AsyncClient(trust_env=False) as http:
            yield Context(settings, store, clock, http, to_cms)
        await store.close()

    app = create_app(settings, work=False, wiring=wiring)
    async with app.router.lifespan_context(app):
        secrets = {client.client_id: client.client_secret for client in made.clients}
        installed = Installation(app.state.context, app, clock, cms, secrets)
        yield installed
        await installed.http.aclose()


@pytest.fixture
def eligibility() -> bytes:
    """The EHR's eligibility question about the demo's patient."""
    return messages.operation("check-eligibility", "CKM")


@pytest.fixture
def alignment() -> bytes:
    """The EHR's alignment of the demo's patient."""
    return messages.operation("align", "CKM")
