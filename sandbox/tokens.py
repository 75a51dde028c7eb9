"""The token endpoint and the bearer check.

OAuth 2.0 client credentials (RFC 6749, 4.4) by client_secret_basic, client_secret_post or private_key_jwt (RFC 7523;
RS384 or ES384 as SMART Backend Services). Tokens end by the sandbox's clock; assertions are judged by the machine's.
"""

import asyncio
import base64
import binascii
import hashlib
import json
import secrets
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import jwt

from sandbox import tables
from sandbox.clock import machine_now
from sandbox.exchange import Answer, Exchange, Refused, refusal
from sandbox.settings import Client
from sandbox.world import World

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whose token it is. `entity_id` None: it may act for any participant."""

    client_id: str
    entity_id: str | None
    scope: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the request authenticates with."""

    client_id: str
    method: str
    secret: str = ""


def answer(world: World, exchange: Exchange) -> Answer:
    """POST /oauth2/token."""
    if exchange.method != "POST":
        return _error(405, "invalid_request", "use POST")
    form = _form(exchange)
    if form.get("grant_type") != "client_credentials":
        return _error(400, "unsupported_grant_type", "grant_type must be client_credentials")
    credentials = _credentials(exchange, form)
    if credentials is None or not _authentic(world, exchange, form, credentials):
        return _error(401, "invalid_client", "Client authentication failed")
    allowed = set(tables.program()["token"]["scope"].values())
    scope = form.get("scope", "").split() or sorted(allowed)
    if not set(scope) <= allowed:
        return _error(400, "invalid_scope", f"scope must be of {' '.join(sorted(allowed))}")
    return _issue(world, credentials.client_id, " ".join(scope))


def _error(status: int, error: str, description: str) -> Answer:
    headers = NO_STORE | ({"WWW-Authenticate": 'Basic realm="access"'} if status == 401 else {})
    return Answer(status, {"error": error, "error_description": description}, headers)


def _form(exchange: Exchange) -> dict[str, str]:
    if not exchange.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    fields = parse_qs(exchange.body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0] for name, values in fields.items() if len(values) == 1}


def _credentials(exchange: Exchange, form: dict[str, str]) -> Credentials | None:
    """The one method used; None if there is none, or more than one (RFC 6749, 2.3)."""
    found = []
    scheme, _, encoded = exchange.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        found.append(_basic(encoded))
    if "client_secret" in form:
        found.append(Credentials(form.get("client_id", ""), "client_secret_post", form["client_secret"]))
    if "client_assertion" in form:
        found.append(Credentials(_subject(form["client_assertion"]), "private_key_jwt"))
    return found[0] if len(found) == 1 else None


def _basic(encoded: str) -> Credentials:
    with suppress(binascii.Error, UnicodeDecodeError):
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        return Credentials(unquote_plus(client_id), "client_secret_basic", unquote_plus(secret))
    return Credentials("", "client_secret_basic")


def _subject(assertion: str) -> str:
    with suppress(jwt.InvalidTokenError):
        return str(jwt.decode(assertion, options={"verify_signature": False}).get("sub", ""))
    return ""


def _authentic(world: World, exchange: Exchange, form: dict[str, str], credentials: Credentials) -> bool:
    client = world.settings.clients.get(credentials.client_id)
    allowed = client.methods if client and client.methods is not None else world.settings.methods
    if credentials.method not in allowed or not credentials.client_id:
        return False
    if credentials.method == "private_key_jwt":
        return client is not None and _signed(world, exchange, form, client)
    if client is None:
        return not world.settings.clients and bool(credentials.secret)
    secret = client.secret()
    return secret is not None and secrets.compare_digest(secret.encode(), credentials.secret.encode())


def _signed(world: World, exchange: Exchange, form: dict[str, str], client: Client) -> bool:
    """Whether the assertion is signed by a registered key, for this endpoint, short-lived and new."""
    if (
        form.get("client_assertion_type") != ASSERTION_TYPE
        or form.get("client_id", client.client_id) != client.client_id
    ):
        return False
    claims = _claims(exchange, form["client_assertion"], client, client.keys() + world.jwks.get(client.client_id, []))
    if claims is None or claims["iss"] != client.client_id or claims["sub"] != client.client_id:
        return False
    longest = int(tables.program()["token"]["assertion_seconds"])
    if claims["exp"] > machine_now().timestamp() + longest + 5:
        return False
    return world.store.insert("assertion", client_id=client.client_id, jti=str(claims["jti"])) == 1


def _claims(exchange: Exchange, assertion: str, client: Client, keys: list[dict[str, Any]]) -> dict[str, Any] | None:
    algorithms = tables.program()["token"]["algorithms"]
    with suppress(jwt.InvalidTokenError, jwt.PyJWKError):
        key_id = jwt.get_unverified_header(assertion).get("kid")
        matching = [key for key in keys if key.get("kid") == key_id]
        for key in matching:
            claims: dict[str, Any] = jwt.decode(
                assertion, jwt.PyJWK(key), algorithms=algorithms, audience=f"{exchange.base}{exchange.path}", leeway=5,
                options={"require": ["iss", "sub", "aud", "exp", "jti"]},
            )  # fmt: skip
            return claims
    return None


def _issue(world: World, client_id: str, scope: str) -> Answer:
    token = secrets.token_urlsafe(32)
    seconds = int(tables.program()["token"]["seconds"])
    client = world.settings.clients.get(client_id)
    world.store.insert(
        "token", sha256=_hash(token), client_id=client_id, entity_id=client.entity_id if client else None, scope=scope,
        expires_at=(world.clock.now() + timedelta(seconds=seconds)).isoformat(),
    )  # fmt: skip
    body = {"access_token": token, "token_type": "Bearer", "expires_in": seconds, "scope": scope}
    return Answer(200, body, NO_STORE)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def bearer(world: World, exchange: Exchange, need: str) -> Bearer:
    """Whose token the request carries. Raises Refused: 401, or 403 without the scope (`need`: post or status)."""
    scheme, _, token = exchange.headers.get("authorization", "").partition(" ")
    row = world.store.one("SELECT * FROM token WHERE sha256 = ?", _hash(token)) if scheme.lower() == "bearer" else None
    if row is None or datetime.fromisoformat(row["expires_at"]) <= world.clock.now():
        raise unauthorized()
    if tables.program()["token"]["scope"][need] not in row["scope"].split():
        raise refusal(403, f"The token lacks scope {tables.program()['token']['scope'][need]}")
    return Bearer(row["client_id"], row["entity_id"], row["scope"])


def unauthorized() -> Refused:
    """401 as the guide shows it."""
    return refusal(401, "Invalid or expired access token", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


async def fetch_keys(world: World, exchange: Exchange) -> None:
    """Before the request is answered: gets the keys of a client with a jwks_url. A failure leaves the old ones."""
    assertion = _form(exchange).get("client_assertion")
    client = world.settings.clients.get(_subject(assertion)) if assertion else None
    if client is not None and client.jwks_url:
        with suppress(OSError, ValueError, KeyError):
            world.jwks[client.client_id] = await asyncio.to_thread(_get_keys, client.jwks_url)


def _get_keys(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - the operator's own setting
        keys: list[dict[str, Any]] = json.load(response)["keys"]
    return keys
