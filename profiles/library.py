"""The packaged definitions: read once, by URL. The only place of this package that reads files.

`r4` and `us-core-6.1.0` hold tables that `profiles.tables` derived; `access-0.9.12` and `pco-1.0.0` hold our own
StructureDefinition, ValueSet and CodeSystem JSON.
"""

import json
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from profiles.canonical import FHIR_BASE, unversioned

Json = dict[str, Any]
_ROOT = resources.files("profiles") / "definitions"
_TABLES = ("r4", "us-core-6.1.0")
_GUIDES = ("access-0.9.12", "pco-1.0.0")


def _read(folder: str, name: str) -> Any:
    return json.loads((_ROOT / folder / name).read_bytes())


@cache
def types() -> dict[str, Json]:
    """Each resource, datatype and backbone: `{kind, elements: {name: "MIN..MAX TYPES ! VALUESET"}}`."""
    found: dict[str, Json] = _read("r4", "types.json")
    return found


@cache
def resource_types() -> frozenset[str]:
    """The 146 resource types of R4."""
    return frozenset(name for name, entry in types().items() if entry["kind"] == "resource")


@cache
def rules() -> dict[str, dict[str, list[str]]]:
    """The base invariants: `{path: {key: [severity, expression]}}`."""
    found: dict[str, dict[str, list[str]]] = _read("r4", "rules.json")
    return found


@cache
def profiles() -> dict[str, Json]:
    """Every profile's differential, by URL without version."""
    found = {entry["url"]: entry for folder in _TABLES for entry in _read(folder, "profiles.json")}
    found |= {entry["url"]: entry for entry in _of_guides("StructureDefinition")}
    return found


@cache
def value_sets() -> dict[str, dict[str, list[str]]]:
    """The enumerated value sets of the tables: `{url: {system: [code]}}`."""
    return {url: codes for folder in _TABLES for url, codes in _read(folder, "valuesets.json").items()}


@cache
def guide_value_sets() -> dict[str, Json]:
    """Our own ValueSet resources, by URL."""
    return {entry["url"]: entry for entry in _of_guides("ValueSet")}


@cache
def guide_code_systems() -> dict[str, Json]:
    """Our own CodeSystem resources, by URL."""
    return {entry["url"]: entry for entry in _of_guides("CodeSystem")}


@cache
def _of_guides(resource_type: str) -> list[Json]:
    found = []
    for folder in _GUIDES:
        for file in sorted((_ROOT / folder).iterdir(), key=lambda each: each.name):
            if file.name.startswith(f"{resource_type}-"):
                found.append(json.loads(file.read_bytes()))
    return found


@lru_cache(maxsize=1024)  # bounded: the URL may come from a caller
def type_of(profile: str) -> str | None:
    """The resource or datatype that a profile constrains, also for a base type's own canonical; None when unknown."""
    url = unversioned(profile)
    if url in profiles():
        return str(profiles()[url]["type"])
    name = url.removeprefix(FHIR_BASE)
    return name if name in types() else None


@lru_cache(maxsize=1024)
def lineage(profile: str) -> tuple[str, ...]:
    """The profile and the known profiles that it is built on, nearest first."""
    url = unversioned(profile)
    if url not in profiles():
        return (url,)
    return (url, *lineage(profiles()[url]["baseDefinition"]))
