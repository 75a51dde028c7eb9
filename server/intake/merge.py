"""Two records of one person: a source says that one of its patient records replaced another (HL7 v2 A34 and A40).

What is known here decides. Only one of the two is known: it learns the other's numbers. Both are, as two patients: the
survivor takes over the other's numbers and data, and the other stays, not active, with a link. Each resource that moves
is a new version. What CMS has been asked or told under the replaced record is never moved: a person decides then.
Source: HL7 v2.9 chapter 3, A40; FHIR R4, Patient.link.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from mappers.conversion import Conversion, Resource
from profiles import fhir_json
from profiles.canonical import MBI
from profiles.issue import Issue, error
from server.context import Context
from server.domain.alignment import Alignment
from server.domain.care_period import CarePeriod
from server.domain.resource import PatientIdentity, StoredResource
from server.domain.submission import Submission
from server.intake.identity import Match, find, identity_keys, same_person
from server.intake.resources import new_version, retargeted
from server.store.base import Changeset, Where

_ENROLLED = (CarePeriod, Alignment, Submission)


@dataclass(frozen=True, slots=True)
class Merge:
    """The message as it will be taken in, whose it is, and what moves from the replaced record."""

    conversion: Conversion
    found: Match
    changes: Changeset = Changeset()


async def merged_records(
    conversion: Conversion, found: Match, participant_id: str, *, location: str, context: Context
) -> Merge | Issue:
    """The message unchanged if it replaces no record; an Issue if the merge is not for a program to decide."""
    replaced = replaced_record(conversion)
    if replaced is None or conversion.patient is None:
        return Merge(conversion, found)
    keys = identity_keys(replaced)
    if not keys:
        return error("required", "MRG-1", "The replaced record has no identifier with a system and a value: send one.")
    known = await find(keys, participant_id, context)
    others = set(known.values()) - {found.patient_id}
    learnt = tuple(key for key in keys if key not in known and key not in found.unknown)
    if len(others) > 1:
        return error("multiple-matches", "MRG-1", "The replaced identifiers belong to different patients here.")
    if not others:
        return _learnt(conversion, replaced, replace(found, unknown=found.unknown + learnt))
    (other_id,) = others
    other = await context.store.get(StoredResource, participant_id=participant_id, resource_type="Patient", id=other_id)
    if other is None or found.stored is None:
        adopted = Match(other_id, other, found.unknown + learnt)
        if other is None:
            return _learnt(conversion, replaced, adopted)
        same = same_person(adopted, fhir_json.parse(other.body), conversion.patient, location)
        return same if isinstance(same, Issue) else _learnt(conversion, replaced, same)
    return await _both_known(conversion, replaced, replace(found, unknown=found.unknown + learnt), other, context)


def replaced_record(conversion: Conversion) -> Resource | None:
    """The Patient that the message's own patient replaces, if it says so."""
    if conversion.patient is None:
        return None
    survivor = {"other": {"reference": f"Patient/{conversion.patient['id']}"}, "type": "replaced-by"}
    patients = (each for each in conversion.resources if each["resourceType"] == "Patient")
    return next((each for each in patients if survivor in each.get("link", ())), None)


def _learnt(conversion: Conversion, replaced: Resource, found: Match) -> Merge:
    """One record here: the other's identifiers are old ones of this patient, and there is nothing to link."""
    assert conversion.patient is not None, "a replaced record has a survivor"
    old = [{"use": "old"} | each for each in replaced["identifier"]]
    patient = {name: value for name, value in conversion.patient.items() if name != "link"}
    patient["identifier"] = [*patient.get("identifier", []), *old]
    rest = _without(conversion, replaced, keeps=f"Patient/{patient['id']}")
    return Merge(replace(conversion, patient=patient, resources=rest), found)


def _without(conversion: Conversion, replaced: Resource, *, keeps: str) -> tuple[Resource, ...]:
    """The other resources; where they name the replaced record they name `keeps`, once."""
    gone = f"Patient/{replaced['id']}"
    rest = [retargeted(each, gone, keeps) for each in conversion.resources if each is not replaced]
    return tuple(each | _once(each["target"]) if "target" in each else each for each in rest)


def _once(targets: list[Resource]) -> Resource:
    return {"target": [each for at, each in enumerate(targets) if each not in targets[:at]]}


async def _both_known(
    conversion: Conversion, replaced: Resource, found: Match, other: StoredResource, context: Context
) -> Merge | Issue:
    assert conversion.patient is not None, "a replaced record has a survivor"
    assert found.stored is not None, "both records are known"
    ours, theirs = fhir_json.parse(found.stored.body), fhir_json.parse(other.body)
    refused = await _not_ours_to_decide(ours, theirs, other, context)
    if refused is not None:
        return refused
    patient = retargeted(conversion.patient, f"Patient/{replaced['id']}", f"Patient/{other.id}")
    rest = _without(conversion, replaced, keeps=f"Patient/{other.id}")
    changes = await _moved(theirs, other, found.patient_id, context)
    return Merge(replace(conversion, patient=patient, resources=rest), found, changes)


async def _not_ours_to_decide(
    ours: Resource, theirs: Resource, other: StoredResource, context: Context
) -> Issue | None:
    """Two Medicare numbers are two beneficiaries to CMS, and what CMS was asked of the replaced one stays with it."""
    numbers = {key for each in (ours, theirs) for key in identity_keys(each) if key.startswith(f"{MBI}|")}
    if len(numbers) > 1:
        text = "The two records have different Medicare numbers: correct the wrong one first, then merge them again."
        return error("conflict", "MRG-1", text)
    where = (Where("participant_id", "==", other.participant_id), Where("patient_id", "==", other.id))
    for kind in _ENROLLED:
        if await context.store.count(kind, *where):
            text = (
                "CMS has been asked about the replaced record under ACCESS: a person has to end its care period first, "
                "or have the merge sent the other way round."
            )
            return error("conflict", "MRG-1", text)
    return None


async def _moved(theirs: Resource, other: StoredResource, survivor_id: str, context: Context) -> Changeset:
    """The other record's identifiers and resources, now the survivor's; the record itself with its link."""
    at = context.clock.now()
    where = (Where("participant_id", "==", other.participant_id), Where("patient_id", "==", other.id))
    identities = await context.store.find(PatientIdentity, *where)
    changes = Changeset(replace=tuple(replace(row, patient_id=survivor_id) for row in identities))
    link = {"other": {"reference": f"Patient/{survivor_id}"}, "type": "replaced-by"}
    links = [*theirs.get("link", []), link]
    changes += new_version(other, theirs | {"active": False, "link": links}, at=at, patient_id=other.id)
    for row in await context.store.find(StoredResource, *where):
        if row.resource_type != "Patient":
            changes += _carried_over(row, survivor_id, at)
    return changes


def _carried_over(row: StoredResource, survivor_id: str, at: datetime) -> Changeset:
    body = fhir_json.parse(row.body)
    if row.resource_type != "Provenance":  # which says what a message made, when it came
        body = retargeted(body, f"Patient/{row.patient_id}", f"Patient/{survivor_id}")
    return new_version(row, body, at=at, patient_id=survivor_id)
