"""Encounters: the section's entries and the header's encompassingEncounter.

Source: C-CDA on FHIR 2.0.0, CF-encounters; US Core 6.1.0, us-core-encounter.
"""

from typing import Any

from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.context import Document, Resource, account, codes
from mappers.cda.datatypes import coding, concept
from mappers.cda.parse import Node
from mappers.cda.paths import each, first
from mappers.cda.people import practitioner
from mappers.cda.problems import problem
from mappers.cda.times import bounds, point
from profiles.canonical import ACT_CODE, NULL_FLAVOR

_DIAGNOSIS = "29308-4"
_HANDLED = frozenset(
    ("code", "statusCode", "effectiveTime", "performer", "author", f"entryRelationship[act/code/@code='{_DIAGNOSIS}']")
)


def encounter(node: Node, document: Document) -> str | None:
    """An encounter element -> Encounter, its diagnoses as Conditions."""
    if node.get("moodCode") not in (None, "EVN"):
        document.leave(node, "left", reason="Only encounters in mood EVN took place.")
        return None
    resource = dialect.apply("encounter", node, document=document, kind="Encounter")
    _kind(resource, node, document=document)
    _when(resource, node, document=document)
    resource["subject"] = {"reference": document.patient_reference}
    people = [found for one in each("performer/assignedEntity")(node) if (found := _participant(one, document))]
    if people:
        resource["participant"] = people
    diagnoses = _diagnoses(node, document)
    if diagnoses:
        resource["diagnosis"] = [{"condition": {"reference": one}} for one in diagnoses]
    claim(resource, "us-core-encounter")
    account(node, document, read=dialect.reads("encounter"), handled=_HANDLED)
    return document.add(resource, node)


def _kind(resource: Resource, node: Node, *, document: Document) -> None:
    """code -> class (v3-ActCode, or known by CPT) and type (the rest). A class that is not said is UNK."""
    found = first("code")(node)
    whole = concept(found, document) if found is not None else None
    codings = whole.get("coding", []) if whole else []
    classes = [one for one in codings if one.get("system") == ACT_CODE]
    others = [one for one in codings if one.get("system") != ACT_CODE]
    table = codes()["encounter-class"]
    by_code = [{"system": ACT_CODE, "code": table[one["code"]]} for one in others if one.get("code") in table]
    resource["class"] = (classes + by_code + [{"system": NULL_FLAVOR, "code": "UNK"}])[0]
    rest: dict[str, Any] = {"coding": others} if others else {}
    if whole and "text" in whole:
        rest["text"] = whole["text"]
    if rest:
        resource["type"] = [rest]


def _when(resource: Resource, node: Node, *, document: Document) -> None:
    """effectiveTime -> period and status: a single time or an end means finished, whatever the status code."""
    found = first("effectiveTime")(node)
    single = point(found, document) if found is not None else None
    period = bounds(found, document) if found is not None else {}
    if single:
        period = {"start": single}
    if period:
        resource["period"] = period
    stated = codes()["encounter-status"].get(first("statusCode/@code")(node) or "", "unknown")
    cancelled = stated in ("cancelled", "entered-in-error")
    resource["status"] = "finished" if (single or "end" in period) and not cancelled else stated


def _participant(role: Node, document: Document) -> dict[str, Any] | None:
    reference = practitioner(role, "assignedPerson", document=document)
    return {"individual": {"reference": reference}} if reference else None


def _diagnoses(node: Node, document: Document) -> list[str]:
    acts = [one for one in each("entryRelationship/act")(node) if first("code/@code")(one) == _DIAGNOSIS]
    return [reference for act in acts for reference in problem(act, document, kind="encounter-diagnosis")]


def encompassing(document: Document) -> str | None:
    """componentOf/encompassingEncounter -> Encounter."""
    node = first("componentOf/encompassingEncounter")(document.root)
    if node is None:
        return None
    resource = dialect.apply("encounter", node, document=document, kind="Encounter")
    _kind(resource, node, document=document)
    _when(resource, node, document=document)
    resource["subject"] = {"reference": document.patient_reference}
    roles = each("responsibleParty/assignedEntity")(node) + each("encounterParticipant/assignedEntity")(node)
    people = [found for one in roles if (found := _participant(one, document))]
    if people:
        resource["participant"] = [one for index, one in enumerate(people) if one not in people[:index]]
    found = first("dischargeDispositionCode")(node)
    disposition = concept(found, document) if found is not None and coding(found, document) else None
    if disposition:
        resource["hospitalization"] = {"dischargeDisposition": disposition}
    claim(resource, "us-core-encounter")
    return document.add(resource, node)
