"""From a built submission to CMS's 202: the intent is on disk before the first byte leaves.

Promises (docs/adr/0003): the bytes never change once sent; they are sent again only from UNCERTAIN; one write is in
flight per patient and track.
"""

from dataclasses import replace
from datetime import timedelta

from server.cms import token as tokens
from server.cms.client import Answer, NoAnswer, post, same_origin
from server.cms.policy import Verdict, of_post, retry_after_seconds
from server.cms.token import TokenRefused
from server.cms.transitions import due, first_poll, moved, retry_wait, review
from server.context import Context
from server.domain.errors import BadConfiguration, PeerUnavailable, Temporary
from server.domain.job import Job, JobKind
from server.domain.submission import Operation, Submission, SubmissionState
from server.settings import Participant
from server.store.base import Changeset, Where
from server.work_items import work_item

MAX_POSTS = 20  # of the same bytes, before a person is asked
BUSY_SECONDS = 2.0


async def submit(job: Job, context: Context) -> Changeset:
    """BUILT -> SENDING, once no other write for this patient and track is in flight."""
    submission = await context.store.get(Submission, participant_id=job.participant_id, id=job.key)
    if submission is None or submission.state is not SubmissionState.BUILT:
        return Changeset()
    key = None if submission.operation is Operation.CHECK_ELIGIBILITY else f"{submission.patient_id}|{submission.track}"
    if key and await _busy(submission, key, context):
        raise Temporary("another write for this patient and track is in flight", retry_after_seconds=BUSY_SECONDS)
    now = context.clock.now()
    intent = moved(submission, SubmissionState.SENDING, "intent written down", at=now, in_flight_key=key)
    return intent + due(submission, JobKind.SEND, now)


async def _busy(submission: Submission, key: str, context: Context) -> bool:
    conditions = (Where("participant_id", "==", submission.participant_id), Where("in_flight_key", "==", key))
    return await context.store.count(Submission, *conditions) > 0


async def send(job: Job, context: Context) -> Changeset:
    """SENDING or UNCERTAIN -> ACCEPTED, or another try of the same bytes, or a person's decision."""
    submission = await context.store.get(Submission, participant_id=job.participant_id, id=job.key)
    if submission is None or submission.state not in (SubmissionState.SENDING, SubmissionState.UNCERTAIN):
        return Changeset()
    if submission.posts >= MAX_POSTS:
        return await review(
            submission, f"CMS did not take it in {MAX_POSTS} tries. Check CMS, then resend it.", context
        )
    participant = context.settings.participant(submission.participant_id)
    try:
        token = await tokens.bearer(participant, context)
    except (TokenRefused, BadConfiguration) as refused:
        return await _no_credentials(submission, refused, context)
    submission = await _about_to_post(submission, context)
    answer = await post(participant, submission.operation, submission.request, token, context)
    if isinstance(answer, Answer) and of_post(answer.status) is Verdict.RENEW:
        submission = await _renewed(submission, participant, context)
        token = await tokens.bearer(participant, context)
        answer = await post(participant, submission.operation, submission.request, token, context)
    return await _after(submission, participant, answer, context)


async def _about_to_post(submission: Submission, context: Context) -> Submission:
    """Counts the POST before it begins. A count without an answer means: a crash came between, CMS may have it."""
    uncertain = submission.posts > submission.answers
    state = SubmissionState.UNCERTAIN if uncertain else submission.state
    detail = "sending the same bytes again: an earlier try may have arrived" if uncertain else "sending"
    now = context.clock.now()
    await context.store.commit(
        moved(submission, state, detail, at=now, posts=submission.posts + 1, answers=submission.posts, sent_at=now)
    )
    return replace(
        submission,
        state=state,
        posts=submission.posts + 1,
        answers=submission.posts,
        sent_at=now,
        revision=submission.revision + 1,
    )


async def _renewed(submission: Submission, participant: Participant, context: Context) -> Submission:
    """After a 401: the token is dropped and the answer is counted; the repeat is a POST of its own."""
    await tokens.forget(participant, context)
    return await _about_to_post(replace(submission, answers=submission.posts), context)


async def _after(
    submission: Submission, participant: Participant, answer: Answer | NoAnswer, context: Context
) -> Changeset:
    if isinstance(answer, NoAnswer):
        return _again(submission, answer.reason, None, context, known=not answer.sent)
    verdict = of_post(answer.status)
    if verdict is Verdict.ACCEPTED:
        return await _accepted(submission, participant, answer, context)
    wish = retry_after_seconds(answer.headers.get("Retry-After"), context.clock.now())
    if verdict is Verdict.REVIEW:
        why = f"CMS refused the request with {answer.status}. Read its answer, mend the request, send it again."
        return await review(
            submission, why, context, answers=submission.posts, result=answer.body, result_status=answer.status
        )
    if verdict in (Verdict.PAUSE, Verdict.RENEW):
        return await _no_credentials(submission, PeerUnavailable(f"CMS answered {answer.status}"), context)
    return _again(submission, f"CMS answered {answer.status}", wish, context, known=verdict is Verdict.LATER)


def _again(submission: Submission, why: str, wish: float | None, context: Context, *, known: bool) -> Changeset:
    """Tries the same bytes later. `known`: CMS surely does not have it; else the state is UNCERTAIN from now on."""
    state = submission.state if known else SubmissionState.UNCERTAIN
    now = context.clock.now()
    wait = retry_wait(submission.posts, wish)
    detail = f"{why}; again in {round(wait.total_seconds())} s"
    return moved(submission, state, detail, at=now, answers=submission.posts) + due(
        submission, JobKind.SEND, now + wait
    )


async def _accepted(submission: Submission, participant: Participant, answer: Answer, context: Context) -> Changeset:
    location = answer.headers.get("Content-Location")
    if not location:
        why = "CMS took the request but gave no status URL. The same bytes are sent again until it gives one."
        item = await _notice(submission, why, context)
        return _again(submission, "202 without Content-Location", None, context, known=False) + item
    if not same_origin(participant, location):
        why = "CMS named a status URL on another server. The token was not sent there. Ask CMS, then resend."
        return await review(submission, why, context, answers=submission.posts)
    now = context.clock.now()
    accepted = moved(
        submission,
        SubmissionState.ACCEPTED,
        "CMS has it",
        at=now,
        answers=submission.posts,
        accepted_at=now,
        content_location=location.encode(),
    )
    return accepted + due(submission, JobKind.POLL, now + first_poll(participant.cms.polling))


async def _no_credentials(submission: Submission, refused: Exception, context: Context) -> Changeset:
    """CMS does not let us in: someone has to see to the credentials; meanwhile it is tried every few minutes."""
    why = f"{refused}. Run `access-facade token check {submission.participant_id}` and mend the credentials."
    item = await _notice(submission, why, context, subject=f"credentials/{submission.participant_id}")
    now = context.clock.now()
    waiting = moved(submission, submission.state, "not let in by CMS", at=now, answers=submission.posts)
    return waiting + due(submission, JobKind.SEND, now + timedelta(seconds=300)) + item


async def _notice(submission: Submission, why: str, context: Context, subject: str | None = None) -> Changeset:
    items = await work_item(
        context,
        participant_id=submission.participant_id,
        kind="submission",
        subject=subject or f"submission/{submission.id}",
        text=why,
    )
    return Changeset(insert=items)
