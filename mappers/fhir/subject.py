"""Whom posted resources are about: the Patient beside them, the identifier or the reference that they name.

Source: FHIR R4, References (literal, logical, contained, conditional in transactions).
"""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from mappers.fhir.references import literal, objects, patient_id, text
from profiles.issue import Issue, error

Resource = dict[str, Any]

# The element that names the patient, where it is not `subject`. Source: FHIR R4, CompartmentDefinition/patient.
_ELEMENT = {
    "AllergyIntolerance": "patient",
    "Claim": "patient",
    "Consent": "patient",
    "Coverage": "beneficiary",
    "Device": "patient",
    "ExplanationOfBenefit": "patient",
    "FamilyMemberHistory": "patient",
    "Immunization": "patient",
    "RelatedPerson": "patient",
    "Task": "for",
}
_NEEDED = frozenset(
    (
        "CarePlan",
        "CareTeam",
        "Condition",
        "DiagnosticReport",
        "DocumentReference",
        "Encounter",
        "Goal",
        "MedicationRequest",
        "Observation",
        "Procedure",
        "QuestionnaireResponse",
        "ServiceRequest",
    )
)
_ONE_PATIENT = (
    "The resources are about different patients. Bundles of several patients are not taken: send one each, or a batch."
)
_NOBODY = "The resource names no patient: send a subject (reference or identifier)."
_ELSEWHERE = "The subject is on another server: put the Patient into the Bundle, or name it by identifier."


@dataclass(slots=True)
class Subject:
    """What was found. `patient` is a Patient resource, `reference` a literal `Patient/x` that nobody sent along.

    `targets` are references to be replaced; `identifiers` are those that subjects name, and whom they mean.
    """

    patient: Resource | None = None
    reference: str | None = None
    targets: dict[str, str] = field(default_factory=dict)
    identifiers: dict[tuple[str, str], str] = field(default_factory=dict)  # (system, value) -> reference
    issues: list[Issue] = field(default_factory=list)


def _identifier(reference: dict[str, Any]) -> tuple[str, str] | None:
    """The identifier that a subject names: logically, or as a conditional reference of a transaction."""
    for one in objects(reference.get("identifier")):
        if text(one.get("system")) and text(one.get("value")):
            return one["system"], one["value"]
    kind, mark, query = text(reference.get("reference")).partition("?")
    if kind == "Patient" and mark:
        values = parse_qs(query).get("identifier", [""])
        system, bar, value = values[0].partition("|")
        if bar and system and value and len(values) == 1:
            return system, value
    return None


def reference_of(resource: Resource) -> dict[str, Any] | None:
    """The Reference to the patient in one resource; None when it has none or is about something else."""
    found = resource.get(_ELEMENT.get(resource["resourceType"], "subject"))
    if not isinstance(found, dict):
        return None
    kind = text(found.get("type")) or text(found.get("reference")).partition("/")[0].partition("?")[0]
    other = kind in ("Group", "Device", "Location", "Practitioner", "Organization", "Medication", "Substance")
    return None if other else found


def find(resources: list[tuple[str, Resource]]) -> Subject:
    """The one patient of all resources, given with their locations; more than one, or none, is an error.

    References are already literal where the Bundle holds the resource.
    """
    subject = Subject()
    patients = {literal(one): one for _, one in resources if one["resourceType"] == "Patient"}
    known = {
        (one["system"], one["value"]): name
        for name, patient in patients.items()
        for one in objects(patient.get("identifier"))
        if text(one.get("system")) and text(one.get("value"))
    }
    keys: dict[str, None] = dict.fromkeys(patients)
    for place, resource in resources:
        key = _key(place, resource, known=known, subject=subject)
        if key is not None:
            keys[key] = None
    if len(keys) > 1:
        subject.issues.append(error("multiple-matches", resources[0][0].partition(".")[0], _ONE_PATIENT))
    elif keys:
        _settle(next(iter(keys)), patients, subject=subject)
    return subject


def _key(place: str, resource: Resource, *, known: dict[tuple[str, str], str], subject: Subject) -> str | None:
    """What identifies the patient of one resource: `Patient/id`, or `system|value` of somebody not sent along."""
    kind = resource["resourceType"]
    reference = reference_of(resource)
    if reference is None:
        if kind in _NEEDED and _ELEMENT.get(kind, "subject") not in resource:
            subject.issues.append(error("required", f"{place}.{_ELEMENT.get(kind, 'subject')}", _NOBODY))
        return None
    written = text(reference.get("reference"))
    if written in known.values() or (written.startswith("Patient/") and not _identifier(reference)):
        return written
    named = _identifier(reference)
    if named is None:
        why = _ELSEWHERE if written else _NOBODY
        subject.issues.append(error("not-found", f"{place}.{_ELEMENT.get(kind, 'subject')}", why))
        return None
    key = known.get(named) or f"Patient/{patient_id(*named)}"
    subject.identifiers[named] = key
    if written:
        subject.targets[written] = key
    return key


def _settle(key: str, patients: dict[str, Resource], *, subject: Subject) -> None:
    """The Patient itself, a skeleton with the identifier that was named, or the bare reference."""
    subject.patient = patients.get(key)
    if subject.patient is not None:
        return
    for (system, value), reference in subject.identifiers.items():
        if reference == key:
            identifier = {"system": system, "value": value}
            subject.patient = {"resourceType": "Patient", "id": key.partition("/")[2], "identifier": [identifier]}
            return
    subject.reference = key.partition("/_history/")[0]


def with_literal_subject(resource: Resource, subject: Subject) -> Resource:
    """The resource, its subject literal where only an identifier named it; the identifier stays."""
    reference = reference_of(resource)
    named = _identifier(reference) if reference is not None else None
    key = subject.identifiers.get(named) if named else None
    if reference is None or key is None or reference.get("reference") == key:
        return resource
    element = _ELEMENT.get(resource["resourceType"], "subject")
    return resource | {element: {"reference": key} | {k: v for k, v in reference.items() if k != "reference"}}
