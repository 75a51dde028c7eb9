"""Goals -> Goal: a PCO goal when it has a start date, else a US Core goal and an Issue.

Source: C-CDA R2.1 Goal Observation (4.121); HL7 C-CDA-Examples; PCO 1.0.0, pco-goal-profile. No map is published.
"""

from typing import Any

from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.context import Document, Resource, account
from mappers.cda.datatypes import concept, text, value
from mappers.cda.parse import Node
from mappers.cda.paths import each, first
from mappers.cda.people import author

_CONDITION = ("Condition",)
_HANDLED = frozenset({"code", "value", "author", "entryRelationship/act[id]", "entryRelationship[@typeCode='RSON']"})


def goal(node: Node, document: Document) -> str | None:
    """A goal observation -> Goal. What it addresses is linked after all entries are read (see `link`)."""
    if node.get("negationInd") == "true":
        document.leave(node, "left", reason="negationInd: this is stated not to be a goal.")
        return None
    resource = dialect.apply("goal", node, document=document, kind="Goal")
    if not _describe(resource, node, document=document):
        document.leave(node, "bad", reason="The goal has neither code, value nor text.")
        return None
    if "lifecycleStatus" not in resource:
        document.at(node).warn("required", "The goal has no status code that is known: it is taken as active.")
        resource["lifecycleStatus"] = "active"
    resource["subject"] = {"reference": document.patient_reference}
    _expressed(resource, node, document=document)
    if len(resource.get("startDate", "2026-01-01")) < 10:
        document.at(node).warn("value", "A goal starts on a day: the start was left out.")
        del resource["startDate"]
    if claim(resource, "pco-goal-profile", "us-core-goal") == "us-core-goal":
        text_ = "A goal without a start date is no PCO goal (pco-goal-profile, startDate 1..1): kept as a US Core goal."
        document.at(node).warn("incomplete", text_)
    account(node, document, read=dialect.reads("goal"), handled=_HANDLED)
    return document.add(resource, node)


def _describe(resource: Resource, node: Node, *, document: Document) -> bool:
    """description and target from text, code and value; whether there is anything to say."""
    found = first("code")(node)
    measure = concept(found, document) if found is not None else None
    stated = first("value")(node)
    aim = value(stated, document) if stated is not None else None
    words = first("text")(node)
    told = text(words, document) if words is not None else None
    _target(resource, measure, aim=aim, document=document)
    description = told or _spoken(aim) or _label(measure)
    if description:
        coded = aim[1].get("coding") if aim and aim[0] == "CodeableConcept" else None
        resource["description"] = {"text": description} | ({"coding": coded} if coded and not told else {})
    return description is not None


def _target(
    resource: Resource, measure: dict[str, Any] | None, *, aim: tuple[str, Any] | None, document: Document
) -> None:
    """target.measure and detail; the due date, if any, is there already (rule gol-1: a detail needs its measure)."""
    targets = resource.setdefault("target", [{}])
    if aim and measure and aim[0] != "DateTime":
        targets[0] = {"measure": measure, f"detail{aim[0]}": aim[1]} | targets[0]
    elif aim and aim[0] in ("Quantity", "Range", "Integer"):
        document.inform("The goal has a value but no code that says of what: the value stays in the document.")
    due = targets[0].get("dueDate", "2026-01-01")
    if len(due) < 10:
        del targets[0]["dueDate"]
    if not targets[0]:
        del resource["target"]


def _spoken(aim: tuple[str, Any] | None) -> str | None:
    if aim is None or aim[0] not in ("CodeableConcept", "String"):
        return None
    return aim[1] if aim[0] == "String" else _label(aim[1])


def _label(concept_: dict[str, Any] | None) -> str | None:
    if not concept_:
        return None
    displays = [one["display"] for one in concept_.get("coding", ()) if "display" in one]
    label: str | None = concept_.get("text") or (displays[0] if displays else None)
    return label


def _expressed(resource: Resource, node: Node, *, document: Document) -> None:
    """expressedBy: the patient when the patient is an author, else the first person who is."""
    found = [reference for one in each("author")(node) if (reference := author(one, document))]
    people = [one for one in found if one.partition("/")[0] in ("Patient", "Practitioner")]
    own = [one for one in people if one == document.patient_reference]
    if people:
        resource["expressedBy"] = {"reference": (own or people)[0]}
    if own and len(set(people)) > 1:
        document.at(node).inform(
            "Patient and practitioner are both authors of the goal: expressedBy names the patient."
        )


def link(node: Node, resource: Resource, *, document: Document) -> None:
    """addresses: the Conditions whose entry id a referenced act, or an RSON observation, carries; else a note."""
    acts = each("entryRelationship[@typeCode='REFR']/act")(node) + each("entryRelationship[@typeCode='RSON']/act")(node)
    reasons = each("entryRelationship[@typeCode='RSON']/observation")(node)
    found = [reference for one in acts + reasons for reference in document.linked(one, *_CONDITION)]
    if found:
        resource["addresses"] = [{"reference": one} for one in dict.fromkeys(found)]
    for one in reasons:
        if not document.linked(one, *_CONDITION):
            _reason(one, resource, document=document)


def _reason(node: Node, resource: Resource, *, document: Document) -> None:
    stated = first("value")(node)
    said = _spoken(value(stated, document.at(node))) if stated is not None else None
    if said:
        resource.setdefault("note", []).append({"text": f"Reason: {said}"})
