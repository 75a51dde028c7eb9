"""The CMS-shaped front door."""

from dataclasses import replace
from datetime import timedelta

import pytest

from profiles import fhir_json
from profiles.validate import validate
from server.domain.received import Received, ReceivedState
from server.domain.submission import Submission, SubmissionState
from server.intake import cms_operations
from server.store.base import Where


async def test_it_answers_as_cms_does(installation, eligibility):
    """A taken request gets 202, an absolute Content-Location and no body (IG 0.9.12, responses)."""
    answer = await installation.operation("check-eligibility", eligibility)
    assert (answer.status_code, answer.content) == (202, b"")
    assert answer.headers["Content-Location"].startswith("http://facade.test/fhir/access/Patient/$submission-status/")


async def test_the_dollar_may_be_encoded(installation, eligibility):
    """`%24` is `$` (RFC 3986)."""
    path = "/fhir/access/Patient/%24check-eligibility?entityId=ACCES12345"
    assert (await installation.call("ehr-1", "POST", path, eligibility)).status_code == 202


async def test_a_poll_is_202_until_cms_decided(installation, eligibility):
    """Before the result: 202, no body."""
    location = (await installation.operation("check-eligibility", eligibility)).headers["Content-Location"]
    answer = await installation.call("ehr-1", "GET", location)
    assert (answer.status_code, answer.content) == (202, b"")


async def test_the_result_is_flat(installation, eligibility):
    """After it: 200 and CMS's Parameters with `result`."""
    location = (await installation.operation("check-eligibility", eligibility)).headers["Content-Location"]
    await installation.result(location.rpartition("/")[2])
    answer = await installation.call("ehr-1", "GET", location)
    parameter = fhir_json.parse(answer.content)["parameter"][0]
    assert (answer.status_code, parameter["name"]) == (200, "result")
    assert parameter["valueCodeableConcept"]["coding"][0]["code"] == "eligible"


async def test_cms_gets_the_very_bytes(installation, eligibility):
    """What needs no repair goes to CMS byte for byte."""
    location = (await installation.operation("check-eligibility", eligibility)).headers["Content-Location"]
    row = await installation.result(location.rpartition("/")[2])
    (post,) = installation.cms.journal("check-eligibility")
    assert row.request == eligibility
    assert post["body_sha256"] == row.request_sha256


async def test_a_repeat_is_the_same_submission(installation, alignment):
    """The same bytes by the same client, before or after the result: one submission, one POST."""
    first = await installation.operation("align", alignment)
    again = await installation.operation("align", alignment)
    await installation.result(first.headers["Content-Location"].rpartition("/")[2])
    late = await installation.operation("align", alignment)
    assert first.headers["Content-Location"] == again.headers["Content-Location"] == late.headers["Content-Location"]
    assert len(installation.cms.journal("align")) == 1


async def test_eligibility_may_be_asked_again(installation, eligibility):
    """A finished eligibility question is no bar to the next one: coverage changes."""
    first = await installation.operation("check-eligibility", eligibility)
    await installation.result(first.headers["Content-Location"].rpartition("/")[2])
    again = await installation.operation("check-eligibility", eligibility)
    assert first.headers["Content-Location"] != again.headers["Content-Location"]


async def test_an_mbi_with_dashes_is_put_right(installation, eligibility):
    """Upper case, no dashes: repaired, sent, and said so in what CMS gets."""
    dashed = eligibility.replace(b"1EG4TE5MK72", b"1eg4-te5-mk72")
    assert (await installation.operation("check-eligibility", dashed)).status_code == 202
    row = await installation.submission()
    assert b"1EG4TE5MK72" in row.request
    assert b"1eg4" not in row.request


async def test_a_missing_profile_is_put_right(installation, eligibility):
    """CMS refuses a request without meta.profile; it is added."""
    request = fhir_json.parse(eligibility)
    del request["meta"]
    assert (await installation.operation("check-eligibility", fhir_json.dump(request))).status_code == 202
    assert b"access-check-eligibility-in" in (await installation.submission()).request


def _without(body: bytes, name: str) -> bytes:
    request = fhir_json.parse(body)
    request["parameter"] = [p for p in request["parameter"] if p["name"] != name]
    return fhir_json.dump(request)


def _renamed(body: bytes, old: str, new: str) -> bytes:
    return body.replace(f'"name":"{old}"'.encode(), f'"name":"{new}"'.encode())


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda b: _without(b, "patient"), "patient"),
        (lambda b: _without(b, "condition"), "condition"),
        (lambda b: _renamed(b, "condition", "conditions"), "conditions"),
        (lambda b: b.replace(b"ACCES12345", b"ACCESS1234"), "participant id"),
        (lambda b: b.replace(b"1EG4TE5MK72", b"1EG4TE5MK7"), "identifier"),
        (lambda b: b.replace(b'"CKM"', b'"XYZ"'), "ACCESSTrackVS"),
        (lambda b: b.replace(b'"CKM"', b'"MSK"'), "condition-of-track"),
        (lambda b: b.replace(b"problem-list-item", b"encounter-diagnosis"), "category"),
        (lambda b: b.replace(b'"E11.22"', b'"Z00.00"'), "code"),
        (lambda b: b.replace(b'"birthDate":"1952-03-14"', b'"birthDate":"1952-02-30"'), "birthDate"),
    ],
)
async def test_what_cms_would_refuse_is_refused_here(installation, alignment, change, place):
    """400 with an OperationOutcome that names the place; nothing goes to CMS; the body is kept."""
    body = change(alignment)
    assert body != alignment
    answer = await installation.operation("align", body)
    outcome = fhir_json.parse(answer.content)
    assert answer.status_code == 400, outcome
    said = " ".join(str(issue.get("expression")) + issue["details"]["text"] for issue in outcome["issue"])
    assert place in said, said
    assert installation.cms.journal("align") == []
    (kept,) = await installation.context.store.find(Received, Where("state", "==", ReceivedState.QUARANTINED))
    assert kept.body == body


async def test_invalid_json_is_400_and_kept(installation):
    """Broken JSON: 400, structure, kept for the operator."""
    answer = await installation.operation("align", b'{"resourceType": "Parameters", ')
    assert answer.status_code == 400
    assert fhir_json.parse(answer.content)["issue"][0]["code"] in ("structure", "invalid")
    (kept,) = await installation.context.store.find(Received)
    assert kept.state is ReceivedState.QUARANTINED


async def test_entity_id_is_required(installation, eligibility):
    """400 required without it (IG 0.9.12, endpoints)."""
    answer = await installation.call("ehr-1", "POST", "/fhir/access/Patient/$align", eligibility)
    assert (answer.status_code, fhir_json.parse(answer.content)["issue"][0]["code"]) == (400, "required")


async def test_another_participants_entity_id_is_refused(installation, eligibility):
    """A token of one participant does not act for another."""
    answer = await installation.operation("check-eligibility", eligibility, client_id="ehr-2")
    assert answer.status_code == 403
    assert await installation.context.store.find(Submission) == []


async def test_a_client_without_the_scope_is_refused(installation, eligibility):
    """`access/submit` is needed."""
    answer = await installation.operation("check-eligibility", eligibility, client_id="pcp-1")
    assert (answer.status_code, fhir_json.parse(answer.content)["issue"][0]["code"]) == (403, "forbidden")


async def test_another_participants_submission_does_not_exist(installation, eligibility):
    """404, the same as for an id that was never given."""
    location = (await installation.operation("check-eligibility", eligibility)).headers["Content-Location"]
    theirs = await installation.call("ehr-2", "GET", location)
    never = await installation.call("ehr-2", "GET", location[:-4] + "0000")
    assert theirs.status_code == never.status_code == 404
    assert theirs.content == never.content


async def test_an_unknown_operation_is_404(installation, eligibility):
    """With an OperationOutcome."""
    answer = await installation.operation("enroll", eligibility)
    assert (answer.status_code, fhir_json.parse(answer.content)["resourceType"]) == (404, "OperationOutcome")


async def test_cms_refusal_reaches_the_client(installation, eligibility):
    """When CMS refuses for good, the client reads CMS's own OperationOutcome."""
    installation.cms.fault("check-eligibility", "http", status=400)
    location = (await installation.operation("check-eligibility", eligibility)).headers["Content-Location"]
    await installation.work(until=timedelta(seconds=60))
    assert (await installation.submission()).state is SubmissionState.NEEDS_REVIEW
    assert (await installation.call("ehr-1", "GET", location)).status_code == 400


async def test_the_diagnoses_sent_are_kept(installation, alignment):
    """Which measures are due hangs on them: they can be read back, under our patient."""
    await installation.operation("align", alignment)
    answer = await installation.call(
        "ehr-1", "GET", "/fhir/Condition?patient=http://terminology.hl7.org/NamingSystem/cmsMBI|1EG4TE5MK72"
    )
    assert fhir_json.parse(answer.content)["total"] == 1


async def test_the_guide_is_the_participants(installation, alignment, monkeypatch):
    """What the door checks by is the version that the participant's setting names."""
    seen: list[str] = []

    def noted(*given, guide):
        seen.append(guide)
        return validate(*given)

    monkeypatch.setattr(cms_operations, "validate", noted)
    participants = installation.context.settings.participants
    newer = {name: replace(each, guide="0.9.13") for name, each in participants.items()}
    object.__setattr__(installation.context.settings, "participants", newer)
    await installation.operation("align", alignment)
    assert seen == ["0.9.13"]
