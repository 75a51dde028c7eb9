"""What an OBX is, by its code: category, profile, units; half of a blood pressure; an item of a questionnaire.

Source: tables/observations.toml and mappers/instruments; every claim is checked against the finished resource.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

from mappers.conversion import Resource
from mappers.engine import load
from mappers.hl7v2.datatypes import coded
from mappers.instruments import catalogue
from profiles import canonical

_PACKAGE = "mappers.hl7v2"


@dataclass(frozen=True, slots=True)
class Kind:
    """What we know of a code. `key` is its part of the identity: code and system as sent, without the words."""

    key: str = ""
    loinc: str | None = None
    category: str | None = None
    profile: str | None = None  # canonical with version
    parent: str | None = None
    units: frozenset[str] = frozenset()
    half: str | None = None  # systolic, diastolic
    panel: bool = False  # 85354-9 itself
    item: str | None = None  # what an item of a questionnaire is called


def _pinned(name: str | None) -> str | None:
    if name is None:
        return None
    return (
        f"{canonical.PCO(name)}|{canonical.PCO_VERSION}" if name.startswith("pco-") else canonical.US_CORE_PINNED(name)
    )


@cache
def _facts() -> dict[str, Any]:
    return load(_PACKAGE, "tables/observations.toml")


@cache
def _by_loinc() -> Mapping[str, Kind]:
    found: dict[str, Kind] = {}
    for row in _facts()["kind"]:
        for code in row["codes"]:
            found[code] = Kind(
                loinc=code,
                category=row["category"],
                profile=_pinned(row.get("profile")),
                parent=_pinned(row.get("parent")),
                units=frozenset(row.get("units", ())),
                half=row.get("half"),
                panel=row.get("panel", False),
            )
    return found


VALUES = frozenset(
    "value" + kind for kind in ("Quantity", "CodeableConcept", "String", "Range", "Ratio", "DateTime", "Time", "Period")
)
_ANSWERS = VALUES | {"dataAbsentReason", "component"}
LABORATORY = str(_pinned("us-core-observation-lab"))


@lru_cache(8192)
def kind_of(raw: str) -> Kind:
    """The kind of an OBX-3, as sent."""
    codings, _, _ = coded(raw)
    key = "|".join(f"{each.get('system', '')}#{each['code']}" for each in codings[:1]) or raw
    loinc = next((each["code"] for each in codings if each.get("system") == canonical.LOINC), None)
    if loinc is None:
        return Kind(key, item=next((each["code"] for each in codings if each["code"] in items()), None))
    known, item = _by_loinc().get(loinc), loinc if loinc in items() else None
    if known is not None:
        return replace(known, key=key, loinc=loinc, item=item)
    names = [each.get("display", "") for each in codings]
    if any(phrase in name for name in names for phrase in _facts()["laboratory"]["specimens"]):
        return Kind(key, loinc, "laboratory", LABORATORY)
    return Kind(key, loinc, item=item)


@cache
def items() -> frozenset[str]:
    """What the items of questionnaires are called: LOINC codes, and CMS's linkIds; totals are not among them."""
    known = catalogue().values()
    names = {name for one in known for item in one.items for name in (item.link, item.code) if name}
    return frozenset(names.union(*(one.beside for one in known)))


@lru_cache(4096)
def is_laboratory(raw_panel: str, section: str) -> bool:
    """Whether OBR-4 or OBR-24 say that the rows below are laboratory results."""
    facts = _facts()
    if section.partition("^")[0] in facts["laboratory"]["sections"]:
        return True
    panels = facts["panels"]["laboratory"]
    return any(each.get("system") == canonical.LOINC and each["code"] in panels for each in coded(raw_panel)[0])


def claim(resource: Resource, kind: Kind) -> str | None:
    """The most specific profile that the finished Observation meets; None if it meets none that its kind names."""
    if kind.profile is None or "subject" not in resource:
        return None
    value = resource.get("valueQuantity")
    if value is None and _ANSWERS.isdisjoint(resource):
        return None
    when = resource.get("effectiveDateTime", "")
    if kind.category == "laboratory":
        return kind.profile if len(when) >= 10 or not when else None
    timed = len(when) >= 10 or "effectivePeriod" in resource
    if kind.units:
        fits = value is not None and value.get("code") in kind.units and "unit" in value
        if timed and (fits or "dataAbsentReason" in resource):
            return kind.profile
        return kind.parent if timed else None
    if kind.category == "survey":
        return kind.profile if value is not None and timed else kind.parent if len(when) >= 10 or not when else None
    return kind.profile if timed else None
