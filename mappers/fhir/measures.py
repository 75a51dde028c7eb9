"""From a stored Observation to the Observation of CMS's report: code, unit, category and profile by table.

Source: CMS ACCESS Model API IG 0.9.12, ACCESSDataReportingComposition; US Core 6.1.0 profiles.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from mappers.engine import load
from mappers.fhir import references
from mappers.fhir.quantities import ucum_code, units
from profiles.canonical import LOINC, OBSERVATION_CATEGORY, UCUM, US_CORE_PINNED
from profiles.issue import Issue, Severity, error

Resource = dict[str, Any]

_CATEGORY_DISPLAY = {"vital-signs": "Vital Signs", "laboratory": "Laboratory"}
_REPORTABLE = ("final", "amended", "corrected")  # preliminary values change, the others are none
_DAY = len("2026-01-31")
_MAGNITUDE = 20  # no measure has more digits than that on either side of the point


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of tables/measures.toml: how CMS wants a measure. `digits`: decimals of a converted value."""

    name: str
    code: str
    display: str
    category: str
    profile: str
    digits: int
    unit: str
    unit_text: str
    components: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Synonym:
    """One row of tables/synonyms.toml: an arriving LOINC code is CMS's code `to`."""

    to: str
    relationship: str
    source: str


@dataclass(frozen=True, slots=True)
class Tables:
    """All rows: measures by CMS's code, displays of components, synonyms by arriving code."""

    measures: dict[str, Measure]
    components: dict[str, str]
    synonyms: dict[str, Synonym]


def read_table(name: str) -> dict[str, Any]:
    """A file of mappers/fhir/tables, as plain data, with the user's rows laid over it."""
    return load("mappers.fhir", f"tables/{name}")


@cache
def tables() -> Tables:
    """The tables of measures, read once."""
    data = read_table("measures.toml")
    rows = [Measure(**(row | {"components": tuple(row.get("components", ()))})) for row in data["measure"]]
    synonyms = read_table("synonyms.toml")["synonym"]
    return Tables(
        measures={row.code: row for row in rows},
        components={row["code"]: row["display"] for row in data["component"]},
        synonyms={row["from"]: Synonym(row["to"], row["relationship"], row["source"]) for row in synonyms},
    )


def _synonyms(concept: object) -> Iterator[tuple[str, Synonym]]:
    """The arriving LOINC codes of one CodeableConcept that the table knows."""
    codings = references.objects(concept.get("coding")) if isinstance(concept, dict) else []
    known = tables().synonyms
    for coding in codings:
        if coding.get("system") == LOINC and references.text(coding.get("code")) in known:
            yield coding["code"], known[coding["code"]]


def synonyms_of(concept: object) -> frozenset[str]:
    """CMS's codes, and the others that we calculate with, which a CodeableConcept means."""
    return frozenset(row.to for _, row in _synonyms(concept))


def measure_of(observation: Resource) -> str | None:
    """The name of the report's slice that an Observation belongs to (blood-pressure, lipids, ...); None: to none."""
    for _, synonym in _synonyms(observation.get("code")):
        measure = tables().measures.get(synonym.to)
        if measure is not None:
            return measure.name
    return None


def is_part(observation: Resource) -> bool:
    """Whether an Observation is one component of a measure by itself: a systolic pressure without its diastolic."""
    return not tables().components.keys().isdisjoint(synonyms_of(observation.get("code")))


def normalise(observation: Resource) -> tuple[Resource | None, list[Issue]]:
    """One stored Observation in the form that CMS's report takes.

    Shape: a new Observation with id, status, subject and time of the source, one coding, CMS's unit, one category and
    one claimed profile; without narrative and without references beside the subject. None: it is not a measure of
    ACCESS (then without issues), or it can not be reported (then with an error that says why).
    Units: converted by tables/units.toml in exact decimals; a value in CMS's unit keeps its digits.
    Raises: nothing.
    """
    found = [(code, row) for code, row in _synonyms(observation.get("code")) if row.to in tables().measures]
    if not found:
        return None, []
    code, synonym = found[0]
    measure = tables().measures[synonym.to]
    issues = list(_obstacles(observation, {row.to for _, row in found}))
    issues += _remark(code, synonym, location="Observation.code")
    values = (
        _components(observation, measure, issues=issues)
        if measure.components
        else _value(observation, measure, issues=issues)
    )
    if any(issue.is_error for issue in issues):
        return None, issues
    return _frame(observation, measure) | values, issues


def _obstacles(observation: Resource, targets: set[str]) -> Iterator[Issue]:
    """Why this Observation must not be reported, whatever its value."""
    if len(targets) > 1:
        yield error("conflict", "Observation.code", "The codings name different measures; send one measure.")
    if observation.get("status") not in _REPORTABLE:
        yield error("business-rule", "Observation.status", "Only final, amended and corrected values are reported.")
    if "modifierExtension" in observation:
        yield error("not-supported", "Observation.modifierExtension", "A modifier extension changes what this says.")
    found = effective(observation)
    if found is None:
        text = "CMS takes a measured time: effectiveDateTime or effectivePeriod has to be sent."
        yield error("required", "Observation.effective", text)
    elif isinstance(found[1], str) and len(found[1]) < _DAY:
        yield error("value", "Observation.effective", "US Core rule us-core-1: the time needs a day at least.")


def effective(observation: Resource) -> tuple[str, Any] | None:
    """The measured time under the name that both US Core profiles allow: an instant is a dateTime."""
    for name in ("effectiveDateTime", "effectiveInstant", "effectivePeriod"):
        if name in observation:
            return ("effectiveDateTime" if name == "effectiveInstant" else name), observation[name]
    return None


def _remark(code: str, synonym: Synonym, *, location: str) -> list[Issue]:
    if synonym.relationship != "inexact":
        return []
    text = f"LOINC {code} is reported as {synonym.to}, the only code that CMS takes for this measure."
    return [Issue(Severity.INFORMATION, "informational", location, text)]


def _value(observation: Resource, measure: Measure, *, issues: list[Issue]) -> Resource:
    return {"valueQuantity": _quantity(observation, measure, location="Observation", issues=issues)}


def _components(observation: Resource, measure: Measure, *, issues: list[Issue]) -> Resource:
    """The components that CMS names, each exactly once, in CMS's order."""
    rows: dict[str, list[Resource]] = {code: [] for code in measure.components}
    for index, component in enumerate(observation.get("component", ())):
        for code, synonym in _synonyms(component.get("code")):
            if synonym.to in rows:
                location = f"Observation.component[{index}]"
                issues += _remark(code, synonym, location=f"{location}.code")
                rows[synonym.to].append(
                    _component(component, synonym.to, measure=measure, location=location, issues=issues)
                )
                break
    for code, found in rows.items():
        if len(found) != 1:
            text = f"The {measure.name} needs exactly one component {code}."
            issues.append(error("required", "Observation.component", text))
    return {"component": [found[0] for found in rows.values() if found]}


def _component(component: Resource, code: str, *, measure: Measure, location: str, issues: list[Issue]) -> Resource:
    concept = _concept(code, tables().components[code])
    return {"code": concept, "valueQuantity": _quantity(component, measure, location=location, issues=issues)}


def _quantity(holder: Resource, measure: Measure, *, location: str, issues: list[Issue]) -> Resource:
    """The value in CMS's unit; an error is added to `issues` when there is none."""
    quantity = holder.get("valueQuantity", {})
    value = _number(quantity)
    if value is None:
        issues.append(error("required", f"{location}.value", "CMS takes a number with its unit (valueQuantity)."))
        return {}
    unit = ucum_code(quantity)
    conversion = units().conversion(measure.name, unit, target=measure.unit) if unit else None
    if conversion is None:
        text = f"The unit is missing or is none that tables/units.toml turns into {measure.unit} for this measure."
        issues.append(error("value", f"{location}.valueQuantity", text))
        return {}
    if conversion.changes:
        text = f"Converted from {unit} to {measure.unit}: {conversion.source}."
        issues.append(Issue(Severity.INFORMATION, "informational", f"{location}.valueQuantity", text))
    converted = conversion.apply(Decimal(value), measure.digits) if conversion.changes else value
    kept = {"comparator": quantity["comparator"]} if "comparator" in quantity else {}
    return {"value": converted} | kept | {"unit": measure.unit_text, "system": UCUM, "code": measure.unit}


def _number(quantity: object) -> int | Decimal | None:
    """The number of a Quantity, if it is one that a measure can have."""
    value = quantity.get("value") if isinstance(quantity, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return None
    return value if abs(Decimal(value).adjusted()) < _MAGNITUDE else None


def _concept(code: str, display: str) -> Resource:
    return {"coding": [{"system": LOINC, "code": code, "display": display}]}


def _frame(observation: Resource, measure: Measure) -> Resource:
    """Everything but the value."""
    category = {
        "system": OBSERVATION_CATEGORY,
        "code": measure.category,
        "display": _CATEGORY_DISPLAY[measure.category],
    }
    frame: Resource = {"resourceType": "Observation"}
    if "id" in observation:
        frame["id"] = observation["id"]
    frame |= {
        "meta": {"profile": [US_CORE_PINNED(measure.profile)]},
        "status": observation["status"],
        "category": [{"coding": [category]}],
        "code": _concept(measure.code, measure.display),
    }
    if "subject" in observation:
        frame["subject"] = observation["subject"]
    found = effective(observation)
    return frame | (dict([found]) if found else {})
