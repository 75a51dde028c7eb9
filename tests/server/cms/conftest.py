"""The submission engine alone: built submissions put straight into the store, short deadlines, a trap for strays."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from server.context import new_id
from server.demo import messages
from server.domain.job import JobKind, NewJob
from server.domain.submission import Operation, Submission
from server.store.base import Changeset

PARTICIPANT = "ACCES12345"
DEADLINE = 0.25  # seconds of real time for one exchange with CMS


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
def engine(installation):
    """The installation with a short deadline and one way to get a token."""
    return configured(installation, timeout_seconds=DEADLINE, auth_method="private_key_jwt")


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
