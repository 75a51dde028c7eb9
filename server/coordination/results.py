"""Tells the client that sent a request to CMS of the result, if it has subscribed to it: no more need to poll.

Topic `{base}/SubscriptionTopic/submission-result`; the focus is the status address of the front door.
Source: Subscriptions R5 Backport IG 1.1.0; the topic is ours.
"""

from dataclasses import replace
from hashlib import sha256

from server.context import Context
from server.coordination.subscriber import OF_SUBMISSION, Subscriber, of_participant
from server.domain.coordination import Delivery
from server.domain.job import JobKind, NewJob
from server.domain.submission import Submission
from server.intake.subscription import SUBMISSION_RESULT, wants
from server.store.base import Changeset


async def result_told(submission: Submission, context: Context) -> Changeset:
    """An event for each subscriber to results that sent this request itself, or is the participant's operator."""
    subscribers = await of_participant(context, submission.participant_id, SUBMISSION_RESULT)
    changes = Changeset()
    for each in subscribers:
        if _is_of(submission, each, context) and wants(each.resource, submission.patient_id):
            changes += _event(submission, each, context)
    return changes


def _is_of(submission: Submission, subscriber: Subscriber, context: Context) -> bool:
    client = context.settings.clients.get(subscriber.status.client_id)
    return client is not None and (client.client_id == submission.agent or client.role == "operator")


def _event(submission: Submission, subscriber: Subscriber, context: Context) -> Changeset:
    status, now = replace(subscriber.status, events=subscriber.status.events + 1), context.clock.now()
    delivery = Delivery(
        participant_id=submission.participant_id,
        id=sha256(f"Delivery {submission.id} {submission.revision} {status.subscription_id}".encode()).hexdigest()[:32],
        subscription_id=status.subscription_id,
        event_number=status.events,
        care_update_id=f"{OF_SUBMISSION}{submission.id}",
        patient_id=submission.patient_id,
        created_at=now,
    )
    job = NewJob(participant_id=submission.participant_id, kind=JobKind.DELIVER, key=delivery.id, due_at=now)
    jobs = (job,) if status.status == "active" else ()  # the others get theirs when their handshake succeeds
    return Changeset(insert=(delivery,), replace=(status,), jobs=jobs)
