"""Goals -> Goal: a PCO goal when it has a start date, else a US Core goal and an Issue.

Source: C-CDA R2.1 Goal Observation (4.121); HL7 C-CDA-Examples; PCO 1.0.0, pco-goal-profile. No map is published.
"""

from dataclasses import dataclass
from typing import Any

from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.compiled import Kept
from mappers.cda.context import Document, Resource, says
from mappers.cda.datatypes import concept, text, value
from mappers.cda.node import Node
from mappers.cda.observations import is_score
from mappers.cda.paths import first
from mappers.cda.people import author

_ADDRESSED = ("Condition", "Observation")
_REFERS, _REASON = "entryRelationship[@typeCode='REFR']/act", "entryRelationship[@typeCode='RSON']"


@dataclass(frozen=True, slots=True)
class Aim:
    """A Goal that was made, and the parts of its entry that point at other entries."""

    node: Node
    reference: str
    refers: tuple[Node, ...]
    reasons: tuple[Node, ...]


def goal(node: Node, document: Document) -> Aim | None:
    """A goal observation -> Goal. What it addresses is linked after all entries are read (see `link`)."""
    if node.get("negationInd") == "true":
        document.leave(node, "left", reason="negationInd: this is stated not to be a goal.")
        return None
    resource, kept = dialect.apply("goal", node, document=document, kind="Goal")
    if not _describe(resource, kept, document=document):
        document.leave(node, "bad", reason="The goal has neither code, value nor text.")
        return None
    if "lifecycleStatus" not in resource:
        document.at(node).warn("required", "The goal has no status code that is known: it is taken as active.")
        resource["lifecycleStatus"] = "active"
    resource["subject"] = document.subject
    _expressed(resource, kept, node=node, document=document)
    if len(resource.get("startDate", "2026-01-01")) < 10:
        document.at(node).warn("value", "A goal starts on a day: the start was left out.")
        del resource["startDate"]
    wanted = ("pco-prom-goal-profile",) if _is_prom(resource) else ()
    if claim(resource, *wanted, "pco-goal-profile", "us-core-goal") == "us-core-goal":
        text_ = "A goal without a start date is no PCO goal (pco-goal-profile, startDate 1..1): kept as a US Core goal."
        document.at(node).warn("incomplete", text_)
    acts = tuple(one for one in kept.get(_REASON, ()) if one.tag.endswith("}act"))
    reasons = tuple(one for one in kept.get(_REASON, ()) if one not in acts)
    return Aim(node, document.add(resource, node), (*kept.get(_REFERS, ()), *acts), reasons)


def _is_prom(resource: Resource) -> bool:
    """Whether the target is a number of an instrument's total."""
    target = resource.get("target", [{}])[0]
    return "detailQuantity" in target and is_score({"code": target["measure"]})


def _describe(resource: Resource, kept: Kept, *, document: Document) -> bool:
    """description and target from text, code and value; whether there is anything to say."""
    measure = concept(kept["code"][0], document) if "code" in kept else None
    aim = value(kept["value"][0], document.at(kept["value"][0])) if "value" in kept else None
    told = text(kept["text"][0], document) if "text" in kept else None
    _target(resource, measure, aim=aim, document=document)
    description = told or _spoken(aim) or _label(measure)
    if description:
        meant = aim[1] if aim and aim[0] == "CodeableConcept" and not told else measure if aim is None else None
        coded = meant.get("coding") if meant else None
        resource["description"] = {"text": description} | ({"coding": coded} if coded else {})
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


def _expressed(resource: Resource, kept: Kept, *, node: Node, document: Document) -> None:
    """expressedBy: the patient when the patient is an author, else the first person who is."""
    found = [reference for one in kept.get("author", ()) if (reference := author(one, document))]
    people = [one for one in found if one.partition("/")[0] in ("Patient", "Practitioner")]
    own = [one for one in people if one == document.subject["reference"]]
    if people:
        resource["expressedBy"] = {"reference": (own or people)[0]}
    if own and len(set(people)) > 1:
        document.at(node).inform(
            "Patient and practitioner are both authors of the goal: expressedBy names the patient."
        )


def link(aim: Aim, document: Document) -> None:
    """addresses: the entries whose id a referenced act, or an RSON observation, carries; other reasons as a note."""
    resource = document.made[aim.reference]
    found = [reference for one in aim.refers + aim.reasons for reference in document.linked(one, *_ADDRESSED)]
    if found:
        resource["addresses"] = [{"reference": one} for one in dict.fromkeys(found)]
    for one in aim.reasons:
        if not document.linked(one, *_ADDRESSED):
            _reason(one, resource, document=document)
    for one in aim.refers:
        if not document.linked(one, *_ADDRESSED, "Goal"):
            document.unread(one)


def _reason(node: Node, resource: Resource, *, document: Document) -> None:
    """A reason in words is a note; a priority preference (225773000) that no row took is no reason."""
    stated = first("value")(node)
    said = _spoken(value(stated, document.at(node))) if stated is not None else None
    if said:
        resource.setdefault("note", []).append({"text": f"Reason: {said}"})
        for one in (stated, first("effectiveTime")(node)):
            if one is not None and says(one) and (one is not stated or one.get("code")):
                document.leave(one, "left", reason="Of a reason that is no entry the words are kept, as a note.")
    else:
        document.unread(node)
