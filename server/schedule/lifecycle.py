"""A care period as rows: its reports, and the jobs that its calendar asks for.

Ids are made of what a row stands for, so that a step that runs twice writes the same rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from hashlib import sha256
from zoneinfo import ZoneInfo

from server.audit import record
from server.context import Context
from server.domain.audit import AuditEntry
from server.domain.care_period import CarePeriod, CarePeriodState, Report, ReportState
from server.domain.coordination import Moment
from server.domain.job import JobKind, NewJob
from server.domain.rules import Rules, rules_for
from server.domain.submission import Submission
from server.domain.window import ACTIVE, DUE, ReportingWindow, day_of, reporting_windows, start_of
from server.store.base import Changeset, Where
from server.work_items import closed, work_item


@dataclass(frozen=True, slots=True)
class Calendar:
    """One care period with its reports, its rules and the time: what every step of the clock begins with."""

    period: CarePeriod
    reports: tuple[Report, ...]
    rules: Rules
    zone: ZoneInfo
    now: datetime

    @property
    def today(self) -> date:
        """The calendar day in the participant's zone."""
        return day_of(self.now, self.zone)

    def windows(self) -> tuple[ReportingWindow, ...]:
        """The reporting windows, as far as they are known."""
        return reporting_windows(self.period, self.reports, self.rules, zone=self.zone)

    def with_report(self, report: Report) -> "Calendar":
        """The same with one report in its new state."""
        return replace(self, reports=tuple(report if one.id == report.id else one for one in self.reports))


def identity(*parts: str | int) -> str:
    """A logical id made of what it stands for: 32 hex digits."""
    return sha256("|".join(str(part) for part in parts).encode()).hexdigest()[:32]


def zone_of(context: Context, participant_id: str) -> ZoneInfo:
    """The zone in which the participant's days are counted."""
    return ZoneInfo(context.settings.participant(participant_id).time_zone)


async def calendar_of(care_period_id: str, participant_id: str, context: Context) -> Calendar | None:
    """The care period and what belongs to it; None if the participant has no such period.

    Raises: BadConfiguration if no rules cover it.
    """
    period = await context.store.get(CarePeriod, id=care_period_id)
    if period is None or period.participant_id != participant_id:
        return None
    reports = await context.store.find(Report, Where("care_period_id", "==", care_period_id), order_by="closes")
    zone = zone_of(context, participant_id)
    return Calendar(period, tuple(reports), rules_for(period.aligned_on), zone, context.clock.now())


async def start_period(
    submission: Submission,
    context: Context,
    *,
    patient_id: str,
    track: str,
    aligned_on: date,
    cms_submission_id: str | None,
) -> Changeset:
    """A new care period with the reports that are known on its first day, and the jobs of its calendar.

    Shape: nothing if the period exists. An older period of the same patient and track ends: CMS's answer says so.
    Raises: BadConfiguration if no rules cover the day.
    """
    participant_id = submission.participant_id
    period_id = identity("care-period", participant_id, submission.id)
    if await context.store.get(CarePeriod, id=period_id):
        return Changeset()
    active_key = f"{patient_id}|{track}"
    period = CarePeriod(
        participant_id=participant_id,
        id=period_id,
        patient_id=patient_id,
        track=track,
        aligned_on=aligned_on,
        align_submission_id=submission.id,
        active_key=active_key,
        cms_submission_id=cms_submission_id,
    )
    calendar = Calendar(period, (), rules_for(aligned_on), zone_of(context, participant_id), context.clock.now())
    changes = await _superseded(participant_id, active_key, aligned_on, context)
    changes += Changeset(insert=(period,), jobs=tuple(_first_jobs(calendar)), audit=(audited(calendar, "aligned"),))
    return changes + new_reports(calendar)


async def _superseded(participant_id: str, active_key: str, aligned_on: date, context: Context) -> Changeset:
    conditions = (Where("participant_id", "==", participant_id), Where("active_key", "==", active_key))
    changes = Changeset()
    for period in await context.store.find(CarePeriod, *conditions):
        calendar = await calendar_of(period.id, participant_id, context)
        if calendar is not None:
            changes += await end_period(calendar, CarePeriodState.UNALIGNED, context, ended_on=aligned_on)
    return changes


async def end_period(calendar: Calendar, state: CarePeriodState, context: Context, *, ended_on: date) -> Changeset:
    """Ends a period: reports not sent yet are cancelled, and the care completion update is due."""
    period = replace(calendar.period, state=state, active_key=None, ended_on=ended_on)
    unsent = [report for report in calendar.reports if report.state in DUE]
    changes = Changeset(
        replace=(period, *(replace(report, state=ReportState.CANCELLED) for report in unsent)),
        jobs=(care_update_job(calendar, Moment.COMPLETION, calendar.now),),
        audit=(audited(calendar, state.value),),
    )
    for report in unsent:
        changes += await settled(report, calendar, context)
    return changes


async def settled(report: Report, calendar: Calendar, context: Context) -> Changeset:
    """What was open about a report, other than that it came too late, is closed."""
    subject = f"report/{report.id}"
    measures = calendar.rules.requirement(report.track, report.report_type).measures
    matters = [("deadline", subject), ("submission", subject), ("report", subject)]
    matters += [("report", f"{subject}/{detail}") for detail in ("check", "incomplete", *measures)]
    changes = Changeset()
    for kind, about in matters:
        participant_id = report.participant_id
        items = await closed(context, participant_id=participant_id, kind=kind, subject=about, at=calendar.now)
        changes += Changeset(replace=items)
    return changes


def new_reports(calendar: Calendar) -> Changeset:
    """A row, and the jobs of its window, for each known window that has no report yet."""
    if calendar.period.state not in ACTIVE:
        return Changeset()
    known = {(report.report_type, report.number) for report in calendar.reports}
    new = [
        (_report(window, calendar), window)
        for window in calendar.windows()
        if (window.report_type.value, window.number) not in known
    ]
    jobs = tuple(job for report, window in new for job in window_jobs(report, window, calendar))
    return Changeset(insert=tuple(report for report, _ in new), jobs=jobs)


def assess_job(calendar: Calendar) -> NewJob:
    """Has the period looked at now."""
    return _job(calendar, JobKind.ASSESS, calendar.period.id, calendar.now)


def care_update_job(calendar: Calendar, moment: Moment, due_at: datetime, *, subject: str = "") -> NewJob:
    """Has the update of one moment composed. Of two for one moment the earlier stands."""
    return _job(calendar, JobKind.CARE_UPDATE, f"{calendar.period.id}|{moment}|{subject}", due_at)


def window_job(calendar: Calendar, kind: JobKind, report: Report, day: date, *, suffix: str = "") -> NewJob:
    """A job about one report at the first instant of a day."""
    return _job(calendar, kind, report.id + suffix, start_of(day, calendar.zone))


def audited(calendar: Calendar, subtype: str, *, entity: str = "") -> AuditEntry:
    """One entry about the period or something of it."""
    return record(
        participant_id=calendar.period.participant_id,
        at=calendar.now,
        agent="worker",
        action="E",
        subtype=subtype,
        entity=entity or f"care_period/{calendar.period.id}",
        patient_id=calendar.period.patient_id,
    )


async def told(
    calendar: Calendar, context: Context, *, kind: str, subject: str, text: str, due_on: date | None = None
) -> Changeset:
    """A work item about something of this period, unless one is open."""
    items = await work_item(
        context,
        participant_id=calendar.period.participant_id,
        kind=kind,
        subject=subject,
        text=text,
        patient_id=calendar.period.patient_id,
        due_on=due_on.isoformat() if due_on else None,
    )
    return Changeset(insert=items)


def _first_jobs(calendar: Calendar) -> Iterator[NewJob]:
    """ASSESS now; the initiation and completion updates shortly before their deadlines, at the latest."""
    rules, begins = calendar.rules, calendar.period.aligned_on
    lead = rules.care_update_lead_days.value
    initiation = begins + timedelta(days=rules.initiation_days.value - lead)
    completion = begins + timedelta(days=rules.period_days.value + rules.completion_days.value - lead)
    yield assess_job(calendar)
    yield care_update_job(calendar, Moment.INITIATION, start_of(initiation, calendar.zone))
    yield care_update_job(calendar, Moment.COMPLETION, start_of(completion, calendar.zone))


def _report(window: ReportingWindow, calendar: Calendar) -> Report:
    period = calendar.period
    is_open = window.safe_opens <= calendar.today <= window.closes
    return Report(
        participant_id=period.participant_id,
        id=identity("report", period.id, window.report_type, window.number),
        care_period_id=period.id,
        patient_id=period.patient_id,
        track=period.track,
        report_type=window.report_type.value,
        number=window.number,
        opens=window.opens,
        closes=window.closes,
        state=ReportState.OPEN if is_open else ReportState.SCHEDULED,
    )


def window_jobs(report: Report, window: ReportingWindow, calendar: Calendar) -> Iterator[NewJob]:
    """What the calendar has to do about a report: open its window, remind, close it."""
    if report.state is ReportState.SCHEDULED:
        yield window_job(calendar, JobKind.OPEN_WINDOW, report, window.safe_opens)
    for days in calendar.rules.remind_days.value:
        day = report.closes - timedelta(days=days)
        if day > max(calendar.today, window.safe_opens):
            yield window_job(calendar, JobKind.REMIND, report, day, suffix=f"|{days}")
    yield window_job(calendar, JobKind.CLOSE_WINDOW, report, report.closes + timedelta(days=1))


def _job(calendar: Calendar, kind: JobKind, key: str, due_at: datetime) -> NewJob:
    return NewJob(participant_id=calendar.period.participant_id, kind=kind, key=key, due_at=due_at)


def pending(reports: Sequence[Report]) -> tuple[Report, ...]:
    """The reports whose window is open and that are not on their way."""
    return tuple(report for report in reports if report.state in (ReportState.OPEN, ReportState.READY))
