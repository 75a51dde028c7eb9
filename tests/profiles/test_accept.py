"""The fast lane says yes only where the structure check has nothing to say."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles import library
from profiles.accept import accepts
from profiles.fhir_json import parse
from profiles.place import root
from profiles.run import Run, Scope
from profiles.structure import type_check

CASES = Path(__file__).parent.parent / "cases" / "profiles"
NAMES = ["observation-bp", "patient", "pco-goal", "pco-gas-goal", "pco-score", "pco-care-plan", "pco-list"]
BAD = [
    None,
    "",
    " ",
    "x y",
    "\x01",
    "x" * 80,
    0,
    -1,
    2**40,
    1.5,
    True,
    [],
    {},
    [None],
    ["x"],
    {"id": "a"},
    {"url": "x"},
]
BAD += [
    "final",
    "2026-02-30",
    "2026-02-28",
    "Patient/1",
    "#a",
    [{"text": "x"}],
    {"text": "x"},
    {"reference": "Group/1"},
]
KEYS = [
    "id",
    "_id",
    "status",
    "value",
    "valueString",
    "valueQuantity",
    "system",
    "code",
    "extension",
    "contained",
    "unit",
]
KEYS += ["effectivePeriod", "_status", "period", "start", "end", "text", "div", "modifierExtension", "use", "colour"]


def load(name: str) -> dict[str, Any]:
    """A case, read as the server reads."""
    return parse((CASES / f"{name}.json").read_bytes())


def nodes(value: Any) -> list[Any]:
    """Every object and array inside, the value first."""
    found = [value]
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, (dict, list)) and inner:
            found += nodes(inner)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_sound_resources_take_the_fast_lane(name: str) -> None:
    """What we handle daily is accepted without the slow walk."""
    resource = load(name)
    assert accepts(resource["resourceType"])(resource, Scope(resource))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_yes_is_never_wrong(data: st.DataObject) -> None:
    """Whatever is put, added or taken away: where the fast lane says yes, the structure check finds nothing."""
    resource = load(data.draw(st.sampled_from(NAMES)))
    for _ in range(data.draw(st.integers(1, 3))):
        node = data.draw(st.sampled_from(nodes(resource)))
        keys = list(range(len(node))) if isinstance(node, list) else [*node, *KEYS]
        key = data.draw(st.sampled_from(keys)) if keys else None
        if key is None:
            continue
        node[key] = copy.deepcopy(data.draw(st.sampled_from(BAD)))
    kind = resource.get("resourceType")
    if not isinstance(kind, str) or kind not in library.resource_types():
        return
    run = Run()
    run.scope = Scope(resource)
    type_check(kind)(resource, root(kind), run)
    if run.issues:
        assert not accepts(kind)(resource, run.scope), json.dumps(resource, default=str)


@pytest.mark.parametrize("name", sorted(library.resource_types()))
def test_every_type_has_an_acceptor_and_a_check(name: str) -> None:
    """All 146 types compile both ways, and neither lets an unknown element pass."""
    resource = {"resourceType": name, "colour": "red"}
    run = Run()
    run.scope = Scope(resource)
    type_check(name)(resource, root(name), run)
    assert any(issue.location == f"{name}.colour" for issue in run.issues)
    assert not accepts(name)(resource, run.scope)
