"""Rows of a user's own: read from a folder, laid over the tables that ship with the mappers, without code.

The folder mirrors the packages: `hl7v2/`, `cda/` and `fhir/` hold TOML files named as those in the package's `tables/`,
`instruments/` likewise, `codesystems/` holds `systems.toml` and ConceptMaps. A file has only what differs:

- a list of rows: a row takes the place of ours with the same key, others are added. The key of a mapping row is its
  `from` with its `when`; `also = true` adds a second target beside ours. Of the other lists: `from`, `measure` and
  `unit`, `name`, `code`; a row without any of these is added.
- a table of values: the user's value wins.
- a ConceptMap: an element takes the place of ours with the same code, others are added; a new file is a new map.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiles import fhir_json

_PACKAGES = ("hl7v2", "cda", "fhir", "instruments", "codesystems")
_KEYS = (("from", "when"), ("measure", "unit"), ("name",), ("from",), ("link",), ("code",))


class OverrideError(ValueError):
    """A file of the folder can not be used; the text names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a folder holds: by package and file name (`hl7v2`, `segments.toml`), the data as read."""

    files: Mapping[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def names(self, package: str) -> tuple[str, ...]:
        """The files of one package."""
        return tuple(name for owner, name in self.files if owner == package)

    def over(self, package: str, name: str, ours: dict[str, Any]) -> dict[str, Any]:
        """Our data of a file with the user's laid over it."""
        theirs = self.files.get((package, name))
        if theirs is None:
            return ours
        return _concept_map(ours, theirs) if name.endswith(".json") else _merged(ours, theirs)


_NONE = Overrides()
_current = [_NONE]  # one for the process: the tables are compiled once


def current() -> Overrides:
    """The overrides in use."""
    return _current[0]


def use(overrides: Overrides) -> Overrides:
    """From now on the tables are read with these overrides; the earlier ones are given back.

    By itself this reaches no table that is compiled already: call `mappers.recompile.install`.
    """
    earlier, _current[0] = _current[0], overrides
    return earlier


def over(package: str, name: str, ours: dict[str, Any]) -> dict[str, Any]:
    """Our data of a file with the rows in use laid over it."""
    return _current[0].over(package, name, ours)


def load(folder: Path) -> Overrides:
    """Reads a folder. Raises OverrideError for a file that is not one of ours to lay over, or is not readable."""
    if not folder.is_dir():
        raise OverrideError(f"{folder}: there is no such folder. Make it, or take [mappings] out of the configuration.")
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith((".", "README")):
            found[_place(path, folder)] = _read(path)
    return Overrides(found)


def _place(path: Path, folder: Path) -> tuple[str, str]:
    parts = path.relative_to(folder).parts
    if len(parts) != 2 or parts[0] not in _PACKAGES or path.suffix not in (".toml", ".json"):
        wanted = ", ".join(f"{name}/" for name in _PACKAGES)
        raise OverrideError(f"{path}: only .toml and .json files in {wanted} are read. Move it, or rename the folder.")
    return parts[0], parts[1]


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        return fhir_json.parse(data) if path.suffix == ".json" else tomllib.loads(data.decode("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, fhir_json.BadJson, json.JSONDecodeError) as bad:
        reason = bad.issue.text if isinstance(bad, fhir_json.BadJson) else str(bad)
        raise OverrideError(f"{path}: {reason}") from bad


def _merged(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    return {
        **ours,
        **{name: _value(ours[name], value) if name in ours else _clean(value) for name, value in theirs.items()},
    }


def _value(ours: Any, theirs: Any) -> Any:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return _merged(ours, theirs)
    if _rows(ours) and _rows(theirs):
        taken = {_key(row) for row in theirs if not row.get("also")} - {None}
        return [*(row for row in ours if _key(row) not in taken), *_clean(theirs)]
    return theirs


def _rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _clean(value: Any) -> Any:
    return [{k: v for k, v in row.items() if k != "also"} for row in value] if _rows(value) else value


def _key(row: dict[str, Any]) -> str | None:
    """What tells a row from others of its list."""
    for names in _KEYS:
        if names[0] in row and (len(names) == 1 or names[1] in row or names == ("from", "when")):
            return json.dumps([row.get(name) for name in names], sort_keys=True, default=str)
    return None


def _concept_map(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """The user's elements first: the first group that names a code decides."""
    codes = {element["code"] for group in theirs["group"] for element in group["element"]}
    kept = [
        {**group, "element": [element for element in group["element"] if element["code"] not in codes]}
        for group in ours["group"]
    ]
    return {**ours, "group": [*theirs["group"], *kept]}
