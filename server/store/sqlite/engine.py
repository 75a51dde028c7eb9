"""The default engine: one SQLite file, for one machine, shared by any number of processes on it."""

import asyncio
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from server.domain.audit import AuditEntry
from server.domain.errors import Conflict
from server.domain.job import Job, JobKind
from server.domain.record import Record
from server.store import chain
from server.store.base import ChainReport, Changeset, Where
from server.store.conditions import has_blind, participant_of
from server.store.crypto import DataKey, MasterKey
from server.store.sqlite import jobs, verify
from server.store.sqlite.changes import prepare
from server.store.sqlite.connection import create_file, open_writer
from server.store.sqlite.faults import translating
from server.store.sqlite.keys import KeyRing, check_master_key
from server.store.sqlite.migrations import migrate
from server.store.sqlite.raw import RawAccess, refuse_unfinished
from server.store.sqlite.readers import Readers
from server.store.sqlite.statements import Statements, conditions, is_point, is_short, order, statements_of
from server.store.sqlite.writer import Work, Writer

R = TypeVar("R", bound=Record)


class SqliteStore(RawAccess):
    """See `server.store.base.Store` for what each method promises. Used from one event loop."""

    def __init__(self, path: Path, master: MasterKey, *, unfinished: bool = False) -> None:
        create_file(path)
        with translating():
            connection = open_writer(path)
            try:
                migrate(connection)
                check_master_key(connection, master)
                if not unfinished:
                    refuse_unfinished(connection)
            except BaseException:
                connection.close()
                raise
            self._ring = KeyRing(master)
            self._readers = Readers(path)
            self._writer = Writer(connection, statements_of(AuditEntry).insert)

    async def commit(self, changeset: Changeset) -> None:
        """One transaction, together with whatever else is queued."""
        prepared = prepare((changeset,), await self.keys(changeset))
        if prepared.rows or prepared.finish is not None:
            await self._writer.submit(prepared.run, rows=prepared.rows)

    async def begin(self, first: Changeset) -> "Begun":
        """Queued when it returns."""
        keys = await self.keys(first)
        work = self._writer.hand(lambda transaction: prepare((first,), keys).run(transaction), rows=len(first.insert))
        return Begun(self, first, keys, work)

    async def keys(self, changeset: Changeset) -> dict[str, DataKey]:
        """The participants' keys; waits only where one is not in memory yet."""
        return {name: self._ring.get(name) or await self._key(name) for name in changeset.participants()}

    async def get(self, kind: type[R], **key: Any) -> R | None:
        """By primary key. Raises ValueError if the key is not whole."""
        statements = statements_of(kind)
        if not set(key) >= set(statements.table.key):
            raise ValueError(f"{statements.table.name} is got by {', '.join(statements.table.key)}")
        found = await self.find(kind, *(Where(name, "==", value) for name, value in key.items()))
        return found[0] if found else None

    async def find(
        self,
        kind: type[R],
        *where: Where,
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
    ) -> Sequence[R]:
        """One statement, one snapshot."""
        statements = statements_of(kind)
        ordered = order(statements, order_by, descending=descending)
        point = is_point(statements, where)
        near = point or is_short(statements, where, order_by, limit)

        def read(connection: sqlite3.Connection) -> list[R]:
            condition, values = self._conditions(connection, statements, where)
            cut = "" if limit is None else " LIMIT ?"
            sql = statements.select + condition + ("" if point else ordered) + cut
            rows = connection.execute(sql, values if limit is None else [*values, limit]).fetchall()
            return [self._decode(connection, statements, row) for row in rows]

        return await (self._readers.near(read) if near else self._readers.far(read))

    async def count(self, kind: type[Record], *where: Where) -> int:
        """Counted in the pool."""
        statements = statements_of(kind)

        def read(connection: sqlite3.Connection) -> int:
            condition, values = self._conditions(connection, statements, where)
            return int(connection.execute(statements.count + condition, values).fetchone()[0])

        return await self._readers.far(read)

    async def claim(
        self,
        *,
        now: datetime,
        machine_now: datetime,
        lease_seconds: float,
        limit: int,
        kinds: Sequence[JobKind] = (),
        held: Sequence[str] = (),
    ) -> Sequence[Job]:
        """Looks first whether anything is due: a worker that finds nothing keeps no writer waiting."""
        until = machine_now + timedelta(seconds=lease_seconds)
        claim = jobs.Claim(now=now, machine_now=machine_now, until=until, limit=limit, kinds=kinds, held=held)
        if not await self._value(claim.any, claim.any_values):
            return ()
        return await self._writer.submit(claim.run)

    async def release(self, job: Job, *, due_at: datetime) -> None:
        """Durable when it returns."""
        await self._writer.submit(lambda transaction: jobs.release(transaction, job, due_at))

    async def bury(self, job: Job) -> None:
        """Durable when it returns."""
        await self._writer.submit(lambda transaction: jobs.bury(transaction, job))

    async def next_due(self) -> datetime | None:
        """From the index."""
        value = await self._value(jobs.NEXT_DUE, ())
        return None if value is None else datetime.fromisoformat(value)

    async def changed(self) -> int:
        """SQLite's own count of commits by other connections, as one that never writes sees it."""
        return int(await self._value("PRAGMA data_version", ()))

    async def verify_audit(self) -> ChainReport:
        """Stops at the first bad row."""
        rows = 0
        chains = await self._readers.far(lambda connection: connection.execute(verify.CHAINS).fetchall())
        for (participant_id,) in chains:
            head, broken = await self._walk(participant_id)
            rows += head.sequence
            if broken is not None:
                return ChainReport(rows, (participant_id, broken))
        return ChainReport(rows)

    async def close(self) -> None:
        """Idempotent."""
        await self._writer.close()
        self._readers.stop()
        await asyncio.to_thread(self._readers.join)

    async def _walk(self, participant_id: str) -> tuple[chain.Head, int | None]:
        stretch = chain.Stretch(chain.EMPTY, None, ended=False)
        while stretch.broken is None and not stretch.ended:
            walk = partial(verify.walk, ring=self._ring, participant_id=participant_id, head=stretch.head)
            stretch = await self._readers.far(walk)
        return stretch.head, stretch.broken

    async def _value(self, sql: str, values: Sequence[Any]) -> Any:
        return (await self._readers.near(lambda connection: connection.execute(sql, values).fetchone()))[0]

    async def _key(self, participant_id: str) -> DataKey:
        """The key, made if it is not there."""
        await self._writer.submit(lambda transaction: self._ring.ensure(transaction, participant_id))
        key = await self._readers.near(lambda connection: self._ring.load(connection, participant_id))
        assert key is not None, "the key was just committed"
        return key

    def _conditions(
        self, connection: sqlite3.Connection, statements: Statements[Any], where: Sequence[Where]
    ) -> tuple[str, list[Any]]:
        key = None
        if has_blind(statements.codec, where):
            key = self._ring.load(connection, participant_of(where))
        return conditions(statements, where, key)

    def _decode(self, connection: sqlite3.Connection, statements: Statements[R], row: tuple[Any, ...]) -> R:
        return statements.codec.decode(row, self._ring.load(connection, row[0]))


class Begun:
    """See `server.store.base.Pending`. What is handed over in the same turn of the event loop shares a transaction."""

    __slots__ = ("_first", "_keys", "_store", "_work")

    def __init__(self, store: SqliteStore, first: Changeset, keys: dict[str, DataKey], work: Work) -> None:
        self._store = store
        self._first = first
        self._keys = keys
        self._work = work

    async def commit(self, more: Changeset) -> None:
        """Joins the first part if that still waits, else follows it."""
        keys = self._keys | await self._store.keys(more)
        if self._work.taken:
            await self._work.future
            await self._store.commit(more)
            return
        prepared = prepare((self._first, more), keys)
        self._work.run, self._work.rows = prepared.run, prepared.rows
        try:
            await self._work.future
        except Conflict:
            await self._store.commit(self._first)
            raise
