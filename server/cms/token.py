"""CMS access tokens: one per participant, kept encrypted in the store, shared by all workers.

Source: ACCESS API IG 0.9.12, authentication (client credentials, 300 s); its test environment was seen to take HTTP
Basic and refuse form fields, its index page names SMART Backend Services: so the way is a setting, and `auto` tries
Basic, then the form, then a signed assertion, and remembers which one CMS took.
"""

import base64
import binascii
import contextlib
import re
import secrets
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

import jwt
import msgspec

from server.clock import machine_now
from server.cms import gate
from server.cms.client import exchange
from server.cms.transport import Answer, NoAnswer
from server.context import Context
from server.domain.errors import BadConfiguration, Conflict, Deferred, PeerUnavailable
from server.domain.memory import CmsToken, Remembered
from server.keys import cms_signing_key
from server.settings import Participant
from server.store.base import Changeset

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
REMEMBERED = "cms-auth-method"
USABLE = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, 2.1: anything else would break the header
LONGEST_TOKEN, LONGEST_LIFE, USUAL_LIFE = 16_384, 86_400.0, 300.0


class TokenRefused(PeerUnavailable):
    """CMS does not take these credentials. `method` and `error` (the OAuth error code) say what was tried."""

    def __init__(self, method: str, error: str) -> None:
        super().__init__(f"CMS refused the credentials ({method}: {error})", retry_after_seconds=300.0)
        self.method = method
        self.error = error


async def bearer(participant: Participant, context: Context, *, fresh: bool = False) -> str:
    """A token that is good for the next call; `fresh`: one that no call has used. Raises Temporary."""
    name = f"token {participant.entity_id}"
    seen: CmsToken | None = context.memory.get(name)
    if seen is not None and not fresh and context.clock.now() < seen.renew_at:
        return seen.token.decode("ascii")
    async with context.locks[name]:
        kept = await context.store.get(CmsToken, participant_id=participant.entity_id)
        if kept is None or fresh or context.clock.now() >= kept.renew_at:
            token, lifetime = await _obtained(participant, context)
            row = _row(participant, token, lifetime, context)
            with contextlib.suppress(Conflict):  # another worker was first: its token is as good
                await context.store.commit(_replacing(kept, row))
            kept = row
        context.memory[name] = kept
        return kept.token.decode("ascii")


async def _obtained(participant: Participant, context: Context) -> tuple[str, float]:
    """Through the gate of the token endpoint, so that nobody hammers it while it fails or refuses."""
    await gate.enter(participant, gate.TOKEN, context)
    try:
        answer = await fetch(participant, context)
    except (PeerUnavailable, BadConfiguration) as failure:
        sure = isinstance(failure, TokenRefused | BadConfiguration)
        wish = participant.cms.pause_seconds if sure else getattr(failure, "retry_after_seconds", None)
        advice = f"Run `access-facade token check {participant.entity_id}` and mend the credentials."
        why = f"{failure}. {advice if sure else 'It is tried again; CMS may be down.'}"
        await gate.trouble(participant, gate.TOKEN, context, why=why, wish=wish, trip=sure)
        raise Deferred(str(failure), retry_after_seconds=max(wish or 0.0, 2.0)) from failure
    await gate.passed(participant, gate.TOKEN, context)
    return answer


def _row(participant: Participant, token: str, lifetime: float, context: Context) -> CmsToken:
    # The guide's margin of 5 minutes would mean a new token for every call; a fifth of the lifetime is enough.
    margin = min(participant.cms.token_margin_seconds, lifetime / 5)
    renew_at = context.clock.now() + timedelta(seconds=max(lifetime - margin, 0.0))
    return CmsToken(participant_id=participant.entity_id, renew_at=renew_at, token=token.encode("ascii"))


def _replacing(kept: CmsToken | None, row: CmsToken) -> Changeset:
    return Changeset(insert=(row,)) if kept is None else Changeset(replace=(replace(row, revision=kept.revision),))


async def forget(participant: Participant, token: str, context: Context) -> None:
    """Drops the token that CMS answered 401 to; not a newer one that another call has fetched since."""
    refused = token.encode("ascii")
    seen: CmsToken | None = context.memory.get(f"token {participant.entity_id}")
    if seen is not None and seen.token == refused:
        del context.memory[f"token {participant.entity_id}"]
    kept = await context.store.get(CmsToken, participant_id=participant.entity_id)
    if kept is not None and kept.token == refused:
        with contextlib.suppress(Conflict):
            await context.store.commit(Changeset(delete=(kept,)))


async def fetch(participant: Participant, context: Context) -> tuple[str, float]:
    """A new token and its lifetime in seconds, by the configured way, or by the first way that CMS takes."""
    if participant.cms.auth_method != "auto":
        return await _request(participant, participant.cms.auth_method, context)
    memory = await context.store.get(Remembered, participant_id=participant.entity_id, name=REMEMBERED)
    methods = [method for method in participant.cms.auth_order if _configured(participant, method)]
    if memory is not None and memory.value in methods:
        methods.sort(key=lambda method: method != memory.value)
    refused: TokenRefused | None = None
    for method in methods:
        try:
            answer = await _request(participant, method, context)
        except TokenRefused as no:
            refused = no
            continue
        await _remember(participant, method, memory, context)
        return answer
    raise refused or BadConfiguration(
        f"participant {participant.entity_id}: under [participant.cms] set client_secret_file or private_key_file"
    )


async def _remember(participant: Participant, method: str, memory: Remembered | None, context: Context) -> None:
    if memory is None:
        row = Remembered(participant_id=participant.entity_id, name=REMEMBERED, value=method)
        await context.store.commit(Changeset(insert=(row,)))
    elif memory.value != method:
        await context.store.commit(Changeset(replace=(replace(memory, value=method),)))


def _configured(participant: Participant, method: str) -> bool:
    cms = participant.cms
    return (cms.private_key_file if method == "private_key_jwt" else cms.client_secret_file) is not None


async def _request(participant: Participant, method: str, context: Context) -> tuple[str, float]:
    headers, form = _credentials(participant, method)
    form = {"grant_type": "client_credentials", "scope": participant.cms.scope, **form}
    headers |= {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    body = urlencode(form).encode("ascii")
    answer = await exchange("POST", participant.cms.token_url, headers, body, participant, context)
    if isinstance(answer, NoAnswer):
        raise PeerUnavailable(f"CMS's token endpoint did not answer ({answer.reason})")
    return _read(answer, method, context)


def _credentials(participant: Participant, method: str) -> tuple[dict[str, str], dict[str, str]]:
    cms = participant.cms
    if method == "private_key_jwt":
        return {}, {"client_assertion_type": JWT_BEARER, "client_assertion": assertion(participant)}
    if cms.client_secret_file is None:
        raise BadConfiguration(f"participant {participant.entity_id}: {method} needs client_secret_file")
    secret = cms.client_secret_file.read_text(encoding="utf-8").strip()
    if method == "client_secret_post":
        return {}, {"client_id": cms.client_id, "client_secret": secret}
    pair = f"{quote(cms.client_id, safe='')}:{quote(secret, safe='')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")}, {}


def assertion(participant: Participant) -> str:
    """A signed client assertion, good for 4 minutes. Source: SMART App Launch 2.0, Backend Services."""
    cms = participant.cms
    if cms.private_key_file is None:
        raise BadConfiguration(f"participant {participant.entity_id}: private_key_jwt needs private_key_file")
    key, kid, algorithm = cms_signing_key(cms.private_key_file)
    now = int(machine_now().timestamp())
    claims = {
        "iss": cms.client_id,
        "sub": cms.client_id,
        "aud": cms.token_url,
        "iat": now,
        "exp": now + 240,
        "jti": secrets.token_urlsafe(24),
    }
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid, "typ": "JWT"})


def _read(answer: Answer, method: str, context: Context) -> tuple[str, float]:
    content = _json(answer.body)
    if answer.status in (400, 401, 403):
        raise TokenRefused(method, str(content.get("error", answer.status))[:40])
    token = content.get("access_token")
    if answer.status != 200 or answer.fault or not _usable(token):
        raise PeerUnavailable(
            f"CMS's token endpoint answered {answer.status} without a token",
            retry_after_seconds=answer.retry_after(context.clock.now()),
        )
    return str(token), _lifetime(content.get("expires_in"))


def _usable(token: Any) -> bool:
    return isinstance(token, str) and len(token) <= LONGEST_TOKEN and USABLE.fullmatch(token) is not None


def _lifetime(value: Any) -> float:
    """`expires_in` in seconds; the guide's 5 minutes where it is missing or not a number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return min(max(float(value), 0.0), LONGEST_LIFE) if number else USUAL_LIFE


def _json(body: bytes) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, binascii.Error):
        return {}
    return content if isinstance(content, dict) else {}
