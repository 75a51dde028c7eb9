"""Prometheus metrics: counts and ages, by route and state; never an id, never PHI."""

import time
from datetime import datetime
from functools import cache

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.cms import gate
from server.context import Context
from server.domain.coordination import Delivery, DeliveryState, WorkItem
from server.domain.job import Job, JobState
from server.domain.memory import Remembered
from server.domain.record import Record
from server.domain.submission import FINAL, Submission, SubmissionState
from server.store.base import Where

REGISTRY = CollectorRegistry()
REQUESTS = Counter("access_facade_requests", "HTTP requests", ["door", "status"], registry=REGISTRY)
SECONDS = Histogram("access_facade_request_seconds", "HTTP request time", ["door"], registry=REGISTRY)
JOBS = Gauge("access_facade_jobs", "Jobs by state", ["state"], registry=REGISTRY)
OPEN_SUBMISSIONS = Gauge(
    "access_facade_open_submissions", "Submissions that are not final", ["state"], registry=REGISTRY
)
OLDEST = Gauge("access_facade_oldest_open_submission_seconds", "Age of the oldest one", registry=REGISTRY)
GATES = Gauge(
    "access_facade_cms_gates_shut",
    "Participants whose calls to CMS are held, by kind of call",
    ["call"],
    registry=REGISTRY,
)
WORK_ITEMS = Gauge("access_facade_open_work_items", "Matters that wait for a person", registry=REGISTRY)
DELIVERIES = Gauge("access_facade_pending_deliveries", "Care updates not delivered yet", registry=REGISTRY)

# The first two parts of a path name the door; anything else would make a label of an id.
DOORS = frozenset({"fhir", "hl7v2", "cda", "auth", "participants", "console", "healthz", "readyz", "metrics"})


class MetricsMiddleware:
    """Pure ASGI: counts and times each request by door."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on; what is raised below counts as 500 there."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        door = _door(scope["path"])
        started = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                counter, histogram = _meters(door, message["status"])
                counter.inc()
                histogram.observe(time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, counted)


@cache
def _meters(door: str, status: int) -> tuple[Counter, Histogram]:
    """Looked up once for each door and status."""
    return REQUESTS.labels(door, str(status)), SECONDS.labels(door)


def _door(path: str) -> str:
    first = path.lstrip("/").partition("/")[0]
    if first not in DOORS:
        return "other"
    return "cms-operation" if path.startswith("/fhir/access/") else first


async def exposition(context: Context) -> Response:
    """The metrics page; gauges are counted when it is asked for."""
    for state in JobState:
        JOBS.labels(state).set(await _count(context, Job, Where("state", "==", state)))
    for submission_state in SubmissionState:
        if submission_state not in FINAL:
            count = await _count(context, Submission, Where("state", "==", submission_state))
            OPEN_SUBMISSIONS.labels(submission_state).set(count)
    for call in gate.NAMES:
        rows = await context.store.find(Remembered, Where("name", "==", gate.PREFIX + call))
        GATES.labels(call).set(sum(1 for row in rows if gate.read(row).why))
    OLDEST.set(await _oldest(context))
    WORK_ITEMS.set(await _count(context, WorkItem, Where("closed_at", "==", None)))
    DELIVERIES.set(await _count(context, Delivery, Where("state", "==", DeliveryState.PENDING)))
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


async def _count(context: Context, kind: type[Record], where: Where) -> int:
    return await context.store.count(kind, where)


async def _oldest(context: Context) -> float:
    """Seconds; 0 when nothing is open, never less (clocks of machines differ)."""
    now: datetime = context.clock.now()
    ages = [0.0]
    for state in SubmissionState:
        if state not in FINAL:
            rows = await context.store.find(Submission, Where("state", "==", state), order_by="created_at", limit=1)
            ages += [(now - row.created_at).total_seconds() for row in rows]
    return max(ages)
