"""Client assertions: a JWT that proves who the client is. Verified rule by rule; every failure has a short reason.

Source: SMART App Launch 2.2, Asymmetric Client Authentication; RFC 7523, section 3; RFC 8725.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jwt import PyJWS
from jwt.exceptions import PyJWTError

from server.auth.jwks import ALGORITHMS, KeySource, unique_members
from server.auth.refusal import invalid_client

LONGEST_ASSERTION = 8 * 1024
LONGEST_LIFE_SECONDS = 300  # SMART: exp no more than five minutes in the future
SKEW_SECONDS = 10  # by which a client's clock may be ahead: iat and nbf only
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_JTI = re.compile(r"[\x21-\x7e]{1,255}")
_SIGNATURE = PyJWS(algorithms=list(ALGORITHMS))

Claims = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Assertion:
    """A client assertion that was read, but not verified yet."""

    token: str
    header: dict[str, Any]
    claims: Claims
    payload: bytes

    @property
    def issuer(self) -> str:
        """The client id that it claims."""
        return str(self.claims.get("iss", ""))


@dataclass(frozen=True, slots=True)
class Expected:
    """What the claims are compared with. `now` is in seconds since 1970, by the machine's own clock."""

    client_id: str
    token_url: str
    jwks_url: str | None
    now: float


def read(token: str) -> Assertion:
    """Takes an assertion apart. Raises OAuthRefused (invalid_client)."""
    segments = token.split(".") if len(token) <= LONGEST_ASSERTION else []
    if len(segments) != 3 or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise invalid_client("not-a-jws")
    payload = _decode(segments[1])
    return Assertion(token, _object(_decode(segments[0])), _object(payload), payload)


def _decode(segment: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (binascii.Error, ValueError):
        raise invalid_client("not-base64url") from None


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode(), object_pairs_hook=unique_members)
    except (ValueError, RecursionError):
        raise invalid_client("not-json") from None
    if not isinstance(value, dict):
        raise invalid_client("not-an-object")
    return value


# reason -> what has to hold of the header
HEADER_RULES: tuple[tuple[str, Callable[[dict[str, Any], Expected], bool]], ...] = (
    ("alg", lambda h, _: isinstance(h.get("alg"), str) and h["alg"] in ALGORITHMS),
    ("typ", lambda h, _: isinstance(h.get("typ"), str) and h["typ"].upper() == "JWT"),
    ("kid", lambda h, _: isinstance(h.get("kid"), str) and bool(h["kid"])),
    ("crit", lambda h, _: "crit" not in h and "b64" not in h),
    ("embedded-key", lambda h, _: not h.keys() & {"jwk", "x5u", "x5c"}),
    ("jku", lambda h, e: "jku" not in h or (e.jwks_url is not None and h["jku"] == e.jwks_url)),
)

# reason -> what has to hold of the claims
CLAIM_RULES: tuple[tuple[str, Callable[[Claims, Expected], bool]], ...] = (
    ("iss", lambda c, e: c.get("iss") == e.client_id),
    ("sub", lambda c, e: c.get("sub") == e.client_id),
    ("aud", lambda c, e: c.get("aud") in (e.token_url, [e.token_url])),
    ("jti", lambda c, _: isinstance(c.get("jti"), str) and _JTI.fullmatch(c["jti"]) is not None),
    ("exp", lambda c, _: type(c.get("exp")) is int),
    ("exp-past", lambda c, e: c["exp"] > e.now),
    ("exp-far", lambda c, e: c["exp"] <= e.now + LONGEST_LIFE_SECONDS),
    ("iat", lambda c, e: _started(c, "iat", e.now)),
    ("nbf", lambda c, e: _started(c, "nbf", e.now)),
)


def _started(claims: Claims, name: str, now: float) -> bool:
    value = claims.get(name, 0)
    return type(value) in (int, float) and value <= now + SKEW_SECONDS


async def verify(assertion: Assertion, expected: Expected, keys: KeySource) -> None:
    """Checks header, claims, then the signature; whether the `jti` is new is the caller's to check.

    Raises OAuthRefused (invalid_client) with the reason, or PeerUnavailable when the client's keys can not be had.
    The claims come first, so that a forged token never makes us fetch keys unless it is otherwise right.
    """
    for reason, holds in HEADER_RULES:
        if not holds(assertion.header, expected):
            raise invalid_client(reason)
    for reason, claim_holds in CLAIM_RULES:
        if not claim_holds(assertion.claims, expected):
            raise invalid_client(reason)
    alg = assertion.header["alg"]
    key = await keys.find(kid=assertion.header["kid"], alg=alg)
    if key is None:
        raise invalid_client("no-such-key")
    try:
        payload = _SIGNATURE.decode(assertion.token, key, algorithms=[alg])
    except (PyJWTError, TypeError, ValueError):
        raise invalid_client("signature") from None
    if payload != assertion.payload:
        raise invalid_client("signature")
