"""Notifications reach their subscriber, once each and provably, or a person is told."""

import json
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle

from profiles.fhir_json import parse
from profiles.validate import validate
from server.coordination.deliver import LONGEST_DELAY_SECONDS, MAX_ATTEMPTS, MAX_REFUSALS, delay_seconds, deliver
from server.domain.audit import AuditEntry
from server.domain.coordination import CareUpdate, Delivery, DeliveryState, WorkItem
from server.domain.job import Job, JobKind
from server.domain.resource import StoredResource
from server.store.base import Changeset, Where

DAY = timedelta(days=1)


async def _open_items(world: Any) -> list[WorkItem]:
    return [item for item in await world.context.store.find(WorkItem) if item.closed_at is None]


async def _subscribed(world: Any, receiver: Any, **options: Any) -> None:
    await world.subscribe(world.subscription(receiver.url, **options))
    await world.work()


def _status_of(bundle: dict[str, Any]) -> dict[str, Any]:
    return {p["name"]: p for p in bundle["entry"][0]["resource"]["parameter"]}


async def test_handshake_makes_a_subscription_active(world: Any, receiver: Any) -> None:
    """A 2xx to the handshake activates; the handshake counts as no event and carries the channel's headers."""
    await _subscribed(world, receiver)
    assert (await world.status()).status == "active"
    told = _status_of(receiver.notifications[0])
    assert told["type"]["valueCode"] == "handshake"
    assert told["events-since-subscription-start"]["valueString"] == "0"
    headers = receiver.requests[0][0]
    assert headers["authorization"] == "Bearer very-secret-1"
    assert headers["content-type"] == "application/fhir+json"
    assert headers[":line"] == "POST /hook?for=us HTTP/1.1"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert json.loads((await world.stored("Subscription", "sub-1")).body)["status"] == "active"


@pytest.mark.parametrize("status", [301, 400, 401, 404])
async def test_refused_handshake_is_an_error(world: Any, receiver: Any, status: int) -> None:
    """An answer that refuses puts the subscription in error at once, in the resource too, and tells a person."""
    receiver.status, receiver.extra = status, f"Location: {receiver.url}/other\r\n"
    await _subscribed(world, receiver)
    assert (await world.status()).status == "error"
    assert len(receiver.requests) == 1
    shown = json.loads((await world.stored("Subscription", "sub-1")).body)
    assert shown["status"] == "error"
    assert str(status) in shown["error"]
    assert [item.kind for item in await _open_items(world)] == ["delivery"]


async def test_unreachable_handshake_is_tried_again(world: Any, receiver: Any) -> None:
    """An endpoint that is not up yet gets some minutes; then the subscription is in error."""
    await receiver.stop()
    await _subscribed(world, receiver)
    assert (await world.status()).status == "requested"
    await receiver.start()
    await world.pass_time(timedelta(minutes=1))
    assert (await world.status()).status == "active"


async def test_dead_endpoint_fails_the_handshake(world: Any, receiver: Any) -> None:
    """After some minutes without an answer the handshake has failed."""
    await receiver.stop()
    await _subscribed(world, receiver)
    await world.pass_time(timedelta(minutes=10))
    assert (await world.status()).status == "error"


async def test_an_update_is_delivered_once_with_proof(world: Any, receiver: Any) -> None:
    """The event arrives, and the delivery holds the answer and the digest of the bytes that were sent."""
    await _subscribed(world, receiver)
    await world.happen("initiation")
    await world.work()
    assert receiver.event_numbers == ["1"]
    (delivery,) = await world.deliveries()
    assert delivery.state is DeliveryState.DELIVERED
    assert delivery.status == 200
    sent = receiver.requests[-1][1]
    assert delivery.body_sha256 == sha256(sent).hexdigest()
    proof = json.loads(delivery.proof)
    assert proof["headers"] == {"x-request-id": "r-1"}
    assert proof["body"] == "ok"
    entries = await world.context.store.find(AuditEntry, Where("participant_id", "==", "ACCES12345"))
    assert [(e.subtype, e.outcome) for e in entries][-2:] == [("care-update", "0"), ("deliver", "0")]
    assert (await world.context.store.verify_audit()).broken_at is None


async def test_the_same_moment_is_told_once(world: Any, receiver: Any) -> None:
    """A second job for the same moment writes nothing."""
    await _subscribed(world, receiver)
    for _ in range(3):
        await world.happen("initiation")
        await world.work()
    assert receiver.event_numbers == ["1"]
    assert await world.context.store.count(CareUpdate) == 1


@pytest.mark.parametrize("content", ["empty", "id-only", "full-resource"])
async def test_notification_shape(world: Any, receiver: Any, content: str) -> None:
    """Each level of content is a sound Bundle, by our checks and by fhir.resources, with what that level allows."""
    await _subscribed(world, receiver, content=content)
    await world.happen("initiation")
    await world.work()
    for _, body in receiver.requests:
        Bundle.model_validate_json(body)
        assert [issue for issue in validate(parse(body)) if issue.is_error] == []
    bundle = receiver.notifications[-1]
    told = _status_of(bundle)
    parts = [part["name"] for part in told["notification-event"]["part"]]
    assert bundle["type"] == "history"
    assert all("request" in entry and "response" in entry for entry in bundle["entry"])
    others = bundle["entry"][1:]
    if content == "empty":
        assert parts == ["event-number", "timestamp"]
        assert others == []
        assert "topic" not in told
    else:
        assert parts[:3] == ["event-number", "timestamp", "focus"]
        assert told["topic"]["valueCanonical"].endswith("/SubscriptionTopic/care-update")
        assert others[0]["fullUrl"].startswith("http://facade.test/fhir/DocumentReference/")
    assert all(("resource" in entry) == (content == "full-resource") for entry in others)


async def test_no_name_leaves_without_full_resource(world: Any, receiver: Any) -> None:
    """Below full-resource a notification holds ids only."""
    await _subscribed(world, receiver)
    await world.happen("initiation")
    await world.work()
    assert all(b"Quillfeather" not in body and b"1EG4TE5MK73" not in body for _, body in receiver.requests)


async def test_dead_subscriber_loses_and_doubles_nothing(world: Any, receiver: Any) -> None:
    """Events of a dead time arrive after it, in order, once each, with the bytes of the first attempt."""
    await _subscribed(world, receiver)
    await world.happen("initiation")
    receiver.status = 503
    await world.work()
    first = receiver.requests[-1][1]
    await world.happen("milestone", "blood-pressure")
    await world.pass_time(timedelta(hours=2))
    await receiver.stop()
    await world.pass_time(timedelta(hours=2))
    await world.happen("completion")
    await receiver.start()
    receiver.status = 200
    receiver.requests.clear()
    await world.pass_time(timedelta(hours=6))
    assert receiver.event_numbers == ["1", "2", "3"]
    assert receiver.requests[0][1] == first
    assert [d.state for d in await world.deliveries()] == [DeliveryState.DELIVERED] * 3
    assert (await world.status()).events == 3


async def test_a_dead_subscriber_costs_one_attempt_at_a_time(world: Any, receiver: Any) -> None:
    """While the earliest event fails, the later ones are not tried."""
    await _subscribed(world, receiver)
    receiver.status = 503
    for subject in ("a", "b", "c", "d"):
        await world.happen("milestone", subject)
        await world.work()
    await world.pass_time(timedelta(hours=3))
    assert set(receiver.event_numbers) == {"1"}


async def test_given_up_after_about_a_day_then_sent_when_asked_for(world: Any, receiver: Any) -> None:
    """After a day the delivery has failed, the subscription is in error and counts on; its client starts it again."""
    await _subscribed(world, receiver)
    await receiver.stop()
    await world.happen("initiation")
    await world.pass_time(timedelta(hours=12))
    assert (await world.status()).status == "active"
    await world.pass_time(timedelta(hours=24))
    assert (await world.status()).status == "error"
    await world.happen("milestone", "blood-pressure")
    await world.work()
    assert [d.state for d in await world.deliveries()] == [DeliveryState.FAILED, DeliveryState.PENDING]
    assert (await world.status()).events == 2
    receiver.requests.clear()
    assert {item.subject.split("/")[0] for item in await _open_items(world)} == {"delivery", "subscription_status"}
    await receiver.start()
    await world.pass_time(DAY)
    assert receiver.event_numbers == []  # only the client starts it again
    await world.subscribe(world.subscription(receiver.url))
    await world.pass_time(timedelta(seconds=1))
    assert receiver.event_numbers == ["1", "2"]
    assert _status_of(receiver.notifications[0])["events-since-subscription-start"]["valueString"] == "2"
    assert await _open_items(world) == []


async def test_refusals_are_given_up_sooner(world: Any, receiver: Any) -> None:
    """A 4xx is tried a few times only."""
    await _subscribed(world, receiver)
    receiver.status = 403
    await world.happen("initiation")
    await world.pass_time(DAY)
    assert len(receiver.event_numbers) == MAX_REFUSALS
    assert (await world.status()).status == "error"


async def test_gone_is_off(world: Any, receiver: Any) -> None:
    """410 switches the subscription off at once, and a person is told of the update that nobody got."""
    await _subscribed(world, receiver)
    receiver.status = 410
    await world.happen("initiation")
    await world.pass_time(DAY)
    assert len(receiver.event_numbers) == 1
    assert (await world.status()).status == "off"
    assert len(await _open_items(world)) == 2


async def test_too_many_requests_is_no_refusal_and_its_wish_is_kept(world: Any, receiver: Any) -> None:
    """After 429 with Retry-After nothing is sent before the time asked for."""
    await _subscribed(world, receiver)
    receiver.status, receiver.extra = 429, "Retry-After: 1800\r\n"
    await world.happen("initiation")
    await world.pass_time(timedelta(minutes=29))
    assert len(receiver.event_numbers) == 1
    receiver.status = 200
    await world.pass_time(timedelta(minutes=2))
    assert (await world.deliveries())[0].state is DeliveryState.DELIVERED


async def test_silence_is_a_failure(world: Any, receiver: Any) -> None:
    """An endpoint that takes the bytes and says nothing is tried again within the client's own timeout."""
    await _subscribed(world, receiver)
    receiver.silent = True
    await world.happen("initiation")
    await world.work()
    (delivery,) = await world.deliveries()
    assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 1)
    assert b"could not be reached" in delivery.proof


async def test_a_client_that_lost_its_right_gets_nothing_more(world: Any, receiver: Any) -> None:
    """The right to read is asked for again when sending."""
    await _subscribed(world, receiver)
    clients = dict(world.context.settings.clients)
    del clients["pcp-1"]
    world.context = replace(world.context, settings=replace(world.context.settings, clients=clients))
    await world.happen("initiation")
    await world.pass_time(DAY)
    assert receiver.event_numbers == []
    assert (await world.status()).status == "error"


async def test_an_endpoint_that_is_no_longer_allowed_gets_nothing_more(world: Any, receiver: Any) -> None:
    """The guard looks again when sending."""
    await _subscribed(world, receiver)
    settings = replace(world.context.settings, subscriber_hosts=("pcp.example",))
    world.context = replace(world.context, settings=settings)
    await world.happen("initiation")
    await world.pass_time(DAY)
    assert receiver.event_numbers == []
    assert (await world.status()).status == "error"


async def test_switched_off_before_delivery(world: Any, receiver: Any) -> None:
    """What waits when a subscriber switches itself off has failed, and a person is told."""
    await _subscribed(world, receiver)
    receiver.status = 503
    await world.happen("initiation")
    await world.work()
    await world.subscribe(world.subscription(receiver.url, status="off"))
    await world.pass_time(DAY)
    assert [d.state for d in await world.deliveries()] == [DeliveryState.FAILED]
    assert "another channel" in (await _open_items(world))[0].text


async def test_nobody_subscribed(world: Any) -> None:
    """Without a subscriber the update is composed all the same, and a person is told."""
    await world.happen("initiation")
    await world.work()
    assert await world.context.store.count(CareUpdate) == 1
    (item,) = await _open_items(world)
    assert item.patient_id == "pat-1"


async def test_filters_choose_the_patients(world: Any, receiver: Any) -> None:
    """A subscriber hears of the patients it asked for only; its numbers have no gaps."""
    mine = world.filtered(world.subscription(receiver.url), "CarePlan?patient=Patient/pat-1,Patient/pat-2")
    other = world.filtered(world.subscription(receiver.url), "CarePlan?patient=Patient/pat-9")
    await world.subscribe(mine)
    await world.subscribe(other, client="hie-1", subscription_id="sub-2")
    await world.work()
    await world.happen("initiation")
    await world.work()
    assert [(await world.status(s)).events for s in ("sub-1", "sub-2")] == [1, 0]


async def test_a_crash_after_the_answer_repeats_the_same_bytes(world: Any, receiver: Any) -> None:
    """When the outcome could not be written down, the repeat has the same number and the same bytes."""
    await _subscribed(world, receiver)
    await world.happen("initiation")
    failing = world.context.store.commit

    async def lost(changeset: Changeset) -> None:
        if any(isinstance(row, Delivery) for row in changeset.replace):
            raise RuntimeError("killed")
        await failing(changeset)

    world.context.store.commit = lost
    with pytest.raises(RuntimeError):
        await world.work()
    world.context.store.commit = failing
    (delivery,) = await world.deliveries()
    job = Job(participant_id="ACCES12345", id="again", kind=JobKind.DELIVER, key=delivery.id, due_at=world.clock.now())
    await world.context.store.commit(await deliver(job, world.context))
    bodies = [body for _, body in receiver.requests[1:]]
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]
    assert len(await world.deliveries()) == 1


async def test_full_resources_are_those_of_the_event(world: Any, receiver: Any) -> None:
    """A later change of the care plan does not change what an earlier event says."""
    await _subscribed(world, receiver, content="full-resource")
    receiver.status = 503
    await world.happen("initiation")
    await world.work()
    first = receiver.requests[-1][1]
    await world.happen("completion")
    await world.work()
    plans = [r for r in await world.context.store.find(StoredResource) if r.resource_type == "CarePlan"]
    assert [plan.revision for plan in plans] == [2]
    receiver.status = 200
    receiver.requests.clear()
    await world.pass_time(DAY)
    assert receiver.requests[0][1] == first
    statuses = [
        [e["resource"]["status"] for e in b["entry"] if e["resource"]["resourceType"] == "CarePlan"]
        for b in receiver.notifications
    ]
    assert statuses == [["active"], ["completed"]]


def test_delays_double_up_to_a_cap_and_last_about_a_day() -> None:
    """Half of each delay is random; together they are 18 to 36 hours."""
    assert [delay_seconds(n, jitter=lambda: 1.0) for n in (1, 2, 3)] == [5.0, 10.0, 20.0]
    assert delay_seconds(1, jitter=lambda: 0.0) == 2.5
    assert delay_seconds(99, jitter=lambda: 1.0) == LONGEST_DELAY_SECONDS
    assert delay_seconds(1, asked=60.0) == 60.0
    assert delay_seconds(1, asked=1e9) == LONGEST_DELAY_SECONDS
    total = sum(delay_seconds(n, jitter=lambda: 0.5) for n in range(1, MAX_ATTEMPTS))
    assert 18 * 3600 < total < 36 * 3600
