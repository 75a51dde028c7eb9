"""Rate cap, circuit breaker and pauses: the rule itself, and what all workers see of it."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from server.cms import gate
from server.cms.gate import OPERATION, Gate, entered, failed, succeeded
from server.domain.coordination import WorkItem
from server.domain.errors import Deferred
from server.domain.submission import Submission, SubmissionState
from server.metrics import exposition
from tests.server.cms.conftest import PARTICIPANT, configured, put

NOW = 1_787_000_000.0
RATE = {"interval": 0.1, "trial_seconds": 50.0}


def test_calls_keep_to_the_rate():
    """Of 1,000 that come at once, no second sees more than its 10 and the burst of 10."""
    state, passed = Gate(), []
    for _ in range(1000):
        state, wait = entered(state, NOW, waited=False, **RATE)
        passed.append(wait)
    at_once = [wait for wait in passed if wait == 0]
    assert len(at_once) == 10
    places = sorted(wait for wait in passed if wait > 0)
    assert min(later - earlier for earlier, later in zip(places, places[1:], strict=False)) > 0.09
    assert places[-1] == pytest.approx(99.0, abs=1.5)


def test_whoever_waited_goes_first():
    """A newcomer goes behind the queue even if a slot is free."""
    state = replace(Gate(), tail=NOW + 5)
    assert entered(state, NOW, waited=False, **RATE)[1] > 5
    assert entered(state, NOW, waited=True, **RATE)[1] == 0


def test_five_failures_in_a_row_hold_the_operation():
    """Four do not; a success forgets them; the hold doubles while CMS stays down."""
    state = Gate()
    for _ in range(4):
        state = failed(state, NOW, OPERATION, why="down", wish=None, trip=False)
    assert entered(state, NOW, waited=True, **RATE)[1] == 0
    assert succeeded(state) == Gate()
    state = failed(state, NOW, OPERATION, why="down", wish=None, trip=False)
    assert state.until == NOW + 30
    again = failed(state, NOW + 31, OPERATION, why="down", wish=None, trip=False)
    assert again.until == NOW + 31 + 60


def test_those_under_way_count_once():
    """Sixteen calls that fail together are one failure of the held gate."""
    state = failed(Gate(), NOW, OPERATION, why="down", wish=None, trip=True)
    assert failed(state, NOW, OPERATION, why="down", wish=None, trip=True) is state


def test_half_open_lets_one_through():
    """After the hold one call goes, the others wait for its answer."""
    state = failed(Gate(), NOW, OPERATION, why="down", wish=None, trip=True)
    later = NOW + 31
    state, first = entered(state, later, waited=True, **RATE)
    state, second = entered(state, later, waited=True, **RATE)
    assert (first, second > 0) == (0, True)
    assert entered(succeeded(state), later + 1, waited=True, **RATE)[1] == 0


@pytest.mark.parametrize("field", ["until", "trial", "tail", "free"])
def test_a_clock_set_back_does_not_hold_the_gate(field):
    """A time that lies a day ahead is not believed."""
    state = replace(Gate(why="x"), **{field: NOW + 86_400})
    assert entered(state, NOW, waited=False, **RATE)[1] <= 1


async def test_the_wish_of_a_429_holds_all_of_that_operation(engine):
    """The second submission is not POSTed before CMS's time is over, though it never met the 429 itself."""
    engine.cms.fault("check-eligibility", "http", status=429, headers={"Retry-After": "60"})
    await put(engine)
    await engine.work()
    await put(engine, patient="patient-2")
    await engine.work(until=timedelta(seconds=59))
    assert len(engine.cms.journal("check-eligibility")) == 1
    await engine.work(until=timedelta(seconds=120))
    assert len(engine.cms.journal("check-eligibility")) == 3


async def test_a_breaker_is_seen_and_closes_by_itself(engine):
    """A work item and a metric while CMS is down; both are gone when it answers again."""
    engine.cms.fault("check-eligibility", "http", status=503, times=5)
    for number in range(5):
        await put(engine, patient=f"patient-{number}")
    await engine.work()
    (item,) = await engine.context.store.find(WorkItem)
    assert (item.kind, item.subject, item.closed_at) == ("cms", "gate/check-eligibility", None)
    page = bytes((await exposition(engine.context)).body).decode()
    assert 'access_facade_cms_gates_shut{call="check-eligibility"} 1.0' in page
    await engine.work(until=timedelta(minutes=10), rounds=2000)
    await asyncio.sleep(0.05)
    await engine.work(until=timedelta(minutes=10), rounds=2000)
    states = {row.state for row in await engine.context.store.find(Submission)}
    assert states == {SubmissionState.APPLIED}
    (item,) = await engine.context.store.find(WorkItem)
    assert item.closed_at is not None
    page = bytes((await exposition(engine.context)).body).decode()
    assert 'access_facade_cms_gates_shut{call="check-eligibility"} 0.0' in page


async def test_a_breaker_never_holds_polls(engine):
    """While POSTs of the operation are held, results are asked for."""
    name = await put(engine)
    await engine.work()
    participant = engine.context.settings.participant(PARTICIPANT)
    await gate.trouble(participant, "check-eligibility", engine.context, why="down", wish=3600.0, trip=True)
    assert (await engine.result(name)).state is SubmissionState.APPLIED


async def test_a_retry_storm_does_not_happen(engine):
    """CMS is down for 10 minutes with 100 submissions queued: few calls meanwhile, then the capped rate (N3)."""
    engine.cms.fault("check-eligibility", "http", status=503, times=100_000)
    for number in range(100):
        await put(engine, patient=f"patient-{number}")
    await engine.work(until=timedelta(minutes=10), rounds=5000)
    assert len(engine.cms.journal("check-eligibility")) <= 40
    engine.cms.http.post(f"{engine.cms.url}/sandbox/faults", json=[]).raise_for_status()
    before = engine.context.clock.now()
    await engine.work(until=timedelta(minutes=6), rounds=5000)
    rows = await engine.context.store.find(Submission)
    assert {row.state for row in rows} <= {SubmissionState.ACCEPTED, SubmissionState.APPLIED}
    seconds = sorted((row.sent_at - before).total_seconds() for row in rows if row.sent_at)
    assert max(sum(1 for at in seconds if start <= at < start + 1) for start in seconds) <= 21


async def test_a_shared_gate(engine):
    """What one worker learned holds another that has never called."""
    other = replace(engine.context, memory={})
    participant = engine.context.settings.participant(PARTICIPANT)
    await gate.trouble(participant, gate.POSTS, engine.context, why="no", wish=300.0, trip=True)
    with pytest.raises(Deferred) as held:
        await gate.enter(participant, gate.POSTS, other)
    assert held.value.retry_after_seconds >= 300


async def test_a_token_for_each_submission(engine):
    """`fresh_per_submission`: no two submissions share a token."""
    configured(engine, fresh_per_submission=True)
    for number in range(3):
        await engine.result(await put(engine, patient=f"patient-{number}"))
    assert len(engine.cms.journal("token")) == 3


async def test_many_401s_at_once_fetch_one_token(engine):
    """Ten polls meet the end of a token together: one new token for all."""
    for number in range(10):
        await put(engine, patient=f"patient-{number}")
    await engine.work()
    engine.cms.fault("status", "http", status=401, times=10)
    engine.clock.move(seconds=10.5)
    await asyncio.gather(*(engine._run(job) for job in await engine._due()))
    assert len(engine.cms.journal("token")) <= 4
