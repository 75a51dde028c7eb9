"""Access tokens: ES256 JWTs that we issue and verify ourselves, with verified ones remembered until they expire.

Source: RFC 9068 (JWT profile for access tokens), RFC 6750 (bearer tokens).
"""

import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jwt
from jwt.exceptions import ExpiredSignatureError, PyJWTError

from profiles.issue import error
from server.auth.caller import Caller
from server.domain.errors import BadConfiguration, Refused
from server.keys import cms_signing_key
from server.settings import Client, Settings

TYPE = "at+jwt"
LONGEST_HEADER = 8 * 1024
REMEMBERED = 4096  # verified tokens kept; one client uses one token for minutes
REQUIRED = ["iss", "aud", "sub", "exp", "iat", "jti", "scope"]
_TEXTS = {
    "login": "No valid access token came with the request: get one at /auth/token and send it as `Authorization: "
    "Bearer <token>`.",
    "expired": "The access token has expired: get a new one at /auth/token.",
}


class Tokens:
    """Issues and verifies the access tokens of one installation."""

    def __init__(self, settings: Settings, key_file: Path | None = None) -> None:
        path = key_file or settings.key_file.parent / "token-key.pem"
        if not path.exists():
            raise BadConfiguration(f"{path}: no such file; `access-facade init` makes the key that signs access tokens")
        self._signing = cms_signing_key(path)
        self._public = self._signing.key.public_key()
        self._settings = settings
        self._issuer = settings.base_url
        self._audience = f"{settings.base_url}/fhir"
        self._verified: OrderedDict[str, tuple[Caller, float]] = OrderedDict()

    def issue(self, client: Client, *, scope: str, token_id: str) -> str:
        """A new access token for a client, good for `token_seconds`."""
        now = int(time.time())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": client.client_id,
            "client_id": client.client_id,
            "scope": scope,
            "jti": token_id,
            "iat": now,
            "exp": now + self._settings.token_seconds,
        }
        headers = {"typ": TYPE, "kid": self._signing.kid}
        return jwt.encode(claims, self._signing.key, algorithm=self._signing.alg, headers=headers)

    def authenticate(self, authorization: str | None) -> Caller:
        """The caller of an `Authorization` header. Raises Refused (401, issue code login or expired)."""
        if authorization is None:
            raise _refused("login")
        remembered = self._verified.get(authorization)
        if remembered is None:
            remembered = self._verify(authorization)
        if remembered[1] <= time.time():
            self._verified.pop(authorization, None)
            raise _refused("expired", 'error="invalid_token"')
        return remembered[0]

    def _verify(self, authorization: str) -> tuple[Caller, float]:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or len(token) > LONGEST_HEADER:
            raise _refused("login")
        claims = self._claims(token.strip())
        client = self._settings.clients.get(claims["sub"])
        if client is None:  # removed from the settings since
            raise _refused("login", 'error="invalid_token"')
        caller = Caller(
            client_id=client.client_id,
            participant_id=client.participant,
            role=client.role,
            scopes=frozenset(claims["scope"].split()),
            token_id=claims["jti"],
        )
        self._verified[authorization] = (caller, float(claims["exp"]))
        if len(self._verified) > REMEMBERED:
            self._verified.popitem(last=False)
        return caller, float(claims["exp"])

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            complete = jwt.decode_complete(
                token,
                self._public,
                algorithms=[self._signing.alg],
                audience=self._audience,
                issuer=self._issuer,
                options={"require": REQUIRED, "verify_iat": False},
            )
        except ExpiredSignatureError:
            raise _refused("expired", 'error="invalid_token"') from None
        except (PyJWTError, TypeError, ValueError):
            raise _refused("login", 'error="invalid_token"') from None
        if complete["header"].get("typ") != TYPE:
            raise _refused("login", 'error="invalid_token"')
        claims: dict[str, Any] = complete["payload"]
        return claims


def _refused(code: str, challenge: str = "") -> Refused:
    header = ", ".join(filter(None, ('Bearer realm="access-facade"', challenge)))  # RFC 6750, section 3
    return Refused(401, [error(code, "http.Authorization", _TEXTS[code])], headers={"WWW-Authenticate": header})
