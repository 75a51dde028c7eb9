"""Which profile a resource may claim: the first of the wanted ones whose demands it meets.

The demands beyond base R4 are few and stand here as data; tests check every claim with profiles.validate.
Source: US Core 6.1.0 and PCO 1.0.0, differentials.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from mappers.converters import is_npi
from profiles.canonical import NDC, NPI, PCO, SNOMED, UCUM, US_CORE_PINNED
from profiles.valuesets import contains

Resource = dict[str, Any]
Demand = Callable[[Resource], bool]


def _has(*names: str) -> frozenset[str]:
    return frozenset(names)  # a mapper never writes an empty value


def _identified(resource: Resource) -> bool:
    """Every identifier has a system and a value, and an NPI is one."""
    for one in resource.get("identifier", ()):
        if "system" not in one or "value" not in one:
            return False
        if one["system"] == NPI and not is_npi(one["value"]):
            return False
    return True


def _npis(resource: Resource) -> bool:
    for one in resource.get("identifier", ()):
        if one.get("system") == NPI and not is_npi(one.get("value", "")):
            return False
    return True


def _telecoms(resource: Resource) -> bool:
    return "telecom" not in resource or all("system" in one and "value" in one for one in resource["telecom"])


def _families(resource: Resource) -> bool:
    return all("family" in one for one in resource.get("name", ()))


def _names(resource: Resource) -> bool:
    return all("family" in one or "given" in one for one in resource.get("name", ()))


def _lines(resource: Resource) -> bool:
    return "address" not in resource or all(len(one.get("line", ())) <= 4 for one in resource["address"])


def _to_the_day(resource: Resource) -> bool:
    return len(resource.get("effectiveDateTime", "2026-01-01")) >= 10


def _effective(resource: Resource) -> bool:
    when = resource.get("effectiveDateTime")
    return "effectivePeriod" in resource if when is None else len(when) >= 10


def _ucum(resource: Resource) -> bool:
    value = resource.get("valueQuantity")
    return value is None or value.get("system") in (None, UCUM)


def _ucum_code(resource: Resource) -> bool:
    return "valueQuantity" not in resource or "code" in resource["valueQuantity"]


_OXYGEN_UNITS = {"3151-8": "L/min", "3150-0": "%"}  # fixed by us-core-pulse-oximetry


def _oxygen(resource: Resource) -> bool:
    parts = resource.get("component", ())
    return all("dataAbsentReason" in part or _fixed_unit(part) for part in parts)


def _fixed_unit(part: Resource) -> bool:
    known = (_OXYGEN_UNITS.get(one.get("code", "")) for one in part["code"].get("coding", ()))
    return part.get("valueQuantity", {}).get("code") in [unit for unit in known if unit]


def _snomed(resource: Resource) -> bool:
    value = resource.get("valueCodeableConcept")
    return value is None or all(one.get("system") == SNOMED for one in value.get("coding", ()))


def _issued(resource: Resource) -> bool:
    return resource["status"] in ("registered", "cancelled", "entered-in-error") or (
        _effective(resource) and "issued" in resource
    )


def _occurred(resource: Resource) -> bool:
    return "occurrenceDateTime" in resource or "occurrenceString" in resource


def _no_ndc(resource: Resource) -> bool:
    """us-core-5."""
    return all(one.get("system") != NDC for one in resource["vaccineCode"].get("coding", ()))


def _performed(resource: Resource) -> bool:
    """us-core-7: a procedure that is completed or in progress says when."""
    timed = "performedDateTime" in resource or "performedPeriod" in resource
    return timed or resource["status"] not in ("completed", "in-progress")


def _requested(resource: Resource) -> bool:
    """us-core-21: an order says who ordered."""
    return resource["intent"] != "order" or "requester" in resource


def _related(resource: Resource) -> bool:
    return "name" in resource or "relationship" in resource


def _answered(value_set: str) -> Demand:
    def demand(resource: Resource) -> bool:
        codings = resource["valueCodeableConcept"].get("coding", ())
        return any(contains(value_set, one.get("system", ""), one.get("code", "")) for one in codings)

    return demand


_gas, _readiness = _answered("http://loinc.org/vs/LL6900-6"), _answered("http://loinc.org/vs/LL2335-9")


def _staffed(resource: Resource) -> bool:
    return all("role" in one for one in resource["participant"])


def _smoking(resource: Resource) -> bool:
    codes = {one.get("code") for held in resource["category"] for one in held.get("coding", ())}
    return "social-history" in codes and resource["status"] == "final"


def _told(resource: Resource) -> bool:
    return "valueCodeableConcept" in resource or "valueString" in resource


_VITAL = (_has("category", "code", "subject"), _effective, _ucum_code)
_RESULT = (_has("category", "code", "subject"), _to_the_day, _ucum)
_VITAL_PROFILES = (
    "blood-pressure",
    "body-height",
    "body-weight",
    "bmi",
    "pulse-oximetry",
    "heart-rate",
    "respiratory-rate",
    "body-temperature",
    "head-circumference",
    "vital-signs",
)

_DEMANDS: dict[str, tuple[Any, ...]] = {  # first the elements that must be there
    "us-core-patient": (_has("identifier", "name", "gender"), _identified, _telecoms, _names),
    "us-core-practitioner": (_has("identifier", "name"), _identified, _telecoms, _families, _lines),
    "us-core-organization": (_has("name", "active"), _npis, _telecoms, _lines),
    "us-core-documentreference": (_has("type", "category", "subject", "content"),),
    "us-core-encounter": (_has("type", "subject"), _identified),
    "us-core-condition-problems-health-concerns": (_has("category", "code", "subject"),),
    "us-core-condition-encounter-diagnosis": (_has("category", "code", "subject"),),
    **{f"us-core-{name}": _VITAL for name in _VITAL_PROFILES},
    "us-core-pulse-oximetry": (*_VITAL, _oxygen),
    "us-core-observation-clinical-result": _RESULT,
    "us-core-observation-lab": (*_RESULT, _snomed),
    "us-core-observation-screening-assessment": (_has("category", "code", "subject"), _to_the_day, _ucum),
    "us-core-simple-observation": (_has("category", "code", "subject"),),
    "us-core-smokingstatus": (
        _has("category", "code", "subject", "effectiveDateTime", "valueCodeableConcept"),
        _smoking,
    ),
    "us-core-diagnosticreport-lab": (_has("category", "code", "subject"), _issued),
    "us-core-allergyintolerance": (_has("code", "patient"),),
    "us-core-medicationrequest": (_has("status", "intent", "medicationCodeableConcept", "subject"), _requested),
    "us-core-immunization": (_has("status", "vaccineCode", "patient"), _occurred, _no_ndc),
    "us-core-procedure": (_has("status", "code", "subject"), _performed),
    "us-core-practitionerrole": (_has("practitioner", "organization", "telecom"), _telecoms),
    "us-core-relatedperson": (_has("active", "patient"), _related),
    "pco-gas-score-observation": (_has("category", "code", "subject", "valueCodeableConcept"), _effective, _gas),
    "pco-readiness-assessment": (_has("category", "code", "subject", "valueCodeableConcept"), _to_the_day, _readiness),
    "pco-what-matters-assessment": (_has("category", "code", "subject"), _to_the_day, _ucum),
    "pco-goal-barrier": (_has("category", "code", "subject"), _told),
    "us-core-careteam": (_has("subject", "participant"), _staffed),
    "us-core-goal": (_has("lifecycleStatus", "description", "subject"),),
    "us-core-servicerequest": (_has("code", "subject"),),
    "us-core-careplan": (_has("text", "category", "subject"),),
    "us-core-questionnaireresponse": (_has("questionnaire", "subject", "authored"),),
    "pco-goal-profile": (_has("lifecycleStatus", "description", "subject", "startDate"),),
    "pco-prom-goal-profile": (_has("lifecycleStatus", "description", "subject", "startDate", "target"),),
    "pco-prom-score-observation": (_has("category", "code", "subject", "valueQuantity"), _effective, _ucum),
    "pco-care-plan": (_has("text", "category", "subject", "goal", "activity"),),
}


def claim(resource: Resource, *profiles: str) -> str | None:
    """Sets meta.profile to the first of the profiles that the resource meets; None, and no claim, when to none."""
    keys = resource.keys()
    for name in profiles:
        names, demands, canonical = _profile(name)
        if not keys >= names:
            continue
        for demand in demands:
            if not demand(resource):
                break
        else:
            meta = resource.get("meta")
            if meta is None:
                resource["meta"] = {"profile": canonical}
            else:
                meta["profile"] = canonical
            return name
    return None


@cache
def _profile(name: str) -> tuple[frozenset[str], tuple[Demand, ...], list[str]]:
    """The elements that a profile wants, its other demands, and meta.profile: one list, not to be changed."""
    names, *demands = _DEMANDS[name]
    return names, tuple(demands), [PCO(name) if name.startswith("pco-") else US_CORE_PINNED(name)]
