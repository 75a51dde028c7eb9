"""The token endpoint: each way to authenticate, each refusal; and what a token is good for."""

import base64
import json
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sandbox.settings import Client, load
from sandbox.tokens import ASSERTION_TYPE

TOKEN_URL = "http://cms.test/oauth2/token"
KEYS = {"RS384": rsa.generate_private_key(65537, 2048), "ES384": ec.generate_private_key(ec.SECP384R1())}
GRANT = {"grant_type": "client_credentials"}


def jwks() -> dict[str, Any]:
    """The public keys, named by their algorithms."""
    public = {
        "RS384": jwt.algorithms.RSAAlgorithm.to_jwk(KEYS["RS384"].public_key(), as_dict=True),
        "ES384": jwt.algorithms.ECAlgorithm.to_jwk(KEYS["ES384"].public_key(), as_dict=True),
    }
    return {"keys": [{**key, "kid": name, "alg": name} for name, key in public.items()]}


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """A registered client with a secret and keys."""
    (tmp_path / "secret").write_text("s3cret:with%colon\n")
    (tmp_path / "jwks.json").write_text(json.dumps(jwks()))
    return Client("example", "ACCES12345", tmp_path / "secret", tmp_path / "jwks.json")


@pytest.fixture
def cms(open_cms: Callable[..., Any], client: Client) -> Any:
    """A sandbox that knows this client only."""
    return open_cms(clients={"example": client})


def assertion(algorithm: str = "RS384", **changes: Any) -> dict[str, str]:
    """The form of a private_key_jwt request."""
    now = int(time.time())
    claims = {"iss": "example", "sub": "example", "aud": TOKEN_URL, "exp": now + 240, "jti": str(uuid.uuid4())}
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    signed = jwt.encode(claims, KEYS[algorithm], algorithm=algorithm, headers={"kid": algorithm})
    return {**GRANT, "client_assertion_type": ASSERTION_TYPE, "client_assertion": signed}


def basic(client_id: str, secret: str) -> dict[str, str]:
    """The header of client_secret_basic, its parts form-encoded as RFC 6749 has it."""
    quoted = secret.replace("%", "%25").replace(":", "%3A")
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{quoted}".encode()).decode()}


async def test_basic(cms: Any) -> None:
    """HTTP Basic: a bearer token for 300 seconds with all scopes."""
    answer = await cms.client.post("/oauth2/token", data=GRANT, headers=basic("example", "s3cret:with%colon"))
    body = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 300)
    assert body["scope"] == "cdx/*.read cdx/fhir-resource.write"


async def test_post(cms: Any) -> None:
    """Secret in the form."""
    form = {**GRANT, "client_id": "example", "client_secret": "s3cret:with%colon", "scope": "cdx/*.read"}
    answer = await cms.client.post("/oauth2/token", data=form)
    assert (answer.status_code, answer.json()["scope"]) == (200, "cdx/*.read")


@pytest.mark.parametrize("algorithm", ["RS384", "ES384"])
async def test_private_key_jwt(cms: Any, algorithm: str) -> None:
    """A signed assertion, RS384 or ES384, once."""
    form = assertion(algorithm)
    assert (await cms.client.post("/oauth2/token", data=form)).status_code == 200
    again = await cms.client.post("/oauth2/token", data=form)
    assert (again.status_code, again.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "http://cms.test/fhir"},
        {"exp": int(time.time()) + 900},
        {"exp": int(time.time()) - 60},
        {"iss": "another"},
        {"sub": "another"},
        {"jti": None},
        {"exp": None},
    ],
)
async def test_bad_assertion(cms: Any, changes: dict[str, Any]) -> None:
    """Another audience, too long a life, expired, another issuer or subject, no jti: refused."""
    answer = await cms.client.post("/oauth2/token", data=assertion(**changes))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_foreign_key(cms: Any) -> None:
    """An assertion signed by a key that is not registered is refused."""
    stranger = rsa.generate_private_key(65537, 2048)
    form = assertion()
    claims = jwt.decode(form["client_assertion"], options={"verify_signature": False})
    form["client_assertion"] = jwt.encode(claims, stranger, algorithm="RS384", headers={"kid": "RS384"})
    assert (await cms.client.post("/oauth2/token", data=form)).status_code == 401


async def test_keys_are_read_anew(cms: Any, client: Client) -> None:
    """A key registered while the sandbox runs is good at once."""
    assert client.jwks_file is not None
    client.jwks_file.write_text('{"keys": []}')
    assert (await cms.client.post("/oauth2/token", data=assertion())).status_code == 401
    client.jwks_file.write_text(json.dumps(jwks()))
    assert (await cms.client.post("/oauth2/token", data=assertion())).status_code == 200


@pytest.mark.parametrize(
    ("form", "headers", "status", "error"),
    [
        ({**GRANT}, {}, 401, "invalid_client"),
        ({**GRANT}, basic("example", "wrong"), 401, "invalid_client"),
        ({**GRANT}, basic("stranger", "s3cret:with%colon"), 401, "invalid_client"),
        ({**GRANT}, {"Authorization": "Basic %%%"}, 401, "invalid_client"),
        ({**GRANT, "client_id": "example", "client_secret": ""}, {}, 401, "invalid_client"),
        ({**GRANT, "client_secret": "x"}, basic("example", "s3cret:with%colon"), 401, "invalid_client"),
        ({"grant_type": "password"}, basic("example", "s3cret:with%colon"), 400, "unsupported_grant_type"),
        ({**GRANT, "scope": "system/*.read"}, basic("example", "s3cret:with%colon"), 400, "invalid_scope"),
    ],
)
async def test_refused(cms: Any, form: dict[str, str], headers: dict[str, str], status: int, error: str) -> None:
    """OAuth's error codes in OAuth's shape."""
    answer = await cms.client.post("/oauth2/token", data=form, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert (status == 401) is ("www-authenticate" in answer.headers)


async def test_allowed_methods(open_cms: Callable[..., Any], client: Client) -> None:
    """Basic only, as CMS's test environment was seen to be: the form is refused."""
    cms = open_cms(clients={"example": client}, methods=("client_secret_basic",))
    form = {**GRANT, "client_id": "example", "client_secret": "s3cret:with%colon"}
    assert (await cms.client.post("/oauth2/token", data=form)).status_code == 401
    assert (await cms.client.post("/oauth2/token", data=assertion())).status_code == 401
    headers = basic("example", "s3cret:with%colon")
    assert (await cms.client.post("/oauth2/token", data=GRANT, headers=headers)).status_code == 200


async def test_anyone_without_clients(open_cms: Callable[..., Any]) -> None:
    """Without registered clients any id with any secret is taken, but no assertion."""
    cms = open_cms()
    assert (await cms.client.post("/oauth2/token", data=GRANT, headers=basic("any", "thing"))).status_code == 200
    assert (await cms.client.post("/oauth2/token", data=assertion())).status_code == 401


async def test_expiry(open_cms: Callable[..., Any]) -> None:
    """A token ends after 300 seconds of the sandbox's clock, with a 401 in the guide's shape."""
    cms = open_cms()
    await cms.day(0)
    headers = await cms.headers()
    location = "/fhir/access/Patient/$submission-status/none"
    for seconds, status in [(295, 404), (301, 401)]:
        now = cms.world.clock.now()
        await cms.client.post("/sandbox/clock", json={"now": (now + timedelta(seconds=seconds)).isoformat()})
        answer = await cms.client.get(location, headers=headers)
        assert answer.status_code == status
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    issue = {"severity": "error", "code": "security", "details": {"text": "Invalid or expired access token"}}
    assert answer.json()["issue"] == [issue]


async def test_scope(cms: Any) -> None:
    """A token without the scope of a call is a 403."""
    form = {**GRANT, "client_id": "example", "client_secret": "s3cret:with%colon", "scope": "cdx/*.read"}
    token = (await cms.client.post("/oauth2/token", data=form)).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    url = "/fhir/access/Patient/$align?entityId=ACCES12345"
    answer = await cms.client.post(url, json=cms.made.align(), headers=headers)
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (403, "forbidden")


async def test_other_participant(open_cms: Callable[..., Any], client: Client, tmp_path: Path) -> None:
    """A participant's token is not good for another's requests, and does not see its submissions."""
    other = Client("other", "ACCES54321", client.client_secret_file)
    cms = open_cms(clients={"example": client, "other": other})

    async def headers(client_id: str) -> dict[str, str]:
        sent = basic(client_id, "s3cret:with%colon")
        token = (await cms.client.post("/oauth2/token", data=GRANT, headers=sent)).json()["access_token"]
        return {"Authorization": f"Bearer {token}"}

    url = "/fhir/access/Patient/$align?entityId=ACCES12345"
    refused = await cms.client.post(url, json=cms.made.align(), headers=await headers("other"))
    taken = await cms.client.post(url, json=cms.made.align(), headers=await headers("example"))
    location = taken.headers["content-location"]
    assert (refused.status_code, taken.status_code) == (403, 202)
    assert (await cms.client.get(location, headers=await headers("other"))).status_code == 404
    assert (await cms.client.get(location, headers=await headers("example"))).status_code == 200


def test_configuration(tmp_path: Path) -> None:
    """The file that `access-facade init --demo` writes is read; paths are relative to it."""
    (tmp_path / "sandbox.toml").write_text(
        '[sandbox]\nlatency = 1\ndata = "s.db"\n[smtp]\nhost = "127.0.0.1"\nport = 8092\nfrom = "a@cms.example"\n'
        'to = "b@care.example"\n[[client]]\nclient_id = "example"\nentity_id = "ACCES12345"\n'
        'client_secret_file = "x.secret"\njwks_file = "x.json"\n'
    )
    settings = load(tmp_path / "sandbox.toml", latency=None)
    assert (settings.latency, settings.data) == (1.0, tmp_path / "s.db")
    assert settings.clients["example"].jwks_file == tmp_path / "x.json"
    assert settings.smtp is not None
    assert (settings.smtp.sender, settings.smtp.address("ACCES12345")) == ("a@cms.example", "b@care.example")
