"""The record of an alignment: kept by CMS's answers, reconciled, and corrected by a person."""

from datetime import date, timedelta
from typing import Any

import pytest

from server import schedule
from server.domain.alignment import Alignment, AlignmentState
from server.domain.audit import AuditEntry
from server.domain.care_period import CarePeriod, CarePeriodState, ReportState
from server.domain.coordination import CmsNotification
from server.domain.errors import Refused
from server.domain.submission import Operation
from server.store.base import Where


async def record(year: Any) -> Alignment:
    (found,) = await year.all(Alignment)
    return found


async def decide(year: Any, operation: Operation, code: str) -> None:
    """CMS answers a request of the EHR."""
    step = {
        Operation.CHECK_ELIGIBILITY: schedule.eligibility_result,
        Operation.ALIGN: schedule.alignment_result,
        Operation.UNALIGN: schedule.unalignment_result,
    }[operation]
    await year.commit(await step(year.submission(operation), code, year.context))
    await year.work()


async def test_the_alignments_submission_id_is_kept_for_good(year: Any) -> None:
    """CMS's e-mails and its report name the alignment by it, also after the end."""
    await year.align()
    await decide(year, Operation.UNALIGN, "unaligned")
    found = await record(year)
    assert (found.state, found.cms_submission_id) == (AlignmentState.UNALIGNED, "sub-42")


async def test_an_eligibility_answer_is_reconciled(year: Any) -> None:
    """CMS calls a patient free whom we hold: nothing changes, a person is told once, and it is over when CMS agrees."""
    await year.align()
    for _ in range(2):
        await decide(year, Operation.CHECK_ELIGIBILITY, "eligible")
    assert (await record(year)).state is AlignmentState.ALIGNED
    (text,) = await year.texts("alignment")
    assert "CMS answered eligible" in text
    assert "access-facade alignment end" in text
    await decide(year, Operation.CHECK_ELIGIBILITY, "not-eligible-already-aligned")
    assert await year.texts("alignment") == []


async def test_a_missed_baseline_ends_the_record_too(year: Any) -> None:
    """CMS unaligns a patient without a baseline."""
    await year.align()
    await year.go(61)
    assert (await record(year)).state is AlignmentState.UNALIGNED


async def test_a_pending_unalignment_ends_with_cms_e_mail(year: Any) -> None:
    """The record follows the care period."""
    period = await year.align()
    await decide(year, Operation.UNALIGN, "unalignment-pending")
    notice = CmsNotification(
        participant_id=period.participant_id,
        id="n1",
        received_id="r1",
        at=year.clock.now(),
        event="unalignment",
        cms_submission_id="sub-42",
        care_period_id=period.id,
    )
    from server.store.base import Changeset

    await year.commit(Changeset(insert=(notice,)))
    await year.assess()
    assert (await record(year)).state is AlignmentState.UNALIGNED


async def test_a_person_corrects_the_first_day(year: Any) -> None:
    """Lock-in, end, care period and the windows of unsent reports move with it; the change is audited."""
    await year.align()
    was = await year.report()
    await year.go(2)
    day = year.day(-5)
    changes = await schedule.corrected(
        "patient-1", "CKM", field="aligned-on", day=day, context=year.context, agent="cli:ida"
    )
    await year.commit(changes)
    found, baseline = await record(year), await year.report()
    (period,) = await year.all(CarePeriod)
    assert (found.aligned_on, period.aligned_on) == (day, day)
    assert found.lock_in_until == day + timedelta(days=89)
    assert (baseline.opens, baseline.closes) == (day, was.closes - timedelta(days=5))
    entries = await year.context.store.find(AuditEntry, Where("agent", "==", "cli:ida"))
    assert [entry.subtype for entry in entries] == [f"alignment aligned-on {day}"]


async def test_after_the_correction_the_window_closes_on_its_new_day(year: Any) -> None:
    """The jobs of the calendar are moved as well."""
    await year.align()
    await year.commit(
        await schedule.corrected("patient-1", "CKM", field="aligned-on", day=year.day(-5), context=year.context)
    )
    await year.go(55)
    assert (await year.report()).state is ReportState.OPEN
    await year.go(56)
    assert (await year.report()).state is ReportState.MISSED


@pytest.mark.parametrize("field", ["lock-in-until", "control-until"])
async def test_a_person_corrects_a_single_date(year: Any, field: str) -> None:
    """Nothing else moves."""
    await year.align()
    before = await record(year)
    day = date(2026, 12, 24)
    await year.commit(await schedule.corrected("patient-1", "CKM", field=field, day=day, context=year.context))
    after = await record(year)
    assert getattr(after, field.replace("-", "_")) == day
    assert after.aligned_on == before.aligned_on


@pytest.mark.parametrize(
    ("patient", "field", "status"),
    [("nobody", "aligned-on", 404), ("patient-1", "birthday", 422), ("patient-1", "lock-in-until", 422)],
)
async def test_what_can_not_be_corrected_is_refused(year: Any, patient: str, field: str, status: int) -> None:
    """No record, no such date, or never aligned."""
    await decide(year, Operation.CHECK_ELIGIBILITY, "eligible")
    with pytest.raises(Refused) as refused:
        await schedule.corrected(patient, "CKM", field=field, day=date(2026, 9, 9), context=year.context)
    assert refused.value.status == status


async def test_a_person_ends_what_cms_has_ended(year: Any) -> None:
    """Told by e-mail that the patient switched: the care period ends, the completion update is due."""
    await year.align()
    await year.commit(
        await schedule.finished("patient-1", "CKM", state="switched", day=year.day(0), context=year.context)
    )
    (period,) = await year.all(CarePeriod)
    assert (await record(year)).state is AlignmentState.SWITCHED
    assert period.state is CarePeriodState.UNALIGNED
    with pytest.raises(Refused):
        await schedule.finished("patient-1", "CKM", state="unaligned", day=year.day(0), context=year.context)
