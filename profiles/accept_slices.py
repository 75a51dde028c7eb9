"""Slices in the fast lane of profiles: finds the slice of each value by one look-up where it can, and counts."""

from collections.abc import Callable
from typing import Any

from profiles.generated import NO, Lines, fresh, indented, named
from profiles.matching import matcher
from profiles.shapes import shape
from profiles.slice_keys import Form, Key, key_of
from profiles.tree import Node, Profile, Steps

Level = tuple[Profile, Node, Steps]  # one profile's word on an element
LinesOf = Callable[[list[Level]], Lines]


class _Slice:
    """One slice in the making: the name of its counter, the tests of a value in it, what makes it."""

    __slots__ = ("counter", "key", "least", "lines", "most", "test")

    def __init__(self, level: Level, name: str, discriminators: list[dict[str, Any]], lines_of: LinesOf) -> None:
        found, node, steps = level
        here = (*steps[:-1], f"{steps[-1]}:{name}")
        nodes = [node, *found.inherited(here)]
        self.test, self.key = matcher(discriminators, nodes), key_of(discriminators, nodes) if discriminators else None
        self.least, self.most = node.limits
        self.counter = fresh("n") if self.least or self.most is not None else None
        self.lines = lines_of([(found, node, here)])
        if self.counter:
            self.lines = [f"{self.counter} += 1", *self.lines]


class Sliced:
    """What one profile says about the slices of an element: lines before, inside and after the loop over its values."""

    def __init__(self, level: Level, value_lines: Callable[[list[Level], str], Lines]) -> None:
        found, node, steps = level
        self._path = node.path
        y = self._value = fresh("y")
        slicing = found.slicing(node, steps)
        discriminators = slicing.get("discriminator", [])
        made = [
            _Slice((found, child, steps), name, discriminators, lambda levels: value_lines(levels, y))
            for name, child in node.slices.items()
        ]
        self.slices = [each for each in made if each.test is not None]
        self._closed = slicing.get("rules") == "closed"
        while not self._closed and self.slices and not self.slices[-1].lines:
            self.slices.pop()  # says nothing, and hides nothing from those before it

    def before(self) -> Lines:
        """The counters, at zero."""
        return [f"{each.counter} = 0" for each in self.slices if each.counter]

    def after(self) -> Lines:
        """How many there may be."""
        lines: Lines = []
        for each in self.slices:
            lines += [f"if {each.counter} < {each.least}: {NO}"] if each.least else []
            lines += [f"if {each.counter} > {each.most}: {NO}"] if each.most is not None else []
        return lines

    def lines(self, y: str) -> Lines:
        """Finds the slice of the value named `y` and tests it."""
        if not self.slices:
            return []
        key = self._shared_key()
        if key is None:
            return [f"{self._value} = {y}", *self._branches([f"{named(each.test)}({y}, s)" for each in self.slices])]
        k = fresh("k")
        tests = [f"{k} == {number}" for number in range(len(self.slices))]
        return [f"{self._value} = {y}", *self._look_up(key, y, k), *self._branches(tests)]

    def _branches(self, tests: Lines) -> Lines:
        lines: Lines = []
        for number, (test, each) in enumerate(zip(tests, self.slices, strict=True)):
            lines += [f"{'elif' if number else 'if'} {test}:", *indented(each.lines or ["pass"])]
        return [*lines, *([f"else: {NO}"] if self._closed else [])]

    def _shared_key(self) -> Key | None:
        """The key of the first slice, when all slices are told in the same way and the values surely allow it."""
        keys = [each.key for each in self.slices]
        first = keys[0]
        if first is None or any(each is None or (each.form, each.path) != (first.form, first.path) for each in keys):
            return None
        told = shape(".".join([self._path, *first.path]))
        if told.element is None or (first.path and told.is_list):
            return None
        fits = {
            Form.TEXT: told.is_primitive,
            Form.CODING: told.only == "CodeableConcept",
            Form.PARTS: told.only == "CodeableConcept" and len(keys) == 1,
            Form.TYPE: told.only == "Resource",
        }
        return first if fits[first.form] else None

    def _table(self) -> dict[Any, int]:
        table: dict[Any, int] = {}
        for number, each in enumerate(self.slices):
            for value in each.key.values if each.key else ():
                table.setdefault(value, number)
        return table

    def _look_up(self, key: Key, y: str, k: str) -> Lines:
        """Sets `k` to the number of the first slice that the value is in, -1 when it is in none."""
        table = named(self._table())
        inner = f"{y}.get({key.path[0]!r}, EMPTY)" if key.path else y
        if key.form is Form.TEXT:
            return [f"{k} = {table}.get({f'{y}.get({key.path[0]!r})' if key.path else y}, -1)"]
        if key.form is Form.TYPE:
            return [f'{k} = {table}.get({inner}.get("resourceType"), -1)']
        c, t, codings = fresh("c"), fresh("t"), fresh("g")
        lines = [
            f"{k} = -1",
            f'{codings} = {inner}.get("coding", ())',
            f"for {c} in {codings}:",
            f'    {t} = {table}.get(({c}.get("system"), {c}.get("code")), -1)',
            f"    if {t} >= 0 and ({k} < 0 or {t} < {k}): {k} = {t}",
        ]
        # system and code of two codings make the slice as well: let the closures tell
        return [*lines, f"if {k} < 0 and len({codings}) > 1: {NO}"] if key.form is Form.PARTS else lines
