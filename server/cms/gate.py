"""When a participant may call CMS: rate cap, circuit breaker and pauses, shared by all workers through small rows.

One row per participant and call: each operation has its own gate; `post`, `status` and `token` are the gates of all
POSTs, all polls and the token endpoint. A gate is open, or held until a time (a breaker tripped, a pause), or after
that half open: one call is let through, and its answer decides. The breaker of an operation never holds polls.
"""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import msgspec

from server.context import Context
from server.domain.errors import Conflict, Deferred, StoreUnavailable, Temporary
from server.domain.memory import Remembered
from server.domain.submission import Operation
from server.logs import get_logger
from server.settings import Participant
from server.store.base import Changeset
from server.work_items import closed, work_item

POSTS, STATUS, TOKEN = "post", "status", "token"
PREFIX = "gate "  # before the gate's name, in Remembered.name
TRIES = 20
LONGEST = 3600.0  # seconds: nothing is held or queued for longer without looking again
SEEN_SECONDS = 1.0
BURST = 1.0  # seconds' worth of calls that may go at once
TICK = 1e-6  # seconds: an instant of today as a float is no finer than a fifth of this

log = get_logger()


@dataclass(frozen=True, slots=True)
class Rule:
    """How a gate takes failures in a row. Seconds; the hold doubles with every further failure."""

    hold_at: int  # failures
    tell_at: int  # failures after which a person is told
    first: float
    longest: float = 300.0


RULES = {TOKEN: Rule(1, 5, 2.0), POSTS: Rule(1, 1, 30.0), STATUS: Rule(1, 1, 30.0)}
OPERATION = Rule(5, 5, 30.0)
NAMES = (*RULES, *Operation)


@dataclass(frozen=True, slots=True)
class Gate:
    """The stored state. Times are seconds of the business clock since 1970."""

    failures: int = 0  # in a row
    until: float = 0.0  # held for everyone before this
    trial: float = 0.0  # half open: one call is under way, until this at the latest
    free: float = 0.0  # by the rate cap, when the next call may go
    tail: float = 0.0  # the end of the queue of those that were sent away
    why: str = ""  # not empty: held or half open


def entered(gate: Gate, now: float, *, interval: float, trial_seconds: float, waited: bool) -> tuple[Gate, float]:
    """The gate after someone asks to pass, and the seconds to wait (0: go). `interval` 0 is no rate cap.

    Whoever waited goes before whoever comes new: the place at the tail was given at the capped rate.
    """
    gate = _sane(gate, now, interval)
    held = max(gate.until, gate.trial) if gate.why else 0.0
    crowded = interval > 0 and (gate.free > now + BURST - interval + TICK or (gate.tail > now and not waited))
    if held > now or crowded:
        slot = min(max(gate.tail, held, gate.free - BURST, now) + interval, now + LONGEST)
        return (replace(gate, tail=slot) if interval else gate), max(slot - now, 0.001)
    free = max(gate.free, now) + interval if interval else 0.0
    return replace(gate, free=free, trial=now + trial_seconds if gate.why else 0.0), 0.0


def _sane(gate: Gate, now: float, interval: float) -> Gate:
    """A clock that was set back must not hold the gate for ever."""
    return replace(
        gate,
        until=gate.until if gate.until <= now + LONGEST else 0.0,
        trial=gate.trial if gate.trial <= now + LONGEST else 0.0,
        tail=gate.tail if gate.tail <= now + LONGEST else 0.0,
        free=gate.free if gate.free <= now + BURST + interval else now,
    )


def succeeded(gate: Gate) -> Gate:
    """Open, all failures forgotten."""
    return replace(gate, failures=0, until=0.0, trial=0.0, why="")


def failed(gate: Gate, now: float, rule: Rule, *, why: str, wish: float | None, trip: bool) -> Gate:
    """One more failure in a row. `trip`: it is sure, so the gate is held at once. Those under way count once."""
    if gate.why and gate.until > now:
        return gate
    failures = max(gate.failures + 1, rule.tell_at) if trip else gate.failures + 1
    if failures < rule.hold_at:
        return replace(gate, failures=failures)
    hold = max(min(rule.first * 2.0 ** min(failures - rule.hold_at, 10), rule.longest), wish or 0.0)
    return replace(gate, failures=failures, until=now + min(hold, LONGEST), trial=0.0, why=why)


async def enter(participant: Participant, name: str, context: Context, *, waited: bool = False) -> bool:
    """Passes, or raises Deferred; whether the gate is to hear of a success. Only the operations have a rate cap."""
    capped = name not in RULES
    interval = 1.0 / participant.cms.posts_per_second if capped else 0.0
    trial_seconds = 2 * participant.cms.timeout_seconds + 10.0

    def change(gate: Gate, now: float) -> tuple[Gate, float]:
        return entered(gate, now, interval=interval, trial_seconds=trial_seconds, waited=waited)

    before, wait = await _change(participant, name, context, change)
    if wait > 0:
        spread = 0.0 if capped else random.uniform(0.0, 10.0)  # noqa: S311 - spreads load, guards nothing
        raise Deferred(f"the gate {name} of {participant.entity_id} is shut", retry_after_seconds=wait + spread)
    return before.failures > 0


async def enter_often(participant: Participant, name: str, context: Context) -> bool:
    """As `enter`, for hundreds of calls a second: an open gate is taken to be open for another second."""
    key, now = f"{PREFIX}{participant.entity_id} {name} open", context.clock.now().timestamp()
    if 0.0 <= now - context.memory.get(key, -1.0) < SEEN_SECONDS:
        return False
    on_trial = await enter(participant, name, context)
    if not on_trial:
        context.memory[key] = now
    return on_trial


async def passed(participant: Participant, name: str, context: Context) -> None:
    """The call was answered as it should be. Never fails: the answer in hand is worth more."""
    await _report(participant, name, context, lambda gate, _: (succeeded(gate), 0.0))


async def trouble(
    participant: Participant, name: str, context: Context, *, why: str, wish: float | None = None, trip: bool = False
) -> None:
    """The call failed; `wish` is CMS's Retry-After. Never fails itself."""
    rule = RULES.get(name, OPERATION)

    def change(gate: Gate, now: float) -> tuple[Gate, float]:
        return failed(gate, now, rule, why=why, wish=wish, trip=trip), 0.0

    await _report(participant, name, context, change)


Change = Callable[[Gate, float], tuple[Gate, float]]


async def _report(participant: Participant, name: str, context: Context, change: Change) -> None:
    try:
        await _change(participant, name, context, change)
    except Temporary as failure:
        log.warning("gate not written", gate=name, error=type(failure).__name__)


async def _change(participant: Participant, name: str, context: Context, change: Change) -> tuple[Gate, float]:
    """Reads, changes and writes the row, again if another worker came between."""
    participant_id, stored_as = participant.entity_id, PREFIX + name
    async with context.locks[f"{PREFIX}{participant.entity_id} {name}"]:
        for _ in range(TRIES):
            row = await context.store.get(Remembered, participant_id=participant_id, name=stored_as)
            before = read(row)
            at = context.clock.now()
            after, wait = change(before, at.timestamp())
            if after == before:
                return before, wait
            value = msgspec.json.encode(asdict(after)).decode()
            if row is None:
                new = Remembered(participant_id=participant_id, name=stored_as, value=value)
                rows = Changeset(insert=(new,))
            else:
                rows = Changeset(replace=(replace(row, value=value),))
            try:
                await context.store.commit(rows + await _told(participant, name, before, after, context, at))
            except Conflict:
                continue
            return before, wait
    raise StoreUnavailable(f"others keep changing the gate {name}", retry_after_seconds=1.0)


def read(row: Remembered | None) -> Gate:
    """The gate of a row; a new one if there is none or it can not be read."""
    try:
        return msgspec.json.decode(row.value, type=Gate) if row is not None else Gate()
    except msgspec.DecodeError:
        return Gate()


async def _told(
    participant: Participant, name: str, before: Gate, after: Gate, context: Context, at: datetime
) -> Changeset:
    """The item for a person, once per trouble; closed when CMS answers as it should again."""
    matter = {"participant_id": participant.entity_id, "kind": "cms", "subject": f"gate/{name}"}
    if after.why and after.failures >= RULES.get(name, OPERATION).tell_at:
        return Changeset(insert=await work_item(context, text=after.why, **matter))
    if before.why and not after.why:
        return Changeset(replace=await closed(context, at=at, **matter))
    return Changeset()
