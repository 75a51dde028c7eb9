"""What is put right before CMS sees it, and what is not touched."""

import copy
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from profiles import fhir_json
from profiles.canonical import ACCESS, TRACK, US_CORE_PINNED
from profiles.validate import validate
from server.domain.submission import Operation
from server.intake.repair import repaired

BASE = "https://facade.example/fhir"
CASES = Path(__file__).parents[2] / "cases" / "profiles"


def case(name: str) -> dict[str, Any]:
    """A request that CMS takes as it is."""
    return fhir_json.parse((CASES / f"{name}.json").read_bytes())


def report() -> dict[str, Any]:
    return case("report")


def bundle_of(parameters: dict[str, Any]) -> dict[str, Any]:
    return next(p["resource"] for p in parameters["parameter"] if p["name"] == "dataBundle")


def resources(parameters: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    entries = bundle_of(parameters)["entry"]
    return [entry["resource"] for entry in entries if entry["resource"]["resourceType"] == kind]


def mended(
    parameters: dict[str, Any], operation: Operation = Operation.REPORT_DATA
) -> tuple[dict[str, Any], list[str]]:
    """The repaired request, the places that were repaired; the input is as it was, and nothing is wrong any more."""
    before = copy.deepcopy(parameters)
    after, notes = repaired(parameters, operation, base_url=BASE)
    assert parameters == before
    assert [i for i in validate(after, ACCESS(f"access-{operation}-in")) if i.is_error] == []
    assert all(issue.severity == "information" and issue.text.endswith(".") for issue in notes)
    return after, [issue.location for issue in notes]


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("check-eligibility", Operation.CHECK_ELIGIBILITY),
        ("align", Operation.ALIGN),
        ("unalign", Operation.UNALIGN),
        ("report", Operation.REPORT_DATA),
    ],
)
def test_what_is_right_is_left_alone(name: str, operation: Operation) -> None:
    """No repair, no note: the bytes that came can go."""
    request = case(name)
    assert repaired(request, operation, base_url=BASE) == (request, [])


def test_the_mbi_is_written_as_cms_does() -> None:
    """Upper case, no dashes, wherever the Patient stands (IG 0.9.12; CMS's format of the MBI)."""
    request = report()
    patient = resources(request, "Patient")[0]
    right = patient["identifier"][0]["value"]
    patient["identifier"][0]["value"] = f"{right[:4]}-{right[4:7]}-{right[7:]}".lower()
    after, places = mended(request)
    assert resources(after, "Patient")[0]["identifier"][0]["value"] == right
    assert places == ["Parameters.parameter[4].resource.entry[1].resource.identifier[0].value"]


@pytest.mark.parametrize("name", ["check-eligibility", "align", "unalign", "report"])
def test_a_request_without_profile_claims_it(name: str) -> None:
    """CMS answers 400 without meta.profile (seen at its test environment)."""
    request = case(name)
    del request["meta"]
    operation = Operation("report-data" if name == "report" else name)
    after, places = mended(request, operation)
    assert after["meta"]["profile"] == [ACCESS(f"access-{operation}-in")]
    assert places == ["Parameters.meta.profile"]


def test_a_condition_gets_profile_and_category_of_its_track() -> None:
    """An alignment without the category or the track's profile was refused by CMS's test environment."""
    request = case("align")
    for parameter in request["parameter"]:
        if parameter["name"] == "condition":
            del parameter["resource"]["meta"], parameter["resource"]["category"]
    after, places = mended(request, Operation.ALIGN)
    condition = next(p["resource"] for p in after["parameter"] if p["name"] == "condition")
    assert condition["meta"]["profile"] == [ACCESS("access-ckm-condition")]
    assert condition["category"][0]["coding"][0]["code"] == "problem-list-item"
    assert len(places) == 2


def test_a_category_that_says_otherwise_stays() -> None:
    """An encounter diagnosis is a clinical statement: it is not made a problem-list item."""
    request = case("align")
    condition = next(p["resource"] for p in request["parameter"] if p["name"] == "condition")
    condition["category"][0]["coding"][0]["code"] = "encounter-diagnosis"
    after, notes = repaired(request, Operation.ALIGN, base_url=BASE)
    assert (after, notes) == (request, [])
    assert any(issue.is_error for issue in validate(after, ACCESS("access-align-in")))


def test_a_condition_of_another_track_is_not_relabelled() -> None:
    """A CKM condition in an MSK request is a contradiction: it is refused, not repaired."""
    request = case("align")
    for parameter in request["parameter"]:
        if parameter["name"] == "track":
            parameter["valueCodeableConcept"]["coding"][0]["code"] = "MSK"
    after, notes = repaired(request, Operation.ALIGN, base_url=BASE)
    assert (after, notes) == (request, [])
    found = [i.text for i in validate(after, ACCESS("access-align-in")) if i.is_error]
    assert any("access-facade-condition-of-track" in text for text in found)


def test_narrative_is_generated_where_there_is_none() -> None:
    """Every resource of a report and the track's section: CMS's test environment wants `text` there."""
    request = report()
    for entry in bundle_of(request)["entry"]:
        entry["resource"].pop("text", None)
    del resources(request, "Composition")[0]["section"][0]["text"]
    after, _ = mended(request)
    divs = [entry["resource"]["text"]["div"] for entry in bundle_of(after)["entry"]]
    assert all(div.startswith('<div xmlns="http://www.w3.org/1999/xhtml">') for div in divs)
    assert resources(after, "Composition")[0]["section"][0]["text"]["status"] == "generated"
    patient = resources(request, "Patient")[0]
    said = " ".join(divs)
    assert patient["identifier"][0]["value"] not in said
    assert patient["name"][0]["family"] not in said


def test_entries_claim_their_profiles() -> None:
    """By type, and of an Observation by its code."""
    request = report()
    for entry in bundle_of(request)["entry"]:
        entry["resource"].pop("meta", None)
    after, _ = mended(request)
    claimed = {r["code"]["coding"][0]["code"]: r["meta"]["profile"] for r in resources(after, "Observation")}
    assert claimed["85354-9"] == [US_CORE_PINNED("us-core-blood-pressure")]
    assert claimed["29463-7"] == [US_CORE_PINNED("us-core-body-weight")]
    assert resources(after, "Patient")[0]["meta"]["profile"] == [US_CORE_PINNED("us-core-patient")]


@pytest.mark.parametrize(
    "url",
    [None, "urn:uuid:{kind}/{id}", "{kind}/{id}"],
    ids=["no fullUrl", "malformed urn", "relative"],
)
def test_entries_get_a_usable_full_url(url: str | None) -> None:
    """A fullUrl that is none, and the references that copied it (as a known client sent)."""
    request = report()
    for entry in bundle_of(request)["entry"]:
        resource = entry["resource"]
        del entry["fullUrl"]
        if url is not None:
            entry["fullUrl"] = url.format(kind=resource["resourceType"], id=resource["id"])
    after, _ = mended(request)
    urls = [entry["fullUrl"] for entry in bundle_of(after)["entry"]]
    assert all(url.startswith(f"{BASE}/") for url in urls)
    assert len(set(urls)) == len(urls)


def test_references_are_pointed_at_their_entries() -> None:
    """fullUrls are uuids, references relative: R4 does not resolve them, so they are written as fullUrls."""
    request = report()
    for number, entry in enumerate(bundle_of(request)["entry"]):
        entry["fullUrl"] = f"urn:uuid:00000000-0000-4000-8000-{number:012d}"
    after, places = mended(request)
    composition = resources(after, "Composition")[0]
    assert composition["subject"]["reference"] == "urn:uuid:00000000-0000-4000-8000-000000000001"
    assert "Parameters.parameter[4].resource.entry[0].resource.subject.reference" in places
    values = [r["subject"]["reference"] for r in resources(after, "Observation")]
    assert set(values) == {composition["subject"]["reference"]}


def test_a_reference_to_nothing_is_not_invented() -> None:
    """What is not in the bundle stays as it is, and is refused."""
    request = report()
    resources(request, "Composition")[0]["author"][0]["reference"] = "Practitioner/unknown"
    after, _ = repaired(request, Operation.REPORT_DATA, base_url=BASE)
    assert any("refs-in-bundle" in i.text for i in validate(after, ACCESS("access-report-data-in")) if i.is_error)


def test_one_coding_is_sent_for_the_track() -> None:
    """CMS compares the lists of codings of `track` and of the section (IG 0.9.12, invariant on report-data)."""
    request = report()
    local = {"system": "urn:example:tracks", "code": "cardio"}
    for parameter in request["parameter"]:
        if parameter["name"] in ("track", "reportType"):
            parameter["valueCodeableConcept"]["coding"].append(local)
    resources(request, "Composition")[0]["section"][0]["code"]["coding"].insert(0, local)
    after, places = mended(request)
    section = resources(after, "Composition")[0]["section"][0]
    assert [coding["system"] for coding in section["code"]["coding"]] == [TRACK]
    assert len(places) == 3


def test_a_questionnaire_is_added_for_a_canonical_that_is_not_there() -> None:
    """CMS's test environment refuses one that it can not resolve (as a known client learnt)."""
    request = report()
    response = {
        "resourceType": "QuestionnaireResponse",
        "id": "phq",
        "meta": {"profile": [US_CORE_PINNED("us-core-questionnaireresponse")]},
        "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">PHQ-9</div>'},
        "questionnaire": "https://ehr.example/Questionnaire/phq9|2.0",
        "status": "completed",
        "subject": {"reference": "Patient/p1"},
        "authored": "2026-07-02T09:00:00Z",
        "item": [{"linkId": "total-score", "answer": [{"valueDecimal": Decimal(7)}]}],
    }
    bundle_of(request)["entry"].append({"fullUrl": f"{BASE}/QuestionnaireResponse/phq", "resource": response})
    after, places = mended(request)
    (form,) = resources(after, "Questionnaire")
    assert (form["url"], form["version"], form["status"]) == ("https://ehr.example/Questionnaire/phq9", "2.0", "active")
    assert form["item"] == [{"linkId": "total-score", "type": "decimal"}]
    assert resources(after, "QuestionnaireResponse")[0] == response
    assert len(places) == 2  # the entry, and its fullUrl


@pytest.mark.parametrize("broken", [7, "x", [7, "x", None], {"a": 1}, [[]], [{"name": 7, "resource": "x"}]])
def test_any_shape_of_json_goes_through(broken: Any) -> None:
    """The checks come after: what is no Parameters at all is left to them."""
    request = {"resourceType": "Parameters", "parameter": broken}
    after, _ = repaired(request, Operation.REPORT_DATA, base_url=BASE)
    assert any(issue.is_error for issue in validate(after, ACCESS("access-report-data-in")))


@pytest.mark.parametrize("element", ["entry", "meta", "identifier", "type"])
@pytest.mark.parametrize("broken", [7, "x", [7, {"resource": 3}], {"a": []}, [{"resource": {"meta": 3, "code": []}}]])
def test_any_shape_of_bundle_goes_through(element: str, broken: Any) -> None:
    """The same inside the report."""
    request = report()
    bundle_of(request)[element] = broken
    after, _ = repaired(request, Operation.REPORT_DATA, base_url=BASE)
    assert any(issue.is_error for issue in validate(after, ACCESS("access-report-data-in")))


def test_values_times_and_statuses_are_never_touched() -> None:
    """With every repair at once, what a clinician said is there, number for number."""
    request = report()
    for entry in bundle_of(request)["entry"]:
        for name in ("text", "meta"):
            entry["resource"].pop(name, None)
        del entry["fullUrl"]
    after, _ = mended(request)
    for was, now in zip(bundle_of(request)["entry"], bundle_of(after)["entry"], strict=True):
        rest = {name: value for name, value in now["resource"].items() if name not in ("text", "meta")}
        assert rest == was["resource"] or was["resource"]["resourceType"] == "Composition"
