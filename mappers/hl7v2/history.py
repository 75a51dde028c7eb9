"""What is known of a patient beside results and diagnoses: allergies, procedures, who the primary care provider is, and
which record this one replaces.

Source: HL7 v2-to-FHIR 1.0.0, AL1, PR1, ROL and PRT maps; US Core 6.1.0 for claims. MRG has no map: ours.
"""

from typing import Any

from mappers.conversion import Resource
from mappers.converters import concept
from mappers.hl7v2.compiled import TABLES
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.identity import identify
from mappers.hl7v2.parse import Segment
from profiles import canonical

_ALLERGY = canonical.US_CORE_PINNED("us-core-allergyintolerance")
_PROCEDURE = canonical.US_CORE_PINNED("us-core-procedure")
_ROLE = canonical.US_CORE_PINNED("us-core-practitionerrole")
_ALLERGY_CLINICAL = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
_PRIMARY_CARE = "PP"  # tables 0443 and 0912
_ENDED = frozenset({"D", "DE", "DP", "DELETE"})  # tables 0287 and, in older versions, 0206


def allergy(fields: Segment, context: MessageContext) -> Resource | None:
    """AL1 as AllergyIntolerance; None without saying to what."""
    made = _opened("AllergyIntolerance", "AL1", fields, context)
    if "code" not in made:
        text = "AL1-3 is empty, so the allergy does not say to what. Send a code or a name."
        context.error("required", text, path="AL1-3")
        return None
    made["clinicalStatus"] = concept(_ALLERGY_CLINICAL, "active")
    made["patient"] = context.subject
    made["id"] = identify("AllergyIntolerance", {"AL1-3": _first(fields[3]) or fields[3]}, context)
    made["meta"]["profile"] = [_ALLERGY]
    return made


def procedure(fields: Segment, context: MessageContext) -> Resource | None:
    """PR1 as Procedure; None without saying what was done. One without a time may still lie ahead: status unknown."""
    made = _opened("Procedure", "PR1", fields, context)
    if "code" not in made:
        context.error("required", "PR1-3 and PR1-4 are empty, so no procedure is named. Send a code.", path="PR1-3")
        return None
    if fields[20].strip() == "D":
        made["status"] = "entered-in-error"
    else:
        made["status"] = "completed" if "performedDateTime" in made else "unknown"
    made["subject"] = context.subject
    made["id"] = identify("Procedure", {"PR1-3": _first(fields[3]) or fields[4], "PR1-5": fields[5]}, context)
    made["meta"]["profile"] = [_PROCEDURE]
    return made


def primary_care(name: str, fields: Segment, context: MessageContext) -> dict[str, str] | None:
    """ROL or PRT as the reference for Patient.generalPractitioner: the person alone, or the person in a role.

    None for another role, for one that has ended, and where nobody is named.
    """
    role, action = (fields[3], fields[2]) if name == "ROL" else (fields[4], fields[2])
    if _first(role) != _PRIMARY_CARE or _first(action).upper() in _ENDED:
        return None
    made = _opened("PractitionerRole", name, fields, context)
    named: dict[str, str] = {key: made[key]["reference"] for key in ("practitioner", "organization") if key in made}
    if not named:
        return None
    if "practitioner" in made and made.keys().isdisjoint({"organization", "telecom", "period"}):
        person: dict[str, str] = made["practitioner"]
        return person
    parts = {"practitioner": "", "organization": "", **named}
    made["id"] = identify("PractitionerRole", parts, context)
    if "telecom" in made:
        made["meta"]["profile"] = [_ROLE]
    return context.add(made)


def replaced(fields: Segment, survivor: Resource, context: MessageContext) -> Resource | None:
    """MRG as the Patient record that `survivor` replaces: not active any more, and linked both ways."""
    made = _opened("Patient", "MRG", fields, context)
    identifiers = [each for each in made.get("identifier", []) if "value" in each]
    if not identifiers:
        text = "MRG-1 holds no identifier, so it is not known which record is replaced. Send the prior one."
        context.error("required", text, path="MRG-1")
        return None
    first = identifiers[0]
    parts = {"system": first.get("system", ""), "value": first["value"], "PID-5": "", "PID-7": "", "PID-8": ""}
    made["id"] = identify("Patient", parts | {"assigner": first.get("assigner", {}).get("display", "")}, context)
    if made["id"] == survivor["id"]:
        context.error("value", "MRG-1 and PID-3 name the same record. Send the record that was replaced.", path="MRG-1")
        return None
    made["active"] = False
    made["link"] = [_link(survivor["id"], "replaced-by")]
    survivor.setdefault("link", []).append(_link(made["id"], "replaces"))
    return made


def _link(patient_id: str, kind: str) -> dict[str, Any]:
    return {"other": {"reference": f"Patient/{patient_id}"}, "type": kind}


def _opened(kind: str, segment: str, fields: Segment, context: MessageContext) -> Resource:
    made: Resource = {"resourceType": kind, "id": "", "meta": {"source": context.place()}}
    TABLES[segment].apply(fields, made, context)
    return made


def _first(field: str) -> str:
    return field.partition("^")[0].strip()
