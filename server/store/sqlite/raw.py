"""Rows as they are stored, for `store copy`."""
# ruff: noqa: S608 - names come from our own tables; values are always bound

import sqlite3
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Final

from server.domain.errors import StoreDamaged
from server.store.copy import UNFINISHED, UNFINISHED_TEXT, RawTable, Row
from server.store.sqlite.ddl import columns, quoted
from server.store.sqlite.readers import Readers
from server.store.sqlite.writer import Transaction, Writer

_PAGE: Final = 1000  # rows
_MARK: Final = 'INSERT OR REPLACE INTO "store_meta" VALUES (?, ?)'
_UNMARK: Final = 'DELETE FROM "store_meta" WHERE "name" = ?'
_MARKED: Final = 'SELECT 1 FROM "store_meta" WHERE "name" = ?'


class RawAccess:
    """What `server.store.copy.RawRows` asks for. An engine of its own parts: it has a reader pool and a writer."""

    _readers: Readers
    _writer: Writer

    async def raw_rows(self, table: RawTable) -> AsyncIterator[Row]:
        """Page by page, by the primary key's index: no snapshot is held meanwhile, which would let the WAL grow."""
        after: Row | None = None
        while rows := await self._page(table, after):
            for row in rows:
                yield row
            after = table.key_of(rows[-1])

    async def _page(self, table: RawTable, after: Row | None) -> Sequence[Row]:
        key = columns(table.key)
        behind = f" WHERE ({key}) > ({', '.join('?' * len(table.key))})" if after is not None else ""
        sql = f"SELECT {columns(table.columns)} FROM {quoted(table.name)}{behind} ORDER BY {key} LIMIT ?"
        values = [*(after or ()), _PAGE]
        return await self._readers.far(lambda connection: connection.execute(sql, values).fetchall())

    async def raw_count(self, table: RawTable) -> int:
        """Counted in the pool."""
        sql = f"SELECT count(*) FROM {quoted(table.name)}"
        return int(await self._readers.far(lambda connection: connection.execute(sql).fetchone()[0]))

    async def raw_write(self, table: RawTable, rows: Sequence[Row]) -> None:
        """One transaction."""
        places = ", ".join("?" * len(table.columns))
        sql = f"INSERT INTO {quoted(table.name)} ({columns(table.columns)}) VALUES ({places})"
        await self._writer.submit(partial(_many, sql, rows), rows=len(rows))

    async def raw_remove(self, table: RawTable, keys: Sequence[Row]) -> None:
        """One transaction."""
        by_key = " AND ".join(f"{quoted(name)} = ?" for name in table.key)
        await self._writer.submit(partial(_many, f"DELETE FROM {quoted(table.name)} WHERE {by_key}", keys))

    async def raw_mark(self, *, unfinished: bool) -> None:
        """Kept in the file."""
        sql, values = (_MARK, (UNFINISHED, b"1")) if unfinished else (_UNMARK, (UNFINISHED,))
        await self._writer.submit(partial(_many, sql, [values]))


def refuse_unfinished(connection: sqlite3.Connection) -> None:
    """Raises StoreDamaged for a file that a copy did not finish."""
    if connection.execute(_MARKED, (UNFINISHED,)).fetchone():
        raise StoreDamaged(UNFINISHED_TEXT)


def _many(sql: str, rows: Sequence[Any], transaction: Transaction) -> None:
    transaction.cursor.executemany(sql, rows)
