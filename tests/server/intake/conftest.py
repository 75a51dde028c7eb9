"""Messages for the doors: the demo's own, at the frozen clock's day."""

from dataclasses import replace
from datetime import timedelta

import pytest

from server.demo import messages
from server.demo.story import VISITS

VISIT = VISITS[0][1]


@pytest.fixture
def labs(installation) -> bytes:
    """An ORU^R01 with lipids, HbA1c, eGFR and uACR."""
    return messages.labs(VISIT, installation.clock.at, "LAB0001")


@pytest.fixture
def device(installation) -> bytes:
    """A Bundle of three blood pressures."""
    return messages.pressures(VISIT, installation.clock.at - timedelta(hours=1))


@pytest.fixture
def clinic(installation) -> bytes:
    """A C-CDA with weight, BMI and waist."""
    return messages.clinic(VISIT, installation.clock.at, "NOTE0001")


@pytest.fixture
def strict(installation):
    """The installation as `init` makes it without --demo: disclosure and consent have to be on record."""
    settings = installation.context.settings
    participants = {
        key: replace(one, disclosure_required=True, switch_consent_required=True)
        for key, one in settings.participants.items()
    }
    installation.context = replace(installation.context, settings=replace(settings, participants=participants))
    installation.app.state.context = installation.context
    return installation
