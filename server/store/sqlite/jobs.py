"""Due work: claims, leases and what ends them. Every change is one statement, fenced by the lease token."""
# ruff: noqa: S608 - column names come from the record type; values are always bound

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from server.domain.errors import LeaseLost, UniqueViolation
from server.domain.job import Job, JobKind, JobState, NewJob
from server.store.base import JobForEach
from server.store.rows import codec_of
from server.store.schema import instant, schema_of
from server.store.sqlite.ddl import columns, quoted
from server.store.sqlite.statements import conditions, statements_of
from server.store.sqlite.writer import Transaction
from server.store.waiting import WaitingJob, waiting_job, waiting_key

_COLUMNS: Final = columns(schema_of(Job).names)
_DUE_AT: Final = schema_of(Job).position("due_at")
_ID: Final = schema_of(Job).position("id")
_HELD: Final = '"id" = ? AND "lease_token" = ? AND "state" = \'leased\''
_DUE: Final = '"state" = \'waiting\' AND "due_at" <= ?'
_EXPIRED: Final = '"state" = \'leased\' AND "leased_until" < ?'

# An update always counts one row, unless the waiting job belongs to somebody else.
_ENQUEUE: Final = (
    'INSERT INTO "job" '
    '("participant_id", "id", "kind", "key", "due_at", "waiting_key", "revision", "state", "attempts") '
    "VALUES (?, ?, ?, ?, ?, ?, 1, 'waiting', 0) "
    'ON CONFLICT ("waiting_key") WHERE "waiting_key" IS NOT NULL '
    'DO UPDATE SET "due_at" = min("due_at", excluded."due_at"), '
    '"revision" = "job"."revision" + 1 WHERE "job"."participant_id" = excluded."participant_id"'
)
_FINISH: Final = f'DELETE FROM "job" WHERE {_HELD}'
_MERGE: Final = 'UPDATE "job" SET "due_at" = min("due_at", ?), "revision" = "revision" + 1 WHERE "waiting_key" = ?'
_RELEASE: Final = (
    'UPDATE "job" SET "state" = \'waiting\', "waiting_key" = ?, "due_at" = ?, "leased_until" = NULL, '
    f'"lease_token" = NULL, "revision" = "revision" + 1 WHERE {_HELD}'
)
_BURY: Final = (
    'UPDATE "job" SET "state" = \'dead\', "leased_until" = NULL, "lease_token" = NULL, '
    f'"revision" = "revision" + 1 WHERE {_HELD}'
)
NEXT_DUE: Final = 'SELECT min("due_at") FROM "job" WHERE "state" = \'waiting\''


class Claim:
    """One request for due work. Asked first whether there is any (a read), then run in a transaction."""

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
        of_kinds = f' AND "kind" IN ({", ".join("?" * len(kinds))})' if kinds else ""
        not_held = f' AND "id" NOT IN ({", ".join("?" * len(held))})' if held else ""
        names = [str(kind) for kind in kinds]
        due, expired = [instant(now), *names], [instant(machine_now), *names, *held]
        self.any = (
            f'SELECT EXISTS (SELECT 1 FROM "job" WHERE {_DUE}{of_kinds}) '
            f'OR EXISTS (SELECT 1 FROM "job" WHERE {_EXPIRED}{of_kinds}{not_held})'
        )
        self.any_values = [*due, *expired]
        oldest = 'ORDER BY "due_at", "id" LIMIT ?'
        self._take = (
            'UPDATE "job" SET "state" = \'leased\', "waiting_key" = NULL, "leased_until" = ?, '
            '"lease_token" = lower(hex(randomblob(16))), "attempts" = "attempts" + 1, "revision" = "revision" + 1 '
            'WHERE "id" IN (SELECT "id" FROM ('
            f'SELECT * FROM (SELECT "id", "due_at" FROM "job" WHERE {_DUE}{of_kinds} {oldest}) UNION ALL SELECT * FROM '
            f'(SELECT "id", "due_at" FROM "job" WHERE {_EXPIRED}{of_kinds}{not_held} {oldest})) {oldest}) '
            f"RETURNING {_COLUMNS}"
        )
        self._take_values: list[Any] = [instant(until), *due, limit, *expired, limit, limit]

    def run(self, transaction: Transaction) -> list[Job]:
        """Leases the jobs; oldest first."""
        rows = transaction.cursor.execute(self._take, self._take_values).fetchall()
        rows.sort(key=lambda row: (row[_DUE_AT], row[_ID]))
        return [codec_of(Job).decode(row, None) for row in rows]


class ForEach(NamedTuple):
    """Work for each row that one look-up finds in the transaction."""

    wanted: JobForEach
    sql: str
    values: list[Any]

    def run(self, transaction: Transaction) -> None:
        """Looks, and enqueues what is found."""
        found = transaction.cursor.execute(self.sql, self.values).fetchall()
        if found:
            kind, due_at = self.wanted.kind, self.wanted.due_at
            new = [NewJob(participant_id=owner, kind=kind, key=key, due_at=due_at) for owner, key in found]
            enqueue(transaction, [waiting_job(job) for job in new])


def for_each(wanted: JobForEach) -> ForEach:
    """Prepared. Raises ValueError for conditions that no engine may answer, or a due time without a zone."""
    instant(wanted.due_at)
    statements = statements_of(wanted.record)
    text, values = conditions(statements, wanted.where, None)
    return ForEach(wanted, f'SELECT "participant_id", "id" FROM {quoted(statements.table.name)}{text}', values)


def enqueue(transaction: Transaction, jobs: Sequence[WaitingJob]) -> None:
    """Adds waiting jobs, or brings forward those that wait already. Raises UniqueViolation for another's key."""
    if transaction.cursor.executemany(_ENQUEUE, jobs).rowcount != len(jobs):
        raise UniqueViolation("job", ("waiting_key",))


def finish(transaction: Transaction, job: Job) -> None:
    """Deletes a leased job. Raises LeaseLost."""
    _held(transaction, _FINISH, job)


def release(transaction: Transaction, job: Job, due_at: datetime) -> None:
    """Gives a leased job back, or lets the one that waits already stand for it. Raises LeaseLost."""
    key, due = waiting_key(job.kind, job.key), instant(due_at)
    if transaction.cursor.execute(_MERGE, (due, key)).rowcount:
        _held(transaction, _FINISH, job)
    else:
        _held(transaction, _RELEASE, job, key, due)


def bury(transaction: Transaction, job: Job) -> None:
    """Marks a leased job dead. Raises LeaseLost."""
    _held(transaction, _BURY, job)


def _held(transaction: Transaction, sql: str, job: Job, *values: Any) -> None:
    if (
        job.state is not JobState.LEASED
        or transaction.cursor.execute(sql, (*values, job.id, job.lease_token)).rowcount != 1
    ):
        raise LeaseLost(f"job {job.id}: its lease is no longer held")
