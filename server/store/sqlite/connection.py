"""Opening connections to the one store file."""

import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from server.domain.errors import BadConfiguration, StoreUnavailable
from server.store.sqlite.faults import code_of, translated

BUSY_SECONDS: Final = 10.0  # how long a writer waits for another process before it says so
_OLDEST: Final = (3, 37, 0)  # STRICT tables; RETURNING came before
_WAL_LIMIT: Final = 64 * 1024 * 1024


def create_file(path: Path) -> None:
    """Makes the file, readable by its owner only, if it is not there. SQLite gives the WAL the same rights."""
    if sqlite3.sqlite_version_info < _OLDEST:
        raise BadConfiguration(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or later is needed")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as bad:
        raise BadConfiguration(f"{path}: the store's file can not be opened: {bad.strerror}") from None


def open_writer(path: Path) -> sqlite3.Connection:
    """The writing connection: every commit is on disk when it returns."""
    connection = _connect(path)
    try:
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")  # 16 MB: pages rewritten often are copied back once
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
        connection.execute("PRAGMA cache_size = -32000")
        connection.execute("PRAGMA temp_store = MEMORY")  # nothing of ours in temporary files
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path, *, wait: bool = True) -> sqlite3.Connection:
    """A connection that can not write. With `wait` False it gives up at once if the file is held."""
    connection = _connect(path)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA cache_size = -16000")
    connection.execute("PRAGMA temp_store = MEMORY")
    if not wait:
        connection.execute("PRAGMA busy_timeout = 0")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=512
    )


def _use_wal(connection: sqlite3.Connection) -> None:
    """Turning WAL on needs the file alone and does not wait by itself: try until it is ours or another did it."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if code_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise translated(error) from error
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise StoreUnavailable(f"the store's file system gives journal mode {mode}: WAL is needed")
        return
