"""Vital signs: pressures paired, oxygen with its flow, and the panel that holds them.

Source: C-CDA on FHIR 2.0.0, CF-vitals; US Core 6.1.0, vital-sign profiles. Table: tables/vitals.toml.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from mappers import engine
from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.context import Document, Resource
from mappers.cda.node import Node
from mappers.cda.observations import base, category, inherit_time, is_timed, loinc
from mappers.cda.paths import qualified
from mappers.cda.results import span, unheld
from profiles.canonical import BLOOD_PRESSURE, DIASTOLIC, LOINC, MM_HG, SYSTOLIC

_OBSERVATION = qualified("observation")
_ALL = "Blood pressure panel with all children optional"
_PRESSURE = {"coding": [{"system": LOINC, "code": BLOOD_PRESSURE, "display": _ALL}]}  # as all codes, not to be changed
_PANEL = {"coding": [{"system": LOINC, "code": "85353-1"}]}
_PARTS = (SYSTOLIC, DIASTOLIC)
_SATURATION = ("59408-5", "2708-6")
_OXYGEN = ("3150-0", "3151-8")  # inhaled oxygen: concentration, flow rate
_SHARED = (
    "resourceType",
    "category",
    "subject",
    "effectiveDateTime",
    "effectivePeriod",
    "bodySite",
    "method",
    "performer",
)
_COMPONENT = ("code", "dataAbsentReason", "interpretation", "referenceRange")


@dataclass(frozen=True, slots=True)
class Vital:
    """One row of tables/vitals.toml."""

    code: str
    display: str
    profile: str
    units: frozenset[str]


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading that waits for another of the same time: half a pressure, or the oxygen that is breathed in."""

    resource: Resource
    node: Node


@cache
def _vitals() -> dict[str, Vital]:
    """Vital signs by each code that they arrive under."""
    rows = engine.load("mappers.cda", "tables/vitals.toml")["vital"]
    signs = {row["code"]: Vital(row["code"], row["display"], row["profile"], frozenset(row["units"])) for row in rows}
    return signs | {other: signs[row["code"]] for row in rows for other in row["also"]}


def vitals(node: Node, document: Document) -> list[Reading]:
    """A vital-signs organizer or one observation. Gives the readings of pressure that found no other half in it."""
    if node.tag == _OBSERVATION:
        return _signs([node], None, document=document)[1]
    panel, kept = dialect.apply("panel", node, document=document, kind="Observation")
    inner = [one for component in kept.get("component", ()) for one in component[:]]
    for one in inner:
        if one.tag != _OBSERVATION:
            document.unread(one)
    members, waiting = _signs([one for one in inner if one.tag == _OBSERVATION], panel, document=document)
    if len(members) > 1:
        _panel(panel, node, members=members, document=document)
    else:
        unheld(panel, node, members=members, document=document, waiting=[one.resource for one in waiting])
    return waiting


def _signs(nodes: list[Node], panel: Resource | None, *, document: Document) -> tuple[list[str], list[Reading]]:
    """References of the observations made, and half pressures left over."""
    made: list[str] = []
    pressures: list[Reading] = []
    oxygen: list[Reading] = []
    for one in nodes:
        found = base(one, document, kind="vital-signs")
        if found is None:
            continue
        resource, _ = found
        if panel is not None:
            inherit_time(resource, panel, one)
        code = loinc(resource)
        if code in _PARTS:
            pressures.append(Reading(resource, one))
        elif code in _OXYGEN or code in _SATURATION:
            oxygen.append(Reading(resource, one))
        else:
            made.append(document.add(_profiled(resource, code), one))
    if not pressures and not oxygen:
        return made, []
    pairs, waiting = pair(pressures, document)
    return made + pairs + _oxygen(oxygen, document), waiting


def _panel(panel: Resource, node: Node, *, members: list[str], document: Document) -> None:
    """85353-1 with its members; a time of its own, else that of its members."""
    panel["status"] = "final"
    panel["category"] = [category("vital-signs")]
    panel["code"] = _PANEL
    panel["subject"] = document.subject
    panel["hasMember"] = [document.refer(one) for one in members]
    if not is_timed(panel):
        panel |= span(members, document)
    claim(panel, "us-core-vital-signs")
    document.add(panel, node)


def _profiled(resource: Resource, code: str | None) -> Resource:
    """Adds the profile's own code beside a more specific one, and claims what is met."""
    sign = _vitals().get(code or "")
    if sign is None:
        claim(resource, "us-core-vital-signs")
        return resource
    if code != sign.code:
        codings = resource["code"]["coding"]
        if all(one.get("code") != sign.code for one in codings):
            own = {"system": LOINC, "code": sign.code, "display": sign.display}
            resource["code"] = resource["code"] | {"coding": [*codings, own]}
    fits = "dataAbsentReason" in resource or resource.get("valueQuantity", {}).get("code") in sign.units
    if not fits or claim(resource, sign.profile) is None:
        claim(resource, "us-core-vital-signs")
    return resource


# --- blood pressure ------------------------------------------------------------------------------------------------
def pair(pressures: list[Reading], document: Document) -> tuple[list[str], list[Reading]]:
    """Joins systolic and diastolic readings of the same time into blood pressures; gives them and what is left over."""
    made: list[str] = []
    left: list[Reading] = []
    for group in _by_time(pressures):
        uppers = [one for one in group if loinc(one.resource) == SYSTOLIC]
        lowers = [one for one in group if loinc(one.resource) == DIASTOLIC]
        made += [document.add(_joined(*both), both[0].node) for both in zip(uppers, lowers, strict=False)]
        count = min(len(uppers), len(lowers))
        left += uppers[count:] + lowers[count:]
    return made, left


def _by_time(readings: Iterable[Reading]) -> list[list[Reading]]:
    groups: dict[str, list[Reading]] = {}
    for one in readings:
        when = one.resource.get("effectiveDateTime") or str(one.resource.get("effectivePeriod", ""))
        groups.setdefault(when, []).append(one)
    return list(groups.values())


def _joined(upper: Reading, lower: Reading) -> Resource:
    """One Observation 85354-9 with two components; the identifiers of both halves are kept."""
    both = (upper.resource, lower.resource)
    resource = {name: upper.resource[name] for name in _SHARED if name in upper.resource}
    resource["status"] = both[0]["status"] if both[0]["status"] == both[1]["status"] else "unknown"
    resource["code"] = _PRESSURE
    _gather(resource, both)
    resource["component"] = [_component(half) for half in both]
    fits = all(half.get("valueQuantity", {}).get("code") == MM_HG or "dataAbsentReason" in half for half in both)
    claim(resource, *(["us-core-blood-pressure"] if fits else []), "us-core-vital-signs")
    return resource


def _gather(resource: Resource, parts: Iterable[Resource]) -> None:
    """identifier and note of every part, each once."""
    for name in ("identifier", "note"):
        found: list[Any] = []
        for part in parts:
            if name in part:
                found += [one for one in part[name] if one not in found]
        if found:
            resource[name] = found


def _component(part: Resource) -> dict[str, Any]:
    return {name: part[name] for name in part if name in _COMPONENT or name.startswith("value")}


def finish(waiting: list[Reading], document: Document) -> None:
    """Pairs readings over the whole document by equal time; a half that stays alone is kept as it is, and said."""
    for one in pair(waiting, document)[1]:
        document.at(one.node).warn("incomplete", "A systolic or diastolic reading has no other half of the same time.")
        claim(one.resource, "us-core-vital-signs")
        document.add(one.resource, one.node)


# --- oxygen --------------------------------------------------------------------------------------------------------
def _oxygen(readings: list[Reading], document: Document) -> list[str]:
    """Saturation with concentration and flow of the same time as components; these alone stand for themselves."""
    made: list[str] = []
    for group in _by_time(readings):
        whole = [one for one in group if loinc(one.resource) in _SATURATION]
        parts = [one for one in group if loinc(one.resource) in _OXYGEN]
        if len(whole) == 1:
            first_of = {loinc(one.resource): one for one in reversed(parts)}
            _breathed(whole[0].resource, [one.resource for one in parts if one in first_of.values()])
            parts = [one for one in parts if one not in first_of.values()]
        for one in whole:
            _saturation(one.resource)
        for one in parts:
            claim(one.resource, "us-core-vital-signs")
        made += [document.add(one.resource, one.node) for one in (*whole, *parts)]
    return made


def _breathed(resource: Resource, parts: list[Resource]) -> None:
    if parts:
        _gather(resource, (resource, *parts))
        resource["component"] = [_component(part) for part in parts]


def _saturation(resource: Resource) -> None:
    """Both codes, as US Core asks; the profile only for a saturation in percent."""
    codings = resource["code"]["coding"]
    known = {one.get("code") for one in codings}
    added = [{"system": LOINC, "code": code} for code in _SATURATION if code not in known]
    resource["code"] = resource["code"] | {"coding": [*codings, *added]}
    fits = "dataAbsentReason" in resource or resource.get("valueQuantity", {}).get("code") == "%"
    claim(resource, *(["us-core-pulse-oximetry"] if fits else []), "us-core-vital-signs")
