"""What processes share through the store: used assertions, rate caps, breakers, the CMS token (C4, C5)."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from server.cms import gate
from server.context import Context
from server.domain.errors import Deferred, UniqueViolation
from server.domain.memory import CmsToken, SeenAssertion
from server.domain.submission import Operation
from server.settings import Author, CmsEndpoint, Participant, Settings
from server.store.base import Changeset

CMS = CmsEndpoint(
    base_url="https://cms.example/fhir", token_url="https://cms.example/token", client_id="c", posts_per_second=5
)


class Still:
    """A clock that stands."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


@pytest.fixture
async def processes(engine: Any, samples: Any, tmp_path: Path) -> AsyncIterator[list[Context]]:
    """Three contexts with a store each, as three processes on one store have."""
    participant = Participant(
        entity_id=samples.participant, name="Example Care", payer_id="00831", cms=CMS,
        author=Author("1234567893", "Rivera", "Ana"),
    )  # fmt: skip
    settings = Settings(
        path=tmp_path / "access-facade.toml", base_url="https://facade.example", store_url=engine.url,
        key_file=engine.key_file, participants={samples.participant: participant}, clients={},
    )  # fmt: skip
    stores = [engine.open() for _ in range(3)]
    async with httpx2.AsyncClient(trust_env=False) as http:
        yield [Context(settings, store, Still(samples.now), http, defaultdict(asyncio.Lock)) for store in stores]
    for store in stores:
        await store.close()


async def _passed(context: Context, participant: Participant, *, waited: bool = False) -> bool:
    try:
        await gate.enter(participant, Operation.ALIGN, context, waited=waited)
    except Deferred:
        return False
    return True


async def test_a_used_assertion_is_used_for_all(processes: list[Context], samples: Any) -> None:
    """A `jti` that one process has seen is refused by the next, and so is the same from a third."""
    seen = SeenAssertion(participant_id=samples.participant, issuer="ehr-1", jti="j1", expires_at=samples.now)
    first, *others = processes
    await first.store.commit(Changeset(insert=(seen,)))
    for other in others:
        with pytest.raises(UniqueViolation):
            await other.store.commit(Changeset(insert=(seen,)))


async def test_the_rate_cap_is_one_for_all(processes: list[Context], samples: Any) -> None:
    """Twelve want to pass at one moment, by turns in three processes: as many do as the cap has for one alone."""
    participant = processes[0].settings.participants[samples.participant]
    passed = [await _passed(processes[n % 3], participant) for n in range(12)]
    assert sum(passed) == 5
    assert passed == sorted(passed, reverse=True)


async def test_a_breaker_that_one_trips_holds_all(processes: list[Context], samples: Any) -> None:
    """CMS answered 429 to one process: none of the others calls, until one of them is told that it works again."""
    first, second, third = processes
    participant = first.settings.participants[samples.participant]
    await gate.trouble(participant, Operation.ALIGN, first, why="CMS answered 429", wish=60.0, trip=True)
    assert not await _passed(second, participant)
    assert not await _passed(third, participant)
    await gate.passed(participant, Operation.ALIGN, second)
    assert await _passed(third, participant, waited=True)


async def test_a_participants_gate_is_its_own(processes: list[Context], samples: Any) -> None:
    """What one participant's CMS has refused holds nobody else up."""
    first, second, _ = processes
    participant = first.settings.participants[samples.participant]
    await gate.trouble(participant, Operation.ALIGN, first, why="CMS answered 429", wish=60.0, trip=True)
    assert await _passed(second, replace(participant, entity_id=samples.other))


async def test_a_token_is_fetched_once_for_all(processes: list[Context], samples: Any) -> None:
    """What one process has got from CMS's token endpoint the next one reads."""
    token = CmsToken(participant_id=samples.participant, renew_at=samples.now, token=b"opaque")
    await processes[0].store.commit(Changeset(insert=(token,)))
    found = await processes[1].store.get(CmsToken, participant_id=samples.participant)
    assert found is not None
    assert found.token == b"opaque"
