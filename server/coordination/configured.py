"""Webhooks of the configuration: for a client with `webhook` the facade keeps the Subscription it would have posted.

So a client that knows nothing of Subscriptions hears of CMS's results, with the same retries, order and proof: each
POST is a notification whose focus is the status URL of one submission (`id-only`); its GET gives CMS's answer.
"""

from hashlib import sha256
from typing import Any

from server.context import Context
from server.coordination.subscriber import Subscriber, load, moved
from server.domain.errors import Conflict, Refused
from server.intake.resources import put
from server.intake.subscription import CONTENT, MIME, SUBMISSION_RESULT, headers, prepare
from server.settings import Client
from server.store.base import Changeset
from server.work_items import work_item

Resource = dict[str, Any]


async def webhooks(context: Context) -> None:
    """Has each client's Subscription be as the configuration says: made, changed, begun anew after an error, or off."""
    for client in context.settings.clients.values():
        try:
            changes = await _kept(client, context)
            if changes != Changeset():
                await context.store.commit(changes)
        except Refused as refused:
            await context.store.commit(await _refusal(client, refused, context))
        except Conflict:  # another process starts as well
            continue


async def _kept(client: Client, context: Context) -> Changeset:
    name = f"webhook-{sha256(client.client_id.encode()).hexdigest()[:16]}"
    before, now = await load(context, client.participant, name), context.clock.now()
    if client.webhook is None:
        stands = before is not None and before.status.status != "off"
        return await moved(before, context, to="off", at=now) if before is not None and stands else Changeset()
    lines = _header_lines(client)
    if before is not None and _is_as_wanted(before, client.webhook, lines):
        return Changeset()
    wanted = _subscription(client.webhook, lines, context)
    shown, rows = await prepare(wanted, client.client_id, client.participant, name, context)
    stored = await put(
        shown | {"id": name},
        participant_id=client.participant,
        patient_id=None,
        received_id=None,
        at=now,
        context=context,
    )
    return stored.changes + rows


def _header_lines(client: Client) -> list[str]:
    if client.webhook_header_file is None:
        return []
    return [line.strip() for line in client.webhook_header_file.read_text("utf-8").splitlines() if line.strip()]


def _is_as_wanted(before: Subscriber, endpoint: str, lines: list[str]) -> bool:
    same = before.resource["channel"]["endpoint"] == endpoint
    same &= [f"{name}: {value}" for name, value in headers(before.status)] == lines
    return same and before.status.status in ("requested", "active")


def _subscription(endpoint: str, lines: list[str], context: Context) -> Resource:
    channel = {
        "type": "rest-hook",
        "endpoint": endpoint,
        "payload": MIME,
        "_payload": {"extension": [{"url": CONTENT, "valueCode": "id-only"}]},
    }
    return {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "The webhook of this client in the configuration.",
        "criteria": f"{context.settings.base_url}/SubscriptionTopic/{SUBMISSION_RESULT}",
        "channel": channel | ({"header": lines} if lines else {}),
    }


async def _refusal(client: Client, refused: Refused, context: Context) -> Changeset:
    reasons = " ".join(issue.text for issue in refused.issues)
    items = await work_item(
        context,
        participant_id=client.participant,
        kind="configuration",
        subject=f"client/{client.client_id}",
        text=f"The webhook of [[client]] {client.client_id} can not be used: {reasons}",
    )
    return Changeset(insert=items)
