"""A Changeset as statements: encoded before it is queued, applied in the writer's thread."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from server.domain.audit import AuditEntry
from server.domain.errors import Conflict
from server.domain.job import Job
from server.domain.record import Record
from server.store.base import Changeset
from server.store.crypto import DataKey
from server.store.sqlite import jobs
from server.store.sqlite.statements import Statements, statements_of
from server.store.sqlite.writer import Transaction
from server.store.waiting import WaitingJob, waiting_job

Keys = dict[str, DataKey]
_Audited = tuple[str, list[Any], DataKey]
_entries = statements_of(AuditEntry)
_encode_entry = _entries.codec.encode


class _Batch(NamedTuple):
    """The rows of one table that take the same statement. `compared`: each must find its row at its revision."""

    table: str
    sql: str
    compared: bool
    rows: list[Any]


class Prepared(NamedTuple):
    """What the writer does, in this order. Rows leave before rows come, so that a unique value may change hands."""

    finish: Job | None
    batches: tuple[_Batch, ...]
    jobs: list[WaitingJob]
    each: list[jobs.ForEach]
    audit: list[_Audited]
    rows: int  # that it writes, about

    def run(self, transaction: Transaction) -> None:
        """Raises Conflict, UniqueViolation, LeaseLost; the writer then undoes all of it."""
        if self.finish is not None:
            jobs.finish(transaction, self.finish)
        for batch in self.batches:
            _apply(transaction, batch)
        if self.jobs:
            jobs.enqueue(transaction, self.jobs)
        for each in self.each:
            each.run(transaction)
        for participant_id, values, key in self.audit:
            transaction.append(participant_id, values, key)


def prepare(changesets: Sequence[Changeset], keys: Keys) -> Prepared:
    """Seals, blinds and encodes; one after the other is one transaction. Raises ValueError for rows no engine takes."""
    batches: dict[str, _Batch] = {}
    audit: list[_Audited] = []
    waiting: list[WaitingJob] = []
    each: list[jobs.ForEach] = []
    finish, rows = None, 0
    for changeset in changesets:
        rows += _add_rows(batches, changeset, keys)
        for entry in changeset.audit:
            key = keys[entry.participant_id]
            audit.append((entry.participant_id, _encode_entry(entry, key, 1), key))
        if changeset.jobs:
            waiting += [waiting_job(job) for job in changeset.jobs]
        if changeset.each:
            each += [jobs.for_each(wanted) for wanted in changeset.each]
        finish = finish or changeset.finish
    rows += len(audit) + len(waiting) + len(each)
    return Prepared(finish, tuple(batches.values()), waiting, each, audit, rows)


def _add_rows(batches: dict[str, _Batch], changeset: Changeset, keys: Keys) -> int:
    for record in changeset.delete:
        found = _changeable(record)
        row = found.codec.locate(record, keys[record.participant_id])
        _add(batches, found, found.delete, row, compared=True)
    for record in changeset.replace:
        found = _changeable(record)
        values = found.codec.encode(record, keys[record.participant_id], record.revision + 1)
        _add(batches, found, found.replace, found.replace_values(values), compared=True)
    for record in changeset.insert:
        found = statements_of(type(record))
        if found is _entries:
            raise ValueError("audit entries go into Changeset.audit: the engine chains them")
        _add(batches, found, found.insert, found.codec.encode(record, keys[record.participant_id], 1), compared=False)
    return len(changeset.delete) + len(changeset.replace) + len(changeset.insert)


def _changeable(record: Record) -> Statements[Any]:
    found = statements_of(type(record))
    if found.table.append_only:
        raise ValueError(f"{found.table.name} is append-only: its rows are never replaced or deleted")
    return found


def _add(batches: dict[str, _Batch], found: Statements[Any], sql: str, row: Any, *, compared: bool) -> None:
    batch = batches.get(sql)
    if batch is None:
        batches[sql] = _Batch(found.table.name, sql, compared, [row])
    else:
        batch.rows.append(row)


def _apply(transaction: Transaction, batch: _Batch) -> None:
    cursor = transaction.cursor
    if len(batch.rows) == 1:
        cursor.execute(batch.sql, batch.rows[0])
    else:
        cursor.executemany(batch.sql, batch.rows)
    if batch.compared and cursor.rowcount != len(batch.rows):
        raise Conflict(f"{batch.table}: a row was changed or removed since it was read")
