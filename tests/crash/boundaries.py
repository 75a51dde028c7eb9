"""Where the victim dies: the boundaries of a submission, seen at the store and at the HTTP transport of the process.

Nothing of the product is changed: a commit is told by the rows in it, an exchange by its address and httpx's trace.
"""

import asyncio
import mmap
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx2

from server.domain.coordination import CareUpdate, Delivery, DeliveryState
from server.domain.job import Job
from server.domain.received import Received
from server.domain.submission import Submission, SubmissionState
from server.store.base import Changeset
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
_SENT, _HEAD = "http11.send_request_headers.complete", "http11.receive_response_headers.complete"
_WIRE = {
    ("$report-data", "http11.send_request_headers.started"): "about to send",
    ("/oauth2/token", _HEAD): "token got",
    ("$report-data", _SENT): "first bytes sent",
    ("$report-data", "http11.send_request_body.complete"): "all bytes sent",
    ("$report-data", _HEAD): "CMS took it",
    ("$submission-status", _SENT): "poll sent",
    ("/care-updates", _HEAD): "notice sent",
}


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
    _watch_commits(trap)
    _watch_claims(trap)
    _watch_http(trap)


def passed(marks: bytes) -> frozenset[str]:
    """The boundaries that the marks name."""
    return frozenset(name for name, mark in zip(ORDER, marks, strict=False) if mark)


def _watch_commits(trap: Trap) -> None:
    commit = SqliteStore.commit

    async def watched(store: SqliteStore, changeset: Changeset) -> None:
        names = list(_told(changeset, trap))
        for name in names:
            if name in _BEFORE:
                trap.passed(_BEFORE[name])
        await commit(store, changeset)
        for name in names:
            trap.passed(name)

    SqliteStore.commit = watched  # type: ignore[method-assign]


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


def _watch_claims(trap: Trap) -> None:
    claim = SqliteStore.claim

    async def watched(store: SqliteStore, **given: Any) -> Any:
        jobs: list[Job] = list(await claim(store, **given))
        if jobs:
            trap.passed("job claimed")
        return jobs

    SqliteStore.claim = watched  # type: ignore[method-assign]


def leases_are_over() -> None:
    """To this process every lease that another one holds has run out, as if it had waited for that."""
    claim = SqliteStore.claim

    async def later(store: SqliteStore, **given: Any) -> Any:
        return await claim(store, **{**given, "machine_now": given["machine_now"] + timedelta(minutes=5)})

    SqliteStore.claim = later  # type: ignore[method-assign]


def _watch_http(trap: Trap) -> None:
    handle = httpx2.AsyncHTTPTransport.handle_async_request

    async def watched(transport: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> httpx2.Response:
        request.extensions = {**request.extensions, "trace": _tracer(str(request.url), trap)}
        return await handle(transport, request)

    httpx2.AsyncHTTPTransport.handle_async_request = watched  # type: ignore[method-assign]


def _tracer(url: str, trap: Trap) -> Callable[[str, Any], Awaitable[None]]:
    async def trace(event: str, _: Any) -> None:
        for (place, moment), name in _WIRE.items():
            if moment == event and place in url.replace("%24", "$"):
                trap.passed(name)
                await asyncio.sleep(0)

    return trace
