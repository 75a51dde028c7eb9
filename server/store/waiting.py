"""How a new job is stored, in every engine."""

from typing import NamedTuple
from uuid import uuid4

from server.domain.job import JobKind, NewJob
from server.store.schema import instant


class WaitingJob(NamedTuple):
    """Stored values of a job that waits, in the order in which engines bind them."""

    participant_id: str
    id: str
    kind: str
    key: str
    due_at: str
    waiting_key: str


def waiting_key(kind: JobKind, key: str) -> str:
    """What a unique index bars twice while a job waits."""
    return f"{kind}:{key}"


def waiting_job(job: NewJob) -> WaitingJob:
    """A fresh row. Raises ValueError for a due time without a zone."""
    due_at = instant(job.due_at)
    return WaitingJob(job.participant_id, uuid4().hex, str(job.kind), job.key, due_at, waiting_key(job.kind, job.key))
