"""Subscribers as they are stored: the resource that a client sees and the row that counts its events."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from profiles.fhir_json import parse
from server.context import Context
from server.coordination.notification import Event
from server.domain.coordination import CareUpdate, Delivery, SubscriptionStatus
from server.domain.resource import ResourceVersion, StoredResource
from server.domain.submission import Submission
from server.intake.resources import put
from server.intake.subscription import topic_name
from server.store.base import Changeset, Where

Resource = dict[str, Any]
OF_SUBMISSION = "submission/"  # begins a Delivery's `care_update_id` where it tells of a submission's result


@dataclass(frozen=True, slots=True)
class Subscriber:
    """One Subscription: its counters, its stored row and its content."""

    status: SubscriptionStatus
    stored: StoredResource
    resource: Resource


async def load(context: Context, participant_id: str, subscription_id: str) -> Subscriber | None:
    """The subscriber, or None if its Subscription was deleted."""
    status = await context.store.get(SubscriptionStatus, participant_id=participant_id, subscription_id=subscription_id)
    return await _with_resource(context, status) if status else None


async def of_participant(context: Context, participant_id: str, topic: str) -> Sequence[Subscriber]:
    """All subscribers of a participant to a topic (by its name) that have not switched themselves off."""
    rows = await context.store.find(
        SubscriptionStatus, Where("participant_id", "==", participant_id), order_by="subscription_id"
    )
    found = [
        await _with_resource(context, row) for row in rows if row.status != "off" and topic_name(row.topic) == topic
    ]
    return [subscriber for subscriber in found if subscriber is not None]


async def moved(subscriber: Subscriber, context: Context, *, to: str, at: datetime, problem: str = "") -> Changeset:
    """The Subscription in another state, in its row and in a new version of the resource that the client reads."""
    told = {name: value for name, value in subscriber.resource.items() if name != "error"} | {"status": to}
    written = await put(
        told | ({"error": problem} if problem else {}),
        participant_id=subscriber.status.participant_id,
        patient_id=subscriber.stored.patient_id,
        received_id=subscriber.stored.received_id,
        at=at,
        context=context,
    )
    return Changeset(replace=(replace(subscriber.status, status=to),)) + written.changes


async def event_of(context: Context, delivery: Delivery, content: str) -> Event | None:
    """The event that a delivery tells of, with the resources as they were; None if it is not stored any more."""
    if delivery.care_update_id.startswith(OF_SUBMISSION):
        return await _result_event(context, delivery)
    update = await context.store.get(CareUpdate, id=delivery.care_update_id)
    if update is None:
        return None
    versions = dict(_versioned(reference) for reference in (update.focus, *update.context.split()))
    bodies: dict[str, bytes] = {}
    if content == "full-resource":
        for reference, version in versions.items():
            body = await _body(context, update.participant_id, reference, version)
            bodies |= {reference: body} if body is not None else {}
    focus, *others = versions
    return Event(
        number=delivery.event_number, at=delivery.created_at, focus=focus, context=tuple(others), bodies=bodies
    )


async def _result_event(context: Context, delivery: Delivery) -> Event | None:
    """CMS's answer to a submission. Its focus is the status address, whose GET gives the same bytes."""
    submission = await context.store.get(Submission, id=delivery.care_update_id.removeprefix(OF_SUBMISSION))
    if submission is None or submission.result is None:
        return None
    focus = f"access/Patient/$submission-status/{submission.id}"
    return Event(number=delivery.event_number, at=delivery.created_at, focus=focus, bodies={focus: submission.result})


def _versioned(reference: str) -> tuple[str, int]:
    """`Type/id/_history/n` as reference and version; what an update writes itself is version 1."""
    plain, _, version = reference.partition("/_history/")
    return plain, int(version or 1)


async def _body(context: Context, participant_id: str, reference: str, version: int) -> bytes | None:
    resource_type, _, logical_id = reference.partition("/")
    key = {"participant_id": participant_id, "resource_type": resource_type, "id": logical_id}
    current = await context.store.get(StoredResource, **key)
    if current is not None and current.revision == version:
        return None if current.deleted else current.body
    earlier = await context.store.get(ResourceVersion, **key, version_id=version)
    return None if earlier is None or earlier.deleted else earlier.body


async def _with_resource(context: Context, status: SubscriptionStatus) -> Subscriber | None:
    stored = await context.store.get(
        StoredResource,
        participant_id=status.participant_id,
        resource_type="Subscription",
        id=status.subscription_id,
    )
    if stored is None or stored.deleted:
        return None
    return Subscriber(status, stored, parse(stored.body))
