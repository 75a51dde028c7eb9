"""The sandbox's rules and people, read once from its data folder."""

import functools
import json
import tomllib
from importlib import resources
from typing import Any

_DATA = resources.files("sandbox") / "data"


@functools.cache
def table(name: str) -> dict[str, Any]:
    """One TOML file of the data folder, without its ending."""
    return tomllib.loads((_DATA / f"{name}.toml").read_text(encoding="utf-8"))


def text(name: str) -> str:
    """One file of the data folder as it stands."""
    return (_DATA / name).read_text(encoding="utf-8")


def people() -> list[dict[str, Any]]:
    """The synthetic beneficiaries the sandbox starts with."""
    rows: list[dict[str, Any]] = json.loads(text("beneficiaries.json"))
    return rows


def program() -> dict[str, Any]:
    """The model's rules as numbers."""
    return table("program")


def ig(kind: str, name: str) -> str:
    """A canonical of the guide, such as `ig("StructureDefinition", "access-align-in")`."""
    return f"{program()['ig']}/{kind}/{name}"


MBI_SYSTEM = "http://terminology.hl7.org/NamingSystem/cmsMBI"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
UCUM = "http://unitsofmeasure.org"
LOINC = "http://loinc.org"
PARTICIPANT_SYSTEM = f"{program()['ig']}/participant-id"
PARTICIPANT_PATTERN = r"^ACCES\d{5}$"
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition"
