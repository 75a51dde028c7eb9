"""Invariants of US Core 6.1.0 and of R4's vital signs as named functions: `RULES[key] = (holds, sentence)`."""

import re
from typing import Any

from profiles.base_rules import Holds, has, has_code
from profiles.canonical import DATA_ABSENT_REASON_EXTENSION, IDENTIFIER_TYPE, NDC, SNOMED, UCUM
from profiles.run import Scope

Json = dict[str, Any]

_RESULTED = frozenset(["partial", "preliminary", "final", "amended", "corrected", "appended"])
_ORDERS = frozenset(["order", "original-order", "reflex-order", "filler-order", "instance-order"])
_NPI_WEIGHT = 24  # the check digit counts the prefix 80840


def _has_result(value: Json, scope: Scope) -> bool:
    return "component" in value or "hasMember" in value or "dataAbsentReason" in value or has(value, "value")


def _component_result(value: Json, scope: Scope) -> bool:
    return "dataAbsentReason" in value or has(value, "value")


def _to_the_day(value: Any, scope: Scope) -> bool:
    return type(value) is not str or len(value) >= 10


def _ucum(value: Json, scope: Scope) -> bool:
    quantity = value.get("valueQuantity") if type(value) is dict and "valueQuantity" in value else value
    return type(quantity) is not dict or quantity.get("system", UCUM) == UCUM or "value" not in quantity


def _snomed(value: Json, scope: Scope) -> bool:
    concept = value.get("valueCodeableConcept", value) if type(value) is dict else {}
    systems = [each["system"] for each in concept.get("coding", ()) if "system" in each]
    return not systems or SNOMED in systems


def _resulted(stem: str) -> Holds:
    def holds(value: Json, scope: Scope) -> bool:
        return value.get("status") not in _RESULTED or stem in value or has(value, stem)

    return holds


def _any_of(*names: str) -> Holds:
    return lambda value, scope: any(name in value for name in names)


def _named(value: Json, scope: Scope) -> bool:
    absent = any(each.get("url") == DATA_ABSENT_REASON_EXTENSION for each in value.get("extension", ()))
    return ("family" in value or "given" in value) != absent


def _attached(value: Json, scope: Scope) -> bool:
    return "url" in value or "data" in value


def _us_core_6(value: Json, scope: Scope) -> bool:
    """US Core uses the key twice: on a name and on an attachment."""
    is_attachment = "contentType" in value or "url" in value or "data" in value
    return _attached(value, scope) if is_attachment else _named(value, scope)


def _performed(value: Json, scope: Scope) -> bool:
    return value.get("status") not in ("completed", "in-progress") or has(value, "performed")


def _no_ndc(value: Json, scope: Scope) -> bool:
    return not any(each.get("system") == NDC for each in value.get("vaccineCode", {}).get("coding", ()))


def _member(value: Json, scope: Scope) -> bool:
    numbered = any(has_code(each.get("type"), IDENTIFIER_TYPE, "MB") for each in value.get("identifier", ()))
    return numbered or "subscriberId" in value


def _digits(pattern: str) -> Holds:
    matches = re.compile(pattern, re.ASCII).fullmatch
    return lambda value, scope: "value" not in value or matches(value["value"]) is not None


def npi_is_valid(number: str) -> bool:
    """Whether ten digits carry the check digit of an NPI (Luhn over 80840 and the number)."""
    if len(number) != 10 or not (number.isascii() and number.isdecimal()):
        return False
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in number[0:9:2])
    return (doubled + sum(map(int, number[1::2])) + _NPI_WEIGHT) % 10 == 0


def _ordered(value: Json, scope: Scope) -> bool:
    return value.get("intent") not in _ORDERS or "requester" in value


def _dispensed(value: Json, scope: Scope) -> bool:
    return value.get("status") != "completed" or "whenHandedOver" in value


def _on_behalf(value: Json, scope: Scope) -> bool:
    reference = value.get("who", {}).get("reference", "")
    target = scope.resolve(reference) if reference else None
    return target is None or target["resourceType"] not in ("Practitioner", "Device") or "onBehalfOf" in value


RULES: dict[str, tuple[Holds, str]] = {
    "vs-1": (
        lambda v, s: type(v) is not str or len(v) >= 8,
        "A vital sign says the day; send at least year, month and day",
    ),
    "vs-2": (_has_result, "A vital sign without components or members has a value or dataAbsentReason; add one"),
    "vs-3": (_component_result, "A vital sign's component has a value or dataAbsentReason; add one"),
    "us-core-1": (_to_the_day, "The time says at least the day; send year, month and day"),
    "us-core-2": (_has_result, "A result without components or members has a value or dataAbsentReason; add one"),
    "us-core-3": (_ucum, "A coded unit is a UCUM unit; correct the unit's system"),
    "us-core-4": (_snomed, "A coded result should be SNOMED CT; add the code"),
    "us-core-5": (_no_ndc, "A vaccine is not coded in NDC; send CVX"),
    "us-core-6": (
        _us_core_6,
        "A name has family, given or a data-absent-reason, and an attachment url or data; add it",
    ),
    "us-core-7": (_performed, "A procedure done or under way says when; add performed"),
    "us-core-8": (_resulted("effective"), "A report with results says its clinical time; add effective"),
    "us-core-9": (_resulted("issued"), "A report with results says when it was issued; add issued"),
    "us-core-10": (_resulted("effective"), "A report with results says its clinical time; add effective"),
    "us-core-13": (
        _any_of("practitioner", "organization", "healthcareService", "location"),
        "A role names who, where or what; add a practitioner, organization, healthcareService or location",
    ),
    "us-core-14": (_any_of("name", "relationship"), "A related person has a name or a relationship; add one"),
    "us-core-15": (_member, "Coverage names the member; add an identifier of type MB or subscriberId"),
    "us-core-16": (_digits("[0-9]{10}"), "An NPI has ten digits; correct it"),
    "us-core-17": (
        lambda v, s: "value" not in v or npi_is_valid(v["value"]),
        "An NPI's check digit fits; correct the number",
    ),
    "us-core-18": (_digits("[0-9]{2}D[0-9]{7}"), "A CLIA number is two digits, D and seven digits; correct it"),
    "us-core-19": (_digits("[0-9]{5}"), "A NAIC number has five digits; correct it"),
    "us-core-20": (_dispensed, "A completed dispense says when it was handed over; add whenHandedOver"),
    "us-core-21": (_ordered, "An order names its requester; add it"),
    "pd-1": (_any_of("telecom", "endpoint"), "A role can be reached; add a telecom or an endpoint"),
    "provenance-1": (_on_behalf, "A practitioner or device acts on behalf of someone; add onBehalfOf"),
}
