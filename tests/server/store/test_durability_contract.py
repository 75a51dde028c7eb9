"""Crashes and neighbours: what was acknowledged is there (reliability P1, C1)."""

import subprocess
from collections.abc import Callable
from typing import Any

from server.domain.memory import Remembered
from server.store.base import Store


def start(command: list[str]) -> "subprocess.Popen[str]":
    """Starts another process at the store and waits until it has opened it."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: "subprocess.Popen[str]") -> None:
    """Lets it work."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


async def test_acknowledged_rows_survive_sigkill(engine: Any, other_process: Callable[..., list[str]]) -> None:
    """A process is killed at five moments while it writes: every row it had acknowledged is there, chained."""
    acknowledged: set[str] = set()
    for moment in (1, 7, 40, 150, 400):
        process = start(other_process("write", 100_000, f"{moment}-"))
        go(process)
        assert process.stdout is not None
        assert process.stdin is not None
        lines = [process.stdout.readline() for _ in range(moment)]
        process.kill()
        lines += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        process.stdin.close()
        acknowledged |= {line.strip() for line in lines if line.endswith("\n")}
    store = engine.open()
    found = {row.name for row in await store.find(Remembered)}
    report = await store.verify_audit()
    await store.close()
    assert len(acknowledged) >= 598
    assert acknowledged <= found
    assert report.broken_at is None
    assert report.rows == len(found)


async def test_two_processes_write_at_once(store: Store, other_process: Callable[..., list[str]]) -> None:
    """Two processes write 300 rows each at full speed: all are there, in one unbroken chain."""
    processes = [start(other_process("write", 300, prefix)) for prefix in ("a", "b")]
    for process in processes:
        go(process)
    outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(row.name for row in await store.find(Remembered)) == sorted(outputs[0] + outputs[1])
    report = await store.verify_audit()
    assert (report.rows, report.broken_at) == (600, None)
