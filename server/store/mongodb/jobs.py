"""Due work: claims, leases and what ends them. Every change of a leased job is fenced by its lease token."""

import random
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from pymongo import AsyncMongoClient, DeleteOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import AutoReconnect

from server.domain.errors import LeaseLost
from server.domain.job import Job, JobKind, JobState
from server.store.mongodb.documents import Document, documents_of, key_text
from server.store.schema import instant
from server.store.waiting import WaitingJob, waiting_key

TABLE: Final = Job.TABLE.name
_TRIES: Final = 6
_SPREAD: Final = 64  # jobs beyond the limit that are looked at, once somebody else was faster
_ORDER: Final = [("due_at", 1), ("_id", 1)]
_ENDED: Final = {"leased_until": "", "lease_token": ""}
_documents: Final = documents_of(Job)


class Claim:
    """One request for due work. `token` marks all that it takes."""

    def __init__(
        self,
        *,
        now: datetime,
        machine_now: datetime,
        until: datetime,
        limit: int,
        kinds: Sequence[JobKind],
        held: Sequence[str],
    ) -> None:
        of_kinds: Document = {"kind": {"$in": [str(kind) for kind in kinds]}} if kinds else {}
        not_held: Document = {"id": {"$nin": list(held)}} if held else {}
        self._limit = limit
        self._wanted = (
            {"state": "waiting", "due_at": {"$lte": instant(now)}, **of_kinds},
            {"state": "leased", "leased_until": {"$lt": instant(machine_now)}, **of_kinds, **not_held},
        )
        self._token = secrets.token_hex(16)
        self._lease: Document = {
            "$set": {"state": "leased", "leased_until": instant(until), "lease_token": self._token},
            "$unset": {"waiting_key": ""},
            "$inc": {"attempts": 1, "revision": 1},
        }

    async def run(self, jobs: AsyncCollection[Document]) -> list[Job]:
        """Leases the jobs, oldest first. Who loses a race looks at more of them and takes some by chance."""
        for attempt in range(_TRIES):
            some = await self._candidates(jobs, self._limit + (_SPREAD if attempt else 0))
            if not some:
                break
            chosen = some if len(some) <= self._limit else random.sample(some, self._limit)
            if taken := await self._take(jobs, chosen):
                return taken
        return []

    async def _candidates(self, jobs: AsyncCollection[Document], limit: int) -> list[Document]:
        """Ids, states and due times of the oldest; a worker that finds none has cost two look-ups in an index."""
        found: list[Document] = []
        for wanted in self._wanted:
            found += await jobs.find(wanted, {"due_at": 1, "state": 1}).sort(_ORDER).limit(limit).to_list()
        found.sort(key=lambda job: (job["due_at"], job["_id"]))
        return found[:limit]

    async def _take(self, jobs: AsyncCollection[Document], some: Sequence[Document]) -> list[Job]:
        """Each document is taken by one claim; those that carry our token are ours, whatever became of the answer."""
        ids = {"$in": [job["_id"] for job in some]}
        states = {job["state"] for job in some}
        for wanted in (each for each in self._wanted if each["state"] in states):
            try:
                await jobs.update_many({"_id": ids, **wanted}, self._lease)
            except AutoReconnect:  # it may have been done: the same once more takes none twice
                await jobs.update_many({"_id": ids, **wanted}, self._lease)
        mine = await jobs.find({"_id": ids, "lease_token": self._token}).sort(_ORDER).to_list()
        return [_documents.codec.decode(_documents.values(job), None) for job in mine]


def enqueue(job: WaitingJob) -> UpdateOne:
    """Adds a waiting job, or brings forward the one that waits. Another participant's key is barred by the index."""
    fixed = {
        "_id": key_text([job.id]),
        "id": job.id,
        "kind": job.kind,
        "key": job.key,
        "state": "waiting",
        "attempts": 0,
    }
    where = {"waiting_key": job.waiting_key, "participant_id": job.participant_id}
    change = {"$min": {"due_at": job.due_at}, "$inc": {"revision": 1}, "$setOnInsert": fixed}
    return UpdateOne(where, change, upsert=True)


async def finish(session: AsyncClientSession, into: AsyncDatabase[Document], finished: Sequence[Job]) -> None:
    """Deletes leased jobs. Raises LeaseLost."""
    if finished:
        result = await into[TABLE].bulk_write([DeleteOne(held(job)) for job in finished], session=session)
        if result.deleted_count != len(finished):
            raise LeaseLost(f"job {finished[0].id}: its lease is no longer held")


async def release(
    session: AsyncClientSession, into: AsyncDatabase[Document], released: Sequence[tuple[Job, datetime]]
) -> None:
    """Gives leased jobs back, or lets those that wait already stand for them. Raises LeaseLost."""
    if not released:
        return
    keys = [waiting_key(job.kind, job.key) for job, _ in released]
    found = await into[TABLE].find({"waiting_key": {"$in": keys}}, {"waiting_key": 1}, session=session).to_list()
    waiting = {job["waiting_key"] for job in found}
    commands: list[UpdateOne | DeleteOne] = []
    for (job, due_at), key in zip(released, keys, strict=True):
        commands += _merged(job, key, due_at) if key in waiting else [_back(job, key, due_at)]
        waiting.add(key)
    result = await into[TABLE].bulk_write(commands, session=session)
    if result.matched_count + result.deleted_count != len(commands):
        raise LeaseLost(f"job {released[0][0].id}: its lease is no longer held")


def _merged(job: Job, key: str, due_at: datetime) -> list[UpdateOne | DeleteOne]:
    change = {"$min": {"due_at": instant(due_at)}, "$inc": {"revision": 1}}
    return [UpdateOne({"waiting_key": key}, change), DeleteOne(held(job))]


def _back(job: Job, key: str, due_at: datetime) -> UpdateOne:
    back = {"state": "waiting", "waiting_key": key, "due_at": instant(due_at)}
    return UpdateOne(held(job), {"$set": back, "$unset": _ENDED, "$inc": {"revision": 1}})


async def bury(session: AsyncClientSession, database: str, job: Job) -> None:
    """Marks a leased job dead. Raises LeaseLost."""
    change = {"$set": {"state": "dead"}, "$unset": _ENDED, "$inc": {"revision": 1}}
    client: AsyncMongoClient[Document] = session.client
    if (await client[database][TABLE].update_one(held(job), change, session=session)).matched_count != 1:
        raise LeaseLost(f"job {job.id}: its lease is no longer held")


def held(job: Job) -> dict[str, Any]:
    """What finds the job only while its lease is this one. Raises LeaseLost for a job that was never leased."""
    if job.state is not JobState.LEASED or job.lease_token is None:
        raise LeaseLost(f"job {job.id}: its lease is no longer held")
    return {"_id": key_text([job.id]), "lease_token": job.lease_token, "state": "leased"}
