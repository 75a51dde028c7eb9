"""The packaged definitions, and those that an operator loaded: read once, by URL.

`r4` and `us-core-6.1.0` hold tables that `profiles.tables` derived; `access-VERSION` and `pco-1.0.0` hold our own
StructureDefinition, ValueSet and CodeSystem JSON. Which loaded packages come before the built-in tables is said once by
`select`. Which version of the ACCESS guide holds is said by each check; `turn_to` puts what was made of it in place. A
check runs to its end before the next one may turn to another version: one thread at a time.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import zip_longest
from typing import Any, TypeVar

from profiles.canonical import FHIR_BASE, unversioned

Json = dict[str, Any]
_K = TypeVar("_K")
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
_kept: list[dict[Any, Any]] = []  # all that was made of the definitions selected now
_aside: dict[str, list[dict[Any, Any]]] = {}  # the same for the other versions of the guide that were asked for


def kept(made: dict[_K, _R]) -> dict[_K, _R]:
    """Registers a cache: it is emptied when packages are selected, and holds one version of the guide at a time."""
    _kept.append(made)
    return made


class _Made(dict[_K, _R]):
    """What a function gave, by its one argument. Looked up in C, like `lru_cache`."""

    def __init__(self, function: Callable[[_K], _R]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, key: _K) -> _R:
        if len(self) >= _MANY:
            self.clear()
        made = self[key] = self._function(key)
        return made


def per_selection(function: Callable[[_K], _R]) -> Callable[[_K], _R]:
    """A cache for a function of one hashable argument that reads the definitions."""
    made = _Made(function)
    kept(made)
    return made.__getitem__


def _once(function: Callable[[], _R]) -> Callable[[], _R]:
    """The same for a function without an argument."""
    made = per_selection(lambda _: function())
    return lambda: made(None)


def access_versions() -> tuple[str, ...]:
    """The versions of the ACCESS guide that are packaged here, each a folder `definitions/access-VERSION`."""
    names = [each.name for each in _ROOT.iterdir() if each.is_dir()]
    return tuple(sorted(name.removeprefix("access-") for name in names if name.startswith("access-")))


def select(*, loaded: Sequence[Traversable] = ()) -> None:
    """Says for this process which loaded packages hold; to be called before the first check, or between two.

    Shape: `loaded` are folders that `profiles.packages.load_package` wrote. What they define takes the place of the
    built-in definition with the same URL; of two, the later one wins.
    Raises: UnknownGuide for a folder that is not there.
    """
    global _selection
    for folder in loaded:
        if not (folder / "profiles.json").is_file():
            raise UnknownGuide(f"{folder.name} is no folder of loaded definitions; load the package again.")
    _selection = _Selection(ACCESS_VERSION, tuple(loaded))
    _aside.clear()
    for made in _kept:
        made.clear()


def turn_to(access: str) -> None:
    """Has that version of the ACCESS guide hold from now on; what was made of another one is kept for its next turn.

    Nothing to do is a comparison; a change costs some 0.1 ms. Raises: UnknownGuide.
    """
    global _selection
    if access == _selection.access:
        return
    if access not in access_versions():
        raise UnknownGuide(f"ACCESS guide {access} is not packaged; there are {', '.join(access_versions())}.")
    _aside[_selection.access] = [dict(made) for made in _kept]
    for made, before in zip_longest(_kept, _aside.pop(access, [])):
        made.clear()
        made.update(before or {})
    _selection = _Selection(access, _selection.loaded)


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


@_once
def profiles() -> dict[str, Json]:
    """Every profile's differential, by URL without version."""
    found = {entry["url"]: entry for folder in _TABLES for entry in _read(folder, "profiles.json")}
    found |= {entry["url"]: entry for entry in _of_guides("StructureDefinition")}
    return found | {entry["url"]: entry for table in _loaded("profiles.json") for entry in table}


@_once
def value_sets() -> dict[str, dict[str, list[str]]]:
    """The enumerated value sets of the tables: `{url: {system: [code]}}`."""
    r4, us_core = (_read(folder, "valuesets.json") for folder in _TABLES)
    loaded = {url: codes for table in _loaded("valuesets.json") for url, codes in table.items()}
    found: dict[str, dict[str, list[str]]] = us_core | loaded | r4
    return found  # what base R4 is bound to stays as it is: its checks are made once


@_once
def guide_value_sets() -> dict[str, Json]:
    """Our own ValueSet resources, by URL."""
    return {entry["url"]: entry for entry in _of_guides("ValueSet")}


@_once
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
