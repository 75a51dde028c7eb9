"""Goals and planned acts of a care update as C-CDA entries, linked by id.

Source: C-CDA R2.1, 4.121, 4.39, 4.146, 4.122, 4.64; HL7 C-CDA-Examples, Care Plan.
"""

from mappers.cda.markup import (
    LOINC_OID,
    SNOMED_OID,
    Resource,
    code,
    coded,
    element,
    identifiers,
    leading,
    moment,
    span,
    template,
    templates,
    unique,
    valued,
)
from mappers.cda.node import Node
from mappers.cda.update import Line, Update, anchor, aside, authored, key_of, label, pointing, told

_LIFECYCLE = {"completed": "completed", "cancelled": "cancelled", "on-hold": "suspended", "proposed": "held"}


def pointer(ids: list[Node], kind: str) -> Node:
    """An entry reference 4.122."""
    act = element(
        "act", template("4.122"), *ids, element("code", nullFlavor="NP"), element("statusCode", code="completed"),
        classCode="ACT", moodCode="EVN",
    )  # fmt: skip
    return element("entryRelationship", act, typeCode=kind)


def comments(notes: tuple[str, ...], row: str) -> list[Node]:
    """Comment activities 4.64, whose words are the asides of a row of the narrative."""
    made = []
    for number in range(1, len(notes) + 1):
        act = element(
            "act", template("4.64"), code("code", "48767-8", LOINC_OID), pointing(aside(row, number)),
            classCode="ACT", moodCode="EVN",
        )  # fmt: skip
        made.append(element("entryRelationship", act, typeCode="SUBJ", inversionInd="true"))
    return made


def noted(resource: Resource) -> tuple[str, ...]:
    """The texts of a resource's notes."""
    return tuple(note["text"] for note in resource.get("note", ()) if note.get("text"))


def goals(update: Update) -> list[Line]:
    """Goals section: goal observations 4.121."""
    return [_goal(update, one) for one in update.kind("Goal")]


def _goal(update: Update, goal: Resource) -> Line:
    key, target = key_of(goal), leading(goal.get("target"))
    described = goal.get("description", {})
    addressed = [found for one in goal.get("addresses", ()) if (found := update.find(one.get("reference", "")))]
    entry = element(
        "observation",
        template("4.121"),
        *identifiers(goal, update.base),
        coded("code", target.get("measure") or described),
        element("text", label(described)),
        element("statusCode", code=_LIFECYCLE.get(goal.get("lifecycleStatus", ""), "active")),
        span("effectiveTime", goal.get("startDate"), target.get("dueDate")),
        valued(target, "detail"),
        authored(update, goal.get("expressedBy"), goal.get("startDate")),
        *[pointer(identifiers(one, update.base), "REFR") for one in addressed],
        *comments(noted(goal), anchor("61146-7", key)),
        classCode="OBS",
        moodCode="GOL",
    )
    due = f"due {target['dueDate']}" if target.get("dueDate") else ""
    text = " ".join(part for part in (label(described), due) if part)
    return Line(key, (label(target.get("measure")) or "Goal", text, str(goal.get("startDate", ""))), entry, noted(goal))


_MOODS = {"plan": "INT", "order": "RQO", "proposal": "PRP"}


def _planned(update: Update, one: Resource, *, loinc: str) -> Node:
    """Planned act 4.39, which is active by its template."""
    period = one.get("occurrencePeriod") or {}
    single = moment("effectiveTime", one.get("occurrenceDateTime"))
    time = span("effectiveTime", period.get("start"), period.get("end")) if period else single
    return element(
        "act", *templates("4.39", "2014-06-09"), *identifiers(one, update.base),
        coded("code", one.get("code")), told(loinc, key_of(one)),
        element("statusCode", code="active"), time,
        authored(update, one.get("requester"), one.get("authoredOn")),
        *comments(noted(one), anchor(loinc, key_of(one))),
        classCode="ACT", moodCode=_MOODS.get(one.get("intent", ""), "INT"),
    )  # fmt: skip


def _line(one: Resource, entry: Node | None) -> Line:
    """What is not active (completed, on hold, only a draft) is no planned act: it is told in words alone."""
    cells = (label(one.get("code")), str(one.get("status", "")), str(one.get("authoredOn", "")))
    return Line(key_of(one), cells, entry, noted(one))


def _is_planned(one: Resource) -> bool:
    return bool(one.get("status", "active") == "active")


def plan(update: Update) -> list[Line]:
    """Plan of treatment section: planned acts."""
    found = update.kind("ServiceRequest")
    return [_line(one, _planned(update, one, loinc="18776-5") if _is_planned(one) else None) for one in found]


def interventions(update: Update) -> list[Line]:
    """Interventions section: planned acts, those that serve goals in planned intervention acts that point at them."""
    lines = []
    for one in update.kind("ServiceRequest"):
        served = [goal for goal in update.kind("Goal") if _own(goal, one)]
        entry = _planned(update, one, loinc="62387-6") if _is_planned(one) else None
        if entry is not None and served:
            entry = _intervention(update, one, entry, served)
        lines.append(_line(one, entry))
    return lines


def _intervention(update: Update, one: Resource, planned: Node, served: list[Resource]) -> Node:
    """Planned intervention act 4.146, which has to say for which goals."""
    return element(
        "act", *templates("4.146", "2015-08-01"),
        element("id", root=unique(update.base, "intervention", str(one.get("id")))),
        code("code", "362956003", SNOMED_OID, "Procedure / intervention"), element("statusCode", code="active"),
        element("entryRelationship", planned, typeCode="REFR"),
        *[pointer(identifiers(goal, update.base), "RSON") for goal in served],
        classCode="ACT", moodCode="INT",
    )  # fmt: skip


def _own(goal: Resource, request: Resource) -> bool:
    """Whether a request serves a goal: compose gives both the same id, the plan's with the measure's name."""
    return goal.get("id") == request.get("id")
