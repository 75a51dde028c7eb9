"""The guide's code lists: ValueSet and CodeSystem JSON read as data files, by their url.

A list that is not there is unknown, and what it would decide is then not checked: `contains` answers None.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "profiles" / "definitions" / "access-0.9.12"
_log = logging.getLogger("sandbox.codes")


@dataclass(slots=True)
class CodeList:
    """Single codes, and roots with everything beneath them (ICD-10-CM: whatever begins with the root)."""

    codes: set[str] = field(default_factory=set)
    roots: set[str] = field(default_factory=set)

    def has(self, code: str) -> bool:
        """Whether the code is in the list."""
        return code in self.codes or any(code.startswith(root) for root in self.roots)


class Codes:
    """All lists of one folder."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._lists: dict[str, CodeList] = {}
        self._displays: dict[str, dict[str, str]] = {}
        for resource in _resources(folder):
            self._read(resource)
        if not self._lists:
            _log.warning("no code lists in %s: diagnoses are not checked", folder)

    def contains(self, value_set: str, code: str) -> bool | None:
        """Whether the list holds the code; None if the list is not there."""
        found = self._lists.get(value_set)
        return None if found is None else found.has(code)

    def codes_of(self, code_system: str) -> frozenset[str] | None:
        """The codes of a code system; None if it is not there."""
        found = self._displays.get(code_system)
        return None if found is None else frozenset(found)

    def display(self, code_system: str, code: str) -> str | None:
        """A code's display; None if it has none."""
        return self._displays.get(code_system, {}).get(code)

    def _read(self, resource: dict[str, Any]) -> None:
        if resource["resourceType"] == "CodeSystem":
            self._displays[resource["url"]] = {c["code"]: c.get("display", "") for c in resource.get("concept", [])}
            return
        members = CodeList()
        for include in resource.get("compose", {}).get("include", []):
            members.codes.update(c["code"] for c in include.get("concept", []))
            members.roots.update(f["value"] for f in include.get("filter", []) if f["op"] == "is-a")
        members.codes.update(c["code"] for c in resource.get("expansion", {}).get("contains", []))
        if members.codes or members.roots:  # else it takes a whole code system in, and is not a list
            self._lists[resource["url"]] = members


def _resources(folder: Path) -> Iterator[dict[str, Any]]:
    """Every CodeSystem and ValueSet under the folder, alone in its file or in a Bundle."""
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_bytes())
        found = content if isinstance(content, list) else [content]
        found += [entry["resource"] for one in found for entry in one.get("entry", [])]
        yield from (r for r in found if r.get("resourceType") in ("CodeSystem", "ValueSet") and "url" in r)
