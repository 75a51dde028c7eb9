"""How large an installation must be: `make simulate-scale`, or `python -m bench.simulate_scale [--svg FILE] [--json]`.

1. Measures on this machine what one piece of work costs a process of ours in CPU, over the MongoDB engine (the stand-in
   is another process, so its slowness does not count), and how large its documents are.
2. Counts from those what 10 k, 100 k and 500 k patients of 1,000 participants need in a year and at the peaks.
3. Plays the worst hour of a deadline day, event by event: submissions, CMS's answer times, polls, workers, and one
   transaction at a time for each participant; says how late work gets with so many worker processes.

What is assumed and not measured stands in ASSUMED, with its source. A real replica set has other transaction times:
take yours with --commit-ms.
"""

import argparse
import asyncio
import heapq
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import bson

from bench.engines_speed import start_standin
from bench.store_speed import NOW, PARTICIPANT, create
from server.audit import record
from server.context import new_id
from server.domain.job import JobKind, NewJob
from server.domain.submission import Operation, Submission, SubmissionEvent, SubmissionState
from server.store.base import Changeset, Store
from server.store.crypto import generate_master_key
from server.store.mongodb.engine import MongoStore
from server.store.opening import open_store

SIZES = (10_000, 100_000, 500_000)
PARTICIPANTS = 1_000
ASSUMED = {
    "submissions_per_patient_year": 6,  # eligibility, align, baseline, 3 quarterly, end; reliability notes, 3.1
    "readings_per_patient_day": 2,  # blood pressure, weight
    "labs_and_documents_per_patient_year": 40,
    "peak_factor": 12,  # half of the day's readings within 3 hours, bursts of 3
    "cms_seconds": 60.0,  # until CMS has decided, median
    "http_ms": 0.45,  # CPU of one exchange: httpx2, 2,200 a second and core (docs/adr/0005)
    "door_ms": 1.0,  # CPU of parsing, checking and answering one resource, without the store (bench.create_speed)
    "report_ms": 8.0,  # CPU of building and checking one report (bench.report_speed)
    "commit_ms": 8.0,  # one majority, journalled transaction of a nearby replica set; take your own
    "report_bytes": 12_000,
    "index_share": 0.35,  # of data, on disk, after WiredTiger's compression of keys
}


@dataclass(frozen=True)
class Costs:
    """CPU milliseconds of our process, and bytes as BSON."""

    create_ms: float
    submission_ms: float
    poll_ms: float
    claim_ms: float
    create_bytes: int
    submission_bytes: int


async def cpu_ms(work: Callable[[], Awaitable[Any]], times: int) -> float:
    """Of one; the median of five rounds."""
    rounds = []
    for _ in range(5):
        before = time.process_time()
        for _ in range(times):
            await work()
        rounds.append((time.process_time() - before) / times * 1000)
    return statistics.median(rounds)


def submission() -> Submission:
    return Submission(
        participant_id=PARTICIPANT, id=new_id(), operation=Operation.REPORT_DATA, patient_id="p", track="CKM",
        agent="schedule", created_at=NOW, request_sha256="0" * 64, request=b"x" * int(ASSUMED["report_bytes"]),
    )  # fmt: skip


def moved(row: Submission, sequence: int) -> SubmissionEvent:
    return SubmissionEvent(
        participant_id=PARTICIPANT,
        submission_id=row.id,
        sequence=sequence,
        at=NOW,
        state=SubmissionState.SENDING,
        detail="sending",
    )


async def measure(store: MongoStore) -> Costs:
    """One door's create, one submission's seven transitions, one poll without an answer; 16 at a time, as they come."""
    await store.commit(create()[0])
    later = NOW + timedelta(days=1)

    async def sixteen(one: Callable[[], Awaitable[None]]) -> None:
        await asyncio.gather(*(one() for _ in range(16)))

    async def one_create() -> None:
        for part in create():
            await store.commit(part)

    async def one_submission() -> None:
        row = submission()
        entry = record(participant_id=PARTICIPANT, at=NOW, agent="worker", action="E", subtype="submit", entity=row.id)
        await store.commit(Changeset(insert=(row, moved(row, 1)), audit=(entry,)))
        for sequence in range(2, 8):
            await store.commit(Changeset(insert=(moved(row, sequence),)))

    async def polls() -> None:
        jobs = [NewJob(participant_id=PARTICIPANT, kind=JobKind.POLL, key=new_id(), due_at=NOW) for _ in range(16)]
        await store.commit(Changeset(jobs=tuple(jobs)))
        held = await store.claim(now=later, machine_now=later, lease_seconds=60, limit=16)
        await asyncio.gather(*(store.release(job, due_at=later + timedelta(days=9)) for job in held))

    async def idle() -> None:
        await store.changed()
        await store.claim(now=NOW - timedelta(days=9), machine_now=NOW - timedelta(days=9), lease_seconds=60, limit=16)

    sizes = await sizes_of(store)
    return Costs(
        create_ms=await cpu_ms(lambda: sixteen(one_create), 6) / 16,
        submission_ms=await cpu_ms(lambda: sixteen(one_submission), 2) / 16,
        poll_ms=await cpu_ms(polls, 2) / 16,
        claim_ms=await cpu_ms(idle, 20),
        create_bytes=sizes[0],
        submission_bytes=sizes[1],
    )


async def sizes_of(store: MongoStore) -> tuple[int, int]:
    """Bytes of one create's documents and of one submission's, as the server is given them."""

    async def stored() -> int:
        database = store._open()
        names = await database.list_collection_names()
        return sum([len(bson.encode(row)) for name in names for row in await database[name].find({}).to_list()])

    before = await stored()
    for part in create():
        await store.commit(part)
    between = await stored()
    row = submission()
    await store.commit(Changeset(insert=(row, *(moved(row, sequence) for sequence in range(1, 8)))))
    return between - before, await stored() - between


def needs(patients: int, costs: Costs) -> dict[str, float]:
    """What that many patients need, by arithmetic."""
    a = ASSUMED
    creates = patients * (a["readings_per_patient_day"] * 365 + a["labs_and_documents_per_patient_year"])
    submissions = patients * a["submissions_per_patient_year"]
    data = creates * costs.create_bytes + submissions * costs.submission_bytes
    peak_creates = patients * a["readings_per_patient_day"] / 86_400 * a["peak_factor"]
    hour = patients / 3600  # the whole cohort's reports in one hour
    in_flight = hour * a["cms_seconds"]
    web_ms = peak_creates * (costs.create_ms + a["door_ms"])
    polls_each = expected_polls(a["cms_seconds"])
    worker_ms = hour * (
        costs.submission_ms + a["report_ms"] + a["http_ms"] + polls_each * (costs.poll_ms + a["http_ms"])
    )
    return {
        "data_gb_per_year": data * (1 + a["index_share"]) / 1e9,
        "creates_per_s_mean": creates / 365 / 86_400,
        "creates_per_s_peak": peak_creates,
        "submissions_per_day_mean": submissions / 365,
        "deadline_hour_submissions_per_s": hour,
        "deadline_hour_in_flight": in_flight,
        "deadline_hour_polls_per_s": hour * polls_each,
        "web_processes": max(2, -(-web_ms // 600)),  # at 60 % of a core each
        "worker_processes": max(2, -(-worker_ms // 600)),
        "audit_rows_per_year_million": (creates + submissions * 3) / 1e6,
    }


def expected_polls(cms_seconds: float) -> float:
    """Polls until CMS has decided, by the schedule: 5 to 10 s, then 10 s growing by half to 30 s, with equal jitter."""
    return statistics.fmean(len(poll_times(cms_seconds)) for _ in range(2000))


def poll_times(decided_after: float) -> list[float]:
    """When it is asked; the last one finds the answer."""
    at, times, number = _chance.uniform(5, 10), [], 0
    while True:
        times.append(at)
        if at >= decided_after:
            return times
        gap = min(30.0, 10.0 * 1.5**number)
        at, number = at + max(10.0, _chance.uniform(gap / 2, gap)), number + 1


_chance = random.Random(5)


@dataclass(frozen=True)
class Played:
    """How late things got, in seconds."""

    workers: int
    events: int
    late_p50: float
    late_p99: float
    finished_share: float
    busy_share: float


def play(patients: int, workers: int, costs: Costs, *, seconds: float = 300.0) -> Played:
    """Some minutes of the worst hour. A worker process is one core; a participant has one transaction at a time."""
    rate = patients / 3600
    poll_cpu, send_cpu, apply_cpu = (
        (costs.poll_ms + ASSUMED["http_ms"]) / 1000,
        (costs.submission_ms / 2 + ASSUMED["report_ms"] + ASSUMED["http_ms"]) / 1000,
        costs.submission_ms / 2 / 1000,
    )
    due: list[tuple[float, int, float]] = []  # due at, participant, CPU
    chance = random.Random(7)
    at = 0.0
    while at < seconds:
        at += chance.expovariate(rate)
        whose = chance.randrange(PARTICIPANTS)
        due.append((at, whose, send_cpu))
        polls = poll_times(chance.lognormvariate(0, 0.5) * ASSUMED["cms_seconds"])
        due += [(at + poll, whose, poll_cpu) for poll in polls if at + poll < seconds]
        if at + polls[-1] < seconds:
            due.append((at + polls[-1], whose, apply_cpu))
    due.sort()
    return _served(due, workers, seconds)


def _served(due: list[tuple[float, int, float]], workers: int, seconds: float) -> Played:
    free = [0.0] * workers
    lanes = [0.0] * PARTICIPANTS
    late: list[float] = []
    busy = 0.0
    for at, whose, cpu in due:
        start = max(at, heapq.heappop(free))
        heapq.heappush(free, start + cpu)
        busy += cpu
        written = max(start + cpu, lanes[whose]) + ASSUMED["commit_ms"] / 1000
        lanes[whose] = written
        late.append(written - at)
    late.sort()
    done = sum(each <= 5.0 for each in late) / len(late)
    return Played(
        workers, len(late), late[len(late) // 2], late[int(len(late) * 0.99)], done, busy / (workers * seconds)
    )


# By line: its colour, and where its name stands from its first point.
LINES = (("#1b7f5c", 20), ("#2b5fa8", -10), ("#a8432b", 4))
TICKS = {0.001: "1 ms", 0.01: "10 ms", 0.1: "0.1 s", 1: "1 s", 10: "10 s", 100: "100 s", 1000: "1000 s"}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 420, 70, 30, 60, 60


def picture(results: dict[str, Any]) -> str:
    """Lateness against worker processes, one line for each size, as SVG."""
    counts = sorted({row["workers"] for rows in results["played"].values() for row in rows})
    step = (WIDTH - LEFT - RIGHT) / max(len(counts) - 1, 1)
    x = {count: LEFT + step * index for index, count in enumerate(counts)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="13" fill="#333">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">How late is one job in a hundred, in the hour in which everybody '
        "reports?</text>",
        f'<text x="{LEFT}" y="42" fill="#777">99th percentile, logarithmic; a simulation from measured costs</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">worker processes, one core each</text>',
    ]
    for late, name in TICKS.items():
        parts.append(f'<path d="M{LEFT} {_y(late):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{_y(late) + 4:.1f}" text-anchor="end">{name}</text>')
    parts += [f'<text x="{x[n]:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{n}</text>' for n in counts]
    for (colour, away), (size, rows) in zip(LINES, results["played"].items(), strict=True):
        points = [(x[row["workers"]], _y(row["late_p99"])) for row in rows]
        joined = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"/>' for px, py in points]
        at_x, at_y = points[0][0] + 10, points[0][1] + away
        parts.append(f'<text x="{at_x:.1f}" y="{at_y:.1f}" fill="{colour}">{int(size):,} patients</text>')
    return "\n".join([*parts, "</svg>", ""])


def _y(late: float) -> float:
    """On a logarithmic axis from the first to the last tick."""
    low, high = _log10(min(TICKS)), _log10(max(TICKS))
    share = min(max((_log10(late) - low) / (high - low), 0), 1)
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)


def _log10(value: float) -> float:
    from math import log10

    return log10(max(value, 0.001))


async def measured() -> Costs:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        generate_master_key(folder / "master.key")
        store: Store = open_store(start_standin(), folder / "master.key")
        assert isinstance(store, MongoStore)
        costs = await measure(store)
        await store.close()
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--commit-ms", type=float, default=ASSUMED["commit_ms"])
    given = parser.parse_args()
    ASSUMED["commit_ms"] = given.commit_ms
    costs = asyncio.run(measured())
    results: dict[str, Any] = {
        "measured": {name: round(value, 3) for name, value in _fields(costs).items()},
        "assumed": ASSUMED,
        "needs": {str(n): {k: round(v, 2) for k, v in needs(n, costs).items()} for n in SIZES},
        "played": {
            str(n): [{k: round(v, 3) for k, v in _fields(play(n, w, costs)).items()} for w in (1, 2, 3, 4, 6, 8)]
            for n in SIZES
        },
    }
    if given.svg:
        given.svg.write_text(picture(results))
    print(json.dumps(results, indent=2))


def _fields(value: Any) -> dict[str, float]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


if __name__ == "__main__":
    main()
