"""A new key for CMS beside the old one, and the old one's end.

Between the two steps both public keys stand in the participant's JWKS, and the old key signs: CMS has time to fetch the
new one. `retire` puts the new key in the place of the configured file, so that no setting has to change; running
programs sign with it from their next token on.
"""

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from server.auth.published import key_files
from server.domain.errors import BadConfiguration
from server.keys import cms_signing_key, generate, write_secret
from server.settings import Settings


@dataclass(frozen=True, slots=True)
class Rotation:
    """What was done. `live` are the ids of the keys in the JWKS, the signing one first."""

    entity_id: str
    live: tuple[str, ...]
    retired: str | None
    next: str


def rotate(settings: Settings, entity_id: str, *, on: date) -> Rotation:
    """Makes the new key. Raises BadConfiguration if there is no key to rotate, or a rotation is under way."""
    configured, others = _keys(settings, entity_id)
    if others:
        raise BadConfiguration(
            f"two keys of {entity_id} are live already: end that rotation with "
            f"`access-facade keys rotate {entity_id} --retire`"
        )
    generate(configured.with_name(f"cms-{entity_id}-{on:%Y%m%d}.pem"), "ES384")
    jwks = f"{settings.base_url}/participants/{entity_id}/jwks.json"
    text = (
        f"Both public keys are at {jwks}. Have CMS fetch or be given it; when CMS knows the new key: "
        f"access-facade keys rotate {entity_id} --retire"
    )
    return Rotation(entity_id, _ids(settings, entity_id), None, text)


def retire(settings: Settings, entity_id: str) -> Rotation:
    """Ends the rotation: the new key signs, the old one is published no more and kept under another name."""
    configured, others = _keys(settings, entity_id)
    if len(others) != 1:
        raise BadConfiguration(
            f"{entity_id} has one key only: begin with `access-facade keys rotate {entity_id}`"
            if not others
            else f"{entity_id} has more than two keys: leave the one in use and the new one in {configured.parent}"
        )
    old = cms_signing_key(configured).kid
    write_secret(configured.with_name(f"{configured.name}.retired-{old[:8]}"), configured.read_bytes())
    os.replace(others[0], configured)  # at once: no moment without a key
    text = "The new key signs from now on. Check it: access-facade token check"
    return Rotation(entity_id, _ids(settings, entity_id), old, f"{text} {entity_id}")


def _keys(settings: Settings, entity_id: str) -> tuple[Path, list[Path]]:
    configured = settings.participant(entity_id).cms.private_key_file
    if configured is None:
        raise BadConfiguration(
            f"{entity_id} has no private_key_file: it shows CMS a client secret, which CMS itself has to renew"
        )
    return configured, [path for path in key_files(settings, entity_id) if path != configured]


def _ids(settings: Settings, entity_id: str) -> tuple[str, ...]:
    return tuple(cms_signing_key(path).kid for path in key_files(settings, entity_id))
