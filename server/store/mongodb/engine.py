"""The engine for several machines: a MongoDB replica set, shared by any number of processes."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import pymongo
from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from server import clock
from server.domain.errors import StoreUnavailable, UniqueViolation
from server.domain.job import Job, JobKind
from server.domain.record import Record
from server.store import chain
from server.store.base import ChainReport, Changeset, Where
from server.store.conditions import has_blind, participant_of
from server.store.crypto import DataKey, MasterKey
from server.store.mongodb import changes, jobs, verify
from server.store.mongodb.address import Address
from server.store.mongodb.documents import Document, Documents, documents_of
from server.store.mongodb.faults import translated, translating
from server.store.mongodb.keys import KeyRing
from server.store.mongodb.lanes import Lanes
from server.store.mongodb.layout import prepare
from server.store.mongodb.raw import RawAccess
from server.store.mongodb.server_clock import ServerClock
from server.store.mongodb.transactions import SECONDS, Work, in_transaction

R = TypeVar("R", bound=Record)
T = TypeVar("T")
_READ_SECONDS = 10.0


class MongoStore(RawAccess):
    """See `server.store.base.Store` for what each method promises. Used from one event loop at a time."""

    def __init__(self, address: Address, master: MasterKey, *, unfinished: bool = False) -> None:
        prepare(address, master, unfinished=unfinished)
        self._address = address
        self._ring = KeyRing(master)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: AsyncMongoClient[Document] | None = None
        self._lanes = Lanes(self._write)
        self._server_clock = ServerClock()
        self._closed = False

    async def commit(self, changeset: Changeset) -> None:
        """One multi-document transaction, shared with what else is queued for the same participant."""
        names = changeset.participants()
        owners = (
            names | {job.participant_id for job in changeset.jobs} | {each.participant_id for each in changeset.each}
        )
        if changeset.finish is not None:
            owners.add(changeset.finish.participant_id)
        if not owners:
            return
        self._open()
        keys = {name: await self._key(name) for name in names}
        commands = changes.prepare(changeset, keys)
        await self._lanes.submit(min(owners), commands)

    async def begin(self, first: Changeset) -> "Begun":
        """Written when it returns."""
        await self.commit(first)
        return Begun(self)

    async def get(self, kind: type[R], **key: Any) -> R | None:
        """By primary key. Raises ValueError if the key is not whole."""
        documents = documents_of(kind)
        if not set(key) >= set(documents.key):
            raise ValueError(f"{documents.name} is got by {', '.join(documents.key)}")
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
        """Majority-committed rows. Not one snapshot: what others write meanwhile may be seen as before or after."""
        documents = documents_of(kind)
        query = await self._query(documents, where)
        sort = documents.sort(order_by, descending=descending)
        if query is None or limit == 0:
            return []
        with translating(documents.name), pymongo.timeout(_READ_SECONDS):
            cursor = self._open()[documents.name].find(query).limit(limit or 0)
            if not documents.is_point(where):
                cursor = cursor.sort(sort)
            rows = [documents.values(document) for document in await cursor.to_list()]
        for participant_id in {row[0] for row in rows}:
            await self._load(participant_id)
        return [documents.codec.decode(row, await self._load(row[0])) for row in rows]

    async def count(self, kind: type[Record], *where: Where) -> int:
        """Counted by the server."""
        documents = documents_of(kind)
        query = await self._query(documents, where)
        if query is None:
            return 0
        with translating(documents.name), pymongo.timeout(_READ_SECONDS):
            return await self._open()[documents.name].count_documents(query)

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
        """Finds first, then takes what nobody else took meanwhile. Leases are stored in the server's time."""
        if not self._server_clock.is_known:
            await self.changed()
        at = self._server_clock.of(machine_now)
        until = at + timedelta(seconds=lease_seconds)
        claim = jobs.Claim(now=now, machine_now=at, until=until, limit=limit, kinds=kinds, held=held)
        with translating(jobs.TABLE), pymongo.timeout(SECONDS):
            taken = await claim.run(self._open()[jobs.TABLE])
        return [replace(job, leased_until=machine_now + timedelta(seconds=lease_seconds)) for job in taken]

    async def release(self, job: Job, *, due_at: datetime) -> None:
        """Grouped with what else is written for the participant."""
        self._open()
        await self._lanes.submit(job.participant_id, changes.releasing(job, due_at))

    async def bury(self, job: Job) -> None:
        """One transaction."""
        self._open()
        await self._transact(partial(jobs.bury, database=self._address.database, job=job), table=jobs.TABLE)

    async def next_due(self) -> datetime | None:
        """From the index."""
        with translating(jobs.TABLE), pymongo.timeout(_READ_SECONDS):
            waiting = self._open()[jobs.TABLE].find({"state": "waiting"}, {"due_at": 1}).sort([("due_at", 1)])
            found = await waiting.limit(1).to_list()
        return datetime.fromisoformat(found[0]["due_at"]) if found else None

    async def changed(self) -> int:
        """The replica set's own time of its last write. It also moves every 10 s when nobody writes."""
        with translating(), pymongo.timeout(_READ_SECONDS):
            asked_at = clock.machine_now()
            answer = await self._open().client.admin.command("hello")
        self._server_clock.read(answer, asked_at)
        last = answer["lastWrite"]["opTime"]["ts"] if "lastWrite" in answer else answer.get("operationTime", 0)
        return (last.time << 32) + last.inc if isinstance(last, Timestamp) else int(last)

    async def verify_audit(self) -> ChainReport:
        """Stops at the first bad row."""
        rows = 0
        with translating():
            participants = await verify.chains(self._open())
        for participant_id in participants:
            head, broken = await self._walk(participant_id)
            rows += head.sequence
            if broken is not None:
                return ChainReport(rows, (participant_id, broken))
        return ChainReport(rows)

    async def close(self) -> None:
        """Idempotent."""
        self._closed = True
        if self._loop is asyncio.get_running_loop():
            await self._lanes.close()
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    def _open(self) -> AsyncDatabase[Document]:
        """The database, unless the store is closed."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        return self._connected()[self._address.database]

    def _connected(self) -> AsyncMongoClient[Document]:
        """A client belongs to one event loop: another loop gets another client, and other lanes."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client = AsyncMongoClient(self._address.uri, **self._address.options)
            self._loop, self._lanes = loop, Lanes(self._write)
        return self._client

    async def _write(self, group: Sequence[changes.Commands]) -> None:
        work = partial(changes.write, database=self._address.database, group=group)
        for _ in range(3):
            try:
                return await self._transact(work)
            except UniqueViolation as barred:  # a waiting job that another process enqueued at the same moment?
                if barred.index != ("waiting_key",):
                    raise
        return await self._transact(work)

    async def _transact(self, work: Work[T], table: str = "") -> T:
        try:
            return await in_transaction(self._connected(), work)
        except PyMongoError as error:
            raise translated(error, table) from error

    async def _walk(self, participant_id: str) -> tuple[chain.Head, int | None]:
        stretch = chain.Stretch(chain.EMPTY, None, ended=False)
        key = await self._load(participant_id)
        while stretch.broken is None and not stretch.ended:
            walk = partial(
                verify.walk, database=self._address.database, participant_id=participant_id, key=key, head=stretch.head
            )
            stretch = await self._transact(walk)
        return stretch.head, stretch.broken

    async def _query(self, documents: Documents[Any], where: Sequence[Where]) -> Document | None:
        """None if no row can meet the conditions."""
        key = await self._load(participant_of(where)) if has_blind(documents.codec, where) else None
        if key is None and has_blind(documents.codec, where):
            documents.filter(where, None)  # what is not allowed is refused all the same
            return None
        return documents.filter(where, key)

    async def _load(self, participant_id: str) -> DataKey | None:
        return await self._ring.load(self._open().client, self._address.database, participant_id)

    async def _key(self, participant_id: str) -> DataKey:
        return await self._ring.ensure(self._open().client, self._address.database, participant_id)


class Begun:
    """See `server.store.base.Pending`. The first part is on disk already."""

    def __init__(self, store: MongoStore) -> None:
        self._store = store

    async def commit(self, more: Changeset) -> None:
        """Follows it."""
        await self._store.commit(more)
