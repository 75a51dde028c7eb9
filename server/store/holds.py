"""Which jobs a living process of this machine has in hand: the one question that a lease can not answer.

A lease runs out by the clock, whether its holder is dead or only stopped. For a job whose step does what can not be
done again (a POST to CMS) that is not enough: so while such a step runs its process keeps a file locked, named by the
job, in a folder beside the SQLite store. The kernel lets go of the lock when the process ends, however it ends, and not
before. The locks go as far as those of SQLite itself: to all processes and containers of one machine.

A store that several machines share has no such folder: there nothing is ever in hand, and leases alone decide.
"""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.domain.errors import StoreUnavailable

SUFFIX = ".held"  # after the name of the store's file


@dataclass(frozen=True, slots=True)
class Hold:
    """A job in hand. `process` is for a person: the process id, and the machine's or the container's name."""

    job_id: str
    process: str
    seconds: float  # since it was taken in hand
    ours: bool


class Holds:
    """The jobs in hand of all processes. `folder` None: leases alone decide."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._ours: set[str] = set()

    @contextlib.contextmanager
    def hold(self, job_id: str) -> Iterator[bool]:
        """Takes the job in hand until the block ends; False if somebody has it. Raises StoreUnavailable."""
        if self._folder is None:
            yield True
            return
        path = self._folder / job_id
        with _failing():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            lock = None if job_id in self._ours else _locked(path)
        if lock is None:
            yield False
            return
        self._ours.add(job_id)
        try:
            with _failing():
                os.truncate(lock, 0)
                os.write(lock, f"{os.getpid()} on {socket.gethostname()}".encode())
            yield True
        finally:
            self._ours.discard(job_id)
            _removed(path, lock)

    def held(self) -> list[Hold]:
        """All jobs in hand. The files of processes that have died are removed on the way. Raises StoreUnavailable."""
        if self._folder is None:
            return []
        with _failing():
            names = os.listdir(self._folder) if self._folder.is_dir() else ()
            found = (self._hold(name, self._folder / name) for name in names)
            return [hold for hold in found if hold is not None]

    def _hold(self, job_id: str, path: Path) -> Hold | None:
        ours = job_id in self._ours
        lock = None if ours else _locked(path, make=False)
        if lock is not None:
            _removed(path, lock)
            return None
        try:
            return Hold(job_id, path.read_text(), time.time() - path.stat().st_mtime, ours)
        except FileNotFoundError:  # let go meanwhile
            return None


def _locked(path: Path, *, make: bool = True) -> int | None:
    """The locked file; None if somebody else has locked it, or if it is not there and not to be made."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        if os.fstat(file).st_nlink:
            return file
        os.close(file)  # whoever had it has removed it meanwhile: the next one of that name counts


def _removed(path: Path, lock: int) -> None:
    """The file goes first, so that nobody locks what is about to vanish and takes it for good."""
    with contextlib.suppress(OSError):
        path.unlink()
    os.close(lock)


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise StoreUnavailable(f"the folder of jobs in hand: {failure.strerror}") from failure
