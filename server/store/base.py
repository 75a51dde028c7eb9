"""What every store engine does. Above this package there is no SQL and no query dictionary.

A reader asks by record type and plain conditions; a writer hands over one Changeset, which is one transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from server.domain.audit import AuditEntry
from server.domain.job import Job, JobKind, NewJob
from server.domain.record import Record

R = TypeVar("R", bound=Record)


class Where(NamedTuple):
    """One condition on one column; conditions are joined by AND. `in` takes a tuple; `== None` finds empty columns.

    A blind column takes `==` only, beside `participant_id ==`: each participant has its own hashes. A sealed one none.
    """

    column: str
    operator: Literal["==", "<", "<=", ">", ">=", "in"]
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class JobForEach:
    """Work to enqueue for each row of `record` that meets `where` when the transaction is written; `key` is its `id`.

    Nobody can add a row between the looking and the enqueuing. No blind columns.
    """

    participant_id: str
    kind: JobKind
    due_at: datetime
    record: type[Record]
    where: tuple[Where, ...]


@dataclass(frozen=True, slots=True)
class Changeset:
    """All that one step writes, in one transaction: all of it or nothing.

    insert   new rows, written at revision 1; UniqueViolation if the key or a unique index bars one.
    replace  rows as they shall be; `revision` is the one that was read, Conflict if it has moved on since.
    delete   rows to remove (not append-only ones), compared by revision likewise.
    jobs     work to enqueue.
    each     work to enqueue for each row of some kind, looked up in the transaction.
    finish   the job that this step ran: deleted, if its lease is still ours, else LeaseLost and nothing is written.
    audit    audit entries, chained by the engine in the order given.
    """

    insert: tuple[Record, ...] = ()
    replace: tuple[Record, ...] = ()
    delete: tuple[Record, ...] = ()
    jobs: tuple[NewJob, ...] = ()
    each: tuple[JobForEach, ...] = ()
    audit: tuple[AuditEntry, ...] = ()
    finish: Job | None = None

    def __add__(self, other: "Changeset") -> "Changeset":
        """Both, in order."""
        return Changeset(
            insert=self.insert + other.insert,
            replace=self.replace + other.replace,
            delete=self.delete + other.delete,
            jobs=self.jobs + other.jobs,
            each=self.each + other.each,
            audit=self.audit + other.audit,
            finish=self.finish or other.finish,
        )

    def participants(self) -> set[str]:
        """Whose keys it takes."""
        parts: tuple[tuple[Record, ...], ...] = (self.insert, self.replace, self.delete, self.audit)
        return {record.participant_id for part in parts for record in part}


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What a walk over the audit chain found. `broken_at` is (participant id, sequence) of the first bad row."""

    rows: int
    broken_at: tuple[str, int] | None = field(default=None)


class Pending(Protocol):
    """Rows that were handed over, and are kept whatever becomes of the rest of their step."""

    async def commit(self, more: Changeset) -> None:
        """Both parts are on disk when it returns: in one transaction where the first was not written yet.

        If `more` can not be written the first part is kept alone, and the error is raised.
        """
        ...


class Store(Protocol):
    """A store engine. Every method may raise StoreUnavailable; reads may raise StoreDamaged."""

    async def commit(self, changeset: Changeset) -> None:
        """Writes it durably (on disk when this returns). Raises Conflict, UniqueViolation, LeaseLost."""
        ...

    async def begin(self, first: Changeset) -> Pending:
        """Hands rows over, to be written with or without what follows from them."""
        ...

    async def get(self, kind: type[R], **key: Any) -> R | None:
        """One row by its whole primary key (a blind key column takes the clear text), or None.

        More columns may be named: the row counts as absent unless they are equal too (such as its participant).
        """
        ...

    async def find(
        self,
        kind: type[R],
        *where: Where,
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
    ) -> Sequence[R]:
        """Rows that meet all conditions, ordered by one column, then by key; `descending` turns both round."""
        ...

    async def count(self, kind: type[Record], *where: Where) -> int:
        """How many rows meet all conditions."""
        ...

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
        """Leases up to `limit` jobs that are due at `now`, oldest first, and those whose lease ran out.

        Durable when it returns; each job comes with a fresh `lease_token` and its `attempts` raised by one.
        Only the given kinds, if any are given. The lease of a job whose id is `held` counts on when it has run out.
        """
        ...

    async def release(self, job: Job, *, due_at: datetime) -> None:
        """Gives a leased job back, due again at `due_at`, attempts kept. If one of that kind and key waits already,
        that one stays (with the earlier due time) and this one is deleted. Raises LeaseLost."""
        ...

    async def bury(self, job: Job) -> None:
        """Marks a leased job DEAD. Raises LeaseLost."""
        ...

    async def next_due(self) -> datetime | None:
        """The due time of the earliest waiting job, or None."""
        ...

    async def changed(self) -> int:
        """A number that moves when any process has written; cheap enough to ask ten times a second."""
        ...

    async def verify_audit(self) -> ChainReport:
        """Walks every audit chain from its first row."""
        ...

    async def close(self) -> None:
        """Finishes queued writes, then lets go of files and connections."""
        ...
