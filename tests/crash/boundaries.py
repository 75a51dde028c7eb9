"""Where the victim dies: the boundaries of a submission, seen at the store and at the sockets of the process.

Nothing of the product is changed: a commit is told by the rows in it, a request by its first line.
"""

import asyncio
import asyncio.selector_events
import mmap
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from server.domain.coordination import CareUpdate, Delivery, DeliveryState
from server.domain.job import Job
from server.domain.received import Received
from server.domain.submission import Submission, SubmissionState
from server.store.base import Changeset
from server.store.mongodb.engine import MongoStore
from server.store.sqlite.engine import SqliteStore

# In the order in which a submission passes them.
ORDER = (
    "message stored",  # the raw bytes are in the store, nothing is read yet
    "request taken",  # the submission is in the store, the caller has no answer yet
    "job claimed",
    "report built",
    "intent stored",
    "token got",  # CMS's token is in the process, not in the store
    "POST counted",
    "about to send",
    "first bytes sent",
    "all bytes sent",
    "CMS took it",  # the head of CMS's 202 is here
    "reply read",  # and read to its end: the commit is about to begin
    "URL stored",
    "poll sent",
    "result read",
    "result stored",
    "result applied",  # with the next window and what it makes due
    "update composed",
    "notice sent",  # the receiver has answered
    "notice stored",
)
_STATES = {
    SubmissionState.ACCEPTED: "URL stored",
    SubmissionState.RESULT: "result stored",
    SubmissionState.APPLIED: "result applied",
}
_BEFORE = {"URL stored": "reply read", "result stored": "result read"}
# What a socket does, by the address in the request line: before a byte, half of it, all of it, an answer has come.
_WIRE = {
    (b"/oauth2/token", "answer"): "token got",
    (b"$report-data", "begin"): "about to send",
    (b"$report-data", "half"): "first bytes sent",
    (b"$report-data", "all"): "all bytes sent",
    (b"$report-data", "answer"): "CMS took it",
    (b"$submission-status", "all"): "poll sent",
    (b"/care-updates", "answer"): "notice sent",
}
_PLACES = {place for place, _ in _WIRE}
ENGINES: tuple[Any, ...] = (SqliteStore, MongoStore)
_Transport = asyncio.selector_events._SelectorSocketTransport


@dataclass
class Trap:
    """Notes in shared memory which boundaries were passed, and kills the process `delay` seconds after one of them."""

    marks: mmap.mmap
    patient_id: str
    boundary: str = ""
    delay: float = 0.0
    body_sha256: str = ""

    def passed(self, name: str) -> None:
        self.marks[ORDER.index(name)] = 1
        if name == self.boundary:
            self.boundary = ""
            if self.delay:
                threading.Thread(target=self._later, daemon=True).start()
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    def _later(self) -> None:
        time.sleep(self.delay)
        os.kill(os.getpid(), signal.SIGKILL)


def set_trap(trap: Trap) -> None:
    """From now on this process is watched."""
    for engine in ENGINES:
        _watch_commits(trap, engine)
        _watch_claims(trap, engine)
    _watch_sockets(trap)


def passed(marks: bytes) -> frozenset[str]:
    """The boundaries that the marks name."""
    return frozenset(name for name, mark in zip(ORDER, marks, strict=False) if mark)


def _watch_commits(trap: Trap, engine: Any) -> None:
    commit = engine.commit

    async def watched(store: Any, changeset: Changeset) -> None:
        names = list(_told(changeset, trap))
        for name in names:
            if name in _BEFORE:
                trap.passed(_BEFORE[name])
        await commit(store, changeset)
        for name in names:
            trap.passed(name)

    engine.commit = watched


def _told(changeset: Changeset, trap: Trap) -> Iterator[str]:
    """The boundaries that a commit is."""
    for row in (*changeset.insert, *changeset.replace):
        if isinstance(row, Received):
            if row.sha256 == trap.body_sha256 and row in changeset.insert:
                yield "message stored"
        elif getattr(row, "patient_id", None) == trap.patient_id or _is_body(row, trap):
            yield from _about(row, new=row in changeset.insert)


def _is_body(row: object, trap: Trap) -> bool:
    return isinstance(row, Submission) and row.request_sha256 == trap.body_sha256


def _about(row: object, *, new: bool) -> Iterator[str]:
    if isinstance(row, CareUpdate):
        yield "update composed"
    elif isinstance(row, Delivery) and row.state is DeliveryState.DELIVERED:
        yield "notice stored"
    elif isinstance(row, Submission) and new:
        yield "report built" if row.report_id else "request taken"
    elif isinstance(row, Submission) and row.state is SubmissionState.SENDING:
        yield "POST counted" if row.posts > row.answers else "intent stored"
    elif isinstance(row, Submission) and row.state in _STATES:
        waits = row.state is SubmissionState.ACCEPTED and row.polls
        yield from () if waits else (_STATES[row.state],)


def _watch_claims(trap: Trap, engine: Any) -> None:
    claim = engine.claim

    async def watched(store: Any, **given: Any) -> Any:
        jobs: list[Job] = list(await claim(store, **given))
        if jobs:
            trap.passed("job claimed")
        return jobs

    engine.claim = watched


def leases_are_over() -> None:
    """To this process every lease that another one holds has run out, as if it had waited for that."""
    for engine in ENGINES:
        _claim_later(engine)


def _claim_later(engine: Any) -> None:
    claim = engine.claim

    async def later(store: Any, **given: Any) -> Any:
        return await claim(store, **{**given, "machine_now": given["machine_now"] + timedelta(minutes=5)})

    engine.claim = later


def _watch_sockets(trap: Trap) -> None:
    """Below whatever speaks HTTP: asyncio's own transports. A request goes out in two halves."""
    write, read = _Transport.write, _Transport._read_ready

    def tell(transport: Any, moment: str) -> None:
        name = _WIRE.get((getattr(transport, "asked", b""), moment))
        if name is not None:
            trap.passed(name)

    def written(transport: Any, data: bytes) -> None:
        place = _place(bytes(data))
        if place is None:
            write(transport, data)
            return
        transport.asked = place
        half = len(data) // 2
        tell(transport, "begin")
        write(transport, data[:half])
        tell(transport, "half")
        write(transport, data[half:])
        tell(transport, "all")

    def ready(transport: Any) -> None:
        read(transport)
        tell(transport, "answer")

    _Transport.write, _Transport._read_ready = written, ready


def _place(data: bytes) -> bytes | None:
    """Which of the addresses a request line names; None for what is no request of ours."""
    line = data.partition(b"\r\n")[0].replace(b"%24", b"$")
    found = (place for place in _PLACES if place in line) if line.endswith(b" HTTP/1.1") else ()
    return next(iter(found), None)
