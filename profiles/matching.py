"""Whether a value fits a fixed value, a pattern, the discriminators of a slice, or a reference the targets it may have."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from profiles import library, valuesets
from profiles.canonical import unversioned
from profiles.references import literal_type
from profiles.run import Scope
from profiles.tree import Node

Json = dict[str, Any]
Matcher = Callable[[Any, Scope], bool]
_ABSENT: Any = object()


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
        test = _expectation(node, steps)
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


def _expectation(node: Node, steps: list[str]) -> Callable[[Any], bool] | None:
    """The test at the steps: a fixed value or pattern there or above, a required value set, or an extension's URL."""
    here = expected(node.facts)
    if here is not None:
        part = _drill(here[0], steps)
        return None if part is _ABSENT else value_test(part, here[1])
    if not steps:
        binding = node.facts.get("binding")
        url = binding["valueSet"] if binding and binding["strength"] == "required" else None
        return (lambda item: valuesets.coded_in(url, item) is True) if url else None
    child = node.children.get(steps[0])
    if child is None and steps == ["url"]:
        return _extension_test(node.facts.get("type", []))
    return _expectation(child, steps[1:]) if child else None


def _extension_test(types: list[Json]) -> Callable[[Any], bool] | None:
    urls = _extension_urls(types)
    return (lambda item: type(item) is str and item in urls) if urls else None


def _extension_urls(types: list[Json]) -> frozenset[str]:
    return frozenset(unversioned(url) for kind in types for url in kind.get("profile", []))


def _drill(value: Any, steps: list[str]) -> Any:
    for step in steps:
        value = value[0] if type(value) is list and value else value
        if type(value) is not dict or step not in value:
            return _ABSENT
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
            wanted = _wanted(child.facts["type"], by_profile=by_profile)
            test = claims if by_profile else _is_of_type
            return lambda value, scope: any(test(item, wanted) for item in _values(value, steps, scope))
    return None


def _wanted(types: list[Json], *, by_profile: bool) -> frozenset[str]:
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


# --- Slices that one look-up tells ----------------------------------------------------------------------------------


class Form(StrEnum):
    """What a slice's key is compared with."""

    TEXT = "text"  # the string at the path, or the value itself
    CODING = "coding"  # any coding of the CodeableConcept at the path, or of the value itself
    PARTS = "parts"  # system and code of codings, each by a discriminator of its own
    TYPE = "type"  # the type of the resource at the path


@dataclass(frozen=True, slots=True)
class Key:
    """What makes a slice, where looking it up in a table decides: texts, types, or (system, code)."""

    form: Form
    path: tuple[str, ...]  # none or one step
    values: frozenset[Any]


def key_of(discriminators: list[Json], nodes: list[Node]) -> Key | None:
    """The key of a slice that `matcher` would tell the same way; None when it takes more than a look-up."""
    if len(discriminators) == 2:
        return _key_of_parts(discriminators, nodes)
    kind, path = discriminators[0]["type"], discriminators[0]["path"]
    steps = () if path == "$this" else tuple(path.split("."))
    if kind == "type":
        wanted = next((child.facts["type"] for node in nodes if (child := node.at(steps)) and "type" in child.facts), ())
        return Key(Form.TYPE, steps, _wanted(list(wanted), by_profile=False)) if steps == ("resource",) else None
    if kind not in ("value", "pattern") or len(steps) > 1:
        return None
    return _key_of_value(steps, nodes)


def _key_of_parts(discriminators: list[Json], nodes: list[Node]) -> Key | None:
    paths = sorted(each["path"] for each in discriminators if each["type"] in ("value", "pattern"))
    if paths != ["coding.code", "coding.system"]:
        return None
    code, system = (_deepest(path.split("."), nodes) for path in paths)
    if type(code) is not str or type(system) is not str:
        return None
    return Key(Form.PARTS, (), frozenset([(system, code)]))


def _key_of_value(steps: tuple[str, ...], nodes: list[Node]) -> Key | None:
    value = _deepest(list(steps), nodes)
    if type(value) is str:
        return Key(Form.TEXT, steps, frozenset([value]))
    if type(value) is frozenset:
        return Key(Form.TEXT, steps, value)
    pair = coding_of(value)
    return Key(Form.CODING, steps, frozenset([pair])) if pair else None


def _deepest(steps: list[str], nodes: list[Node]) -> Any:
    """What the expectation of `_by_value` compares with, when it compares with a constant or an extension's URLs."""
    for node in reversed(nodes):
        if _expectation(node, steps) is not None:
            return _constant(node, steps)
    return None


def _constant(node: Node, steps: list[str]) -> Any:
    here = expected(node.facts)
    if here is not None:
        return _drill(here[0], steps)
    if not steps:
        return None
    child = node.children.get(steps[0])
    if child is None:
        return _extension_urls(node.facts.get("type", []))
    return _constant(child, steps[1:])


# --- Targets of references ------------------------------------------------------------------------------------------


class Fit(StrEnum):
    """How the target of a reference fits."""

    YES = "yes"  # or nobody can say
    OTHER_TYPE = "other-type"
    UNCLAIMED = "unclaimed"  # of a right type, in sight, and without a claim of a wanted profile


class Targets:
    """What a reference may point to."""

    __slots__ = ("_any_of", "_types", "_wanted")

    def __init__(self, urls: list[str]) -> None:
        types = [library.type_of(url) for url in urls]
        told = all(types) and "Resource" not in urls[0]
        self._types = frozenset(name for name in types if name) if told else frozenset()
        self._any_of = frozenset(
            name for url, name in zip(urls, types, strict=True) if name and url.endswith("/" + name)
        )
        self._wanted = frozenset(urls)

    def __bool__(self) -> bool:
        """Whether anything can be refused."""
        return bool(self._types)

    def fit(self, reference: str, scope: Scope) -> Fit:
        """How the target named by a literal reference fits: its type always, its profile where it can be seen."""
        target = scope.resolve(reference)
        if target is None and reference.partition("/")[0] in self._types:
            return Fit.YES
        kind = target.get("resourceType") if target else literal_type(reference)
        if type(kind) is not str or not self._types:
            return Fit.YES
        if kind not in self._types:
            return Fit.OTHER_TYPE
        seen = target is None or kind in self._any_of or claims(target, self._wanted)
        return Fit.YES if seen else Fit.UNCLAIMED
