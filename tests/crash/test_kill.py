"""SIGKILL at each boundary of a submission: nothing is lost, nothing is sent twice (reliability C1, promises P1 to P4).

The oracle is the stand-in CMS's own journal. `CRASH_ROUNDS` sets how many kills there are for each boundary.
"""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from boundaries import ORDER
from inputs import mbi

from server.demo.ledger import Ledger
from server.domain.care_period import Report, ReportState
from server.domain.coordination import CareUpdate, Delivery, DeliveryState
from server.domain.submission import Submission, SubmissionState
from server.store.base import Where

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "20"))
OURS = Where("participant_id", "==", "ACCES12345")
LONGEST_DELAY = 0.004  # seconds from the boundary to the kill
FEWER = {"sqlite": 1, "mongodb": 10}  # a tenth of the kills on the second engine
WORKER_BOUNDARIES = [name for name in ORDER if name not in ("message stored", "request taken")]


@dataclass
class Death:
    """One kill, and what was on disk then."""

    number: int
    passed: set[str]
    url_was_stored: bool
    notice_was_stored: bool
    posts: list[dict[str, Any]]  # all that CMS got of it, before the kill and after

    @property
    def patient(self) -> str:
        return f"patient-{self.number}"


@pytest.fixture(scope="module")
def field(grounds: Callable[..., Any]) -> Iterator[tuple[Any, Ledger]]:
    """One installation for all boundaries, warmed up by a report that nobody disturbs."""
    made = grounds()
    made.prepare(0)
    made.here("finish", patients=[0])
    with Ledger(made.config) as ledger:
        yield made, ledger


@pytest.mark.parametrize("boundary", WORKER_BOUNDARIES)
def test_a_killed_worker_loses_and_doubles_nothing(field: tuple[Any, Ledger], boundary: str, engine: str) -> None:
    """Killed there or up to 4 ms later; the next worker ends it: taken once, told once, the next window known."""
    made, ledger = field
    numbers = [1000 * (1 + ORDER.index(boundary)) + number for number in range(max(1, ROUNDS // FEWER[engine]))]
    made.prepare(*numbers, more=True)
    chance = random.Random(boundary)
    delays = [0.0, *(chance.choice((0.0, chance.uniform(0.0, LONGEST_DELAY))) for _ in numbers[1:])]
    deaths = [_killed(made, ledger, number, boundary, delay) for number, delay in zip(numbers, delays, strict=True)]
    taken = made.alignments()
    notices = made.notices()
    for death in deaths:
        _check_posts(death, ledger)
        assert [row["report_type"] for row in taken[mbi(death.number)]["reports"]] == ["baseline"]
        _check_consequences(death, ledger, notices)
    if boundary in ("CMS took it", "reply read"):
        assert any(len(death.posts) == 2 for death in deaths), "no kill came between CMS's 202 and its URL on disk"


def _killed(made: Any, ledger: Ledger, number: int, boundary: str, delay: float) -> Death:
    """One round: a worker that dies, and a fresh one that finishes."""
    seq = made.last()
    trap = {"patient_id": f"patient-{number}", "boundary": boundary, "delay": delay}
    died = made.run("work", patients=[number], new_token=boundary == "token got", trap=trap)
    assert died["code"] == -9, made.logs()[-3000:]
    assert boundary in died["passed"]
    submission, delivery = _submission(ledger, number), _delivery(ledger, number)
    finished = made.run("finish", later=True)
    assert finished["code"] == 0, made.logs()[-3000:]
    return Death(
        number=number,
        passed=set(died["passed"]),
        url_was_stored=submission is not None and submission.content_location is not None,
        notice_was_stored=delivery is not None and delivery.state is DeliveryState.DELIVERED,
        posts=made.journal(after=seq),
    )


def _check_posts(death: Death, ledger: Ledger) -> None:
    """Taken; the same bytes each time; again only if the kill came between the first byte and the stored URL."""
    submission = _submission(ledger, death.number)
    assert submission is not None
    assert submission.state is SubmissionState.APPLIED
    accepted = [row for row in death.posts if row["accepted"]]
    assert {row["body_sha256"] for row in accepted} == {submission.request_sha256}
    assert submission.result_code == ("success" if len(accepted) == 1 else "duplicate")
    broken_off = [row for row in death.posts if not row["accepted"]]  # CMS got a part of the body, and refused it
    assert {row["status"] for row in broken_off} <= {400}
    assert len(death.posts) in (1, 2)
    if len(death.posts) == 2:
        assert "about to send" in death.passed
        assert not death.url_was_stored


def _check_consequences(death: Death, ledger: Ledger, notices: list[dict[str, Any]]) -> None:
    """The report is closed, the next window known, the clinician told: once, or twice in the same bytes."""
    about = (OURS, Where("patient_id", "==", death.patient))
    states = {row.report_type: row.state for row in ledger.rows(Report, *about)}
    assert states["baseline"] is ReportState.ACCEPTED
    assert states["quarterly"] is ReportState.SCHEDULED
    (update,) = ledger.rows(CareUpdate, *about)
    assert update.moment == "initiation"
    delivery = _delivery(ledger, death.number)
    assert delivery is not None
    assert delivery.state is DeliveryState.DELIVERED
    told = [row for row in notices if row["events"] == [str(delivery.event_number)]]
    assert len({row["sha256"] for row in told}) == 1
    assert len(told) == 1 or ("update composed" in death.passed and not death.notice_was_stored)


def _submission(ledger: Ledger, number: int) -> Submission | None:
    found = ledger.rows(Submission, OURS, Where("patient_id", "==", f"patient-{number}"))
    assert len(found) <= 1
    return found[0] if found else None


def _delivery(ledger: Ledger, number: int) -> Delivery | None:
    found = ledger.rows(Delivery, OURS, Where("patient_id", "==", f"patient-{number}"))
    assert len(found) <= 1
    return found[0] if found else None
