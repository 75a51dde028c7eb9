"""One request to CMS, from the built bytes to the applied result, and its legal transitions.

BUILT -> SENDING -> ACCEPTED -> RESULT -> APPLIED
             \\-> UNCERTAIN -> ACCEPTED (after the byte-identical repeat)
SENDING or UNCERTAIN -> RESULT (CMS refused the request at once)
any open state -> NEEDS_REVIEW (a person decides) -> BUILT (resent by hand)
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from server.domain.record import Record, Table, sealed


class Operation(StrEnum):
    """CMS's operations, without the `$`."""

    CHECK_ELIGIBILITY = "check-eligibility"
    ALIGN = "align"
    UNALIGN = "unalign"
    REPORT_DATA = "report-data"


class SubmissionState(StrEnum):
    """Where a submission stands; `reliability` promises hang on these."""

    BUILT = "built"  # valid, waiting for its turn (one write in flight per patient and track)
    SENDING = "sending"  # the intent is on disk; bytes may be on the wire
    UNCERTAIN = "uncertain"  # CMS may or may not have it: only from here may the same bytes be sent again
    ACCEPTED = "accepted"  # CMS gave a status URL, which is on disk: never POSTed again
    RESULT = "result"  # CMS decided; the answer is on disk
    APPLIED = "applied"  # its consequences are drawn: final
    NEEDS_REVIEW = "needs-review"  # a person has to look; a WorkItem says why


TRANSITIONS: dict[SubmissionState, frozenset[SubmissionState]] = {
    SubmissionState.BUILT: frozenset({SubmissionState.SENDING, SubmissionState.NEEDS_REVIEW}),
    SubmissionState.SENDING: frozenset(
        {
            SubmissionState.SENDING,
            SubmissionState.ACCEPTED,
            SubmissionState.UNCERTAIN,
            SubmissionState.RESULT,
            SubmissionState.NEEDS_REVIEW,
        }
    ),
    SubmissionState.UNCERTAIN: frozenset(
        {
            SubmissionState.UNCERTAIN,
            SubmissionState.ACCEPTED,
            SubmissionState.RESULT,
            SubmissionState.NEEDS_REVIEW,
        }
    ),
    # Never back to where a POST comes from: what CMS took is not sent again but by a person.
    SubmissionState.ACCEPTED: frozenset({SubmissionState.RESULT, SubmissionState.NEEDS_REVIEW}),
    SubmissionState.RESULT: frozenset({SubmissionState.APPLIED, SubmissionState.NEEDS_REVIEW}),
    SubmissionState.APPLIED: frozenset(),
    SubmissionState.NEEDS_REVIEW: frozenset({SubmissionState.BUILT, SubmissionState.APPLIED}),
}
FINAL = frozenset({SubmissionState.APPLIED, SubmissionState.NEEDS_REVIEW})


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission(Record):
    """One request to CMS. `request` is the exact body that is POSTed; it never changes after SENDING.

    `in_flight_key` (patient and track) is set from SENDING until the result is on disk: its unique index bars a
    second write for the same patient and track. `replay_key` makes the same request by the same caller find this one.
    """

    TABLE: ClassVar[Table] = Table(
        "submission",
        key=("id",),
        unique=(("participant_id", "in_flight_key"), ("participant_id", "replay_key")),
        indexes=(("participant_id", "patient_id"), ("state", "created_at")),
    )
    id: str  # ours; the front door's status URL ends in it
    operation: Operation
    patient_id: str
    track: str
    agent: str  # client id, or "schedule" for the facade's own reports
    created_at: datetime
    request_sha256: str
    report_id: str | None = None  # the Report this sends, if the facade built it
    report_type: str | None = None
    state: SubmissionState = SubmissionState.BUILT
    in_flight_key: str | None = None
    replay_key: str | None = None
    sent_at: datetime | None = None  # last POST
    posts: int = 0  # POSTs begun: counted before the first byte leaves
    answers: int = 0  # POSTs whose outcome is known; less than `posts` means that CMS may have it
    polls: int = 0
    accepted_at: datetime | None = None
    finished_at: datetime | None = None
    result_code: str | None = None
    result_status: int | None = None  # HTTP status under which `result` came
    late: bool = False  # passed notify_after_seconds: in the slow lane, someone was told
    content_location: bytes | None = sealed(default=None)  # CMS's status URL: CMS calls it sensitive
    result: bytes | None = sealed(default=None)  # CMS's answer, as received
    request: bytes = sealed()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionEvent(Record):
    """One transition, for the record. `detail` is ours and holds no PHI."""

    TABLE: ClassVar[Table] = Table("submission_event", key=("submission_id", "sequence"), append_only=True)
    submission_id: str
    sequence: int  # the submission's revision after the transition
    at: datetime
    state: SubmissionState
    detail: str
