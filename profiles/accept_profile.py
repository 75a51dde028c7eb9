"""The fast lane of profiles: one generated function per profile that says yes only to what surely has no finding.

`accepts_profile(url)` is a plain Python function made from the differentials of the profile and of all that it is built
on, merged element by element: a value of sound structure goes through one function instead of a hundred closures. A no
means nothing: the closures of `profiles.compile` then walk the same value. As with `profiles.accept`, this can make
validation slow, but never wrong, as long as a yes is right: a test spoils resources at random and compares.

The functions trust the structure. Whatever comes from a definition is written into the source as a Python literal or
bound to a name, never as text, because a definition may come from a package that someone downloaded.
"""

import re
from collections.abc import Iterator
from itertools import count
from typing import Any

from profiles import library, rules, valuesets
from profiles.accept import Accepts
from profiles.canonical import unversioned
from profiles.matching import Fit, Form, Key, Targets, coding_of, expected, key_of, matcher, value_test
from profiles.primitives import PRIMITIVES
from profiles.run import Scope
from profiles.shapes import Shape, shape
from profiles.tree import Node, Profile, Steps, profile

Lines = list[str]
Level = tuple[Profile, Node, Steps]  # one profile's word on an element; nearest profile first

_NO = "return False"
_FEW = 3  # a choice of so many types is asked for one by one
_EMPTY: dict[str, Any] = {}

_numbers = count()
_names: dict[str, Any] = {"EMPTY": _EMPTY}  # what the generated functions refer to
_made: dict[str, Accepts] = {}


def accepts_profile(url: str) -> Accepts:
    """The acceptor of a known profile by its URL without version, made when first asked for.

    Shape: (value of sound structure and of the profile's type, its scope) -> whether the profile surely finds nothing.
    """
    found = _made.get(url)
    if found is None:
        found = _made[url] = _generate(profile(url))
    return found


def _generate(found: Profile) -> Accepts:
    levels: list[Level] = [(each, each.root, ()) for each in found.lineage()]
    name = re.sub(r"\W", "_", f"accept {found.label}", flags=re.ASCII)
    source = "\n".join([f"def {name}(v, s):", *_in(_value_lines(levels, "v")), "    return True"])
    exec(compile(source, f"<{name}>", "exec"), _names)  # noqa: S102 - definitions enter as literals and names only
    made: Accepts = _names[name]
    return made


def _in(lines: Lines) -> Lines:
    return [f"    {line}" for line in lines]


def _when(condition: str, lines: Lines) -> Lines:
    return [f"if {condition}:", *_in(lines)] if lines else []


def _fresh(stem: str) -> str:
    return f"{stem}{next(_numbers)}"


def _named(value: Any) -> str:
    """A name under which the generated functions find the object."""
    name = _fresh("o")
    _names[name] = value
    return name


# --- One value ------------------------------------------------------------------------------------------------------


def _value_lines(levels: list[Level], x: str) -> Lines:
    """Tests of the value named `x`: what it is, then what it holds."""
    lines: Lines = []
    for _, node, _ in levels:
        lines += _own_lines(node, x)
    lines += _rule_lines(levels, x)
    here = shape(levels[0][1].path)
    is_root = "." not in levels[0][1].path
    inner = [] if here.is_primitive else _children_lines(levels, x)
    return lines + (inner if is_root or here.is_object else _when(f"type({x}) is dict", inner))


def _own_lines(node: Node, x: str) -> Lines:
    lines: Lines = []
    fixed = expected(node.facts)
    if fixed is not None:
        lines += _fixed_lines(node, *fixed, x)
    if node.facts.get("binding", {}).get("strength") == "required":
        test = valuesets.tester(unversioned(node.facts["binding"]["valueSet"]))
        lines += [f"if not {_named(test)}({x}): {_NO}"] if test else []
    return lines + _type_lines(node, x)


def _fixed_lines(node: Node, wanted: Any, exact: bool, x: str) -> Lines:
    if type(wanted) is str:
        return [f"if {x} != {wanted!r}: {_NO}"]
    pair = None if exact else coding_of(wanted)
    if pair is None or shape(node.path).only != "CodeableConcept":
        return [f"if not {_named(value_test(wanted, exact))}({x}): {_NO}"]
    c = _fresh("c")
    return [
        f'for {c} in {x}.get("coding", ()):',
        f'    if {c}.get("code") == {pair[1]!r} and {c}.get("system") == {pair[0]!r}: break',
        f"else: {_NO}",
    ]


def _type_lines(node: Node, x: str) -> Lines:
    types = node.facts.get("type", [])
    if types and all(kind["code"] in library.resource_types() for kind in types):
        return _resource_lines(types, x) if shape(node.path).is_object else [_NO]
    lines: Lines = []
    for kind in types:
        if kind["code"] == "Reference" and kind.get("targetProfile"):
            lines += _target_lines(node, [unversioned(url) for url in kind["targetProfile"]], x)
        elif "profile" in kind and kind["code"] in library.types() and len(kind["profile"]) == 1:
            lines += _datatype_lines(node, unversioned(kind["profile"][0]), x)
    return lines


def _resource_lines(types: list[dict[str, Any]], x: str) -> Lines:
    codes = frozenset(kind["code"] for kind in types)
    urls = [unversioned(url) for kind in types for url in kind.get("profile", [])]
    lines = [f'if {x}.get("resourceType") not in {_named(codes)}: {_NO}']
    if len(urls) == 1 and urls[0] in library.profiles():
        lines.append(f"if not {_named(_resource_acceptor(urls[0]))}({x}, s): {_NO}")
    return lines


def _resource_acceptor(url: str) -> Accepts:
    """The acceptor of a resource in a slot, which has a scope of its own and may have been checked already."""
    wanted = library.profiles()[url]["type"]

    def accepts(value: Any, scope: Scope) -> bool:
        key = (id(value), url)
        if key in scope.checked:
            return True
        if value["resourceType"] != wanted or not accepts_profile(url)(value, Scope(value, scope)):
            return False
        scope.checked.add(key)
        return True

    return accepts


def _datatype_lines(node: Node, url: str, x: str) -> Lines:
    if url not in library.profiles():
        return []
    if library.profiles()[url]["type"] != shape(node.path).only:
        return [_NO]
    acceptor = _named(lambda value, scope: accepts_profile(url)(value, scope))  # later: profiles hold each other
    return [f"if not {acceptor}({x}, s): {_NO}"]


def _target_lines(node: Node, urls: list[str], x: str) -> Lines:
    targets = Targets(urls)
    if not targets:
        return []
    r, fit, yes = _fresh("r"), _named(targets.fit), _named(Fit.YES)
    told = f'{x}.get("reference")' + ("" if shape(node.path).is_object else f" if type({x}) is dict else None")
    return [f"{r} = {told}", f"if {r} is not None and {fit}({r}, s) is not {yes}: {_NO}"]


def _rule_lines(levels: list[Level], x: str) -> Lines:
    lines: Lines = []
    seen: set[str] = set()
    for _, node, _ in levels:
        for rule in node.facts.get("constraint", []):
            if rule["key"] not in seen:
                seen.add(rule["key"])
                lines.append(_rule_line(rule["key"], node.path, x))
    return lines


def _rule_line(key: str, path: str, x: str) -> str:
    finder, named = rules.finder(key), rules.named_rule(key, path)
    if finder is not None:
        return f"for _ in {_named(finder)}({x}, s): {_NO}"
    return f"if not {_named(named)}({x}, s): {_NO}" if named else _NO


# --- The elements of an object --------------------------------------------------------------------------------------


def _children_lines(levels: list[Level], x: str) -> Lines:
    names = dict.fromkeys(name for _, node, _ in levels for name in node.children)
    lines: Lines = []
    for name in names:
        below = [
            (found, node.children[name], (*steps, name)) for found, node, steps in levels if name in node.children
        ]
        lines += (_choice_lines if name.endswith("[x]") else _element_lines)(below, x)
    return lines


def _element_lines(levels: list[Level], owner: str) -> Lines:
    """One element of the object named `owner`: presence, number, each value, slices."""
    node = levels[0][1]
    least, most = _limits(levels)
    here = shape(node.path)
    x = _fresh("x")
    inner = _number_lines(x, least, most, here) + _each_lines(levels, x, here)
    if most == 0:
        return [f"if {node.name!r} in {owner} or {'_' + node.name!r} in {owner}: {_NO}"]
    if least:
        return [f"{x} = {owner}.get({node.name!r})", f"if {x} is None: {_NO}", *inner]
    return [f"{x} = {owner}.get({node.name!r})", *_when(f"{x} is not None", inner)] if inner else []


def _limits(levels: list[Level]) -> tuple[int, int | None]:
    """The strictest of all profiles."""
    limits = [node.limits for _, node, _ in levels]
    most = [maximum for _, maximum in limits if maximum is not None]
    return max(minimum for minimum, _ in limits), min(most, default=None)


def _number_lines(x: str, least: int, most: int | None, here: Shape) -> Lines:
    if here.is_list is False:
        return [_NO] if least > 1 else []
    size = f"len({x})" if here.is_list else f"(len({x}) if type({x}) is list else 1)"
    lines = [f"if {size} < {least}: {_NO}"] if least > 1 else []
    return lines + ([f"if {size} > {most}: {_NO}"] if most is not None else [])


def _each_lines(levels: list[Level], x: str, here: Shape) -> Lines:
    sliced = [_Sliced(*level) for level in levels if level[1].slices]
    if here.is_list is False and not any(each.slices for each in sliced):
        return _value_lines(levels, x)
    y = _fresh("y")
    inner = _value_lines(levels, y) + [line for each in sliced for line in each.lines(y)]
    if not inner:
        return []
    values = {True: x, False: f"({x},)", None: f"{x} if type({x}) is list else ({x},)"}[here.is_list]
    before = [line for each in sliced for line in each.before()]
    after = [line for each in sliced for line in each.after()]
    return [*before, f"for {y} in {values}:", *_in(inner), *after]


# --- Choices --------------------------------------------------------------------------------------------------------


def _choice_lines(levels: list[Level], owner: str) -> Lines:
    """An `x[x]`: a value of an allowed type and no other; the structure has seen to it that there is one at most."""
    if any(node.slices for _, node, _ in levels):
        return [_NO]
    least, most = _limits(levels)
    keys = _keys_of(levels[0][1])
    allowed = [key for key, code in keys.items() if all(code in types for types in _listed_types(levels))]
    x = _fresh("x")
    inner = _value_lines(levels, x)
    if most == 0 or least > 1:
        return [f"if not {_named(frozenset(keys))}.isdisjoint({owner}): {_NO}"] if not least else [_NO]
    if not (inner or least or len(allowed) < len(keys)):
        return []
    lines = _choose_lines(owner, x, keys, allowed)
    return [*lines, f"if {x} is None: {_NO}", *inner] if least else [*lines, *_when(f"{x} is not None", inner)]


def _choose_lines(owner: str, x: str, keys: dict[str, str], allowed: list[str]) -> Lines:
    """Sets `x` to the value, None when there is none."""
    if len(allowed) <= _FEW and len(allowed) < len(keys):
        lines = [f"{x} = None"]
        for key in reversed(allowed):
            lines = [f"{x} = {owner}.get({key!r})", *_when(f"{x} is None", lines)]
        forbidden = _named(frozenset(keys) - set(allowed))
        return [*lines, *_when(f"{x} is None and not {forbidden}.isdisjoint({owner})", [_NO])]
    k = _fresh("k")
    return [
        f"{x} = None",
        f"for {k} in {owner}:",
        f"    if {k} in {_named(frozenset(keys))}:",
        f"        if {k} not in {_named(frozenset(allowed))}: {_NO}",
        f"        {x} = {owner}[{k}]",
    ]


def _keys_of(node: Node) -> dict[str, str]:
    """JSON key -> type, of every type that the choice may have."""
    element = shape(node.path).element
    if element is not None:
        return {kind.key: kind.code for kind in element.kinds}
    stem = node.name.removesuffix("[x]")
    complex_types = [name for name, entry in library.types().items() if entry["kind"] == "complex-type"]
    return {stem + code[0].upper() + code[1:]: code for code in (*PRIMITIVES, *complex_types)}


def _listed_types(levels: list[Level]) -> Iterator[frozenset[str]]:
    for _, node, _ in levels:
        if node.facts.get("type"):
            yield frozenset(kind["code"] for kind in node.facts["type"])


# --- Slices ---------------------------------------------------------------------------------------------------------


class _Slice:
    """One slice in the making: the name of its counter, the tests of a value in it, what makes it."""

    __slots__ = ("counter", "key", "least", "lines", "most", "test")

    def __init__(self, level: Level, name: str, y: str, discriminators: list[dict[str, Any]]) -> None:
        found, node, steps = level
        here = (*steps[:-1], f"{steps[-1]}:{name}")
        nodes = [node, *found.inherited(here)]
        self.test, self.key = matcher(discriminators, nodes), key_of(discriminators, nodes) if discriminators else None
        self.least, self.most = node.limits
        self.counter = _fresh("n") if self.least or self.most is not None else None
        self.lines = _value_lines([(found, node, here)], y)
        if self.counter:
            self.lines = [f"{self.counter} += 1", *self.lines]


class _Sliced:
    """What one profile says about the slices of an element: lines before, inside and after the loop over its values."""

    def __init__(self, found: Profile, node: Node, steps: Steps) -> None:
        self._path = node.path
        self._value = _fresh("y")
        slicing = found.slicing(node, steps)
        discriminators = slicing.get("discriminator", [])
        made = [
            _Slice((found, child, steps), name, self._value, discriminators) for name, child in node.slices.items()
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
            lines += [f"if {each.counter} < {each.least}: {_NO}"] if each.least else []
            lines += [f"if {each.counter} > {each.most}: {_NO}"] if each.most is not None else []
        return lines

    def lines(self, y: str) -> Lines:
        """Finds the slice of the value named `y` and tests it."""
        if not self.slices:
            return []
        key = self._shared_key()
        if key is None:
            return [f"{self._value} = {y}", *self._branches([f"{_named(each.test)}({y}, s)" for each in self.slices])]
        k = _fresh("k")
        tests = [f"{k} == {number}" for number in range(len(self.slices))]
        return [f"{self._value} = {y}", *self._look_up(key, y, k), *self._branches(tests)]

    def _branches(self, tests: Lines) -> Lines:
        lines: Lines = []
        for number, (test, each) in enumerate(zip(tests, self.slices, strict=True)):
            lines += [f"{'elif' if number else 'if'} {test}:", *_in(each.lines or ["pass"])]
        return [*lines, *([f"else: {_NO}"] if self._closed else [])]

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
        table = _named(self._table())
        inner = f"{y}.get({key.path[0]!r}, EMPTY)" if key.path else y
        if key.form is Form.TEXT:
            return [f"{k} = {table}.get({f'{y}.get({key.path[0]!r})' if key.path else y}, -1)"]
        if key.form is Form.TYPE:
            return [f'{k} = {table}.get({inner}.get("resourceType"), -1)']
        c, t, codings = _fresh("c"), _fresh("t"), _fresh("g")
        lines = [
            f"{k} = -1",
            f'{codings} = {inner}.get("coding", ())',
            f"for {c} in {codings}:",
            f'    {t} = {table}.get(({c}.get("system"), {c}.get("code")), -1)',
            f"    if {t} >= 0 and ({k} < 0 or {t} < {k}): {k} = {t}",
        ]
        # system and code of two codings make the slice as well: let the closures tell
        return [*lines, f"if {k} < 0 and len({codings}) > 1: {_NO}"] if key.form is Form.PARTS else lines
