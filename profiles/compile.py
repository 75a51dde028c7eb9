"""The profile compiler: differentials (US Core's tables and our own StructureDefinitions) -> checks, once per profile.

A profile's check is its base profile's check and then its own differential; base R4 has been checked before
(`profiles.structure`). The closures made here find the issues; most values never meet them, because the generated
function of `profiles.accept_profile` says yes first. Understood: min, max, fixed, pattern, required bindings, types
and their profiles, reference targets, slices by value, pattern, exists, type or profile, closed slicing, invariants. A
value of the wrong JSON type is passed over here: the structure check has already refused it.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from profiles import library, rules, valuesets
from profiles.accept_profile import accepts_profile
from profiles.canonical import unversioned
from profiles.matching import Matcher, expected, matcher, value_test
from profiles.place import Place
from profiles.primitives import PRIMITIVES
from profiles.run import Run, Scope
from profiles.structure import element_name
from profiles.targets import Fit, Targets
from profiles.tree import Node, Profile, Steps, profile

Json = dict[str, Any]
Check = Callable[[Any, Place, Run], None]


def profile_check(url: str) -> Check | None:
    """The check of a profile by its URL without version; None when the profile is unknown."""
    return _compiled(url) if url in library.profiles() else None


@library.per_selection
def _compiled(url: str) -> Check:
    found = profile(url)
    below = _compiled(found.base.url) if found.base else None
    own = _value_checks(found, found.root, ())

    def check(value: Any, place: Place, run: Run) -> None:
        key, checked = (id(value), url), run.scope.checked
        if key in checked:
            return
        checked.add(key)
        if run.sound and accepts_profile(url)(value, run.scope):
            return
        if below:
            below(value, place, run)
        for each in own:
            each(value, place, run)

    return check


# --- One element of an object ---------------------------------------------------------------------------------------


def _element(found: Profile, node: Node, steps: Steps) -> Check | None:
    """The check of an element in the object that holds it: how many, what each is, which slices; None: nothing new."""
    count = _count_check(found, node, node.name.removesuffix("[x]"))
    each_value = _value_checks(found, node, steps)
    slices = _slices(found, node, steps)
    if count is None and not each_value and slices is None:
        return None
    choice = _choice_keys(node) if node.name.endswith("[x]") else None
    name, companion, step_name = node.name, f"_{node.name}", _step_name(node)

    def check(owner: Any, place: Place, run: Run) -> None:
        if type(owner) is not dict:
            return
        if choice is not None:
            found_values = [(owner[key], (place, choice[key], -1)) for key in owner if key in choice]
        else:
            item = owner.get(name)
            if item is None:
                found_values = []
            elif type(item) is list:
                found_values = [(each, (place, step_name, index)) for index, each in enumerate(item)]
            else:
                found_values = [(item, (place, step_name, -1))]
        if count is not None:
            count(len(found_values) or (companion in owner), place, run)
        for value, here in found_values:
            for each_check in each_value:
                each_check(value, here, run)
        if slices is not None:
            slices(found_values, place, run)

    return check


@cache
def _all_types() -> tuple[str, ...]:
    complex_types = [name for name, entry in library.types().items() if entry["kind"] == "complex-type"]
    return (*PRIMITIVES, *complex_types)


def _step_name(node: Node) -> str:
    """The element's name in FHIRPath: `value.ofType(Quantity)` for `valueQuantity`."""
    elements = library.types().get(node.path.rpartition(".")[0], {}).get("elements", {})
    for choice in () if node.name in elements else elements:
        stem = choice.removesuffix("[x]")
        if stem != choice and node.name.startswith(stem):
            codes = (code for code in _all_types() if stem + code[0].upper() + code[1:] == node.name)
            return next((f"{stem}.ofType({code})" for code in codes), node.name)
    return node.name


def _choice_keys(node: Node) -> dict[str, str]:
    """JSON key -> place step, for every type that a choice may have."""
    stem = node.name.removesuffix("[x]")
    return {stem + code[0].upper() + code[1:]: f"{stem}.ofType({code})" for code in _all_types()}


def _count_check(found: Profile, node: Node, name: str) -> Callable[[int, Place, Run], None] | None:
    minimum, maximum = node.limits
    below, above = node.base_limits
    if minimum <= below and (maximum is None or (above is not None and maximum >= above)):
        return None
    label = found.label

    def check(number: int, place: Place, run: Run) -> None:
        if number < minimum:
            run.error("required", place, f"{label} requires at least {minimum} {name}; add it.")
        elif maximum is not None and number > maximum:
            run.error("structure", (place, name, -1), f"{label} allows at most {maximum} {name}; remove the others.")

    return check


# --- One value ------------------------------------------------------------------------------------------------------


def _value_checks(found: Profile, node: Node, steps: Steps) -> list[Check]:
    checks: list[Check] = []
    fixed = expected(node.facts)
    if fixed is not None:
        checks.append(_fixed_check(found, *fixed))
    if node.facts.get("binding", {}).get("strength") == "required":
        checks.append(_binding_check(found, node.facts["binding"]["valueSet"]))
    checks += _type_checks(found, node)
    checks += [_invariant(rule, node.path) for rule in node.facts.get("constraint", [])]
    inner = (_element(found, child, (*steps, name)) for name, child in node.children.items())
    checks += [check for check in inner if check is not None]
    return checks


def _invariant(rule: Json, path: str) -> Check:
    check = rules.rule_check(rule["key"], rule["severity"], rule.get("expression", ""), path=path)

    def guarded(value: Any, place: Place, run: Run) -> None:
        if run.sound:  # a rule trusts the structure
            check(value, place, run)

    return guarded


def _fixed_check(found: Profile, wanted: Any, exact: bool) -> Check:
    test = value_test(wanted, exact)
    text = f"{found.label} fixes {described(wanted)} here; send that."

    def check(value: Any, place: Place, run: Run) -> None:
        if not test(value):
            run.error("value", place, text)

    return check


def _binding_check(found: Profile, value_set: str) -> Check:
    url = unversioned(value_set)
    text = f"{found.label} requires a code of {url} here; use one."

    def check(value: Any, place: Place, run: Run) -> None:
        if valuesets.coded_in(url, value) is False:
            run.error("code-invalid", place, text)

    return check


def described(value: Any) -> str:
    """A fixed value or pattern in short: `system|code` where it is a coding."""
    if type(value) is dict:
        inner = value.get("coding", [value])[0]
        if "code" in inner:
            return f"{inner.get('system', '')}|{inner['code']}".lstrip("|")
        return ", ".join(f"{key} {described(item)}" for key, item in inner.items())
    return str(value)


# --- Types ----------------------------------------------------------------------------------------------------------


def _type_checks(found: Profile, node: Node) -> list[Check]:
    types = node.facts.get("type", [])
    checks: list[Check] = []
    if node.name.endswith("[x]") and types:
        checks.append(_choice_check(found, node, frozenset(kind["code"] for kind in types)))
    if types and all(kind["code"] in library.resource_types() for kind in types):
        checks.append(_resource_check(found, types))
    for kind in types:
        if kind["code"] == "Reference" and kind.get("targetProfile"):
            checks.append(_target_check(found, [unversioned(url) for url in kind["targetProfile"]]))
        elif "profile" in kind and kind["code"] in library.types() and kind["code"] not in library.resource_types():
            checks += _datatype_checks(kind["profile"])
    return checks


def _choice_check(found: Profile, node: Node, codes: frozenset[str]) -> Check:
    stem = node.name.removesuffix("[x]")
    allowed = frozenset(f"{stem}.ofType({code})" for code in codes)
    text = f"{found.label} allows {' or '.join(sorted(codes))} here; send one of these types."

    def check(value: Any, place: Place, run: Run) -> None:
        if place[1] not in allowed:
            run.error("structure", place, text)

    return check


def _resource_check(found: Profile, types: list[Json]) -> Check:
    """The resource of a slot: its type, and its profile when only one may stand there."""
    codes = frozenset(kind["code"] for kind in types)
    urls = [unversioned(url) for kind in types for url in kind.get("profile", [])]
    text = f"{found.label} wants {' or '.join(sorted(codes))} here; send that type."

    def check(value: Any, place: Place, run: Run) -> None:
        kind = value.get("resourceType") if type(value) is dict else None
        if type(kind) is not str or kind not in codes:
            return run.error("structure", place, text)
        inner = profile_check(urls[0]) if len(urls) == 1 else None
        if inner is not None:
            outer = run.scope
            run.scope = Scope(value, outer)
            inner(value, place, run)
            run.scope = outer
        return None

    return check


def _datatype_checks(urls: list[str]) -> list[Check]:
    if len(urls) != 1:
        return []
    url = unversioned(urls[0])

    def check(value: Any, place: Place, run: Run) -> None:
        inner = profile_check(url)
        if inner is not None:
            inner(value, place, run)

    return [check]


def _target_check(found: Profile, urls: list[str]) -> Check:
    """The target of a literal reference: its type always, its profile where the resource can be seen."""
    targets, named = Targets(urls), " or ".join(url.rpartition("/")[2] for url in urls)
    refused = f"{found.label} lets this refer to {named}; refer to one of these."
    unclaimed = f"{found.label} wants {named} here, but the target's meta.profile claims none of these; add the claim."

    def check(value: Any, place: Place, run: Run) -> None:
        text = value.get("reference") if type(value) is dict else None
        if type(text) is not str:
            return
        fit = targets.fit(text, run.scope)
        if fit is Fit.OTHER_TYPE:
            run.error("value", place, refused)
        elif fit is Fit.UNCLAIMED:
            run.warning("value", place, unclaimed)

    return check


# --- Slices ---------------------------------------------------------------------------------------------------------

Values = list[tuple[Any, Place]]
SlicesCheck = Callable[[Values, Place, Run], None]


class _Slice:
    """One slice, compiled: which values are in it, how many there may be, what each has to be."""

    __slots__ = ("by_target", "checks", "element", "label", "maximum", "minimum", "name", "shown", "test")

    def __init__(self, label: str, node: Node, test: Matcher, checks: list[Check]) -> None:
        self.label, self.name, self.test, self.checks = label, node.facts["sliceName"], test, checks
        self.element = node.name
        self.by_target = False  # whether one has to follow a reference to tell
        self.minimum, self.maximum = node.limits
        self.shown = f"{node.name} {_shown(node, self.name)}"

    def count(self, number: int, values: Values, place: Place, run: Run) -> None:
        """Refuses too few and too many; what can not be seen is not counted as missing."""
        if self.maximum is not None and number > self.maximum:
            text = f"{self.label} allows at most {self.maximum} {self.shown}; remove the others."
            run.error("structure", (place, self.element, -1), text)
        elif number < self.minimum and not (self.by_target and any(_unseen(value, run.scope) for value, _ in values)):
            run.error("required", place, f"{self.label} requires at least {self.minimum} {self.shown}; add it.")


def _shown(node: Node, name: str) -> str:
    """The slice's name, and the code that makes it when there is one."""
    for each in (node, *node.children.values()):
        fixed = expected(each.facts)
        if fixed is not None and type(fixed[0]) is dict:
            return f"{name} ({described(fixed[0])})"
    return name


def _slices(found: Profile, node: Node, steps: Steps) -> SlicesCheck | None:
    slicing = found.slicing(node, steps)
    discriminators = slicing.get("discriminator", [])
    slices = []
    for name, child in node.slices.items():
        here = (*steps[:-1], f"{steps[-1]}:{name}")
        test = matcher(discriminators, [child, *found.inherited(here)])
        if test is not None:
            child.facts.setdefault("sliceName", name)
            slices.append(_Slice(found.label, child, test, _value_checks(found, child, here)))
            slices[-1].by_target = any("resolve()" in each["path"] for each in discriminators)
    if not slices:
        return None
    closed = slicing.get("rules") == "closed"
    return _slices_check(found, node.name, slices, closed=closed)


def _slices_check(found: Profile, name: str, slices: list[_Slice], *, closed: bool) -> SlicesCheck:
    label = found.label

    def check(values: Values, place: Place, run: Run) -> None:
        counts = dict.fromkeys((each.name for each in slices), 0)
        for value, here in values:
            for each in slices:
                if each.test(value, run.scope):
                    counts[each.name] += 1
                    for each_check in each.checks:
                        each_check(value, here, run)
                    break
            else:
                if closed:
                    _refuse_unsliced(label, name, slices, value, here, run)
        for each in slices:
            each.count(counts[each.name], values, place, run)

    return check


def _unseen(value: Any, scope: Scope) -> bool:
    """Whether a reference points to a resource that is not at hand: then nobody can say which slice it is in."""
    text = value.get("reference") if type(value) is dict else None
    return type(text) is not str or scope.resolve(text) is None


def _refuse_unsliced(label: str, name: str, slices: list[_Slice], value: Any, place: Place, run: Run) -> None:
    known = [each.name for each in slices]
    own = value.get("name") if type(value) is dict else None
    near = run.near(own, known) if type(own) is str else None
    hint = f"did you mean {near}?" if near else f"it knows {', '.join(known)}."
    called = f" called {element_name(own)}" if type(own) is str else ""
    run.error("invalid", place, f"{label} knows no {name}{called}; {hint}")
