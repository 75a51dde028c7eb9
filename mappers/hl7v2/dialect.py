"""The HL7 v2 dialect of the mapping engine: what the paths of table rows mean.

Paths: `PID-5` the first repetition of field 5; `PID-5*` the whole field with its repetitions; `PID-5.1` component 1 of
the first repetition. Inside a datatype table: `XPN.1` component 1 (its first subcomponent), `XPN.1.2` its subcomponent
2, `CX.4*` component 4 with its subcomponents. A null (`""`) reads as empty.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from mappers.engine import Converter, Getter
from mappers.hl7v2.parse import NULL, Segment

_PATH = re.compile(r"(?P<name>[A-Z][A-Z0-9]{1,2})(?P<level>[-.])(?P<index>\d+)(?P<whole>\*)?(?:\.(?P<part>\d+))?")
_WIDTH = 24  # no datatype has more components


class HL7v2Dialect:
    """Turns a row's path into a getter over a segment or over the components of a datatype."""

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

    def together(self, paths: Sequence[str | None]) -> Callable[[Any], Sequence[Any]]:
        """One getter for many paths: most are plain indexes, which are read in one go."""
        plain = [_plain_index(path) for path in paths]
        read = itemgetter(*plain) if len(plain) > 1 else lambda node: (node[plain[0]],)
        odd = [(place, self.first(path)) for place, path in enumerate(paths) if path and path.endswith("*")]
        if not odd:
            return read

        def values(node: Segment) -> Sequence[Any]:
            if not node.whole:
                return read(node)
            found = list(read(node))
            for place, get in odd:
                found[place] = get(node)
            return found

        return values


def _index(match: re.Match[str]) -> int:
    return int(match["index"]) - (match["level"] == ".")


def _plain_index(path: str | None) -> int:
    """The index that a row's path reads. A component as a row's own `from` is not supported: say it in a datatype."""
    match = _PATH.fullmatch(path or "")
    if match is None or match["part"]:
        raise ValueError(f"{path} can not be a row's path")
    return _index(match)


def repetitions(field: str) -> list[str]:
    """The repetitions of a field that hold something."""
    if "~" not in field:
        return [field]
    return [value for value in field.split("~") if value and value != NULL]


def components(value: str) -> Segment:
    """The components of one repetition, nulls as empty, filled up so that every index is there."""
    parts = Segment(value.split("^"))
    parts.settle(_WIDTH, value, "&")
    return parts


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
