"""What is known of a patient at a moment of care: first and latest value of each measure, goals, medications."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from mappers.fhir.measures import measure_of, normalise
from mappers.instruments import cms_response
from mappers.report import sections
from profiles.canonical import PCO, unversioned
from profiles.fhir_json import parse
from server.context import Context
from server.coordination.readable import Progress, Value
from server.domain.care_period import CarePeriod, Report
from server.domain.measures import Reading, load_evidence, reading
from server.domain.resource import StoredResource
from server.domain.rules import Rules
from server.domain.window import ReportType
from server.store.base import Where

Resource = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """One reading and the resource it was made of."""

    reading: Reading
    stored: Resource

    @property
    def value(self) -> Value:
        """For the composer."""
        return Value(self.stored, self.reading.resource)


async def resources_of(context: Context, participant_id: str, patient_id: str, kind: str) -> list[StoredResource]:
    """The patient's current resources of one type."""
    rows = await context.store.find(
        StoredResource,
        Where("participant_id", "==", participant_id),
        Where("patient_id", "==", patient_id),
        Where("resource_type", "==", kind),
        order_by="id",
    )
    return [row for row in rows if not row.deleted]


async def progress_of(period: CarePeriod, rules: Rules, *, at: datetime, context: Context) -> tuple[Progress, ...]:
    """The measures of the track that the patient has values for, in the order of a report."""
    known = await _values(period, at, context)
    reported = await _baseline_names(period, context)
    targets = {target.measure: target for target in rules.targets_of(period.track)}
    made = []
    for section in sections(period.track):
        values, measure = known.get(section.measure, []), rules.measures.get(section.measure)
        if not values or measure is None:
            continue
        first = _first(values, reported.get(measure.name, ()), period.aligned_on, measure.valid)
        if first is not None:
            made.append(
                Progress(
                    measure=measure,
                    section=section,
                    baseline=first.value,
                    latest=values[-1].value,
                    target=targets.get(measure.name),
                )
            )
    return tuple(made)


async def _values(period: CarePeriod, at: datetime, context: Context) -> dict[str, list[Known]]:
    """By measure, every value that counts, oldest first."""
    zone = ZoneInfo(context.settings.participant(period.participant_id).time_zone)
    found: dict[str, list[Known]] = {}
    for kind in ("Observation", "QuestionnaireResponse"):
        for row in await resources_of(context, period.participant_id, period.patient_id, kind):
            one = _known(row, zone)
            if one is not None and one.reading.is_reportable and one.reading.effective <= at:
                found.setdefault(one.reading.measure, []).append(one)
    for values in found.values():
        values.sort(key=lambda one: (one.reading.effective, one.reading.reference))
    return found


async def own_goals(period: CarePeriod, *, plan_id: str, context: Context) -> tuple[Resource, ...]:
    """The patient's active PCO goals that came from elsewhere: those of our own plan begin with its id."""
    rows = await resources_of(context, period.participant_id, period.patient_id, "Goal")
    goals = [parse(row.body) for row in rows if not row.id.startswith(plan_id)]
    profile = PCO("pco-goal-profile")
    return tuple(
        goal
        for goal in goals
        if goal.get("lifecycleStatus") in ("accepted", "active") and profile in _claims(goal) and "startDate" in goal
    )


async def medications(period: CarePeriod, *, context: Context) -> tuple[Resource, ...]:
    """The patient's active MedicationRequests that name the medication in the resource itself."""
    rows = await resources_of(context, period.participant_id, period.patient_id, "MedicationRequest")
    found = [parse(row.body) for row in rows]
    return tuple(each for each in found if each.get("status") == "active" and "medicationCodeableConcept" in each)


def _claims(resource: Resource) -> Iterable[str]:
    return (unversioned(each) for each in resource.get("meta", {}).get("profile", ()))


def _known(row: StoredResource, zone: ZoneInfo) -> Known | None:
    stored = parse(row.body)
    if row.resource_type == "QuestionnaireResponse":
        form = cms_response(stored, base_url="urn:care-update")  # compared only: the form leaves in no document
        measure, comparable = (form.instrument.measure, form.response) if form else (None, None)
    else:
        measure, comparable = measure_of(stored), normalise(stored)[0]
    if measure is None or comparable is None:
        return None
    reference = f"{row.resource_type}/{row.id}/{row.revision}"
    found = reading(measure, comparable, reference=reference, zone=zone)
    return None if found is None else Known(found, stored)


async def _baseline_names(period: CarePeriod, context: Context) -> dict[str, tuple[str, ...]]:
    """By measure, `Type/id` of what the baseline report used; nothing before it is built."""
    reports = await context.store.find(Report, Where("care_period_id", "==", period.id))
    evidence = [report.evidence for report in reports if report.report_type == ReportType.BASELINE]
    used = load_evidence(evidence[0]) if evidence else {}
    return {measure: tuple(one.reference.rpartition("/")[0] for one in ones) for measure, ones in used.items()}


def _first(values: Sequence[Known], reported: Sequence[str], aligned_on: date, valid: int) -> Known | None:
    """The baseline: what was reported as such; else the first value of the period, or the last valid one before it."""
    for one in reversed(values):
        if one.reading.name in reported:
            return one
    within = [one for one in values if one.reading.day >= aligned_on]
    if within:
        return within[0]
    before = [one for one in values if one.reading.day >= aligned_on - timedelta(days=valid)]
    return before[-1] if before else None
