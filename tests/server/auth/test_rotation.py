"""Two CMS keys live during a rotation; the new one signs when the old one is retired."""

import stat
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from server.auth.published import published_keys
from server.auth.rotation import retire, rotate
from server.domain.errors import BadConfiguration
from server.initialise import initialise
from server.keys import cms_signing_key
from server.settings import Settings, load

ENTITY = "ACCES12345"
DAY = date(2026, 9, 1)


@pytest.fixture
def installed(tmp_path: Path) -> Settings:
    return load(initialise(tmp_path / "demo", demo=True).config)


def signing(settings: Settings) -> str:
    """The key id that assertions name now."""
    path = settings.participant(ENTITY).cms.private_key_file
    assert path is not None
    return cms_signing_key(path).kid


def live(settings: Settings) -> list[str]:
    return [jwk["kid"] for jwk in published_keys(settings, ENTITY)]


def test_both_keys_are_published_and_the_old_one_signs(installed: Settings) -> None:
    """CMS has time to fetch the new one."""
    old = signing(installed)
    done = rotate(installed, ENTITY, on=DAY)
    assert signing(installed) == old
    assert live(installed) == list(done.live)
    assert done.live[0] == old
    assert len(done.live) == 2
    assert "jwks.json" in done.next


def test_retiring_ends_it(installed: Settings) -> None:
    """The new key signs under the configured name, alone in the JWKS; the old one is kept, readable by its owner."""
    old = signing(installed)
    new = rotate(installed, ENTITY, on=DAY).live[1]
    done = retire(installed, ENTITY)
    assert (signing(installed), live(installed), done.retired) == (new, [new], old)
    (kept,) = installed.path.parent.glob("*.retired-*")
    assert cms_signing_key(kept).kid == old
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_it_can_be_done_again(installed: Settings) -> None:
    """A year later."""
    for year in (2026, 2027):
        rotate(installed, ENTITY, on=date(year, 9, 1))
        retire(installed, ENTITY)
    assert len(live(installed)) == 1


def test_other_participants_keys_stay(installed: Settings) -> None:
    """Each participant has its own."""
    before = published_keys(installed, "ACCES54321")
    rotate(installed, ENTITY, on=DAY)
    retire(installed, ENTITY)
    assert published_keys(installed, "ACCES54321") == before


def test_a_second_rotation_waits_for_the_first(installed: Settings) -> None:
    """Two keys are live: the sentence names the command that ends it."""
    rotate(installed, ENTITY, on=DAY)
    with pytest.raises(BadConfiguration, match="--retire"):
        rotate(installed, ENTITY, on=date(2026, 9, 2))


def test_nothing_to_retire(installed: Settings) -> None:
    """One key only."""
    with pytest.raises(BadConfiguration, match="begin with"):
        retire(installed, ENTITY)


def test_a_participant_with_a_secret_has_no_key_to_rotate(installed: Settings) -> None:
    """CMS renews the secret."""
    one = installed.participant(ENTITY)
    without = replace(one, cms=replace(one.cms, private_key_file=None))
    settings = replace(installed, participants={ENTITY: without})
    with pytest.raises(BadConfiguration, match="client secret"):
        rotate(settings, ENTITY, on=DAY)
