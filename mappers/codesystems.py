"""Code translation: FHIR ConceptMaps that ship with the mappers, and names and OIDs of code systems to their URIs.

Shape: `mappers/codesystems/<name>.json` is a FHIR R4 ConceptMap; `systems.toml` names systems. Nothing is guessed: a
code or a name that is not listed has no translation, and the caller says so in an Issue.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from mappers.overrides import current, over

_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class CodeMap:
    """One ConceptMap, flattened. `targets` maps source code to target code, `codings` to the whole Coding."""

    name: str
    targets: Mapping[str, str]
    codings: Mapping[str, dict[str, str]]

    def coding(self, code: str) -> dict[str, str] | None:
        """The target as a Coding of the caller's own, or None if the code is not in the map."""
        found = self.codings.get(code)
        return None if found is None else found.copy()


def _read(name: str) -> str:
    return files("mappers").joinpath("codesystems", name).read_text("utf-8")


def _concept_map(name: str) -> dict[str, Any]:
    """Ours with the user's elements laid over it; a map that only the user has."""
    ours = files("mappers").joinpath("codesystems", name)
    if not ours.is_file() and name in current().names("codesystems"):
        return over("codesystems", name, {"group": []})
    return over("codesystems", name, json.loads(_read(name)))


@cache
def code_map(name: str) -> CodeMap:
    """The ConceptMap `<name>.json`. Raises FileNotFoundError for a map we do not ship: a bug of the calling table."""
    resource = _concept_map(f"{name}.json")
    targets: dict[str, str] = {}
    codings: dict[str, dict[str, str]] = {}
    for group in resource["group"]:
        for element in group["element"]:
            for target in element.get("target", ())[:1]:
                if element["code"] in targets:
                    continue  # the first group decides: a user's stand before ours
                targets[element["code"]] = target["code"]
                display = {"display": target["display"]} if "display" in target else {}
                codings[element["code"]] = {"system": group["target"], "code": target["code"], **display}
    return CodeMap(name, targets, codings)


@cache
def _systems() -> dict[str, Any]:
    return over("codesystems", "systems.toml", tomllib.loads(_read("systems.toml")))


@lru_cache(4096)
def system_of_name(name: str) -> str | None:
    """The URI for a name of HL7 table 0396 (`LN`, `SCT`, `HL70078`), or None for a local or unknown name."""
    table = _systems()
    found = table["names"].get(name) or table["names"].get(name.upper())
    if found:
        return str(found)
    match = re.fullmatch(r"(?i:HL7)(\d{4})", name)
    if match:
        return f"http://terminology.hl7.org/CodeSystem/v2-{match[1]}"
    return system_of_oid(name) if _OID.fullmatch(name) else None


@lru_cache(4096)
def system_of_oid(oid: str) -> str | None:
    """The URI for an OID: the registered one if we know it, else `urn:oid:`; None if it is not an OID."""
    oid = oid.removeprefix("urn:oid:")
    known = _systems()["oids"].get(oid)
    if known:
        return str(known)
    return f"urn:oid:{oid}" if _OID.fullmatch(oid) and "." in oid else None


def oids() -> Mapping[str, str]:
    """The OIDs that we know, with the URI that FHIR registers for each; of several for a system, the usual first."""
    found: dict[str, str] = _systems()["oids"]
    return found


def system_of_authority(universal_id: str, id_type: str) -> str | None:
    """The URI for an HD (or any universal id with its type): OID, UUID or URI; None for anything local."""
    if id_type in ("ISO", "") and _OID.fullmatch(universal_id):
        return system_of_oid(universal_id)
    if id_type in ("UUID", "GUID") and _UUID.fullmatch(universal_id):
        return f"urn:uuid:{universal_id.lower()}"
    if id_type == "URI" and ":" in universal_id and " " not in universal_id:
        return universal_id
    return None


@dataclass(frozen=True, slots=True)
class Unit:
    """A UCUM unit: `code` is valid UCUM, `text` what a person reads."""

    code: str
    text: str


@lru_cache(4096)
def ucum(written: str) -> str | None:
    """The UCUM code for a unit as written: itself if we know it as UCUM, or the dirty-unit map's; else None.

    Source: UCUM 2.1 (case sensitive codes); `units.json` for what senders write instead.
    """
    if written in _ucum_codes():
        return written
    return code_map("units").targets.get(written) or code_map("units").targets.get(written.lower())


@cache
def _ucum_codes() -> frozenset[str]:
    return frozenset(_systems()["ucum"]["codes"])


@cache
def identifier_type_system() -> str:
    """The system of identifier types (HL7 table 0203)."""
    return str(_systems()["identifier_types"]["system"])


@cache
def identifier_types() -> frozenset[str]:
    """The codes of HL7 table 0203 that we write as a coding."""
    return frozenset(_systems()["identifier_types"]["codes"])


@lru_cache(1024)
def system_of_namespace(namespace: str) -> str | None:
    """The URI for an assigning authority's plain name, where the name leaves no doubt (`NPI`); else None."""
    found = _systems()["namespaces"].get(namespace)
    return str(found) if found else None
