"""Plans: planned acts -> ServiceRequest; the plan itself -> CarePlan; outcomes linked to their goals.

Source: C-CDA R2.1 Plan of Treatment, Care Plan document; US Core 6.1.0; PCO 1.0.0, pco-care-plan. No map is published.
"""

from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.context import Document, Resource, account, folded
from mappers.cda.datatypes import text
from mappers.cda.narrative import narrative
from mappers.cda.parse import Node
from mappers.cda.paths import each, first, has_template, inside
from mappers.cda.people import author
from mappers.cda.times import bounds
from profiles.canonical import CARE_PLAN_CATEGORY, GOAL_ACHIEVEMENT, PCO

PLANNED_MOODS = frozenset({"INT", "RQO", "PRMS", "PRP", "ARQ", "APT"})
_PLAN_SECTIONS = ("18776-5", "51847-2", "62387-6")
_CARE_PLAN = ("52521-2", "2.16.840.1.113883.10.20.22.1.15")
_MEDICINES = ("substanceAdministration", "supply")
_INTERVENTIONS = ("2.16.840.1.113883.10.20.22.4.131", "2.16.840.1.113883.10.20.22.4.146")
_PROGRESS = "2.16.840.1.113883.10.20.22.4.110"
_ACHIEVED = "390802008"  # goal achieved; the other codes of Progress Toward Goal have no agreed FHIR code
_HANDLED = frozenset({"author", "performer", "entryRelationship[@typeCode='RSON']"})


def planned(node: Node, document: Document) -> list[str]:
    """A planned act, observation, procedure or encounter -> ServiceRequest; intervention acts are opened."""
    if node.tag.rpartition("}")[2] in _MEDICINES:
        document.leave(node, "left", reason="Planned medication is no part of what ACCESS reports.")
        return []
    made = [found for one in _inner(node) for found in planned(one, document)]
    if made:
        return made  # an intervention act around planned acts says nothing more than they do
    if node.get("moodCode") not in PLANNED_MOODS:
        document.leave(node, "left", reason="An intervention that took place is no part of what ACCESS reports.")
        return []
    request = _request(node, document)
    return [request] if request else []


def _inner(node: Node) -> list[Node]:
    """The planned statements inside an intervention act."""
    if not has_template(node, *_INTERVENTIONS):
        return []
    parts = [one for relation in each("entryRelationship")(node) for one in relation if isinstance(one, Node)]
    return [one for one in parts if one.get("moodCode") in PLANNED_MOODS]


def _request(node: Node, document: Document) -> str | None:
    resource = dialect.apply("request", node, document=document, kind="ServiceRequest")
    words = first("text")(node)
    told = text(words, document) if words is not None else None
    if "code" not in resource and told:
        resource["code"] = {"text": told}
    if "code" not in resource:
        document.leave(
            node, "bad", reason="The planned act has neither code nor text: nobody can tell what is planned."
        )
        return None
    resource.setdefault("status", "unknown")
    resource["subject"] = {"reference": document.patient_reference}
    writer = first("author")(node)
    who = author(writer, document) if writer is not None else None
    if who:
        resource["requester"] = {"reference": who}
    claim(resource, "us-core-servicerequest")
    account(node, document, read=dialect.reads("request"), handled=_HANDLED)
    return document.add(resource, node)


def is_care_plan(root: Node) -> bool:
    """Whether the document is a Care Plan."""
    return has_template(root, _CARE_PLAN[1]) or first("code/@code")(root) == _CARE_PLAN[0]


def care_plan(document: Document) -> None:
    """The document's plan sections, or a whole Care Plan document -> one CarePlan with its narrative."""
    sections = inside(document.root, "section")
    whole = is_care_plan(document.root)
    planning = sections if whole else [one for one in sections if first("code/@code")(one) in _PLAN_SECTIONS]
    told = narrative(*[block for one in planning for block in each("text")(one)])
    if told is None:
        return
    resource: Resource = {"resourceType": "CarePlan", "text": told, "status": "active", "intent": "plan"}
    resource["category"] = [{"coding": [{"system": CARE_PLAN_CATEGORY, "code": "assess-plan"}]}]
    title = first("title")(document.root if whole else planning[0])
    if title is not None and (name := folded(title)):
        resource["title"] = name
    resource["subject"] = {"reference": document.patient_reference}
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
    made = [reference for reference in document.references() if reference in inside]
    for kind, name in (("Condition", "addresses"), ("Goal", "goal")):
        found = [{"reference": one} for one in made if one.startswith(f"{kind}/")]
        if found:
            resource[name] = found
    requests = [{"reference": {"reference": one}} for one in made if one.startswith("ServiceRequest/")]
    if requests:
        resource["activity"] = requests


def _all_pco_goals(resource: Resource, document: Document) -> bool:
    """pco-care-plan: its goals are PCO goals."""
    known = {f"Goal/{one['id']}": one for one in document.resources if one["resourceType"] == "Goal"}
    goals = (known[one["reference"]] for one in resource["goal"])
    return all(PCO("pco-goal-profile") in one.get("meta", {}).get("profile", ()) for one in goals)


def outcome(node: Node, reference: str, *, document: Document) -> None:
    """An outcome observation: focus on the goal that it evaluates, and that goal's achievement."""
    goals = [found for one in _evaluated(node) for found in document.linked(one, "Goal")]
    known = {f"{one['resourceType']}/{one['id']}": one for one in document.resources}
    if goals:
        known[reference]["focus"] = [{"reference": one} for one in dict.fromkeys(goals)]
    progress = [one for one in each("entryRelationship/observation")(node) if has_template(one, _PROGRESS)]
    if any(first("value/@code")(one) == _ACHIEVED for one in progress):
        for one in goals:
            known[one]["achievementStatus"] = {"coding": [{"system": GOAL_ACHIEVEMENT, "code": "achieved"}]}


def _evaluated(node: Node) -> list[Node]:
    return [one for relation in each("entryRelationship[@typeCode='GEVL']")(node) for one in relation]
