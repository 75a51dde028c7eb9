"""A fleet on one MongoDB store: nothing lost, nothing twice, whoever is killed (issue 5)."""

import asyncio
import importlib
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
fleets = importlib.import_module("fleet")

COUNT = int(os.environ.get("FLEET_SUBMISSIONS", "30"))


def test_nothing_is_lost_or_doubled_under_kills(tmp_path: Path) -> None:
    """Two web and two worker processes and the store are killed in turn: every acknowledged alignment takes effect
    once at CMS; what was sent again was the same bytes."""
    with fleets.fleet(tmp_path, os.environ.get("ACCESS_FACADE_FLEET_MONGODB")) as started:
        outcome = asyncio.run(fleets.run(started, COUNT, between=3.0, seconds=60))
    assert (outcome.submissions, outcome.lost, outcome.duplicates, outcome.altered) == (COUNT, 0, 0, 0)
    assert outcome.states == {"applied": COUNT}
    assert sum(outcome.kills.values()) >= 3
