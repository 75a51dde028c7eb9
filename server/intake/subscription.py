"""A partner asks to be told of care updates, or of CMS's results: what we promise is checked here, before it is stored.

Source: Subscriptions R5 Backport IG 1.1.0, profile backport-subscription (R4): "reject what will not be honoured".
The resource says only what may be read back; header values go into SubscriptionStatus, sealed.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from profiles.issue import Issue, error
from server.auth.scopes import allows
from server.context import Context
from server.domain.coordination import SubscriptionStatus
from server.domain.errors import Refused
from server.domain.job import JobKind, NewJob
from server.intake.endpoint import check
from server.settings import Settings
from server.store.base import Changeset

BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"
FILTER = BACKPORT + "backport-filter-criteria"
CONTENT = BACKPORT + "backport-payload-content"
MIME = "application/fhir+json"
CONTENTS = ("empty", "id-only", "full-resource")
FOCUS_TYPES = ("CarePlan", "DocumentReference", "Goal", "Bundle", "Composition")  # what a filter may be written about
MASK = "********"
# The topics, by the last part of their canonical, and the right that a subscriber needs to be told of them.
CARE_UPDATE = "care-update"
SUBMISSION_RESULT = "submission-result"
_RIGHTS = {CARE_UPDATE: "system/DocumentReference.r", SUBMISSION_RESULT: "access/submit"}

# Channel limits of the Backport that we keep: one event a notification is within every max-count, and the client's
# timeout can only shorten ours. Heartbeats are not sent, so a subscription that counts on them is refused.
HONOURED = frozenset({BACKPORT + "backport-timeout", BACKPORT + "backport-max-count"})

_FILTER = re.compile(
    rf"(?:{'|'.join(FOCUS_TYPES)})\?(?:patient|subject)=(?P<ids>(?:Patient/)?[A-Za-z0-9.-]{{1,64}}"
    r"(?:,(?:Patient/)?[A-Za-z0-9.-]{1,64}){0,99})"
)
_HEADER = re.compile(
    r"(?P<name>[A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*(?P<value>[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)[ \t]*"
)
# Headers that are ours to set, or that steer the connection or a proxy. Source: RFC 9110, RFC 9112.
_OWN_HEADERS = frozenset(
    {"host", "content-type", "content-length", "content-encoding", "transfer-encoding", "te", "trailer", "connection"}
    | {"keep-alive", "upgrade", "expect", "proxy-authorization", "proxy-connection", "forwarded", "cookie", "via"}
    | {"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "accept-encoding"}
)

Resource = dict[str, Any]
Check = Callable[[Resource, "Asked"], Iterator[Issue]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the checks look at beside the resource."""

    settings: Settings
    now: datetime
    previous: SubscriptionStatus | None


def topics(base_url: str) -> tuple[str, ...]:
    """The canonicals of the topics a Subscription may name, for the CapabilityStatement too."""
    return tuple(f"{base_url}/SubscriptionTopic/{name}" for name in _RIGHTS)


def topic_name(canonical: str) -> str:
    """The last part of a topic's canonical: CARE_UPDATE or SUBMISSION_RESULT; another if it is none of ours."""
    return canonical.rpartition("/")[2]


async def prepare(
    resource: Resource, caller_client_id: str, participant_id: str, resource_id: str, context: Context
) -> tuple[Resource, Changeset]:
    """A Subscription as it is to be stored, and what goes with it in the same transaction.

    Shape: the resource with status `requested` (or `off`) and masked headers; the changeset writes SubscriptionStatus
    and enqueues the handshake. A masked header in an update keeps the value that was sent before.
    Raises: Refused 422 with all issues; 403 if the client may not read care updates; 404 if it is another client's.
    """
    previous = await context.store.get(SubscriptionStatus, participant_id=participant_id, subscription_id=resource_id)
    _require_owner(context.settings, caller_client_id, previous)
    client_id = previous.client_id if previous else caller_client_id
    _require_right(context.settings, client_id, participant_id, str(resource.get("criteria")))
    asked = Asked(context.settings, context.clock.now(), previous)
    issues = [issue for look in _CHECKS for issue in look(resource, asked)]
    if issues:
        raise Refused(422, issues)
    status = _status(
        resource, asked, client_id=caller_client_id, participant_id=participant_id, resource_id=resource_id
    )
    jobs = (
        ()
        if status.status == "off"
        else (NewJob(participant_id=participant_id, kind=JobKind.HANDSHAKE, key=resource_id, due_at=asked.now),)
    )
    rows = Changeset(replace=(status,), jobs=jobs) if previous else Changeset(insert=(status,), jobs=jobs)
    return _public(resource, status.status), rows


async def withdraw(participant_id: str, resource_id: str, caller_client_id: str, context: Context) -> Changeset:
    """What goes with the deletion of a Subscription: nothing is sent any more. Raises Refused 404 as `prepare`."""
    previous = await context.store.get(SubscriptionStatus, participant_id=participant_id, subscription_id=resource_id)
    _require_owner(context.settings, caller_client_id, previous)
    return Changeset(replace=(replace(previous, status="off", secret=None),)) if previous else Changeset()


def may_receive(settings: Settings, client_id: str, participant_id: str, topic: str = CARE_UPDATE) -> bool:
    """Whether a client may be told of a topic of this participant now: asked at creation and before every sending."""
    client = settings.clients.get(client_id)
    if client is None or client.participant != participant_id:
        return False
    scopes = frozenset(client.scope.split())
    if topic_name(topic) == SUBMISSION_RESULT:
        return _RIGHTS[SUBMISSION_RESULT] in scopes
    return allows(scopes, "DocumentReference", "r")


def wants(resource: Resource, patient_id: str) -> bool:
    """Whether a Subscription's filters let this patient through; several filters all have to."""
    return all(patient_id in _patients(value) for value in _filters(resource))


def headers(status: SubscriptionStatus) -> tuple[tuple[str, str], ...]:
    """The channel's headers with their values: to be sent, never to be returned or logged."""
    return tuple((name, value) for name, value in json.loads(status.secret or b"[]"))


def content_level(resource: Resource) -> str:
    """empty, id-only or full-resource; "" if the resource does not say exactly one."""
    found = [e.get("valueCode") for e in _payload_extensions(resource) if e.get("url") == CONTENT]
    return found[0] if len(found) == 1 and found[0] in CONTENTS else ""


def timeout_seconds(resource: Resource, ours: float) -> float:
    """How long to wait for an answer: the client's backport-timeout where it is shorter than ours."""
    found = [
        e.get("valueUnsignedInt")
        for e in _channel(resource).get("extension", ())
        if e.get("url") == BACKPORT + "backport-timeout"
    ]
    return min([ours, *(float(seconds) for seconds in found if seconds)])


def _require_owner(settings: Settings, client_id: str, previous: SubscriptionStatus | None) -> None:
    client = settings.clients.get(client_id)
    if previous is not None and previous.client_id != client_id and (client is None or client.role != "operator"):
        raise Refused(404, [error("not-found", "Subscription", "There is no Subscription with this id.")])


def _require_right(settings: Settings, client_id: str, participant_id: str, topic: str) -> None:
    if not may_receive(settings, client_id, participant_id, topic):
        right = _RIGHTS.get(topic_name(topic), _RIGHTS[CARE_UPDATE])
        text = f"A subscriber needs the right to read what it is told of: register the scope {right}."
        raise Refused(403, [error("forbidden", "Subscription", text)])


def _status(
    resource: Resource, asked: Asked, *, client_id: str, participant_id: str, resource_id: str
) -> SubscriptionStatus:
    fresh = SubscriptionStatus(
        participant_id=participant_id, subscription_id=resource_id, status="", topic="", content="", client_id=client_id
    )
    pairs = _kept(_header_pairs(resource), asked.previous)
    return replace(
        asked.previous or fresh,
        status="off" if resource.get("status") == "off" else "requested",
        topic=resource["criteria"],
        content=content_level(resource),
        secret=json.dumps(pairs).encode() if pairs else None,
    )


def _public(resource: Resource, status: str) -> Resource:
    channel = dict(resource["channel"])
    if "header" in channel:
        channel["header"] = [f"{name}: {MASK}" for name, _ in _header_pairs(resource)]
    kept = {name: value for name, value in resource.items() if name != "error"}
    return kept | {"status": status, "channel": channel}


def _kept(pairs: Sequence[tuple[str, str]], previous: SubscriptionStatus | None) -> list[tuple[str, str]]:
    """The pairs, with each masked value replaced by the one we hold."""
    known = {name.lower(): value for name, value in headers(previous)} if previous else {}
    return [(name, known.get(name.lower(), value) if value == MASK else value) for name, value in pairs]


def _channel(resource: Resource) -> Resource:
    channel = resource.get("channel")
    return channel if isinstance(channel, dict) else {}


def _payload_extensions(resource: Resource) -> list[Resource]:
    return list(_channel(resource).get("_payload", {}).get("extension", ()))


def _filters(resource: Resource) -> list[str]:
    extensions = resource.get("_criteria", {}).get("extension", ())
    return [str(e.get("valueString", "")) for e in extensions if e.get("url") == FILTER]


def _patients(value: str) -> frozenset[str]:
    found = _FILTER.fullmatch(value)
    return frozenset(i.removeprefix("Patient/") for i in found["ids"].split(",")) if found else frozenset()


def _header_pairs(resource: Resource) -> list[tuple[str, str]]:
    found = [_HEADER.fullmatch(line) for line in _channel(resource).get("header", ()) if isinstance(line, str)]
    return [(match["name"], match["value"]) for match in found if match]


def _check_status(resource: Resource, asked: Asked) -> Iterator[Issue]:
    allowed = ("requested", "active", "off") if asked.previous else ("requested", "active")
    if resource.get("status") not in allowed:
        yield error("value", "Subscription.status", f"A client may set the status to {' or '.join(allowed)} only.")


def _check_end(resource: Resource, asked: Asked) -> Iterator[Issue]:
    end = resource.get("end")
    if end is not None and not _is_after(end, asked.now):
        yield error("value", "Subscription.end", "The end is not an instant in the future: nothing would be sent.")


def _check_topic(resource: Resource, asked: Asked) -> Iterator[Issue]:
    offered = topics(asked.settings.base_url)
    if resource.get("criteria") not in offered:
        text = f"The criteria has to be the canonical of a topic we offer: {', '.join(offered)}."
        yield error("not-supported", "Subscription.criteria", text)


def _check_filters(resource: Resource, _: Asked) -> Iterator[Issue]:
    for index, extension in enumerate(resource.get("_criteria", {}).get("extension", ())):
        place = f"Subscription.criteria.extension[{index}]"
        if extension.get("url") != FILTER:
            yield error("extension", place, "Only backport-filter-criteria is honoured here: remove the others.")
        elif not _FILTER.fullmatch(str(extension.get("valueString", ""))):
            text = f"A filter has to read Type?patient=Patient/id[,Patient/id], Type one of {', '.join(FOCUS_TYPES)}."
            yield error("not-supported", f"{place}.value", text)


def _check_channel(resource: Resource, _: Asked) -> Iterator[Issue]:
    channel = _channel(resource)
    if channel.get("type") != "rest-hook" or "_type" in channel:
        yield error("not-supported", "Subscription.channel.type", "The only channel type offered is rest-hook.")
    for index, extension in enumerate(channel.get("extension", ())):
        if extension.get("url") not in HONOURED:
            text = "This extension would not be honoured: remove it (no heartbeats are sent; ask $status instead)."
            yield error("not-supported", f"Subscription.channel.extension[{index}]", text)


def _check_payload(resource: Resource, _: Asked) -> Iterator[Issue]:
    if _channel(resource).get("payload") != MIME:
        yield error("not-supported", "Subscription.channel.payload", f"The payload has to be {MIME}.")
    if not content_level(resource):
        text = f"One extension backport-payload-content has to say {', '.join(CONTENTS)}."
        yield error("required", "Subscription.channel.payload.extension", text)


def _check_endpoint(resource: Resource, asked: Asked) -> Iterator[Issue]:
    endpoint = _channel(resource).get("endpoint")
    if not isinstance(endpoint, str):
        yield error("required", "Subscription.channel.endpoint", "A rest-hook needs the URL that is called.")
        return
    refusal = check(endpoint, asked.settings.subscriber_hosts)
    if isinstance(refusal, str):
        yield error("security", "Subscription.channel.endpoint", refusal)


def _check_headers(resource: Resource, asked: Asked) -> Iterator[Issue]:
    known = {name.lower() for name, _ in headers(asked.previous)} if asked.previous else set()
    for index, line in enumerate(_channel(resource).get("header", ())):
        place = f"Subscription.channel.header[{index}]"
        match = _HEADER.fullmatch(line) if isinstance(line, str) and len(line) <= 8192 else None
        if match is None:
            yield error("value", place, "A header has to read `Name: value`, in printable ASCII on one line.")
        elif match["name"].lower() in _OWN_HEADERS:
            yield error("security", place, "This header is set by the connection itself: remove it.")
        elif match["value"] == MASK and match["name"].lower() not in known:
            yield error("value", place, "The value is the mask we return, and no earlier value is known: send it.")


def _is_after(text: object, now: datetime) -> bool:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return False
    return found.tzinfo is not None and found > now


_CHECKS: tuple[Check, ...] = (
    _check_status,
    _check_end,
    _check_topic,
    _check_filters,
    _check_channel,
    _check_payload,
    _check_endpoint,
    _check_headers,
)
