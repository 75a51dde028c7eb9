"""`$events`: a subscriber that missed notifications asks for them again.

Source: Subscriptions R5 Backport IG 1.1.0, operation $events: a `history` Bundle like a notification.
"""

from starlette.requests import Request

from profiles.issue import error
from server.audit import record
from server.context import Context
from server.coordination import notification
from server.coordination.status import owns
from server.coordination.subscriber import event_of
from server.domain.coordination import Delivery, SubscriptionStatus
from server.domain.errors import Refused
from server.intake.kept import caller_of, context_of, reply
from server.intake.subscription import may_receive
from server.outcomes import FhirResponse
from server.store.base import Changeset, Where

MOST_EVENTS = 100  # of one answer; the client asks on from the last number it got


async def door(request: Request) -> FhirResponse:
    """`GET /fhir/Subscription/{id}/$events?eventsSinceNumber=...&eventsUntilNumber=...`, both included."""
    caller, context = caller_of(request), context_of(request)
    caller.require("Subscription", "r")
    caller.require("DocumentReference", "r")
    subscription_id = request.path_params["id"]
    body = await events_bundle(
        context,
        participant_id=caller.participant_id,
        caller_client_id=caller.client_id,
        subscription_id=subscription_id,
        since=_number(request, "eventsSinceNumber", 1),
        until=_number(request, "eventsUntilNumber", 2**62),
    )
    entry = record(
        participant_id=caller.participant_id,
        at=context.clock.now(),
        agent=caller.client_id,
        action="E",
        subtype="$events",
        entity=f"Subscription/{subscription_id}",
    )
    await context.store.commit(Changeset(audit=(entry,)))
    return reply(request, body)


async def events_bundle(
    context: Context, *, participant_id: str, caller_client_id: str, subscription_id: str, since: int, until: int
) -> bytes:
    """The events `since` to `until`, both included, at the Subscription's own level of content; at most 100.

    Raises: Refused 404 if there is no such Subscription of the caller, or it may not be told any more.
    """
    status = await context.store.get(SubscriptionStatus, participant_id=participant_id, subscription_id=subscription_id)
    allowed = status is not None and may_receive(context.settings, status.client_id, participant_id, status.topic)
    if status is None or not allowed or not owns(context, caller_client_id, status):
        raise Refused(404, [error("not-found", "Subscription", "There is no Subscription with this id.")])
    rows = await context.store.find(
        Delivery,
        Where("participant_id", "==", participant_id),
        Where("subscription_id", "==", subscription_id),
        Where("event_number", ">=", since),
        Where("event_number", "<=", until),
        order_by="event_number",
        limit=MOST_EVENTS,
    )
    found = [await event_of(context, row, status.content) for row in rows]
    told = [each for each in found if each is not None]
    return notification.past_events(status, told, fhir_base=f"{context.settings.base_url}/fhir", at=context.clock.now())


def _number(request: Request, name: str, otherwise: int) -> int:
    text = request.query_params.get(name, "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refused(400, [error("value", f"http.{name}", "An event number is a whole number from 1.")])
    return int(text) if text else otherwise
