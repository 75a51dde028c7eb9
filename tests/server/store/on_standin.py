"""Runs a command beside a fresh stand-in, whose URL replaces the word STANDIN; ends as the command does.

`on_standin.py access-facade demo --store STANDIN`. The database is `facade`; nothing is left behind.
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
        sys.exit(f"usage: on_standin.py COMMAND ... with the word {PLACE} where the URL belongs")
    folder = Path(tempfile.mkdtemp(prefix="standin-", dir=MEMORY))
    server, port = start(folder)
    url = f"mongodb://127.0.0.1:{port}/facade?replicaSet=standin"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return subprocess.run([each.replace(PLACE, url) for each in sys.argv[1:]], check=False).returncode
    finally:
        server.kill()
        server.communicate()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
