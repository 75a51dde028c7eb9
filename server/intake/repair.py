"""What may be put right in a request to CMS without changing its clinical meaning. Each repair is written down.

Nothing to repair: the request goes to CMS byte for byte as it came. The request is not checked yet when it comes here:
what does not have the shape that a repair needs is left as it is, and refused by the checks that follow.
Source: ACCESS API IG 0.9.12; what CMS's test environment was seen to refuse.
"""

from collections.abc import Callable, Iterator
from typing import Any

from mappers.conversion import Resource
from profiles.canonical import (
    ACCESS,
    ACCESS_CODES,
    CLINICAL_EXCLUSION_CONDITION,
    CONDITION_CATEGORY,
    MBI,
    PROBLEM_LIST_ITEM,
    TRACK_CONDITION,
    US_CORE_PINNED,
    unversioned,
)
from profiles.issue import Issue
from server.domain.submission import Operation
from server.intake.identity import mbi
from server.intake.repair_report import repaired_report
from server.intake.repair_steps import claiming, mapped, note, rows

# The coded parameters, and the code system of which CMS takes exactly one coding.
CODED = {"track": "ACCESSTrackCS", "reportType": "ACCESSReportTypeCS", "reason": "ACCESSUnalignmentReasonCS"}
_CONDITIONS = frozenset({*TRACK_CONDITION.values(), CLINICAL_EXCLUSION_CONDITION})


def repaired(parameters: Resource, operation: Operation, *, base_url: str) -> tuple[Resource, list[Issue]]:
    """The request as CMS takes it, and what was put right. The input is not changed.

    `base_url` is our FHIR base: under it stand the fullUrls of report entries that came without one.
    """
    notes: list[Issue] = []
    why = "The operation's profile was added, which CMS demands since 0.9.11."
    parameters = claiming(parameters, ACCESS(f"access-{operation}-in"), "Parameters", notes, why=why)
    condition = _condition_profile(parameters, operation)

    def parameter(one: Resource, number: int) -> Resource:
        place = f"Parameters.parameter[{number}]"
        one = _one_coding(one, place, notes)
        return _resource(one, f"{place}.resource", notes, condition=condition, base_url=base_url)

    return mapped(parameters, "parameter", parameter), notes


def track_of(parameters: Resource) -> str:
    """The code of the track; empty if the request does not say one."""
    system = ACCESS_CODES("ACCESSTrackCS")
    for parameter in rows(parameters.get("parameter")):
        concept = parameter.get("valueCodeableConcept")
        if parameter.get("name") == "track" and isinstance(concept, dict):
            codings = [coding for coding in rows(concept.get("coding")) if coding.get("system") == system]
            return str(codings[0].get("code", "")) if codings else ""
    return ""


def _condition_profile(parameters: Resource, operation: Operation) -> str | None:
    """The profile that a condition of this request claims: its track's; the exclusion's in an unalignment."""
    if operation is Operation.UNALIGN:
        return CLINICAL_EXCLUSION_CONDITION
    return TRACK_CONDITION.get(track_of(parameters))


def _one_coding(parameter: Resource, place: str, notes: list[Issue]) -> Resource:
    """CMS compares lists of codings: of several only the one of its own code system is sent."""
    system = ACCESS_CODES(CODED.get(str(parameter.get("name")), ""))
    concept = parameter.get("valueCodeableConcept")
    if not isinstance(concept, dict):
        return parameter
    own = [coding for coding in rows(concept.get("coding")) if coding.get("system") == system]
    if len(own) != 1 or len(rows(concept.get("coding"))) == 1:
        return parameter
    notes.append(note(f"{place}.valueCodeableConcept.coding", "Only the coding of CMS's code system was kept."))
    return {**parameter, "valueCodeableConcept": {**concept, "coding": own}}


def _resource(parameter: Resource, place: str, notes: list[Issue], *, condition: str | None, base_url: str) -> Resource:
    resource = parameter.get("resource")
    if not isinstance(resource, dict):
        return parameter
    kind = resource.get("resourceType")
    if kind == "Patient":
        return {**parameter, "resource": _patient(resource, place, notes)}
    if kind == "Condition" and parameter.get("name") == "condition" and condition:
        return {**parameter, "resource": _condition(resource, condition, place, notes)}
    if kind == "Bundle":
        patients = _entries(_patient, "Patient", place, notes)
        bundle = mapped(resource, "entry", patients)
        return {**parameter, "resource": repaired_report(bundle, place, notes, base_url=base_url)}
    return parameter


def _entries(
    repair: Callable[[Resource, str, list[Issue]], Resource], kind: str, place: str, notes: list[Issue]
) -> Callable[[Resource, int], Resource]:
    """The same repair for the entries of one type."""

    def entry(one: Resource, number: int) -> Resource:
        resource = one.get("resource")
        if not isinstance(resource, dict) or resource.get("resourceType") != kind:
            return one
        return {**one, "resource": repair(resource, f"{place}.entry[{number}].resource", notes)}

    return entry


def _condition(condition: Resource, profile: str, place: str, notes: list[Issue]) -> Resource:
    """Its profile, unless it claims another of ACCESS (which is a contradiction, and refused); its category, if none.

    A category that says something else is a clinical statement and stays.
    """
    meta = condition.get("meta")
    claimed = meta.get("profile", []) if isinstance(meta, dict) else []
    if not any(isinstance(url, str) and unversioned(url) in _CONDITIONS for url in claimed):
        condition = claiming(condition, profile, place, notes, why="The condition profile of the track was added.")
    if "category" not in condition and profile != CLINICAL_EXCLUSION_CONDITION:
        notes.append(note(f"{place}.category", "The category problem-list-item was added, which CMS demands."))
        coding = {"system": CONDITION_CATEGORY, "code": PROBLEM_LIST_ITEM}
        condition = {**condition, "category": [{"coding": [coding]}]}
    return condition


def _patient(patient: Resource, place: str, notes: list[Issue]) -> Resource:
    why = "The profile us-core-patient was added, which CMS demands."
    patient = claiming(patient, US_CORE_PINNED("us-core-patient"), place, notes, why=why)
    if not isinstance(patient.get("identifier"), list):
        return patient
    return {**patient, "identifier": list(_identifiers(patient["identifier"], place, notes))}


def _identifiers(identifiers: list[Any], place: str, notes: list[Issue]) -> Iterator[Any]:
    for number, identifier in enumerate(identifiers):
        value = identifier.get("value") if isinstance(identifier, dict) else None
        if isinstance(value, str) and identifier.get("system") == MBI and mbi(value) != value:
            text = "The MBI was written in CMS's form: upper case, without dashes and blanks."
            notes.append(note(f"{place}.identifier[{number}].value", text))
            yield {**identifier, "value": mbi(value)}
        else:
            yield identifier
