"""What CMS checks before its 202: the Parameters of the four operations. The table is data/requests.toml.

Source: ACCESS API IG 0.9.12, profiles access-*-in, and what its test environment was seen to refuse.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sandbox import fhirjson, report_checks, tables
from sandbox.codes import Codes
from sandbox.exchange import Issue
from sandbox.fhirjson import claims, codings, filled, obj, rows

REASON_WITH_CONDITION = "no-longer-clinically-eligible"


@dataclass(frozen=True, slots=True)
class Request:
    """What a check may look at beside its own parameter."""

    call: str
    entity_id: str | None
    codes: Codes
    body: dict[str, Any]

    def first(self, name: str) -> dict[str, Any]:
        """The first parameter of that name, or an empty one."""
        return next((p for p in rows(self.body.get("parameter")) if p.get("name") == name), {})

    def code(self, name: str) -> str:
        """The code of a coded parameter, or nothing."""
        found = codings(self.first(name).get("valueCodeableConcept"))
        return str(found[0].get("code", "")) if found else ""


Check = Callable[[Request, dict[str, Any], dict[str, Any], str], Iterator[Issue]]


def check(request: Request) -> list[Issue]:
    """Every reason to refuse the request; empty if it is taken."""
    if request.body.get("resourceType") != "Parameters" or not rows(request.body.get("parameter")):
        return [Issue("structure", "Request body is not a well-formed Parameters resource", "Parameters")]
    issues = list(fhirjson.empties(request.body, "Parameters"))
    profile = tables.table("requests")["operations"][request.call]["profile"]
    if not claims(request.body, profile):
        url = tables.ig("StructureDefinition", profile)
        issues.append(Issue("required", f"Parameters.meta.profile must contain {url}", "Parameters.meta.profile"))
    issues += _entity(request)
    issues += _names(request)
    issues += _parameters(request)
    return issues + _unalign_condition(request)


def _entity(request: Request) -> list[Issue]:
    stated = obj(request.first("participantID").get("valueIdentifier")).get("value")
    if not request.entity_id:
        return [Issue("required", "Missing required query parameter: entityId")]
    if stated and stated != request.entity_id:
        return [Issue("invalid", "Query parameter entityId differs from parameter participantID")]
    return []


def _rules(call: str) -> dict[str, dict[str, Any]]:
    return {rule["name"]: rule for rule in tables.table("requests")["parameter"] if call in rule["calls"]}


def _names(request: Request) -> list[Issue]:
    """Closed slicing: which names, and how often."""
    names = [str(p.get("name")) for p in rows(request.body["parameter"])]
    rules = _rules(request.call)
    issues = [
        Issue("invalid", f"Unknown parameter: {name[:64]}", f"Parameters.parameter[{index}].name")
        for index, name in enumerate(names)
        if name not in rules
    ]
    issues += [
        Issue("required", f"Missing required parameter: {name}", "Parameters.parameter")
        for name, rule in rules.items()
        if names.count(name) < rule["min"]
    ]
    return issues + [
        Issue("invalid", f"Parameter {name} is given more often than allowed", "Parameters.parameter")
        for name, rule in rules.items()
        if names.count(name) > rule.get("max", 1)
    ]


def _parameters(request: Request) -> list[Issue]:
    rules = _rules(request.call)
    issues: list[Issue] = []
    for index, parameter in enumerate(rows(request.body["parameter"])):
        rule = rules.get(str(parameter.get("name")))
        if rule is not None:
            issues += _parameter(request, rule, parameter, f"Parameters.parameter[{index}]")
    return issues


def _parameter(request: Request, rule: dict[str, Any], parameter: dict[str, Any], where: str) -> Iterator[Issue]:
    if "modifierExtension" in parameter:
        yield Issue("invalid", f"Parameter {rule['name']}: modifierExtension is not allowed", where)
    extra = {key for key in parameter if key == "resource" or key == "part" or key.startswith("value")}
    if extra != {rule["value"]}:
        yield Issue("invalid", f"Parameter {rule['name']} must have {rule['value']} and no other value", where)
    else:
        yield from CHECKS[rule["check"]](request, rule, parameter[rule["value"]], f"{where}.{rule['value']}")


def _participant(request: Request, rule: dict[str, Any], value: dict[str, Any], where: str) -> Iterator[Issue]:
    if not re.fullmatch(tables.PARTICIPANT_PATTERN, str(obj(value).get("value", ""))):
        text = "Participant ID format is invalid: it must be ACCES and five digits (access-participant-id-pattern)"
        yield Issue("invalid", text, f"{where}.value")


def _payer(request: Request, rule: dict[str, Any], value: dict[str, Any], where: str) -> Iterator[Issue]:
    if not filled(obj(value).get("value")):
        yield Issue("required", "Parameter payerID has no value", f"{where}.value")


def _boolean(request: Request, rule: dict[str, Any], value: Any, where: str) -> Iterator[Issue]:
    if not isinstance(value, bool):
        yield Issue("invalid", f"Parameter {rule['name']} must be true or false", where)


def _coded(request: Request, rule: dict[str, Any], value: dict[str, Any], where: str) -> Iterator[Issue]:
    """Required binding; and exactly one coding, as the section invariant of reports needs."""
    system = tables.ig("CodeSystem", rule["codes"])
    allowed = request.codes.codes_of(system) or tables.table("requests")["codes"][rule["codes"]]
    found = codings(value)
    if len(found) != 1 or found[0].get("system") != system or found[0].get("code") not in allowed:
        text = f"Invalid {rule['name']} code: send exactly one coding of {system}: {', '.join(sorted(allowed))}"
        yield Issue("code-invalid", text, f"{where}.coding")


def check_patient(patient: dict[str, Any], where: str) -> Iterator[Issue]:
    """US Core Patient as CMS asks for it: id, profile, identifier, name, gender, birthDate."""
    if obj(patient).get("resourceType") != "Patient":
        yield Issue("invalid", f"{where} must be a Patient", where)
        return
    if not claims(patient, "us-core-patient"):
        yield Issue("invalid", "Patient.meta.profile must contain us-core-patient 6.1.0", f"{where}.meta.profile")
    for name in ("id", "gender", "birthDate"):
        if not filled(patient.get(name)):
            yield Issue("required", f"Missing required element: Patient.{name}", f"{where}.{name}")
    if not any(filled(name.get("family")) or name.get("given") for name in rows(patient.get("name"))):
        yield Issue("required", "Missing required element: Patient.name", f"{where}.name")
    yield from _identifiers(patient, where)


def _identifiers(patient: dict[str, Any], where: str) -> Iterator[Issue]:
    identifiers = rows(patient.get("identifier"))
    if not identifiers:
        yield Issue("required", "Missing required element: Patient.identifier", f"{where}.identifier")
    for index, identifier in enumerate(identifiers):
        place = f"{where}.identifier[{index}]"
        if not (filled(identifier.get("system")) and filled(identifier.get("value"))):
            yield Issue("required", "Patient.identifier must have system and value", place)
        elif identifier["system"] == tables.MBI_SYSTEM and not fhirjson.MBI_PATTERN.fullmatch(identifier["value"]):
            yield Issue("invalid", "Medicare Beneficiary Identifier format is invalid", f"{place}.value")


def _patient(request: Request, rule: dict[str, Any], value: dict[str, Any], where: str) -> Iterator[Issue]:
    yield from check_patient(value, where)


def _condition(request: Request, rule: dict[str, Any], value: dict[str, Any], where: str) -> Iterator[Issue]:
    wanted = tables.table("requests")["conditions"][request.call]
    profiles = [name.format(track=request.code("track").lower()) for name in wanted["profiles"]]
    condition = obj(value)
    if condition.get("resourceType") != "Condition":
        yield Issue("invalid", f"{where} must be a Condition", where)
        return
    if not claims(condition, *profiles):
        text = (
            f"Condition.meta.profile must contain {' or '.join(tables.ig('StructureDefinition', p) for p in profiles)}"
        )
        yield Issue("invalid", text, f"{where}.meta.profile")
    system = "http://terminology.hl7.org/CodeSystem/condition-category"
    found = {c.get("code") for concept in rows(condition.get("category")) for c in codings(concept, system)}
    if not found & set(wanted["categories"]):
        yield Issue("required", f"Condition.category must contain {wanted['categories'][0]}", f"{where}.category")
    yield from _diagnosis(condition, where)
    if not obj(condition.get("subject")):
        yield Issue("required", "Missing required element: Condition.subject", f"{where}.subject")


def _diagnosis(condition: dict[str, Any], where: str) -> Iterator[Issue]:
    found = codings(condition.get("code"), tables.ICD10CM)
    if len(found) != 1 or not filled(found[0].get("code")):
        text = "Condition.code must have exactly one ICD-10-CM coding with system and code"
        yield Issue("invalid", text, f"{where}.code.coding")


def _bundle(request: Request, rule: dict[str, Any], value: dict[str, Any], where: str) -> Iterator[Issue]:
    yield from report_checks.check(value, where, track=request.code("track"), entity_id=request.entity_id)
    for index, entry in enumerate(rows(obj(value).get("entry"))):
        if obj(entry.get("resource")).get("resourceType") == "Patient":
            yield from check_patient(entry["resource"], f"{where}.entry[{index}].resource")


def _unalign_condition(request: Request) -> list[Issue]:
    """Invariant access-unalign-condition-required."""
    needed = request.call == "unalign" and request.code("reason") == REASON_WITH_CONDITION
    if needed and not request.first("condition"):
        return [Issue("required", f"Missing required parameter: condition (reason {REASON_WITH_CONDITION})")]
    return []


CHECKS: dict[str, Check] = {
    "participant": _participant,
    "payer": _payer,
    "patient": _patient,
    "coded": _coded,
    "condition": _condition,
    "boolean": _boolean,
    "bundle": _bundle,
}
