"""Handing notifications to subscribers: one attempt a job, each with its proof, until confirmed or given up.

Promises: an event is sent until its receiver confirms it, or a person is told that it was not; a repeat is the same
bytes with the same event number; a dead subscriber costs one attempt at a time, whatever waits for it.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256

from server.audit import record
from server.context import Context
from server.coordination import notification, resthook
from server.coordination.channel import Answer, Outgoing, Sender, Verdict
from server.coordination.subscriber import OF_SUBMISSION, Subscriber, event_of, load, moved
from server.domain.audit import AuditEntry
from server.domain.coordination import Delivery, DeliveryState
from server.domain.errors import PeerUnavailable
from server.domain.job import Job, JobKind, NewJob
from server.intake.resources import instant
from server.intake.subscription import headers, may_receive, timeout_seconds
from server.store.base import Changeset, Where
from server.work_items import closed, work_item

SENDERS: dict[str, Sender] = {"rest-hook": resthook.send}

TIMEOUT_SECONDS = 10.0
FIRST_DELAY_SECONDS = 5.0
LONGEST_DELAY_SECONDS = 7200.0
MAX_ATTEMPTS = 26  # with the delays above: given up after about a day
MAX_REFUSALS = 3  # attempts that a receiver may refuse (4xx, redirects, our own guard) before it is left alone
MAX_HANDSHAKES = 5

_JITTER = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to deliver: what was sent, what came back, and when."""

    subscriber: Subscriber
    delivery: Delivery
    body_sha256: str
    answer: Answer
    at: datetime


def delay_seconds(attempts: int, *, asked: float = 0.0, jitter: Callable[[], float] = _JITTER.random) -> float:
    """How long to wait after so many attempts: doubling, capped, half of it random; not less than the peer asked."""
    whole = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * float(1 << min(attempts - 1, 20)))
    return max(whole / 2 + whole / 2 * jitter(), min(asked, LONGEST_DELAY_SECONDS))


async def handshake(job: Job, context: Context) -> Changeset:
    """Asks the endpoint of a requested Subscription to confirm: then it is active and gets what waited, else error.

    Raises: PeerUnavailable while the endpoint may still come up.
    """
    subscriber = await load(context, job.participant_id, job.key)
    if subscriber is None or subscriber.status.status != "requested":
        return Changeset()
    at = context.clock.now()
    body = notification.handshake(subscriber.status, fhir_base=f"{context.settings.base_url}/fhir", at=at)
    answer = await _send(subscriber, body, context)
    if answer.verdict is Verdict.AGAIN and job.attempts < MAX_HANDSHAKES:
        wait = delay_seconds(job.attempts, asked=answer.retry_after_seconds)
        raise PeerUnavailable(f"Subscription/{job.key}: {_said(answer)}", retry_after_seconds=wait)
    audit = _audited(subscriber, answer, subtype="handshake", at=at)
    if answer.verdict is Verdict.DELIVERED:
        return Changeset(audit=(audit,)) + await _activated(subscriber, at, context)
    return Changeset(audit=(audit,)) + await _failed(subscriber, answer, at, context)


async def deliver(job: Job, context: Context) -> Changeset:
    """One attempt to hand one event to one subscriber. `job.key` is the Delivery's id.

    A subscription in error is left alone until its client asks for it again: its deliveries stay pending.
    """
    delivery = await context.store.get(Delivery, id=job.key)
    if delivery is None or delivery.state is not DeliveryState.PENDING:
        return Changeset()
    at = context.clock.now()
    subscriber = await load(context, delivery.participant_id, delivery.subscription_id)
    if subscriber is None or subscriber.status.status == "off" or _ended(subscriber, at):
        return await _abandoned(delivery, "The subscription ended before this update was delivered.", context)
    if subscriber.status.status != "active":
        return Changeset()
    ahead = await _failing_ahead(delivery, context)
    if ahead is not None:
        return Changeset(jobs=_jobs([ahead, delivery], at + timedelta(seconds=delay_seconds(ahead.attempts))))
    happened = await event_of(context, delivery, subscriber.status.content)
    if happened is None:
        return await _abandoned(delivery, "What this delivery tells of is not stored any more.", context)
    body = notification.event(subscriber.status, happened, fhir_base=f"{context.settings.base_url}/fhir")
    answer = await _send(subscriber, body, context)
    return await _outcome(Attempt(subscriber, delivery, sha256(body).hexdigest(), answer, at), context)


async def _send(subscriber: Subscriber, body: bytes, context: Context) -> Answer:
    """By the Subscription's channel, if its client may still be told."""
    status, channel = subscriber.status, subscriber.resource["channel"]
    if not may_receive(context.settings, status.client_id, status.participant_id, status.topic):
        return Answer(verdict=Verdict.REFUSED, problem="The subscriber's client is no longer allowed to read updates.")
    outgoing = Outgoing(
        endpoint=channel["endpoint"],
        headers=headers(status),
        content_type=channel["payload"],
        body=body,
        timeout_seconds=timeout_seconds(subscriber.resource, TIMEOUT_SECONDS),
    )
    return await SENDERS[channel["type"]](outgoing, context)


async def _outcome(attempt: Attempt, context: Context) -> Changeset:
    answer, delivery = attempt.answer, attempt.delivery
    if answer.verdict is Verdict.DELIVERED:
        subject = f"delivery/{delivery.id}"
        done = await closed(
            context, participant_id=delivery.participant_id, kind="delivery", subject=subject, at=attempt.at
        )
        woken = await _woken(attempt, context)
        return _recorded(attempt, DeliveryState.DELIVERED) + Changeset(replace=done, jobs=woken)
    limit = {Verdict.AGAIN: MAX_ATTEMPTS, Verdict.REFUSED: MAX_REFUSALS, Verdict.GONE: 0}[answer.verdict]
    if delivery.attempts + 1 < limit:
        wait = delay_seconds(delivery.attempts + 1, asked=answer.retry_after_seconds)
        again = Changeset(jobs=(_job(delivery, attempt.at + timedelta(seconds=wait)),))
        return _recorded(attempt, DeliveryState.PENDING) + again
    text = f"{_what(delivery)} could not be delivered ({_said(answer)}). Reach the receiver by another channel."
    items = await work_item(
        context,
        participant_id=delivery.participant_id,
        kind="delivery",
        subject=f"delivery/{delivery.id}",
        text=text,
        patient_id=delivery.patient_id,
    )
    given_up = await _failed(attempt.subscriber, answer, attempt.at, context)
    return _recorded(attempt, DeliveryState.FAILED) + Changeset(insert=items) + given_up


async def _woken(attempt: Attempt, context: Context) -> tuple[NewJob, ...]:
    """After a time of failures: what waited behind this delivery is due now."""
    if not attempt.delivery.attempts:
        return ()
    waiting = await _unconfirmed(attempt.subscriber, context, DeliveryState.PENDING)
    return _jobs([each for each in waiting if each.id != attempt.delivery.id], attempt.at)


def _recorded(attempt: Attempt, state: DeliveryState) -> Changeset:
    """The delivery after an attempt, with the proof, and the audit entry of the attempt."""
    answer, delivered = attempt.answer, state is DeliveryState.DELIVERED
    proof = {
        "at": instant(attempt.at),
        "status": answer.status,
        "headers": answer.headers,
        "body": answer.body.decode("utf-8", "replace"),
        "problem": answer.problem,
        "sent_sha256": attempt.body_sha256,
    }
    delivery = replace(
        attempt.delivery,
        state=state,
        attempts=attempt.delivery.attempts + 1,
        delivered_at=attempt.at if delivered else None,
        status=answer.status,
        body_sha256=attempt.body_sha256 if delivered else None,
        proof=json.dumps(proof).encode(),
    )
    entry = _audited(
        attempt.subscriber, answer, subtype="deliver", at=attempt.at, patient_id=attempt.delivery.patient_id
    )
    return Changeset(replace=(delivery,), audit=(entry,))


async def _activated(subscriber: Subscriber, at: datetime, context: Context) -> Changeset:
    """Active, and everything that the subscriber has not confirmed yet is due now, given-up events included."""
    status = subscriber.status
    waiting = await _unconfirmed(subscriber, context, DeliveryState.PENDING, DeliveryState.FAILED)
    again = tuple(
        replace(each, state=DeliveryState.PENDING, attempts=0) for each in waiting if each.state is DeliveryState.FAILED
    )
    done = await closed(
        context,
        participant_id=status.participant_id,
        kind="delivery",
        subject=f"subscription_status/{status.subscription_id}",
        at=at,
    )
    return await moved(subscriber, context, to="active", at=at) + Changeset(
        replace=again + done, jobs=_jobs(waiting, at)
    )


async def _failed(subscriber: Subscriber, answer: Answer, at: datetime, context: Context) -> Changeset:
    """Error (off if the receiver is gone for good), and a person is told. Events go on being counted."""
    status = subscriber.status
    to = "off" if answer.verdict is Verdict.GONE else "error"
    text = (
        f"A subscriber can not be reached ({_said(answer)}): its updates wait until it asks for its subscription again."
    )
    items = await work_item(
        context,
        participant_id=status.participant_id,
        kind="delivery",
        subject=f"subscription_status/{status.subscription_id}",
        text=text,
    )
    return await moved(subscriber, context, to=to, at=at, problem=_said(answer)) + Changeset(insert=items)


async def _abandoned(delivery: Delivery, text: str, context: Context) -> Changeset:
    """Nobody to send to any more: failed, and a person is told."""
    items = await work_item(
        context,
        participant_id=delivery.participant_id,
        kind="delivery",
        subject=f"delivery/{delivery.id}",
        text=f"{text} Reach the clinician by another channel.",
        patient_id=delivery.patient_id,
    )
    return Changeset(replace=(replace(delivery, state=DeliveryState.FAILED),), insert=items)


async def _failing_ahead(delivery: Delivery, context: Context) -> Delivery | None:
    """The earliest waiting delivery of the same subscription, if attempts at it have failed and it is not this one."""
    pending = await context.store.find(
        Delivery,
        Where("participant_id", "==", delivery.participant_id),
        Where("subscription_id", "==", delivery.subscription_id),
        Where("state", "==", DeliveryState.PENDING),
        order_by="event_number",
        limit=1,
    )
    return pending[0] if pending and pending[0].id != delivery.id and pending[0].attempts else None


async def _unconfirmed(subscriber: Subscriber, context: Context, *states: DeliveryState) -> Sequence[Delivery]:
    return await context.store.find(
        Delivery,
        Where("participant_id", "==", subscriber.status.participant_id),
        Where("subscription_id", "==", subscriber.status.subscription_id),
        Where("state", "in", states),
        order_by="event_number",
    )


def _audited(
    subscriber: Subscriber, answer: Answer, *, subtype: str, at: datetime, patient_id: str | None = None
) -> AuditEntry:
    return record(
        participant_id=subscriber.status.participant_id,
        at=at,
        agent="worker",
        action="E",
        subtype=subtype,
        entity=f"Subscription/{subscriber.status.subscription_id}",
        outcome="0" if answer.verdict is Verdict.DELIVERED else "8",
        patient_id=patient_id,
    )


def _job(delivery: Delivery, due_at: datetime) -> NewJob:
    return NewJob(participant_id=delivery.participant_id, kind=JobKind.DELIVER, key=delivery.id, due_at=due_at)


def _jobs(deliveries: Sequence[Delivery], due_at: datetime) -> tuple[NewJob, ...]:
    """Jobs for deliveries of one subscription: a millisecond apart by number, so that they go out in that order.

    A job that waits already keeps its due time if that is earlier.
    """
    first = deliveries[0].event_number if deliveries else 0
    return tuple(_job(each, due_at + timedelta(milliseconds=each.event_number - first)) for each in deliveries)


def _ended(subscriber: Subscriber, at: datetime) -> bool:
    end = subscriber.resource.get("end")
    return end is not None and datetime.fromisoformat(end) <= at


def _what(delivery: Delivery) -> str:
    return "A result of CMS" if delivery.care_update_id.startswith(OF_SUBMISSION) else "A care update"


def _said(answer: Answer) -> str:
    return answer.problem.rstrip(".") or f"it answered with HTTP status {answer.status}"
