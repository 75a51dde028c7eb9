"""From a built submission to CMS's 202: the intent is on disk before the first byte leaves.

Promises (docs/adr/0003): the bytes never change once sent; they are sent again only from UNCERTAIN; one write is in
flight per patient and track.
"""

from dataclasses import replace

from server.clock import machine_now
from server.cms import gate
from server.cms import token as tokens
from server.cms.client import post, same_origin, status_url
from server.cms.policy import Verdict, is_overload, of_post
from server.cms.results import is_answer
from server.cms.transitions import due, first_poll, moved, retry_wait, review
from server.cms.transport import TOO_LATE, Answer, NoAnswer
from server.context import Context
from server.domain.errors import Deferred
from server.domain.job import Job, JobKind
from server.domain.submission import Operation, Submission, SubmissionState
from server.settings import Participant
from server.store.base import Changeset, Where
from server.work_items import work_item

# How often the same bytes are POSTed before a person is asked: where CMS surely does not have them (it is down, or
# wants us to wait: about a working day), and where it may.
MAX_POSTS = {SubmissionState.SENDING: 100, SubmissionState.UNCERTAIN: 20}
RECONCILE_POSTS = 5  # where CMS says that it has them, but gives no status URL
NOT_LET_IN = {
    Verdict.RENEW: "It does not take its own new tokens, so all submissions wait. Ask CMS about participant {}.",
    Verdict.PAUSE: "All submissions wait. Ask CMS for the scope, or run `access-facade token check {}`.",
    Verdict.MISDIRECTED: "These submissions wait. Compare [participant.cms] base_url of {} with the registration.",
}
BUSY_SECONDS, BUSY_LONGEST = 2.0, 30.0  # between two looks whether the write before this one has its result


async def submit(job: Job, context: Context) -> Changeset:
    """BUILT -> SENDING, once no other write for this patient and track is in flight."""
    submission = await context.store.get(Submission, participant_id=job.participant_id, id=job.key)
    if submission is None or submission.state is not SubmissionState.BUILT:
        return Changeset()
    key = None if submission.operation is Operation.CHECK_ELIGIBILITY else f"{submission.patient_id}|{submission.track}"
    if key and await _busy(submission, key, context):
        wait = min(BUSY_SECONDS * 1.5 ** min(job.attempts - 1, 20), BUSY_LONGEST)
        raise Deferred("another write for this patient and track is in flight", retry_after_seconds=wait)
    now = context.clock.now()
    intent = moved(submission, SubmissionState.SENDING, "intent written down", at=now, in_flight_key=key)
    return intent + due(submission, JobKind.SEND, now)


async def _busy(submission: Submission, key: str, context: Context) -> bool:
    conditions = (Where("participant_id", "==", submission.participant_id), Where("in_flight_key", "==", key))
    return await context.store.count(Submission, *conditions) > 0


async def send(job: Job, context: Context) -> Changeset:
    """SENDING or UNCERTAIN -> ACCEPTED, or another try of the same bytes, or a person's decision."""
    submission = await context.store.get(Submission, participant_id=job.participant_id, id=job.key)
    if submission is None or submission.state not in MAX_POSTS:
        return Changeset()
    if submission.posts >= MAX_POSTS[submission.state]:
        why = f"CMS did not take it in {submission.posts} tries. Check CMS, then resend it."
        return await review(submission, why, context)
    participant = context.settings.participant(submission.participant_id)
    token = await tokens.bearer(participant, context, fresh=participant.cms.fresh_per_submission)
    for name in (gate.POSTS, submission.operation):
        await gate.enter(participant, name, context, waited=job.attempts > 1)
    _within_lease(job, participant)
    submission = await _about_to_post(submission, context)
    answer = await _posted(submission, participant, token, job, context)
    if isinstance(answer, Answer) and of_post(answer.status) is Verdict.RENEW:
        await tokens.forget(participant, token, context)
        # The answer is counted; the repeat is a POST of its own.
        submission = await _about_to_post(replace(submission, answers=submission.posts), context)
        token = await tokens.bearer(participant, context)
        answer = await _posted(submission, participant, token, job, context)
    await _at_the_gates(participant, submission.operation, answer, context)
    return await _after(submission, participant, answer, context)


async def _posted(
    submission: Submission, participant: Participant, token: str, job: Job, context: Context
) -> Answer | NoAnswer:
    _within_lease(job, participant)
    return await post(
        participant,
        submission.operation,
        submission.request,
        token=token,
        context=context,
        not_after=job.leased_until,
    )


def _within_lease(job: Job, participant: Participant) -> None:
    """Right before a POST: it must end before another worker may take the job. Raises Deferred, for a new lease."""
    if job.leased_until is not None:
        left = (job.leased_until - machine_now()).total_seconds()
        if left < participant.cms.timeout_seconds:
            raise Deferred("the lease is nearly over", retry_after_seconds=0.1)


async def _at_the_gates(
    participant: Participant, operation: Operation, answer: Answer | NoAnswer, context: Context
) -> None:
    """What the answer says about CMS itself, for all who want to call."""
    if isinstance(answer, NoAnswer) and answer.reason == TOO_LATE:
        return  # we were stopped: that says nothing about CMS
    if isinstance(answer, NoAnswer):
        why = f"CMS did not answer ${operation} ({answer.reason}). Submissions wait and go by themselves when it does."
        await gate.trouble(participant, operation, context, why=why)
        return
    verdict = of_post(answer.status)
    if verdict in NOT_LET_IN:
        name = operation if verdict is Verdict.MISDIRECTED else gate.POSTS
        why = f"CMS answered {answer.status} to ${operation}. {NOT_LET_IN[verdict].format(participant.entity_id)}"
        await gate.trouble(participant, name, context, why=why, wish=participant.cms.pause_seconds, trip=True)
    elif is_overload(answer.status):
        why = f"CMS answered {answer.status} to ${operation}. Submissions wait and go by themselves when it recovers."
        wish = answer.retry_after(context.clock.now())
        await gate.trouble(participant, operation, context, why=why, wish=wish, trip=answer.status == 429)
    else:
        for name in (gate.POSTS, operation):
            await gate.passed(participant, name, context)


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


async def _after(
    submission: Submission, participant: Participant, answer: Answer | NoAnswer, context: Context
) -> Changeset:
    if isinstance(answer, NoAnswer):
        return _again(submission, answer.reason, None, context, known=not answer.sent)
    verdict = of_post(answer.status)
    said = f"CMS answered {answer.status}"
    if verdict is Verdict.ACCEPTED:
        return await _accepted(submission, participant, answer, context)
    if verdict is Verdict.REVIEW or (verdict is Verdict.RECONCILE and submission.posts >= RECONCILE_POSTS):
        if answer.status >= 400 and is_answer(answer.body):
            return _refused(submission, answer, context)
        why = f"{said} to the request. Read its answer, mend the request or look it up at CMS, then send it again."
        return await review(submission, why, context, answers=submission.posts)
    if verdict in NOT_LET_IN:
        return _again(submission, said, participant.cms.pause_seconds, context, known=True)
    wish = answer.retry_after(context.clock.now())
    return _again(submission, said, wish, context, known=verdict is Verdict.LATER)


def _refused(submission: Submission, answer: Answer, context: Context) -> Changeset:
    """CMS decided, against the request: what follows from that, and who is told, is the next step's."""
    now = context.clock.now()
    decided = moved(
        submission,
        SubmissionState.RESULT,
        f"CMS refused it ({answer.status})",
        at=now,
        answers=submission.posts,
        result=answer.body,
        result_status=answer.status,
    )
    return decided + due(submission, JobKind.APPLY, now)


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
    location = status_url(participant, submission.operation, answer)
    if location is None:
        return await _without_url(submission, context)
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


async def _without_url(submission: Submission, context: Context) -> Changeset:
    """CMS said that it took the request, but there is no way to ask for the result."""
    if submission.posts >= RECONCILE_POSTS:
        why = "CMS took the request several times and never gave a status URL. Ask CMS, then resend."
        return await review(submission, why, context, answers=submission.posts)
    items = await work_item(
        context,
        participant_id=submission.participant_id,
        kind="submission",
        subject=f"submission/{submission.id}",
        text="CMS took the request but gave no status URL. The same bytes are sent again until it gives one.",
        patient_id=submission.patient_id,
    )
    again = _again(submission, "202 without Content-Location", None, context, known=False)
    return again + Changeset(insert=items)
