"""Takes an official FHIR package in: derives its tables into a folder, which `library.select(loaded=[...])` prefers."""

import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles import library
from profiles.archive import PackageRefused
from profiles.canonical import FHIR_BASE
from profiles.tables import Package, derive

Json = dict[str, Any]
_NAME = re.compile(r"[a-z][a-z0-9-]*(?:\.[a-z0-9][a-z0-9-]*)+")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}")
_MANIFEST = "loaded.json"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came in: `folder` is to be named to `library.select`."""

    name: str
    version: str
    folder: Path
    profiles: int
    value_sets: int


def load_package(path: Path, into: Path) -> Loaded:
    """Writes the tables of one package (R4, not the core package itself) into `into/NAME-VERSION`, whole or not at all.

    A package of the same name and version is replaced. Nothing is checked against it before `library.select` is told.
    Raises: PackageRefused, with a sentence that says why; OSError.
    """
    package = Package(path)
    name, version = _identity(package)
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into, prefix=".loading-") as scratch:
        made = Path(scratch) / "tables"
        _derive(package, made)
        profiles, value_sets = _counts(made)
        (made / _MANIFEST).write_text(json.dumps({"name": name, "version": version}), encoding="utf-8")
        folder = into / f"{name}-{version}"
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
    return Loaded(name, version, folder, profiles, value_sets)


def loaded_in(into: Path) -> list[Path]:
    """The folders of all packages loaded there, by name: what `library.select` takes."""
    return sorted(each.parent for each in into.glob(f"*/{_MANIFEST}")) if into.is_dir() else []


def _identity(package: Package) -> tuple[str, str]:
    name, version = package.manifest.get("name"), package.manifest.get("version")
    if not (
        isinstance(name, str) and isinstance(version, str) and _NAME.fullmatch(name) and _VERSION.fullmatch(version)
    ):
        raise PackageRefused(
            "The package does not say its name and version in package/package.json; download it again."
        )
    releases = package.manifest.get("fhirVersions") or package.manifest.get("fhir-version-list") or []
    if not any(str(each).startswith("4.0") for each in releases):
        raise PackageRefused("The package is not for FHIR R4 (4.0); load the R4 edition of it.")
    if FHIR_BASE + "Patient" in package.all("StructureDefinition"):
        raise PackageRefused("The base definitions of R4 4.0.1 are built in and never change; load a guide's package.")
    return name, version


def _derive(package: Package, out: Path) -> None:
    try:
        derive(package, out)
    except (KeyError, TypeError, AttributeError) as caught:
        raise PackageRefused(
            "A definition of the package lacks what FHIR requires of it; download it again."
        ) from caught


def _counts(folder: Path) -> tuple[int, int]:
    found: list[Json] = json.loads((folder / "profiles.json").read_bytes())
    for entry in found:
        if entry["type"] not in library.types():
            raise PackageRefused(
                f"The package constrains {entry['type']!r}, which R4 does not define; it is not for R4."
            )
        for element in entry["differential"]["element"]:
            _refuse_malformed(element)
    return len(found), len(json.loads((folder / "valuesets.json").read_bytes()))


def _refuse_malformed(element: Json) -> None:
    types = element.get("type", [])
    sound = (
        isinstance(element.get("id"), str)
        and isinstance(element.get("min", 0), int)
        and re.fullmatch(r"\d{1,6}|\*", str(element.get("max", "*"))) is not None
        and isinstance(types, list)
        and all(isinstance(kind, dict) and isinstance(kind.get("code"), str) for kind in types)
    )
    if not sound:
        raise PackageRefused(
            "An element of the package has no id, or a cardinality or type that is none; download it again."
        )
