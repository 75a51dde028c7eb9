"""The HL7 v2 dialect of the mapping engine: what the paths of table rows mean.

Paths: `PID-5` the first repetition of field 5; `PID-5*` the whole field with its repetitions; `PID-5.1` component 1 of the
first repetition. Inside a datatype table: `XPN.1` component 1 (its first
subcomponent), `XPN.1.2` its subcomponent 2, `CX.4*` component 4 with its subcomponents. A null (`""`) reads as empty.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

from mappers.engine import Converter, Getter

_FIELD = re.compile(r"[A-Z][A-Z0-9]{2}-(\d+)(\*)?(?:\.(\d+))?")
_COMPONENT = re.compile(r"[A-Z]{2,3}\.(\d+)(\*)?(?:\.(\d+))?")
_WIDTH = 24  # no datatype has more components
NULL = '""'


class HL7v2Dialect:
    """Turns a row's path into a getter over a segment (list of fields) or a datatype (list of components)."""

    def __init__(self, converters: Mapping[str, Converter]) -> None:
        self.converters = converters

    def first(self, path: str) -> Getter:
        """A getter of the raw text at a path; empty when absent. Raises ValueError for a path that is none."""
        match = _FIELD.fullmatch(path)
        if match:
            return _whole(int(match[1])) if match[2] else _field(int(match[1]), match[3])
        match = _COMPONENT.fullmatch(path)
        if match is None:
            raise ValueError(f"{path} is no HL7 v2 path")
        index = int(match[1]) - 1
        return _whole(index) if match[2] else _subcomponent(index, int(match[3] or 1) - 1)

    def each(self, path: str) -> Callable[[Any], Iterable[Any]]:
        """A getter of every repetition of a field."""
        match = _FIELD.fullmatch(path)
        if match is None or match[2]:
            get = self.first(path)
            return lambda node: filter(None, (get(node),))
        index = int(match[1])
        return lambda segment: repetitions(segment[index])


def repetitions(field: str) -> list[str]:
    """The repetitions of a field that hold something."""
    if "~" not in field:
        return [field]
    return [value for value in field.split("~") if value and value != NULL]


def components(value: str) -> list[str]:
    """The components of one repetition, nulls as empty, filled up so that every index is there."""
    parts = value.split("^")
    if NULL in value:
        parts = ["" if part == NULL else part for part in parts]
    missing = _WIDTH - len(parts)
    return parts + [""] * missing if missing > 0 else parts


def subcomponents(value: str) -> list[str]:
    """A component's subcomponents, as a node for rows that address them as components (CNN in NDL, HD in CX.4)."""
    return components(value.replace("&", "^"))


def _whole(index: int) -> Getter:
    return itemgetter(index)


def _field(index: int, component: str | None) -> Getter:
    if component is None:

        def first(segment: list[str]) -> str:
            value = segment[index]
            return value.partition("~")[0] if "~" in value else value

        return first
    position = int(component) - 1

    def part(segment: list[str]) -> str:
        value = segment[index]
        return components(value.partition("~")[0])[position].partition("&")[0] if value else ""

    return part


def _subcomponent(index: int, position: int) -> Getter:
    if position == 0:

        def first(parts: list[str]) -> str:
            value = parts[index]
            return value.partition("&")[0] if "&" in value else value

        return first

    def nth(parts: list[str]) -> str:
        value = parts[index].split("&")
        return value[position] if len(value) > position else ""

    return nth
