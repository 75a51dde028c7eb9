"""Multi-document transactions: repeated while the server says that nothing of them was written."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import pymongo
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from server.domain.errors import StoreUnavailable
from server.store.mongodb.faults import TRANSIENT, UNKNOWN_COMMIT

T = TypeVar("T")
Document = dict[str, Any]
Work = Callable[[AsyncClientSession], Awaitable[T]]
SECONDS: Final = 15.0  # until it is given up: well below a lease, and about as long as an election takes
_ABORT_SECONDS: Final = 2.0
_FIRST_WAIT: Final = 0.002
_LONGEST_WAIT: Final = 0.25
_SNAPSHOT: Final = ReadConcern("snapshot")
_DURABLE: Final = WriteConcern("majority", j=True)


class Again(Exception):
    """The work saw that somebody else was faster: nothing is written, and it is tried anew."""


async def in_transaction(client: AsyncMongoClient[Document], work: Work[T]) -> T:
    """Runs `work` in one transaction; durable on a majority when it returns. `work` may run several times.

    Raises what `work` raises, then nothing is written; StoreUnavailable if the commit's outcome could not be learnt.
    """
    deadline, wait = time.monotonic() + SECONDS, _FIRST_WAIT
    while True:
        try:
            return await _once(client, work, deadline)
        except Again:
            if time.monotonic() + wait > deadline:
                raise StoreUnavailable("too many others write the same rows") from None
        except PyMongoError as error:
            if not error.has_error_label(TRANSIENT) or time.monotonic() + wait > deadline:
                raise
        await asyncio.sleep(random.uniform(wait / 2, wait))  # noqa: S311 - spreads the tries, no secret
        wait = min(wait * 2, _LONGEST_WAIT)


async def _once(client: AsyncMongoClient[Document], work: Work[T], deadline: float) -> T:
    async with client.start_session() as session:
        await session.start_transaction(_SNAPSHOT, _DURABLE, ReadPreference.PRIMARY)
        try:
            with _until(deadline):
                result = await work(session)
        except BaseException:
            # With time of its own: a transaction that nobody ends keeps its rows from others for a minute.
            with contextlib.suppress(PyMongoError), pymongo.timeout(_ABORT_SECONDS):
                await session.abort_transaction()
            raise
        with _until(deadline):
            await _commit(session, deadline)
        return result


def _until(deadline: float) -> contextlib.AbstractContextManager[Any]:
    return pymongo.timeout(max(deadline - time.monotonic(), 0.05))


async def _commit(session: AsyncClientSession, deadline: float) -> None:
    """A commit may be repeated: the server knows the transaction by its number."""
    wait = _FIRST_WAIT
    while True:
        try:
            await session.commit_transaction()
        except PyMongoError as error:
            if not error.has_error_label(UNKNOWN_COMMIT):
                raise
            if time.monotonic() + wait > deadline:
                raise StoreUnavailable("the database was lost while it committed: nobody knows the outcome") from error
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
        else:
            return
