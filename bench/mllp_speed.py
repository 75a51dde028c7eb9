"""B4: ORU^R01 with six OBX over MLLP on 32 connections, each acknowledged when it is on disk, against the store's own
batched writes of the very same changesets, interleaved in one run. Prints JSON.

Run: `python -m bench.mllp_speed [--rounds N] [--messages N]`. `messages` are those of one connection in one round. Each
connection is a laboratory's interface with a patient of its own; all share one ordering clinician. The senders are a
process of their own (`--talk`), the listener and its store another, on a core each where the machine has two.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvloop

from bench.oru_speed import MESSAGE
from server import settings as settings_module
from server.context import Context
from server.initialise import initialise
from server.intake.mllp import END, START, listen
from server.settings import Mllp, Settings
from server.store.base import Changeset, Store
from server.store.opening import open_store
from server.wiring import wired

CONNECTIONS, GOAL = 32, 0.3


def message(connection: int, number: int) -> bytes:
    """One framed ORU^R01 of the connection's own patient; number 0 makes the patient known."""
    text = MESSAGE.replace("BENCH0001", f"B{connection:02}N{number:06}").replace("MRN-200001", f"MRN-{connection:06}")
    text = text.replace("1EG4TE5MK73", f"1EG4TE5MK{connection:02}").replace("L-1^", f"L-{connection}-{number}^")
    text = text.replace("Rivera", f"Rivera{connection}").replace("|212|", f"|{100 + number % 200}|")
    return START + text.encode() + END


@dataclass
class Recorder:
    """A store that remembers what each task had it commit."""

    store: Store
    commits: defaultdict[Any, list[Changeset]] = field(default_factory=lambda: defaultdict(list))

    async def commit(self, changeset: Changeset) -> None:
        """Commits, then notes it: what was refused is not written again."""
        await self.store.commit(changeset)
        self.commits[asyncio.current_task()].append(changeset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@dataclass
class Round:
    """One round: messages a second, each way."""

    over_mllp: float = 0.0
    written: float = 0.0
    rows: float = 0.0  # of a message
    refused: int = 0


async def _talk(port: int, connection: int, numbers: range) -> int:
    """Sends one message after the other, each when the one before is answered; gives how many were not taken."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    refused = 0
    for number in numbers:
        writer.write(message(connection, number))
        answer = await reader.readuntil(END)
        refused += b"MSA|AA" not in answer
    writer.close()
    await writer.wait_closed()
    return refused


async def _send(port: int, numbers: range) -> dict[str, float]:
    """The senders' side: waits for a line on stdin, then sends over all connections at once."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    start = time.perf_counter()
    refused = await asyncio.gather(*(_talk(port, connection, numbers) for connection in range(CONNECTIONS)))
    spent = time.perf_counter() - start
    return {"per_second": CONNECTIONS * len(numbers) / spent, "refused": sum(refused)}


async def _all(port: int, messages: int) -> dict[str, Any]:
    """Runs the senders in a process of their own."""
    arguments = ("-m", "bench.mllp_speed", "--talk", str(port), "--messages", str(messages))
    pipe = asyncio.subprocess.PIPE
    senders = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe)
    assert senders.stdin is not None, "it is a pipe"
    assert senders.stdout is not None, "it is a pipe"
    await senders.stdout.readline()
    gc.collect()
    out, _ = await senders.communicate(b"go\n")
    found: dict[str, Any] = json.loads(out)
    return found


def _pin(core: int) -> None:
    os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})


@contextlib.asynccontextmanager
async def _fresh(settings: Settings, name: str) -> AsyncIterator[Store]:
    store = open_store(f"sqlite:///{settings.path.parent / name}.db", settings.key_file)
    try:
        yield store
    finally:
        await store.close()


async def _round(context: Context, name: str, messages: int) -> Round:
    """The messages through the listener; then what they wrote once more, by as many writers, into an empty store."""
    made = Round()
    async with _fresh(context.settings, f"{name}-mllp") as store:
        recorder = Recorder(store)
        listener = await listen(replace(context, store=recorder), Mllp("ACCES12345", port=0))  # type: ignore[arg-type]
        for connection in range(CONNECTIONS):
            await _talk(listener.port, connection, range(1))
        before = [changes for commits in recorder.commits.values() for changes in commits]
        recorder.commits.clear()
        sent = await _all(listener.port, messages)
        made.over_mllp, made.refused = sent["per_second"], sent["refused"]
        listener.close()
        await listener.wait_closed()
    after = list(recorder.commits.values())
    async with _fresh(context.settings, f"{name}-store") as store:
        for changes in before:
            await store.commit(changes)
        start = time.perf_counter()
        await asyncio.gather(*(_write(store, commits) for commits in after))
        made.written = CONNECTIONS * messages / (time.perf_counter() - start)
    made.rows = sum(map(_rows, (c for commits in after for c in commits))) / (CONNECTIONS * messages)
    return made


async def _write(store: Store, commits: list[Changeset]) -> None:
    for changes in commits:
        await store.commit(changes)


def _rows(changes: Changeset) -> int:
    return len(changes.insert) + len(changes.replace) + len(changes.delete) + len(changes.jobs) + len(changes.audit)


async def measure(rounds: int, messages: int) -> dict[str, Any]:
    """Medians over the rounds after a first that is not counted."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        made = initialise(Path(name) / "facade", demo=True)
        settings = replace(settings_module.load(Path(made.config)), mllp=None, clock_url=None)
        async with wired(settings) as context:
            for number in range(rounds + 1):
                found.append(await _round(context, f"round-{number}", messages))
    found = found[1:]
    ratio = statistics.median(each.over_mllp / each.written for each in found)
    return {
        "name": "mllp_speed",
        "what": "ORU^R01 with 6 OBX over MLLP, ACK after commit, 32 connections, over the store's writes of the same",
        "messages_per_second": round(statistics.median(each.over_mllp for each in found)),
        "written_per_second": round(statistics.median(each.written for each in found)),
        "rows_per_message": round(found[-1].rows, 1),
        "refused": sum(each.refused for each in found),
        "ratio": round(ratio, 3),
        "goal": GOAL,
        "met": ratio >= GOAL,
    }


def main() -> None:
    """Runs it; the result is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=20)
    parser.add_argument("--talk", type=int, metavar="PORT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    _pin(0 if given.talk is None else 1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if given.talk is not None:
            print(json.dumps(runner.run(_send(given.talk, range(1, given.messages + 1)))))
        else:
            print(json.dumps(runner.run(measure(given.rounds, given.messages))))


if __name__ == "__main__":
    main()
