"""What follows from CMS's decision, by operation. Each is called with the submission and CMS's result code.

Source: ACCESS API IG 0.9.12, ACCESSAlignmentResultCS, ACCESSUnalignmentResultCS, ACCESSReportDataResultCS.
"""

from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from server.context import Context
from server.domain.care_period import CarePeriod, CarePeriodState, Report, ReportState
from server.domain.coordination import Moment
from server.domain.submission import Submission
from server.domain.window import ReportType, day_of
from server.schedule.alignments import noted
from server.schedule.lifecycle import (
    Calendar,
    assess_job,
    audited,
    calendar_of,
    care_update_job,
    end_period,
    new_reports,
    settled,
    start_period,
    told,
    zone_of,
)
from server.schedule.missed import missed
from server.store.base import Changeset, Where

ALIGNED = frozenset({"aligned", "aligned-switch-approved"})
TAKEN = frozenset({"success", "duplicate"})  # `duplicate`: CMS has a report for the period, so none is owed
INCOMPLETE = "incomplete-data"


async def alignment_result(submission: Submission, code: str, context: Context) -> Changeset:
    """Aligned: the care period begins on the day on which CMS took the request, in the participant's zone.

    CMS returns no date; where it tells the real one is not stated, so the row may have to be corrected by hand.
    """
    cms_submission_id = _cms_submission_id(submission)
    record = await noted(submission, code, context, cms_submission_id=cms_submission_id)
    if code not in ALIGNED:
        return record
    taken_at = submission.accepted_at or submission.finished_at or context.clock.now()
    return record + await start_period(
        submission,
        context,
        patient_id=submission.patient_id,
        track=submission.track,
        aligned_on=day_of(taken_at, zone_of(context, submission.participant_id)),
        cms_submission_id=cms_submission_id,
    )


def _cms_submission_id(submission: Submission) -> str | None:
    """The last part of CMS's status URL."""
    location = (submission.content_location or b"").decode("utf-8", "replace")
    return urlsplit(location).path.rstrip("/").rpartition("/")[2] or None


async def unalignment_result(submission: Submission, code: str, context: Context) -> Changeset:
    """Unaligned: the care period ends today. Pending: CMS decides later and reports stay due meanwhile."""
    record, calendar = await noted(submission, code, context), await _active(submission, context)
    if calendar is not None and code == "unaligned":
        return record + await end_period(calendar, CarePeriodState.UNALIGNED, context, ended_on=calendar.today)
    if calendar is not None and code == "unalignment-pending":
        return record + Changeset(replace=(replace(calendar.period, state=CarePeriodState.UNALIGNMENT_PENDING),))
    return record


async def report_result(submission: Submission, code: str, context: Context) -> Changeset:
    """Taken: what is due next. Refused: the report is open again, and a person is told.

    A report that an EHR sent by itself counts for the report that was due.
    """
    calendar = await _of_report(submission, context)
    report = _meant(submission, calendar.reports) if calendar else None
    if calendar is None or report is None or report.state is ReportState.ACCEPTED:
        return Changeset()
    if code in TAKEN:
        return await _taken(report, submission, code, calendar, context)
    return await _refused(report, submission, code, calendar, context)


async def _of_report(submission: Submission, context: Context) -> Calendar | None:
    if submission.report_id is None:
        return await _active(submission, context)
    report = await context.store.get(Report, id=submission.report_id)
    return await calendar_of(report.care_period_id, submission.participant_id, context) if report else None


async def _active(submission: Submission, context: Context) -> Calendar | None:
    conditions = (
        Where("participant_id", "==", submission.participant_id),
        Where("active_key", "==", f"{submission.patient_id}|{submission.track}"),
    )
    found = await context.store.find(CarePeriod, *conditions, limit=1)
    return await calendar_of(found[0].id, submission.participant_id, context) if found else None


def _meant(submission: Submission, reports: Sequence[Report]) -> Report | None:
    """The report that was sent: by id, else the first of its type that is not answered yet."""
    if submission.report_id is not None:
        return next((report for report in reports if report.id == submission.report_id), None)
    answered = (ReportState.ACCEPTED, ReportState.MISSED, ReportState.CANCELLED)
    of_type = (one for one in reports if one.report_type == submission.report_type and one.state not in answered)
    return next(iter(sorted(of_type, key=lambda report: report.number)), None)


async def _taken(report: Report, submission: Submission, code: str, calendar: Calendar, context: Context) -> Changeset:
    accepted = replace(
        report,
        state=ReportState.ACCEPTED,
        submission_id=submission.id,
        submitted_at=submission.accepted_at or submission.sent_at or calendar.now,
        missing="",
        evidence=report.evidence if submission.report_id else None,
    )
    after = calendar.with_report(accepted)
    changes = await settled(report, calendar, context)
    changes += Changeset(audit=(audited(calendar, f"report {code}", entity=f"report/{report.id}"),))
    if code == "duplicate" and submission.posts <= 1:
        changes += await told(
            calendar,
            context,
            kind="report",
            subject=f"report/{report.id}/duplicate",
            text=(
                f"CMS already had a {report.report_type} report for this period, though this one was sent once only. "
                "Find out who sent the other, and whether its values are right."
            ),
        )
    if accepted.report_type == ReportType.END_OF_PERIOD:
        ended = await end_period(after, CarePeriodState.COMPLETED, context, ended_on=calendar.today)
        return changes + ended + Changeset(replace=(accepted,))
    jobs = [assess_job(calendar)]
    if accepted.report_type == ReportType.BASELINE:
        jobs.append(care_update_job(calendar, Moment.INITIATION, calendar.now))
    return changes + Changeset(replace=(accepted,), jobs=tuple(jobs)) + new_reports(after)


async def _refused(
    report: Report, submission: Submission, code: str, calendar: Calendar, context: Context
) -> Changeset:
    """Open again, or missed if its window closed meanwhile."""
    if report.id != submission.report_id:
        return Changeset()
    reopened = replace(report, state=ReportState.OPEN, submission_id=submission.id)
    if calendar.today > report.closes:
        return await missed(reopened, calendar, context)
    audit = audited(calendar, f"report {code}", entity=f"report/{report.id}")
    item = await _refusal(report, submission, code, calendar, context)
    return Changeset(replace=(reopened,), audit=(audit,)) + item


async def _refusal(
    report: Report, submission: Submission, code: str, calendar: Calendar, context: Context
) -> Changeset:
    """What a person reads. An open item of kind `submission` keeps the report from going again by itself."""
    answered = f"CMS answered {code} to the {report.report_type} report of {report.track} (submission/{submission.id})."
    if code == INCOMPLETE:
        kind, subject = "report", f"report/{report.id}/incomplete"
        text = f"{answered} Get the values that CMS misses; with new values the report can go again by {report.closes}."
    else:
        kind, subject = "submission", f"report/{report.id}"
        text = f"{answered} Mend the cause, then send it by {report.closes}: access-facade submit {report.id}"
    return await told(calendar, context, kind=kind, subject=subject, text=text, due_on=report.closes)
