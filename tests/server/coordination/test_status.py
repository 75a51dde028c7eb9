"""A subscriber can ask where it stands and what it missed."""

import json
from typing import Any

import pytest

from profiles.fhir_json import parse
from profiles.validate import validate
from server.coordination.events import events_bundle
from server.coordination.status import status_bundle
from server.domain.errors import Refused

ENTITY = "ACCES12345"


async def _status(world: Any, client: str = "pcp-1", **options: Any) -> list[dict[str, Any]]:
    bundle = await status_bundle(world.context, participant_id=ENTITY, caller_client_id=client, **options)
    assert [issue for issue in validate(bundle) if issue.is_error] == []
    return [{p["name"]: p for p in e["resource"]["parameter"]} for e in bundle.get("entry", [])]


async def _events(world: Any, client: str = "pcp-1", since: int = 1, until: int = 99) -> dict[str, Any]:
    body = await events_bundle(
        world.context,
        participant_id=ENTITY,
        caller_client_id=client,
        subscription_id="sub-1",
        since=since,
        until=until,
    )
    assert [issue for issue in validate(parse(body)) if issue.is_error] == []
    found: dict[str, Any] = json.loads(body)
    return found


def _numbers(bundle: dict[str, Any]) -> list[str]:
    parameters = bundle["entry"][0]["resource"]["parameter"]
    return [p["part"][0]["valueString"] for p in parameters if p["name"] == "notification-event"]


async def test_status_is_answered_in_error_too(world: Any, receiver: Any) -> None:
    """State and event count of a subscription whose endpoint refused."""
    receiver.status = 400
    await world.subscribe(world.subscription(receiver.url))
    await world.work()
    await world.happen("initiation")
    await world.work()
    (told,) = await _status(world, ids=("sub-1",))
    assert told["status"]["valueCode"] == "error"
    assert told["type"]["valueCode"] == "query-status"
    assert told["events-since-subscription-start"]["valueString"] == "1"
    assert told["subscription"]["valueReference"]["reference"] == "http://facade.test/fhir/Subscription/sub-1"
    assert "error" in told


async def test_only_ones_own(world: Any, receiver: Any) -> None:
    """Another client's subscription is not there; the operator sees all; ids and statuses choose."""
    await world.subscribe(world.subscription(receiver.url))
    await world.subscribe(world.subscription(receiver.url), client="hie-1", subscription_id="sub-2")
    assert len(await _status(world)) == 1
    assert len(await _status(world, client="boss")) == 2
    assert len(await _status(world, client="boss", statuses=("active",))) == 0
    assert len(await _status(world, client="stranger")) == 0
    with pytest.raises(Refused) as refused:
        await _status(world, ids=("sub-2",))
    assert refused.value.status == 404


async def test_no_secret_in_any_answer(world: Any, receiver: Any) -> None:
    """Neither the stored resource, nor $status, nor $events, nor a notification holds a header's value."""
    await world.subscribe(world.subscription(receiver.url, content="full-resource"))
    await world.work()
    await world.happen("initiation")
    await world.work()
    bundle = await status_bundle(world.context, participant_id=ENTITY, caller_client_id="pcp-1")
    shown = [json.dumps(bundle), json.dumps(await _events(world))]
    shown += [(await world.stored("Subscription", "sub-1")).body.decode()]
    shown += [body.decode() for _, body in receiver.requests]
    shown += [repr(await world.deliveries())]
    assert all("very-secret-1" not in text for text in shown)


async def test_missed_events_can_be_asked_for(world: Any, receiver: Any) -> None:
    """$events gives the events of a range again, each version of a resource once, at the subscription's level."""
    await world.subscribe(world.subscription(receiver.url, content="full-resource"))
    await world.work()
    for moment in ("initiation", "completion"):
        await world.happen(moment)
        await world.work()
    everything = await _events(world)
    assert _numbers(everything) == ["1", "2"]
    assert _numbers(await _events(world, since=2)) == ["2"]
    assert _numbers(await _events(world, until=1)) == ["1"]
    plans = [e["resource"]["status"] for e in everything["entry"] if e["resource"]["resourceType"] == "CarePlan"]
    assert plans == ["active", "completed"]
    assert everything["entry"][0]["resource"]["parameter"][3]["valueCode"] == "query-event"


@pytest.mark.parametrize("client", ["hie-1", "gateway", "stranger", "unknown"])
async def test_events_of_others_do_not_exist(world: Any, receiver: Any, client: str) -> None:
    """Nobody else can ask for a client's events."""
    await world.subscribe(world.subscription(receiver.url))
    with pytest.raises(Refused) as refused:
        await _events(world, client=client)
    assert refused.value.status == 404
