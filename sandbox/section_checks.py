"""The sub-sections of a report's track section, and the Questionnaires its responses name.

Table: data/sections.toml.
"""

from collections.abc import Callable, Iterator
from typing import Any

from sandbox import tables
from sandbox.exchange import Issue
from sandbox.fhirjson import claims, codings, filled, obj, rows

Resolve = Callable[[Any], dict[str, Any] | None]
OBSERVATION = ("status", "category", "code", "subject")
RESPONSE = ("questionnaire", "status", "authored", "item")


def sections(resolve: Resolve, track_section: dict[str, Any], track: str, where: str) -> Iterator[Issue]:
    """Every reason to refuse a sub-section. The slicing is open: an unknown section code passes."""
    seen: set[str] = set()
    for index, section in enumerate(rows(track_section.get("section"))):
        place = f"{where}.section[{index}]"
        code = section_code(section)
        rule = _rule(code, track)
        if not code:
            yield Issue("required", "Each sub-section must have a code", f"{place}.code")
        if rule is None:
            continue
        if code in seen:
            yield Issue("invalid", f"Sub-section {code} is given twice", place)
        seen.add(code)
        yield from _entries(resolve, section, rule, place)


def section_code(section: dict[str, Any]) -> str:
    """The section's code, or nothing."""
    found = codings(section.get("code"))
    return str(found[0].get("code", "")) if found else ""


def _rule(code: str, track: str) -> dict[str, Any] | None:
    rules: list[dict[str, Any]] = tables.table("sections")["section"]
    return next((rule for rule in rules if rule["code"] == code and track in rule["tracks"]), None)


def _entries(resolve: Resolve, section: dict[str, Any], rule: dict[str, Any], where: str) -> Iterator[Issue]:
    entries = rows(section.get("entry"))
    if not entries:
        yield Issue("required", f"Sub-section {rule['code']} has no entry", f"{where}.entry")
    if len(entries) > rule.get("max_entries", len(entries)):
        yield Issue("invalid", f"Sub-section {rule['code']} has more entries than allowed", f"{where}.entry")
    for index, reference in enumerate(entries):
        resource = resolve(reference)
        if resource is not None:
            yield from _entry(resource, rule, f"{where}.entry[{index}]")


def _entry(resource: dict[str, Any], rule: dict[str, Any], where: str) -> Iterator[Issue]:
    if not claims(resource, *rule["profiles"]):
        text = f"The entry of sub-section {rule['code']} must claim {' or '.join(rule['profiles'])}"
        yield Issue("invalid", text, where)
    name = resource.get("resourceType")
    if name == "Observation":
        yield from _observation(resource, rule, where)
    if name == "QuestionnaireResponse":
        yield from _missing(resource, RESPONSE, where)


def _missing(resource: dict[str, Any], elements: tuple[str, ...], where: str) -> Iterator[Issue]:
    for element in elements:
        if element not in resource:
            name = resource["resourceType"]
            yield Issue("required", f"Missing required element: {name}.{element}", where)


def _observation(observation: dict[str, Any], rule: dict[str, Any], where: str) -> Iterator[Issue]:
    yield from _missing(observation, OBSERVATION, where)
    if not any(filled(observation.get(name)) for name in ("effectiveDateTime", "effectiveInstant")) and not (
        obj(observation.get("effectivePeriod"))
    ):
        yield Issue("required", "Observation has no effective time", where)
    if "components" in rule:
        yield from _components(observation, rule, where)
    else:
        yield from _value(observation, rule, where)


def _value(observation: dict[str, Any], rule: dict[str, Any], where: str) -> Iterator[Issue]:
    units = rule.get("units", {})
    found = [c["code"] for c in codings(observation.get("code"), tables.LOINC) if c.get("code") in units]
    if not found:
        text = f"Wrong LOINC code for the data element: sub-section {rule['code']} takes {', '.join(units)}"
        yield Issue("code-invalid", text, f"{where}.code")
        return
    if not _measures(observation, units[found[0]]):
        yield Issue("value", f"{found[0]} must be a quantity in UCUM {units[found[0]]}", f"{where}.valueQuantity")


def _components(observation: dict[str, Any], rule: dict[str, Any], where: str) -> Iterator[Issue]:
    if not any(c.get("code") == rule["code"] for c in codings(observation.get("code"), tables.LOINC)):
        text = f"Wrong LOINC code for the data element: sub-section {rule['code']} takes it alone"
        yield Issue("code-invalid", text, f"{where}.code")
    for code, unit in rule["components"].items():
        parts = [
            part
            for part in rows(observation.get("component"))
            if any(c.get("code") == code for c in codings(part.get("code"), tables.LOINC))
        ]
        if len(parts) != 1 or not _measures(parts[0], unit):
            yield Issue("value", f"{rule['code']} must have one component {code} in UCUM {unit}", f"{where}.component")


def _measures(element: dict[str, Any], unit: str) -> bool:
    """Whether its value is a number in the unit; a stated reason for its absence will do as well."""
    if obj(element.get("dataAbsentReason")):
        return True
    quantity = obj(element.get("valueQuantity"))
    is_number = isinstance(quantity.get("value"), (int, float)) and not isinstance(quantity["value"], bool)
    return is_number and quantity.get("system") == tables.UCUM and quantity.get("code") == unit


def questionnaires(resources: list[dict[str, Any]], where: str) -> Iterator[Issue]:
    """Each canonical a response names must resolve: in the report, or among those known to be public."""
    known = set(tables.table("sections")["questionnaires"]["public"])
    known |= {str(r.get("url")) for r in resources if r.get("resourceType") == "Questionnaire"}
    for index, resource in enumerate(resources):
        canonical = str(resource.get("questionnaire", "")).split("|")[0]
        if resource.get("resourceType") == "QuestionnaireResponse" and canonical and canonical not in known:
            text = "QuestionnaireResponse.questionnaire does not resolve: put the Questionnaire into the bundle"
            yield Issue("invalid", text, f"{where}.entry[{index}].resource.questionnaire")
