"""The packaged definitions, and those that an operator loaded: read once, by URL.

`r4` and `us-core-6.1.0` hold tables that `profiles.tables` derived; `access-VERSION` and `pco-1.0.0` hold our own
StructureDefinition, ValueSet and CodeSystem JSON. Which version of the ACCESS guide a process checks against, and which
loaded packages come before the built-in tables, is said once by `select`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, ParamSpec, TypeVar, cast

from profiles.canonical import FHIR_BASE, unversioned

Json = dict[str, Any]
_P = ParamSpec("_P")
_R = TypeVar("_R")

ACCESS_VERSION = "0.9.12"
_ROOT = resources.files("profiles") / "definitions"
_TABLES = ("r4", "us-core-6.1.0")
_MANY = 4096  # more than all definitions; a bound, because some keys come from callers


class UnknownGuide(ValueError):
    """No definitions of that name or version are here."""


@dataclass(frozen=True, slots=True)
class _Selection:
    access: str
    loaded: tuple[Traversable, ...]


_selection = _Selection(ACCESS_VERSION, ())
_forget: list[Callable[[], None]] = []


def per_selection(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A cache that is emptied when other definitions are selected. Arguments have to be hashable."""
    cached = lru_cache(maxsize=_MANY)(function)
    _forget.append(cached.cache_clear)
    return cast("Callable[_P, _R]", cached)


def when_selected(forget: Callable[[], None]) -> None:
    """Registers what empties a cache of another kind."""
    _forget.append(forget)


def access_versions() -> tuple[str, ...]:
    """The versions of the ACCESS guide that are packaged here, each a folder `definitions/access-VERSION`."""
    names = [each.name for each in _ROOT.iterdir() if each.is_dir()]
    return tuple(sorted(name.removeprefix("access-") for name in names if name.startswith("access-")))


def select(*, access: str = ACCESS_VERSION, loaded: Sequence[Traversable] = ()) -> None:
    """Says for this process which definitions hold; to be called before the first check, or between two.

    Shape: `access` is a version of the guide; `loaded` are folders that `profiles.packages.load_package` wrote. What
    they define takes the place of the built-in definition with the same URL; of two, the later one wins.
    Raises: UnknownGuide for a version or a folder that is not there.
    """
    global _selection
    if access not in access_versions():
        raise UnknownGuide(f"ACCESS guide {access} is not packaged; there are {', '.join(access_versions())}.")
    for folder in loaded:
        if not (folder / "profiles.json").is_file():
            raise UnknownGuide(f"{folder.name} is no folder of loaded definitions; load the package again.")
    _selection = _Selection(access, tuple(loaded))
    for forget in _forget:
        forget()


def guide_folder(name: str) -> Traversable:
    """The packaged folder of a guide, such as `access-0.9.12`. Raises: UnknownGuide."""
    folder = _ROOT / name
    if "/" in name or not name or not folder.is_dir():
        raise UnknownGuide(f"{name} is no packaged guide.")
    return folder


def definitions_in(folder: Traversable, resource_type: str) -> list[Json]:
    """The definitions of one type in a guide's folder, each in a file `TYPE-ID.json`."""
    files = sorted(folder.iterdir(), key=lambda each: each.name)
    return [json.loads(each.read_bytes()) for each in files if each.name.startswith(f"{resource_type}-")]


def _read(folder: str, name: str) -> Any:
    return json.loads((_ROOT / folder / name).read_bytes())


def _loaded(name: str) -> list[Any]:
    return [json.loads((folder / name).read_bytes()) for folder in _selection.loaded]


@lru_cache(maxsize=1)
def types() -> dict[str, Json]:
    """Each resource, datatype and backbone: `{kind, elements: {name: "MIN..MAX TYPES ! VALUESET"}}`."""
    found: dict[str, Json] = _read("r4", "types.json")
    return found


@lru_cache(maxsize=1)
def resource_types() -> frozenset[str]:
    """The 146 resource types of R4."""
    return frozenset(name for name, entry in types().items() if entry["kind"] == "resource")


@lru_cache(maxsize=1)
def rules() -> dict[str, dict[str, list[str]]]:
    """The base invariants: `{path: {key: [severity, expression]}}`."""
    found: dict[str, dict[str, list[str]]] = _read("r4", "rules.json")
    return found


@per_selection
def profiles() -> dict[str, Json]:
    """Every profile's differential, by URL without version."""
    found = {entry["url"]: entry for folder in _TABLES for entry in _read(folder, "profiles.json")}
    found |= {entry["url"]: entry for entry in _of_guides("StructureDefinition")}
    return found | {entry["url"]: entry for table in _loaded("profiles.json") for entry in table}


@per_selection
def value_sets() -> dict[str, dict[str, list[str]]]:
    """The enumerated value sets of the tables: `{url: {system: [code]}}`."""
    r4, us_core = (_read(folder, "valuesets.json") for folder in _TABLES)
    loaded = {url: codes for table in _loaded("valuesets.json") for url, codes in table.items()}
    found: dict[str, dict[str, list[str]]] = us_core | loaded | r4
    return found  # what base R4 is bound to stays as it is: its checks are made once


@per_selection
def guide_value_sets() -> dict[str, Json]:
    """Our own ValueSet resources, by URL."""
    return {entry["url"]: entry for entry in _of_guides("ValueSet")}


@per_selection
def guide_code_systems() -> dict[str, Json]:
    """Our own CodeSystem resources, by URL."""
    return {entry["url"]: entry for entry in _of_guides("CodeSystem")}


def _of_guides(resource_type: str) -> list[Json]:
    folders = (f"access-{_selection.access}", "pco-1.0.0")
    return [entry for folder in folders for entry in definitions_in(_ROOT / folder, resource_type)]


@per_selection
def type_of(profile: str) -> str | None:
    """The resource or datatype that a profile constrains, also for a base type's own canonical; None when unknown."""
    url = unversioned(profile)
    if url in profiles():
        return str(profiles()[url]["type"])
    name = url.removeprefix(FHIR_BASE)
    return name if name in types() else None


@per_selection
def lineage(profile: str) -> tuple[str, ...]:
    """The profile and the known profiles that it is built on, nearest first."""
    url = unversioned(profile)
    if url not in profiles():
        return (url,)
    return (url, *lineage(profiles()[url]["baseDefinition"]))
