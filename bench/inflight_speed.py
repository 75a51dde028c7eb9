"""B7: many submissions in flight at CMS's cadence, one worker process on one core, a minimal CMS on another.

`python -m bench.inflight_speed [--submissions N] [--seconds S]`, as JSON. The rows are put into a real store as they
stand after CMS's 202; then a worker runs, is killed, and another goes on. Goals: no poll early, 99 % of polls no more
than a second late, 150 MB, 20 % of one core at 420 polls a second, and not one POST.

What fell due while no worker was there is late when the next one begins: so after the restart it is told how long it
took from the start of the process until no poll was more than a second late, and how late they were from then on.
"""

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop

from server import pipeline
from server import settings as settings_module
from server.clock import machine_now
from server.context import Context, new_id
from server.demo import messages
from server.demo.processes import free_ports
from server.domain.job import Job, JobKind, NewJob
from server.domain.memory import CmsToken
from server.domain.submission import Operation, Submission, SubmissionState
from server.initialise import initialise
from server.settings import Settings
from server.store.base import Changeset
from server.store.opening import open_store
from server.wiring import wired
from server.worker import Worker

PARTICIPANT = "ACCES12345"
LATE = 1.0  # seconds
WORKING = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nx-progress: working\r\n\r\n"


class MinimalCms(asyncio.Protocol):
    """Answers every poll with 202 at once, counts what comes, keeps the shortest time between two polls of a URL."""

    calls: dict[str, int] = {"GET": 0, "POST": 0}
    last: dict[bytes, float] = {}
    shortest = 1e9

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's."""
        self.transport: Any = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        """Asyncio's; polls have no body."""
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            method, path, _ = head.split(b"\r\n", 1)[0].split(b" ")
            self.transport.write(self._answer(method.decode(), path))

    def _answer(self, method: str, path: bytes) -> bytes:
        cms = MinimalCms
        if path == b"/stub":
            body = json.dumps({**cms.calls, "shortest_gap": cms.shortest}).encode()
            return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        cms.calls[method] += 1
        now = time.monotonic()
        cms.shortest = min(cms.shortest, now - cms.last.get(path, -1e9))
        cms.last[path] = now
        return WORKING


async def serve_stub(port: int) -> None:
    """Until killed."""
    server = await asyncio.get_running_loop().create_server(MinimalCms, "127.0.0.1", port)
    await server.serve_forever()


def installation(folder: Path, cms_port: int) -> Settings:
    """A demo installation whose CMS is the stub."""
    made = initialise(folder / "demo", demo=True, facade_port=8080, sandbox_port=cms_port)
    loaded = settings_module.load(Path(made.config))
    return replace(loaded, store_url=f"sqlite:///{folder / 'bench.db'}", clock_url=None, mllp=None)


async def fill(settings: Settings, count: int, cms_port: int) -> None:
    """So many accepted submissions, their first polls due over the coming 20 seconds, and a token that lasts."""
    store = open_store(settings.store_url, settings.key_file)
    body = messages.operation("align", "CKM")
    token = CmsToken(participant_id=PARTICIPANT, renew_at=machine_now() + timedelta(hours=2), token=b"t" * 43)
    await store.commit(Changeset(insert=(token,)))
    names: list[str] = []
    for start in range(0, count, 500):
        rows = [_accepted(number, body, cms_port) for number in range(start, min(start + 500, count))]
        await store.commit(Changeset(insert=tuple(rows)))
        names += [row.id for row in rows]
    begin = machine_now() + timedelta(seconds=5)
    await store.commit(
        Changeset(jobs=tuple(_poll(name, begin + timedelta(seconds=20 * at / count)) for at, name in enumerate(names)))
    )
    await store.close()


def _poll(name: str, due_at: datetime) -> NewJob:
    return NewJob(participant_id=PARTICIPANT, kind=JobKind.POLL, key=name, due_at=due_at)


def _accepted(number: int, body: bytes, cms_port: int) -> Submission:
    now = machine_now()
    url = f"http://127.0.0.1:{cms_port}/fhir/access/Patient/$submission-status/sub-{number}"
    return Submission(
        participant_id=PARTICIPANT,
        id=new_id(),
        operation=Operation.ALIGN,
        patient_id=f"patient-{number}",
        track="CKM",
        agent="bench",
        created_at=now,
        request_sha256="0" * 64,
        state=SubmissionState.ACCEPTED,
        in_flight_key=f"patient-{number}|CKM",
        sent_at=now,
        posts=1,
        answers=1,
        accepted_at=now,
        content_location=url.encode(),
        request=body,
    )


@dataclass
class Watch:
    """How late each poll began, and when, in seconds, and the use of the processor since `begin`."""

    late: list[float] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    cpu: float = 0.0
    wall: float = 0.0

    def begin(self) -> None:
        """From here on it counts."""
        self.late.clear()
        self.at.clear()
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def figures(self) -> dict[str, float]:
        """Since `begin`."""
        wall = time.perf_counter() - self.wall
        late = sorted(self.late)
        share = (time.process_time() - self.cpu) / wall
        return {
            "polls_per_second": round(len(late) / wall, 1),
            "earliest_ms": round(late[0] * 1000, 1),
            "median_late_ms": round(late[len(late) // 2] * 1000, 1),
            "p99_late_ms": round(late[int(0.99 * len(late))] * 1000, 1),
            "cpu_share_of_one_core": round(share, 3),
            "cpu_us_per_poll": round(share * wall / len(late) * 1e6),
            "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }

    def caught_up(self, began: float) -> dict[str, float]:
        """Seconds since `began` (Unix time) to the first poll and to the last that was too late; those after it."""
        too_late = [at for at, late in zip(self.at, self.late, strict=True) if late > LATE]
        caught_up = max(too_late, default=self.at[0])
        rest = sorted(late for at, late in zip(self.at, self.late, strict=True) if at > caught_up)
        return {
            "first_poll_after_seconds": round(self.at[0] - began, 2),
            "caught_up_after_seconds": round(caught_up - began, 2),
            "p99_late_ms_from_then_on": round(rest[int(0.99 * len(rest))] * 1000, 1),
        }


async def work(settings: Settings, seconds: float, *, warm: float, began: float) -> None:
    """One worker for so long; prints its figures as one line. `warm`: seconds before they count; `began`: Unix time."""
    watch = Watch()
    step = pipeline.STEPS[JobKind.POLL]

    async def watched(job: Job, context: Context) -> Changeset:
        watch.late.append((context.clock.now() - job.due_at).total_seconds())
        watch.at.append(time.time())
        return await step(job, context)

    pipeline.STEPS[JobKind.POLL] = watched
    async with wired(settings) as context:
        worker = Worker(context)
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(warm)
        watch.begin()
        await asyncio.sleep(seconds)
        sys.stdout.write(json.dumps({"all": watch.figures(), "again": watch.caught_up(began)}) + "\n")
        sys.stdout.flush()
        worker.stop()
        await running


@contextlib.contextmanager
def child(core: int, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """This module as another process, on one core; killed at the end."""
    command = [sys.executable, "-m", "bench.inflight_speed", "--began", str(time.time()), *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def asked(port: int) -> dict[str, float]:
    """What the stub has counted."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stub", timeout=5) as answer:
        counted: dict[str, float] = json.load(answer)
    return counted


def run(count: int, seconds: float) -> dict[str, Any]:
    """Fill, work, kill, work again."""
    cores = sorted(os.sched_getaffinity(0))
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as name, child(cores[-1], "--stub", str(port)):
        settings = installation(Path(name), port)
        asyncio.run(fill(settings, count, port))
        given = ["--work", name, "--port", str(port), "--seconds"]
        with child(cores[0], *given, str(seconds), "--warm", "12") as worker:
            assert worker.stdout is not None
            first = json.loads(worker.stdout.readline())
        before = asked(port)
        with child(cores[0], *given, "40", "--warm", "0") as worker:
            assert worker.stdout is not None
            again = json.loads(worker.stdout.readline())
        after = asked(port)
    return {
        "bench": "inflight",
        "submissions": count,
        **first["all"],
        "shortest_gap_seconds": round(before["shortest_gap"], 2),
        "after_restart": {
            **again["all"],
            **again["again"],
            "polls": after["GET"] - before["GET"],
            "posts": after["POST"],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submissions", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--warm", type=float, default=12.0)
    parser.add_argument("--began", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--stub", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stub:
        uvloop.run(serve_stub(given.stub))
    elif given.work:
        loaded = settings_module.load(given.work / "demo" / "access-facade.toml")
        changed = replace(loaded, store_url=f"sqlite:///{given.work / 'bench.db'}", clock_url=None, mllp=None)
        uvloop.run(work(changed, given.seconds, warm=given.warm, began=given.began))
    else:
        print(json.dumps(run(given.submissions, given.seconds), indent=2))


if __name__ == "__main__":
    main()
