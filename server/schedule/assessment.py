"""ASSESS: looks at one care period. What do its open reports miss, which can be built, which goals are reached?

Safe to run at any time and any number of times: it writes only what differs from what is stored.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from profiles.issue import error
from server.context import Context
from server.domain.alignment import AlignmentState
from server.domain.care_period import CarePeriodState, MilestoneReached, Report, ReportState
from server.domain.coordination import CmsNotification, Moment
from server.domain.errors import Refused
from server.domain.job import Job
from server.domain.measures import (
    Evidence,
    Reading,
    Resource,
    Selection,
    Used,
    dump_evidence,
    load_evidence,
    milestones,
    newest_reported,
    select,
)
from server.domain.submission import FINAL, Submission
from server.domain.window import ACTIVE, ReportType, day_of
from server.schedule.alignments import ended
from server.schedule.calculated import with_bmi
from server.schedule.corrections import corrections
from server.schedule.document import Document, build, submitted
from server.schedule.gather import Gathered, gather, patient_of
from server.schedule.lifecycle import (
    Calendar,
    calendar_of,
    care_update_job,
    end_period,
    pending,
    settled,
    told,
)
from server.store.base import Changeset, Where
from server.work_items import closed

_SENT = frozenset({ReportState.ACCEPTED, ReportState.SUBMITTED})
_UNALIGNED_EVENT = "unalignment"  # ACCESSEventTypeCS


@dataclass(frozen=True, slots=True)
class View:
    """A care period and all that is known of its patient's measures. `made`: what looking at them brought about."""

    calendar: Calendar
    gathered: Gathered
    patient: Resource | None
    made: Changeset

    def reported(self) -> dict[str, datetime]:
        """By measure, the time of the newest value that this period's reports hold already."""
        sent = (one for one in self.calendar.reports if one.state in _SENT)
        return newest_reported(self.evidence_of(report) for report in sent)

    def evidence_of(self, report: Report) -> Evidence:
        """What a report used. Of one that an EHR sent by itself: what was measured before CMS took it."""
        if report.evidence is not None or report.submitted_at is None:
            return load_evidence(report.evidence)
        newest: dict[str, Reading] = {}
        for one in sorted(self.gathered.readings, key=lambda one: one.effective):
            if one.is_reportable and one.effective <= report.submitted_at:
                newest[one.measure] = one
        return {measure: (Used(one.reference, one.effective),) for measure, one in newest.items()}

    def selection(self, report: Report) -> Selection:
        """What that report would carry now."""
        calendar = self.calendar
        return select(
            self.gathered.readings,
            calendar.rules.requirement(report.track, report.report_type),
            calendar.rules,
            reported=self.reported(),
            at=calendar.now,
            on=calendar.today,
        )


async def assess(job: Job, context: Context) -> Changeset:
    """Looks at one care period. `job.key` is its id."""
    calendar = await calendar_of(job.key, job.participant_id, context)
    if calendar is None or calendar.period.state not in ACTIVE:
        return Changeset()
    ended = await _ended_by_cms(calendar, context)
    if ended is not None:
        return ended
    view = await _view(calendar, context)
    changes = view.made + await _milestones(view, context)
    changes += await corrections(calendar, gathered=view.gathered, context=context)
    for report in pending(calendar.reports):
        if calendar.today <= report.closes:
            changes += await _assessed(report, view, context)
        if any(isinstance(row, Submission) for row in changes.insert):
            break  # a value goes into one report only: the others are looked at when this one is answered
    return changes


async def submit_report(report_id: str, context: Context, *, agent: str = "cli", incomplete: bool = False) -> Changeset:
    """A person sends a report now, whatever `reporting` says. `incomplete` sends it without required measures.

    Raises: Refused (404 no such report, 409 its state or window does not allow it, 422 measures missing or the
    document is not valid), with issues in plain words.
    """
    report = await context.store.get(Report, id=report_id)
    calendar = await calendar_of(report.care_period_id, report.participant_id, context) if report else None
    if report is None or calendar is None:
        raise Refused(404, [error("not-found", "Report", "There is no report with that id.")])
    await _refuse_wrong_state(report, calendar, context)
    view = await _view(calendar, context)
    selection = view.selection(report)
    if selection.missing and not incomplete:
        text = f"The report misses {', '.join(selection.missing)}: get these values, or send it incomplete on purpose."
        raise Refused(422, [error("required", "Report.missing", text)])
    document = build(report, selection, view.patient, calendar, context)
    if document.errors:
        raise Refused(422, document.errors)
    return view.made + await _sent(report, selection, document, view, context, agent=agent)


async def _refuse_wrong_state(report: Report, calendar: Calendar, context: Context) -> None:
    window = next(
        (one for one in calendar.windows() if (one.report_type, one.number) == (report.report_type, report.number)),
        None,
    )
    if calendar.period.state not in ACTIVE or window is None:
        raise Refused(409, [error("business-rule", "Report", "The care period of this report is over.")])
    if not window.is_open(calendar.today):
        text = (
            f"CMS takes this report from {window.early_from or window.opens} to {window.closes}; today is not within."
        )
        raise Refused(409, [error("business-rule", "Report.window", text)])
    if report.state is ReportState.SUBMITTED and report.submission_id is not None:
        submission = await context.store.get(Submission, id=report.submission_id)
        if submission is not None and submission.state not in FINAL:
            text = f"The report is on its way to CMS: submission/{submission.id} has no answer yet."
            raise Refused(409, [error("duplicate", "Report.state", text)])
    elif report.state not in (ReportState.SCHEDULED, ReportState.OPEN, ReportState.READY):
        raise Refused(409, [error("business-rule", "Report.state", f"The report is {report.state}: nothing to send.")])


async def _view(calendar: Calendar, context: Context) -> View:
    found = await gather(calendar.period, calendar.zone, calendar.rules, context)
    gathered, made = await with_bmi(found, calendar, context)
    return View(calendar, gathered, await patient_of(calendar.period, context), made)


async def _ended_by_cms(calendar: Calendar, context: Context) -> Changeset | None:
    """A pending unalignment ends with CMS's e-mail. None pending: a mail alone ends nothing, a person decides."""
    notices = await context.store.find(
        CmsNotification,
        Where("participant_id", "==", calendar.period.participant_id),
        Where("care_period_id", "==", calendar.period.id),
        Where("event", "==", _UNALIGNED_EVENT),
        limit=1,
    )
    if not notices or calendar.period.state is not CarePeriodState.UNALIGNMENT_PENDING:
        return None
    over = await ended(calendar, AlignmentState.UNALIGNED, context)
    return over + await end_period(
        calendar, CarePeriodState.UNALIGNED, context, ended_on=day_of(notices[0].at, calendar.zone)
    )


async def _assessed(report: Report, view: View, context: Context) -> Changeset:
    """One open report."""
    selection = view.selection(report)
    if selection.missing:
        return await _incomplete(report, selection, view, context)
    automatic = context.settings.participant(report.participant_id).reporting == "automatic"
    if automatic and not await _may_go(report, selection, view, context):
        return _noted(report, selection)
    if not automatic and _is_ready(report, selection):
        return Changeset()
    document = build(report, selection, view.patient, view.calendar, context)
    if document.errors:
        return _noted(report, selection) + await _invalid(report, document, view.calendar, context)
    if automatic:
        return await _sent(report, selection, document, view, context)
    return await _ready(report, selection, view, context)


def _is_ready(report: Report, selection: Selection) -> bool:
    return report.state is ReportState.READY and report.evidence == dump_evidence(selection.evidence)


async def _may_go(report: Report, selection: Selection, view: View, context: Context) -> bool:
    """Whether a report may be sent without a person: enough readings or little time, and not refused as it is."""
    calendar = view.calendar
    if selection.thin and (report.closes - calendar.today).days > calendar.rules.patience_days.value:
        return False
    if report.submission_id is None:
        return True
    refused = await closed(
        context,
        participant_id=report.participant_id,
        kind="submission",
        subject=f"report/{report.id}",
        at=calendar.now,
    )
    return not refused and report.evidence != dump_evidence(selection.evidence)


def _noted(report: Report, selection: Selection) -> Changeset:
    """The report is open and this is missing: written if it differs from what is stored."""
    row = replace(report, state=ReportState.OPEN, missing=",".join(selection.missing))
    return Changeset() if row == report else Changeset(replace=(row,))


async def _incomplete(report: Report, selection: Selection, view: View, context: Context) -> Changeset:
    """Not all is there. A value that can not be reported is shown to a person: it may be the missing one."""
    changes = _noted(report, selection)
    if report.state is ReportState.READY:
        changes += await settled(report, view.calendar, context)
    wanted = view.calendar.rules.requirement(report.track, report.report_type).measures
    absent = [one for one in view.gathered.unusable if one.measure in wanted and one.measure not in selection.chosen]
    for measure in dict.fromkeys(one.measure for one in absent):
        newest = [one for one in absent if one.measure == measure][-1]
        changes += await told(
            view.calendar,
            context,
            kind="report",
            subject=f"report/{report.id}/{measure}",
            due_on=report.closes,
            text=f"A stored {measure} ({newest.reference}) can not be reported: {newest.issue.text}",
        )
    return changes


async def _invalid(report: Report, document: Document, calendar: Calendar, context: Context) -> Changeset:
    first = document.errors[0]
    return await told(
        calendar,
        context,
        kind="report",
        subject=f"report/{report.id}/check",
        due_on=report.closes,
        text=(
            f"The {report.report_type} report of {report.track} was built but is not valid, so it was not sent. "
            f"{len(document.errors)} errors; the first at {first.location}: {first.text}"
        ),
    )


async def _ready(report: Report, selection: Selection, view: View, context: Context) -> Changeset:
    """Checked: a person has to send it."""
    row = replace(report, state=ReportState.READY, missing="", evidence=dump_evidence(selection.evidence))
    thin = f" Fewer readings than wished: {', '.join(selection.thin)}." if selection.thin else ""
    item = await told(
        view.calendar,
        context,
        kind="report",
        subject=f"report/{report.id}",
        due_on=report.closes,
        text=(
            f"The {report.report_type} report of {report.track} is complete and valid.{thin} "
            f"Send it by {report.closes}: access-facade submit {report.id}"
        ),
    )
    return Changeset(replace=(row,)) + item + await _mended(report, view.calendar, context)


async def _sent(
    report: Report, selection: Selection, document: Document, view: View, context: Context, *, agent: str = "schedule"
) -> Changeset:
    row, changes = submitted(report, selection, document, view.calendar, agent=agent)
    return changes + Changeset(replace=(row,)) + await settled(report, view.calendar, context)


async def _mended(report: Report, calendar: Calendar, context: Context) -> Changeset:
    """It is valid now: what was said about that is closed."""
    subject = f"report/{report.id}/check"
    items = await closed(context, participant_id=report.participant_id, kind="report", subject=subject, at=calendar.now)
    return Changeset(replace=items)


async def _milestones(view: View, context: Context) -> Changeset:
    """Goals reached since the accepted baseline, each told once in a care period."""
    calendar = view.calendar
    baseline = _accepted_baseline(calendar.reports)
    if baseline is None:
        return Changeset()
    reached = milestones(
        view.gathered.readings,
        calendar.rules.targets_of(calendar.period.track),
        calendar.rules,
        baseline=view.evidence_of(baseline),
        at=calendar.now,
    )
    known = await context.store.find(MilestoneReached, Where("care_period_id", "==", calendar.period.id))
    told_already = {milestone.measure for milestone in known}
    new = {measure: one for measure, one in reached.items() if measure not in told_already}
    rows = tuple(_milestone(measure, one, calendar) for measure, one in new.items())
    jobs = tuple(care_update_job(calendar, Moment.MILESTONE, calendar.now, subject=measure) for measure in new)
    return Changeset(insert=rows, jobs=jobs)


def _accepted_baseline(reports: Iterable[Report]) -> Report | None:
    found = (one for one in reports if one.report_type == ReportType.BASELINE and one.state is ReportState.ACCEPTED)
    return next(found, None)


def _milestone(measure: str, found: Reading, calendar: Calendar) -> MilestoneReached:
    return MilestoneReached(
        participant_id=calendar.period.participant_id,
        care_period_id=calendar.period.id,
        patient_id=calendar.period.patient_id,
        measure=measure,
        at=calendar.now,
        observation=found.reference,
    )
