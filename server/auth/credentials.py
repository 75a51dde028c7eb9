"""Reads a token request: the form and the one way in which the client authenticates."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_plus

from starlette.requests import Request

from server.auth.refusal import OAuthRefused, invalid_client

LONGEST_FORM = 64 * 1024
MOST_FIELDS = 32
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class SecretCredentials:
    """A client id and the forms in which its secret may be meant (Basic: as sent, and percent-decoded)."""

    client_id: str
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AssertionCredentials:
    """A signed assertion, and the client id that stood beside it in the form, if one did."""

    assertion: str
    client_id: str | None


Credentials = SecretCredentials | AssertionCredentials


async def read_form(request: Request) -> dict[str, str]:
    """The form of a token request; each name at most once (RFC 6749, section 3.2). Raises OAuthRefused."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise OAuthRefused("invalid_request", "content-type")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_FORM:
            raise invalid_client("form-too-long")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise OAuthRefused("invalid_request", "form") from None
    if len({name for name, _ in pairs}) != len(pairs):
        raise OAuthRefused("invalid_request", "repeated-parameter")
    return {name: value for name, value in pairs if value}


def read_credentials(form: Mapping[str, str], authorization: str | None) -> Credentials:
    """The credentials of a token request. More than one method is refused (RFC 6749, section 2.3)."""
    methods = (authorization is not None, "client_secret" in form, "client_assertion" in form)
    if sum(methods) > 1:
        raise OAuthRefused("invalid_request", "several-authentication-methods")
    if authorization is not None:
        return _basic(authorization, form)
    if "client_assertion" in form:
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise invalid_client("client-assertion-type")
        return AssertionCredentials(form["client_assertion"], form.get("client_id"))
    if "client_secret" in form and "client_id" in form:
        return SecretCredentials(form["client_id"], (form["client_secret"],))
    raise invalid_client("no-credentials")


def _basic(authorization: str, form: Mapping[str, str]) -> SecretCredentials:
    scheme, _, encoded = authorization.partition(" ")
    try:
        pair = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        raise invalid_client("basic-encoding") from None
    client_id, colon, secret = pair.partition(":")
    client_id = unquote_plus(client_id)
    if scheme.lower() != "basic" or not colon or form.get("client_id", client_id) != client_id:
        raise invalid_client("basic")
    return SecretCredentials(client_id, (secret, unquote_plus(secret)))
