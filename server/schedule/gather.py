"""A patient's stored resources as readings: in the form that a report takes, with what can not be reported and why."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from mappers.fhir import measures as observations
from mappers.fhir.derived import is_height
from mappers.instruments import cms_response
from profiles import fhir_json
from profiles.issue import Issue, error
from server.context import Context
from server.domain.care_period import CarePeriod
from server.domain.measures import Reading, Resource, reading
from server.domain.resource import StoredResource
from server.domain.rules import Rules
from server.store.base import Where

KINDS = ("Observation", "QuestionnaireResponse")
# A preliminary or cancelled value is no defect: a final one may follow.
_EXPECTED = frozenset({"business-rule"})
PRESSURE = "blood-pressure"
# Whose own word a reading is, when no device is named beside it.
_SELF = ("Patient", "RelatedPerson")
_TYPED_IN = error(
    "value",
    "Observation.device",
    "It was typed in by hand, and CMS takes blood pressures of a device: have the device send it, or name the device.",
)


@dataclass(frozen=True, slots=True)
class Unusable:
    """A stored value of a measure that can not be reported."""

    measure: str
    reference: str
    issue: Issue


@dataclass(frozen=True, slots=True)
class Gathered:
    """All readings of one patient, what could not become one, and the stored rows by `Type/id`.

    `heights` are the stored body heights: no measure of ACCESS, but a BMI can be made of one.
    """

    readings: tuple[Reading, ...]
    unusable: tuple[Unusable, ...]
    rows: Mapping[str, StoredResource]
    heights: tuple[Resource, ...] = ()


async def gather(period: CarePeriod, zone: ZoneInfo, rules: Rules, context: Context) -> Gathered:
    """Reads the patient's Observations and QuestionnaireResponses."""
    rows = await context.store.find(
        StoredResource,
        Where("participant_id", "==", period.participant_id),
        Where("patient_id", "==", period.patient_id),
        Where("resource_type", "in", KINDS),
    )
    readings: list[Reading] = []
    unusable: list[Unusable] = []
    heights: list[Resource] = []
    base_url, manual = f"{context.settings.base_url}/fhir", rules.bp_manual_allowed.value
    for row in (row for row in rows if not row.deleted):
        resource = fhir_json.parse(row.body)
        found = _read(resource, row, zone=zone, base_url=base_url, manual=manual)
        if isinstance(found, Reading):
            readings.append(found)
        elif found is not None:
            unusable.append(found)
        elif is_height(resource):
            heights.append(resource)
    known = {f"{row.resource_type}/{row.id}": row for row in rows}
    return Gathered(tuple(readings), tuple(unusable), known, tuple(heights))


async def patient_of(period: CarePeriod, context: Context) -> Resource | None:
    """The stored Patient."""
    row = await context.store.get(
        StoredResource, participant_id=period.participant_id, resource_type="Patient", id=period.patient_id
    )
    return None if row is None or row.deleted else fhir_json.parse(row.body)


def _read(
    resource: Resource, row: StoredResource, *, zone: ZoneInfo, base_url: str, manual: bool
) -> Reading | Unusable | None:
    """One row; None: it is no measure of ACCESS, or its time is not known to the day."""
    reference = f"{row.resource_type}/{row.id}/{row.revision}"
    if row.resource_type == "QuestionnaireResponse":
        return _answers(resource, reference=reference, zone=zone, base_url=base_url)
    measure = observations.measure_of(resource)
    if measure is None:
        return None
    if measure == PRESSURE and not manual and is_typed_in(resource):
        return Unusable(measure, reference, _TYPED_IN)
    normalised, issues = observations.normalise(resource)
    if normalised is not None:
        return reading(measure, normalised, reference=reference, zone=zone)
    return _unusable(measure, reference, issues)


def _answers(resource: Resource, *, reference: str, zone: ZoneInfo, base_url: str) -> Reading | Unusable | None:
    """A response of any form that is known, under CMS's linkIds: its score has the linkId that the rules name."""
    form = cms_response(resource, base_url=base_url)
    if form is None:
        return None
    if form.response is None:
        return _unusable(form.instrument.measure, reference, form.issues)
    return reading(form.instrument.measure, form.response, reference=reference, zone=zone)


def _unusable(measure: str, reference: str, issues: Iterable[Issue]) -> Unusable | None:
    defects = [issue for issue in issues if issue.is_error]
    if any(issue.code in _EXPECTED for issue in defects) or not defects:
        return None
    return Unusable(measure, reference, defects[0])


def is_typed_in(observation: Resource) -> bool:
    """Whether a reading is surely a person's own word: told by the patient or a relative, and no device is named.

    Anything less clear counts as measured by a device: what is left out here is missing in a report.
    """
    if "device" in observation:
        return False
    return any(
        each.get("type") in _SELF or str(each.get("reference", "")).rpartition("/")[0].rpartition("/")[2] in _SELF
        for each in observation.get("performer", ())
    )
