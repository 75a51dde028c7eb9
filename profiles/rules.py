"""The invariants: named functions for those that resources of ours meet daily, FHIRPath for the others.

A rule takes (value, scope) and says whether it holds; its sentence names the remedy. A base rule runs only on a value
whose structure is sound, so it may trust types. Rules of conformance resources (StructureDefinition, TestScript and the
like) run through `profiles.fhirpath`: correct, but milliseconds. Left out: dom-6 (best practice: a narrative) and the
`-0` rules (names usable by code generators); neither says that data are wrong.
Source: FHIR R4 4.0.1 definitions; keys are HL7's.
"""

from collections.abc import Callable, Iterator
from typing import Any

from profiles import access_rules, base_rules, fhirpath, library, us_core_rules
from profiles.access_rules import FINDERS, Finder
from profiles.base_rules import Holds
from profiles.place import Place
from profiles.run import Run

Json = dict[str, Any]
Check = Callable[[Any, Place, Run], None]
BASE_RULES = base_rules.RULES
GUIDE_RULES = us_core_rules.RULES | access_rules.RULES


def checks_at(path: str) -> Iterator[Check]:
    """The compiled invariants of one path of the base tables."""
    for key, (severity, expression) in library.rules().get(path, {}).items():
        if not key.endswith("-0"):
            yield rule_check(key, severity, expression, path=path)


def holds_at(path: str) -> list[Holds] | None:
    """The named functions of one path of the base tables; None when one of its rules has no named function."""
    keys = [key for key in library.rules().get(path, {}) if not key.endswith("-0")]
    found = [BASE_RULES.get(f"{path}:{key}") or BASE_RULES.get(key) for key in keys]
    named = [each[0] for each in found if each is not None]
    return named if len(named) == len(keys) else None


def rule_check(key: str, severity: str, expression: str, *, path: str = "") -> Check:
    """One invariant as a check. `path` tells rules of one name apart and gives FHIRPath the type."""
    if key in FINDERS:
        return _finder_check(key, severity)
    row = _row(key, path)
    if row is None:
        return _by_fhirpath(key, severity, expression, path)
    holds, sentence = row
    text = f"{sentence} ({key})."

    def check(value: Any, place: Place, run: Run) -> None:
        if not holds(value, run.scope):
            _report(severity, place, text, run)

    return check


def _row(key: str, path: str) -> tuple[Holds, str] | None:
    return BASE_RULES.get(f"{path}:{key}") or BASE_RULES.get(key) or GUIDE_RULES.get(key)


def named_rule(key: str, path: str) -> Holds | None:
    """The named function of a rule; None when only FHIRPath knows it."""
    row = _row(key, path)
    return row[0] if row else None


def finder(key: str) -> Finder | None:
    """The function that yields each place where a rule is broken; None when the rule is told otherwise."""
    return FINDERS[key][0] if key in FINDERS else None


def _finder_check(key: str, severity: str) -> Check:
    places, sentence = FINDERS[key]
    text = f"{sentence} ({key})."

    def check(value: Any, place: Place, run: Run) -> None:
        for steps in places(value, run.scope):
            here = place
            for name, index in steps:
                here = (here, name, index)
            _report(severity, here, text, run)

    return check


def _report(severity: str, place: Place, text: str, run: Run) -> None:
    (run.error if severity == "error" else run.warning)("invariant", place, text)


def _by_fhirpath(key: str, severity: str, expression: str, path: str) -> Check:
    def check(value: Any, place: Place, run: Run) -> None:
        if fhirpath.compiled(expression, path)(value, run.scope) is False:
            _report(severity, place, f"Rule {key} does not hold; its FHIRPath is {expression}", run)

    return check


def check_domain_resource(value: Json, place: Place, run: Run) -> None:
    """dom-2 to dom-5: contained resources."""
    contained = value.get("contained")
    if contained is None:
        return
    for index, each in enumerate(contained):
        here = (place, "contained", index)
        if "contained" in each:
            run.error("invariant", here, "A contained resource contains none itself (dom-2); flatten it.")
        meta = each.get("meta", {})
        if "versionId" in meta or "lastUpdated" in meta or "security" in meta:
            run.error(
                "invariant", here, "A contained resource has no version, date or label (dom-4, dom-5); remove it."
            )
    _refuse_orphans(value, contained, place, run)


def _refuse_orphans(value: Json, contained: list[Json], place: Place, run: Run) -> None:
    named = set(_references(value))
    for index, each in enumerate(contained):
        if "#" not in _references(each) and f"#{each.get('id')}" not in named:
            here = (place, "contained", index)
            run.error("invariant", here, "A contained resource is referred to (dom-3); refer to it or remove it.")


def _references(value: Any) -> Iterator[str]:
    """Every string under a key that may hold a reference, a canonical or a URI to a contained resource."""
    stack = [value]
    while stack:
        item = stack.pop()
        if type(item) is dict:
            stack.extend(item.values())
        elif type(item) is list:
            stack.extend(item)
        elif type(item) is str and item.startswith("#"):
            yield item


# --- Required codes -------------------------------------------------------------------------------------------------


def codes_of(value_set: str) -> frozenset[str] | None:
    """The codes of an enumerated value set, whatever their system; None when it is not enumerated here."""
    systems = library.value_sets().get(value_set)
    return frozenset().union(*systems.values()) if systems else None


def coded_check(value_set: str) -> Check:
    """A required binding of a Coding, CodeableConcept or Quantity of the base tables."""
    from profiles.valuesets import coded_in  # here, because value sets are an interface of their own

    def check(value: Any, place: Place, run: Run) -> None:
        if coded_in(value_set, value) is False:
            run.error("code-invalid", place, f"A code of the required value set {value_set} is wanted; use one.")

    return check
