"""Reading FHIR JSON strictly, and finding one's way in it."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from sandbox import tables
from sandbox.exchange import Issue

MAX_DEPTH = 64


class BadJson(ValueError):
    """The body is not JSON as FHIR wants it; the text says where."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise BadJson("a property is given twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise BadJson(f"{name} is not JSON")


def parse(body: bytes) -> Any:
    """The value of a JSON text. Raises BadJson."""
    try:
        value = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise BadJson("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise BadJson("it is not UTF-8") from None
    except json.JSONDecodeError as bad:
        raise BadJson(f"line {bad.lineno}, column {bad.colno}: {bad.msg}") from None
    _shallow(value)
    return value


def _shallow(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for one in level for child in _children(one)]
    if level:
        raise BadJson("it is nested too deeply")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def empties(value: Any, where: str) -> Iterator[Issue]:
    """FHIR JSON forbids null (outside primitive arrays), empty arrays, empty objects and empty strings."""
    if value in ("", [], {}):
        yield Issue("structure", f"{where} is empty: leave the element out", where)
    elif isinstance(value, dict):
        for name, child in value.items():
            if child is None:
                yield Issue("structure", f"{where}.{name} is null: leave the element out", f"{where}.{name}")
            else:
                yield from empties(child, f"{where}.{name}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from empties(child, f"{where}[{index}]")


def rows(value: Any) -> list[dict[str, Any]]:
    """A list's objects; nothing for any other shape."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def obj(value: Any) -> dict[str, Any]:
    """The object, or an empty one."""
    return value if isinstance(value, dict) else {}


def codings(concept: Any, system: str | None = None) -> list[dict[str, Any]]:
    """A CodeableConcept's codings, of one system if named."""
    return [c for c in rows(obj(concept).get("coding")) if system is None or c.get("system") == system]


def filled(value: Any) -> bool:
    """Whether it is a string with something in it."""
    return isinstance(value, str) and bool(value.strip())


def claims(resource: dict[str, Any], *names: str) -> bool:
    """Whether meta.profile has one of the profiles (ACCESS or US Core ids), unversioned or of the guide's version."""
    claimed = obj(resource.get("meta")).get("profile")
    return isinstance(claimed, list) and any(form in claimed for name in names for form in _forms(name))


def _forms(name: str) -> tuple[str, str]:
    program = tables.program()
    if name.startswith("us-core-"):
        url, version = f"{tables.US_CORE}/{name}", program["us_core_version"]
    else:
        url, version = tables.ig("StructureDefinition", name), program["profile_version"]
    return url, f"{url}|{version}"


def mbi_of(patient: dict[str, Any]) -> str | None:
    """The Medicare Beneficiary Identifier, or None."""
    found = [i for i in rows(patient.get("identifier")) if i.get("system") == tables.MBI_SYSTEM]
    return found[0].get("value") if found else None


MBI_PATTERN = re.compile(
    r"[1-9][AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y][0-9][AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y][0-9][AC-HJKMNP-RT-Y]{2}[0-9]{2}"
)
