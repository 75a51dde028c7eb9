"""The programs of the demo as child processes; one that dies is started again, as a service manager would."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from server.domain.errors import FacadeError


@dataclass
class Child:
    """One program: its arguments after `python -m`, and where it answers once it is up."""

    name: str
    arguments: list[str]
    ready: str  # URL that answers 2xx, or tcp://HOST:PORT, or "" for a program that does not listen
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0


@dataclass
class Supervisor:
    """Starts, watches and stops the children. Each writes its log to a file in `folder`."""

    folder: Path
    children: dict[str, Child] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _stopping: bool = False

    def start(self, child: Child, *, seconds: float = 20.0) -> None:
        """Starts it and waits until it is ready."""
        self.children[child.name] = child
        self._spawn(child)
        self.wait_ready(child, seconds=seconds)

    def watch(self) -> None:
        """Begins to look after them."""
        threading.Thread(target=self._watch, daemon=True).start()

    def kill(self, name: str) -> int:
        """SIGKILL, as a power cut would; it is started again by the watch. Returns the pid that was killed."""
        process = self.children[name].process
        if process is None:
            raise FacadeError(f"{name} was never started")
        process.send_signal(signal.SIGKILL)
        process.wait()
        return process.pid

    def stop(self) -> None:
        """Ends them all, the last started first."""
        with self._lock:
            self._stopping = True
        for child in reversed(self.children.values()):
            if child.process is not None and child.process.poll() is None:
                child.process.terminate()
        for child in self.children.values():
            if child.process is not None:
                try:
                    child.process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    child.process.kill()

    def wait_ready(self, child: Child, *, seconds: float) -> None:
        """Until it answers. FacadeError with the end of its log if it does not."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if _answers(child.ready):
                return
            time.sleep(0.05)
        tail = self._log(child).read_text(errors="replace")[-2000:]
        raise FacadeError(f"{child.name} did not start within {seconds:.0f} s. The end of its log:\n{tail}")

    def restarts(self) -> int:
        """How often a dead child was started again."""
        return sum(max(child.starts - 1, 0) for child in self.children.values())

    def _watch(self) -> None:
        while True:
            time.sleep(0.1)
            with self._lock:
                if self._stopping:
                    return
                for child in self.children.values():
                    if child.process is not None and child.process.poll() is not None:
                        self._spawn(child)

    def _spawn(self, child: Child) -> None:
        with self._log(child).open("ab") as log:
            child.process = subprocess.Popen(  # noqa: S603 - our own modules
                [sys.executable, "-m", *child.arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C is for the demo, which ends them in order
            )
        child.starts += 1

    def _log(self, child: Child) -> Path:
        return self.folder / f"{child.name}.log"


def _answers(ready: str) -> bool:
    if not ready:
        return True
    try:
        if ready.startswith("tcp://"):
            host, _, port = ready.removeprefix("tcp://").partition(":")
            with socket.create_connection((host, int(port)), timeout=0.5):
                return True
        with urllib.request.urlopen(ready, timeout=1) as answer:  # noqa: S310 - loopback
            return bool(answer.status < 300)
    except (OSError, urllib.error.URLError):
        return False


def free_ports(count: int) -> list[int]:
    """Free loopback ports, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
