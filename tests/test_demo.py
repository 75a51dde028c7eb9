"""The demo ends as it must, also when its programs are killed at random while it plays."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

SECONDS = 240  # for a busy machine: undisturbed it takes about 35
EVERY = 4.0  # seconds between two kills
KILLS = 12


ON_STANDIN = Path(__file__).parent / "server" / "store" / "on_standin.py"
DEMO = (sys.executable, "-m", "server.cli", "demo", "--json")
COMMANDS = {
    "sqlite": DEMO,
    "mongodb": (sys.executable, str(ON_STANDIN), *DEMO, "--store", "mongodb://STANDIN/demo?replicaSet=standin"),
}


def _started(folder: Path, store: str = "sqlite") -> subprocess.Popen[bytes]:
    """`access-facade demo --json`, its temporary files in a folder of the test's own."""
    with (folder / "stderr").open("wb") as said:
        return subprocess.Popen(
            COMMANDS[store],
            stdout=subprocess.PIPE,
            stderr=said,
            env={**os.environ, "TMPDIR": str(folder)},
            start_new_session=True,
        )


def _ended(process: subprocess.Popen[bytes], folder: Path) -> dict[str, Any]:
    """What it printed; it must have ended well."""
    try:
        out, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    said = (folder / "stderr").read_text()[-3000:]
    assert process.returncode == 0, said
    content: dict[str, Any] = json.loads(out)
    assert (content["ok"], content["failed"]) == (True, []), said
    assert [row for row in content["summary"] if not row[2]] == []
    return content


@pytest.mark.parametrize("store", COMMANDS)
def test_the_year_ends_as_it_must(tmp_path: Path, store: str) -> None:
    """Exit 0, every line of the closing count is good, nothing is left behind; on either store engine."""
    content = _ended(_started(tmp_path, store), tmp_path)
    summary = {what.partition(" (")[0]: result for what, result, _ in content["summary"]}
    assert summary["lost"] == summary["sent twice"] == summary["open submissions"] == "0"
    assert [path.name for path in tmp_path.iterdir()] == ["stderr"]


def test_the_year_ends_as_it_must_under_random_kills(tmp_path: Path) -> None:
    """A SIGKILL of one of its programs every few seconds: the same end (P1, P3, P4 through real processes)."""
    process = _started(tmp_path)
    killed: list[int] = []
    over = threading.Event()
    killer = threading.Thread(target=_kill, args=(process.pid, killed, over))
    killer.start()
    try:
        _ended(process, tmp_path)
    finally:
        over.set()
        killer.join()
    assert len(killed) > 3, "hardly anything was killed"


def _kill(parent: int, killed: list[int], over: threading.Event) -> None:
    """Kills a child every few seconds, chosen by a seeded chance, once they all run."""
    chance = random.Random(2026)
    while not over.is_set() and len(_children(parent)) < 5:
        time.sleep(0.1)
    while len(killed) < KILLS and not over.wait(EVERY * chance.uniform(0.8, 1.2)):
        children = _children(parent)
        if children:
            victim = chance.choice(children)
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed.append(victim)


def _children(parent: int) -> list[int]:
    """The processes that a process started, in the order of their numbers."""
    found: set[int] = set()
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        try:
            found |= {int(number) for number in path.read_text().split()}
        except OSError:
            continue
    return sorted(found)
