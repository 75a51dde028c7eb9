"""What foreign clients do at the CMS-shaped door: other headers, wrong methods, repeats; and what they read back."""

import asyncio
from dataclasses import replace

import pytest

from profiles import fhir_json
from server.domain.submission import Submission, SubmissionEvent, SubmissionState

ELIGIBILITY = "/fhir/access/Patient/$check-eligibility?entityId=ACCES12345"
STATUS = "/fhir/access/Patient/$submission-status/0123"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "application/fhir+json"},
        {"Content_Type": "application/json; charset=utf-8"},
        {"Content_Type": "application/fhir+json;charset=UTF-8", "Accept": "*/*"},
        {"Accept": "application/json"},
        {"Accept": "application/fhir+json; fhirVersion=4.0"},
        {"Accept": "text/html, */*;q=0.1"},
        {"Prefer": "respond-async"},
        {"Prefer": "respond-async, return=minimal"},
    ],
    ids=str,
)
async def test_headers_of_real_clients_are_taken(installation, eligibility, headers):
    """`*/*`, both content types, charset parameters, Prefer: 202, Content-Location, nothing in the body."""
    answer = await installation.call("ehr-1", "POST", ELIGIBILITY, eligibility, **headers)
    assert (answer.status_code, answer.content) == (202, b""), answer.text
    assert answer.headers["Content-Location"].startswith("http://facade.test/fhir/access/Patient/$submission-status/")


async def test_respond_async_is_confirmed(installation, eligibility):
    """RFC 7240: the preference that was applied is named."""
    answer = await installation.call("ehr-1", "POST", ELIGIBILITY, eligibility, Prefer="respond-async")
    assert answer.headers["Preference-Applied"] == "respond-async"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", ELIGIBILITY, {}, 405),
        ("PUT", ELIGIBILITY, {}, 405),
        ("POST", STATUS, {}, 405),
        ("GET", STATUS, {}, 404),
        ("POST", "/fhir/access/Patient/$enroll?entityId=ACCES12345", {}, 404),
        ("POST", "/fhir/access/Group/$align?entityId=ACCES12345", {}, 404),
        ("POST", ELIGIBILITY, {"Accept": "text/html"}, 406),
        ("POST", ELIGIBILITY, {"Content_Type": "text/plain"}, 415),
        ("POST", ELIGIBILITY, {"Content_Type": "application/fhir+xml"}, 415),
        ("POST", ELIGIBILITY, {"Content_Encoding": "gzip"}, 415),
        ("POST", "/fhir/access/Patient/$check-eligibility", {}, 400),
        ("POST", ELIGIBILITY, {"Idempotency_Key": "x" * 256}, 400),
        ("POST", ELIGIBILITY, {"Authorization": "Bearer nonsense"}, 401),
    ],
)
async def test_every_refusal_says_all_in_its_first_text(installation, eligibility, method, path, headers, status):
    """An OperationOutcome whose first `details.text` is the whole message: many clients show nothing else."""
    answer = await installation.call("ehr-1", method, path, eligibility if method != "GET" else None, **headers)
    outcome = fhir_json.parse(answer.content)
    assert (answer.status_code, outcome["resourceType"]) == (status, "OperationOutcome")
    text = outcome["issue"][0]["details"]["text"]
    assert len(text) > 20
    assert text.endswith(".")
    assert await installation.context.store.find(Submission) == []


async def test_head_is_get_without_a_body(installation, eligibility):
    """HEAD on a status URL: the status, no body (RFC 9110)."""
    location = (await installation.operation("check-eligibility", eligibility)).headers["Content-Location"]
    answer = await installation.call("ehr-1", "HEAD", location)
    assert (answer.status_code, answer.content) == (202, b"")


async def test_a_body_that_is_too_long_is_413(installation, eligibility):
    """Before it is read whole."""
    context = installation.context
    installation.app.state.context = replace(context, settings=replace(context.settings, max_body_bytes=100))
    answer = await installation.operation("check-eligibility", eligibility)
    assert answer.status_code == 413
    assert fhir_json.parse(answer.content)["issue"][0]["code"] == "too-long"


async def test_a_refusal_is_one_pass(installation, alignment):
    """All that is wrong is said at once, the profile's findings and ours."""
    body = alignment.replace(b"1EG4TE5MK72", b"1EG4TE5MK7").replace(b'"E11.22"', b'"Z00.00"')
    body = body.replace(b'"value":"ACCES12345"', b'"value":"ACCES99999"')
    outcome = fhir_json.parse((await installation.operation("align", body)).content)
    said = " ".join(str(issue.get("expression")) + issue["details"]["text"] for issue in outcome["issue"])
    assert all(part in said for part in ("participantID", "MBI", "parameter[4].resource.code")), said


async def test_progress_is_told_while_waiting(installation, eligibility):
    """X-Progress on a 202, for clients that want more than nothing."""
    location = (await installation.operation("check-eligibility", eligibility)).headers["Content-Location"]
    assert (await installation.call("ehr-1", "GET", location)).headers["X-Progress"] == "built"


async def test_a_key_makes_a_repeat_the_same(installation, alignment):
    """Same Idempotency-Key and body, one after the other and at the same time: one submission."""
    path = "/fhir/access/Patient/$align?entityId=ACCES12345"
    calls = [installation.call("ehr-1", "POST", path, alignment, Idempotency_Key="order-66") for _ in range(8)]
    first = await calls[0]
    answers = [first, *await asyncio.gather(*calls[1:])]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.headers["Content-Location"] for answer in answers}) == 1
    assert len(await installation.context.store.find(Submission)) == 1


async def test_a_key_outlives_the_result(installation, eligibility):
    """A finished question may be asked again; under its own key it is the same question."""
    first = await installation.call("ehr-1", "POST", ELIGIBILITY, eligibility, Idempotency_Key='"k1"')
    await installation.result(first.headers["Content-Location"].rpartition("/")[2])
    again = await installation.call("ehr-1", "POST", ELIGIBILITY, eligibility, Idempotency_Key='"k1"')
    other = await installation.call("ehr-1", "POST", ELIGIBILITY, eligibility, Idempotency_Key='"k2"')
    assert first.headers["Content-Location"] == again.headers["Content-Location"]
    assert first.headers["Content-Location"] != other.headers["Content-Location"]


async def test_a_key_is_over_after_a_day(installation, eligibility):
    """24 hours after the result the key is free, also for another body."""
    first = await installation.call("ehr-1", "POST", ELIGIBILITY, eligibility, Idempotency_Key="k")
    await installation.result(first.headers["Content-Location"].rpartition("/")[2])
    installation.clock.move(hours=25)
    installation.tokens.clear()
    later = await installation.call("ehr-1", "POST", ELIGIBILITY, eligibility + b" ", Idempotency_Key="k")
    assert later.status_code == 202
    assert later.headers["Content-Location"] != first.headers["Content-Location"]


async def test_a_key_with_another_body_is_refused(installation, eligibility):
    """422, and nothing is sent (IETF draft idempotency-key-header-07)."""
    await installation.call("ehr-1", "POST", ELIGIBILITY, eligibility, Idempotency_Key="k")
    answer = await installation.call("ehr-1", "POST", ELIGIBILITY, eligibility + b" ", Idempotency_Key="k")
    assert answer.status_code == 422
    assert fhir_json.parse(answer.content)["issue"][0]["expression"] == ["http.Idempotency-Key"]
    assert len(await installation.context.store.find(Submission)) == 1


async def test_a_key_belongs_to_its_client_and_operation(installation, eligibility, alignment):
    """The same key for another operation is another request."""
    await installation.call("ehr-1", "POST", ELIGIBILITY, eligibility, Idempotency_Key="k")
    path = "/fhir/access/Patient/$align?entityId=ACCES12345"
    assert (await installation.call("ehr-1", "POST", path, alignment, Idempotency_Key="k")).status_code == 202


async def test_repairs_are_written_down(installation, eligibility):
    """The first event of the submission says what was put right; what came stays with Received, byte for byte."""
    body = eligibility.replace(b"1EG4TE5MK72", b"1eg4-te5-mk72")
    await installation.operation("check-eligibility", body)
    (event,) = await installation.context.store.find(SubmissionEvent)
    assert (event.sequence, event.state) == (1, SubmissionState.BUILT)
    assert "Parameters.parameter[2].resource.identifier[0].value: The MBI was written in CMS's form" in event.detail
    assert "1EG4" not in event.detail
    assert "1eg4" not in event.detail


async def test_whose_word_a_referral_is_is_written_down(installation, alignment):
    """`isProviderReferral` of an EHR goes to CMS as it came, and is recorded as the EHR's own statement."""
    await installation.operation("align", alignment)
    (event,) = await installation.context.store.find(SubmissionEvent)
    assert "isProviderReferral = true is the statement of ehr-1" in event.detail
    assert (await installation.submission()).request == alignment


async def test_a_page_from_elsewhere_never_reaches_the_client(installation, eligibility):
    """CMS's side answers the POST with HTML and 400: the client reads our OperationOutcome, with the reason."""
    installation.cms.fault("check-eligibility", "html", status=400)
    location = (await installation.operation("check-eligibility", eligibility)).headers["Content-Location"]
    await installation.work()
    answer = await installation.call("ehr-1", "GET", location)
    if answer.status_code == 202:  # where the client of CMS tries again: never HTML either way
        assert b"<html" not in answer.content
        return
    outcome = fhir_json.parse(answer.content)
    assert outcome["resourceType"] == "OperationOutcome"
    assert outcome["issue"][0]["details"]["text"]


async def test_a_stopped_submission_says_why(installation, eligibility):
    """A status URL on another server: 202, as CMS may decide yet; header and body say that a person looks."""
    installation.cms.fault("check-eligibility", "foreign-location", location="https://elsewhere.example/x")
    location = (await installation.operation("check-eligibility", eligibility)).headers["Content-Location"]
    await installation.work()
    assert (await installation.submission()).state is SubmissionState.NEEDS_REVIEW
    answer = await installation.call("ehr-1", "GET", location)
    assert answer.status_code == 202
    text = fhir_json.parse(answer.content)["issue"][0]["details"]["text"]
    assert "another server" in text
    assert answer.headers["X-Progress"] == text
