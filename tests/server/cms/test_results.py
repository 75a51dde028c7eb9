"""Plain words for every result code."""

import json
from importlib.resources import files

import pytest

from server.cms import policy, results
from server.cms.policy import Verdict
from server.domain.submission import Operation, SubmissionState

CODE_SYSTEMS = {
    Operation.CHECK_ELIGIBILITY: "ACCESSEligibilityResultCS",
    Operation.ALIGN: "ACCESSAlignmentResultCS",
    Operation.UNALIGN: "ACCESSUnalignmentResultCS",
    Operation.REPORT_DATA: "ACCESSReportDataResultCS",
}


def _published(name: str) -> set[str]:
    folder = files("profiles").joinpath("definitions", "access-0.9.12")
    for entry in folder.iterdir():
        content = json.loads(entry.read_text(encoding="utf-8"))
        for resource in content if isinstance(content, list) else [content]:
            if resource.get("resourceType") == "CodeSystem" and resource.get("url", "").endswith(name):
                return {concept["code"] for concept in resource["concept"]}
    raise AssertionError(name)


@pytest.mark.parametrize("operation", list(Operation))
def test_every_code_of_the_guide_is_explained(operation):
    """The table covers exactly the code system of the operation."""
    assert results.codes(operation) == _published(CODE_SYSTEMS[operation])


ROWS = [(operation, code) for operation in Operation for code in sorted(results.codes(operation))]
ACTORS = {"coordinator", "clinician", "interface", "nobody"}
FAILURES = ["no-answer", "not-fhir", "no-status-url", "foreign-status-url", "no-result", "stopped"]


def _is_plain(meaning):
    """A whole sentence, a next step, someone who acts, a severity."""
    assert meaning.text.endswith(".")
    assert meaning.next.endswith(".")
    assert meaning.who in ACTORS
    assert meaning.severity in ("information", "warning", "error")
    assert not meaning.again.endswith(".")


@pytest.mark.parametrize(("operation", "code"), ROWS)
def test_every_code_says_what_to_do(operation, code):
    """Severity, sentence, next step, who acts, and when it may be sent again: a refusal without that is none."""
    meaning = results.meaning(operation, code)
    _is_plain(meaning)
    assert bool(meaning.again) is (meaning.outcome in ("mend", "refused"))


@pytest.mark.parametrize("status", [201, *range(203, 227), *range(300, 600), *FAILURES])
def test_every_failure_says_what_to_do(status):
    """Every HTTP status that is no result, and what may come instead of one."""
    _is_plain(results.failure(status))


@pytest.mark.parametrize("state", list(SubmissionState))
def test_every_state_says_where_a_submission_stands(state):
    """Before its end as well."""
    _is_plain(results.standing(state))


def test_only_what_a_person_may_repeat_says_when():
    """A failure that is tried again by itself says so."""
    for status, verdict in policy.POST.items():
        if verdict is Verdict.LATER:
            assert results.failure(status).again == "by itself"


def test_an_unknown_code_is_for_a_person():
    """A code that a later guide adds is shown as unknown, not as success."""
    assert results.meaning(Operation.ALIGN, "aligned-by-moonlight").outcome == "unknown"


def test_the_result_is_found_by_name():
    """Not by position: `issues` may come first."""
    body = json.dumps(
        {
            "resourceType": "Parameters",
            "parameter": [
                {"name": "issues", "resource": {"resourceType": "OperationOutcome"}},
                {"name": "result", "valueCodeableConcept": {"coding": [{"code": "incomplete-data"}]}},
            ],
        }
    ).encode()
    assert results.result_code(body) == "incomplete-data"


@pytest.mark.parametrize(
    ("status", "post", "poll"),
    [
        (200, Verdict.RECONCILE, Verdict.RESULT),
        (202, Verdict.ACCEPTED, Verdict.WAIT),
        (204, Verdict.RECONCILE, Verdict.LATER),
        (301, Verdict.REVIEW, Verdict.LATER),
        (400, Verdict.REVIEW, Verdict.RESULT),
        (401, Verdict.RENEW, Verdict.RENEW),
        (403, Verdict.PAUSE, Verdict.PAUSE),
        (404, Verdict.MISDIRECTED, Verdict.GONE),
        (409, Verdict.RECONCILE, Verdict.RESULT),
        (422, Verdict.REVIEW, Verdict.RESULT),
        (429, Verdict.LATER, Verdict.LATER),
        (500, Verdict.UNCERTAIN, Verdict.LATER),
        (502, Verdict.UNCERTAIN, Verdict.LATER),
        (503, Verdict.LATER, Verdict.LATER),
        (504, Verdict.UNCERTAIN, Verdict.LATER),
    ],
)
def test_the_policy_of_each_status(status, post, poll):
    """One cell of the policy table a row."""
    assert (policy.of_post(status), policy.of_poll(status)) == (post, poll)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("60", 60.0),
        ("1000000000", 3600.0),
        ("Thu, 20 Aug 2026 12:01:00 GMT", 60.0),
        ("Thu, 20 Aug 2026 11:00:00 GMT", 0.0),
        ("abc", None),
        ("-5", None),
        (None, None),
    ],
)
def test_retry_after_in_both_forms(value, seconds):
    """Seconds or an HTTP-date, never more than an hour (RFC 9110, 10.2.3)."""
    from datetime import UTC, datetime

    assert policy.retry_after_seconds(value, datetime(2026, 8, 20, 12, 0, tzinfo=UTC)) == seconds
