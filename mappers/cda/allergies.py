"""Allergies and intolerances -> AllergyIntolerance, one per allergy observation; "none known" as its own code.

Source: C-CDA on FHIR 2.0.0, CF-allergies; US Core 6.1.0, us-core-allergyintolerance.
"""

from typing import Any

from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.compiled import Kept
from mappers.cda.context import Document, codes, identifiers
from mappers.cda.datatypes import concept, named
from mappers.cda.dialect import ALLERGY_CLINICAL
from mappers.cda.node import Node
from mappers.cda.paths import child, children, first, qualified
from mappers.cda.problems import record
from mappers.cda.tablecode import code_of
from mappers.cda.times import earliest
from profiles.canonical import SNOMED

_TAG, _RELATION = qualified("observation"), qualified("entryRelationship")
_VALUE, _TIME = qualified("value"), qualified("effectiveTime")
_MANIFEST = "entryRelationship[@typeCode='MFST']"
_SEVERITY = "entryRelationship/observation[code/@code='SEV']"


def allergy(node: Node, document: Document) -> list[str]:
    """A concern act, or an allergy observation standing alone -> AllergyIntolerances."""
    if node.tag == _TAG:
        found = _one(node, None, document=document)
        return [found] if found else []
    document.around(node)
    made: list[str] = []
    severity: list[Node] = []
    inner = [one for relation in children(node, _RELATION) for one in children(relation, _TAG)]
    for one in inner:
        if code_of(one) == "SEV":
            severity.append(one)
    own = identifiers(node) if inner else []
    for one in (one for one in inner if one not in severity):
        found = _one(one, node, document=document, severity=severity)
        if found is not None:
            made.append(found)
            for key in own:
                document.means(key, found)
    if not inner:
        document.leave(node, "bad", reason="The concern holds no allergy observation: there is nothing to map.")
    return made


def _one(node: Node, act: Node | None, *, document: Document, severity: list[Node] | None = None) -> str | None:
    if node.get("moodCode") not in (None, "EVN"):
        document.leave(node, "left", reason="Only observations in mood EVN are facts.")
        return None
    resource, kept = dialect.apply("allergy", node, document=document, kind="AllergyIntolerance")
    kind = (kept["value"][0].get("code") or "") if "value" in kept else ""
    code = _substance(kept, document)
    if node.get("negationInd") == "true":
        code = _none_known(kind, code, node=node, document=document)
    if code is None:
        document.leave(node, "bad", reason="The allergy does not say to what.")
        return None
    resource["code"] = code
    for name, table in (("type", "allergy-type"), ("category", "allergy-category")):
        if kind in codes()[table]:
            resource[name] = codes()[table][kind] if name == "type" else [codes()[table][kind]]
    if "clinicalStatus" not in resource:
        stated = codes()["concern-status"].get(first("statusCode/@code")(act) or "") if act is not None else None
        if stated is None:
            document.at(node).inform("The allergy has no status: it is taken as active, for FHIR wants one (ait-1).")
        status = stated or "active"
        resource["clinicalStatus"] = {"coding": [{"system": ALLERGY_CLINICAL, "code": status}]}
    resource["patient"] = document.subject
    record(resource, kept, act=act, document=document)
    reactions = _reactions(kept, severity or [], document=document)
    if reactions:
        resource["reaction"] = reactions
    claim(resource, "us-core-allergyintolerance")
    return document.add(resource, node)


def _substance(kept: Kept, document: Document) -> dict[str, Any] | None:
    for node in kept.get("participant", ()):
        entity = first("participantRole/playingEntity")(node)
        if entity is None:
            continue
        coded = first("code")(entity)
        found = concept(coded, document.at(coded)) if coded is not None else None
        found = named(found, first("name")(entity), document)
        if found is not None:
            return found
    return None


def _none_known(
    kind: str, substance: dict[str, Any] | None, *, node: Node, document: Document
) -> dict[str, Any] | None:
    """A negated allergy to nothing in particular is "no known ..."; one to a substance has no code: it is left."""
    code = codes()["no-known-allergy"].get(kind)
    if substance is None and code:
        return {"coding": [{"system": SNOMED, "code": code}]}
    document.at(node).inform("The allergy is negated and has no code of its own in FHIR: it stays in the document.")
    return None


def _reactions(kept: Kept, outer: list[Node], *, document: Document) -> list[dict[str, Any]]:
    """Each manifestation with its own severity, else the allergy's."""
    shared = _severity([*kept.get(_SEVERITY, ()), *outer], document)
    found = []
    for node in kept.get(_MANIFEST, ()):
        value = child(node, _VALUE)
        told = concept(value, document.at(value)) if value is not None else None
        if told is None:
            document.nothing(node)
            continue
        inner = [one for relation in children(node, _RELATION) for one in children(relation, _TAG)]
        severity = _severity([one for one in inner if code_of(one) == "SEV"], document) or shared
        made: dict[str, Any] = {"manifestation": [told]} | ({"severity": severity} if severity else {})
        time = child(node, _TIME)
        onset = earliest(time, document.at(time)) if time is not None else None
        found.append(made | ({"onset": onset} if onset else {}))
    if shared and not found:
        for node in (*kept.get(_SEVERITY, ()), *outer):
            document.leave(node, "left", reason="Severity is said of a reaction in FHIR, and there is none.")
    return found


def _severity(nodes: list[Node], document: Document) -> str | None:
    for node in nodes:
        code = first("value/@code")(node)
        known = codes()["severity"].get(code or "")
        if known:
            return known
        if code:
            document.at(node).warn("code-invalid", "The severity has no code in FHIR: it stays in the document.")
    return None
