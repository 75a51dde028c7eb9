"""Prometheus metrics: counts and ages, by route and state; never an id, never PHI."""

import math
from bisect import bisect_left
from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from starlette.responses import Response

from server.cms import gate
from server.context import Context
from server.domain.coordination import Delivery, DeliveryState, WorkItem
from server.domain.job import Job, JobState
from server.domain.memory import Remembered
from server.domain.record import Record
from server.domain.submission import FINAL, Submission, SubmissionState
from server.store.base import Where

REGISTRY = CollectorRegistry()
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


BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, math.inf)  # seconds


class Requests(Collector):
    """Counts and times of requests: plain lists, since one event loop alone writes them, on every request."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}
        self._times: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def count(self, door: str, status: int, seconds: float) -> None:
        """One more."""
        name = (door, status)
        self._counts[name] = self._counts.get(name, 0) + 1
        if door not in self._times:
            self._times[door] = [0] * len(BOUNDS)
        self._times[door][bisect_left(BOUNDS, seconds)] += 1
        self._seconds[door] = self._seconds.get(door, 0.0) + seconds

    def collect(self) -> Iterator[Metric]:
        """Both families, when the page is asked for."""
        counts = CounterMetricFamily("access_facade_requests", "HTTP requests", labels=["door", "status"])
        for (door, status), count in self._counts.items():
            counts.add_metric([door, str(status)], count)
        yield counts
        times = HistogramMetricFamily("access_facade_request_seconds", "HTTP request time", labels=["door"])
        for door, each in self._times.items():
            buckets = zip(map(floatToGoString, BOUNDS), accumulate(each), strict=True)
            times.add_metric([door], list(buckets), self._seconds[door])
        yield times


REQUESTS = Requests()
REGISTRY.register(REQUESTS)


def answered(path: str, status: int, seconds: float) -> None:
    """Counts one request."""
    REQUESTS.count(_door(path), status, seconds)


def _door(path: str) -> str:
    first = path[1:].partition("/")[0]
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
