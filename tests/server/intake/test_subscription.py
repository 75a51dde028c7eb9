"""A Subscription is taken only if all of it will be honoured, and gives no secret away."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from profiles.validate import validate
from server.context import Context
from server.domain.coordination import SubscriptionStatus
from server.domain.errors import Refused
from server.domain.job import JobKind
from server.intake.endpoint import Endpoint, check, permitted
from server.intake.subscription import (
    BACKPORT,
    CONTENT,
    FILTER,
    MASK,
    headers,
    may_receive,
    prepare,
    timeout_seconds,
    topics,
    wants,
    withdraw,
)
from server.settings import Author, Client, CmsEndpoint, Participant, Settings
from server.store.crypto import generate_master_key
from server.store.opening import open_store

ENTITY = "ACCES12345"
BASE = "https://facade.example"

# Forms by which a URL could reach what it must not: refused when no host is listed.
REFUSED = [
    "http://pcp.example.org/hook",  # not https
    "http://127.0.0.1/hook",
    "https://127.0.0.1/hook",
    "https://127.0.0.1:8443/hook",
    "https://127.1/hook",
    "https://127.0.1/hook",
    "https://0x7f.1/hook",
    "https://0x7f000001/hook",
    "https://0x7F.0.0.1/hook",
    "https://0177.0.0.1/hook",
    "https://017700000001/hook",
    "https://2130706433/hook",
    "https://127.0.0.01/hook",
    "https://0/hook",
    "https://0.0.0.0/hook",
    "https://localhost/hook",
    "https://LOCALHOST/hook",
    "https://localhost./hook",
    "https://x.localhost/hook",
    "https://[::1]/hook",
    "https://[::]/hook",
    "https://[::ffff:127.0.0.1]/hook",
    "https://[::ffff:7f00:1]/hook",
    "https://[::127.0.0.1]/hook",
    "https://[0:0:0:0:0:ffff:a9fe:a9fe]/latest/meta-data",
    "https://[64:ff9b::7f00:1]/hook",  # NAT64
    "https://[2002:7f00:1::]/hook",  # 6to4
    "https://[2001:0:0:0:0:0:80ff:fffe]/hook",  # Teredo
    "https://[fe80::1]/hook",
    "https://[fe80::1%25eth0]/hook",
    "https://[fc00::1]/hook",
    "https://[fd00:ec2::254]/latest/meta-data",
    "https://[ff02::1]/hook",
    "https://[2001:db8::1]/hook",
    "https://169.254.169.254/latest/meta-data",
    "https://10.0.0.8/hook",
    "https://172.16.0.1/hook",
    "https://192.168.1.1/hook",
    "https://100.64.0.1/hook",
    "https://198.18.0.1/hook",
    "https://224.0.0.1/hook",
    "https://240.0.0.1/hook",
    "https://255.255.255.255/hook",
    "https://metadata.google.internal/computeMetadata/v1",
    "https://printer.local/hook",
    "https://intranet/hook",
    "https://router.lan/hook",
    "https://1.0.0.127.in-addr.arpa/hook",
    "https://user@pcp.example.org/hook",  # user information
    "https://user:word@pcp.example.org/hook",
    "https://pcp.example.org@127.0.0.1/hook",
    "https://pcp.example.org#@127.0.0.1/hook",  # fragment
    "https://pcp.example.org/hook#part",
    "https://pcp.example.org\\@127.0.0.1/hook",  # backslash
    "https:\\\\127.0.0.1/hook",
    "https:/127.0.0.1/hook",
    "https:127.0.0.1/hook",
    "//127.0.0.1/hook",
    "https://%31%32%37.0.0.1/hook",  # escaped host
    "https://①②⑦.⓪.⓪.①/hook",  # digits that a lenient parser folds
    "https://ｌocalhost/hook",
    "https://pcp。example。org/hook",
    "https://pcp.example.org:0/hook",
    "https://pcp.example.org:99999/hook",
    "https://pcp.example.org:/hook",
    "https://pcp.example.org /hook",
    " https://pcp.example.org/hook",
    "https://pcp.example.org/hook\r\nHost: 127.0.0.1",
    "https://pcp.example.org/ho\tok",
    "https://pcp.example.org/hook\x00",
    "https://pcp..example.org/hook",
    "https://-pcp.example.org/hook",
    "https://pcp_x.example.org/hook",
    "https://" + "a" * 64 + ".example.org/hook",
    "https://pcp.example.org/" + "a" * 2048,
    "file:///etc/passwd",
    "ftp://pcp.example.org/hook",
    "gopher://pcp.example.org/hook",
    "javascript:alert(1)",
    "mailto:pcp@example.org",
    "ws://pcp.example.org/hook",
    "https://",
    "",
    "hook",
]
TAKEN = [
    "https://pcp.example.org/hook",
    "https://PCP.Example.org/hook",
    "https://pcp.example.org",
    "https://pcp.example.org:8443/fhir/$hook?token=a%20b&x=1",
    "https://xn--bcher-kva.example.org/hook",
    "https://8.8.8.8/hook",
    "https://[2606:4700::1111]/hook",
]


@pytest.mark.parametrize("url", REFUSED)
def test_forbidden_endpoints_are_refused(url: str) -> None:
    """No form of a URL leads to an address that is not public; the reason does not repeat the input."""
    reason = check(url, ())
    assert isinstance(reason, str)
    assert "127" not in reason


@pytest.mark.parametrize("url", TAKEN)
def test_public_endpoints_are_taken(url: str) -> None:
    """A public https URL is taken, and rebuilt from its parts it names the same place."""
    endpoint = check(url, ())
    assert isinstance(endpoint, Endpoint)
    assert check(endpoint.url(), ()) == endpoint


@pytest.mark.parametrize("url", [*REFUSED, *TAKEN])
def test_a_list_of_hosts_lets_nothing_else_through(url: str) -> None:
    """With listed hosts every other host is refused, public ones too."""
    assert isinstance(check(url, ("hie.example.net",)), str)


@pytest.mark.parametrize(
    ("url", "hosts", "taken"),
    [
        ("http://127.0.0.1:9000/hook", ("127.0.0.1",), True),
        ("http://127.0.0.1:9000/hook", ("127.0.0.1:9000",), True),
        ("http://127.0.0.1:9001/hook", ("127.0.0.1:9000",), False),
        ("http://[::1]:9000/hook", ("::1",), True),
        ("http://localhost:9000/hook", ("localhost",), True),
        ("http://localhost:9000/hook", ("127.0.0.1",), False),
        ("http://pcp.example.org/hook", ("pcp.example.org",), False),  # http is for loopback only
        ("https://10.0.0.8/hook", ("10.0.0.8",), True),  # the operator said so
        ("https://169.254.169.254/hook", ("169.254.169.254",), False),  # never, whoever says so
        ("https://engine/hook", ("engine",), True),
        ("https://pcp.example.org.evil.example/hook", ("pcp.example.org",), False),
        ("https://evil-pcp.example.org/hook", ("pcp.example.org",), False),
    ],
)
def test_listed_hosts(url: str, hosts: tuple[str, ...], taken: bool) -> None:
    """The list names hosts whole; loopback http needs it; link-local stays closed."""
    assert isinstance(check(url, hosts), Endpoint) is taken


@pytest.mark.parametrize(
    ("address", "listed", "allowed"),
    [
        ("93.184.216.34", False, True),
        ("10.0.0.8", False, False),
        ("10.0.0.8", True, True),
        ("127.0.0.1", True, False),
        ("::ffff:127.0.0.1", True, False),
        ("169.254.169.254", True, False),
        ("::ffff:169.254.169.254", True, False),
        ("fe80::1%eth0", True, False),
        ("0.0.0.0", True, False),
        ("fd00::1", True, True),
        ("fd00::1", False, False),
    ],
)
def test_resolved_addresses(address: str, listed: bool, allowed: bool) -> None:
    """What a name resolves to is looked at again: a listed name may lead inside, never to ourselves."""
    assert permitted(address, Endpoint("https", "pcp.example.org", 443, "/", listed)) is allowed


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    """A participant with clients of each kind, and a real store."""
    cms = CmsEndpoint(base_url="https://cms.example", token_url="https://cms.example/token", client_id="x")
    participant = Participant(entity_id=ENTITY, name="N", payer_id="1", cms=cms, author=Author("", "", ""))
    clients = [
        Client("pcp-1", ENTITY, "pcp", "system/*.rs system/Subscription.cruds"),
        Client("hie-1", ENTITY, "hie", "system/*.cruds"),
        Client("boss", ENTITY, "operator", "system/*.cruds"),
        Client("gateway", ENTITY, "ehr", "system/Observation.c system/Subscription.cruds"),
        Client("elsewhere", "ACCES99999", "pcp", "system/*.cruds"),
    ]
    settings = Settings(
        path=tmp_path / "access-facade.toml",
        base_url=BASE,
        store_url=f"sqlite:///{tmp_path / 'access.db'}",
        key_file=tmp_path / "master.key",
        participants={ENTITY: participant},
        clients={client.client_id: client for client in clients},
    )
    generate_master_key(settings.key_file)
    store = open_store(settings.store_url, settings.key_file)
    async with httpx2.AsyncClient() as http:
        yield Context(settings=settings, store=store, clock=_Clock(), http=http)
    await store.close()


class _Clock:
    def now(self) -> datetime:
        return datetime(2026, 8, 20, 1, 30, tzinfo=UTC)


def _resource(**changes: Any) -> dict[str, Any]:
    return {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "Care updates",
        "criteria": f"{BASE}/SubscriptionTopic/care-update",
        "channel": _channel(),
    } | changes


def _channel(**changes: Any) -> dict[str, Any]:
    return {
        "type": "rest-hook",
        "endpoint": "https://pcp.example.org/hook",
        "payload": "application/fhir+json",
        "_payload": {"extension": [{"url": CONTENT, "valueCode": "id-only"}]},
        "header": ["Authorization: Bearer very-secret-1", "X-Tenant:  7 "],
    } | changes


async def _prepared(context: Context, resource: dict[str, Any], client: str = "pcp-1") -> Any:
    return await prepare(resource, client, ENTITY, "sub-1", context)


async def test_a_sound_subscription_is_requested_and_asked_to_confirm(context: Context) -> None:
    """The row, the handshake job and the resource as it will be read."""
    shown, rows = await _prepared(context, _resource())
    (status,) = rows.insert
    assert (status.status, status.content, status.client_id, status.events) == ("requested", "id-only", "pcp-1", 0)
    assert [(job.kind, job.key) for job in rows.jobs] == [(JobKind.HANDSHAKE, "sub-1")]
    assert shown["status"] == "requested"
    assert [issue for issue in validate(shown) if issue.is_error] == []
    assert topics(BASE)[0] == status.topic


async def test_secrets_are_sent_and_never_shown(context: Context) -> None:
    """Header values stand in the sealed column only; the resource has a mask in their place."""
    shown, rows = await _prepared(context, _resource(error="old"))
    assert "very-secret-1" not in json.dumps(shown)
    assert shown["channel"]["header"] == [f"Authorization: {MASK}", f"X-Tenant: {MASK}"]
    assert "error" not in shown
    (status,) = rows.insert
    assert headers(status) == (("Authorization", "Bearer very-secret-1"), ("X-Tenant", "7"))
    await context.store.commit(rows)
    files = list(Path(context.settings.key_file).parent.glob("access.db*"))
    assert files
    assert all(b"very-secret-1" not in file.read_bytes() for file in files)


async def test_a_masked_header_keeps_its_value(context: Context) -> None:
    """Who sends back what it read does not lose its token; events go on being counted."""
    shown, rows = await _prepared(context, _resource())
    counted = replace(rows.insert[0], events=7, status="error")
    await context.store.commit(replace(rows, insert=(counted,)))
    _, again = await _prepared(context, shown | {"status": "active"})
    (status,) = again.replace
    assert headers(status)[0] == ("Authorization", "Bearer very-secret-1")
    assert (status.status, status.events) == ("requested", 7)


async def test_off_needs_no_handshake(context: Context) -> None:
    """A client switches its subscription off by an update."""
    _, rows = await _prepared(context, _resource())
    await context.store.commit(rows)
    shown, again = await _prepared(context, _resource(status="off"))
    assert again.jobs == ()
    assert (shown["status"], again.replace[0].status) == ("off", "off")


def _content(*values: str) -> dict[str, Any]:
    return {"extension": [{"url": CONTENT, "valueCode": value} for value in values]}


def _filtered(value: str, url: str = FILTER) -> dict[str, Any]:
    return {"_criteria": {"extension": [{"url": url, "valueString": value}]}}


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("Subscription.status", {"status": "off"}),
    ("Subscription.status", {"status": "error"}),
    ("Subscription.end", {"end": "2026-08-20T01:29:59Z"}),
    ("Subscription.end", {"end": "soon"}),
    ("Subscription.criteria", {"criteria": "Observation?patient=Patient/x"}),
    ("Subscription.criteria", {"criteria": f"{BASE}/SubscriptionTopic/other"}),
    ("Subscription.criteria.extension[0]", _filtered("x", "https://example.org/other")),
    ("Subscription.criteria.extension[0].value", _filtered("CarePlan?status=active")),
    ("Subscription.criteria.extension[0].value", _filtered("CarePlan?patient=Patient/x&status=active")),
    ("Subscription.criteria.extension[0].value", _filtered("CarePlan?patient=Group/x")),
    ("Subscription.criteria.extension[0].value", _filtered("Observation?patient=Patient/x")),
    ("Subscription.criteria.extension[0].value", _filtered("CarePlan?patient=Patient/x,")),
    ("Subscription.criteria.extension[0].value", _filtered("CarePlan?patient=")),
    ("Subscription.channel.type", {"channel": _channel(type="email")}),
    ("Subscription.channel.type", {"channel": _channel(type="websocket")}),
    ("Subscription.channel.type", {"channel": _channel(_type={"extension": [{"url": "x", "valueCode": "y"}]})}),
    ("Subscription.channel.payload", {"channel": _channel(payload="application/fhir+xml")}),
    ("Subscription.channel.payload.extension", {"channel": _channel(_payload=_content())}),
    ("Subscription.channel.payload.extension", {"channel": _channel(_payload=_content("all"))}),
    ("Subscription.channel.payload.extension", {"channel": _channel(_payload=_content("empty", "id-only"))}),
    ("Subscription.channel.endpoint", {"channel": _channel(endpoint="http://pcp.example.org/hook")}),
    ("Subscription.channel.endpoint", {"channel": {k: v for k, v in _channel().items() if k != "endpoint"}}),
    ("Subscription.channel.header[0]", {"channel": _channel(header=["no colon"])}),
    ("Subscription.channel.header[0]", {"channel": _channel(header=["X-A: b\r\nHost: c"])}),
    ("Subscription.channel.header[0]", {"channel": _channel(header=["Bad Name: b"])}),
    ("Subscription.channel.header[0]", {"channel": _channel(header=["X-A:"])}),
    ("Subscription.channel.header[0]", {"channel": _channel(header=["X-A: é"])}),
    ("Subscription.channel.header[0]", {"channel": _channel(header=["Host: inner"])}),
    ("Subscription.channel.header[1]", {"channel": _channel(header=["A: b", "transfer-encoding: chunked"])}),
    ("Subscription.channel.header[0]", {"channel": _channel(header=["Content-Length: 0"])}),
    ("Subscription.channel.header[0]", {"channel": _channel(header=[f"Authorization: {MASK}"])}),
    (
        "Subscription.channel.extension[0]",
        {"channel": _channel(extension=[{"url": BACKPORT + "backport-heartbeat-period", "valueUnsignedInt": 60}])},
    ),
]


@pytest.mark.parametrize(("location", "changes"), WRONG)
async def test_what_will_not_be_honoured_is_refused(context: Context, location: str, changes: dict[str, Any]) -> None:
    """Refused with the place; nothing of the input is repeated."""
    with pytest.raises(Refused) as refused:
        await _prepared(context, _resource(**changes))
    assert refused.value.status == 422
    assert [issue.location for issue in refused.value.issues] == [location]
    assert "very-secret-1" not in str(refused.value.issues)


async def test_all_mistakes_are_told_at_once(context: Context) -> None:
    """One answer names every place."""
    bad = _resource(status="off", criteria="x", channel=_channel(type="sms", payload="text/plain", endpoint="x"))
    with pytest.raises(Refused) as refused:
        await _prepared(context, bad)
    assert len(refused.value.issues) == 5


async def test_who_may_not_read_may_not_subscribe(context: Context) -> None:
    """A subscriber needs the right to read documents."""
    with pytest.raises(Refused) as refused:
        await _prepared(context, _resource(), client="gateway")
    assert refused.value.status == 403
    assert not may_receive(context.settings, "elsewhere", ENTITY)
    assert not may_receive(context.settings, "unknown", ENTITY)


async def test_another_clients_subscription_does_not_exist(context: Context) -> None:
    """An update or deletion by another client finds nothing; the operator's does, and the owner stays."""
    _, rows = await _prepared(context, _resource())
    await context.store.commit(rows)
    for attempt in (_prepared(context, _resource(), client="hie-1"), withdraw(ENTITY, "sub-1", "hie-1", context)):
        with pytest.raises(Refused) as refused:
            await attempt
        assert refused.value.status == 404
    _, by_operator = await _prepared(context, _resource(status="off"), client="boss")
    assert by_operator.replace[0].client_id == "pcp-1"


async def test_a_deleted_subscription_is_off_and_forgets_its_secret(context: Context) -> None:
    """What goes with a deletion."""
    _, rows = await _prepared(context, _resource())
    await context.store.commit(rows)
    await context.store.commit(await withdraw(ENTITY, "sub-1", "pcp-1", context))
    status = await context.store.get(SubscriptionStatus, participant_id=ENTITY, subscription_id="sub-1")
    assert status is not None
    assert (status.status, status.secret) == ("off", None)


@pytest.mark.parametrize(
    ("values", "heard"),
    [
        ([], ["a", "b"]),
        (["CarePlan?patient=Patient/a"], ["a"]),
        (["Goal?subject=a,b"], ["a", "b"]),
        (["CarePlan?patient=Patient/a", "DocumentReference?patient=Patient/a,Patient/b"], ["a"]),
        (["CarePlan?patient=Patient/a", "CarePlan?patient=Patient/b"], []),
    ],
)
async def test_filters(context: Context, values: list[str], heard: list[str]) -> None:
    """Within a filter a comma is OR; several filters are AND."""
    extensions = [{"url": FILTER, "valueString": value} for value in values]
    resource = _resource(**({"_criteria": {"extension": extensions}} if values else {}))
    await _prepared(context, resource)
    assert [patient for patient in ("a", "b") if wants(resource, patient)] == heard


def test_the_clients_timeout_can_only_shorten_ours() -> None:
    """backport-timeout counts where it is below our own."""
    url = BACKPORT + "backport-timeout"
    found = [
        timeout_seconds(_resource(channel=_channel(extension=[{"url": url, "valueUnsignedInt": n}])), 10.0)
        for n in (3, 60, 0)
    ]
    assert found == [3.0, 10.0, 10.0]
