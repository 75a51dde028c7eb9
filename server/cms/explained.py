"""Submissions in plain words: where each stands, what that means, what to do next, and who does it."""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from server.cms import results
from server.cms.results import Meaning
from server.context import Context
from server.domain.submission import Submission, SubmissionEvent, SubmissionState
from server.store.base import Where

MOST = 200  # lines of one list, the newest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One submission as a coordinator reads it. `detail` is the last event, `history` all of them when asked for."""

    id: str
    participant_id: str
    patient_id: str
    track: str
    operation: str
    report_type: str | None
    state: str
    code: str | None
    status: int | None
    severity: str
    text: str
    next: str
    who: str
    again: str
    detail: str
    created_at: datetime
    finished_at: datetime | None
    history: tuple[tuple[datetime, str, str], ...] = ()


async def listed(context: Context, *, participant_id: str | None = None, open_only: bool = False) -> list[Explained]:
    """The submissions, the newest first; with `open_only` those without an end or that wait for a person."""
    conditions = (Where("participant_id", "==", participant_id),) if participant_id else ()
    rows = await context.store.find(Submission, *conditions, order_by="created_at", descending=True, limit=MOST)
    return [
        explained(row, await _events(row, context))
        for row in rows
        if not open_only or row.state is not SubmissionState.APPLIED
    ]


async def one(submission_id: str, context: Context) -> Explained | None:
    """One submission with its history; None if there is none."""
    row = await context.store.get(Submission, id=submission_id)
    return explained(row, await _events(row, context), history=True) if row else None


async def _events(row: Submission, context: Context) -> list[SubmissionEvent]:
    conditions = (Where("submission_id", "==", row.id),)
    return list(await context.store.find(SubmissionEvent, *conditions, order_by="sequence"))


def explained(row: Submission, events: list[SubmissionEvent], *, history: bool = False) -> Explained:
    """The words for one submission."""
    meaning = meaning_of(row)
    return Explained(
        id=row.id,
        participant_id=row.participant_id,
        patient_id=row.patient_id,
        track=row.track,
        operation=str(row.operation),
        report_type=row.report_type,
        state=str(row.state),
        code=row.result_code,
        status=row.result_status,
        severity=meaning.severity,
        text=meaning.text,
        next=meaning.next,
        who=meaning.who,
        again=meaning.again,
        detail=events[-1].detail if events else "",
        created_at=row.created_at,
        finished_at=row.finished_at,
        history=tuple((event.at, str(event.state), event.detail) for event in events) if history else (),
    )


def meaning_of(row: Submission) -> Meaning:
    """By its result code; before its end by its state; stopped, by CMS's refusal if there was one."""
    if row.state is SubmissionState.APPLIED or (row.state is SubmissionState.NEEDS_REVIEW and row.result_code):
        return results.meaning(row.operation, row.result_code)
    if row.state is not SubmissionState.NEEDS_REVIEW:
        return results.standing(row.state)
    if row.result_status is None:
        return results.failure("no-result" if row.content_location else "stopped")
    if row.result and row.result_status < 500 and not _is_fhir(row.result):
        return results.failure("not-fhir")
    return results.failure(row.result_status)


def _is_fhir(body: bytes) -> bool:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(content, dict) and content.get("resourceType") in ("Parameters", "OperationOutcome")
