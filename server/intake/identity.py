"""Whose data are these? Finds the one patient that the identifiers of a message or request name.

A patient becomes known by an EHR (front door, Patient, ADT) or by a Medicare number (MBI): results often come before
the first eligibility check. A message that names a person by a local number nobody told us of is not guessed at.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mappers.conversion import Resource
from profiles import fhir_json
from profiles.canonical import MBI
from profiles.issue import Issue, error, warning
from server.context import Context
from server.domain.resource import PatientIdentity, StoredResource

# The systems under which US senders name a Medicare Beneficiary Identifier; they all mean the same number.
MBI_SYSTEMS = frozenset({MBI, "http://hl7.org/fhir/sid/us-mbi", "urn:oid:2.16.840.1.113883.4.927"})


@dataclass(frozen=True, slots=True)
class Match:
    """The patient. `stored` None: not known yet. `unknown` are the identifiers to be learnt."""

    patient_id: str
    stored: StoredResource | None
    unknown: tuple[str, ...]
    issues: tuple[Issue, ...] = ()


def identity_keys(patient: Resource) -> list[str]:
    """`system|value` of each usable identifier, the MBI first and in one form for all of its systems."""
    return sorted(set(_keys(patient)), key=lambda key: (not key.startswith(MBI), key))


def _keys(patient: Resource) -> Iterator[str]:
    for identifier in patient.get("identifier", []):
        system, value = identifier.get("system"), identifier.get("value")
        if system and value:
            yield f"{MBI}|{mbi(value)}" if system in MBI_SYSTEMS else f"{system}|{value.strip()}"


def mbi(value: str) -> str:
    """An MBI in its one form: upper case, without dashes and blanks."""
    return value.upper().replace("-", "").replace(" ", "")


def patient_id_for(key: str) -> str:
    """The logical id of a new patient: the same for two doors that learn of the person at the same time."""
    return hashlib.sha256(f"Patient {key}".encode()).hexdigest()[:32]


async def find(keys: list[str], participant_id: str, context: Context) -> dict[str, str]:
    """Which of the identifiers are known, and whose they are."""
    known = {}
    for key in keys:
        row = await context.store.get(PatientIdentity, participant_id=participant_id, identifier=key)
        if row is not None:
            known[key] = row.patient_id
    return known


async def match(
    patient: Resource, participant_id: str, context: Context, *, registers: bool, location: str
) -> Match | Issue:
    """The one patient that these identifiers name, or the Issue why there is none.

    `registers`: the sender may make a patient known by whatever identifier it uses. `location` is where the source
    names the patient (`PID-3`, `Patient.identifier`, ...).
    """
    keys = identity_keys(patient)
    if not keys:
        return error("required", location, "The patient has no identifier with a system and a value: send the MBI.")
    known = await find(keys, participant_id, context)
    owners = set(known.values())
    if len(owners) > 1:
        text = "The identifiers belong to different patients here: correct the wrong one, or have the records merged."
        return error("multiple-matches", location, text)
    if not owners:
        return _newcomer(keys, registers=registers, location=location)
    (patient_id,) = owners
    stored = await context.store.get(
        StoredResource, participant_id=participant_id, resource_type="Patient", id=patient_id
    )
    found = Match(patient_id, stored, tuple(key for key in keys if key not in known))
    return found if stored is None else same_person(found, fhir_json.parse(stored.body), patient, location)


def _newcomer(keys: list[str], *, registers: bool, location: str) -> Match | Issue:
    if not registers and not keys[0].startswith(MBI):
        text = "No patient with this identifier is known here: register the patient first, or send the MBI as well."
        return error("not-found", location, text)
    return Match(patient_id_for(keys[0]), None, tuple(keys))


def same_person(found: Match, ours: Resource, theirs: Resource, location: str) -> Match | Issue:
    """One difference is an error of typing; another name and another birth date are another person."""
    births = {str(p["birthDate"])[:10] for p in (ours, theirs) if p.get("birthDate")}
    families = {family for p in (ours, theirs) if (family := _family(p))}
    if len(births) > 1 and len(families) > 1:
        text = (
            "The identifier is known, but with another family name and another birth date: it may be another person. "
            "Check the identifier at its source."
        )
        return error("conflict", location, text)
    if len(births) > 1 or len(families) > 1:
        text = "The identifier is known, but family name or birth date differ: compare them with the Medicare card."
        return Match(found.patient_id, found.stored, found.unknown, (warning("business-rule", location, text),))
    return found


def _family(patient: dict[str, Any]) -> str:
    names = patient.get("name") or [{}]
    return str(names[0].get("family", "")).casefold().strip()
