"""The processes that are killed and stopped, forked from a warm parent: a worker, or the doors as `serve` runs them.

The parent reads one JSON command a line and answers one JSON line. It has one thread, so that it can fork at any time.
"""

import asyncio
import json
import mmap
import os
import signal
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import inputs
import uvicorn  # noqa: F401 - so that no child has to load it
from boundaries import ORDER, Trap, leases_are_over, passed, set_trap

from profiles.validate import prepare
from server import cli, logs, settings
from server.app import create_app  # noqa: F401
from server.clock import SystemClock, machine_now
from server.context import Context
from server.domain.job import Job, JobKind
from server.domain.memory import CmsToken
from server.store.base import Changeset, Where
from server.wiring import wired
from server.worker import Worker

LONGEST = 60  # seconds that a child may live
STANDING = (JobKind.RECOVER, JobKind.MAILBOX)
Json = dict[str, Any]
Work = Callable[[Context, Json], Awaitable[None]]


def main(config: Path, begin: datetime) -> None:
    """Obeys until there are no more commands."""
    offset = begin - machine_now()
    SystemClock.now = lambda _: machine_now() + offset  # type: ignore[method-assign]
    logs.configure()
    _warm_up()
    children: dict[int, mmap.mmap] = {}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        command = json.loads(line)
        answer = _obeyed(command, config, children)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _obeyed(command: Json, config: Path, children: dict[int, mmap.mmap]) -> Json:
    if "wait" in command:
        return _ended(command, children)
    if command.get("here"):  # in the parent itself: what is loaded and compiled for it no child has to load again
        asyncio.run(_with_context(config, command))
        return {"code": 0, "passed": []}
    return _start(command, config, children)


def _warm_up() -> None:
    """What every program does once, so that no child has to. Nothing speaks TLS here: its certificates stay unread."""
    prepare()
    for name in ("load_default_certs", "load_verify_locations"):
        setattr(ssl.SSLContext, name, lambda *_, **__: None)


def _start(command: Json, config: Path, children: dict[int, mmap.mmap]) -> Json:
    end = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < end:
        time.sleep(0.001)  # the MongoDB driver's threads end a moment after its client
    assert threading.active_count() == 1, "a process with threads must not fork"
    marks = mmap.mmap(-1, len(ORDER))
    child = os.fork()
    if child == 0:
        _child(command, config, marks)
    children[child] = marks
    return {"pid": child}


def _ended(command: Json, children: dict[int, mmap.mmap]) -> Json:
    child = command["wait"]
    end = time.monotonic() + LONGEST
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < end:
        time.sleep(0.001)
        ended, status = os.waitpid(child, os.WNOHANG)
    marks = children.pop(child)
    return {"code": os.waitstatus_to_exitcode(status) if ended else None, "passed": sorted(passed(marks[:]))}


def _child(command: Json, config: Path, marks: mmap.mmap) -> None:
    signal.alarm(600 if command.get("long") else LONGEST)
    os.close(0)
    os.dup2(2, 1)
    code = 1
    try:
        if "trap" in command:
            set_trap(Trap(marks, **command["trap"]))
        if command.get("later"):
            leases_are_over()
        if command["do"] == "serve":
            cli.serve(config, port=command["port"], worker=False)
        else:
            asyncio.run(_with_context(config, command))
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


async def _with_context(config: Path, command: Json) -> None:
    loaded = settings.load(config)
    for store in command.get("stores", [None]):
        chosen = loaded if store is None else replace(loaded, store_url=inputs.store_named(loaded.store_url, store))
        async with wired(chosen) as context:
            await WORK[command["do"]](context, command)


async def _prepare(context: Context, command: Json) -> None:
    if command.get("subscriber"):
        await inputs.add_subscriber(command["subscriber"], context)
    for number in command["patients"]:
        await inputs.add_patient(number, context)


async def _due(context: Context, command: Json) -> None:
    """The patients' reports are due from now on; workers are there already."""
    for number in command.get("patients", ()):
        await context.store.commit(inputs.due(number, context))


async def _work(context: Context, command: Json) -> None:
    """A worker, and the patients' reports that are due from now on. Ends by a signal."""
    if command.get("new_token"):
        kept = await context.store.find(CmsToken, Where("participant_id", "==", inputs.ENTITY))
        await context.store.commit(Changeset(delete=tuple(kept)))
    await _due(context, command)
    worker = Worker(context)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run()


async def _finish(context: Context, command: Json) -> None:
    """A worker that ends when nothing is due any more."""
    await _due(context, command)
    worker = Worker(context)
    running = asyncio.create_task(worker.run())
    while await _is_due(context):
        await asyncio.sleep(0.004)
    worker.stop()
    await running


async def _is_due(context: Context) -> bool:
    soon = context.clock.now() + timedelta(seconds=30)
    found = await context.store.find(Job, Where("state", "in", ("waiting", "leased")), Where("due_at", "<", soon))
    return any(job.kind not in STANDING for job in found)


WORK: dict[str, Callable[[Context, Json], Coroutine[Any, Any, None]]] = {
    "prepare": _prepare,
    "work": _work,
    "due": _due,
    "finish": _finish,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), datetime.fromisoformat(sys.argv[2]))
