"""Gets a CMS token on request and says what happened, for people who set up credentials."""

from typing import Any

from server.cms import token as tokens
from server.context import Context
from server.domain.errors import BadConfiguration, PeerUnavailable
from server.keys import cms_signing_key
from server.settings import Participant

REMEDIES = {
    "invalid_client": "CMS does not know this client id with these credentials: compare both with the registration, "
    "and with private_key_jwt that CMS has this JWKS.",
    "invalid_scope": "CMS does not give this scope: set [participant.cms] scope to what the registration says.",
    "unauthorized_client": "This client may not use client credentials: ask CMS to allow it.",
    "unsupported_grant_type": "The token URL is not an OAuth client-credentials endpoint: check token_url.",
}


async def checked(entity_id: str | None, context: Context) -> dict[str, Any]:
    """`{"ok", "participant", "method", "lines"}`; never a token, never a secret."""
    participants = context.settings.participants
    participant = context.settings.participant(entity_id or next(iter(participants), ""))
    lines = [
        f"participant  {participant.entity_id} ({participant.name})",
        f"token URL    {participant.cms.token_url}",
        f"client id    {participant.cms.client_id}",
        f"method       {participant.cms.auth_method}",
        *_assertion(participant, context),
    ]
    ok, said = await _try(participant, context)
    return {
        "ok": ok,
        "participant": participant.entity_id,
        "method": participant.cms.auth_method,
        "lines": [*lines, *said],
    }


def _assertion(participant: Participant, context: Context) -> list[str]:
    if participant.cms.private_key_file is None:
        return []
    _, kid, algorithm = cms_signing_key(participant.cms.private_key_file)
    jwks = f"{context.settings.base_url}/participants/{participant.entity_id}/jwks.json"
    return [
        f"assertion    {algorithm}, kid {kid}",
        f"             iss = sub = client id, aud = token URL, good for 4 minutes; public keys at {jwks}",
    ]


async def _try(participant: Participant, context: Context) -> tuple[bool, list[str]]:
    try:
        _, lifetime = await tokens.fetch(participant, context)
    except tokens.TokenRefused as refused:
        remedy = REMEDIES.get(refused.error, "Compare client id, secret or key, and token URL with the registration.")
        return False, [f"refused      {refused.error} ({refused.method})", f"             {remedy}"]
    except (PeerUnavailable, BadConfiguration) as failure:
        return False, [f"no token     {failure}"]
    return True, [f"token        granted, good for {round(lifetime)} s"]
