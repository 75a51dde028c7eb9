"""Observations: what all of them share, and the plain ones (social history, functional and mental status, outcomes).

Source: C-CDA on FHIR 2.0.0, CF-results and CF-social; US Core 6.1.0; PCO 1.0.0.
"""

from functools import cache
from typing import Any

from mappers import engine
from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.compiled import Kept
from mappers.cda.context import Document, Resource, says
from mappers.cda.datatypes import absent_reason
from mappers.cda.node import Node
from mappers.cda.paths import child, qualified
from mappers.cda.people import author, performers
from mappers.converters import decimal
from profiles.canonical import DATA_ABSENT_REASON, LOINC, UCUM, UNITY

_TIME, _VALUE = qualified("effectiveTime"), qualified("value")
_TIMES = ("effectiveDateTime", "effectivePeriod")
_NO_FACT = "Only observations in mood EVN are facts; plans and goals are read elsewhere."
_NEGATED = "negationInd: this was not observed; no result is made of it."
_NO_CODE = "The observation has no code: nobody can tell what was observed."
_VALUE_NAMES = ("Quantity", "Range", "Integer", "CodeableConcept", "String", "Boolean", "DateTime", "Period")
_VALUES = frozenset(f"value{name}" for name in _VALUE_NAMES)
PERFORMERS = frozenset({"Practitioner", "PractitionerRole", "Organization", "Patient", "RelatedPerson"})


@cache
def _categories() -> dict[str, str]:
    found: dict[str, str] = engine.load("mappers.cda", "tables/sections.toml")["category"]
    return found


@cache
def _claims() -> tuple[dict[tuple[str, str], str], frozenset[tuple[str, str]]]:
    """(system, code) -> profile, and those that are totals of instruments."""
    content = engine.load("mappers.cda", "tables/claims.toml")
    profiles = {(uri, code): name for name, by in content["profile"].items() for uri in by for code in by[uri]}
    scores = frozenset((uri, code) for uri, listed in content["score"].items() for code in listed)
    return profiles | dict.fromkeys(scores, "pco-prom-score-observation"), scores


def kind_of(code: str) -> str:
    """The category of a plain observation in a section of this category: `survey` where that is none of its own."""
    return code if code in _categories() else "survey"


@cache
def category(code: str) -> dict[str, Any]:
    """The category CodeableConcept of a section's observations: one object, not to be changed."""
    return {"coding": [{"system": _categories()[code], "code": code}]}


def loinc(resource: Resource) -> str | None:
    """The first LOINC code of a resource's `code`."""
    coded = resource.get("code")
    if coded is not None:
        for one in coded.get("coding", ()):
            if one.get("system") == LOINC and "code" in one:
                code: str = one["code"]
                return code
    return None


def is_timed(resource: Resource) -> bool:
    """Whether it says when."""
    return "effectiveDateTime" in resource or "effectivePeriod" in resource


def inherit_time(resource: Resource, holder: Resource, node: Node) -> None:
    """An observation that says nothing of its time has its organizer's; one whose time is bad has none."""
    if is_timed(resource):
        return
    own = child(node, _TIME)
    if own is None or not says(own):
        resource |= {name: holder[name] for name in _TIMES if name in holder}


def base(node: Node, document: Document, *, kind: str) -> tuple[Resource, Kept] | None:
    """An observation element -> Observation with category and value or its absence; None when it states no fact."""
    if document.taken and node in document.taken:
        return None  # an assessment scale, read already
    if node.get("moodCode") not in (None, "EVN"):
        document.leave(node, "left", reason=_NO_FACT)
        return None
    if node.get("negationInd") == "true":
        document.leave(node, "left", reason=_NEGATED)
        return None
    booked, told = len(document.unmapped), len(document.issues)
    resource, kept = dialect.apply("observation", node, document=document, kind="Observation")
    panel = loinc(resource)
    if panel in document.panels:
        document.forget(booked=booked, told=told)
        if document.is_scale(node, panel):
            return None
    if "code" not in resource:
        document.leave(node, "bad", reason=_NO_CODE)
        return None
    resource["category"] = [category(kind)]
    resource["subject"] = document.subject
    if "status" not in resource:
        resource["status"] = "final" if kind == "vital-signs" else "unknown"
    if "author" in kept:
        people = [document.refer(one) for one in writers(kept, document) if one.partition("/")[0] in PERFORMERS]
        if people:
            resource["performer"] = people
    if "performer" in kept and (named := performers(kept, document)):
        resource["performer"] = named
    if resource.keys().isdisjoint(_VALUES):
        found = child(node, _VALUE)
        absent = absent_reason(found, document) if found is not None else None
        resource["dataAbsentReason"] = absent or {"coding": [{"system": DATA_ABSENT_REASON, "code": "unknown"}]}
    return resource, kept


def writers(kept: Kept, document: Document) -> list[str]:
    """The authors of a statement, each once."""
    found = dict.fromkeys([author(one, document) for one in kept["author"]]) if "author" in kept else ()
    return [one for one in found if one]


def plain(node: Node, document: Document, *, kind: str, wanted: Kept | None = None) -> str | None:
    """An observation of social history, functional status, outcomes or the like. What is kept goes into `wanted`."""
    made = base(node, document, kind=kind)
    if made is None:
        return None
    resource, kept = made
    if wanted is not None:
        wanted |= kept
    known = _claims()[0]
    special = [known[key] for key in _keys(resource) if key in known]
    if special and any(name.startswith("pco-") for name in special):
        kind = "survey"
        resource["category"] = [category(kind)]
        as_score(resource)
    survey = ["us-core-observation-screening-assessment"] if kind == "survey" else []
    claim(resource, *special, *survey, "us-core-simple-observation")
    return document.add(resource, node)


def _keys(resource: Resource) -> list[tuple[Any, Any]]:
    return [(one.get("system"), one.get("code")) for one in resource["code"].get("coding", ())]


def is_score(resource: Resource) -> bool:
    """Whether it is the total of an instrument."""
    return any(key in _claims()[1] for key in _keys(resource))


def as_score(resource: Resource) -> None:
    """PCO takes a total as a Quantity only: an integer, or a text that is a number, becomes one."""
    if not is_score(resource):
        return
    written = resource.get("valueInteger", resource.get("valueString"))
    value = decimal(str(written)) if written is not None else None
    if value is not None:
        resource.pop("valueInteger", None)
        resource.pop("valueString", None)
        resource["valueQuantity"] = {"value": value}
    quantity = resource.get("valueQuantity", {})
    if quantity and "unit" not in quantity:
        quantity |= {"unit": "score", "system": UCUM, "code": UNITY}
