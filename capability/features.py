"""What the server promises, read once from features.toml."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from profiles.canonical import PCO, US_CORE_PINNED

EVERYWHERE = ("_id", "_lastUpdated", "_count")


@dataclass(frozen=True, slots=True)
class ResourceFeatures:
    """One resource type: interactions, search parameters with their types, and the profiles it is checked against."""

    type: str
    interactions: frozenset[str]
    search: Mapping[str, str]
    profiles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OperationFeatures:
    """One operation. `on`: the types that have it, `*` for all, none for the system level. `file`: its definition."""

    name: str
    on: tuple[str, ...]
    file: str
    definition: str | None
    documentation: str


@dataclass(frozen=True, slots=True)
class Features:
    """Everything."""

    date: str
    fhir_version: str
    formats: tuple[str, ...]
    implementation_guides: tuple[str, ...]
    instantiates: tuple[str, ...]
    system_interactions: tuple[str, ...]
    own_scopes: tuple[str, ...]
    resources: Mapping[str, ResourceFeatures]
    operations: Mapping[str, OperationFeatures]


@cache
def features() -> Features:
    """The features, in the order of the file."""
    data = tomllib.loads(files("capability").joinpath("features.toml").read_text(encoding="utf-8"))
    return Features(
        date=data["date"],
        fhir_version=data["fhir_version"],
        formats=tuple(data["formats"]),
        implementation_guides=tuple(data["implementation_guides"]),
        instantiates=tuple(data["instantiates"]),
        system_interactions=tuple(data["system_interactions"]),
        own_scopes=tuple(data["scopes"]["own"]),
        resources={row["type"]: _resource(row, data) for row in data["resource"]},
        operations={row["name"]: _operation(row) for row in data["operation"]},
    )


def _resource(row: dict[str, Any], data: dict[str, Any]) -> ResourceFeatures:
    return ResourceFeatures(
        type=row["type"],
        interactions=frozenset(data["interactions"][row["interactions"]]),
        search={name: data["parameters"][name] for name in (*EVERYWHERE, *row["search"])},
        profiles=tuple(_canonical(name) for name in row.get("profiles", ())),
    )


def _canonical(name: str) -> str:
    if name.startswith("http"):
        return name
    return US_CORE_PINNED(name) if name.startswith("us-core-") else PCO(name)


def _operation(row: dict[str, Any]) -> OperationFeatures:
    return OperationFeatures(
        name=row["name"],
        on=tuple(row["on"]),
        file=row.get("file", row["name"]),
        definition=row.get("definition"),
        documentation=row["documentation"],
    )
