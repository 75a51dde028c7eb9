"""Which codes are in which value set: enumerations, and ICD-10-CM roots with everything beneath them."""

from collections.abc import Callable
from typing import Any

from profiles import library
from profiles.canonical import unversioned

_ICD_ROOT = "concept"  # the filter property of an is-a root


@library.per_selection
def _members(url: str) -> tuple[dict[str, frozenset[str]], tuple[tuple[str, str], ...]] | None:
    """({system: codes}, ((system, root), ...)) of a value set; None when it is unknown."""
    table = library.value_sets().get(url)
    if table is not None:
        return {system: frozenset(codes) for system, codes in table.items()}, ()
    resource = library.guide_value_sets().get(url)
    if resource is None:
        return None
    codes: dict[str, set[str]] = {}
    roots = []
    for include in resource["compose"]["include"]:
        listed = codes.setdefault(include["system"], set())
        listed.update(_listed(include))
        roots += [(include["system"], each["value"]) for each in include.get("filter", [])]
    return {system: frozenset(listed) for system, listed in codes.items()}, tuple(roots)


def _listed(include: dict[str, Any]) -> list[str]:
    if "concept" in include:
        return [concept["code"] for concept in include["concept"]]
    if "filter" in include:
        return []
    return [concept["code"] for concept in library.guide_code_systems()[include["system"]]["concept"]]


def contains(value_set_url: str, system: str, code: str, *, guide: str = library.ACCESS_VERSION) -> bool | None:
    """Whether the value set has the code in that version of the ACCESS guide; None when the set is not known here.

    Shape: the URL may carry a version, which is not compared. An ICD-10-CM root holds every code that starts with it,
    because that hierarchy follows the code text.
    """
    library.turn_to(guide)
    members = _members(unversioned(value_set_url))
    if members is None:
        return None
    codes, roots = members
    if code in codes.get(system, ()):
        return True
    return any(system == of and code.startswith(start) for of, start in roots)


def coded_in(value_set_url: str, value: Any) -> bool | None:
    """Whether a code, Coding, Quantity or CodeableConcept (in any coding) is in the value set; None: not known here."""
    test = tester(value_set_url)
    return None if test is None else test(value)


@library.per_selection
def tester(value_set_url: str) -> Callable[[Any], bool] | None:
    """The test of `coded_in` for one value set; None when it is not known here."""
    members = _members(unversioned(value_set_url))
    if members is None:
        return None
    by_system, roots = members
    texts = frozenset[str]().union(*by_system.values())

    def coding_in(coding: Any) -> bool:
        if type(coding) is not dict:
            return False
        system, code = coding.get("system"), coding.get("code")
        if type(system) is not str or type(code) is not str:
            return False
        return code in by_system.get(system, ()) or any(system == of and code.startswith(start) for of, start in roots)

    def test(value: Any) -> bool:
        if type(value) is str:
            return value in texts
        if type(value) is not dict:
            return False
        codings = value.get("coding") if "coding" in value else [value]
        return type(codings) is list and any(map(coding_in, codings))

    return test
