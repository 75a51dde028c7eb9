"""Reading connections: one for look-ups of a few rows in the event loop's own thread, a few in a pool for the rest.

A look-up by index takes some 20 microseconds, the way to another thread and back 150; anything that may scan goes to
the pool. If another process holds the file just then, the look-up goes to the pool and waits there.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final, TypeVar

from server.domain.errors import StoreUnavailable
from server.store.sqlite.connection import open_reader
from server.store.sqlite.faults import code_of, translated, translating

T = TypeVar("T")
THREADS: Final = 4
_HELD: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class Readers:
    """Runs reading functions, each with a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._near: sqlite3.Connection | None = open_reader(path, wait=False)
        self._all = [open_reader(path) for _ in range(THREADS)]
        self._free: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        for connection in self._all:
            self._free.put(connection)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="store-reader")

    async def near(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """For a few rows by index: in this thread, if the file is free."""
        try:
            return read(self._open())
        except sqlite3.Error as error:
            if code_of(error) not in _HELD:
                raise translated(error) from error
        return await self.far(read)

    async def far(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """For anything that may take long: in the pool."""
        self._open()
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, read)

    def stop(self) -> None:
        """Takes no more reads. Called in the event loop's thread."""
        if self._near is not None:
            self._near.close()
            self._near = None

    def join(self) -> None:
        """Blocks until the reads under way are done and the connections closed."""
        self._pool.shutdown(wait=True)
        for connection in self._all:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._near is None:
            raise StoreUnavailable("the store is closed")
        return self._near

    def _run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._free.get()
        try:
            with translating():
                return read(connection)
        finally:
            self._free.put(connection)
