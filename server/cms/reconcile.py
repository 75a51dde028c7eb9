"""What a result code means when an earlier POST of the same bytes may have taken effect.

CMS has no idempotency key, so its answer to the repeat is read by the operation's own means. Source: ACCESS API IG
0.9.12, result code systems; `duplicate` of a report needs nothing here, it says itself that CMS has the report.
"""

from datetime import timedelta

from server.cms import results
from server.context import Context
from server.domain.submission import Operation, Submission, SubmissionEvent, SubmissionState
from server.store.base import Where

# The answer to the repeat that may be the echo of our own first try, and what the first try then did.
ECHOES: dict[tuple[Operation, str], str] = {
    (Operation.ALIGN, "not-aligned-already-aligned"): "aligned",
    (Operation.UNALIGN, "patient-not-aligned"): "unaligned",
}
FREE = frozenset({"eligible", "eligible-pending-diagnosis"})  # CMS said that nobody had the patient aligned
RECENT = timedelta(days=1)  # an eligibility answer older than this does not show that the alignment is ours


async def meant(submission: Submission, code: str, context: Context) -> str | None:
    """The code to act on: the one given, or what the first try did; None if a person has to find out.

    An unalignment is safe to believe: either way the patient is not aligned. For an alignment a `$check-eligibility`
    of ours shortly before has to show that the patient was free; one made now would not tell who has the patient.
    """
    if code not in results.codes(submission.operation):
        return None
    echoed = ECHOES.get((submission.operation, code))
    if echoed is None or not await _may_be_an_echo(submission, context):
        return code
    if submission.operation is Operation.UNALIGN or await _was_free(submission, context):
        return echoed
    return None


async def _may_be_an_echo(submission: Submission, context: Context) -> bool:
    """Whether CMS may have had these bytes before: once UNCERTAIN, or sent again by hand after it had taken them."""
    events = await context.store.find(SubmissionEvent, Where("submission_id", "==", submission.id), order_by="sequence")
    states = [event.state for event in events]
    resent = len(states) - states[::-1].index(SubmissionState.BUILT) if SubmissionState.BUILT in states else 0
    return SubmissionState.UNCERTAIN in states or SubmissionState.ACCEPTED in states[:resent]


async def _was_free(submission: Submission, context: Context) -> bool:
    """Whether CMS's last eligibility answer before this submission, within a day, was that the patient is free."""
    conditions = (
        Where("participant_id", "==", submission.participant_id),
        Where("patient_id", "==", submission.patient_id),
    )
    asked = [
        row
        for row in await context.store.find(Submission, *conditions)
        if row.operation is Operation.CHECK_ELIGIBILITY
        and row.track == submission.track
        and row.finished_at is not None
        and submission.created_at - RECENT <= row.finished_at <= submission.created_at
    ]
    latest = max(asked, key=lambda row: row.finished_at or row.created_at, default=None)
    return latest is not None and latest.result_code in FREE
