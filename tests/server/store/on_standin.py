"""Runs a command beside a fresh stand-in, whose HOST:PORT replaces the word STANDIN; ends as the command does.

`on_standin.py access-facade demo --store 'mongodb://STANDIN/demo?replicaSet=standin'`. Nothing is left behind.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # the stand-in syncs after each statement
STANDIN = Path(__file__).with_name("standin.py")
PLACE = "STANDIN"


def start(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """A stand-in on a free port; it listens when this returns."""
    command = [sys.executable, str(STANDIN), "--data-dir", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said, port = process.stdout.readline().split()
    assert said == "ready"
    return process, int(port)


def main() -> int:
    """The command's exit code."""
    if PLACE not in " ".join(sys.argv[1:]):
        sys.exit(f"usage: on_standin.py COMMAND ... with the word {PLACE} where HOST:PORT belongs")
    folder = Path(tempfile.mkdtemp(prefix="standin-", dir=MEMORY))
    server, port = start(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return subprocess.run(
            [each.replace(PLACE, f"127.0.0.1:{port}") for each in sys.argv[1:]], check=False
        ).returncode
    finally:
        server.kill()
        server.communicate()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
