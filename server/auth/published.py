"""The public halves of a participant's CMS keys, as CMS fetches them. During a rotation there are two."""

import re
from pathlib import Path
from typing import Any

from profiles.issue import error
from server.domain.errors import Refused
from server.keys import cms_signing_key, published_jwk
from server.settings import Settings


def published_keys(settings: Settings, entity_id: str) -> list[dict[str, Any]]:
    """The JWKs of one participant, the one in use first. Raises Refused (404) for an unknown participant."""
    participant = settings.participants.get(entity_id)
    if participant is None:
        raise Refused(404, [error("not-found", "", "There is no such participant here: check the address.")])
    return [published_jwk(cms_signing_key(path)) for path in key_files(settings, entity_id)]


def key_files(settings: Settings, entity_id: str) -> list[Path]:
    """The participant's private key files: the configured one, then every `cms-{entity_id}*.pem` beside it."""
    configured = settings.participant(entity_id).cms.private_key_file
    folder = configured.parent if configured else settings.path.parent
    name = re.compile(rf"cms-{re.escape(entity_id)}(?:[^0-9A-Za-z].*)?\.pem")  # never another, longer entity id's
    others = sorted(path for path in folder.glob("cms-*.pem") if name.fullmatch(path.name))
    return [*([configured] if configured else []), *(path for path in others if path != configured)]
