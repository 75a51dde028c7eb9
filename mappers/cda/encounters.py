"""Encounters: the section's entries and the header's encompassingEncounter.

Source: C-CDA on FHIR 2.0.0, CF-encounters; US Core 6.1.0, us-core-encounter.
"""

from typing import Any

from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.compiled import Kept
from mappers.cda.context import Document, Resource, codes
from mappers.cda.datatypes import concept
from mappers.cda.node import Node
from mappers.cda.paths import each, first
from mappers.cda.people import performers, practitioner
from mappers.cda.problems import problem
from mappers.cda.times import bounds, point
from profiles.canonical import ACT_CODE, NULL_FLAVOR

_DIAGNOSIS = "entryRelationship/act[code/@code='29308-4']"


def encounter(node: Node, document: Document) -> str | None:
    """An encounter element -> Encounter, its diagnoses as Conditions."""
    if node.get("moodCode") not in (None, "EVN"):
        document.leave(node, "left", reason="Only encounters in mood EVN took place.")
        return None
    resource, kept = dialect.apply("encounter", node, document=document, kind="Encounter")
    _kind(resource, kept, document=document)
    _when(resource, kept, document=document)
    resource["subject"] = document.subject
    people = performers(kept, document)
    if people:
        resource["participant"] = [
            {"individual": one} for one in people if one["reference"].startswith("Practitioner/")
        ]
    diagnoses = [one for act in kept.get(_DIAGNOSIS, ()) for one in problem(act, document, kind="encounter-diagnosis")]
    if diagnoses:
        resource["diagnosis"] = [{"condition": {"reference": one}} for one in diagnoses]
    claim(resource, "us-core-encounter")
    return document.add(resource, node)


def _kind(resource: Resource, kept: Kept, *, document: Document) -> None:
    """code -> class (v3-ActCode, or known by CPT) and type (the rest). A class that is not said is UNK."""
    whole = concept(kept["code"][0], document) if "code" in kept else None
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


def _when(resource: Resource, kept: Kept, *, document: Document) -> None:
    """effectiveTime -> period and status: a single time or an end means finished, whatever the status code."""
    found = kept["effectiveTime"][0] if "effectiveTime" in kept else None
    single = point(found, document) if found is not None else None
    period = bounds(found, document) if found is not None else {}
    if single:
        period = {"start": single}
    if period:
        resource["period"] = period
    code = kept["statusCode"][0].get("code") if "statusCode" in kept else None
    stated = codes()["encounter-status"].get(code or "", "unknown")
    cancelled = stated in ("cancelled", "entered-in-error")
    resource["status"] = "finished" if (single or "end" in period) and not cancelled else stated


def _participant(role: Node, document: Document) -> dict[str, Any] | None:
    reference = practitioner(role, "assignedPerson", document=document)
    return {"individual": {"reference": reference}} if reference else None


def encompassing(head: dict[str, list[Node]], document: Document) -> str | None:
    """componentOf/encompassingEncounter -> Encounter."""
    node = first("encompassingEncounter")(head["componentOf"][0]) if "componentOf" in head else None
    if node is None or node.get("nullFlavor") is not None:
        return None
    resource, kept = dialect.apply("encounter", node, document=document, kind="Encounter")
    _kind(resource, kept, document=document)
    _when(resource, kept, document=document)
    resource["subject"] = document.subject
    roles = [one for name in _PEOPLE for holder in kept.get(name, ()) for one in each("assignedEntity")(holder)]
    people = [found for one in roles if (found := _participant(one, document))]
    if people:
        resource["participant"] = [one for index, one in enumerate(people) if one not in people[:index]]
    disposition = concept(kept[_DISPOSITION][0], document) if _DISPOSITION in kept else None
    if disposition:
        resource["hospitalization"] = {"dischargeDisposition": disposition}
    claim(resource, "us-core-encounter")
    return document.add(resource, node)


_PEOPLE = ("responsibleParty", "encounterParticipant")
_DISPOSITION = "dischargeDispositionCode"
