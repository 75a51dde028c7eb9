"""The record of how a patient stands on a track: what CMS's decisions make of it, and what a person corrects.

The rules are `server/domain/alignment.py`; here its rows are read and written, and contradictions are told.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import msgspec

from profiles.issue import error
from server.audit import record
from server.context import Context
from server.domain.alignment import HELD, Alignment, AlignmentState, Decision, dated, decided
from server.domain.care_period import CarePeriod, CarePeriodState, Report, ReportState
from server.domain.errors import BadConfiguration, Refused
from server.domain.rules import Rules, all_rules, rules_for
from server.domain.submission import Submission
from server.domain.window import DUE, ReportingWindow, day_of
from server.schedule.lifecycle import Calendar, assess_job, calendar_of, end_period, window_jobs, zone_of
from server.store.base import Changeset, Where
from server.work_items import closed, work_item

# What a person may correct; the other dates of an alignment follow from its first day.
FIELDS: dict[str, Callable[[Alignment, date], Alignment]] = {
    "aligned-on": lambda row, day: replace(dated(row, day, rules_for(day)), control_until=row.control_until),
    "lock-in-until": lambda row, day: replace(row, lock_in_until=day),
    "control-until": lambda row, day: replace(row, control_until=day),
}
ENDS = {"unaligned": AlignmentState.UNALIGNED, "switched": AlignmentState.SWITCHED}


async def row_of(participant_id: str, patient_id: str, track: str, context: Context) -> Alignment:
    """The stored row, or a new one that says nothing."""
    found = await context.store.get(Alignment, participant_id=participant_id, patient_id=patient_id, track=track)
    return found or Alignment(participant_id=participant_id, patient_id=patient_id, track=track)


def written(before: Alignment, after: Alignment) -> Changeset:
    """What stores the row if it differs."""
    if after == before:
        return Changeset()
    return Changeset(replace=(after,)) if before.revision else Changeset(insert=(after,))


async def noted(
    submission: Submission, code: str, context: Context, *, cms_submission_id: str | None = None
) -> Changeset:
    """CMS's decision in the record; a person is told if it contradicts what is held here."""
    participant_id, now = submission.participant_id, context.clock.now()
    taken_at = submission.accepted_at or submission.finished_at or now
    day = day_of(taken_at, zone_of(context, participant_id))
    before = await row_of(participant_id, submission.patient_id, submission.track, context)
    decision = Decision(operation=submission.operation, code=code, at=now, day=day, cms_submission_id=cms_submission_id)
    moved = decided(before, decision, _rules(day))
    row = _on_whose_word(moved.row, submission, code)
    changes = written(before, row)
    if moved.contradicts:
        return changes + await _contradiction(row, decision, context)
    return changes + await _agreed(row, context)


async def eligibility_result(submission: Submission, code: str, context: Context) -> Changeset:
    """An eligibility answer: reconciles the record, ends nothing by itself."""
    return await noted(submission, code, context)


def _rules(day: date) -> Rules:
    try:
        return rules_for(day)
    except BadConfiguration:  # a record is kept also for days that no file covers; a care period is not
        return all_rules()[-1]


def _on_whose_word(row: Alignment, submission: Submission, code: str) -> Alignment:
    """An alignment keeps who stated that the patient was referred, and that consent to a switch is on file."""
    if row.cms_submission_id is None or code not in ("aligned", "aligned-switch-approved"):
        return row
    stated = f"stated by {submission.agent}"
    referral = stated if _says(submission, "isProviderReferral") else ""
    return replace(row, referral=referral, attestation=stated if _says(submission, "switchConsentAttestation") else "")


def _says(submission: Submission, name: str) -> bool:
    """Whether a boolean parameter of the request is true: its profile was checked at the door."""
    parameters = msgspec.json.decode(submission.request).get("parameter", [])
    return any(p.get("name") == name and p.get("valueBoolean") is True for p in parameters)


async def _contradiction(row: Alignment, decision: Decision, context: Context) -> Changeset:
    text = (
        f"CMS answered {decision.code} to ${decision.operation}, but the patient is held here as {row.state} on "
        f"{row.track} since {row.aligned_on}. Nothing was changed. Ask CMS; if CMS is right: "
        f"access-facade alignment end {row.patient_id} {row.track} --as unaligned"
    )
    items = await work_item(
        context,
        participant_id=row.participant_id,
        kind="alignment",
        subject=_subject(row),
        text=text,
        patient_id=row.patient_id,
    )
    return Changeset(insert=items)


async def _agreed(row: Alignment, context: Context) -> Changeset:
    """CMS says what the record says: a contradiction told before is over."""
    items = await closed(
        context,
        participant_id=row.participant_id,
        kind="alignment",
        subject=_subject(row),
        at=context.clock.now(),
    )
    return Changeset(replace=items)


def _subject(row: Alignment) -> str:
    return f"alignment/{row.patient_id}/{row.track}"


async def ended(calendar: Calendar, state: AlignmentState, context: Context) -> Changeset:
    """The alignment of a care period is over without an answer to a request of ours: by time, or by CMS's e-mail."""
    period = calendar.period
    before = await row_of(period.participant_id, period.patient_id, period.track, context)
    if before.state not in HELD:
        return Changeset()
    return written(before, replace(before, state=state, changed_at=calendar.now))


# --- By hand --------------------------------------------------------------------------------------------------------


async def corrected(
    patient_id: str, track: str, *, field: str, day: date, context: Context, agent: str = "cli"
) -> Changeset:
    """A person sets a date that CMS told in another way. `field`: a key of FIELDS. The windows follow the first day.

    Raises: Refused 404 if the patient has no record on the track, 422 if the field is none or does not apply.
    """
    before = await _of_patient(patient_id, track, context)
    if field not in FIELDS:
        raise Refused(422, [error("value", "field", f"There is no such date: {', '.join(FIELDS)} are.")])
    if field != "control-until" and before.aligned_on is None:
        text = "The patient was never aligned to you on this track, so there is no such date to correct."
        raise Refused(422, [error("business-rule", "field", text)])
    after, changes = FIELDS[field](before, day), Changeset()
    if field == "aligned-on":
        changes = await _moved_period(before, day, context)
    entry = record(
        participant_id=before.participant_id,
        at=context.clock.now(),
        agent=agent,
        action="U",
        subtype=f"alignment {field} {day}",
        entity=_subject(before),
        patient_id=patient_id,
    )
    return changes + written(before, after) + Changeset(audit=(entry,))


async def finished(
    patient_id: str, track: str, *, state: str, day: date, context: Context, agent: str = "cli"
) -> Changeset:
    """A person ends an alignment that CMS has ended: `state` is a key of ENDS.

    Raises: Refused 404 without a record, 422 if it is not held.
    """
    before = await _of_patient(patient_id, track, context)
    if state not in ENDS or not before.is_held:
        text = f"The record is {before.state}: only an alignment that is held ends, as {' or '.join(ENDS)}."
        raise Refused(422, [error("business-rule", "state", text)])
    now = context.clock.now()
    changes = written(before, replace(before, state=ENDS[state], changed_at=now))
    calendar = await _active(before, context)
    if calendar is not None:
        changes += await end_period(calendar, CarePeriodState.UNALIGNED, context, ended_on=day)
    entry = record(
        participant_id=before.participant_id,
        at=now,
        agent=agent,
        action="U",
        subtype=f"alignment {state}",
        entity=_subject(before),
        patient_id=patient_id,
    )
    return changes + Changeset(audit=(entry,)) + await _agreed(before, context)


async def _of_patient(patient_id: str, track: str, context: Context) -> Alignment:
    found = await context.store.find(Alignment, Where("patient_id", "==", patient_id), Where("track", "==", track))
    if len(found) != 1:
        text = "There is no record of that patient on that track: see access-facade alignment list."
        raise Refused(404, [error("not-found", "patient", text)])
    return found[0]


async def _active(row: Alignment, context: Context) -> Calendar | None:
    conditions = (
        Where("participant_id", "==", row.participant_id),
        Where("active_key", "==", f"{row.patient_id}|{row.track}"),
    )
    found = await context.store.find(CarePeriod, *conditions, limit=1)
    return await calendar_of(found[0].id, row.participant_id, context) if found else None


async def _moved_period(row: Alignment, day: date, context: Context) -> Changeset:
    """The care period from its right first day: the windows of reports that are not sent yet move with it."""
    calendar = await _active(row, context)
    if calendar is None:
        return Changeset()
    period = replace(calendar.period, aligned_on=day)
    moved = replace(calendar, period=period, rules=rules_for(day))
    windows = {(window.report_type.value, window.number): window for window in moved.windows()}
    changes = Changeset(replace=(period,), jobs=(assess_job(moved),))
    for report in calendar.reports:
        window = windows.get((report.report_type, report.number))
        if report.state in DUE and window is not None:
            row_after = _within(report, window, moved)
            changes += Changeset(replace=(row_after,), jobs=tuple(window_jobs(row_after, window, moved)))
    return changes


def _within(report: Report, window: ReportingWindow, calendar: Calendar) -> Report:
    is_open = window.safe_opens <= calendar.today <= window.closes
    state = report.state if is_open and report.state is not ReportState.SCHEDULED else ReportState.SCHEDULED
    state = ReportState.OPEN if is_open and state is ReportState.SCHEDULED else state
    return replace(report, opens=window.opens, closes=window.closes, state=state)
