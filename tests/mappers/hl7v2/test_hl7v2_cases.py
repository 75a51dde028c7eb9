"""Whole messages: each case's message gives exactly the resources, issues and account beside it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mappers.conversion import Conversion, Source
from mappers.hl7v2 import ack_code, convert
from profiles import fhir_json
from profiles.validate import validate

CASES = sorted((Path(__file__).parents[2] / "cases" / "hl7v2").glob("*.hl7"))


def converted(path: Path) -> Conversion:
    """A case's message, converted."""
    message = path.read_bytes()
    return convert(message, Source(hashlib.sha256(message).hexdigest(), "2026-09-10T12:00:00Z"))


def as_json(result: Conversion) -> dict[str, Any]:
    """What a case's JSON file holds."""
    plain = {
        "ack": ack_code(result.issues),
        "resources": [*([result.patient] if result.patient else []), *result.resources],
        "unmapped": [f"{each.location} {each.kind}: {each.reason}" for each in result.unmapped],
        "issues": [f"{each.severity} {each.code} {each.location}" for each in result.issues],
    }
    return read(fhir_json.dump(plain))


def read(text: bytes) -> Any:
    """JSON with numbers as written: 84.20 is not 84.2."""
    return json.loads(text, parse_float=str, parse_int=str)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_message_gives_the_expected_resources(path: Path) -> None:
    """The mapping of a message is what its reviewed case says, to the last element."""
    assert as_json(converted(path)) == read(path.with_suffix(".json").read_bytes())


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_resources_meet_base_r4_and_the_profiles_they_claim(path: Path) -> None:
    """No resource leaves the mapper that breaks R4 or a profile in its own meta.profile."""
    result = converted(path)
    for resource in filter(None, (result.patient, *result.resources)):
        assert [issue for issue in validate(resource) if issue.is_error] == []


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_same_message_gives_the_same_ids(path: Path) -> None:
    """Ids depend on content alone, and no two resources of one message share one."""
    first, second = converted(path), converted(path)
    ids = [(each["resourceType"], each["id"]) for each in first.resources]
    assert ids == [(each["resourceType"], each["id"]) for each in second.resources]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_reference_leads_to_a_resource_of_the_message(path: Path) -> None:
    """A reference is never left hanging."""
    result = converted(path)
    known = {f"{each['resourceType']}/{each['id']}" for each in filter(None, (result.patient, *result.resources))}
    assert set(references(list(result.resources))) | set(references(result.patient)) <= known


def references(value: Any) -> list[str]:
    """Every reference in a resource, however deep."""
    if isinstance(value, dict):
        own = [value["reference"]] if isinstance(value.get("reference"), str) else []
        return own + [found for each in value.values() for found in references(each)]
    return [found for each in value for found in references(each)] if isinstance(value, list) else []
