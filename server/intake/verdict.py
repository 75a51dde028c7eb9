"""What a poller reads when a submission has come to its end: CMS's own answer, or in whose hands it is, in a sentence.

Only FHIR reaches the client: an HTML page that CMS's side sent is told in our own OperationOutcome.
Source: ACCESS API IG 0.9.12, responses.
"""

from typing import Any

from mappers.conversion import Resource
from profiles import fhir_json
from profiles.issue import Issue, Severity
from server.context import Context
from server.domain.submission import Submission, SubmissionEvent, SubmissionState
from server.intake.repair_steps import rows
from server.outcomes import outcome
from server.store.base import Where

LONGEST_PROGRESS = 400  # characters of the X-Progress header


async def answer_of(submission: Submission, context: Context) -> tuple[int, bytes, str]:
    """Status, body and, for a 202, the progress in words. The body of CMS's answer is given as it came if it can be."""
    if submission.state is SubmissionState.APPLIED and submission.result is not None:
        return _client_status(submission.result_status), submission.result, ""
    said = await _said(submission, context)
    answer = _fhir(submission.result)
    if submission.result_status is None:
        told = outcome([Issue(Severity.INFORMATION, "informational", "", said)])
        return 202, fhir_json.dump(told), said.encode("ascii", "replace").decode()[:LONGEST_PROGRESS]
    if answer is None:
        told = outcome([Issue(Severity.ERROR, "processing", "", said)])
        return _client_status(submission.result_status), fhir_json.dump(told), ""
    readable = _readable(answer, said)
    body = submission.result if readable is answer and submission.result else fhir_json.dump(readable)
    return _client_status(submission.result_status), body, ""


def _client_status(status: int | None) -> int:
    """CMS's status, where it is one of a decision: what stands between (401, 429, 5xx, redirects) is ours to bear."""
    if status is None or 200 <= status < 300:
        return status or 200
    return status if 400 <= status < 500 and status not in (401, 407, 408, 429) else 422


async def _said(submission: Submission, context: Context) -> str:
    """Why it stopped, as the work list has it: the detail of the last event."""
    events = await context.store.find(
        SubmissionEvent,
        Where("submission_id", "==", submission.id),
        order_by="sequence",
        descending=True,
        limit=1,
    )
    return events[0].detail if events else "A person has to look at this submission."


def _fhir(body: bytes | None) -> Resource | None:
    try:
        content = fhir_json.parse(body or b"")
    except fhir_json.BadJson:
        return None
    return content if content.get("resourceType") in ("Parameters", "OperationOutcome") else None


def _readable(answer: Resource, said: str) -> Resource:
    """An OperationOutcome whose first issue says something in `details.text`: many clients show nothing else."""
    issues = rows(answer.get("issue"))
    if answer["resourceType"] != "OperationOutcome" or not issues or _text(issues[0]):
        return answer
    text = next((t for i in issues if (t := _text(i) or str(i.get("diagnostics", "")))), said)
    details = issues[0].get("details")
    first = {**issues[0], "details": {**(details if isinstance(details, dict) else {}), "text": text}}
    return {**answer, "issue": [first, *issues[1:]]}


def _text(issue: dict[str, Any]) -> str:
    details = issue.get("details")
    return str(details.get("text", "")) if isinstance(details, dict) else ""
