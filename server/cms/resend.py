"""A person has looked at a stopped submission and sends it again."""

from server.cms.transitions import due, moved
from server.context import Context
from server.domain.errors import FacadeError
from server.domain.job import JobKind
from server.domain.submission import Submission, SubmissionState
from server.store.base import Changeset, Where
from server.work_items import closed


async def resent(submission_id: str, context: Context) -> Changeset:
    """NEEDS_REVIEW -> BUILT: the same bytes, from the start. Raises FacadeError in plain words."""
    found = await context.store.find(Submission, Where("id", "==", submission_id), limit=1)
    if not found:
        raise FacadeError(f"There is no submission {submission_id}.")
    submission = found[0]
    if submission.state is not SubmissionState.NEEDS_REVIEW:
        raise FacadeError(f"Submission {submission_id} is {submission.state}: only a stopped one is sent again.")
    now = context.clock.now()
    again = moved(
        submission,
        SubmissionState.BUILT,
        "sent again by hand",
        at=now,
        result=None,
        result_status=None,
        result_code=None,
        content_location=None,
        finished_at=None,
        late=False,
        posts=0,
        answers=0,
        polls=0,
    )
    told = await closed(
        context,
        participant_id=submission.participant_id,
        kind="submission",
        subject=f"submission/{submission.id}",
        at=now,
    )
    return again + due(submission, JobKind.SUBMIT, now) + Changeset(replace=told)
