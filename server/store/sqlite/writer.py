"""The one writing connection, and group commit: what is queued while the disk is busy shares the next transaction.

Statements run in the event loop's thread, a bounded group at a time; whatever may wait (another process's lock, the
disk's sync) runs in one thread of its own. Statements in a thread beside a busy event loop would give up the
interpreter's lock and wait for it twice a row; measured in docs/adr/0002-store.md.

If a piece of a group fails, all are undone and run again, each under a savepoint of its own, so that the bad one is
undone alone. (A savepoint around the group would cost a copy of every page that it changes.) Results are handed back
after the commit: whoever awaits one knows that it is on disk.
"""

import asyncio
import contextlib
import random
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeVar

from server.domain.errors import FacadeError, StoreDamaged, StoreUnavailable
from server.store import chain
from server.store.crypto import DataKey
from server.store.sqlite.connection import BUSY_SECONDS
from server.store.sqlite.faults import code_of, is_io_error, translated

T = TypeVar("T")
GROUP: Final = 32  # least that a transaction takes of a longer queue; else half of it, so that the next can be prepared
ROWS: Final = 500  # a group ends when it has so many rows: some 5 ms of the event loop's time
_YIELD_SECONDS: Final = 0.001  # left to another process that writes too
_CLOSED: Final = "the store is closed"
_DISK_FAILED: Final = "the disk failed: no more is written until the process is started again"
_READ_HEAD: Final = 'SELECT "sequence", "hash" FROM "audit_head" WHERE "participant_id" = ?'
_WRITE_HEAD: Final = 'INSERT OR REPLACE INTO "audit_head" VALUES (?, ?, ?, ?)'


class Transaction:
    """What a piece of work writes with. Audit rows are linked when the work is done, and written with the group."""

    def __init__(self, cursor: sqlite3.Cursor, audit_insert: str) -> None:
        self.cursor = cursor
        self._audit_insert = audit_insert
        self._heads: dict[str, tuple[chain.Head, DataKey]] = {}
        self._rows: list[list[Any]] = []

    def head(self, participant_id: str) -> chain.Head:
        """The end of that participant's chain, as of now."""
        if participant_id in self._heads:
            return self._heads[participant_id][0]
        row = self.cursor.execute(_READ_HEAD, (participant_id,)).fetchone()
        return chain.Head(*row) if row else chain.EMPTY

    def append(self, participant_id: str, values: list[Any], key: DataKey) -> None:
        """Adds a row to a chain. It is the last thing that a piece of work does: it can not fail after it."""
        head = chain.link(self.head(participant_id), values)
        self._heads[participant_id] = (head, key)
        self._rows.append(values)

    def sign(self, participant_id: str, key: DataKey) -> None:
        """Writes the chain's head even if it is empty."""
        self._heads[participant_id] = (self.head(participant_id), key)

    def flush(self) -> None:
        """Writes the chains' new rows and ends."""
        try:
            self.cursor.executemany(self._audit_insert, self._rows)
        except sqlite3.IntegrityError:
            raise StoreDamaged(
                "the end of an audit chain does not fit its rows: run `access-facade audit verify`"
            ) from None
        for participant_id, (head, key) in self._heads.items():
            signature = chain.signature(participant_id, head, key)
            self.cursor.execute(_WRITE_HEAD, (participant_id, *head, signature))


class Work:
    """What is queued. Until it is `taken`, to be written, `run` may still be given more to do."""

    __slots__ = ("future", "rows", "run", "taken")

    def __init__(self, run: Callable[[Transaction], Any], rows: int, future: "asyncio.Future[Any]") -> None:
        self.run = run
        self.rows = rows
        self.future = future
        self.taken = False


class _Group(NamedTuple):
    """What shares a transaction. `together` False: one of them is known to fail."""

    works: list[Work]
    together: bool


class _Outcome(NamedTuple):
    future: "asyncio.Future[Any]"
    value: Any
    error: BaseException | None


class _GroupLost(Exception):
    """SQLite undid the whole transaction; the cause says why."""


class Writer:
    """Owns the writing connection. Used from one event loop at a time."""

    def __init__(self, connection: sqlite3.Connection, audit_insert: str) -> None:
        self._connection = connection
        self._audit_insert = audit_insert
        self._queue: deque[Work] = deque()
        self._busy = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refusal: str | None = None
        self._idle: asyncio.Future[None] | None = None
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="store-disk")
        self._version = self._data_version()
        connection.execute("PRAGMA busy_timeout = 0")  # waiting is done in `_wait_for_lock`, in shorter steps

    async def submit(self, run: Callable[[Transaction], T], *, rows: int = 1) -> T:
        """Runs it in the next transaction; returns when that is on disk. Raises what `run` raises, StoreUnavailable.

        `run` may be run twice: it changes nothing but rows, about `rows` of them.
        """
        value: T = await self.hand(run, rows=rows).future
        return value

    def hand(self, run: Callable[[Transaction], Any], *, rows: int = 1) -> Work:
        """As `submit`, without waiting. Raises StoreUnavailable."""
        if self._refusal is not None:
            raise StoreUnavailable(self._refusal)
        self._forget_closed_loop()
        loop = asyncio.get_running_loop()
        work = Work(run, rows, loop.create_future())
        self._queue.append(work)
        if not self._busy:
            self._busy, self._loop = True, loop
            loop.call_soon(self._next, loop)  # not at once: other tasks of this turn join the group
        return work

    async def close(self) -> None:
        """Takes no more work, finishes what is queued, closes the connection. Idempotent."""
        self._refusal = self._refusal or _CLOSED
        self._forget_closed_loop()
        if self._busy:
            self._idle = self._idle or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)
        self._disk.shutdown()
        self._connection.close()

    # In the event loop's thread:

    def _forget_closed_loop(self) -> None:
        """What was queued in a loop that has ended is nobody's any more: it was never acknowledged."""
        if self._busy and self._loop is not None and self._loop.is_closed():
            self._disk.submit(self._undo).result()  # after what that thread may still be doing
            self._queue.clear()
            self._busy = False

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._queue:
            self._busy = False
            if self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
            return
        self._start(loop, _Group(self._take(), together=True))

    def _start(self, loop: asyncio.AbstractEventLoop, group: _Group) -> None:
        try:
            self._begin()
        except (sqlite3.Error, StoreUnavailable) as error:
            if isinstance(error, sqlite3.Error) and code_of(error) == sqlite3.SQLITE_BUSY:
                self._disk.submit(self._wait_for_lock, loop, group)
            else:
                self._done(loop, self._failed(group, error))
        else:
            self._run(loop, group)

    def _take(self) -> list[Work]:
        size, rows = max(GROUP, len(self._queue) // 2), 0
        group: list[Work] = []
        while self._queue and len(group) < size and rows < ROWS:
            work = self._queue.popleft()
            work.taken = True
            group.append(work)
            rows += work.rows
        return group

    def _run(self, loop: asyncio.AbstractEventLoop, group: _Group) -> None:
        try:
            outcomes = self._together(group.works) if group.together else self._one_by_one(group.works)
        except (sqlite3.Error, FacadeError, _GroupLost) as error:
            self._undo()
            self._done(loop, self._failed(group, error))
        else:
            if outcomes is not None:
                self._disk.submit(self._sync, loop, group, outcomes)
            else:
                self._undo()
                self._start(loop, group._replace(together=False))

    def _done(self, loop: asyncio.AbstractEventLoop, outcomes: list[_Outcome]) -> None:
        _hand_back(outcomes)
        if self._queue and self._others_write():
            loop.call_later(_YIELD_SECONDS, self._next, loop)
        else:
            self._next(loop)

    def _together(self, works: list[Work]) -> list[_Outcome] | None:
        """All of them, or None if one failed and all are to be undone."""
        transaction = self._transaction()
        try:
            outcomes = [_Outcome(work.future, work.run(transaction), None) for work in works]
            transaction.flush()
        except Exception as error:  # its own run finds it again, and hands it to whoever awaits that work
            if is_io_error(error):
                raise _GroupLost from error
            return None
        return outcomes

    def _one_by_one(self, works: list[Work]) -> list[_Outcome]:
        transaction = self._transaction()
        outcomes = [self._alone(transaction, work) for work in works]
        transaction.flush()
        return outcomes

    def _alone(self, transaction: Transaction, work: Work) -> _Outcome:
        transaction.cursor.execute("SAVEPOINT work")
        try:
            value = work.run(transaction)
        except Exception as error:  # handed to whoever awaits the work, whatever it is
            self._back_to_savepoint(transaction, error)
            return _Outcome(work.future, None, translated(error) if isinstance(error, sqlite3.Error) else error)
        transaction.cursor.execute("RELEASE work")
        return _Outcome(work.future, value, None)

    def _back_to_savepoint(self, transaction: Transaction, error: Exception) -> None:
        if not self._connection.in_transaction or is_io_error(error):
            raise _GroupLost from error
        transaction.cursor.execute("ROLLBACK TO work")
        transaction.cursor.execute("RELEASE work")

    def _transaction(self) -> Transaction:
        return Transaction(self._connection.cursor(), self._audit_insert)

    def _others_write(self) -> bool:
        """Whether another process has written since this was last asked."""
        try:
            before, self._version = self._version, self._data_version()
        except sqlite3.Error:
            return False
        return before != self._version

    def _data_version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    # In the disk's thread, while the event loop leaves the connection alone:

    def _wait_for_lock(self, loop: asyncio.AbstractEventLoop, group: _Group) -> None:
        """Tries in short steps, so that each process gets its turn."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            time.sleep(random.uniform(0.0001, 0.0005))  # noqa: S311 - spreads the tries, no secret
            try:
                self._begin()
            except sqlite3.Error as error:
                if code_of(error) == sqlite3.SQLITE_BUSY and time.monotonic() < deadline:
                    continue
                self._to_loop(loop, self._done, loop, self._failed(group, error))
            else:
                self._to_loop(loop, self._run, loop, group)
            return

    def _sync(self, loop: asyncio.AbstractEventLoop, group: _Group, outcomes: list[_Outcome]) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            outcomes = self._failed(group, error)
        self._to_loop(loop, self._done, loop, outcomes)

    def _to_loop(self, loop: asyncio.AbstractEventLoop, step: Callable[..., None], *values: Any) -> None:
        try:
            loop.call_soon_threadsafe(step, *values)
        except RuntimeError:  # the loop is closed: nobody waits any more, and the lock is not to be kept
            self._undo()

    # In either:

    def _begin(self) -> None:
        if self._refusal == _DISK_FAILED:
            raise StoreUnavailable(_DISK_FAILED)
        self._connection.execute("BEGIN IMMEDIATE")

    def _undo(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _failed(self, group: _Group, error: Exception) -> list[_Outcome]:
        """The whole group has failed: nothing of it was written."""
        cause = error.__cause__ if isinstance(error, _GroupLost) else error
        if is_io_error(cause):
            # After a failed sync nobody knows which pages are on disk: only opening the file anew tells.
            self._refusal = _DISK_FAILED
        reason = translated(cause) if isinstance(cause, sqlite3.Error) else cause
        return [_Outcome(work.future, None, reason) for work in group.works]


def _hand_back(outcomes: list[_Outcome]) -> None:
    for future, value, error in outcomes:
        if future.done():  # whoever waited was cancelled
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
