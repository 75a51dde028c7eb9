"""A body mass index from a height and a weight, when nobody sent one; with Provenance, and only on one day.

Source: LOINC 39156-5; US Core 6.1.0, us-core-bmi and us-core-provenance; tables/measures.toml, [derived-BMI].
"""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal, localcontext
from functools import cache
from typing import Any

from mappers.converters import resource_id
from mappers.fhir.measures import Measure, effective, read_table, synonyms_of, tables
from mappers.fhir.quantities import ucum_code, units
from profiles.canonical import DATA_OPERATION, LOINC, OBSERVATION_CATEGORY, PROVENANCE_PARTICIPANT, UCUM, US_CORE_PINNED
from profiles.issue import Issue, Severity, error

Resource = dict[str, Any]

_FINAL = ("final", "amended", "corrected")
_DAY = len("2026-01-31")
_EXACT = 30


@dataclass(frozen=True, slots=True)
class Derived:
    """The BMI and how it came about; with an error among `issues` there is none."""

    observation: Resource | None
    provenance: Resource | None
    issues: tuple[Issue, ...]


@dataclass(frozen=True, slots=True)
class _Rule:
    height: str
    weight: str
    days_apart: int
    shortest: Decimal
    tallest: Decimal
    lightest: Decimal
    heaviest: Decimal


@cache
def limits() -> _Rule:
    """The row [derived-BMI] of tables/measures.toml."""
    row = read_table("measures.toml")["derived-BMI"]
    bounds = {name: Decimal(row[name]) for name in ("shortest", "tallest", "lightest", "heaviest")}
    return _Rule(row["height"], row["weight"], row["days_apart"], **bounds)


def derived_bmi(height: Resource, weight: Resource, *, recorded: str) -> Derived:
    """The BMI of two Observations of one patient, measured within `days_apart` days of each other.

    Shape: an Observation (39156-5, kg/m2, one decimal) with the weight's time, `derivedFrom` both; a Provenance that
    names both as sources; ids hang on those of the two. Nothing of the two is changed. Units: any that
    tables/units.toml turns into metres and kilograms, calculated exactly and rounded once, half up.
    `recorded` is RFC 3339. Raises: nothing.
    """
    found = [*_obstacles(height, weight)]
    metres = _value(height, "height", "m", found)
    kilograms = _value(weight, "weight", "kg", found)
    rule = limits()
    if metres is not None and not rule.shortest <= metres <= rule.tallest:
        found.append(error("value", "Observation.valueQuantity", "No adult has this height: look at its unit."))
    if kilograms is not None and not rule.lightest <= kilograms <= rule.heaviest:
        found.append(error("value", "Observation.valueQuantity", "No adult has this weight: look at its unit."))
    if found or metres is None or kilograms is None:
        return Derived(None, None, tuple(found))
    measure = next(row for row in tables().measures.values() if row.name == "BMI")
    observation = _observation(height, weight, measure, _ratio(kilograms, metres, measure.digits))
    text = "The BMI was calculated from height and weight of one day: nobody sent it."
    told = Issue(Severity.INFORMATION, "informational", "Observation", text)
    return Derived(observation, _provenance(observation, recorded), (told,))


def is_height(resource: Resource) -> bool:
    """Whether a resource is a measured body height."""
    return resource["resourceType"] == "Observation" and limits().height in synonyms_of(resource.get("code"))


def derived_id(height_id: str, weight_id: str) -> str:
    """The id of the BMI that is made of these two: it says whether a stored BMI is one of ours."""
    return resource_id("Observation", "BMI", height_id, weight_id)


def _ratio(kilograms: Decimal, metres: Decimal, digits: int) -> Decimal:
    with localcontext(prec=_EXACT, rounding="ROUND_HALF_UP"):
        return (kilograms / (metres * metres)).quantize(Decimal(1).scaleb(-digits))


def _obstacles(height: Resource, weight: Resource) -> list[Issue]:
    rule = limits()
    found: list[Issue] = []
    for one, code in ((height, rule.height), (weight, rule.weight)):
        if code not in synonyms_of(one.get("code")):
            found.append(error("code-invalid", "Observation.code", f"The Observation is no {code}, measured."))
        if one.get("status") not in _FINAL or "modifierExtension" in one or not isinstance(one.get("id"), str):
            found.append(error("business-rule", "Observation.status", "Only final, stored values are calculated with."))
    if _patient(height) is None or _patient(height) != _patient(weight):
        found.append(error("conflict", "Observation.subject", "Height and weight are not of one patient."))
    first, second = _day(height), _day(weight)
    if first is None or second is None or abs((first - second).days) > rule.days_apart:
        text = (
            f"Height and weight were not measured within {rule.days_apart} days of each other: no BMI is made of them."
        )
        found.append(error("business-rule", "Observation.effective", text))
    return found


def _patient(observation: Resource) -> str | None:
    subject = observation.get("subject")
    reference = subject.get("reference") if isinstance(subject, dict) else None
    return reference if isinstance(reference, str) else None


def _day(observation: Resource) -> date | None:
    """The calendar day, in the offset that the source states."""
    found = effective(observation)
    stated = found[1] if found else None
    stated = stated.get("start") if isinstance(stated, dict) else stated
    try:
        return date.fromisoformat(stated[:_DAY]) if isinstance(stated, str) else None
    except ValueError:
        return None


def _value(observation: Resource, name: str, target: str, found: list[Issue]) -> Decimal | None:
    """The number in the target unit, unrounded."""
    quantity = observation.get("valueQuantity")
    quantity = quantity if isinstance(quantity, dict) and "comparator" not in quantity else {}
    value, unit = quantity.get("value"), ucum_code(quantity)
    conversion = units().conversion(name, unit, target=target) if unit else None
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or conversion is None:
        text = f"CMS takes a BMI of numbers: the {name} has none in a unit that becomes {target}."
        found.append(error("value", "Observation.valueQuantity", text))
        return None
    return conversion.exact(Decimal(value))


def _observation(height: Resource, weight: Resource, measure: Measure, value: Decimal) -> Resource:
    name, when = effective(weight) or ("", "")
    category = {"system": OBSERVATION_CATEGORY, "code": measure.category}
    return {
        "resourceType": "Observation",
        "id": derived_id(height["id"], weight["id"]),
        "meta": {"profile": [US_CORE_PINNED(measure.profile)]},
        "status": "final",
        "category": [{"coding": [category]}],
        "code": {"coding": [{"system": LOINC, "code": measure.code, "display": measure.display}]},
        "subject": weight["subject"],
        name: when,
        "valueQuantity": {"value": value, "unit": measure.unit_text, "system": UCUM, "code": measure.unit},
        "derivedFrom": [{"reference": f"Observation/{one['id']}"} for one in (height, weight)],
    }


def _provenance(observation: Resource, recorded: str) -> Resource:
    assembler = {"coding": [{"system": PROVENANCE_PARTICIPANT, "code": "assembler"}]}
    return {
        "resourceType": "Provenance",
        "id": resource_id("Provenance", "BMI", observation["id"]),
        "meta": {"profile": [US_CORE_PINNED("us-core-provenance")]},
        "target": [{"reference": f"Observation/{observation['id']}"}],
        "recorded": recorded,
        "activity": {"coding": [{"system": DATA_OPERATION, "code": "CREATE"}]},
        "agent": [{"type": assembler, "who": {"display": "access-facade, calculation of the body mass index"}}],
        "entity": [{"role": "source", "what": dict(one)} for one in observation["derivedFrom"]],
    }
