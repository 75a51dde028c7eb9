"""What a subscriber is told of its Subscriptions: in every notification, and whenever it asks, also in error.

Source: Subscriptions R5 Backport IG 1.1.0, profile backport-subscription-status-r4 and the operation $status.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from starlette.requests import Request

from profiles.fhir_json import dump
from profiles.issue import error
from server.audit import record
from server.context import Context
from server.domain.coordination import SubscriptionStatus
from server.domain.errors import Refused
from server.intake.kept import caller_of, context_of, reply
from server.intake.subscription import BACKPORT
from server.outcomes import FhirResponse
from server.store.base import Changeset, Where

STATUS_PROFILE = BACKPORT + "backport-subscription-status-r4"

Resource = dict[str, Any]


class NotificationType(StrEnum):
    """Why a status is told."""

    HANDSHAKE = "handshake"
    EVENT = "event-notification"
    QUERY_STATUS = "query-status"
    QUERY_EVENT = "query-event"


def status_parameters(
    status: SubscriptionStatus,
    *,
    fhir_base: str,
    kind: NotificationType,
    state: str | None = None,
    events: int | None = None,
    notification_events: Iterable[Sequence[Resource]] = (),
) -> Resource:
    """The Parameters that say where a Subscription stands, or stood.

    `state` and `events` are the values to tell if they are not the current ones; each of `notification_events` is the
    parts of one event. The id depends on all that is said, so the same statement has the same id.
    """
    parameters: list[Resource] = [
        {"name": "subscription", "valueReference": {"reference": f"{fhir_base}/Subscription/{status.subscription_id}"}},
        {"name": "topic", "valueCanonical": status.topic},
        {"name": "status", "valueCode": state or status.status},
        {"name": "type", "valueCode": str(kind)},
        {"name": "events-since-subscription-start", "valueString": str(status.events if events is None else events)},
    ]
    parameters += [{"name": "notification-event", "part": list(parts)} for parts in notification_events]
    if status.content == "empty":  # nothing beyond the fact that something happened; the topic "should be absent"
        parameters = [p for p in parameters if p["name"] != "topic"]
    if (state or status.status) == "error":
        parameters.append({"name": "error", "valueCodeableConcept": {"text": "Notifications could not be delivered."}})
    identity = uuid5(NAMESPACE_URL, repr(parameters))
    return {
        "resourceType": "Parameters",
        "id": str(identity),
        "meta": {"profile": [STATUS_PROFILE]},
        "parameter": parameters,
    }


async def door(request: Request) -> FhirResponse:
    """`GET /fhir/Subscription/{id}/$status` and `GET /fhir/Subscription/$status?id=...&status=...`."""
    caller, context = caller_of(request), context_of(request)
    caller.require("Subscription", "r")
    one = request.path_params.get("id")
    bundle = await status_bundle(
        context,
        participant_id=caller.participant_id,
        caller_client_id=caller.client_id,
        ids=(one,) if one else _listed(request, "id"),
        statuses=_listed(request, "status"),
    )
    entry = record(
        participant_id=caller.participant_id,
        at=context.clock.now(),
        agent=caller.client_id,
        action="E",
        subtype="$status",
        entity=f"Subscription/{one}" if one else "Subscription",
    )
    await context.store.commit(Changeset(audit=(entry,)))
    return reply(request, dump(bundle))


def _listed(request: Request, name: str) -> tuple[str, ...]:
    return tuple(value for each in request.query_params.getlist(name) for value in each.split(",") if value)


async def status_bundle(
    context: Context,
    *,
    participant_id: str,
    caller_client_id: str,
    ids: Sequence[str] = (),
    statuses: Sequence[str] = (),
) -> Resource:
    """The searchset Bundle of `$status`: for one Subscription, for those named, or for all that are the caller's.

    Raises: Refused 404 if exactly one id is asked for and it is not the caller's. Others that are not are left out.
    """
    rows = await context.store.find(
        SubscriptionStatus, Where("participant_id", "==", participant_id), order_by="subscription_id"
    )
    own = [row for row in rows if owns(context, caller_client_id, row) and (not ids or row.subscription_id in ids)]
    if len(ids) == 1 and not own:
        raise Refused(404, [error("not-found", "Subscription", "There is no Subscription with this id.")])
    fhir_base = f"{context.settings.base_url}/fhir"
    told = [
        status_parameters(row, fhir_base=fhir_base, kind=NotificationType.QUERY_STATUS)
        for row in own
        if not statuses or row.status in statuses
    ]
    return _searchset(told)


def owns(context: Context, client_id: str, row: SubscriptionStatus) -> bool:
    """Whether a client may ask about a Subscription: it made it, or it is the participant's operator."""
    client = context.settings.clients.get(client_id)
    if client is None or client.participant != row.participant_id:
        return False
    return row.client_id == client_id or client.role == "operator"


def _searchset(resources: Sequence[Resource]) -> Resource:
    bundle: Resource = {"resourceType": "Bundle", "type": "searchset", "total": len(resources)}
    entries = [
        {"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource, "search": {"mode": "match"}}
        for resource in resources
    ]
    return bundle | ({"entry": entries} if entries else {})
