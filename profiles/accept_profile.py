"""The fast lane of profiles: one generated function per profile that says yes only to what surely has no finding.

`accepts_profile(url)` is a plain Python function made from the differentials of the profile and of all that it is built
on, merged element by element: a value of sound structure goes through one function instead of a hundred closures. A no
means nothing: the closures of `profiles.compile` then walk the same value. As with `profiles.accept`, this can make
validation slow, but never wrong, as long as a yes is right: a test spoils resources at random and compares.

The functions trust the structure.
"""

import re
from collections.abc import Iterator
from typing import Any

from profiles import library, rules, valuesets
from profiles.accept import Accepts
from profiles.accept_slices import Level, Sliced
from profiles.canonical import unversioned
from profiles.generated import NO, Lines, fresh, function, indented, named, when
from profiles.matching import coding_of, expected, value_test
from profiles.primitives import PRIMITIVES
from profiles.run import Scope
from profiles.shapes import Shape, shape
from profiles.targets import Fit, Targets
from profiles.tree import Node, Profile, profile

_FEW = 3  # a choice of so many types is asked for one by one

_made: dict[str, Accepts] = library.kept({})


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
    label = re.sub(r"\W", "_", f"accept {found.label}", flags=re.ASCII)
    made: Accepts = function(label, _value_lines(levels, "v"))
    return made


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
    return lines + (inner if is_root or here.is_object else when(f"type({x}) is dict", inner))


def _own_lines(node: Node, x: str) -> Lines:
    lines: Lines = []
    fixed = expected(node.facts)
    if fixed is not None:
        lines += _fixed_lines(node, *fixed, x)
    if node.facts.get("binding", {}).get("strength") == "required":
        test = valuesets.tester(unversioned(node.facts["binding"]["valueSet"]))
        lines += [f"if not {named(test)}({x}): {NO}"] if test else []
    return lines + _type_lines(node, x)


def _fixed_lines(node: Node, wanted: Any, exact: bool, x: str) -> Lines:
    if type(wanted) is str:
        return [f"if {x} != {wanted!r}: {NO}"]
    pair = None if exact else coding_of(wanted)
    if pair is None or shape(node.path).only != "CodeableConcept":
        return [f"if not {named(value_test(wanted, exact))}({x}): {NO}"]
    c = fresh("c")
    return [
        f'for {c} in {x}.get("coding", ()):',
        f'    if {c}.get("code") == {pair[1]!r} and {c}.get("system") == {pair[0]!r}: break',
        f"else: {NO}",
    ]


def _type_lines(node: Node, x: str) -> Lines:
    types = node.facts.get("type", [])
    if types and all(kind["code"] in library.resource_types() for kind in types):
        return _resource_lines(types, x) if shape(node.path).is_object else [NO]
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
    lines = [f'if {x}.get("resourceType") not in {named(codes)}: {NO}']
    if len(urls) == 1 and urls[0] in library.profiles():
        lines.append(f"if not {named(_resource_acceptor(urls[0]))}({x}, s): {NO}")
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
        return [NO]
    acceptor = named(lambda value, scope: accepts_profile(url)(value, scope))  # later: profiles hold each other
    return [f"if not {acceptor}({x}, s): {NO}"]


def _target_lines(node: Node, urls: list[str], x: str) -> Lines:
    targets = Targets(urls)
    if not targets:
        return []
    r, fit, yes = fresh("r"), named(targets.fit), named(Fit.YES)
    told = f'{x}.get("reference")' + ("" if shape(node.path).is_object else f" if type({x}) is dict else None")
    return [f"{r} = {told}", f"if {r} is not None and {fit}({r}, s) is not {yes}: {NO}"]


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
    finder, holds = rules.finder(key), rules.named_rule(key, path)
    if finder is not None:
        return f"for _ in {named(finder)}({x}, s): {NO}"
    return f"if not {named(holds)}({x}, s): {NO}" if holds else NO


# --- The elements of an object --------------------------------------------------------------------------------------


def _children_lines(levels: list[Level], x: str) -> Lines:
    names = dict.fromkeys(name for _, node, _ in levels for name in node.children)
    lines: Lines = []
    for name in names:
        below = [(found, node.children[name], (*steps, name)) for found, node, steps in levels if name in node.children]
        lines += (_choice_lines if name.endswith("[x]") else _element_lines)(below, x)
    return lines


def _element_lines(levels: list[Level], owner: str) -> Lines:
    """One element of the object named `owner`: presence, number, each value, slices."""
    node = levels[0][1]
    least, most = _limits(levels)
    here = shape(node.path)
    x = fresh("x")
    inner = _number_lines(x, least, most, here) + _each_lines(levels, x, here)
    if most == 0:
        return [f"if {node.name!r} in {owner} or {'_' + node.name!r} in {owner}: {NO}"]
    if least:
        return [f"{x} = {owner}.get({node.name!r})", f"if {x} is None: {NO}", *inner]
    return [f"{x} = {owner}.get({node.name!r})", *when(f"{x} is not None", inner)] if inner else []


def _limits(levels: list[Level]) -> tuple[int, int | None]:
    """The strictest of all profiles."""
    limits = [node.limits for _, node, _ in levels]
    most = [maximum for _, maximum in limits if maximum is not None]
    return max(minimum for minimum, _ in limits), min(most, default=None)


def _number_lines(x: str, least: int, most: int | None, here: Shape) -> Lines:
    if here.is_list is False:
        return [NO] if least > 1 else []
    size = f"len({x})" if here.is_list else f"(len({x}) if type({x}) is list else 1)"
    lines = [f"if {size} < {least}: {NO}"] if least > 1 else []
    return lines + ([f"if {size} > {most}: {NO}"] if most is not None else [])


def _each_lines(levels: list[Level], x: str, here: Shape) -> Lines:
    sliced = [Sliced(level, _value_lines) for level in levels if level[1].slices]
    if here.is_list is False and not any(each.slices for each in sliced):
        return _value_lines(levels, x)
    y = fresh("y")
    inner = _value_lines(levels, y) + [line for each in sliced for line in each.lines(y)]
    if not inner:
        return []
    values = {True: x, False: f"({x},)", None: f"{x} if type({x}) is list else ({x},)"}[here.is_list]
    before = [line for each in sliced for line in each.before()]
    after = [line for each in sliced for line in each.after()]
    return [*before, f"for {y} in {values}:", *indented(inner), *after]


# --- Choices --------------------------------------------------------------------------------------------------------


def _choice_lines(levels: list[Level], owner: str) -> Lines:
    """An `x[x]`: a value of an allowed type and no other; the structure has seen to it that there is one at most."""
    if any(node.slices for _, node, _ in levels):
        return [NO]
    least, most = _limits(levels)
    keys = _keys_of(levels[0][1])
    allowed = [key for key, code in keys.items() if all(code in types for types in _listed_types(levels))]
    x = fresh("x")
    inner = _value_lines(levels, x)
    if most == 0 or least > 1:
        return [f"if not {named(frozenset(keys))}.isdisjoint({owner}): {NO}"] if not least else [NO]
    if not (inner or least or len(allowed) < len(keys)):
        return []
    lines = _choose_lines(owner, x, keys, allowed)
    return [*lines, f"if {x} is None: {NO}", *inner] if least else [*lines, *when(f"{x} is not None", inner)]


def _choose_lines(owner: str, x: str, keys: dict[str, str], allowed: list[str]) -> Lines:
    """Sets `x` to the value, None when there is none."""
    if len(allowed) <= _FEW and len(allowed) < len(keys):
        lines = [f"{x} = None"]
        for key in reversed(allowed):
            lines = [f"{x} = {owner}.get({key!r})", *when(f"{x} is None", lines)]
        forbidden = named(frozenset(keys) - set(allowed))
        return [*lines, *when(f"{x} is None and not {forbidden}.isdisjoint({owner})", [NO])]
    k = fresh("k")
    return [
        f"{x} = None",
        f"for {k} in {owner}:",
        f"    if {k} in {named(frozenset(keys))}:",
        f"        if {k} not in {named(frozenset(allowed))}: {NO}",
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
