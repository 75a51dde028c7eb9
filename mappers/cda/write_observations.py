"""Observations of a care update as C-CDA entries: vital signs, results, scales, and the outcomes of goals.

Source: C-CDA R2.1, 4.26, 4.27, 4.1, 4.2, 4.69, 4.144, 4.110; C-CDA on FHIR 2.0.0, FHIR to CDA.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mappers.cda.context import codes
from mappers.cda.markup import (
    SNOMED_OID,
    Resource,
    code,
    coded,
    effective,
    element,
    identifiers,
    interval,
    leading,
    nodes,
    quantity,
    template,
    templates,
    unique,
    valued,
)
from mappers.cda.node import Node
from mappers.cda.update import Line, Update, anchor, categories, key_of, label, spoken, told, when
from mappers.cda.write_plans import comments, noted, pointer
from profiles.canonical import LOINC, UCUM, UNITY, UUID_SYSTEM


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
    kinds: Iterable[Node],
    loinc: str,
    key: str,
    relations: Iterable[Node] = (),
) -> Node:
    """One observation in mood EVN."""
    ranges = [_range(part) for part in one.get("referenceRange", ())]
    return element(
        "observation",
        *kinds,
        *identifiers(one, update.base),
        coded("code", one.get("code")),
        told(loinc, key),
        element("statusCode", code=_STATUS.get(one.get("status", ""), "completed")),
        effective(one),
        _value(one),
        *[coded("interpretationCode", part) for part in one.get("interpretation", ())],
        *comments(noted(one), anchor(loinc, key)),
        *relations,
        *[part for part in ranges if part is not None],
        classCode="OBS",
        moodCode="EVN",
    )


def _value(one: Resource) -> Node:
    """The value, which every template here wants: that there is none, for an Observation without."""
    found = valued(one)
    return element("value", type_="PQ", nullFlavor="NI") if found is None else found


def _range(part: Resource) -> Node | None:
    """referenceRange; of one in words alone the value, which the template wants, is not there."""
    bounds = [quantity(name, part[name]) for name in ("low", "high") if name in part]
    text = element("text", part["text"]) if part.get("text") else None
    if not bounds and text is None:
        return None
    value = element("value", *bounds, type_="IVL_PQ", nullFlavor=None if bounds else "NI")
    return element("referenceRange", element("observationRange", text, value))


@dataclass(frozen=True, slots=True)
class _Battery:
    """An organizer of readings: its templates and theirs, and the LOINC code of its section."""

    organizer: tuple[str, str]
    member: tuple[str, str]
    loinc: str


_VITALS = _Battery(("4.26", "2015-08-01"), ("4.27", "2014-06-09"), "8716-3")
_RESULTS = _Battery(("4.1", "2015-08-01"), ("4.2", "2015-08-01"), "30954-2")


def _battery(update: Update, one: Resource, form: _Battery) -> Line:
    """An Observation as an organizer with its readings."""
    parts, key, is_vital = _components(one), key_of(one), form is _VITALS
    members = [
        element("component", _observation(update, part, kinds=templates(*form.member), loinc=form.loinc, key=key))
        for part in parts
    ]
    single = spoken(parts[0])
    text = single if len(parts) == 1 else ", ".join(f"{label(part.get('code'))} {spoken(part)}" for part in parts)
    kind = code("code", "46680005", SNOMED_OID, "Vital signs") if is_vital else coded("code", one.get("code"))
    entry = element(
        "organizer", *templates(*form.organizer),
        element("id", root=unique(update.base, "organizer", form.loinc, str(one.get("id")))),
        kind, element("statusCode", code="completed"), effective(one) if is_vital else interval(one), *members,
        classCode="CLUSTER" if is_vital else "BATTERY", moodCode="EVN",
    )  # fmt: skip
    return Line(key, (label(one.get("code")), text, when(one)), entry, noted(one))


def _is_measured(one: Resource) -> bool:
    """Whether each reading is a number with a UCUM unit, which is all that a vital sign (4.27) may be."""
    values = [part.get("valueQuantity", {}) for part in _components(one)]
    return all(
        "value" in value and "comparator" not in value and value.get("system") == UCUM and _is_unit(value.get("code"))
        for value in values
    )


def _is_unit(ucum: str | None) -> bool:
    """Whether CDA writes the number as a quantity: a bare number (unity) is an INT or REAL."""
    return bool(ucum) and ucum != UNITY


def vital_signs(update: Update) -> list[Line]:
    """Vital signs section: organizers 4.26; a blood pressure is its two readings."""
    found = [one for one in update.in_category("vital-signs") if _is_measured(one)]
    return [_battery(update, one, _VITALS) for one in found]


def results(update: Update) -> list[Line]:
    """Results section: organizers 4.1, and of the vital signs those that are no number with a UCUM unit."""
    others = [one for one in update.in_category("vital-signs") if not _is_measured(one)]
    found = [one for one in [*update.in_category("laboratory"), *others] if "hasMember" not in one]
    return [_battery(update, one, _RESULTS) for one in {key_of(one): one for one in found}.values()]


def scales(update: Update) -> list[Line]:
    """Everything else that was observed, PROM scores above all: assessment scale observations 4.69."""
    others = [one for one in update.kind("Observation") if categories(one).isdisjoint({"vital-signs", "laboratory"})]
    lines = []
    for one in others:
        key = key_of(one)
        entry = _observation(update, one, kinds=[template("4.69")], loinc="10190-7", key=key)
        lines.append(Line(key, (label(one.get("code")), spoken(one), when(one)), entry, noted(one)))
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
    entry = _observation(update, stated, kinds=kinds, loinc="11383-7", key=key, relations=relations)
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
