"""Both engines side by side, and what the interface costs on SQLite: `python -m bench.engines_speed [--mongodb URL]`.

`interface_cost` is the share that `open_store(...).commit` takes, in CPU time, above the SQLite engine's own writer
that is handed the same prepared changesets, in interleaved rounds. The MongoDB figures are those of the server at URL;
without one, of the test stand-in (nx-27017 behind tests/server/store/standin.py): they say nothing about MongoDB's
speed, but how many commands a piece of work takes.
"""

import argparse
import asyncio
import atexit
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from pymongo import monitoring

from bench.store_speed import NOW, PARTICIPANT, create, rate
from server.context import new_id
from server.domain.job import JobKind, NewJob
from server.store.base import Changeset, Store
from server.store.crypto import generate_master_key
from server.store.opening import open_store
from server.store.sqlite.changes import prepare
from server.store.sqlite.engine import SqliteStore

STANDIN = Path(__file__).resolve().parents[1] / "tests" / "server" / "store" / "standin.py"
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Commands(monitoring.CommandListener):
    """Counts the commands that the driver sends."""

    count = 0

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """One more, but for what only ends a session."""
        self.count += event.command_name not in ("endSessions", "hello")

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Nothing."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing."""


COMMANDS = Commands()


def start_standin() -> str:
    """Its data are in memory, where that is possible: it syncs after each statement, which MongoDB does not."""
    folder = tempfile.mkdtemp(prefix="standin-", dir=MEMORY)
    command = [sys.executable, str(STANDIN), "--data-dir", folder, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(process.kill)
    assert process.stdout is not None
    return f"mongodb://127.0.0.1:{process.stdout.readline().split()[1]}/bench?replicaSet=standin"


async def work(store: Store, seconds: float) -> dict[str, float]:
    """Rates of the hot paths, with 1 and 16 tasks (of jobs: workers)."""

    async def changeset() -> int:
        await store.commit(create()[0])
        return 1

    async def whole_create() -> int:
        for part in create():
            await store.commit(part)
        return 1

    figures: dict[str, float] = {}
    for tasks in (1, 16):
        figures[f"changesets_{tasks}"] = await rate(changeset, tasks=tasks, seconds=seconds)
        figures[f"creates_{tasks}"] = await rate(whole_create, tasks=tasks, seconds=seconds)
        figures[f"claims_{tasks}"] = await claims(store, tasks=tasks, seconds=seconds)
    return figures


async def claims(store: Store, *, tasks: int, seconds: float) -> float:
    """Jobs a second that are claimed, 16 at a time as a worker does, and finished; each puts a new one in its place."""
    later = NOW + timedelta(days=1)
    jobs = [NewJob(participant_id=PARTICIPANT, kind=JobKind.POLL, key=new_id(), due_at=NOW) for _ in range(400)]
    await store.commit(Changeset(jobs=tuple(jobs)))

    async def claim() -> int:
        taken = await store.claim(now=later, machine_now=later, lease_seconds=1e9, limit=16)
        again = (NewJob(participant_id=PARTICIPANT, kind=JobKind.POLL, key=new_id(), due_at=NOW) for _ in taken)
        await asyncio.gather(
            *(store.commit(Changeset(finish=job, jobs=(new,))) for job, new in zip(taken, again, strict=True))
        )
        return len(taken)

    return await rate(claim, tasks=tasks, seconds=seconds)


async def interface_cost(folder: Path, rounds: int) -> float:
    """The share of CPU time above the engine called directly; the calmest quarter of many short rounds of each."""
    store = open_store(f"sqlite:///{folder}/cost.db", folder / "master.key")
    assert isinstance(store, SqliteStore)
    await store.commit(create()[0])
    keys = {PARTICIPANT: await store._key(PARTICIPANT)}

    async def through() -> int:
        await store.commit(create()[0])
        return 1

    async def direct() -> int:
        prepared = prepare((create()[0],), keys)
        await store._writer.submit(prepared.run, rows=prepared.rows)
        return 1

    async def cpu(each: Callable[[], Awaitable[int]]) -> float:
        before = time.process_time()
        for _ in range(10):
            await asyncio.gather(*(each() for _ in range(16)))
        return time.process_time() - before

    spent: dict[Any, list[float]] = {through: [], direct: []}
    for turn in range(rounds * 20):
        for each in (through, direct) if turn % 2 else (direct, through):
            spent[each].append(await cpu(each))
    await store.close()
    calm = {each: statistics.fmean(sorted(times)[: len(times) // 4]) for each, times in spent.items()}
    return calm[through] / calm[direct] - 1


async def commands_of(store: Store) -> dict[str, float]:
    """Commands on the wire for one piece of work, alone and in a group of 32."""

    async def counted(some: Callable[[], Awaitable[Any]]) -> int:
        before = COMMANDS.count
        await some()
        return COMMANDS.count - before

    await store.commit(create()[0])
    pairs = [create() for _ in range(32)]
    before, later = NOW - timedelta(days=1), NOW + timedelta(days=1)
    job = NewJob(participant_id=PARTICIPANT, kind=JobKind.POLL, key=new_id(), due_at=NOW)
    first = await counted(lambda: store.commit(pairs[0][0]))
    second = await counted(lambda: store.commit(pairs[0][1]))
    group = [
        await counted(lambda part=part: asyncio.gather(*(store.commit(pair[part]) for pair in pairs[1:])))
        for part in (0, 1)
    ]
    await store.commit(Changeset(jobs=(job,)))
    await asyncio.sleep(0)
    claim = await counted(lambda: store.claim(now=later, machine_now=later, lease_seconds=60, limit=16))
    idle = await counted(lambda: store.claim(now=before, machine_now=before, lease_seconds=60, limit=16))
    return {"create": first + second, "create_in_group_of_31": round(sum(group) / 31, 2), "claim": claim, "idle": idle}


async def run(seconds: float, rounds: int, mongodb: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        generate_master_key(folder / "master.key")
        monitoring.register(COMMANDS)
        found: dict[str, Any] = {"interface_cost": round(await interface_cost(folder, rounds), 3)}
        peer = "mongodb" if mongodb else "mongodb_standin"
        urls = {"sqlite": f"sqlite:///{folder}/bench.db", peer: mongodb or start_standin()}
        for engine, url in urls.items():
            store = open_store(url, folder / "master.key")
            figures = await work(store, seconds)
            found[engine] = {what: round(value) for what, value in figures.items()}
            if engine != "sqlite":
                found[f"{engine}_commands"] = await commands_of(store)
            start = time.perf_counter()
            report = await store.verify_audit()
            found[engine]["audit_rows_verified"] = round(report.rows / (time.perf_counter() - start))
            await store.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mongodb", help="a real server's URL with a database of its own")
    given = parser.parse_args()
    print(json.dumps({"bench": "engines", **asyncio.run(run(given.seconds, given.rounds, given.mongodb))}, indent=2))


if __name__ == "__main__":
    main()
