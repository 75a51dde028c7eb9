"""CMS's result as a notification: a client that subscribed need not poll."""

from datetime import timedelta
from typing import Any

import pytest

from profiles import fhir_json
from server.coordination import deliver
from server.coordination.channel import Answer, Outgoing, Verdict
from server.demo import messages
from server.domain.coordination import Delivery

CONTENT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-payload-content"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every notification that leaves, with the endpoint."""
    found: list[dict[str, Any]] = []

    async def send(outgoing: Outgoing, _: Any) -> Answer:
        found.append({"endpoint": outgoing.endpoint, "bundle": fhir_json.parse(outgoing.body), "bytes": outgoing.body})
        return Answer(verdict=Verdict.DELIVERED, status=200)

    monkeypatch.setitem(deliver.SENDERS, "rest-hook", send)
    return found


def subscription(endpoint: str, content: str = "full-resource") -> dict[str, Any]:
    return {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "Results of CMS",
        "criteria": "http://facade.test/SubscriptionTopic/submission-result",
        "channel": {
            "type": "rest-hook",
            "endpoint": f"http://127.0.0.1:9/{endpoint}",
            "payload": "application/fhir+json",
            "_payload": {"extension": [{"url": CONTENT, "valueCode": content}]},
        },
    }


async def asked(installation: Any) -> str:
    """The EHR asks CMS, and CMS answers; the status URL."""
    answer = await installation.operation("check-eligibility", messages.operation("check-eligibility", "CKM"))
    location = str(answer.headers["Content-Location"])
    await installation.result(location.rpartition("/")[2])
    await installation.work(until=timedelta(seconds=5))
    return location


async def test_the_result_comes_by_itself(installation: Any, sent: list[dict[str, Any]]) -> None:
    """The very bytes that a poll gives, under the status URL, with the next event number."""
    made = await installation.call("ehr-1", "POST", "/fhir/Subscription", subscription("mine"))
    assert made.status_code == 201, made.text
    await installation.work()
    location = await asked(installation)
    polled = await installation.call("ehr-1", "GET", location)
    handshake, event = sent
    assert handshake["bundle"]["entry"][0]["resource"]["parameter"][3]["valueCode"] == "handshake"
    entry = event["bundle"]["entry"][1]
    assert entry["fullUrl"] == location
    assert polled.content in event["bytes"]
    (row,) = await installation.context.store.find(Delivery)
    assert row.state == "delivered"


async def test_a_refusal_at_the_post_comes_too(installation: Any, sent: list[dict[str, Any]]) -> None:
    """CMS's 400 to the request itself is its decision: the client is told as of any other."""
    await installation.call("ehr-1", "POST", "/fhir/Subscription", subscription("mine"))
    await installation.work()
    installation.cms.fault("check-eligibility", "http", status=400)
    location = await asked(installation)
    polled = await installation.call("ehr-1", "GET", location)
    assert polled.status_code == 400
    assert fhir_json.parse(polled.content)["resourceType"] == "OperationOutcome"
    _, event = sent
    assert event["bundle"]["entry"][1]["fullUrl"] == location


async def test_each_client_hears_of_its_own_requests(installation: Any, sent: list[dict[str, Any]]) -> None:
    """Another participant's client hears nothing; the participant's operator hears all."""
    for client in ("ehr-2", "operator-1"):
        made = await installation.call(client, "POST", "/fhir/Subscription", subscription(client))
        assert made.status_code == 201, made.text
    await installation.work()
    await asked(installation)
    endpoints = [one["endpoint"].rpartition("/")[2] for one in sent]
    assert sorted(endpoints) == ["ehr-2", "operator-1", "operator-1"]


async def test_who_may_not_submit_may_not_subscribe(installation: Any) -> None:
    """The scope access/submit is what a poll needs, too."""
    made = await installation.call("pcp-1", "POST", "/fhir/Subscription", subscription("pcp"))
    assert made.status_code == 403
    assert "access/submit" in made.text


async def test_id_only_names_the_status_address(installation: Any, sent: list[dict[str, Any]]) -> None:
    """No result in the notification: the receiver polls once."""
    await installation.call("ehr-1", "POST", "/fhir/Subscription", subscription("mine", "id-only"))
    await installation.work()
    location = await asked(installation)
    entry = sent[-1]["bundle"]["entry"][1]
    assert (entry["fullUrl"], "resource" in entry) == (location, False)
