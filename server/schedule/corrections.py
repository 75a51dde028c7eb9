"""A value that CMS has in a report was corrected or withdrawn since: a person is told, once for each new version.

CMS's guide gives no way to correct an accepted report (a second one is a `duplicate`), so nothing is sent by itself.
"""

from typing import Any

from profiles import fhir_json
from server.context import Context
from server.domain.care_period import Report, ReportState
from server.domain.coordination import WorkItem
from server.domain.measures import REPORTABLE, Used, load_evidence
from server.domain.resource import ResourceVersion, StoredResource
from server.schedule.gather import Gathered
from server.schedule.lifecycle import Calendar, told
from server.store.base import Changeset, Where

_SENT = frozenset({ReportState.ACCEPTED, ReportState.SUBMITTED})
# What CMS was told of a value: another code, number, unit, answer or time is another value.
_TOLD = (
    "code", "valueQuantity", "component", "effectiveDateTime", "effectiveInstant", "effectivePeriod",
    "item", "authored",
)  # fmt: skip


async def corrections(calendar: Calendar, *, gathered: Gathered, context: Context) -> Changeset:
    """A work item for each reported value whose present version says something else."""
    changes = Changeset()
    for report in calendar.reports:
        if report.state in _SENT:
            for measure, values in load_evidence(report.evidence).items():
                for used in values:
                    changes += await _looked_at(
                        report, measure, used, gathered=gathered, calendar=calendar, context=context
                    )
    return changes


async def _looked_at(
    report: Report, measure: str, used: Used, *, gathered: Gathered, calendar: Calendar, context: Context
) -> Changeset:
    name, _, version = used.reference.rpartition("/")
    row = gathered.rows.get(name)
    if row is None or str(row.revision) == version:
        return Changeset()
    what = await _changed(row, int(version), context)
    subject = f"report/{report.id}/{name}/{row.revision}"
    if what is None or await _was_told(report.participant_id, subject, context):
        return Changeset()
    text = (
        f"The {report.report_type} report of {report.track} (submission/{report.submission_id}) holds a {measure} that "
        f"was {what} afterwards ({name}). CMS has no way to correct a report that it took: write to the ACCESS mailbox "
        "and say which report; the next report uses the values as they are now."
    )
    return await told(calendar, context, kind="report", subject=subject, text=text)


async def _changed(row: StoredResource, version: int, context: Context) -> str | None:
    """What happened to a value since that version, in a word; None if it says the same."""
    now = {} if row.deleted else fhir_json.parse(row.body)
    if row.deleted or now.get("status") not in REPORTABLE.get(row.resource_type, ()):
        return "withdrawn"
    earlier = await context.store.get(
        ResourceVersion,
        participant_id=row.participant_id,
        resource_type=row.resource_type,
        id=row.id,
        version_id=version,
    )
    if earlier is None:
        return "changed"
    return None if _told(now) == _told(fhir_json.parse(earlier.body)) else "corrected"


def _told(resource: dict[str, Any]) -> dict[str, Any]:
    return {name: resource[name] for name in _TOLD if name in resource}


async def _was_told(participant_id: str, subject: str, context: Context) -> bool:
    """Whether there is an item about that very version, open or closed."""
    conditions = (Where("participant_id", "==", participant_id), Where("subject", "==", subject))
    return await context.store.count(WorkItem, *conditions) > 0
