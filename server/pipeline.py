"""The order of things: which step does which kind of job. Read this first.

    door -> accept (store raw, map, validate) -> ASSESS -> SUBMIT -> SEND -> POLL -> APPLY
    APPLY -> ASSESS, CARE_UPDATE -> DELIVER; APPLY -> DELIVER (the result, to a client that subscribed to it)
    clock -> OPEN_WINDOW, REMIND, CLOSE_WINDOW -> ASSESS
    mailbox -> CmsNotification -> ASSESS

A step gets a job and returns one Changeset; the worker commits it together with the end of the job. No step calls
another: it enqueues the next kind.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from server import schedule
from server.cms import reconcile, results
from server.cms.poll import poll
from server.cms.submit import send, submit
from server.cms.transitions import moved, review
from server.context import Context, Step
from server.coordination.deliver import deliver, handshake
from server.coordination.results import result_told
from server.coordination.update import care_update
from server.domain.job import Job, JobKind
from server.domain.submission import Operation, Submission, SubmissionState
from server.intake.email import read_mailbox
from server.intake.recover import map_received, recover
from server.store.base import Changeset

Consequence = Callable[[Submission, str, Context], Awaitable[Changeset]]

# What follows from a result, by operation.
CONSEQUENCES: dict[Operation, Consequence] = {
    Operation.CHECK_ELIGIBILITY: schedule.eligibility_result,
    Operation.ALIGN: schedule.alignment_result,
    Operation.UNALIGN: schedule.unalignment_result,
    Operation.REPORT_DATA: schedule.report_result,
}


async def apply(job: Job, context: Context) -> Changeset:
    """RESULT -> APPLIED, with the consequences of CMS's decision; what can not be read or decided goes to a person."""
    submission = await context.store.get(Submission, participant_id=job.participant_id, id=job.key)
    if submission is None or submission.state is not SubmissionState.RESULT or submission.result is None:
        return Changeset()
    code = results.result_code(submission.result) if submission.result_status == 200 else None
    if code is None:
        when = "the request" if submission.accepted_at is None else "the submission after it took it"
        why = f"CMS refused {when} ({submission.result_status}). Read its answer, mend what it names, send a new one."
        return await review(submission, why, context) + await result_told(submission, context)
    meant = await reconcile.meant(submission, code, context)
    if meant is None:
        doubted = await review(submission, _doubt(submission, code), context, result_code=code)
        return doubted + await result_told(submission, context)
    now = context.clock.now()
    keep_replay = submission.operation is not Operation.CHECK_ELIGIBILITY
    applied = moved(
        submission,
        SubmissionState.APPLIED,
        code if meant == code else f"{code}, because the first try had been taken: {meant}",
        at=now,
        finished_at=now,
        result_code=code,
        replay_key=submission.replay_key if keep_replay else None,
    )
    applied += await result_told(submission, context)
    consequence = CONSEQUENCES[submission.operation]
    return applied + await consequence(replace(submission, result_code=code, finished_at=now), meant, context)


def _doubt(submission: Submission, code: str) -> str:
    """Why a person has to decide on a result that can be read."""
    if code in results.codes(submission.operation):
        return (
            f"CMS answered {code}, but an earlier try of this request may have done it. Look for CMS's e-mail or ask "
            "CMS whether the patient is aligned to you before anything is sent again."
        )
    return f"CMS answered {code[:64]}, which this version does not know. {results.UNKNOWN.next}"


STEPS: dict[JobKind, Step] = {
    JobKind.MAP: map_received,
    JobKind.ASSESS: schedule.assess,
    JobKind.SUBMIT: submit,
    JobKind.SEND: send,
    JobKind.POLL: poll,
    JobKind.APPLY: apply,
    JobKind.OPEN_WINDOW: schedule.open_window,
    JobKind.REMIND: schedule.remind,
    JobKind.CLOSE_WINDOW: schedule.close_window,
    JobKind.CARE_UPDATE: care_update,
    JobKind.HANDSHAKE: handshake,
    JobKind.DELIVER: deliver,
    JobKind.MAILBOX: read_mailbox,
    JobKind.RECOVER: recover,
}
