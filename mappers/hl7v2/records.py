"""The other resources of a message: Patient, Encounter, Condition, DocumentReference, ServiceRequest, Provenance.

Source: HL7 v2-to-FHIR 1.0.0 segment maps; RF1 and PRD have none: ours. US Core 6.1.0 for claims.
"""

from typing import Any

from mappers.conversion import Resource
from mappers.converters import concept
from mappers.hl7v2.compiled import TABLES
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.identity import PREFERRED, identify
from mappers.hl7v2.parse import Segment
from profiles import canonical

_PATIENT = canonical.US_CORE_PINNED("us-core-patient")
_PROVENANCE = canonical.US_CORE_PINNED("us-core-provenance")
_CONDITION = {
    "encounter-diagnosis": canonical.US_CORE_PINNED("us-core-condition-encounter-diagnosis"),
    "problem-list-item": canonical.US_CORE_PINNED("us-core-condition-problems-health-concerns"),
}
_AVAILABILITY = {"CA": "entered-in-error", "OB": "superseded"}  # table 0273: cancelled, obsolete
_TRANSMITTER = {"coding": [{"system": canonical.US_CORE_PROVENANCE_PARTICIPANT, "code": "transmitter"}]}


def patient(fields: Segment, context: MessageContext) -> Resource:
    """PID as Patient, with its id made known to the context. No identifier at all is an error: whose data are these?"""
    made: Resource = {"resourceType": "Patient", "id": "", "meta": {"source": context.place()}}
    TABLES["PID"].apply(fields, made, context)
    identifier = _best(made.get("identifier", []))
    if identifier is None:
        context.error(
            "required", "PID-3 holds no identifier, so the data belong to no known patient. Send one.", path="PID-3"
        )
    made["id"] = identify("Patient", _patient_parts(identifier or {}, fields), context)
    if _is_us_core_patient(made):
        made["meta"]["profile"] = [_PATIENT]
    context.belong_to(made["id"])
    return made


def _best(identifiers: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first identifier of the preferred type; see tables/identity.toml."""
    usable = [each for each in identifiers if "value" in each]
    for kind in PREFERRED:
        for each in usable:
            if each.get("type", {}).get("coding", [{}])[0].get("code") == kind:
                return each
    return usable[0] if usable else None


def _patient_parts(identifier: dict[str, Any], fields: Segment) -> dict[str, str]:
    return {
        "system": identifier.get("system", ""),
        "value": identifier.get("value", ""),
        "assigner": identifier.get("assigner", {}).get("display", ""),
        "PID-5": fields[5],
        "PID-7": fields[7],
        "PID-8": fields[8],
    }


def _is_us_core_patient(made: Resource) -> bool:
    identifiers = made.get("identifier", [])
    names = made.get("name", [])
    return (
        bool(identifiers)
        and bool(names)
        and "gender" in made
        and all("system" in each and "value" in each for each in identifiers)
        and all("family" in each or "given" in each for each in names)
    )


def encounter(fields: Segment, trigger: str, statuses: dict[str, str], context: MessageContext) -> Resource:
    """PV1 as Encounter. Its status follows the event; a discharge time (PV1-45) finishes it."""
    made: Resource = {"resourceType": "Encounter", "id": "", "meta": {"source": context.place()}}
    made["status"] = "finished" if fields[45] else statuses.get(trigger, "unknown")
    TABLES["PV1"].apply(fields, made, context)
    made.setdefault("class", {"system": canonical.NULL_FLAVOR, "code": "UNK"})
    made["subject"] = context.subject
    made["id"] = identify("Encounter", {"PV1-19": _first(fields[19]), "PV1-44": fields[44]}, context)
    return made


def condition(fields: Segment, category: str, context: MessageContext) -> Resource | None:
    """DG1 as Condition; None without a code."""
    made: Resource = {"resourceType": "Condition", "id": "", "meta": {"source": context.place()}}
    TABLES["DG1"].apply(fields, made, context)
    if "code" not in made:
        context.error("required", "DG1-3 and DG1-4 are empty, so there is no diagnosis. Send a code.", path="DG1-3")
        return None
    if fields[21].strip() == "D":
        made["verificationStatus"] = concept(canonical.CONDITION_VERIFICATION, "entered-in-error")
    else:
        made["clinicalStatus"] = concept(canonical.CONDITION_CLINICAL, "active")
    made["category"] = [concept(canonical.CONDITION_CATEGORY, category)]
    made["subject"] = context.subject
    parts = {"category": category, "DG1-3": _first(fields[3]) or fields[4], "DG1-5": fields[5]}
    made["id"] = identify("Condition", parts, context)
    made["meta"]["profile"] = [_CONDITION[category]]
    return made


def document(fields: Segment, context: MessageContext) -> Resource:
    """TXA as DocumentReference; its content comes with the OBX that follow."""
    made: Resource = {"resourceType": "DocumentReference", "id": "", "meta": {"source": context.place()}}
    TABLES["TXA"].apply(fields, made, context)
    made["status"] = _AVAILABILITY.get(fields[19].strip(), "current")
    made["subject"] = context.subject
    made["id"] = identify("DocumentReference", {"TXA-12": _first(fields[12])}, context)
    made["content"] = []
    return made


def content(fields: Segment, document_reference: Resource, context: MessageContext) -> None:
    """An OBX under TXA as one content; nothing usable is reported by its converter."""
    made: dict[str, Any] = {}
    if fields[5]:
        TABLES["content"].apply(fields, made, context)
    if made:
        document_reference["content"].append(made)


def referral(fields: Segment, context: MessageContext) -> Resource:
    """RF1 as ServiceRequest; requester and performer come with PRD."""
    made: Resource = {"resourceType": "ServiceRequest", "id": "", "meta": {"source": context.place()}}
    TABLES["RF1"].apply(fields, made, context)
    if "status" not in made:
        made["status"] = "unknown"
    made["intent"] = "order"
    made["subject"] = context.subject
    made["id"] = identify("ServiceRequest", {"RF1-6": _first(fields[6])}, context)
    return made


def role_of(fields: Segment) -> str:
    """PRD-1 as table 0286: RP refers, RT is referred to, PP is the primary care provider."""
    return _first(fields[1])


def _first(field: str) -> str:
    return field.partition("^")[0].strip()


def provenance(resources: list[Resource], context: MessageContext) -> Resource:
    """One Provenance for the message: its bytes as the source entity, its sender as transmitter.

    Which segment a resource comes from stands in the resource's own `meta.source`, which R4 defines to correspond to
    Provenance.entity.what: the same URN with a fragment such as `#OBX/3`.
    """
    digest, known = context.source.sha256, context.results
    names = [f"{each['resourceType']}/{each['id']}" for each in resources]
    name = " / ".join(filter(None, reversed(context.sender))) or "sender not named in MSH-3 and MSH-4"
    return {
        "resourceType": "Provenance",
        "id": identify("Provenance", {"sha256": digest}, context),
        "meta": {"profile": [_PROVENANCE]},
        "target": [known.get(name) or {"reference": name} for name in names],
        "recorded": context.source.received_at,
        "agent": [{"type": _TRANSMITTER, "who": {"display": name}}],
        "entity": [
            {
                "role": "source",
                "what": {
                    "identifier": {"system": canonical.UUID_SYSTEM, "value": f"urn:sha256:{digest}"},
                    "display": f"HL7 v2 message {context.control_id}".strip(),
                },
            }
        ],
    }
