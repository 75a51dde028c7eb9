"""Access tokens at the gate."""

import time
from typing import Any

import jwt
import pytest

from server.auth import is_public
from server.auth.caller import Caller
from server.keys import cms_signing_key

World = Any


async def _get(world: World, authorization: str | None, path: str = "/fhir/Patient") -> Any:
    headers = {} if authorization is None else {"Authorization": authorization}
    return await world.http.get(path, headers=headers)


def _own(world: World, key: str = "token-key.pem", typ: str = "at+jwt", **changes: Any) -> str:
    """A token as the facade would issue it, with changes."""
    now = int(time.time())
    claims = {
        "iss": "http://facade.test",
        "aud": "http://facade.test/fhir",
        "sub": "ehr-1",
        "scope": "system/*.cruds",
        "jti": "t1",
        "iat": now,
        "exp": now + 300,
        **changes,
    }
    signing = cms_signing_key(world.settings.key_file.parent / key)
    claims = {name: value for name, value in claims.items() if value is not None}
    return "Bearer " + jwt.encode(claims, signing.key, algorithm=signing.alg, headers={"typ": typ})


async def test_a_token_like_ours_is_taken(world: World) -> None:
    """The control for the refusals below; the scheme's case does not matter."""
    assert (await _get(world, _own(world))).status_code == 200
    assert (await _get(world, _own(world).replace("Bearer", "bearer"))).status_code == 200


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": 1}, "expired"),
        ({"exp": None}, "login"),
        ({"aud": "http://facade.test/auth/token"}, "login"),
        ({"iss": "https://other.test"}, "login"),
        ({"sub": "removed-client"}, "login"),
        ({"sub": None}, "login"),
        ({"scope": None}, "login"),
        ({"jti": None}, "login"),
        ({"typ": "JWT"}, "login"),
        ({"key": "cms-ACCES12345.pem"}, "login"),
    ],
)
async def test_a_wrong_token_is_refused(world: World, changes: dict[str, Any], code: str) -> None:
    """401 with WWW-Authenticate and an OperationOutcome: expired, foreign, of a removed client, of another kind."""
    answer = await _get(world, _own(world, **changes))
    assert answer.status_code == 401
    assert answer.json()["issue"][0]["code"] == code
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic eA==", "Token abc", "Bearer a.b.c", "Bearer " + "a" * 9000]
)
async def test_no_token_is_refused(world: World, header: str | None) -> None:
    """401 login, with a challenge."""
    answer = await _get(world, header)
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (401, "login")
    assert answer.headers["www-authenticate"].startswith("Bearer realm=")


async def test_a_client_assertion_is_no_access_token(world: World) -> None:
    """What a client signs itself opens no door."""
    assert (await _get(world, f"Bearer {world.assertion()}")).status_code == 401


async def test_an_unsigned_token_is_refused(world: World) -> None:
    """alg none."""
    token = jwt.encode({"sub": "ehr-1"}, None, algorithm="none")
    assert (await _get(world, f"Bearer {token}")).status_code == 401


async def test_two_authorization_headers_are_refused(world: World) -> None:
    """Which of two would count is nobody's guess."""
    headers = [("Authorization", _own(world)), ("Authorization", _own(world))]
    assert (await world.http.get("/fhir/Patient", headers=headers)).status_code == 401


async def test_a_remembered_token_still_expires(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remembering a verified token does not lengthen its life."""
    token = _own(world)
    assert isinstance(world.authority.authenticate(token), Caller)
    later = time.time() + 301
    monkeypatch.setattr(time, "time", lambda: later)
    answer = await _get(world, token)
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (401, "expired")


async def test_unknown_paths_need_a_token_too(world: World) -> None:
    """Without a token nobody learns which addresses exist."""
    assert (await _get(world, None, "/fhir/NoSuchThing")).status_code == 401
    assert (await _get(world, _own(world), "/fhir/NoSuchThing")).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/fhir/metadata",
        "/fhir/.well-known/smart-configuration",
        "/.well-known/smart-configuration",
        "/auth/token",
        "/participants/ACCES12345/jwks.json",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
    ],
)
def test_public_paths(path: str) -> None:
    """What is answered without a token."""
    assert is_public(path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/fhir",
        "/fhir/Patient",
        "/fhir/metadata/",
        "/fhir/metadata/../Patient",
        "/fhir/metadata/Patient",
        "//fhir/metadata",
        "/participants/a/b/jwks.json",
        "/participants/../jwks.json/x",
        "/console",
        "/metrics/",
    ],
)
def test_closed_paths(path: str) -> None:
    """What is not listed, letter by letter, is closed."""
    assert not is_public(path)
