"""A fleet on one MongoDB store: nothing lost, nothing twice, whoever is killed."""

import asyncio
import importlib
import os
import sys
from pathlib import Path
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parent))
fleets = importlib.import_module("fleet")


def _real_server() -> str | None:
    """A database of its own there, if a server is named (`make test-mongodb`); it is left behind."""
    base, _, options = os.environ.get("ACCESS_FACADE_TEST_MONGODB", "").partition("?")
    return f"{base.rstrip('/')}/fleet_{uuid4().hex[:12]}?{options}" if base else None


COUNT = int(os.environ.get("FLEET_SUBMISSIONS", "30"))


def test_nothing_is_lost_or_doubled_under_kills(tmp_path: Path) -> None:
    """Two web and two worker processes and the store are killed in turn: every acknowledged alignment takes effect
    once at CMS; what was sent again was the same bytes."""
    with fleets.fleet(tmp_path, _real_server()) as started:
        outcome = asyncio.run(fleets.run(started, COUNT, between=2.0, seconds=60))
    assert (outcome.submissions, outcome.lost, outcome.duplicates, outcome.altered) == (COUNT, 0, 0, 0)
    # CMS's "already aligned" to a repeat may mean "by you": such a submission waits for a person, by design (P4).
    assert outcome.states.keys() <= {"applied", "needs-review"}
    assert outcome.states.get("needs-review", 0) <= outcome.repeated
    assert outcome.kills  # how many is a matter of how fast the machine is
