"""Whether a value fits a fixed value, a pattern, the discriminators of a slice."""

from collections.abc import Callable
from typing import Any

from profiles import library, valuesets
from profiles.canonical import unversioned
from profiles.run import Scope
from profiles.tree import Node

Json = dict[str, Any]
Matcher = Callable[[Any, Scope], bool]
ABSENT: Any = object()


def fits(pattern: Any, value: Any) -> bool:
    """Whether the value holds at least what the pattern says; arrays in any order."""
    if type(pattern) is dict:
        return type(value) is dict and all(key in value and fits(part, value[key]) for key, part in pattern.items())
    if type(pattern) is list:
        return type(value) is list and all(any(fits(part, item) for item in value) for part in pattern)
    return bool(pattern == value) and type(pattern) is type(value)


def expected(facts: Json) -> tuple[Any, bool] | None:
    """(value, exact) of fixed[x] or pattern[x]; None when the element has neither."""
    for key, value in facts.items():
        if key.startswith("fixed"):
            return value, True
        if key.startswith("pattern"):
            return value, False
    return None


def value_test(value: Any, exact: bool) -> Callable[[Any], bool]:
    """The test of a fixed value or a pattern; the commonest pattern, one coding, has a short way."""
    if exact:
        return lambda item: bool(item == value)
    pair = coding_of(value)
    return _coding_test(*pair) if pair else lambda item: fits(value, item)


def coding_of(pattern: Any) -> tuple[str, str] | None:
    """(system, code) of a CodeableConcept pattern that asks for one coding and no more."""
    codings = pattern.get("coding") if type(pattern) is dict and len(pattern) == 1 else None
    if codings and len(codings) == 1 and set(codings[0]) == {"system", "code"}:
        return codings[0]["system"], codings[0]["code"]
    return None


def _coding_test(system: str, code: str) -> Callable[[Any], bool]:
    def test(item: Any) -> bool:
        codings = item.get("coding") if type(item) is dict else None
        for each in codings if type(codings) is list else ():
            if type(each) is dict and each.get("code") == code and each.get("system") == system:
                return True
        return False

    return test


def matcher(discriminators: list[Json], nodes: list[Node]) -> Matcher | None:
    """The test for a slice: all discriminators. `nodes` are the slice here and in the profiles below, nearest first."""
    tests = [test for each in discriminators if (test := _discriminator(each["type"], each["path"], nodes))]
    if len(tests) != len(discriminators) or not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda value, scope: all(test(value, scope) for test in tests)


def _discriminator(kind: str, path: str, nodes: list[Node]) -> Matcher | None:
    steps = [] if path == "$this" else path.split(".")
    if kind in ("value", "pattern"):
        return _by_value(steps, nodes)
    if kind == "exists":
        return _by_presence(steps, nodes)
    return _by_type(steps, nodes, by_profile=kind == "profile")


def _by_value(steps: list[str], nodes: list[Node]) -> Matcher | None:
    for node in reversed(nodes):  # what makes the slice is said where it was first made; more is a demand on it
        test = expectation(node, steps)
        if test is None:
            continue
        if not steps:
            return lambda value, scope, test=test: test(value)  # type: ignore[misc]
        return _value_at(steps[0], test) if len(steps) == 1 else _values_at(steps, test)
    return None


def _value_at(step: str, test: Callable[[Any], bool]) -> Matcher:
    """The commonest discriminator: one element, mostly one value."""

    def match(value: Any, scope: Scope) -> bool:
        item = value.get(step) if type(value) is dict else None
        if type(item) is list:
            return any(test(each) for each in item)
        return item is not None and test(item)

    return match


def _values_at(steps: list[str], test: Callable[[Any], bool]) -> Matcher:
    return lambda value, scope: any(test(item) for item in _values(value, steps, scope))


def expectation(node: Node, steps: list[str]) -> Callable[[Any], bool] | None:
    """The test at the steps: a fixed value or pattern there or above, a required value set, or an extension's URL."""
    here = expected(node.facts)
    if here is not None:
        part = drill(here[0], steps)
        return None if part is ABSENT else value_test(part, here[1])
    if not steps:
        binding = node.facts.get("binding")
        url = binding["valueSet"] if binding and binding["strength"] == "required" else None
        return (lambda item: valuesets.coded_in(url, item) is True) if url else None
    child = node.children.get(steps[0])
    if child is None and steps == ["url"]:
        return _extension_test(node.facts.get("type", []))
    return expectation(child, steps[1:]) if child else None


def _extension_test(types: list[Json]) -> Callable[[Any], bool] | None:
    urls = extension_urls(types)
    return (lambda item: type(item) is str and item in urls) if urls else None


def extension_urls(types: list[Json]) -> frozenset[str]:
    """The URLs of an extension by the profiles that its type names."""
    return frozenset(unversioned(url) for kind in types for url in kind.get("profile", []))


def drill(value: Any, steps: list[str]) -> Any:
    """What stands under the steps in a fixed value or pattern; ABSENT when nothing does."""
    for step in steps:
        value = value[0] if type(value) is list and value else value
        if type(value) is not dict or step not in value:
            return ABSENT
        value = value[step]
    return value


def _values(value: Any, steps: list[str], scope: Scope) -> list[Any]:
    """Every value under the steps; `resolve()` follows references that can be followed."""
    found = [value]
    for step in steps:
        if step == "resolve()":
            found = [target for item in found if (target := _target(item, scope)) is not None]
        else:
            inner = [item.get(step) for item in found if type(item) is dict]
            found = [each for item in inner if item is not None for each in (item if type(item) is list else [item])]
    return found


def _target(value: Any, scope: Scope) -> Json | None:
    text = value.get("reference") if type(value) is dict else None
    return scope.resolve(text) if type(text) is str else None


def _by_presence(steps: list[str], nodes: list[Node]) -> Matcher | None:
    for node in nodes:
        child = node.at(tuple(steps))
        if child is not None and ("min" in child.facts or "max" in child.facts):
            wanted = child.facts.get("max") != "0"
            return lambda value, scope: bool(_values(value, steps, scope)) == wanted
    return None


def _by_type(steps: list[str], nodes: list[Node], *, by_profile: bool) -> Matcher | None:
    own = [step for step in steps if step != "resolve()"]
    for node in nodes:
        child = node.at(tuple(own))
        if child is not None and "type" in child.facts:
            wanted = wanted_of(child.facts["type"], by_profile=by_profile)
            test = claims if by_profile else _is_of_type
            return lambda value, scope: any(test(item, wanted) for item in _values(value, steps, scope))
    return None


def wanted_of(types: list[Json], *, by_profile: bool) -> frozenset[str]:
    """Resource types, or profile URLs."""
    urls = [unversioned(url) for kind in types for url in kind.get("targetProfile") or kind.get("profile") or ()]
    if by_profile:
        return frozenset(urls)
    named = [name for url in urls if (name := library.type_of(url))]
    return frozenset(named or [kind["code"] for kind in types])


def _is_of_type(resource: Any, wanted: frozenset[str]) -> bool:
    kind = resource.get("resourceType") if type(resource) is dict else None
    return type(kind) is str and kind in wanted


def claims(resource: Any, wanted: frozenset[str]) -> bool:
    """Whether the resource claims one of the profiles, or one that is built on them."""
    meta = resource.get("meta") if type(resource) is dict else None
    claimed = meta.get("profile") if type(meta) is dict else None
    if type(claimed) is not list:
        return False
    return any(type(url) is str and not wanted.isdisjoint(library.lineage(url)) for url in claimed)
