"""Changesets as commands: encoded before they are queued, and written together, a few commands for many of them.

The audit chains' heads come first: two processes that write for one participant at once meet there, and the one that
loses has wasted nothing. Then the jobs that end, rows that leave, rows that change, rows that come (so that a unique
value may change hands), and new jobs.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from pymongo import AsyncMongoClient, DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError
from pymongo.results import BulkWriteResult

from server.domain.audit import AuditEntry
from server.domain.errors import Conflict, StoreDamaged
from server.domain.job import Job, NewJob
from server.domain.record import Record
from server.store import chain
from server.store.base import Changeset, JobForEach
from server.store.crypto import DataKey
from server.store.mongodb import jobs
from server.store.mongodb.documents import Document, Documents, documents_of, key_text
from server.store.mongodb.faults import TRANSIENT, translated
from server.store.mongodb.keys import head_document
from server.store.mongodb.layout import AUDIT_HEAD
from server.store.mongodb.transactions import Again
from server.store.schema import instant
from server.store.waiting import waiting_job

Keys = dict[str, DataKey]
Command = DeleteOne | InsertOne[Document] | ReplaceOne[Document] | UpdateOne
_audit: Final = documents_of(AuditEntry)


class Commands(NamedTuple):
    """One Changeset. By collection: what must find its row at its revision, and what comes."""

    finish: Job | None
    release: tuple[Job, datetime] | None
    delete: dict[str, list[Command]]
    replace: dict[str, list[Command]]
    insert: dict[str, list[Command]]
    jobs: list[Command]
    each: tuple[JobForEach, ...]
    audit: list[tuple[str, list[Any], DataKey]]

    @property
    def rows(self) -> int:
        """How many rows it writes."""
        parts = (*self.delete.values(), *self.replace.values(), *self.insert.values())
        return sum(map(len, parts)) + len(self.jobs) + len(self.each) + len(self.audit) + 1


def prepare(changeset: Changeset, keys: Keys) -> Commands:
    """Seals, blinds and encodes. Raises ValueError for rows that no engine takes."""
    enqueued: list[Command] = [jobs.enqueue(waiting_job(job)) for job in changeset.jobs]
    found = Commands(changeset.finish, None, {}, {}, {}, enqueued, changeset.each, [])
    for record in changeset.delete:
        documents = _changeable(record)
        *key, revision = documents.codec.locate(record, keys[record.participant_id])
        _add(found.delete, documents, DeleteOne({"_id": key_text(key), "revision": revision}))
    for record in changeset.replace:
        documents = _changeable(record)
        row = _encoded(documents, record, keys, record.revision + 1)
        _add(found.replace, documents, ReplaceOne({"_id": row.pop("_id"), "revision": record.revision}, row))
    for record in changeset.insert:
        if isinstance(record, AuditEntry):
            raise ValueError("audit entries go into Changeset.audit: the engine chains them")
        documents = documents_of(type(record))
        _add(found.insert, documents, InsertOne(_encoded(documents, record, keys, 1)))
    for entry in changeset.audit:
        key_ = keys[entry.participant_id]
        found.audit.append((entry.participant_id, _audit.codec.encode(entry, key_, 1), key_))
    return found


def releasing(job: Job, due_at: datetime) -> Commands:
    """A leased job given back. Raises LeaseLost for one that was never leased, ValueError for a time without a zone."""
    jobs.held(job)
    instant(due_at)
    return Commands(None, (job, due_at), {}, {}, {}, [], (), [])


async def write(session: AsyncClientSession, database: str, group: Sequence[Commands]) -> None:
    """All of the group, in one transaction. Raises Conflict, UniqueViolation, LeaseLost: then all of it is undone."""
    client: AsyncMongoClient[Document] = session.client
    into = client[database]
    await _append(session, into, [row for commands in group for row in commands.audit])
    await jobs.finish(session, into, [commands.finish for commands in group if commands.finish is not None])
    await jobs.release(session, into, [commands.release for commands in group if commands.release is not None])
    for table, commands in _joined(commands.delete for commands in group):
        _compare(table, len(commands), (await _bulk(session, into, table, commands)).deleted_count)
    for table, commands in _joined(commands.replace for commands in group):
        _compare(table, len(commands), (await _bulk(session, into, table, commands)).matched_count)
    for table, commands in _joined(commands.insert for commands in group):
        await _bulk(session, into, table, commands)
    enqueued = [command for commands in group for command in commands.jobs]
    wanted = [each for commands in group for each in commands.each]
    await _fence(
        session, into, {each.participant_id for each in wanted} - {row[0] for each in group for row in each.audit}
    )
    for each in wanted:
        enqueued += await _for_each(session, into, each)
    if enqueued:
        await _bulk(session, into, Job.TABLE.name, enqueued)


async def _fence(session: AsyncClientSession, into: AsyncDatabase[Document], participants: set[str]) -> None:
    """Snapshots of two transactions may miss each other's new rows. Who adds rows that work is looked up for writes an
    audit entry too, and so the end of the chain: who looks writes it as well, and of two at once one is repeated."""
    for participant_id in sorted(participants):
        touched = {"$inc": {"looks": 1}}
        await into[AUDIT_HEAD].update_one({"_id": key_text([participant_id])}, touched, session=session)


async def _for_each(session: AsyncClientSession, into: AsyncDatabase[Document], wanted: JobForEach) -> list[Command]:
    """Work for each row that the transaction sees."""
    documents = documents_of(wanted.record)
    rows = await into[documents.name].find(documents.filter(wanted.where, None), session=session).to_list()
    new = [
        NewJob(participant_id=row["participant_id"], kind=wanted.kind, key=row["id"], due_at=wanted.due_at)
        for row in rows
    ]
    return [jobs.enqueue(waiting_job(job)) for job in new]


def _changeable(record: Record) -> Documents[Any]:
    found = documents_of(type(record))
    if found.codec.schema.table.append_only:
        raise ValueError(f"{found.name} is append-only: its rows are never replaced or deleted")
    return found


def _encoded(documents: Documents[Any], record: Record, keys: Keys, revision: int) -> Document:
    return documents.document(documents.codec.encode(record, keys[record.participant_id], revision))


def _add(commands: dict[str, list[Command]], documents: Documents[Any], command: Command) -> None:
    commands.setdefault(documents.name, []).append(command)


def _joined(parts: Iterable[dict[str, list[Command]]]) -> list[tuple[str, list[Command]]]:
    found: dict[str, list[Command]] = {}
    for part in parts:
        for table, commands in part.items():
            found.setdefault(table, []).extend(commands)
    return list(found.items())


async def _bulk(
    session: AsyncClientSession, into: AsyncDatabase[Document], table: str, commands: Sequence[Command]
) -> BulkWriteResult:
    """Statements of one kind are one command on the wire."""
    try:
        return await into[table].bulk_write(commands, session=session)
    except BulkWriteError as error:
        if error.has_error_label(TRANSIENT):
            raise
        raise translated(error, table) from error


def _compare(table: str, wanted: int, found: int) -> None:
    if wanted != found:
        raise Conflict(f"{table}: a row was changed or removed since it was read")


async def _append(
    session: AsyncClientSession, into: AsyncDatabase[Document], rows: Sequence[tuple[str, list[Any], DataKey]]
) -> None:
    """Links the rows to their chains, moves the chains' signed ends, writes the rows."""
    if not rows:
        return
    before: dict[str, chain.Head] = {}
    ends: dict[str, tuple[chain.Head, DataKey]] = {}
    for participant_id, values, key in rows:
        if participant_id not in before:
            before[participant_id] = await _head(session, into, participant_id)
        head = ends[participant_id][0] if participant_id in ends else before[participant_id]
        ends[participant_id] = (chain.link(head, values), key)
    for participant_id, (head, key) in ends.items():
        end = head_document(participant_id, head, key)
        where = {"_id": end.pop("_id"), "sequence": before[participant_id].sequence}
        moved = await into[AUDIT_HEAD].replace_one(where, end, session=session)
        if moved.matched_count != 1:
            raise Again
    inserts = [InsertOne(_audit.document(values)) for _, values, _ in rows]
    try:
        await into[_audit.name].bulk_write(inserts, session=session)
    except BulkWriteError as error:
        if error.has_error_label(TRANSIENT):
            raise
        raise StoreDamaged(
            "the end of an audit chain does not fit its rows: run `access-facade audit verify`"
        ) from None


async def _head(session: AsyncClientSession, into: AsyncDatabase[Document], participant_id: str) -> chain.Head:
    found = await into[AUDIT_HEAD].find_one({"_id": key_text([participant_id])}, session=session)
    if found is None:
        raise StoreDamaged("the end of an audit chain is missing: run `access-facade audit verify`")
    return chain.Head(found["sequence"], found["hash"])
