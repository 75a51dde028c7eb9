"""A window that closed without its report, and what follows from it: the rules say what."""

from dataclasses import replace

from server.context import Context
from server.domain.alignment import AlignmentState
from server.domain.care_period import CarePeriodState, Report, ReportState
from server.domain.window import ReportType
from server.schedule.alignments import ended
from server.schedule.lifecycle import Calendar, audited, end_period, new_reports, told
from server.store.base import Changeset

_MEANING = {
    ReportType.BASELINE: "CMS unaligns a patient without a baseline, and services may not go on under the model.",
    ReportType.QUARTERLY: "Claims attest reporting on time: have the claims of these months looked at.",
    ReportType.END_OF_PERIOD: "CMS counts each measure of this patient as not attained.",
}


async def missed(report: Report, calendar: Calendar, context: Context) -> Changeset:
    """The report is MISSED, a person is told; a baseline ends the period, a quarterly one lets the next begin."""
    gone = replace(report, state=ReportState.MISSED)
    after = calendar.with_report(gone)
    item = await told(
        calendar,
        context,
        kind="late",
        subject=f"report/{report.id}",
        text=(
            f"The window of the {report.report_type} report of {report.track} closed on {report.closes} "
            f"without an accepted report. {_MEANING[ReportType(report.report_type)]} "
            "Write to the ACCESS mailbox if CMS should take it late."
        ),
    )
    audit = audited(calendar, "report missed", entity=f"report/{report.id}")
    return Changeset(replace=(gone,), audit=(audit,)) + item + await _next(gone, after, context)


async def _next(report: Report, after: Calendar, context: Context) -> Changeset:
    if report.report_type == ReportType.END_OF_PERIOD:
        return await end_period(after, CarePeriodState.COMPLETED, context, ended_on=report.closes)
    if report.report_type == ReportType.BASELINE and after.rules.baseline_missed.value == "unalign":
        over = await ended(after, AlignmentState.UNALIGNED, context)
        return over + await end_period(after, CarePeriodState.UNALIGNED, context, ended_on=report.closes)
    return new_reports(after)
