"""Documents as they are stored, for `store copy`."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pymongo
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from server.store.copy import UNFINISHED, RawTable, Row
from server.store.mongodb.documents import Document, key_text
from server.store.mongodb.faults import translated, translating
from server.store.mongodb.layout import META
from server.store.mongodb.transactions import in_transaction

_SECONDS = 60.0
_PAGE = 50_000  # documents of one cursor
_BATCH = 1000  # documents on the way at once


class RawAccess(ABC):
    """What `server.store.copy.RawRows` asks for."""

    @abstractmethod
    def _open(self) -> AsyncDatabase[Document]:
        """The database, unless the store is closed."""

    async def raw_rows(self, table: RawTable) -> AsyncIterator[Row]:
        """By `_id`, which has the order of the key. A new cursor now and then: one that lasts too long is ended."""
        behind: Document = {}
        while True:
            last = None
            cursor = self._open()[table.name].find(behind).sort([("_id", 1)]).limit(_PAGE).batch_size(_BATCH)
            with translating(table.name):
                async for last in cursor:
                    yield tuple(_plain(last.get(name)) for name in table.columns)
            if last is None:
                return
            behind = {"_id": {"$gt": last["_id"]}}

    async def raw_count(self, table: RawTable) -> int:
        """Counted by the server."""
        with translating(table.name), pymongo.timeout(_SECONDS):
            return await self._open()[table.name].count_documents({})

    async def raw_write(self, table: RawTable, rows: Sequence[Row]) -> None:
        """One transaction."""
        documents = [_document(table, row) for row in rows]
        client = self._open().client
        name = self._open().name

        async def insert(session: AsyncClientSession) -> None:
            of_session: AsyncMongoClient[Document] = session.client
            await of_session[name][table.name].insert_many(documents, session=session)

        try:
            await in_transaction(client, insert)
        except PyMongoError as error:
            raise translated(error, table.name) from error

    async def raw_remove(self, table: RawTable, keys: Sequence[Row]) -> None:
        """May be repeated."""
        with translating(table.name), pymongo.timeout(_SECONDS):
            await self._open()[table.name].delete_many({"_id": {"$in": [key_text(key) for key in keys]}})

    async def raw_mark(self, *, unfinished: bool) -> None:
        """Kept in the database."""
        meta = self._open()[META]
        with translating(META), pymongo.timeout(_SECONDS):
            if unfinished:
                await meta.update_one({"_id": UNFINISHED}, {"$set": {"value": "1"}}, upsert=True)
            else:
                await meta.delete_one({"_id": UNFINISHED})


def _document(table: RawTable, row: Row) -> Document:
    fields = {name: value for name, value in zip(table.columns, row, strict=True) if value is not None}
    return {"_id": key_text(table.key_of(row)), **fields}


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, bytes) else value
