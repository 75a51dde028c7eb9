"""What `validate` accepts and refuses. Requirement: FHIR R4 4.0.1, US Core 6.1.0, PCO 1.0.0, ACCESS 0.9.12."""

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles import library
from profiles.canonical import ACCESS, US_CORE
from profiles.fhir_json import parse
from profiles.issue import Severity
from profiles.validate import prepare, validate

CASES = Path(__file__).parent.parent / "cases" / "profiles"
DEFECTS = tomllib.loads((CASES / "defects.toml").read_text(encoding="utf-8"))["defect"]


def load(name: str) -> dict[str, Any]:
    """A case, read as the server reads."""
    return parse((CASES / f"{name}.json").read_bytes())


def step_into(resource: Any, path: str) -> tuple[Any, Any]:
    """(object or array, key) of a dotted path."""
    *parents, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
    for step in parents:
        resource = resource[step]
    return resource, last


def value_of(json_text: str) -> Any:
    """The JSON of a row, also where the parser would refuse it."""
    if json_text == '["Ada", null]':  # the parser itself refuses null without a companion
        return ["Ada", None]
    if json_text in ("[]", "{}"):
        return [] if json_text == "[]" else {}
    return parse(b'{"x":' + json_text.encode() + b"}")["x"]


def spoil(defect: dict[str, str]) -> dict[str, Any]:
    """The case of a row with its defect."""
    resource = load(defect["case"])
    operation = next(name for name in ("set", "delete", "append", "swap") if name in defect)
    parent, last = step_into(resource, defect[operation])
    if operation == "set":
        parent[last] = value_of(defect["json"])
    elif operation == "delete":
        del parent[last]
    elif operation == "append":
        parent[last].append(value_of(defect["json"]))
    else:
        parent[last][0], parent[last][1] = parent[last][1], parent[last][0]
    return resource


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("*.json")))
def test_a_sound_case_has_no_finding(name: str) -> None:
    """Each case, of every profile we send or take, passes as it is."""
    assert validate(load(name)) == []


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda row: f"{row['case']}-{row['location']}-{row.get('says', '')}")
def test_a_defect_is_found_at_its_place(defect: dict[str, str]) -> None:
    """Each defect is an error at the FHIRPath and with the code of its row, and its text names the remedy."""
    found = [issue for issue in validate(spoil(defect)) if issue.is_error]
    fitting = [each for each in found if (each.location, each.code) == (defect["location"], defect["code"])]
    assert any(defect.get("says", "") in each.text for each in fitting), found
    assert all(each.text.endswith((".", "?")) for each in found)


def test_no_finding_repeats_a_value_of_the_input() -> None:
    """Texts and locations hold no value, whatever is wrong with it."""
    marked = "Zebrafinch"
    patient = load("patient")
    patient |= {
        "birthDate": marked,
        "gender": marked,
        f"{marked} Ada": 1,
        "active": marked,
        "name": [{"given": marked}],
    }
    patient["identifier"][0] |= {"use": marked, "system": f"{marked} {marked}"}
    patient["generalPractitioner"] = [{"reference": f"{marked}/1"}]
    found = validate(patient)
    assert len(found) >= 7
    assert not any(marked in issue.text or marked in issue.location for issue in found)


def test_a_profile_may_be_named_by_the_caller() -> None:
    """A profile that the resource does not claim is checked when the caller names it, with or without version."""
    observation = load("observation-bp")
    del observation["meta"]["profile"], observation["subject"]
    assert validate(observation) == []
    for url in (US_CORE("us-core-blood-pressure"), US_CORE("us-core-blood-pressure") + "|6.1.0"):
        assert [issue.location for issue in validate(observation, url)] == ["Observation"]


def test_an_unknown_profile_is_information() -> None:
    """A claim that nobody here knows neither refuses nor vanishes."""
    patient = load("patient")
    patient["meta"]["profile"].append("https://example.org/StructureDefinition/own")
    (issue,) = validate(patient)
    assert (issue.severity, issue.location) == (Severity.INFORMATION, "Patient.meta.profile[1]")


def test_a_profile_of_another_type_is_refused() -> None:
    """A claim has to fit the resource's type."""
    patient = load("patient")
    patient["meta"]["profile"] = [US_CORE("us-core-blood-pressure")]
    (issue,) = validate(patient)
    assert issue.is_error
    assert "Observation" in issue.text


def test_the_meta_of_a_request_is_required() -> None:
    """Since 0.9.11 a request without meta.profile is refused, which the caller finds by naming the profile."""
    request = load("align")
    del request["meta"]
    assert [(issue.code, issue.location) for issue in validate(request, ACCESS("access-align-in"))] == [
        ("required", "Parameters")
    ]


def test_a_target_of_another_profile_is_a_warning() -> None:
    """The guide's waist example claims us-core-simple-observation where the section asks for another: no error."""
    report = load("report")
    waist = next(
        each["resource"] for each in report["parameter"][4]["resource"]["entry"] if each["resource"]["id"] == "waist"
    )
    waist["meta"]["profile"] = [US_CORE("us-core-simple-observation") + "|6.1.0"]
    (issue,) = validate(report)
    assert issue.severity is Severity.WARNING
    assert issue.location.endswith("section[0].section[4].entry[0]")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"text": None}, "entry[7].resource"),
        ({"meta": None}, "entry[7].resource"),
        (
            {"resourceType": "QuestionnaireResponse", "questionnaire": "https://example.org/q|1"},
            "entry[14].resource.questionnaire",
        ),
    ],
)
def test_what_cms_was_seen_to_refuse_is_a_warning(change: dict[str, Any], where: str) -> None:
    """Narrative, claimed profile and Questionnaire are asked for by the test environment, not by the guide."""
    report, change = load("report"), dict(change)
    entries = report["parameter"][4]["resource"]["entry"]
    if "questionnaire" in change:
        entries.append({"fullUrl": "https://facade.example/fhir/QuestionnaireResponse/q", "resource": change})
        change |= {
            "status": "completed",
            "text": entries[1]["resource"]["text"],
            "meta": {"versionId": "1", "profile": ["https://example.org/p"]},
        }
    else:
        for key in change:
            del entries[7]["resource"][key]
    found = [issue for issue in validate(report) if issue.location == f"Parameters.parameter[4].resource.{where}"]
    assert [(issue.severity, issue.code) for issue in found] == [(Severity.WARNING, "invariant")]


def test_a_hostile_resource_is_answered_quickly() -> None:
    """A hundred thousand unknown elements make 500 findings and one that says so, not an endless answer."""
    found = validate({"resourceType": "Patient"} | {f"genderr{number}": 1 for number in range(100_000)})
    assert len(found) == 501
    assert found[-1].code == "too-costly"


def test_prepare_compiles_everything() -> None:
    """All profiles can be compiled ahead."""
    prepare()
    assert validate(load("report")) == []


def test_a_profile_built_on_the_wanted_one_is_a_claim() -> None:
    """us-core-observation-lab is built on us-core-observation-clinical-result, so it fits where that is wanted."""
    report = load("report")
    for entry in report["parameter"][4]["resource"]["entry"]:
        if entry["resource"]["id"] == "a1c":
            entry["resource"]["meta"]["profile"] = [US_CORE("us-core-observation-lab")]
    assert validate(report) == []


def test_references_by_full_url_resolve() -> None:
    """A report whose references repeat the fullUrls is as good as one with relative references."""
    report = load("report")
    bundle = report["parameter"][4]["resource"]
    names = {}
    for number, entry in enumerate(bundle["entry"]):
        url = f"urn:uuid:00000000-0000-4000-8000-{number:012d}"
        names[f"{entry['resource']['resourceType']}/{entry['resource']['id']}"] = url
        entry["fullUrl"] = url

    def rename(value: Any) -> None:
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, (dict, list)):
                rename(item)
        if isinstance(value, dict) and value.get("reference") in names:
            value["reference"] = names[value["reference"]]

    relative = copy.deepcopy(report)
    rename(report)
    assert validate(report) == []
    assert {issue.code for issue in validate(relative)} == {"invariant"}  # relative names do not reach a urn:uuid


def test_an_unseen_target_is_not_missing() -> None:
    """A care plan's goal outside the message can not be looked at, so its profile is not demanded."""
    plan = load("pco-care-plan")
    assert validate(plan) == []
    plan["contained"] = [{"resourceType": "Goal", "id": "g", "lifecycleStatus": "active"}]
    plan["contained"][0] |= {"description": {"text": "x"}, "subject": {"reference": "Patient/p1"}}
    plan["goal"] = [{"reference": "#g"}]
    assert "SupportedGoals" in "".join(issue.text for issue in validate(plan))


def test_a_contained_resource_is_found_by_its_reference() -> None:
    """dom-3 and ref-1 hold for a contained resource that is referred to."""
    patient = load("patient")
    patient["contained"] = [{"resourceType": "Organization", "id": "org", "name": "Example"}]
    patient["managingOrganization"] = {"reference": "#org"}
    assert validate(patient) == []
    patient["managingOrganization"] = {"reference": "#other"}
    assert {issue.text.rpartition("(")[2] for issue in validate(patient)} == {
        "ref-1).",
        "dom-3); refer to it or remove it.",
    }


def test_extensions_stand_in_for_a_required_primitive() -> None:
    """A required primitive may have a reason for its absence instead of a value."""
    observation = load("observation-bp")
    del observation["meta"]["profile"], observation["status"]
    reason = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
    observation["_status"] = {"extension": [{"url": reason, "valueCode": "unknown"}]}
    assert validate(observation) == []


def test_null_holds_the_place_of_an_extension() -> None:
    """In an array of primitives null is legal where the other side has something."""
    patient = load("patient")
    patient["name"][0]["given"] = ["Ada", None]
    patient["name"][0]["_given"] = [None, {"extension": [{"url": "https://example.org/x", "valueString": "y"}]}]
    assert validate(patient) == []


def test_a_float_is_refused() -> None:
    """A binary float has lost digits before we saw it."""
    observation = load("observation-bp")
    observation["component"][0]["valueQuantity"]["value"] = 131.1
    assert [issue.code for issue in validate(observation)] == ["value"]


def test_a_general_rule_runs_through_fhirpath() -> None:
    """An invariant without a named function is evaluated as published."""
    definition = {"resourceType": "TestScript", "url": "https://example.org/t", "name": "T", "status": "draft"}
    definition |= {"variable": [{"name": "v", "expression": "a", "path": "b", "headerField": "c"}]}
    (issue,) = validate(definition)
    assert (issue.location, "tst-3" in issue.text) == ("TestScript.variable[0]", True)


@pytest.mark.parametrize("url", sorted(library.profiles()))
def test_every_profile_compiles_and_survives_an_empty_resource(url: str) -> None:
    """Each profile of the library can be named, also on a resource that holds next to nothing."""
    kind = library.profiles()[url]["type"]
    if kind != "Extension":
        assert any(issue.is_error for issue in validate({"resourceType": kind}, url)) or not validate(
            {"resourceType": kind}
        )


KEYS = ["meta", "profile", "status", "code", "coding", "system", "value", "valueQuantity", "component", "entry", "name"]
KEYS += [
    "resource",
    "parameter",
    "section",
    "reference",
    "subject",
    "contained",
    "extension",
    "url",
    "identifier",
    "id",
]
SCALARS = st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False) | st.text(max_size=6)
WORDS = SCALARS | st.sampled_from(["final", "track", "#a", "Patient/1", *sorted(library.profiles())[:60]])
JSON = st.recursive(
    WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
)
TYPES = st.sampled_from(
    ["Observation", "Bundle", "Parameters", "Composition", "Patient", "Goal", "Condition", "Nothing"]
)
PROFILES = st.lists(st.sampled_from(sorted(library.profiles())), max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6), TYPES, PROFILES)
def test_validate_never_raises(content: dict[str, Any], kind: str, profiles: list[str]) -> None:
    """Whatever JSON an object holds, and whatever profiles are named, the answer is a list of issues."""
    assert isinstance(validate({"resourceType": kind, **content}, *profiles), list)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_validate_never_raises_on_a_spoiled_case(data: st.DataObject) -> None:
    """Any value anywhere in a sound case may be replaced by any JSON."""
    resource = load(
        data.draw(st.sampled_from(["report", "align", "unalign", "pco-goal", "pco-gas-goal", "observation-bp"]))
    )
    node: Any = resource
    for _ in range(data.draw(st.integers(0, 9))):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], (dict, list)) or not node[key]:
            break
        parent, node = node, node[key]
        last, holder = key, parent
    else:
        holder, last = (resource, "id") if node is resource else (holder, last)
    if node is not resource:
        holder[last] = data.draw(JSON)
    assert isinstance(validate(resource), list)
