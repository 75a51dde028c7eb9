"""The fast lane of profiles says yes only where the closures have nothing to say."""

import copy
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles import compile as closures
from profiles import library, structure
from profiles.accept_profile import accepts_profile
from profiles.canonical import US_CORE, unversioned
from profiles.fhir_json import parse
from profiles.issue import Issue
from profiles.run import Scope
from profiles.validate import validate

CASES = Path(__file__).parent.parent / "cases" / "profiles"
OWN = {path.stem: parse(path.read_bytes()) for path in sorted(CASES.glob("*.json"))}
US_CORE_CASES = [parse(line) for line in (CASES / "us-core" / "sound.jsonl").read_bytes().splitlines()]
ALL = [*OWN.values(), *US_CORE_CASES]
DEFECTS = tomllib.loads((CASES / "defects.toml").read_text(encoding="utf-8"))["defect"]
BY_TYPE: dict[str, list[str]] = {}
for url, definition in library.profiles().items():
    BY_TYPE.setdefault(definition["type"], []).append(url)


@contextmanager
def only_closures() -> Iterator[None]:
    """No generated function says yes, so that each check walks."""
    kept = closures.accepts_profile, structure.accepts
    closures.accepts_profile = lambda url: lambda value, scope: False  # type: ignore[attr-defined]
    structure.accepts = lambda name: lambda value, scope: False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        closures.accepts_profile, structure.accepts = kept  # type: ignore[attr-defined]


def walked(resource: dict[str, Any], *profiles: str) -> list[Issue]:
    """What the closures alone find."""
    with only_closures():
        return validate(resource, *profiles)


@pytest.mark.parametrize("resource", US_CORE_CASES, ids=lambda each: each["id"])
def test_each_us_core_profile_has_a_sound_case_in_the_fast_lane(resource: dict[str, Any]) -> None:
    """A small resource of each US Core profile has no error, and needs no closure to say so."""
    url = unversioned(resource["meta"]["profile"][0])
    assert accepts_profile(url)(resource, Scope(resource))
    assert not any(issue.is_error for issue in validate(resource))


def test_every_us_core_profile_has_a_case() -> None:
    """The cases cover US Core 6.1.0, but for its extensions, which stand inside them."""
    covered = {unversioned(each["meta"]["profile"][0]) for each in US_CORE_CASES}
    resources = {url for url, each in library.profiles().items() if each["type"] != "Extension"}
    assert {url for url in resources if url.startswith(US_CORE(""))} == covered


@pytest.mark.parametrize("name", sorted(OWN))
def test_our_own_cases_take_the_fast_lane(name: str) -> None:
    """What we send and take daily is accepted without a closure; a plan whose goals are out of sight is not."""
    resource = OWN[name]
    for url in resource.get("meta", {}).get("profile", []):
        assert accepts_profile(unversioned(url))(resource, Scope(resource)) == (name != "pco-care-plan")


@pytest.mark.parametrize("url", sorted(library.profiles()))
def test_every_profile_has_an_acceptor(url: str) -> None:
    """Each profile of the library compiles, and what holds next to nothing is judged as the closures judge it."""
    kind = library.profiles()[url]["type"]
    resource = {"resourceType": kind, "id": "a"}
    if kind in library.resource_types():
        assert validate(resource, url) == walked(resource, url)
    else:
        assert not accepts_profile(url)({"url": "http://example.org/none", "valueCode": "a"}, Scope({}))


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda row: f"{row['case']}-{row['location']}-{row.get('says', '')}")
def test_known_defects_are_found_both_ways(defect: dict[str, str]) -> None:
    """Each defect of the table gives the same findings with and without the fast lane."""
    resource = copy.deepcopy(OWN[defect["case"]])
    operation = next(name for name in ("set", "delete", "append", "swap") if name in defect)
    *parents, last = [int(step) if step.isdecimal() else step for step in defect[operation].split(".")]
    node: Any = resource
    for step in parents:
        node = node[step]
    if operation == "delete":
        del node[last]
    elif operation == "swap":
        node[last][0], node[last][1] = node[last][1], node[last][0]
    else:
        text = defect["json"]
        plain = text in ("[]", "{}") or "null" in text
        value = [] if plain else parse(b'{"x":' + text.encode() + b"}")["x"]
        node[last] = [*node[last], value] if operation == "append" else value
    assert validate(resource) == walked(resource)


BAD: list[Any] = [None, "", [], {}, "x y", 0, -1, True, 1.5, "final", {"text": "x"}, [{"text": "x"}], "Patient/1"]
BAD += [{"reference": "Group/1"}, "2026", "2026-02-28", [None], "vital-signs", "entered-in-error", "completed"]


def nodes(value: Any) -> list[Any]:
    """Every object and array inside, the value first."""
    found = [value]
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, (dict, list)) and inner:
            found += nodes(inner)
    return found


POOL = [pair for case in ALL for node in nodes(case) if isinstance(node, dict) for pair in node.items()]


def spoil(resource: dict[str, Any], data: st.DataObject) -> None:
    """One random change: something is taken away, doubled, replaced by bad JSON, or by a piece of another resource."""
    node = data.draw(st.sampled_from(nodes(resource)))
    key, other = data.draw(st.sampled_from(POOL))
    change = data.draw(st.sampled_from(["delete", "double", "bad", "other", "same"]))
    own = data.draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node)))) if node else None
    if own is None:
        return
    if change == "delete":
        del node[own]
    elif change == "double" and isinstance(node, list):
        node.append(copy.deepcopy(node[own]))
    elif change == "bad":
        node[own] = copy.deepcopy(data.draw(st.sampled_from(BAD)))
    elif change == "same" and isinstance(node, dict):
        fitting = [value for name, value in POOL if name == own]
        node[own] = copy.deepcopy(data.draw(st.sampled_from(fitting or BAD)))
    else:
        node[key if isinstance(node, dict) else own] = copy.deepcopy(other)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_yes_is_never_wrong(data: st.DataObject) -> None:
    """Whatever is done to a resource, and whatever profile is named: both ways find the same, in the same order."""
    resource = copy.deepcopy(data.draw(st.sampled_from(ALL)))
    for _ in range(data.draw(st.integers(1, 3))):
        spoil(resource, data)
    kind = resource.get("resourceType")
    known = BY_TYPE.get(kind, []) if isinstance(kind, str) else []
    named = data.draw(st.lists(st.sampled_from(known), max_size=1)) if known else []
    assert validate(resource, *named) == walked(resource, *named)
