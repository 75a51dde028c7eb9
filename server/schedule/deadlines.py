"""What the calendar does by itself: opens a window, reminds, closes it. A job that runs too early puts itself back."""

from dataclasses import replace
from datetime import date, timedelta

from server.clock import today
from server.context import Context
from server.domain.care_period import Report, ReportState
from server.domain.coordination import WorkItem
from server.domain.job import Job, JobKind
from server.domain.submission import Submission, SubmissionState
from server.domain.window import ACTIVE, DUE, DueWork, due_work
from server.schedule.lifecycle import Calendar, assess_job, calendar_of, told, window_job
from server.schedule.missed import missed
from server.store.base import Changeset, Where
from server.work_items import closed


async def open_window(job: Job, context: Context) -> Changeset:
    """SCHEDULED -> OPEN, and the period is looked at. `job.key` is the report's id."""
    found = await _load(job.key, job, context)
    if found is None or found[0].state is not ReportState.SCHEDULED:
        return Changeset()
    report, calendar = found
    safe = report.opens + timedelta(days=calendar.rules.edge_margin_days.value)
    if calendar.today < safe:
        return Changeset(jobs=(window_job(calendar, JobKind.OPEN_WINDOW, report, safe),))
    return Changeset(replace=(replace(report, state=ReportState.OPEN),), jobs=(assess_job(calendar),))


async def remind(job: Job, context: Context) -> Changeset:
    """Tells a person how many days are left and what is missing; one item a report, brought up to date.

    `job.key` is the report's id, a bar, and the days before the end of the window.
    """
    found = await _load(job.key.partition("|")[0], job, context)
    if found is None or found[0].state not in DUE or found[1].today > found[0].closes:
        return Changeset()
    report, calendar = found
    subject, text = f"report/{report.id}", _reminder(report, calendar)
    jobs = (assess_job(calendar),)
    standing = await _standing(report.participant_id, subject, context)
    if standing is not None:
        return Changeset(replace=(replace(standing, text=text),), jobs=jobs)
    item = await told(calendar, context, kind="deadline", subject=subject, text=text, due_on=report.closes)
    return Changeset(jobs=jobs) + item


async def _standing(participant_id: str, subject: str, context: Context) -> WorkItem | None:
    """The reminder that is open already. The key is that of `server.work_items`."""
    key = f"{participant_id}|deadline|{subject}"
    found = await context.store.find(WorkItem, Where("open_key", "==", key), limit=1)
    return found[0] if found else None


def _reminder(report: Report, calendar: Calendar) -> str:
    days = (report.closes - calendar.today).days
    left = "today is the last day" if days == 0 else f"{days} {'day is' if days == 1 else 'days are'} left"
    if report.missing:
        state = f"Missing: {report.missing.replace(',', ', ')}."
    else:
        state = "It is ready to be sent." if report.state is ReportState.READY else "Nothing is known to be missing."
    return f"The {report.report_type} report of {report.track} is due by {report.closes}: {left}. {state}"


async def close_window(job: Job, context: Context) -> Changeset:
    """What was not sent is missed. A report on its way is left to CMS's answer. `job.key` is the report's id."""
    found = await _load(job.key, job, context)
    if found is None:
        return Changeset()
    report, calendar = found
    if calendar.today <= report.closes:
        return Changeset(jobs=(window_job(calendar, JobKind.CLOSE_WINDOW, report, report.closes + timedelta(days=1)),))
    if report.state in DUE:
        items = await closed(
            context,
            participant_id=report.participant_id,
            kind="deadline",
            subject=f"report/{report.id}",
            at=calendar.now,
        )
        return Changeset(replace=items) + await missed(report, calendar, context)
    return await _stuck(report, calendar, context)


async def _stuck(report: Report, calendar: Calendar, context: Context) -> Changeset:
    """The window is over and a person still has to decide about the submission: said once more."""
    if report.state is not ReportState.SUBMITTED or report.submission_id is None:
        return Changeset()
    submission = await context.store.get(Submission, id=report.submission_id)
    if submission is None or submission.state is not SubmissionState.NEEDS_REVIEW:
        return Changeset()
    text = (
        f"The window of the {report.report_type} report of {report.track} closed on {report.closes}, and its "
        f"submission/{submission.id} still waits for a decision. Decide now; CMS may take it no more."
    )
    return await told(calendar, context, kind="late", subject=f"report/{report.id}", text=text)


async def due(context: Context, *, participant_id: str | None = None, on: date | None = None) -> tuple[DueWork, ...]:
    """The work list of `access-facade due`: open reports by urgency on a day, of one participant or of all."""
    lines: list[DueWork] = []
    for entity_id, participant in context.settings.participants.items():
        if participant_id in (None, entity_id):
            conditions = (Where("participant_id", "==", entity_id), Where("state", "in", tuple(sorted(DUE))))
            reports = await context.store.find(Report, *conditions)
            lines += due_work(reports, on=on or today(context.clock, participant.time_zone))
    return tuple(sorted(lines, key=lambda line: (line.days_left, line.participant_id, line.patient_id)))


async def _load(report_id: str, job: Job, context: Context) -> tuple[Report, Calendar] | None:
    """The report and its calendar; None if there is none or its period is over."""
    report = await context.store.get(Report, id=report_id)
    if report is None:
        return None
    calendar = await calendar_of(report.care_period_id, job.participant_id, context)
    if calendar is None or calendar.period.state not in ACTIVE:
        return None
    return report, calendar
