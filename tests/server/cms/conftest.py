"""The submission engine alone: built submissions put straight into the store, short deadlines, a trap for strays."""

import hashlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette

from server import settings as settings_module
from server.cms.client import connections
from server.context import Context, new_id
from server.demo import messages
from server.domain.job import JobKind, NewJob
from server.domain.submission import Operation, Submission
from server.store.base import Changeset
from server.store.opening import open_store
from tests.server.conftest import BASE, FrozenClock, Installation

PARTICIPANT = "ACCES12345"
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # all is plain http here; loading them takes a while
DEADLINE = 0.8  # seconds of real time for one exchange with CMS


@dataclass
class Trap:
    """A listener that no request may ever reach: it notes who comes."""

    socket: socket.socket
    visits: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}/fhir/access/Patient/$submission-status/stray"

    def listen(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(0.2)
                try:
                    self.visits.append(connection.recv(65536))
                except OSError:
                    self.visits.append(b"")


@pytest.fixture(scope="session")
def trap_socket() -> Iterator[Trap]:
    """One listener for all tests."""
    listening = socket.create_server(("127.0.0.1", 0))
    trap = Trap(listening)
    thread = threading.Thread(target=trap.listen, daemon=True)
    thread.start()
    yield trap
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(2)


@pytest.fixture
def trap(trap_socket: Trap) -> Trap:
    """The listener, nobody there yet."""
    trap_socket.visits.clear()
    return trap_socket


@pytest.fixture
async def engine(cms, sandbox_process, tmp_path) -> AsyncIterator[Installation]:
    """An installation without doors, with a short deadline and one way to get a token."""
    settings = replace(settings_module.load(Path(sandbox_process[1].config)), base_url=BASE, mllp=None, clock_url=None)
    clock = FrozenClock()
    store = open_store(f"sqlite:///{tmp_path / 'facade.db'}", settings.key_file)
    async with connections(settings) as to_cms, httpx2.AsyncClient(trust_env=False, verify=NO_CERTIFICATES) as http:
        context = Context(settings, store, clock, http, to_cms)
        installed = Installation(context, Starlette(), clock, cms, {})
        yield configured(installed, timeout_seconds=DEADLINE, auth_method="private_key_jwt")
        await installed.http.aclose()
    await store.close()


def configured(installation, **cms):
    """The same installation with other [participant.cms] settings for whatever works from now on."""
    settings = installation.context.settings
    participant = settings.participant(PARTICIPANT)
    changed = replace(participant, cms=replace(participant.cms, **cms))
    context = replace(installation.context, settings=replace(settings, participants={PARTICIPANT: changed}))
    installation.context = context
    return installation


async def put(installation, operation: str = "check-eligibility", *, patient: str = "patient-1", **more) -> str:
    """A built submission and its SUBMIT job; its id."""
    body = more.pop("request", None) or messages.operation(operation, "CKM")
    now = installation.context.clock.now()
    row = Submission(
        participant_id=PARTICIPANT,
        id=new_id(),
        operation=Operation(operation),
        patient_id=patient,
        track="CKM",
        agent="ehr-1",
        created_at=now,
        request_sha256=hashlib.sha256(body).hexdigest(),
        request=body,
        **more,
    )
    job = NewJob(participant_id=PARTICIPANT, kind=JobKind.SUBMIT, key=row.id, due_at=now)
    await installation.context.store.commit(Changeset(insert=(row,), jobs=(job,)))
    return row.id


async def submission(installation, name: str) -> Submission:
    """The row as it stands."""
    row = await installation.context.store.get(Submission, id=name)
    assert row is not None
    return row
