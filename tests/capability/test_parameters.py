"""Operation parameters are read by their definitions."""

import json
from importlib.resources import files
from typing import Any

import pytest

from capability.parameters import operation_definition, parse, parse_query


def _example(name: str) -> Any:
    return json.loads(files("capability").joinpath("examples", f"{name}.json").read_text())


@pytest.mark.parametrize("name", ["check-eligibility", "align", "unalign", "report-data"])
def test_a_good_request_has_its_values(name: str) -> None:
    """The examples that the OpenAPI document shows."""
    parsed = parse(name, _example(name))
    assert parsed.issues == ()
    assert parsed.values["participantID"][0]["value"] == "ACCES12345"
    assert parsed.values["track"][0]["coding"][0]["code"] == "CKM"


def test_resources_and_booleans_come_as_they_are() -> None:
    """A resource parameter gives the resource, a boolean one the boolean."""
    parsed = parse("align", _example("align"))
    assert parsed.values["patient"][0]["resourceType"] == "Patient"
    assert parsed.values["isProviderReferral"] == (True,)
    assert "switchConsentAttestation" not in parsed.values


def test_what_is_missing_is_named() -> None:
    """One issue for each required parameter, with its place."""
    parsed = parse("align", {"resourceType": "Parameters"})
    assert [issue.code for issue in parsed.issues] == ["required"] * 6
    assert parsed.issues[0].location == "Parameters.parameter.where(name = 'participantID')"
    assert "participantID" in parsed.issues[0].text


@pytest.mark.parametrize(
    ("parameter", "code"),
    [
        ({"name": "conditions", "resource": {"resourceType": "Condition"}}, "not-supported"),
        ({"name": "Patient", "resource": {"resourceType": "Patient"}}, "not-supported"),
        ({"name": "isProviderReferral", "valueString": "true"}, "value"),
        ({"name": "isProviderReferral", "valueBoolean": "true"}, "value"),
        ({"name": "condition", "resource": {"resourceType": "Observation"}}, "value"),
        ({"name": "condition", "valueString": "E11.9"}, "value"),
        ({"name": "track", "valueCodeableConcept": "CKM"}, "value"),
        ({}, "not-supported"),
    ],
)
def test_a_wrong_parameter_is_named_by_its_place(parameter: dict[str, Any], code: str) -> None:
    """Unknown name (case counts), wrong type, wrong resource."""
    request = _example("align")
    request["parameter"].append(parameter)
    issue = parse("align", request).issues[0]
    assert (issue.code, issue.location.startswith("Parameters.parameter[6]")) == (code, True)


def test_a_parameter_may_not_stand_twice() -> None:
    """Where the definition says at most one."""
    request = _example("align")
    request["parameter"].append(request["parameter"][0])
    (issue,) = parse("align", request).issues
    assert "at most 1" in issue.text


def test_values_are_never_repeated_in_issues() -> None:
    """An MBI in the wrong place does not come back."""
    request = {"resourceType": "Parameters", "parameter": [{"name": "1EG4TE5MK73", "valueString": "1EG4TE5MK73"}]}
    assert "1EG4TE5MK73" not in str(parse("align", request).issues)


@pytest.mark.parametrize("body", [{"resourceType": "Patient"}, {}, {"resourceType": "Parameters", "parameter": "x"}])
def test_anything_else_is_refused(body: dict[str, Any]) -> None:
    """Not Parameters, or not shaped as Parameters."""
    assert parse("align", body).issues


def test_query_parameters_are_read_too() -> None:
    """For operations that are called with GET."""
    parsed = parse_query("subscription-status", [("id", "a"), ("id", "b"), ("status", "active")])
    assert parsed.values == {"id": ("a", "b"), "status": ("active",)}
    assert parse_query("subscription-status", [("name", "x")]).issues[0].code == "not-supported"


@pytest.mark.parametrize("name", ["nothing", "../features", "", "align.json"])
def test_an_unknown_operation_is_a_key_error(name: str) -> None:
    """Names never leave the folder."""
    with pytest.raises(KeyError):
        operation_definition(name)
