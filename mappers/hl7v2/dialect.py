"""The HL7 v2 dialect of the mapping engine: what the paths of table rows mean.

Paths: `PID-5` the first repetition of field 5; `PID-5*` the whole field with its repetitions; `PID-5.1` component 1 of
the first repetition. Inside a datatype table: `XPN.1` component 1 (its first subcomponent), `XPN.1.2` its subcomponent
2, `CX.4*` component 4 with its subcomponents. A null (`""`) reads as empty.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

from mappers.engine import Converter, Getter
from mappers.hl7v2.parse import NULL, Segment, splitter

_PATH = re.compile(r"(?P<name>[A-Z][A-Z0-9]{1,2})(?P<level>[-.])(?P<index>\d+)(?P<whole>\*)?(?:\.(?P<part>\d+))?")
_WIDTH = 24  # no datatype has more components


class HL7v2Dialect:
    """Turns a row's path into a getter over a segment or over the components of a datatype."""

    opening = ("cells = node[:]",)  # a plain list, which Python reads faster than a Segment

    def __init__(self, converters: Mapping[str, Converter]) -> None:
        self.converters = converters

    def first(self, path: str) -> Getter:
        """A getter of the raw text at a path; empty when absent. Raises ValueError for a path that is none."""
        match = _PATH.fullmatch(path)
        if match is None:
            raise ValueError(f"{path} is no HL7 v2 path")
        index = _index(match)
        if match["whole"]:
            return _whole(index)
        if match["part"] is None:
            return itemgetter(index)
        return (_component if match["level"] == "-" else _subcomponent)(index, int(match["part"]) - 1)

    def each(self, path: str) -> Callable[[Any], Iterable[Any]]:
        """A getter of every repetition of a field; of anything else, of the one value."""
        match = _PATH.fullmatch(path)
        if match is None or match["whole"] or match["part"] or match["level"] == ".":
            get = self.first(path)
            return lambda node: filter(None, (get(node),))
        index = int(match["index"])

        def every(segment: Segment) -> list[str]:
            whole = segment.whole.get(index)
            return repetitions(whole) if whole else [segment[index]]

        return every

    def expression(self, path: str) -> str | None:
        """Python that reads `node` at a path, where an index is enough; see `first`."""
        match = _PATH.fullmatch(path)
        if match is None or match["part"]:
            return None
        index = _index(match)
        return f"(node.whole.get({index}) or cells[{index}])" if match["whole"] else f"cells[{index}]"

    def repeats(self, path: str) -> str | None:
        """Python that is false where the value at the path is the only one; None where it always is; see `each`."""
        match = _PATH.fullmatch(path)
        if match is None or match["whole"] or match["part"] or match["level"] == ".":
            return None
        return "node.whole"


def _index(match: re.Match[str]) -> int:
    return int(match["index"]) - (match["level"] == ".")


def repetitions(field: str) -> list[str]:
    """The repetitions of a field that hold something."""
    if "~" not in field:
        return [field]
    return [value for value in field.split("~") if value and value != NULL]


# The components of one repetition, nulls as empty, filled up so that every index is there.
components = splitter("^", "&", _WIDTH)


def subcomponents(value: str) -> Segment:
    """A component's subcomponents, as a node for rows that address them as components (CNN in NDL)."""
    return components(value.replace("&", "^"))


def _whole(index: int) -> Getter:
    return lambda node: node.whole.get(index) or node[index]


def _component(index: int, position: int) -> Getter:
    def part(segment: Segment) -> str:
        value = segment[index]
        return str(components(value)[position]) if value else ""

    return part


def _subcomponent(index: int, position: int) -> Getter:
    def nth(parts: Segment) -> str:
        value = parts.whole.get(index, "").split("&")
        return value[position] if len(value) > position else ""

    return nth
