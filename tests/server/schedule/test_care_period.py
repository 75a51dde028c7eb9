"""Requirement: CMS's answers begin, carry on and end a care period."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pytest

from server import schedule
from server.domain.audit import AuditEntry
from server.domain.care_period import CarePeriod, CarePeriodState, Report, ReportState
from server.domain.coordination import CmsNotification
from server.domain.errors import BadConfiguration
from server.domain.job import JobKind
from server.domain.submission import Operation, Submission
from server.store.base import Changeset

if TYPE_CHECKING:
    from tests.server.schedule.conftest import Year


async def test_an_alignment_begins_a_care_period_with_its_reports_and_its_calendar(year: Year) -> None:
    """Baseline open at once, end-of-period scheduled; closing, reminders and the latest care updates are due rows."""
    period = await year.align()
    assert (period.aligned_on, period.cms_submission_id, period.state) == (
        year.start,
        "sub-42",
        CarePeriodState.ALIGNED,
    )
    assert await year.states() == {"baseline 1": "open", "end-of-period 1": "scheduled"}
    baseline, last = await year.report(), await year.report("end-of-period")
    assert (baseline.opens, baseline.closes) == (year.start, year.day(60))
    assert await year.waiting(JobKind.OPEN_WINDOW) == {last.id: year.day(366)}
    assert await year.waiting(JobKind.CLOSE_WINDOW) == {
        baseline.id: year.day(61),
        last.id: year.day(426),
    }
    assert await year.waiting(JobKind.CARE_UPDATE) == {
        "initiation|": year.day(8),
        "completion|": year.day(393),
    }


async def test_the_same_answer_twice_begins_one_period(year: Year) -> None:
    """The step may run again after a crash: its ids are made of the submission."""
    submission = year.submission(Operation.ALIGN)
    first = await schedule.alignment_result(submission, "aligned", year.context)
    await year.commit(first)
    assert await schedule.alignment_result(submission, "aligned", year.context) == Changeset()
    assert len(await year.all(CarePeriod)) == 1


@pytest.mark.parametrize("code", ["not-aligned-control-group", "not-aligned-mismatch", "something-new"])
async def test_no_other_answer_begins_one(year: Year, code: str) -> None:
    """A 200 is not success."""
    changes = await schedule.alignment_result(year.submission(Operation.ALIGN), code, year.context)
    assert [row for row in changes.insert if isinstance(row, CarePeriod)] == []


@pytest.mark.parametrize(
    ("accepted_at", "day"),
    [
        (datetime(2026, 9, 2, 5, 59, tzinfo=UTC), date(2026, 9, 1)),
        (datetime(2026, 9, 2, 6, 0, tzinfo=UTC), date(2026, 9, 2)),
    ],
)
async def test_day_0_is_the_local_day_on_which_cms_took_the_request(
    year: Year, accepted_at: datetime, day: date
) -> None:
    """Not the UTC day."""
    submission = year.submission(Operation.ALIGN, accepted_at=accepted_at)
    await year.commit(await schedule.alignment_result(submission, "aligned", year.context))
    assert (await year.all(CarePeriod))[0].aligned_on == day


async def test_a_day_without_rules_is_refused_in_plain_words(year: Year) -> None:
    """Before the model began there are no rules."""
    submission = year.submission(Operation.ALIGN, accepted_at=datetime(2026, 3, 1, 12, tzinfo=UTC))
    with pytest.raises(BadConfiguration, match="2026-03-01"):
        await schedule.alignment_result(submission, "aligned", year.context)


async def test_a_new_alignment_ends_the_older_period_of_the_track(year: Year) -> None:
    """CMS's answer says that the older one is over, even if nobody told us."""
    await year.align()
    await year.go(20)
    second = await year.align("aligned-switch-approved")
    periods = {period.id: period for period in await year.all(CarePeriod)}
    older = next(one for one in periods.values() if one.id != second.id)
    assert (older.state, older.active_key, older.ended_on) == (
        CarePeriodState.UNALIGNED,
        None,
        year.day(20),
    )
    assert second.aligned_on == year.day(20)


async def test_an_unalignment_ends_the_period_and_asks_for_the_completion_update(year: Year) -> None:
    """What was not sent is cancelled; the PCP hears of it within 30 days."""
    await year.align()
    await year.go(30)
    await year.commit(await schedule.unalignment_result(year.submission(Operation.UNALIGN), "unaligned", year.context))
    assert (await year.all(CarePeriod))[0].state is CarePeriodState.UNALIGNED
    assert set((await year.states()).values()) == {"cancelled"}
    assert (await year.waiting(JobKind.CARE_UPDATE))["completion|"] == year.day(30)


async def test_a_pending_unalignment_ends_with_cms_e_mail_and_not_before(year: Year) -> None:
    """Reports stay due meanwhile."""
    period = await year.align()
    submission = year.submission(Operation.UNALIGN)
    await year.commit(await schedule.unalignment_result(submission, "unalignment-pending", year.context))
    await year.everything()
    assert (await year.states())["baseline 1"] == "submitted"
    notice = CmsNotification(
        participant_id=year.entity_id,
        id="mail-1",
        received_id="r",
        at=year.moment(12),
        event="unalignment",
        cms_submission_id="sub-42",
        care_period_id=period.id,
    )
    await year.commit(Changeset(insert=(notice,)))
    await year.assess()
    ended = (await year.all(CarePeriod))[0]
    assert (ended.state, ended.ended_on) == (CarePeriodState.UNALIGNED, year.day(12))


async def test_a_mail_alone_ends_nothing(year: Year) -> None:
    """Mail can be forged: a person decides."""
    period = await year.align()
    notice = CmsNotification(
        participant_id=year.entity_id,
        id="mail-1",
        received_id="r",
        at=year.clock.now(),
        event="unalignment",
        cms_submission_id="sub-42",
        care_period_id=period.id,
    )
    await year.commit(Changeset(insert=(notice,)))
    await year.assess()
    assert (await year.all(CarePeriod))[0].state is CarePeriodState.ALIGNED


async def test_an_accepted_baseline_opens_the_year(year: Year) -> None:
    """The first quarterly window hangs on the day of the submission; the initiation update goes out now."""
    await year.align()
    await year.go(4, hour=23)
    await year.everything()
    await year.answer(await year.report())
    quarterly = await year.report("quarterly")
    assert (quarterly.opens, quarterly.closes) == (year.day(74), year.day(114))
    assert quarterly.state is ReportState.SCHEDULED
    assert (await year.waiting(JobKind.OPEN_WINDOW))[quarterly.id] == year.day(75)
    assert (await year.waiting(JobKind.CARE_UPDATE))["initiation|"] == year.day(4)


async def test_a_whole_year_of_reports_completes_the_period(year: Year) -> None:
    """Baseline, four quarterly reports, end-of-period: each with new values only, then COMPLETED."""
    await year.align()
    await year.everything()
    await year.answer(await year.report())
    sent = [0]
    for number in (1, 2, 3, 4):
        await year.go(sent[-1] + 90)
        assert (await year.report("quarterly", number)).missing == "blood-pressure,lipids,weight,HbA1c"
        await year.everything(systolic=135 - number)
        await year.answer(await year.report("quarterly", number))
        sent.append(sent[-1] + 90)
    await year.go(366)
    await year.everything(systolic=125)
    await year.answer(await year.report("end-of-period"))
    period = (await year.all(CarePeriod))[0]
    assert (period.state, period.active_key) == (CarePeriodState.COMPLETED, None)
    assert await year.states() == {
        "baseline 1": "accepted",
        "quarterly 1": "accepted",
        "quarterly 2": "accepted",
        "quarterly 3": "accepted",
        "quarterly 4": "accepted",
        "end-of-period 1": "accepted",
    }
    assert len(await year.all(Submission)) == 6
    assert (await year.waiting(JobKind.CARE_UPDATE))["completion|"] == year.day(366)


async def test_a_report_that_the_ehr_sent_by_itself_counts(year: Year) -> None:
    """Through the front door: the due report is answered, and older values are not sent again."""
    await year.align()
    await year.go(3)
    await year.pressure(140, at=year.moment(2))
    submission = year.submission(Operation.REPORT_DATA, report_type="baseline")
    await year.commit(await schedule.report_result(submission, "success", year.context))
    await year.work()
    assert (await year.states())["baseline 1"] == "accepted"
    await year.go(75)
    assert (await year.report("quarterly")).missing == "blood-pressure,lipids,weight,HbA1c"


@pytest.mark.parametrize("kind", ["quarterly", "end-of-period"])
async def test_a_report_of_another_type_does_not_answer_the_baseline(year: Year, kind: str) -> None:
    """An unknown quarterly one counts for nothing; an end-of-period one for the end-of-period report."""
    await year.align()
    submission = year.submission(Operation.REPORT_DATA, report_type=kind)
    await year.commit(await schedule.report_result(submission, "success", year.context))
    assert (await year.states())["baseline 1"] == ("open" if kind == "quarterly" else "cancelled")


async def test_a_report_of_a_patient_who_is_not_aligned_has_no_consequence(year: Year) -> None:
    """An EHR may send what it likes."""
    submission = year.submission(Operation.REPORT_DATA, report_type="baseline")
    assert await schedule.report_result(submission, "success", year.context) == Changeset()


async def test_without_a_202_time_the_last_post_is_the_day_of_the_submission(year: Year) -> None:
    """The anchor of the next window is never the day on which the answer was read."""
    await year.align()
    await year.everything()
    (submission,) = await year.all(Submission)
    sent = replace(submission, accepted_at=None, sent_at=year.moment(0), posts=1)
    year.clock.at = year.moment(3)
    await year.commit(await schedule.report_result(sent, "success", year.context))
    assert (await year.report("quarterly")).opens == year.day(70)


@pytest.mark.parametrize("posts", [1, 2])
async def test_a_duplicate_counts_as_accepted(year: Year, posts: int) -> None:
    """After an uncertain POST it was us (P4); after a single one somebody else reported, which a person has to know."""
    await year.align()
    await year.everything()
    (submission,) = await year.all(Submission)
    taken = replace(submission, accepted_at=year.clock.now(), posts=posts)
    await year.commit(await schedule.report_result(taken, "duplicate", year.context))
    assert (await year.states())["baseline 1"] == "accepted"
    assert bool([text for text in await year.texts() if "already had" in text]) is (posts == 1)


async def test_the_same_result_twice_changes_nothing_more(year: Year) -> None:
    """The step may run again."""
    await year.align()
    await year.everything()
    report = await year.report()
    await year.answer(report)
    (submission,) = await year.all(Submission)
    changes = await schedule.report_result(submission, "success", year.context)
    assert changes == Changeset()


async def test_transitions_are_audited_without_phi(year: Year) -> None:
    """Who did what to which record, by ids."""
    await year.align()
    entries = await year.all(AuditEntry)
    assert [(entry.subtype, entry.agent) for entry in entries] == [("aligned", "worker")]
    assert entries[0].entity.startswith("care_period/")
    assert await year.all(Report)
