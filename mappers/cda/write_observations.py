"""Observations of a care update as C-CDA entries: vital signs, results, scales, and the outcomes of goals.

Source: C-CDA R2.1, 4.26, 4.27, 4.1, 4.2, 4.69, 4.144, 4.110; C-CDA on FHIR 2.0.0, FHIR to CDA.
"""

from collections.abc import Iterable

from mappers.cda.context import codes
from mappers.cda.markup import (
    SNOMED_OID,
    Resource,
    code,
    coded,
    effective,
    element,
    identifiers,
    leading,
    nodes,
    quantity,
    template,
    unique,
    valued,
)
from mappers.cda.parse import Node
from mappers.cda.update import Line, Update, categories, key_of, label, spoken, told, when
from mappers.cda.write_plans import comment, pointer
from profiles.canonical import LOINC, UUID_SYSTEM


def _components(resource: Resource) -> list[Resource]:
    """The readings in an Observation: itself, or each component under its own code."""
    parts = resource.get("component", ())
    if not parts:
        return [resource]
    shared = {name: resource[name] for name in _SHARED if name in resource}
    own = [resource] if any(name.startswith("value") for name in resource) else []
    return own + [shared | part | {"id": f"{resource.get('id')}.{index}"} for index, part in enumerate(parts)]


_SHARED = ("resourceType", "status", "effectiveDateTime", "effectivePeriod")
_STATUS = {"final": "completed", "amended": "completed", "corrected": "completed", "registered": "active"}


def _observation(
    update: Update,
    one: Resource,
    *,
    templates: Iterable[Node],
    loinc: str,
    key: str,
    relations: Iterable[Node] = (),
) -> Node:
    """One observation in mood EVN."""
    notes = [comment(note) for note in one.get("note", ())]
    ranges = [_range(part) for part in one.get("referenceRange", ())]
    return element(
        "observation",
        *templates,
        *identifiers(one, update.base),
        coded("code", one.get("code")),
        told(loinc, key),
        element("statusCode", code=_STATUS.get(one.get("status", ""), "completed")),
        effective(one),
        valued(one),
        *[coded("interpretationCode", part) for part in one.get("interpretation", ())],
        *notes,
        *relations,
        *[part for part in ranges if part is not None],
        classCode="OBS",
        moodCode="EVN",
    )


def _range(part: Resource) -> Node | None:
    bounds = [quantity(name, part[name]) for name in ("low", "high") if name in part]
    text = element("text", part["text"]) if part.get("text") else None
    if not bounds and text is None:
        return None
    value = element("value", *bounds, type_="IVL_PQ") if bounds else None
    return element("referenceRange", element("observationRange", text, value))


def _readings(update: Update, found: list[Resource], *, organizer: str, member: str, loinc: str) -> list[Line]:
    """Each Observation as an organizer with its readings."""
    lines = []
    for one in found:
        parts = _components(one)
        key = key_of(one)
        members = [
            element("component", _observation(update, part, templates=_twice(member), loinc=loinc, key=key))
            for part in parts
        ]
        single = spoken(parts[0])
        text = single if len(parts) == 1 else ", ".join(f"{label(part.get('code'))} {spoken(part)}" for part in parts)
        ids = [element("id", root=unique(update.base, "organizer", loinc, str(one.get("id"))))]
        kind = (
            code("code", "46680005", SNOMED_OID, "Vital signs") if loinc == "8716-3" else coded("code", one.get("code"))
        )
        entry = element(
            "organizer", *_twice(organizer), *ids, kind, element("statusCode", code="completed"),
            effective(one), *members, classCode="CLUSTER" if loinc == "8716-3" else "BATTERY", moodCode="EVN",
        )  # fmt: skip
        lines.append(Line(key, (label(one.get("code")), text, when(one)), entry))
    return lines


def _twice(root: str) -> list[Node]:
    """Dated and undated, as R2.1 asks for receivers of R1.1."""
    return [template(root), template(root, "2014-06-09" if root == "4.27" else "2015-08-01")]


def vital_signs(update: Update) -> list[Line]:
    """Vital signs section: organizers 4.26; a blood pressure is its two readings."""
    found = [one for one in update.in_category("vital-signs") if "hasMember" not in one]
    return _readings(update, found, organizer="4.26", member="4.27", loinc="8716-3")


def results(update: Update) -> list[Line]:
    """Results section: organizers 4.1."""
    found = update.in_category("laboratory")
    return _readings(update, found, organizer="4.1", member="4.2", loinc="30954-2")


def scales(update: Update) -> list[Line]:
    """Everything else that was observed, PROM scores above all: assessment scale observations 4.69."""
    others = [one for one in update.kind("Observation") if categories(one).isdisjoint({"vital-signs", "laboratory"})]
    lines = []
    for one in others:
        key = key_of(one)
        entry = _observation(update, one, templates=[template("4.69")], loinc="10190-7", key=key)
        lines.append(Line(key, (label(one.get("code")), spoken(one), when(one)), entry))
    return lines


def outcomes(update: Update) -> list[Line]:
    """Outcomes section: for each goal the value that it came to (4.144), with the progress toward it (4.110)."""
    lines = []
    for goal in update.kind("Goal"):
        for reference in goal.get("outcomeReference", ()):
            one = update.find(reference.get("reference", ""))
            if one is not None and one["resourceType"] == "Observation":
                lines.append(_outcome(update, goal, one))
    return lines


def _outcome(update: Update, goal: Resource, one: Resource) -> Line:
    """The reading that the goal's target measures, else the Observation as it is."""
    wanted = _codes(leading(goal.get("target")).get("measure"))
    parts = [part for part in _components(one) if not wanted.isdisjoint(_codes(part.get("code")))]
    reading = parts[0] if parts else one
    key = f"{key_of(goal)}.{key_of(one)}"
    urn = f"urn:uuid:{unique(update.base, 'outcome', key)}"
    identity = {"identifier": [{"system": UUID_SYSTEM, "value": urn}]}
    relations = nodes(pointer(identifiers(goal, update.base), "GEVL"), _progress(goal))
    stated = {name: value for name, value in reading.items() if name != "note"} | identity
    kinds = [template("4.144")]
    entry = _observation(update, stated, templates=kinds, loinc="11383-7", key=key, relations=relations)
    return Line(key, (label(reading.get("code")), spoken(reading), when(one)), entry)


def _codes(concept: Resource | None) -> set[str]:
    """The LOINC codes of a concept."""
    return {one.get("code", "") for one in (concept or {}).get("coding", ()) if one.get("system") == LOINC}


def _progress(goal: Resource) -> Node | None:
    known = {fhir: snomed for snomed, fhir in codes()["goal-progress"].items()}
    stated = (part.get("code", "") for part in goal.get("achievementStatus", {}).get("coding", ()))
    found = next((known[one] for one in stated if one in known), None)
    if found is None:
        return None
    observation = element(
        "observation", template("4.110"), element("id", nullFlavor="NI"),
        code("code", "ASSERTION", "2.16.840.1.113883.5.4"), element("statusCode", code="completed"),
        code("value", found, SNOMED_OID, type_="CD"), classCode="OBS", moodCode="EVN",
    )  # fmt: skip
    return element("entryRelationship", observation, typeCode="SPRT")
