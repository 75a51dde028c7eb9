"""Observations: vital signs with their pressures paired, results with their reports, and the plain ones.

Source: C-CDA on FHIR 2.0.0, CF-vitals and CF-results; US Core 6.1.0.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from mappers import engine
from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.context import Document, Resource, account
from mappers.cda.datatypes import absent_reason
from mappers.cda.parse import Node
from mappers.cda.paths import each, first
from mappers.cda.times import instant_of
from profiles.canonical import (
    BLOOD_PRESSURE,
    DATA_ABSENT_REASON,
    DIAGNOSTIC_SERVICE,
    DIASTOLIC,
    LOINC,
    MM_HG,
    SYSTOLIC,
)

_UNKNOWN = {"coding": [{"system": DATA_ABSENT_REASON, "code": "unknown"}]}
_PANEL = {"system": LOINC, "code": BLOOD_PRESSURE, "display": "Blood pressure panel with all children optional"}
_VALUE_NAMES = ("Quantity", "Range", "Integer", "CodeableConcept", "String", "Boolean", "DateTime", "Period")
_PARTS = {SYSTOLIC: "Systolic blood pressure", DIASTOLIC: "Diastolic blood pressure"}
_SMOKING = "72166-2"
_PLAIN = frozenset({"author", "entryRelationship[@typeCode='GEVL']"})


@dataclass(frozen=True, slots=True)
class Vital:
    """One row of tables/vitals.toml."""

    code: str
    display: str
    profile: str
    units: frozenset[str]


@dataclass(frozen=True, slots=True)
class Pressure:
    """One systolic or diastolic reading that waits for its other half."""

    resource: Resource
    node: Node


@cache
def _vitals() -> dict[str, Vital]:
    """Vital signs by each code that they arrive under."""
    rows = engine.load("mappers.cda", "tables/vitals.toml")["vital"]
    signs = {row["code"]: Vital(row["code"], row["display"], row["profile"], frozenset(row["units"])) for row in rows}
    return signs | {other: signs[row["code"]] for row in rows for other in row["also"]}


@cache
def _categories() -> dict[str, str]:
    found: dict[str, str] = engine.load("mappers.cda", "tables/sections.toml")["category"]
    return found


def category(code: str) -> dict[str, Any]:
    """The category CodeableConcept of a section's observations."""
    return {"coding": [{"system": _categories()[code], "code": code}]}


def loinc(resource: Resource) -> str | None:
    """The first LOINC code of a resource's `code`."""
    codings = resource.get("code", {}).get("coding", ())
    return next((one["code"] for one in codings if one.get("system") == LOINC and "code" in one), None)


def base(node: Node, document: Document, *, kind: str) -> Resource | None:
    """An observation element -> Observation with category and value or its absence; None when it states no fact."""
    if node.get("moodCode") not in (None, "EVN"):
        document.leave(
            node, "left", reason="Only observations in mood EVN are facts; plans and goals are read elsewhere."
        )
        return None
    if node.get("negationInd") == "true":
        document.leave(node, "left", reason="negationInd: this was not observed; no result is made of it.")
        return None
    resource = dialect.apply("observation", node, document=document, kind="Observation")
    if "code" not in resource:
        document.leave(node, "bad", reason="The observation has no code: nobody can tell what was observed.")
        return None
    resource["category"] = [category(kind)]
    resource["subject"] = {"reference": document.patient_reference}
    resource.setdefault("status", "final" if kind == "vital-signs" else "unknown")
    if not _valued(resource):
        found = first("value")(node)
        resource["dataAbsentReason"] = (absent_reason(found, document) if found is not None else None) or _UNKNOWN
    return resource


def _valued(resource: Resource) -> bool:
    return any(f"value{name}" in resource for name in _VALUE_NAMES)


def plain(node: Node, document: Document, *, kind: str) -> str | None:
    """An observation of social history, functional status, outcomes or the like."""
    resource = base(node, document, kind=kind)
    if resource is None:
        return None
    if loinc(resource) == _SMOKING and resource["status"] == "final" and kind == "social-history":
        claim(resource, "us-core-smokingstatus", "us-core-simple-observation")
    elif kind == "survey":
        claim(resource, "us-core-observation-screening-assessment", "us-core-simple-observation")
    else:
        claim(resource, "us-core-simple-observation")
    account(node, document, read=dialect.reads("observation"), handled=_PLAIN)
    return document.add(resource, node)


# --- vital signs ---------------------------------------------------------------------------------------------------
def vitals(node: Node, document: Document) -> list[Pressure]:
    """A vital-signs organizer or one observation. Gives the readings of pressure that found no other half in it."""
    single = node.tag.endswith("}observation")
    nodes = [node] if single else each("component/observation")(node)
    pressures: list[Pressure] = []
    for one in nodes:
        document.at(one)
        resource = base(one, document, kind="vital-signs")
        if resource is None:
            continue
        if not single and "effectiveDateTime" not in resource and "effectivePeriod" not in resource:
            _inherit_time(resource, node, document=document)
        account(one, document, read=dialect.reads("observation"), handled=frozenset({"author"}))
        if loinc(resource) in _PARTS:
            pressures.append(Pressure(resource, one))
        else:
            document.add(_profiled(resource), one)
    if not single:
        account(node, document, read=frozenset(), handled=_ORGANIZER)
    return pair(pressures, document)


_ORGANIZER = frozenset({"component", "code", "statusCode", "effectiveTime", "author"})


def _inherit_time(resource: Resource, organizer: Node, *, document: Document) -> None:
    """An observation without a time has its organizer's."""
    document.at(organizer)
    found: Resource = {}
    dialect.table("report").apply(organizer, found, document)
    resource.update({name: found[name] for name in ("effectiveDateTime", "effectivePeriod") if name in found})


def _profiled(resource: Resource) -> Resource:
    """Adds the profile's own code beside a more specific one, and claims what is met."""
    sign = _vitals().get(loinc(resource) or "")
    if sign is None:
        claim(resource, "us-core-vital-signs")
        return resource
    codings = resource["code"]["coding"]
    if all(one.get("code") != sign.code for one in codings):
        codings.append({"system": LOINC, "code": sign.code, "display": sign.display})
    unit = resource.get("valueQuantity", {}).get("code")
    fits = unit in sign.units or "dataAbsentReason" in resource
    claim(resource, *([sign.profile] if fits else []), "us-core-vital-signs")
    return resource


def pair(pressures: list[Pressure], document: Document) -> list[Pressure]:
    """Joins systolic and diastolic readings of the same time into blood pressures; gives what is left over."""
    left: list[Pressure] = []
    for group in _by_time(pressures):
        uppers = [one for one in group if loinc(one.resource) == SYSTOLIC]
        lowers = [one for one in group if loinc(one.resource) == DIASTOLIC]
        for upper, lower in zip(uppers, lowers, strict=False):
            document.add(_joined(upper, lower), upper.node)
        count = min(len(uppers), len(lowers))
        left += uppers[count:] + lowers[count:]
    return left


def _by_time(pressures: Iterable[Pressure]) -> list[list[Pressure]]:
    groups: dict[str, list[Pressure]] = {}
    for one in pressures:
        when = one.resource.get("effectiveDateTime") or str(one.resource.get("effectivePeriod", ""))
        groups.setdefault(when, []).append(one)
    return list(groups.values())


def _joined(upper: Pressure, lower: Pressure) -> Resource:
    """One Observation 85354-9 with two components; the identifiers of both halves are kept."""
    both = (upper.resource, lower.resource)
    resource = {name: upper.resource[name] for name in _SHARED if name in upper.resource}
    resource["status"] = upper.resource["status"] if both[0]["status"] == both[1]["status"] else "unknown"
    resource["code"] = {"coding": [dict(_PANEL)]}
    identities = [one for half in both for one in half.get("identifier", ())]
    if identities:
        resource["identifier"] = [one for index, one in enumerate(identities) if one not in identities[:index]]
    notes = [one for half in both for one in half.get("note", ())]
    resource |= {"note": notes} if notes else {}
    resource["component"] = [_component(half) for half in both]
    fits = all(half.get("valueQuantity", {}).get("code") == MM_HG or "dataAbsentReason" in half for half in both)
    claim(resource, *(["us-core-blood-pressure"] if fits else []), "us-core-vital-signs")
    return resource


_SHARED = ("resourceType", "category", "subject", "effectiveDateTime", "effectivePeriod", "bodySite", "method")
_COMPONENT = ("code", "dataAbsentReason", "interpretation", "referenceRange")


def _component(half: Resource) -> dict[str, Any]:
    return {name: half[name] for name in half if name in _COMPONENT or name.startswith("value")}


def finish(pressures: list[Pressure], document: Document) -> None:
    """Pairs readings over the whole document by equal time; a half that stays alone is kept as it is, and said."""
    for one in pair(pressures, document):
        document.at(one.node).warn("incomplete", "A systolic or diastolic reading has no other half of the same time.")
        claim(one.resource, "us-core-vital-signs")
        document.add(one.resource, one.node)


# --- results -------------------------------------------------------------------------------------------------------
def results(node: Node, document: Document) -> None:
    """A result organizer -> DiagnosticReport and its Observations; a lone result observation -> Observation."""
    if node.tag.endswith("}observation"):
        _result(node, None, document=document)
        return
    members = [found for one in each("component/observation")(node) if (found := _result(one, node, document=document))]
    for other in each("component/procedure")(node):
        document.leave(other, "left", reason="A procedure inside a result organizer is no result.")
    account(node, document, read=dialect.reads("report"), handled=frozenset({"component", "author"}))
    report = dialect.apply("report", node, document=document, kind="DiagnosticReport")
    if "code" not in report:
        document.at(node).inform("The organizer has no code: its results are kept without a report.")
        return
    _complete(report, node, members=members, document=document)
    claim(report, "us-core-diagnosticreport-lab")
    document.add(report, node)


def _result(node: Node, organizer: Node | None, *, document: Document) -> str | None:
    document.at(node)
    resource = base(node, document, kind="laboratory")
    if resource is None:
        return None
    if organizer is not None and "effectiveDateTime" not in resource and "effectivePeriod" not in resource:
        _inherit_time(resource, organizer, document=document)
    claim(resource, "us-core-observation-lab", "us-core-observation-clinical-result")
    account(node, document, read=dialect.reads("observation"), handled=frozenset({"author"}))
    return document.add(resource, node)


def _complete(report: Resource, node: Node, *, members: list[str], document: Document) -> None:
    """Status, category, subject, results; the time of its results when it has none; issued from its author's time."""
    report.setdefault("status", "unknown")
    report["category"] = [{"coding": [{"system": DIAGNOSTIC_SERVICE, "code": "LAB"}]}]
    report["subject"] = {"reference": document.patient_reference}
    if members:
        report["result"] = [{"reference": reference} for reference in members]
    if "effectiveDateTime" not in report and "effectivePeriod" not in report:
        report |= _span(members, document)
    time = first("author/time")(node)
    issued = instant_of(time, document) if time is not None else None
    if issued:
        report["issued"] = issued


def _span(members: list[str], document: Document) -> Resource:
    """The one time that all results have, or the earliest and latest of them as written."""
    known = {f"{one['resourceType']}/{one['id']}": one for one in document.resources}
    times = sorted({str(known[one]["effectiveDateTime"]) for one in members if "effectiveDateTime" in known[one]})
    if len(times) > 1:
        return {"effectivePeriod": {"start": times[0], "end": times[-1]}}
    return {"effectiveDateTime": times[0]} if times else {}
