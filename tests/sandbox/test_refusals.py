"""What the sandbox refuses with a 400, each from one change to a request that it takes."""

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest

CASES = tomllib.loads((Path(__file__).parents[1] / "cases" / "sandbox" / "refusals.toml").read_text("utf-8"))["case"]


def good(cms: Any, call: str) -> dict[str, Any]:
    """A request that is taken."""
    bodies = {
        "check-eligibility": cms.made.check_eligibility,
        "align": cms.made.align,
        "unalign": cms.made.unalign,
        "report-data": cms.made.report,
    }
    return bodies[call]()


def change(body: dict[str, Any], case: dict[str, Any]) -> None:
    """Does the case's one change."""
    *way, last = [int(step) if step.isdigit() else step for step in case["at"].split(".")]
    place: Any = body
    for step in way:
        place = place[step]
    if case.get("delete"):
        del place[last]
    elif case.get("add"):
        place.append(copy.deepcopy(place[last]))
    elif case.get("move_to_end"):
        place.append(place.pop(last))
    else:
        place[last] = case["set"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_refused(cms: Any, case: dict[str, Any]) -> None:
    """One fault in a request is answered 400 with an issue that names it, and nothing is taken; some at the poll."""
    body = good(cms, case["call"])
    change(body, case)
    answer = await cms.post(case["call"], body)
    if case.get("late"):
        assert answer.status_code == 202
        answer = await cms.poll(answer.headers["content-location"])
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    issues = answer.json()["issue"]
    assert [i for i in issues if i["code"] == case["code"] and case["text"] in i["details"]["text"]], issues
    journal = await cms.get("/sandbox/journal")
    assert (journal[-1]["status"], journal[-1]["accepted"]) == (400, False)
    assert case.get("late") or journal[-1]["submission_id"] is None


@pytest.mark.parametrize("call", ["check-eligibility", "align", "unalign", "report-data"])
async def test_taken(cms: Any, call: str) -> None:
    """The unchanged requests of these cases are taken: 202, absolute Content-Location, no body."""
    answer = await cms.post(call, good(cms, call))
    assert (answer.status_code, answer.content) == (202, b"")
    assert answer.headers["content-location"].startswith("http://cms.test/fhir/access/Patient/$submission-status/sub-")


async def test_entity_id_is_required(cms: Any) -> None:
    """A POST without entityId is a 400."""
    answer = await cms.post("align", cms.made.align(), entity=None)
    assert answer.status_code == 400
    assert answer.json()["issue"][0]["details"]["text"] == "Missing required query parameter: entityId"


@pytest.mark.parametrize(
    "body", [b"{", b'{"a":1,"a":2}', b"[]", b'"x"', b"\xff", b'{"a":NaN}', b"[" * 100_000, b"[" * 65 + b"]" * 65]
)
async def test_bad_json(cms: Any, body: bytes) -> None:
    """What is not a JSON object is a 400 with code structure."""
    answer = await cms.post("align", body)
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (400, "structure")


async def test_content_type(cms: Any) -> None:
    """Another content type than JSON is a 415."""
    headers = await cms.headers() | {"Content-Type": "text/plain"}
    url = "/fhir/access/Patient/$align?entityId=ACCES12345"
    assert (await cms.client.post(url, content=b"{}", headers=headers)).status_code == 415


async def test_unknown_submission(cms: Any) -> None:
    """The status of a submission that does not exist is a 404 in the guide's words."""
    answer = await cms.poll("/fhir/access/Patient/$submission-status/invalid-sub-id")
    assert answer.status_code == 404
    assert answer.json()["issue"] == [
        {
            "severity": "error",
            "code": "not-found",
            "details": {"text": "Submission ID 'invalid-sub-id' not found"},
        }
    ]


async def test_unknown_address(cms: Any) -> None:
    """An operation that CMS does not have is a 404."""
    assert (await cms.post("renew", {})).status_code == 404


async def test_wrong_method(cms: Any) -> None:
    """GET of an operation is a 405."""
    answer = await cms.client.get("/fhir/access/Patient/$align", headers=await cms.headers())
    assert answer.status_code == 405


async def test_questionnaire_must_resolve(cms: Any) -> None:
    """A response whose Questionnaire is not in the bundle is refused, and taken once it is."""
    url = "https://example-care.example/Questionnaire/phq-9"
    response = cms.made.response(url)
    patient = cms.made.patient()
    refused = cms.made.report(track="BH", measures={"44249-1": response}, patient=patient)
    questionnaire = {"resourceType": "Questionnaire", "url": url, "status": "active", "text": response["text"]}
    taken = cms.made.report(track="BH", measures={"44249-1": response}, patient=patient, extra=(questionnaire,))
    answer = await cms.post("report-data", refused)
    assert "does not resolve: put the Questionnaire into the bundle" in answer.text
    assert (await cms.post("report-data", taken)).status_code == 202


async def test_waist_as_the_guide_shows_it(cms: Any) -> None:
    """A waist circumference may claim us-core-simple-observation, as the guide's own example does."""
    waist = cms.made.observation("8280-0", "cm", 101, "us-core-simple-observation")
    body = cms.made.report(measures=cms.made.measures() | {"8280-0": waist})
    assert (await cms.post("report-data", body)).status_code == 202


async def test_absolute_references(cms: Any) -> None:
    """References that equal a fullUrl resolve, urn:uuid included."""
    body = cms.made.report(measures={})
    bundle = body["parameter"][4]["resource"]
    urn = "urn:uuid:6f1c2a34-5b0e-4d3c-9a51-0c1d2e3f4a5b"
    bundle["entry"][3]["fullUrl"] = urn
    bundle["entry"][0]["resource"]["custodian"]["reference"] = urn
    assert (await cms.post("report-data", body)).status_code == 202
