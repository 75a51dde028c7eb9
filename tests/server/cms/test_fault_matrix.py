"""Every fault at every place, once and for good: each lands in the state that the policy names.

Requirement: fault matrix of {token, POST, poll} x faults. A row is a fault of the stand-in CMS and what has to
become of the submission when it strikes while a token is fetched, at the POST, and at the poll.

    token  wait: nothing is POSTed, it is tried again; go: the token is good all the same
    POST   go: accepted; later: CMS does not have it, again later; held: all such calls wait and a person is told;
           uncertain: CMS may have it, the same bytes again; review: a person decides
    poll   done: the result is in; later: asked again; doubt: asked again, a few times; review: a person decides
"""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from server.cms import explained, results
from server.cms.poll import FIND_OUT
from server.cms.resend import resent
from server.domain.coordination import WorkItem
from server.domain.submission import Operation, Submission, SubmissionEvent, SubmissionState
from tests.server.cms.conftest import put, submission

REQUESTS = Path(__file__).parents[2] / "cases" / "profiles"
STRAY = "TRAP"  # stands for the trap's URL
DATE, PAST = (
    "Fri, 21 Aug 2026 01:31:00 GMT",
    "Wed, 01 Jan 2025 00:00:00 GMT",
)  # the first is 60 s after the clock's start
WISHES = {"no": None, "0": "0", "60": "60", "date": DATE, "past": PAST, "abc": "abc", "1e9": "1e9", "huge": "9" * 12}


def status(code: int, **headers: str) -> dict[str, Any]:
    """A planned HTTP status."""
    return {"fault": "http", "status": code, "headers": headers}


def wished(code: int, wish: str | None) -> dict[str, Any]:
    """A planned HTTP status with a Retry-After."""
    return status(code, **({"Retry-After": wish} if wish is not None else {}))


def to(location: str, fault: str = "foreign-location") -> dict[str, Any]:
    """A planned status URL."""
    return {"fault": fault, "location": location}


# name, the fault, at the token, at the POST, at the poll (None: makes no sense there)
ROWS: list[tuple[str, dict[str, Any], str | None, str | None, str | None]] = [
    ("reset before", {"fault": "reset-before"}, "wait", "uncertain", "later"),
    ("reset during", {"fault": "reset-during"}, "wait", "uncertain", "later"),
    ("reset after", {"fault": "reset-after"}, "wait", "uncertain", "later"),
    ("never answered", {"fault": "slow", "seconds": 1.2}, "wait", "uncertain", "later"),
    ("a byte at a time", {"fault": "slow-bytes", "seconds": 0.05}, "wait", "uncertain", "later"),
    ("truncated", {"fault": "truncate"}, "wait", "go", "later"),
    ("wrong length", {"fault": "wrong-length"}, "wait", "go", "doubt"),
    ("gzip bomb", {"fault": "gzip-bomb"}, "wait", "go", "doubt"),
    ("100 MB", {"fault": "huge"}, "wait", "go", "doubt"),
    ("malformed JSON", {"fault": "malformed"}, "wait", "uncertain", "doubt"),
    ("malformed JSON 202", {"fault": "malformed", "status": 202}, "wait", "uncertain", "later"),
    ("malformed JSON 400", {"fault": "malformed", "status": 400}, "wait", "review", "doubt"),
    ("HTML 200", {"fault": "html", "status": 200}, "wait", "uncertain", "doubt"),
    ("HTML 202", {"fault": "html", "status": 202}, "wait", "uncertain", "later"),
    ("HTML 404", {"fault": "html", "status": 404}, "wait", "held", "doubt"),
    ("HTML 502", {"fault": "html", "status": 502}, "wait", "uncertain", "later"),
    ("HTML 503", {"fault": "html", "status": 503}, "wait", "later", "later"),
    ("headers twice", {"fault": "duplicate-headers"}, "go", "go", "done"),
    ("two locations", to(STRAY, "duplicate-headers"), None, "review", None),
    ("no location", {"fault": "no-location"}, None, "uncertain", None),
    ("relative location", {"fault": "relative-location"}, None, "go", None),
    ("location elsewhere", to(STRAY), None, "review", None),
    ("location on another port", to("http://127.0.0.1:1/x"), None, "review", None),
    ("location of another scheme", to("https://127.0.0.1/x"), None, "review", None),
    ("location with a user", to("http://127.0.0.1:80@example.invalid/x"), None, "review", None),
    ("location without a scheme", to("//example.invalid/x"), None, "review", None),
    ("location that is none", to("http://[x"), None, "review", None),
    ("location of a file", to("file:///etc/passwd"), None, "review", None),
    ("200 outcome", status(200), "wait", "uncertain", "errors"),
    ("201", status(201), "wait", "uncertain", "later"),
    ("204", status(204), "wait", "uncertain", "later"),
    *(
        (f"{code} elsewhere", {"fault": "redirect", "status": code, "location": STRAY}, "wait", "review", "later")
        for code in (301, 302, 303, 307, 308)
    ),
    ("400", status(400), "wait", "review", "errors"),
    ("401", status(401), "wait", "go", "done"),
    ("403", status(403), "wait", "held", "later"),
    ("404", status(404), "wait", "held", "doubt"),
    ("405", status(405), "wait", "review", "errors"),
    ("408", status(408), "wait", "uncertain", "later"),
    ("409", status(409), "wait", "uncertain", "errors"),
    ("410", status(410), "wait", "review", "doubt"),
    ("413", status(413), "wait", "review", "errors"),
    ("415", status(415), "wait", "review", "errors"),
    ("422", status(422), "wait", "review", "errors"),
    *((f"{code}", status(code), "wait", "uncertain", "later") for code in (500, 501, 502, 504, 599)),
    *((f"429, wait {n}", wished(429, wish), "wait", "later", "later") for n, wish in WISHES.items()),
    *((f"503, wait {n}", wished(503, wish), "wait", "later", "later") for n, wish in WISHES.items()),
]
CALLS = {"token": "token", "post": "check-eligibility", "poll": "status"}
CELLS = [
    pytest.param(place, plan, expected, id=f"{place}-{name}")
    for name, plan, *cells in ROWS
    for place, expected in zip(CALLS, cells, strict=True)
    if expected is not None
]
S = SubmissionState
# What a cell's word means: the state when the fault has struck, whether a person is told, the state in the end.
MEANING: dict[tuple[str, str], tuple[SubmissionState, bool | None, SubmissionState]] = {
    ("token", "wait"): (S.SENDING, None, S.APPLIED),
    ("token", "go"): (S.ACCEPTED, False, S.APPLIED),
    ("post", "go"): (S.ACCEPTED, False, S.APPLIED),
    ("post", "later"): (S.SENDING, None, S.APPLIED),
    ("post", "held"): (S.SENDING, True, S.APPLIED),
    ("post", "uncertain"): (S.UNCERTAIN, None, S.APPLIED),
    ("post", "review"): (S.NEEDS_REVIEW, True, S.NEEDS_REVIEW),
    ("poll", "done"): (S.APPLIED, False, S.APPLIED),
    ("poll", "later"): (S.ACCEPTED, None, S.APPLIED),
    ("poll", "doubt"): (S.ACCEPTED, False, S.APPLIED),
    ("poll", "errors"): (S.NEEDS_REVIEW, True, S.NEEDS_REVIEW),
}


def planned(plan: dict[str, Any], trap) -> dict[str, Any]:
    """The fault with the trap's URL filled in."""
    return {key: trap.url if value == STRAY else value for key, value in plan.items()}


async def struck(engine, place: str, plan: dict[str, Any], times: int = 1) -> str:
    """A submission that has just met the fault at that place; its id."""
    kind = plan["fault"]
    more = {key: value for key, value in plan.items() if key != "fault"} | {"times": times}
    if place != "poll":
        engine.cms.fault(CALLS[place], kind, **more)
    name = await put(engine)
    await engine.work()
    if place == "poll":
        await asyncio.sleep(0.05)  # the stand-in decides after 20 ms
        engine.cms.fault("status", kind, **more)
        await engine.work(until=timedelta(seconds=10.5))  # the first poll is within 10 s, the second not within 11
    return name


def test_the_matrix_is_large_enough():
    """At least 150 cells."""
    assert len(CELLS) >= 150


@pytest.mark.parametrize(("place", "plan", "expected"), CELLS)
async def test_a_fault_once(engine, trap, place, plan, expected):
    """The state that the policy names; then, CMS being well again, the end; no stray request, no early repeat."""
    first, told, last = MEANING[place, expected]
    name = await struck(engine, place, planned(plan, trap))
    row = await submission(engine, name)
    assert row.state is first
    items = await engine.context.store.find(WorkItem)
    assert told is None or bool(items) is told
    assert row.posts == 0 or place != "token" or expected == "go"
    if row.finished_at is None:
        await engine.work(until=timedelta(minutes=70))  # longer than CMS may make us wait
        row = await engine.result(name)
    assert row.state is last
    posts = engine.cms.journal("check-eligibility")
    assert len({post["body_sha256"] for post in posts if post["fault"] != "reset-during"}) <= 1
    assert len(posts) <= 2
    assert trap.visits == []


# Faults that do not go away, and where the submission is an hour later.
FOR_GOOD = [
    ("token", status(401), S.SENDING),
    ("token", status(503), S.SENDING),
    ("token", {"fault": "html", "status": 200}, S.SENDING),
    ("post", status(403), S.SENDING),
    ("post", status(404), S.SENDING),
    ("post", status(401), S.SENDING),
    ("post", status(409), S.NEEDS_REVIEW),
    ("post", status(200), S.NEEDS_REVIEW),
    ("post", status(500), S.UNCERTAIN),
    ("post", wished(429, "0"), S.SENDING),
    ("post", wished(503, "0"), S.SENDING),
    ("post", wished(503, "1e9"), S.SENDING),
    ("post", {"fault": "reset-before"}, S.UNCERTAIN),
    ("post", {"fault": "no-location"}, S.NEEDS_REVIEW),
    ("poll", status(403), S.ACCEPTED),
    ("poll", status(401), S.ACCEPTED),
    ("poll", status(404), S.NEEDS_REVIEW),
    ("poll", status(410), S.NEEDS_REVIEW),
    ("poll", status(500), S.ACCEPTED),
    ("poll", wished(429, "0"), S.ACCEPTED),
    ("poll", {"fault": "html", "status": 200}, S.NEEDS_REVIEW),
    ("poll", {"fault": "malformed"}, S.NEEDS_REVIEW),
    ("poll", {"fault": "gzip-bomb"}, S.NEEDS_REVIEW),
    ("poll", {"fault": "truncate"}, S.ACCEPTED),
    ("poll", {"fault": "redirect", "location": STRAY}, S.ACCEPTED),
]


@pytest.mark.parametrize(
    ("place", "plan", "last"),
    [pytest.param(*row, id=f"{row[0]}-{row[1].get('status', '')}{n}") for n, row in enumerate(FOR_GOOD)],
)
async def test_a_fault_for_good(engine, trap, place, plan, last):
    """An hour of it: a person is told, CMS is asked ever less often, nothing ends quietly."""
    name = await struck(engine, place, planned(plan, trap), times=10_000)
    await engine.work(until=timedelta(hours=1), rounds=2000)
    row = await submission(engine, name)
    assert row.state is last
    assert await engine.context.store.find(WorkItem)
    calls = [call for call in engine.cms.journal() if call["call"] == CALLS[place]]
    assert len(calls) <= {"token": 30, "post": 25, "poll": 45}[place]
    assert trap.visits == []


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("status", [404, 410])
async def test_a_status_url_that_cms_lost_is_for_a_person(engine, operation, status):
    """Asked three times, never POSTed again; the person reads how to find out, and the status URL stays on record."""
    body = (REQUESTS / f"{operation}.json".replace("report-data", "report")).read_bytes()
    name = await put(engine, operation, request=body)
    await engine.work()
    engine.cms.fault("status", "http", status=status, times=50)
    row = await engine.result(name)
    assert (row.state, row.posts, len(engine.cms.journal(operation))) == (S.NEEDS_REVIEW, 1, 1)
    assert len(engine.cms.journal("status")) == 3
    assert row.content_location is not None
    (item,) = await engine.context.store.find(WorkItem)
    assert FIND_OUT[operation] in item.text
    assert explained.meaning_of(row) == results.failure("no-result")


async def test_a_status_url_that_cms_finds_again_is_polled_on(engine):
    """404 twice, then CMS's answer: nobody is bothered."""
    name = await put(engine)
    await engine.work()
    engine.cms.fault("status", "http", status=404, times=2)
    row = await engine.result(name)
    assert (row.state, row.posts) == (S.APPLIED, 1)
    assert not await engine.context.store.find(WorkItem)


async def test_already_aligned_after_a_resend_by_hand_may_be_the_lost_first_try(engine):
    """CMS took it and lost its status URL; a person resends: whose alignment it is can not be told, so no guess."""
    name = await put(engine, "align")
    await engine.work()
    engine.cms.fault("status", "http", status=404, times=3)
    assert (await engine.result(name)).state is S.NEEDS_REVIEW
    await engine.context.store.commit(await resent(name, engine.context))
    row = await engine.result(name)
    assert (row.state, row.result_code) == (S.NEEDS_REVIEW, "not-aligned-already-aligned")
    assert len({post["body_sha256"] for post in engine.cms.journal("align")}) == 1


async def test_a_repeat_after_a_lost_answer_is_our_own_alignment(engine):
    """CMS had said `eligible` just before: its `already aligned` to the repeat is our first try, taken."""
    asked = await put(engine, "check-eligibility")
    assert (await engine.result(asked)).result_code == "eligible"
    engine.cms.fault("align", "reset-after")
    row = await engine.result(await put(engine, "align"))
    assert (row.state, row.result_code) == (S.APPLIED, "not-aligned-already-aligned")
    events = await engine.context.store.find(SubmissionEvent, order_by="at")
    assert any("the first try had been taken: aligned" in event.detail for event in events)


async def test_a_code_that_nobody_knows_is_for_a_person(engine, monkeypatch):
    """A result code of a later guide is never taken for success."""
    monkeypatch.setattr(results, "codes", lambda _: frozenset())
    row = await engine.result(await put(engine))
    assert (row.state, row.result_code) == (S.NEEDS_REVIEW, "eligible")
    (item,) = await engine.context.store.find(WorkItem)
    assert "does not know" in item.text


async def test_all_submissions_of_the_matrix_stay_byte_identical(engine):
    """Six failures in a row: each POST has the bytes that were stored."""
    engine.cms.fault("check-eligibility", "http", status=502, times=3)
    engine.cms.fault("check-eligibility", "reset-after", times=3)
    row = await engine.result(await put(engine))
    assert {post["body_sha256"] for post in engine.cms.journal("check-eligibility")} == {row.request_sha256}
    assert isinstance(row, Submission)
