"""From the status URL to CMS's result. A poll asks once; the next one is the same job, due later.

An answer that changes nothing writes nothing but the job's due time: the claims of the job count the polls.
Source: ACCESS API IG 0.9.12, guidance (polling): first after 5-10 s, then every 10-30 s; after 5 minutes someone is
told and the submission goes on in a slow lane, never to a silent end. Whatever CMS answers here, nothing is POSTed.
"""

from datetime import timedelta

from server.cms import gate
from server.cms import token as tokens
from server.cms.client import status
from server.cms.policy import Verdict, of_poll
from server.cms.results import is_answer
from server.cms.transitions import due, moved, next_poll, repeated, retry_wait, review
from server.cms.transport import TOO_LONG, Answer, NoAnswer
from server.context import Context
from server.domain.errors import Deferred, FacadeError, Temporary
from server.domain.job import Job, JobKind
from server.domain.submission import Operation, Submission, SubmissionState
from server.settings import Participant
from server.store.base import Changeset
from server.work_items import work_item

# Answers that may be a passing fault: the event that each leaves, and how many in a row are one too many.
UNREADABLE = "CMS decided, but its answer can not be read"
GONE = "CMS does not know the status URL"
TRIES = 3
# CMS took it and can not say what became of it: how a person finds out, by operation.
FIND_OUT: dict[Operation, str] = {
    Operation.CHECK_ELIGIBILITY: "It changed nothing at CMS: ask again (resend it).",
    Operation.ALIGN: (
        "Look whether the patient is aligned to you: in CMS's e-mails, the Beneficiary Alignment Report, or by "
        "$check-eligibility. Resend it only if not."
    ),
    Operation.UNALIGN: (
        "Look whether the patient is still aligned to you: in CMS's e-mails, the Beneficiary Alignment Report, or by "
        "$check-eligibility. Resend it only if so."
    ),
    Operation.REPORT_DATA: "Ask CMS, or resend it: CMS answers duplicate if it has the report.",
}


async def poll(job: Job, context: Context) -> Changeset:
    """ACCEPTED -> RESULT, or the next poll."""
    submission = await context.store.get(Submission, participant_id=job.participant_id, id=job.key)
    if submission is None or submission.state is not SubmissionState.ACCEPTED or submission.content_location is None:
        return Changeset()
    participant = context.settings.participant(submission.participant_id)
    asked = _Poll(submission, participant, job, context)
    try:
        answer = await asked.ask(submission.content_location.decode())
    except Temporary as failure:  # no token, or polls are paused
        return await asked.later(failure.retry_after_seconds)
    return await asked.read(answer)


class _Poll:
    """One poll of one submission."""

    def __init__(self, submission: Submission, participant: Participant, job: Job, context: Context) -> None:
        self._submission, self._participant, self._context = submission, participant, context
        self._polls = submission.polls + job.attempts
        self._on_trial = False

    async def ask(self, url: str) -> Answer | NoAnswer:
        """Through the gate of the polls; a 401 is repeated once with a new token."""
        participant, context = self._participant, self._context
        self._on_trial = await gate.enter_often(participant, gate.STATUS, context)
        token = await tokens.bearer(participant, context)
        answer = await status(participant, url, token, context)
        if isinstance(answer, Answer) and of_poll(answer.status) is Verdict.RENEW:
            await tokens.forget(participant, token, context)
            answer = await status(participant, url, await tokens.bearer(participant, context), context)
        return answer

    async def read(self, answer: Answer | NoAnswer) -> Changeset:
        """What the answer means for the submission, and for all polls of the participant."""
        if isinstance(answer, NoAnswer):
            return await self.later()
        verdict = of_poll(answer.status)
        if verdict in (Verdict.PAUSE, Verdict.RENEW):  # the second 401 in a row
            return await self._paused(answer)
        if self._on_trial:
            await gate.passed(self._participant, gate.STATUS, self._context)
        if verdict is Verdict.GONE:
            return await self._gone(answer)
        if verdict is Verdict.RESULT and answer.fault in ("", TOO_LONG):
            return await self._result(answer)
        return await self.later(answer.retry_after(self._context.clock.now()))

    async def later(self, wish: float | None = None) -> Changeset:
        """The next poll, never sooner than the schedule says. Past the agreed time a notice to a person, once."""
        submission, context = self._submission, self._context
        polling = self._participant.cms.polling
        if submission.accepted_at is None:
            raise FacadeError(f"submission {submission.id} is polled but was never accepted")
        now = context.clock.now()
        late = now - submission.accepted_at >= timedelta(seconds=polling.notify_after_seconds)
        wait = next_poll(polling, self._polls - 1, late=late)
        if wish is not None:
            wait = max(wait, retry_wait(1, wish))
        if not late or submission.late:
            raise Deferred("not yet", retry_after_seconds=wait.total_seconds())
        minutes = round(polling.notify_after_seconds / 60)
        text = f"CMS has not answered for {minutes} minutes. It is still asked, less often."
        waiting = self._moved(SubmissionState.ACCEPTED, "late: still asked, less often", late=True)
        return waiting + due(submission, JobKind.POLL, now + wait) + await self._told("late", text)

    async def _result(self, answer: Answer) -> Changeset:
        """CMS decided, for or against; an answer that stays unreadable is for a person."""
        if not is_answer(answer.body):
            return await self._doubtful(UNREADABLE) or await self._review(
                f"CMS's result came {TRIES} times and could not be read."
            )
        decided = self._moved(
            SubmissionState.RESULT,
            f"CMS decided ({answer.status})",
            result=answer.body,
            result_status=answer.status,
        )
        return decided + due(self._submission, JobKind.APPLY, self._context.clock.now())

    async def _gone(self, answer: Answer) -> Changeset:
        """The URL is asked again, in case CMS only misplaced it; then a person finds out: CMS had taken it."""
        lost = f"CMS took it and does not know its own status URL ({answer.status}, {TRIES} times)."
        return await self._doubtful(GONE) or await self._review(lost)

    async def _doubtful(self, detail: str) -> Changeset | None:
        """The event and the next poll; None when this was one too many."""
        submission, now = self._submission, self._context.clock.now()
        if await repeated(submission, detail, self._context) >= TRIES - 1:
            return None
        wait = next_poll(self._participant.cms.polling, self._polls - 1, late=submission.late)
        return self._moved(SubmissionState.ACCEPTED, detail) + due(submission, JobKind.POLL, now + wait)

    async def _paused(self, answer: Answer) -> Changeset:
        entity_id, pause = self._participant.entity_id, self._participant.cms.pause_seconds
        why = (
            f"CMS answered {answer.status} when asked for results. All polls wait. Ask CMS for the scope, "
            f"or run `access-facade token check {entity_id}`."
        )
        await gate.trouble(self._participant, gate.STATUS, self._context, why=why, wish=pause, trip=True)
        return await self.later(pause)

    async def _review(self, why: str) -> Changeset:
        find_out = FIND_OUT[self._submission.operation]
        return await review(self._submission, f"{why} {find_out}", self._context, polls=self._polls)

    def _moved(self, state: SubmissionState, detail: str, **columns: object) -> Changeset:
        now = self._context.clock.now()
        return moved(self._submission, state, detail, at=now, polls=self._polls, **columns)

    async def _told(self, kind: str, text: str) -> Changeset:
        items = await work_item(
            self._context,
            participant_id=self._submission.participant_id,
            kind=kind,
            subject=f"submission/{self._submission.id}",
            text=text,
            patient_id=self._submission.patient_id,
        )
        return Changeset(insert=items)
