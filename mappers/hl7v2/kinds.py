"""What an OBX is, by its code: category, profile, units; half of a blood pressure; an item of a questionnaire.

Source: tables/observations.toml and tables/instruments.toml; every claim is checked against the finished resource.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from mappers.conversion import Resource
from mappers.engine import load
from mappers.hl7v2.datatypes import coded
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


@dataclass(frozen=True, slots=True)
class Instrument:
    """A questionnaire whose items arrive as OBX. Items and total are LOINC codes. `summed`: the total is their sum."""

    name: str
    panel: str
    questionnaire: str
    items: tuple[str, ...]
    unscored: tuple[str, ...]
    total: str
    summed: bool = True


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
        return Kind(key)
    known = _by_loinc().get(loinc)
    if known is not None:
        return Kind(key, loinc, known.category, known.profile, known.parent, known.units, known.half, known.panel)
    names = [each.get("display", "") for each in codings]
    if any(phrase in name for name in names for phrase in _facts()["laboratory"]["specimens"]):
        return Kind(key, loinc, "laboratory", LABORATORY)
    return Kind(key, loinc)


@cache
def instruments() -> Mapping[str, Instrument]:
    """The questionnaires by name."""
    rows = load(_PACKAGE, "tables/instruments.toml")["instrument"]
    return {
        row["name"]: Instrument(**{**row, "items": tuple(row["items"]), "unscored": tuple(row["unscored"])})
        for row in rows
    }


@cache
def ordinals() -> Mapping[str, int]:
    """What each answer code counts."""
    return dict(load(_PACKAGE, "tables/instruments.toml")["ordinals"])


@cache
def items() -> frozenset[str]:
    """The LOINC codes of all questionnaires' items, totals not among them."""
    return frozenset(code for each in instruments().values() for code in (*each.items, *each.unscored))


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
    timed = len(when) >= 10 or "effectivePeriod" in resource
    if kind.units:
        fits = value is not None and value.get("code") in kind.units and "unit" in value
        if timed and (fits or "dataAbsentReason" in resource):
            return kind.profile
        return kind.parent if timed else None
    if kind.category == "survey":
        return kind.profile if value is not None and timed else kind.parent if len(when) >= 10 or not when else None
    if kind.category == "vital-signs":
        return kind.profile if timed else None
    return kind.profile if len(when) >= 10 or not when else None
