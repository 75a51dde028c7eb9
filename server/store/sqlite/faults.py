"""SQLite's errors in the words of the facade. Messages name tables and columns, never values."""

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Final

from server.domain.errors import FacadeError, StoreDamaged, StoreUnavailable, UniqueViolation

_UNIQUE: Final = frozenset(
    {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID}
)
_UNAVAILABLE: Final = {
    sqlite3.SQLITE_BUSY: "another process holds the store",
    sqlite3.SQLITE_LOCKED: "the store is locked",
    sqlite3.SQLITE_READONLY: "the store may only be read: check the rights of the file and its folder",
    sqlite3.SQLITE_IOERR: "reading or writing the store's file failed",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CANTOPEN: "the store's file can not be opened",
    sqlite3.SQLITE_NOMEM: "the store ran out of memory",
    sqlite3.SQLITE_INTERRUPT: "the store is closing",
}
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})


def code_of(error: sqlite3.Error) -> int:
    """The primary result code, 0 if the driver itself refused."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def is_io_error(error: BaseException | None) -> bool:
    """Whether the disk failed: what it holds now is not known until the file is opened anew."""
    return isinstance(error, sqlite3.Error) and code_of(error) == sqlite3.SQLITE_IOERR


def translated(error: sqlite3.Error) -> FacadeError | ValueError | sqlite3.Error:
    """The facade's exception for SQLite's; a fault of our own program stays what it is."""
    if getattr(error, "sqlite_errorcode", 0) in _UNIQUE:
        return _unique(str(error))
    code = code_of(error)
    if code in _UNAVAILABLE:
        return StoreUnavailable(_UNAVAILABLE[code])
    if code in _DAMAGED:
        return StoreDamaged("the store's file is damaged: restore it from a backup")
    if code == sqlite3.SQLITE_CONSTRAINT:
        return ValueError(f"the row can not be stored: {error}")
    return error


@contextlib.contextmanager
def translating() -> Iterator[None]:
    """Raises the facade's exceptions in place of SQLite's."""
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error) from error


def _unique(message: str) -> UniqueViolation:
    """Reads `UNIQUE constraint failed: job.waiting_key, job.kind`."""
    places = [place.strip() for place in message.partition(": ")[2].split(",")]
    return UniqueViolation(places[0].partition(".")[0], tuple(place.rpartition(".")[2] for place in places))
