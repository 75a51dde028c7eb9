"""From the status URL to CMS's result. A poll asks once; the next one is a row that is due later.

Source: ACCESS API IG 0.9.12, guidance (polling): first after 5-10 s, then every 10-30 s; after 5 minutes someone is
told and the submission goes on in a slow lane, never to a silent end.
"""

from datetime import timedelta

import msgspec

from server.cms import token as tokens
from server.cms.client import Answer, NoAnswer, status
from server.cms.policy import Verdict, of_poll, retry_after_seconds
from server.cms.transitions import due, moved, next_poll, retry_wait, review
from server.context import Context
from server.domain.errors import BadConfiguration, FacadeError, PeerUnavailable
from server.domain.job import Job, JobKind
from server.domain.submission import Submission, SubmissionState
from server.settings import Participant
from server.store.base import Changeset
from server.work_items import work_item

UNREADABLE_TRIES = 3


async def poll(job: Job, context: Context) -> Changeset:
    """ACCEPTED -> RESULT, or the next poll."""
    submission = await context.store.get(Submission, participant_id=job.participant_id, id=job.key)
    if submission is None or submission.state is not SubmissionState.ACCEPTED or submission.content_location is None:
        return Changeset()
    participant = context.settings.participant(submission.participant_id)
    try:
        answer = await _ask(participant, submission.content_location.decode(), context)
    except (PeerUnavailable, BadConfiguration) as failure:
        return await _wait(submission, participant, context, detail=str(failure))
    if isinstance(answer, NoAnswer):
        return await _wait(submission, participant, context, detail=answer.reason)
    return await _read(submission, participant, answer, context)


async def _ask(participant: Participant, url: str, context: Context) -> Answer | NoAnswer:
    answer = await status(participant, url, await tokens.bearer(participant, context), context)
    if isinstance(answer, Answer) and of_poll(answer.status) is Verdict.RENEW:
        await tokens.forget(participant, context)
        answer = await status(participant, url, await tokens.bearer(participant, context), context)
    return answer


async def _read(submission: Submission, participant: Participant, answer: Answer, context: Context) -> Changeset:
    verdict = of_poll(answer.status)
    if verdict is Verdict.RESULT:
        return await _result(submission, participant, answer, context)
    if verdict is Verdict.REVIEW:
        why = f"CMS answered {answer.status} when asked for the result. Look it up at CMS, then resend or close it."
        return await review(submission, why, context, result=answer.body, result_status=answer.status)
    if verdict in (Verdict.PAUSE, Verdict.RENEW):
        return await _wait(submission, participant, context, detail=f"CMS answered {answer.status}", wish=300.0)
    wish = retry_after_seconds(answer.headers.get("Retry-After"), context.clock.now())
    return await _wait(submission, participant, context, detail=f"CMS answered {answer.status}", wish=wish)


async def _result(submission: Submission, participant: Participant, answer: Answer, context: Context) -> Changeset:
    now = context.clock.now()
    if _kind(answer.body) not in ("Parameters", "OperationOutcome") and submission.polls < UNREADABLE_TRIES:
        return await _wait(submission, participant, context, detail="an answer that is not FHIR")
    decided = moved(
        submission,
        SubmissionState.RESULT,
        f"CMS decided ({answer.status})",
        at=now,
        polls=submission.polls + 1,
        result=answer.body,
        result_status=answer.status,
    )
    return decided + due(submission, JobKind.APPLY, now)


def _kind(body: bytes) -> str | None:
    try:
        content = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return content.get("resourceType") if isinstance(content, dict) else None


async def _wait(
    submission: Submission, participant: Participant, context: Context, *, detail: str, wish: float | None = None
) -> Changeset:
    """The next poll, and past the agreed time a notice to a person, once."""
    now = context.clock.now()
    polling = participant.cms.polling
    if submission.accepted_at is None:
        raise FacadeError(f"submission {submission.id} is polled but was never accepted")
    late = now - submission.accepted_at >= timedelta(seconds=polling.notify_after_seconds)
    told = Changeset()
    if late and not submission.late:
        minutes = round(polling.notify_after_seconds / 60)
        told = await _tell(
            submission, f"CMS has not answered for {minutes} minutes. It is still asked, less often.", context
        )
    wait = retry_wait(1, wish) if wish is not None else next_poll(polling, submission.polls, late=late)
    waiting = moved(submission, SubmissionState.ACCEPTED, detail, at=now, polls=submission.polls + 1, late=late)
    return waiting + due(submission, JobKind.POLL, now + wait) + told


async def _tell(submission: Submission, text: str, context: Context) -> Changeset:
    items = await work_item(
        context,
        participant_id=submission.participant_id,
        kind="late",
        subject=f"submission/{submission.id}",
        text=text,
        patient_id=submission.patient_id,
    )
    return Changeset(insert=items)
