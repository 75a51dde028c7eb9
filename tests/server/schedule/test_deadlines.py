"""Requirement: windows open, remind and close by the calendar, early or late as the worker may be (T1, T2, P5)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from server import schedule
from server.domain.care_period import CarePeriod, CarePeriodState, ReportState
from server.domain.job import JobKind
from server.domain.submission import Operation, Submission, SubmissionState
from server.store.base import Changeset

if TYPE_CHECKING:
    from tests.server.schedule.conftest import Year


async def baseline(year: Year) -> None:
    """Aligned, with an accepted baseline on day 0."""
    await year.align()
    await year.everything()
    await year.answer(await year.report())


async def test_a_window_opens_one_day_inside_the_edge(year: Year) -> None:
    """CMS's zone is not stated: day 70 may still be day 69 there."""
    await baseline(year)
    await year.go(70, hour=23)
    assert (await year.report("quarterly")).state is ReportState.SCHEDULED
    await year.go(71, hour=0)
    assert (await year.report("quarterly")).state is ReportState.OPEN


async def test_a_job_that_runs_too_early_puts_itself_back(year: Year) -> None:
    """The clock may be set back: no early window, no window skipped."""
    await baseline(year)
    report = await year.report("quarterly")
    await year.run(schedule.open_window, report.id)
    await year.run(schedule.close_window, report.id)
    assert (await year.report("quarterly")).state is ReportState.SCHEDULED
    assert (await year.waiting(JobKind.OPEN_WINDOW))[report.id] == report.opens + timedelta(days=1)
    assert (await year.waiting(JobKind.CLOSE_WINDOW))[report.id] == report.closes + timedelta(days=1)


@pytest.mark.parametrize(("days", "state"), [(60, ReportState.OPEN), (61, ReportState.MISSED)])
async def test_the_last_day_belongs_to_the_window(year: Year, days: int, state: ReportState) -> None:
    """Even if the closing job runs on it: it puts itself back to the day after."""
    await year.align()
    year.clock.at = year.moment(days, hour=0)
    await year.run(schedule.close_window, (await year.report()).id)
    assert (await year.report()).state is state
    assert list((await year.waiting(JobKind.CLOSE_WINDOW)).values())[:1] != [year.day(62)]


@pytest.mark.parametrize(("days", "opened"), [(70, False), (71, True)])
async def test_an_opening_job_opens_from_the_safe_day_on(year: Year, days: int, opened: bool) -> None:
    """Whenever it runs."""
    await baseline(year)
    year.clock.at = year.moment(days, hour=0)
    await year.run(schedule.open_window, (await year.report("quarterly")).id)
    assert ((await year.report("quarterly")).state is ReportState.OPEN) is opened


async def test_a_reminder_on_the_last_day_says_so_and_none_comes_after(year: Year) -> None:
    """Day 60 of the baseline."""
    await year.align()
    report = await year.report()
    year.clock.at = year.moment(60)
    await year.run(schedule.remind, f"{report.id}|0")
    assert "today is the last day" in (await year.texts("deadline"))[0]
    year.clock.at = year.moment(61)
    await year.run(schedule.remind, f"{report.id}|0")
    assert "today is the last day" in (await year.texts("deadline"))[0]


@pytest.mark.parametrize("step", [schedule.open_window, schedule.remind, schedule.close_window])
async def test_after_the_period_ended_the_calendar_does_nothing(year: Year, step: Any) -> None:
    """Nor for a report that does not exist."""
    await year.align()
    report = await year.report()
    unaligned = await schedule.unalignment_result(year.submission(Operation.UNALIGN), "unaligned", year.context)
    await year.commit(unaligned)
    year.clock.at = year.moment(61)
    before = await year.texts()
    await year.run(step, report.id)
    await year.run(step, "none")
    assert await year.texts() == before
    assert (await year.report()).state is ReportState.CANCELLED


async def test_reminders_come_14_7_and_2_days_before_the_end_in_one_item(year: Year) -> None:
    """Each brings the open item up to date."""
    await year.align()
    await year.measured("HbA1c", "7.1")
    found = []
    for days in (45, 46, 53, 58, 60):
        await year.go(days)
        found.append(await year.texts("deadline"))
    assert found[0] == []
    assert [len(texts) for texts in found[1:]] == [1, 1, 1, 1]
    assert ["14 days are left" in found[1][0], "7 days are left" in found[2][0], "2 days are left" in found[3][0]] == [
        True,
        True,
        True,
    ]
    assert "Missing: blood-pressure, lipids" in found[3][0]


async def test_no_reminder_for_a_report_that_is_sent(year: Year) -> None:
    """Nor does an old one stay open."""
    await year.align()
    await year.go(46)
    assert len(await year.texts("deadline")) == 1
    await year.everything()
    assert await year.texts("deadline") == []
    await year.go(53)
    assert await year.texts("deadline") == []


async def test_a_missed_baseline_ends_the_period(year: Year) -> None:
    """Day 60 is the last; on day 61 the patient is unaligned, a person is told, the completion update is due."""
    await year.align()
    await year.go(60, hour=23)
    assert (await year.report()).state is ReportState.OPEN
    await year.go(61, hour=0)
    period = (await year.all(CarePeriod))[0]
    assert (period.state, period.active_key, period.ended_on) == (CarePeriodState.UNALIGNED, None, year.day(60))
    assert await year.states() == {"baseline 1": "missed", "end-of-period 1": "cancelled"}
    (text,) = await year.texts()
    assert "CMS unaligns" in text
    assert (await year.waiting(JobKind.CARE_UPDATE))["completion|"] == year.day(61)


async def test_a_missed_quarterly_lets_the_next_begin(year: Year) -> None:
    """Its anchor is the last day of the missed window, as the rules assume."""
    await baseline(year)
    await year.go(111)
    assert (await year.report("quarterly")).state is ReportState.MISSED
    following = await year.report("quarterly", 2)
    assert (following.opens, following.closes) == (year.day(180), year.day(220))
    assert any("claims" in text for text in await year.texts("late"))


async def test_a_missed_end_of_period_ends_the_period(year: Year) -> None:
    """Day 425 is the last; the key of the track is free for a follow-on."""
    await baseline(year)
    await year.go(425)
    assert (await year.report("end-of-period")).state is ReportState.OPEN
    await year.go(426)
    period = (await year.all(CarePeriod))[0]
    assert (period.state, period.active_key) == (CarePeriodState.COMPLETED, None)
    assert any("not attained" in text for text in await year.texts("late"))


async def test_a_worker_that_was_away_for_a_year_catches_up(year: Year) -> None:
    """Nothing is left open, no job waits, and the period is over."""
    await baseline(year)
    await year.go(500)
    states = await year.states()
    assert (states["quarterly 1"], states["end-of-period 1"]) == ("missed", "missed")
    assert set(states.values()) <= {"accepted", "missed", "cancelled"}
    assert (await year.all(CarePeriod))[0].state is CarePeriodState.COMPLETED
    assert await year.waiting(JobKind.OPEN_WINDOW) == {}
    assert await year.waiting(JobKind.CLOSE_WINDOW) == {}


@pytest.mark.parametrize(("state", "said"), [(SubmissionState.SENDING, 0), (SubmissionState.NEEDS_REVIEW, 1)])
async def test_a_report_on_its_way_is_not_missed(year: Year, state: SubmissionState, said: int) -> None:
    """CMS's answer decides; one that waits for a person is said once more."""
    await year.align()
    await year.everything()
    (submission,) = await year.all(Submission)
    await year.commit(Changeset(replace=(replace(submission, state=state),)))
    await year.go(61)
    assert (await year.report()).state is ReportState.SUBMITTED
    assert len(await year.texts("late")) == said


async def test_a_refusal_after_the_window_closed_is_a_miss(year: Year) -> None:
    """It can not be sent again."""
    await year.align()
    await year.go(59)
    await year.everything()
    await year.go(61)
    await year.answer(await year.report(), "incomplete-data")
    assert (await year.report()).state is ReportState.MISSED
    assert (await year.all(CarePeriod))[0].state is CarePeriodState.UNALIGNED


async def test_without_a_baseline_the_initiation_update_is_due_before_day_10(year: Year) -> None:
    """The baseline is due by day 60, the update by day 10: one job, on day 8 at the latest."""
    await year.align()
    assert (await year.waiting(JobKind.CARE_UPDATE))["initiation|"] == year.day(8)
    await year.go(3)
    await year.everything()
    await year.answer(await year.report())
    assert (await year.waiting(JobKind.CARE_UPDATE))["initiation|"] == year.day(3)


@pytest.mark.parametrize("reporting", ["review"])
async def test_the_work_list_spans_the_participants_and_sorts_by_urgency(year: Year) -> None:
    """`access-facade due`."""
    await year.align()
    await year.go(55)
    lines = await schedule.due(year.context)
    assert [(line.report_type, line.days_left) for line in lines] == [("baseline", 5)]
    assert await schedule.due(year.context, participant_id="ACCES99999") == ()
