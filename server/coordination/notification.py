"""The notification Bundle, as bytes. Pure: the same event gives the same bytes at every attempt.

Source: Subscriptions R5 Backport IG 1.1.0, profile backport-subscription-notification-r4 (a `history` Bundle, so that
every entry needs `request` and `response`: FHIR R4 invariants bdl-3 and bdl-4).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from profiles.fhir_json import dump
from server.coordination.status import NotificationType, status_parameters
from server.domain.coordination import SubscriptionStatus
from server.intake.resources import instant
from server.intake.subscription import BACKPORT

NOTIFICATION_PROFILE = BACKPORT + "backport-subscription-notification-r4"

Resource = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of one Subscription.

    `focus` and `context` are relative references without version; `bodies` holds the stored JSON of the versions that
    were current when the event happened, by reference. It is only looked at for the level full-resource.
    """

    number: int
    at: datetime
    focus: str
    context: tuple[str, ...] = ()
    bodies: Mapping[str, bytes] = field(default_factory=dict)


def handshake(status: SubscriptionStatus, *, fhir_base: str, at: datetime) -> bytes:
    """The notification that asks an endpoint to confirm. It counts as no event."""
    told = status_parameters(status, fhir_base=fhir_base, kind=NotificationType.HANDSHAKE)
    return dump(_bundle(told, (), fhir_base=fhir_base, at=at))


def event(status: SubscriptionStatus, happened: Event, *, fhir_base: str) -> bytes:
    """The notification of one event. It tells the state in which the event was due to be sent, not a later one."""
    told = status_parameters(
        status,
        fhir_base=fhir_base,
        kind=NotificationType.EVENT,
        state="active",
        events=happened.number,
        notification_events=[_parts(status.content, happened)],
    )
    return dump(_bundle(told, list(_entries(status.content, happened, fhir_base)), fhir_base=fhir_base, at=happened.at))


def past_events(status: SubscriptionStatus, happened: Sequence[Event], *, fhir_base: str, at: datetime) -> bytes:
    """The answer to `$events`: the events asked for, in order, each with what its level of content allows."""
    told = status_parameters(
        status,
        fhir_base=fhir_base,
        kind=NotificationType.QUERY_EVENT,
        notification_events=[_parts(status.content, each) for each in happened],
    )
    entries = {dump(entry): entry for each in happened for entry in _entries(status.content, each, fhir_base)}
    return dump(_bundle(told, list(entries.values()), fhir_base=fhir_base, at=at))  # each version of a resource once


def _bundle(told: Resource, entries: Sequence[Resource], *, fhir_base: str, at: datetime) -> Resource:
    subscription = told["parameter"][0]["valueReference"]["reference"]
    first = {
        "fullUrl": f"urn:uuid:{told['id']}",
        "resource": told,
        "request": {"method": "GET", "url": f"{subscription}/$status"},
        "response": {"status": "200"},
    }
    return {
        "resourceType": "Bundle",
        "id": told["id"],
        "meta": {"profile": [NOTIFICATION_PROFILE]},
        "type": "history",
        "timestamp": instant(at),
        "entry": [first, *entries],
    }


def _parts(content: str, happened: Event) -> list[Resource]:
    parts: list[Resource] = [
        {"name": "event-number", "valueString": str(happened.number)},
        {"name": "timestamp", "valueInstant": instant(happened.at)},
    ]
    if content != "empty":
        parts.append({"name": "focus", "valueReference": {"reference": happened.focus}})
        parts += [{"name": "additional-context", "valueReference": {"reference": each}} for each in happened.context]
    return parts


def _entries(content: str, happened: Event, fhir_base: str) -> Iterator[Resource]:
    if content == "empty":
        return
    for reference in (happened.focus, *happened.context):
        entry: Resource = {"fullUrl": f"{fhir_base}/{reference}"}
        if content == "full-resource" and reference in happened.bodies:
            entry["resource"] = msgspec.Raw(happened.bodies[reference])  # as stored, byte for byte
        yield entry | {"request": {"method": "GET", "url": reference}, "response": {"status": "200"}}
