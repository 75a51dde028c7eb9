"""One request as the rules see it, and the answer to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ISSUE_CODES = {400: "invalid", 401: "security", 403: "forbidden", 404: "not-found", 405: "not-supported",
               413: "too-long", 415: "not-supported", 429: "throttled", 500: "exception", 503: "transient"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, its body read. `base` is scheme and host as called; `path` has `%24` decoded."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    base: str
    raw_path: str
    raw_query: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. `body` None is an empty body; `accepted` is true where a submission was taken."""

    status: int
    body: Mapping[str, Any] | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    submission_id: str | None = None
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class Issue:
    """What is wrong with a request. `code` is FHIR's issue type; `text` holds no value of a patient.

    `late`: CMS finds it only after its 202, and says so at the poll.
    """

    code: str
    text: str
    expression: str | None = None
    severity: str = "error"
    late: bool = False


class Refused(Exception):
    """The request ends here with this answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def outcome(*issues: Issue) -> dict[str, Any]:
    """An OperationOutcome as CMS shapes it: `details.text`, and where known `expression`."""
    return {"resourceType": "OperationOutcome", "issue": [_row(issue) for issue in issues]}


def _row(issue: Issue) -> dict[str, Any]:
    row = {"severity": issue.severity, "code": issue.code, "details": {"text": issue.text}}
    return row | ({"expression": [issue.expression]} if issue.expression else {})


def refusal(status: int, text: str, *, code: str | None = None, headers: Mapping[str, str] | None = None) -> Refused:
    """One plain refusal; the issue code follows from the status unless given."""
    issue = Issue(code or ISSUE_CODES.get(status, "processing"), text)
    return Refused(Answer(status, outcome(issue), headers or {}))
