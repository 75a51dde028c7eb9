"""Plans: planned acts -> ServiceRequest, done interventions -> Procedure, the plan -> CarePlan; outcomes and goals.

Source: C-CDA R2.1 Plan of Treatment, Care Plan document; US Core 6.1.0; PCO 1.0.0, pco-care-plan. No map is published.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.compiled import Kept
from mappers.cda.context import Document, Resource, codes, folded
from mappers.cda.datatypes import text
from mappers.cda.medications import medication
from mappers.cda.narrative import narrative
from mappers.cda.node import Node
from mappers.cda.observations import plain
from mappers.cda.paths import children, first, has_template, qualified
from mappers.cda.people import author, performers
from mappers.cda.procedures import procedure
from mappers.cda.times import bounds
from profiles.canonical import CARE_PLAN_CATEGORY, GOAL_ACHIEVEMENT, PCO

PLANNED_MOODS = frozenset({"INT", "RQO", "PRMS", "PRP", "ARQ", "APT"})
_PLAN_SECTIONS = ("18776-5", "51847-2", "62387-6")
_CARE_PLAN = ("52521-2", "2.16.840.1.113883.10.20.22.1.15")
_ROOT = "2.16.840.1.113883.10.20.22."
_INTERVENTIONS = (f"{_ROOT}4.131", f"{_ROOT}4.146")
_REFERENCE, _HANDOFF = f"{_ROOT}4.122", f"{_ROOT}4.141"
_REQUESTERS = ("Practitioner", "PractitionerRole", "Organization", "Patient", "RelatedPerson", "Device")
_RELATION, _ACT = qualified("entryRelationship"), qualified("act")
_MEDICINE, _SUPPLY = qualified("substanceAdministration"), qualified("supply")
_CODED, _VALUED = first("code/@code"), first("value/@code")
_CATEGORY = [{"coding": [{"system": CARE_PLAN_CATEGORY, "code": "assess-plan"}]}]  # not to be changed
_SHOWN = "entryRelationship[@typeCode='SPRT']/observation"
_EVALUATES = "entryRelationship[@typeCode='GEVL']"
_LINKED = ("Condition", "Goal", "Observation", "ServiceRequest", "MedicationRequest", "Procedure")
_POINTING = ("REFR", "RSON")  # types of the relations that point at other entries
_PCO_GOALS = frozenset({PCO("pco-goal-profile"), PCO("pco-prom-goal-profile")})
_PROGRESS = f"{_ROOT}4.110"


@dataclass(frozen=True, slots=True)
class Pointer:
    """What an entry made, and the acts in it that point at other entries by id."""

    made: tuple[str, ...]
    acts: tuple[Node, ...]


def planned(node: Node, document: Document) -> list[Pointer]:
    """A planned act -> ServiceRequest or MedicationRequest, a done one -> Procedure; interventions are opened."""
    if node.tag == _SUPPLY:
        document.leave(node, "left", reason="Planned supplies are no part of what ACCESS reports.")
        return []
    if has_template(node, _HANDOFF):
        document.leave(node, "left", reason="A handoff is a message that was or will be sent, no activity of care.")
        return []
    if has_template(node, *_INTERVENTIONS):
        return _opened(node, document)
    made = _activity(node, document)
    return [Pointer((made,), tuple(_pointing(node)))] if made else []


def _pointing(node: Node) -> Iterator[Node]:
    """The acts that point at other entries, by the kind of the relation."""
    relations = [(one.get("typeCode"), one) for one in node[:] if one.tag == _RELATION]
    for wanted in _POINTING:
        for kind, relation in relations:
            if kind == wanted:
                yield from children(relation, _ACT)


def _activity(node: Node, document: Document) -> str | None:
    if node.tag == _MEDICINE:
        return medication(node, document)
    if node.get("moodCode") in PLANNED_MOODS:
        return _request(node, document)
    if node.tag.endswith("}observation"):
        return plain(node, document, kind="survey")
    return procedure(node, document)


def _opened(node: Node, document: Document) -> list[Pointer]:
    """An intervention act: its activities, and what it points at; one that holds none is an activity itself."""
    document.around(node)
    inner = [one for relation in children(node, _RELATION) for one in relation[:]]
    pointers = tuple(one for one in inner if has_template(one, _REFERENCE))
    found = [one for act in inner if act not in pointers for one in planned(act, document)]
    if not found:
        made = _activity(node, document)
        return [Pointer((made,), pointers)] if made else []
    return [*found, Pointer(tuple(one for each_ in found for one in each_.made), pointers)]


def point(pointer: Pointer, document: Document) -> None:
    """reasonReference and supportingInfo of a request: the conditions and goals whose ids its entry points at."""
    for act in pointer.acts:
        if not document.linked(act, *_LINKED):
            document.unread(act)
    reasons = [one for act in pointer.acts for one in document.linked(act, "Condition")]
    goals = [one for act in pointer.acts for one in document.linked(act, "Goal")]
    for reference in pointer.made:
        resource = document.made[reference]
        if reasons and resource["resourceType"] in ("ServiceRequest", "Procedure", "MedicationRequest"):
            resource["reasonReference"] = [{"reference": one} for one in dict.fromkeys(reasons)]
        if goals and resource["resourceType"] in ("ServiceRequest", "MedicationRequest"):
            name = "supportingInfo" if resource["resourceType"] == "ServiceRequest" else "supportingInformation"
            resource[name] = [{"reference": one} for one in dict.fromkeys(goals)]


def _request(node: Node, document: Document) -> str | None:
    resource, kept = dialect.apply("request", node, document=document, kind="ServiceRequest")
    told = text(kept["text"][0], document) if "text" in kept else None
    if "code" not in resource and told:
        resource["code"] = {"text": told}
    if "code" not in resource:
        document.leave(
            node, "bad", reason="The planned act has neither code nor text: nobody can tell what is planned."
        )
        return None
    resource.setdefault("status", "unknown")
    if node.get("negationInd") == "true":
        resource["doNotPerform"] = True
    resource["subject"] = document.subject
    who = author(kept["author"][0], document) if "author" in kept else None
    if who and who.partition("/")[0] in _REQUESTERS:
        resource["requester"] = {"reference": who}
    people = performers(kept, document)
    if people:
        resource["performer"] = people
    claim(resource, "us-core-servicerequest")
    return document.add(resource, node)


def is_care_plan(root: Node) -> bool:
    """Whether the document is a Care Plan."""
    return has_template(root, _CARE_PLAN[1]) or _CODED(root) == _CARE_PLAN[0]


def care_plan(document: Document) -> None:
    """The document's plan sections, or a whole Care Plan document -> one CarePlan with its narrative."""
    sections = document.sections
    whole = is_care_plan(document.root)
    texts = document.narratives
    planning = sections if whole else [one for one in sections if texts[one][0] in _PLAN_SECTIONS]
    told = narrative(*[block for one in planning for block in texts[one][1]]) if planning else None
    if told is None:
        return
    resource: Resource = {"resourceType": "CarePlan", "text": told, "status": "active", "intent": "plan"}
    resource["category"] = _CATEGORY
    title = first("title")(document.root if whole else planning[0])
    if title is not None and (name := folded(title)):
        resource["title"] = name
    resource["subject"] = document.subject
    event = first("documentationOf/serviceEvent/effectiveTime")(document.root) if whole else None
    if event is not None and (period := bounds(event, document)):
        resource["period"] = period
    _contents(resource, document, planning=planning)
    real = "goal" in resource and _all_pco_goals(resource, document)
    claim(resource, *(["pco-care-plan"] if real else []), "us-core-careplan")
    document.add(resource, document.root, key=f"careplan|{document.control}")


def _contents(resource: Resource, document: Document, *, planning: list[Node]) -> None:
    """Goals, activities and concerns that stand in the plan's own sections."""
    inside = {key for one in planning for key in document.made_in.get(one, ())}
    made = [reference for reference in document.made if reference in inside]
    for kind, name in (("Condition", "addresses"), ("Goal", "goal")):
        found = [{"reference": one} for one in made if one.startswith(f"{kind}/")]
        if found:
            resource[name] = found
    planned_ = [one for one in made if one.partition("/")[0] in _ACTIVITIES and not _taken(document.made[one])]
    requests = [{"reference": {"reference": one}} for one in planned_]
    if requests:
        resource["activity"] = requests


def _taken(resource: Resource) -> bool:
    """Whether it is a medicine that the patient takes already: no activity of the plan."""
    return resource.get("reportedBoolean", False) is True


_ACTIVITIES = ("ServiceRequest", "MedicationRequest")


def _all_pco_goals(resource: Resource, document: Document) -> bool:
    """pco-care-plan: its goals are PCO goals."""
    goals = (document.made[one["reference"]] for one in resource["goal"])
    return all(not _PCO_GOALS.isdisjoint(one.get("meta", {}).get("profile", ())) for one in goals)


def outcome(reference: str, kept: Kept, *, document: Document) -> None:
    """An outcome observation: focus on the goal that it evaluates, and that goal's achievement."""
    goals = [found for one in kept.get(_EVALUATES, ()) for found in document.linked(one, "Goal")]
    if goals:
        resource = document.made[reference]
        resource["focus"] = [{"reference": one} for one in dict.fromkeys(goals)]
        if len(resource["focus"]) > 1:  # PCO's profiles have room for one goal
            claim(resource, "us-core-observation-screening-assessment", "us-core-simple-observation")
        for one in goals:
            _evidence(document.made[one], reference)
    for progress in kept.get(_SHOWN, ()):
        code = codes()["goal-progress"].get(_VALUED(progress) or "")
        if code is None or not goals or not has_template(progress, _PROGRESS):
            document.unread(progress)
            continue
        for one in goals:
            document.made[one]["achievementStatus"] = {"coding": [{"system": GOAL_ACHIEVEMENT, "code": code}]}


def _evidence(goal: Resource, reference: str) -> None:
    """Goal.outcomeReference: what the goal came to."""
    goal.setdefault("outcomeReference", []).append({"reference": reference})
