"""The token endpoint for clients that are who they say."""

import asyncio
import base64
import time
from typing import Any

import pytest

from server.auth.jwks import COOL_DOWN, OLDEST, YOUNGEST, UrlKeys, cache_seconds
from server.domain.errors import BadConfiguration, PeerUnavailable
from server.keys import published_jwk

World = Any
SECRET = "a-secret-of-the-pcp-0123456789"


def _basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


@pytest.mark.parametrize("kind", ["es384", "rs384"])
async def test_a_signed_assertion_gets_a_token(world: World, kind: str) -> None:
    """ES384 and RS384 both work; the answer has the four members and is not to be stored. SMART Backend Services."""
    answer = await world.ask(world.assertion(getattr(world, kind)))
    body = answer.json()
    assert answer.status_code == 200
    assert body.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 300, "system/Observation.rs")
    assert answer.headers["cache-control"] == "no-store"
    assert [(entry.agent, entry.subtype, entry.outcome) for entry in world.store.audit] == [("ehr-1", "login", "0")]


async def test_the_token_opens_the_door(world: World) -> None:
    """The access token names the client and its participant."""
    token = (await world.ask(world.assertion())).json()["access_token"]
    answer = await world.http.get("/fhir/Patient", headers={"Authorization": f"Bearer {token}"})
    assert answer.json() == {"client_id": "ehr-1", "participant_id": "ACCES12345"}


async def test_an_audience_list_of_exactly_us_is_taken(world: World) -> None:
    """Some libraries write a single audience as a list."""
    answer = await world.ask(world.assertion(aud=["http://facade.test/auth/token"]))
    assert answer.status_code == 200


async def test_a_secret_works_in_the_header_and_in_the_form(world: World) -> None:
    """client_secret_basic and client_secret_post. RFC 6749, section 2.3.1."""
    form = {"grant_type": "client_credentials", "scope": "system/Patient.rs"}
    in_header = await world.http.post("/auth/token", data=form, headers=_basic("pcp-1", SECRET))
    in_form = await world.http.post("/auth/token", data={**form, "client_id": "pcp-1", "client_secret": SECRET})
    assert (in_header.status_code, in_form.status_code) == (200, 200)


@pytest.mark.parametrize(
    "headers",
    [
        _basic("pcp-1", "wrong" * 5),
        _basic("pcp-1", ""),
        _basic("ehr-1", SECRET),
        _basic("nobody", SECRET),
        {"Authorization": "Basic !!!"},
        {"Authorization": "Bearer abc"},
        {},
    ],
)
async def test_a_wrong_secret_is_refused(world: World, headers: dict[str, str]) -> None:
    """Wrong, empty, of another client, of nobody, unreadable or missing: all alike."""
    answer = await world.http.post("/auth/token", data={"grant_type": "client_credentials"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": "authorization_code"}, "unsupported_grant_type"),
        ({"scope": "system/*.rs"}, "invalid_request"),
        ({"grant_type": "client_credentials", "client_secret": "x", "client_id": "pcp-1"}, "invalid_request"),
        ({"grant_type": "client_credentials", "scope": "system/Observation.rs"}, "invalid_scope"),
        ({"grant_type": "client_credentials", "scope": "patient/Patient.rs user/Patient.rs"}, "invalid_scope"),
    ],
)
async def test_malformed_requests_get_their_code(world: World, form: dict[str, str], error: str) -> None:
    """The codes of RFC 6749, section 5.2, with status 400."""
    answer = await world.http.post("/auth/token", data=form, headers=_basic("pcp-1", SECRET))
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_a_repeated_parameter_is_refused(world: World) -> None:
    """No parameter may stand twice. RFC 6749, section 3.2."""
    content = b"grant_type=client_credentials&scope=system/Patient.rs&scope=system/*.cruds"
    headers = {"Content-Type": "application/x-www-form-urlencoded", **_basic("pcp-1", SECRET)}
    answer = await world.http.post("/auth/token", content=content, headers=headers)
    assert answer.json()["error"] == "invalid_request"


async def test_json_is_no_form(world: World) -> None:
    """The endpoint takes forms only."""
    answer = await world.http.post("/auth/token", json={"grant_type": "client_credentials"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_more_than_registered_is_cut(world: World) -> None:
    """Asking for all rights gives the registered ones, and the answer says so."""
    form = {"grant_type": "client_credentials", "scope": "system/*.cruds access/submit"}
    answer = await world.http.post("/auth/token", data=form, headers=_basic("pcp-1", SECRET))
    assert answer.json()["scope"] == "system/Patient.rs"


async def test_asking_for_no_scope_gives_the_registered_ones(world: World) -> None:
    """The default of RFC 6749, section 3.3."""
    answer = await world.http.post(
        "/auth/token", data={"grant_type": "client_credentials"}, headers=_basic("pcp-1", SECRET)
    )
    assert answer.json()["scope"] == "system/Patient.rs"


async def test_a_jku_may_name_the_registered_url(world: World) -> None:
    """`jku` is taken when it equals the registered JWKS URL."""
    world.key_server.keys = [published_jwk(world.es384)]
    header = {"jku": "https://hie.test/jwks.json"}
    assert (await world.ask(world.assertion(header=header, iss="hie-1", sub="hie-1"))).status_code == 200


async def test_keys_are_fetched_once_for_many_tokens(world: World) -> None:
    """The JWKS is cached, and unknown key ids do not make us ask again and again."""
    world.key_server.keys = [published_jwk(world.es384)]
    for _ in range(3):
        assert (await world.ask(world.assertion(iss="hie-1", sub="hie-1"))).status_code == 200
        await world.ask(world.assertion(header={"kid": "unknown"}, iss="hie-1", sub="hie-1"))
    assert world.key_server.asked == 1


async def test_many_at_once_make_one_fetch(world: World) -> None:
    """The fetch is done by one, the others wait for it."""
    world.key_server.keys = [published_jwk(world.es384)]
    assertions = [world.assertion(iss="hie-1", sub="hie-1") for _ in range(8)]
    answers = await asyncio.gather(*(world.ask(assertion) for assertion in assertions))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert world.key_server.asked == 1


async def test_a_rotated_key_is_found_after_the_cool_down(world: World) -> None:
    """A new kid makes us fetch again, once the last fetch is old enough."""
    now = [0.0]
    client = world.authority._keys["hie-1"]._http
    keys = UrlKeys("https://hie.test/jwks.json", client, monotonic=lambda: now[0])
    assert await keys.find(kid=world.es384.kid, alg="ES384") is None
    world.key_server.keys = [published_jwk(world.es384)]
    assert await keys.find(kid=world.es384.kid, alg="ES384") is None
    now[0] += COOL_DOWN
    assert await keys.find(kid=world.es384.kid, alg="ES384") is not None
    assert world.key_server.asked == 2


@pytest.mark.parametrize(
    "broken",
    [
        {"status": 500},
        {"status": 302, "headers": {"Location": "https://attacker.test/"}},
        {"body": b"<html>"},
        {"body": b'{"keys": 1}'},
        {"body": b'{"keys": [' + b" " * 300_000 + b"]}"},
        {"body": b'{"keys": [], "keys": []}'},
    ],
)
async def test_a_key_server_that_fails_is_left_alone_for_a_while(world: World, broken: dict[str, Any]) -> None:
    """A failed fetch is a 503 with Retry-After, and is not repeated at once; redirects are not followed."""
    vars(world.key_server).update(broken)
    for _ in range(3):
        answer = await world.ask(world.assertion(iss="hie-1", sub="hie-1"))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) <= COOL_DOWN
    assert world.key_server.asked == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("max-age=60", 60),
        ("public, max-age=999999", OLDEST),
        ("no-store", YOUNGEST),
        ("max-age=0", YOUNGEST),
        ("", 300),
    ],
)
def test_cache_control_is_kept_to(header: str, seconds: float) -> None:
    """Keys are kept as long as the answer says, within an hour."""
    assert cache_seconds(header) == seconds


@pytest.mark.parametrize("url", ["http://hie.test/jwks.json", "ftp://hie.test/", "file:///etc/passwd"])
def test_a_jwks_url_must_be_https(url: str) -> None:
    """Anything but https is refused at start, in plain words; http on loopback is for demos."""
    with pytest.raises(BadConfiguration, match="must be https"):
        UrlKeys(url, None)  # type: ignore[arg-type]


async def test_expired_assertions_are_forgotten(world: World) -> None:
    """Used assertions are deleted once they have expired."""
    await world.ask(world.assertion(exp=int(time.time()) + 1))
    assert len(world.store.seen) == 1
    row = next(iter(world.store.seen.values()))
    from dataclasses import replace
    from datetime import timedelta

    world.store.seen = {(row.issuer, row.jti): replace(row, expires_at=row.expires_at - timedelta(hours=1))}
    world.authority._forgot_at -= timedelta(hours=1)
    await world.ask(world.assertion(jti="another"))
    assert list(world.store.seen) == [("ehr-1", "another")]


async def test_the_participants_public_keys_are_published(world: World) -> None:
    """The JWKS has the current and the next key of the participant, public members only, and nobody else's."""
    answer = await world.http.get("/participants/ACCES12345/jwks.json")
    keys = answer.json()["keys"]
    assert len(keys) == 2
    assert all(key.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"} for key in keys)
    assert "max-age" in answer.headers["cache-control"]


async def test_an_unknown_participant_has_no_keys(world: World) -> None:
    """404 with an OperationOutcome."""
    answer = await world.http.get("/participants/ACCES99999/jwks.json")
    assert (answer.status_code, answer.json()["resourceType"]) == (404, "OperationOutcome")


def test_peer_trouble_is_temporary() -> None:
    """A key server that does not answer is no fault of the client."""
    assert PeerUnavailable("x", retry_after_seconds=2).retry_after_seconds == 2
