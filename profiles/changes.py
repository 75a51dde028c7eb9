"""What changed between two versions of a guide: `python -m profiles.changes access-0.9.12 FOLDER`.

A version is a folder of StructureDefinition, ValueSet and CodeSystem JSON; a packaged one is named, another is a path.
Compared is what decides over a request: profiles, elements and slices (so: parameters), cardinalities, types, fixed
values, bindings, invariants, codes. Texts are not.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from profiles import library

Json = dict[str, Any]
Facts = dict[str, str]  # what is compared: a name -> its value in one line

_TEXTS = frozenset(
    {"id", "path", "short", "definition", "comment", "requirements", "mapping", "sliceName", "constraint"}
)


class Kind(StrEnum):
    """What happened."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `where` is the definition's id and, inside it, an element, a fact or a code."""

    kind: Kind
    where: str
    old: str = ""
    new: str = ""

    def __str__(self) -> str:
        return f"{self.kind:8}{self.where}" + (f": {self.old} -> {self.new}" if self.kind is Kind.CHANGED else "")


def changes(old: Traversable, new: Traversable) -> list[Change]:
    """Every difference between two folders, by definition. A new definition is one change, not one for each part."""
    found: list[Change] = []
    for resource_type, facts_of in _COMPARED.items():
        before, after = (
            {entry["id"]: entry for entry in library.definitions_in(folder, resource_type)} for folder in (old, new)
        )
        for name in sorted(before.keys() | after.keys()):
            if name not in before or name not in after:
                found.append(Change(Kind.ADDED if name in after else Kind.REMOVED, name))
            else:
                found += _compared(name, facts_of(before[name]), facts_of(after[name]))
    return found


def _compared(name: str, before: Facts, after: Facts) -> Iterator[Change]:
    for key in [*before, *(key for key in after if key not in before)]:
        where = f"{name} {key}"
        if key not in after:
            yield Change(Kind.REMOVED, where, old=before[key])
        elif key not in before:
            yield Change(Kind.ADDED, where, new=after[key])
        elif before[key] != after[key]:
            yield Change(Kind.CHANGED, where, before[key], after[key])


def _profile_facts(definition: Json) -> Facts:
    facts = {"base": str(definition["baseDefinition"])}
    for element in definition["differential"]["element"]:
        name = element["id"]
        facts[name] = "element"
        facts |= {f"{name} {key}": _line(value) for key, value in element.items() if key not in _TEXTS}
        for rule in element.get("constraint", []):
            facts[f"{name} rule {rule['key']}"] = f"{rule['severity']} {rule.get('expression', '')}".strip()
    return facts


def _code_facts(definition: Json) -> Facts:
    return {f"code {concept['code']}": "code" for concept in definition.get("concept", [])}


def _set_facts(definition: Json) -> Facts:
    facts: Facts = {}
    for include in definition["compose"]["include"]:
        system = include["system"]
        facts[f"system {system}"] = "system"
        facts |= {f"code {system}|{concept['code']}": "code" for concept in include.get("concept", [])}
        for each in include.get("filter", []):
            facts[f"filter {system} {each['property']} {each['op']} {each['value']}"] = "filter"
    return facts


def _line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))


_COMPARED: dict[str, Callable[[Json], Facts]] = {
    "StructureDefinition": _profile_facts,
    "CodeSystem": _code_facts,
    "ValueSet": _set_facts,
}


def _folder(name: str) -> Traversable:
    return Path(name) if Path(name).is_dir() else library.guide_folder(name)


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and prints one change a line."""
    parser = argparse.ArgumentParser(
        prog="python -m profiles.changes", description="What changed between two versions of a guide"
    )
    parser.add_argument("old", type=_folder, help="a packaged guide such as access-0.9.12, or a folder")
    parser.add_argument("new", type=_folder)
    options = parser.parse_args(arguments)
    for change in changes(options.old, options.new):
        print(change)


if __name__ == "__main__":
    main()
