"""Every change of a submission's state is made here: the row, its event, and what is due next."""

import random
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from server.audit import record
from server.cms.policy import backoff_seconds
from server.context import Context
from server.domain.errors import FacadeError
from server.domain.job import JobKind, NewJob
from server.domain.submission import FINAL, TRANSITIONS, Submission, SubmissionEvent, SubmissionState
from server.settings import Polling
from server.store.base import Changeset, Where
from server.work_items import work_item


def moved(submission: Submission, state: SubmissionState, detail: str, *, at: datetime, **columns: Any) -> Changeset:
    """The submission in its new state, and the event of the transition. FacadeError if it is not a legal one."""
    if state is not submission.state and state not in TRANSITIONS[submission.state]:
        raise FacadeError(f"submission {submission.id}: {submission.state} -> {state} is not a transition")
    if state in FINAL or state is SubmissionState.RESULT:
        columns.setdefault("in_flight_key", None)
    row = replace(submission, state=state, **columns)
    event = SubmissionEvent(
        participant_id=submission.participant_id,
        submission_id=submission.id,
        sequence=submission.revision + 1,
        at=at,
        state=state,
        detail=detail,
    )
    audit = record(
        participant_id=submission.participant_id,
        at=at,
        agent="worker",
        action="E",
        subtype=f"{submission.operation} {state}",
        entity=f"submission/{submission.id}",
        patient_id=submission.patient_id,
    )
    return Changeset(replace=(row,), insert=(event,), audit=(audit,))


def due(submission: Submission, kind: JobKind, at: datetime) -> Changeset:
    """The next job of this submission."""
    return Changeset(jobs=(NewJob(participant_id=submission.participant_id, kind=kind, key=submission.id, due_at=at),))


async def review(submission: Submission, why: str, context: Context, **columns: Any) -> Changeset:
    """Stops here until a person decides: the state, and the item in the work list that says what to do."""
    now = context.clock.now()
    items = await work_item(
        context,
        participant_id=submission.participant_id,
        kind="submission",
        subject=f"submission/{submission.id}",
        text=why,
        patient_id=submission.patient_id,
    )
    stopped = moved(submission, SubmissionState.NEEDS_REVIEW, why, at=now, finished_at=now, **columns)
    return stopped + Changeset(insert=items)


def jittered(middle: float) -> timedelta:
    """A wait around `middle` seconds, never close to nothing: half of it fixed, the rest by chance."""
    return timedelta(seconds=middle * random.uniform(0.75, 1.25))  # noqa: S311 - spreads load, guards nothing


def retry_wait(attempt: int, wish: float | None) -> timedelta:
    """The wait before trying again: a growing one, or CMS's wish and a little more if that is longer."""
    grown = jittered(backoff_seconds(attempt))
    return grown if wish is None else max(grown, timedelta(seconds=wish + random.uniform(0.0, 1.0 + wish / 10)))  # noqa: S311


def first_poll(polling: Polling) -> timedelta:
    """How long after the 202 CMS is first asked."""
    return timedelta(seconds=random.uniform(*polling.first_seconds))  # noqa: S311


def next_poll(polling: Polling, polls: int, *, late: bool) -> timedelta:
    """How long after a poll CMS is asked again: growing within the agreed range, then the slow lane."""
    low, high = polling.slow_seconds if late else polling.every_seconds
    middle = min(high, low * 1.5 ** min(polls, 20))
    return timedelta(seconds=min(high, max(low, middle * random.uniform(0.75, 1.25))))  # noqa: S311


async def repeated(submission: Submission, detail: str, context: Context) -> int:
    """How many of the latest events in a row say `detail`."""
    conditions = (Where("submission_id", "==", submission.id),)
    events = await context.store.find(SubmissionEvent, *conditions, order_by="sequence", descending=True, limit=20)
    return len(list(takewhile(lambda event: event.detail == detail, events)))
