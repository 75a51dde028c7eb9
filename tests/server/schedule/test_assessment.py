"""Requirement: a report is built of new, complete, valid values, sent once; a person sees why not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from profiles import fhir_json
from server import schedule
from server.domain.care_period import MilestoneReached, ReportState
from server.domain.coordination import WorkItem
from server.domain.errors import Refused
from server.domain.job import JobKind
from server.domain.measures import load_evidence
from server.domain.submission import Operation, Submission, SubmissionEvent, SubmissionState
from server.store.base import Changeset
from tests.server.schedule.conftest import CODES, PATIENT_ID, coded

if TYPE_CHECKING:
    from tests.server.schedule.conftest import Year


def values(submission: Submission) -> list[dict[str, Any]]:
    """The Observations of a report."""
    parameters = fhir_json.parse(submission.request)["parameter"]
    bundle = next(one["resource"] for one in parameters if one["name"] == "dataBundle")
    found = (entry["resource"] for entry in bundle["entry"])
    return [resource for resource in found if resource["resourceType"] == "Observation"]


def identifier(submission: Submission) -> str:
    """The Bundle's identifier."""
    parameters = fhir_json.parse(submission.request)["parameter"]
    return str(next(one["resource"] for one in parameters if one["name"] == "dataBundle")["identifier"]["value"])


async def test_a_complete_baseline_is_built_checked_and_sent(year: Year) -> None:
    """The bytes are fixed with their hash; the evidence names each value's version; the job that sends it is due."""
    await year.align()
    await year.everything()
    report, (submission,) = await year.report(), await year.all(Submission)
    assert (report.state, report.submission_id, report.missing) == (ReportState.SUBMITTED, submission.id, "")
    assert (submission.state, submission.operation, submission.agent, submission.report_id) == (
        SubmissionState.BUILT,
        Operation.REPORT_DATA,
        "schedule",
        report.id,
    )
    assert submission.request_sha256 == sha256(submission.request).hexdigest()
    assert len(values(submission)) == 10
    evidence = load_evidence(report.evidence)
    assert len(evidence["blood-pressure"]) == 3
    assert evidence["HbA1c"][0].reference.endswith("/1")
    assert list(await year.waiting(JobKind.SUBMIT)) == [submission.id]
    assert [event.state for event in await year.all(SubmissionEvent)] == [SubmissionState.BUILT]


async def test_what_is_missing_is_said_with_the_report(year: Year) -> None:
    """The work list reads it from the row."""
    await year.align()
    await year.measured("HbA1c", "7.1")
    await year.measured("eGFR", "61")
    assert (await year.report()).missing == "blood-pressure,lipids,weight,BMI,waist,uACR"
    (line,) = await schedule.due(year.context)
    assert (line.days_left, line.missing[0]) == (60, "blood-pressure")


async def test_values_that_came_before_the_alignment_are_used(year: Year) -> None:
    """Results often come before the first eligibility check."""
    await year.everything()
    await year.align()
    assert (await year.report()).state is ReportState.SUBMITTED


async def test_assessing_again_changes_nothing(year: Year) -> None:
    """Each accepted resource has the period assessed: the same state gives no rows, no jobs, no second submission."""
    period = await year.align()
    await year.measured("HbA1c", "7.1")
    before = await year.report()
    await year.run(schedule.assess, period.id)
    assert await year.report() == before
    await year.everything()
    after = await year.report()
    await year.run(schedule.assess, period.id)
    assert await year.report() == after
    assert len(await year.all(Submission)) == 1


async def test_a_quarterly_report_holds_new_values_only(year: Year) -> None:
    """What the baseline reported does not go again, though a laboratory value would still be valid."""
    await year.align()
    await year.everything()
    await year.answer(await year.report())
    await year.go(75)
    await year.everything(systolic=131)
    submissions = {one.report_type: one for one in await year.all(Submission)}
    first, second = ({one["id"] for one in values(submissions[kind])} for kind in ("baseline", "quarterly"))
    assert first
    assert second
    assert not first & second
    assert not {one["code"]["coding"][0]["code"] for one in values(submissions["quarterly"])} & {"98979-8", "14959-1"}


async def test_with_few_pressures_an_automatic_report_waits_until_time_is_short(year: Year) -> None:
    """Three are wished; fourteen days before the end one will do."""
    await year.align()
    await year.go(1)
    for measure in ("weight", "BMI", "waist", "HbA1c", "eGFR", "uACR", "lipids"):
        await year.measured(measure, "30", at=year.moment(40))
    await year.go(41)
    await year.pressure(130)
    assert (await year.states())["baseline 1"] == "open"
    await year.go(46)
    assert (await year.states())["baseline 1"] == "submitted"


async def test_a_value_that_can_not_be_reported_is_shown_to_a_person(year: Year) -> None:
    """An HbA1c without a unit may be the missing one; the text holds no value."""
    await year.align()
    for _ in range(2):
        await year.measured("HbA1c", "7.1", id="bad", valueQuantity={"value": 987})
    (text,) = await year.texts("report")
    assert text.startswith("A stored HbA1c (Observation/bad/")
    assert "987" not in text
    await year.everything()
    assert await year.texts("report") == []


async def test_an_empty_newer_reading_does_not_hide_a_full_older_one(year: Year) -> None:
    """As one client's users met it: the newest weight without a value, the one before it counts."""
    await year.align()
    full = await year.measured("weight", "81.6", at=year.clock.now() - timedelta(hours=2))
    absent = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "not-asked"}]}
    for minutes in (5, 4, 3):
        await year.pressure(138, at=year.clock.now() - timedelta(minutes=minutes))
    for number, measure in enumerate(name for name in CODES if name != "weight"):
        await year.measured(measure, str(20 + number))
    empty = {"id": "empty", "status": "final", "dataAbsentReason": absent, "code": coded(CODES["weight"][0])}
    await year.put(
        {"resourceType": "Observation", "subject": {"reference": f"Patient/{PATIENT_ID}"}, **empty}
        | {"effectiveDateTime": year.clock.now().isoformat()}
    )
    report = await year.report()
    assert report.state is ReportState.SUBMITTED
    (used,) = load_evidence(report.evidence)["weight"]
    assert used.reference == f"Observation/{full}/1"


@pytest.mark.parametrize("status", ["preliminary", "entered-in-error"])
async def test_a_preliminary_or_withdrawn_value_is_neither_used_nor_complained_of(year: Year, status: str) -> None:
    """A final one may follow."""
    await year.align()
    await year.measured("HbA1c", "7.1", status=status)
    assert "HbA1c" in (await year.report()).missing
    assert await year.texts() == []


async def test_an_invalid_document_is_not_sent_and_a_person_is_told_once(year: Year) -> None:
    """A Patient without gender breaks us-core-patient; mended, the report goes and the item is closed."""
    patient = {"resourceType": "Patient", "id": "patient-1", "name": [{"family": "Quillfeather"}]}
    await year.put(patient, assess=False)
    await year.align()
    await year.everything()
    await year.assess()
    (text,) = await year.texts()
    assert "is not valid, so it was not sent" in text
    assert await year.all(Submission) == []
    mbi = {"system": "http://terminology.hl7.org/NamingSystem/cmsMBI", "value": "1EG4TE5MK73"}
    await year.put(patient | {"identifier": [mbi], "gender": "female", "birthDate": "1951-02-03"})
    assert (await year.report()).state is ReportState.SUBMITTED
    assert await year.texts() == []


async def test_incomplete_data_opens_the_report_and_only_new_values_send_it_again(year: Year) -> None:
    """The same content is not sent twice; each attempt has its own Bundle identifier."""
    await year.align()
    await year.everything()
    await year.answer(await year.report(), "incomplete-data")
    report = await year.report()
    assert report.state is ReportState.OPEN
    assert len(await year.all(Submission)) == 1
    await year.go(1)
    await year.measured("HbA1c", "7.0")
    submissions = await year.all(Submission)
    assert len({identifier(one) for one in submissions}) == len(submissions) == 2
    assert await year.texts() == []


@pytest.mark.parametrize("code", ["patient-not-aligned", "reporting-period-closed", "incorrect-track", "never-seen"])
async def test_after_any_other_refusal_nothing_goes_without_a_person(year: Year, code: str) -> None:
    """No loop of refused reports: the item in the work list bars it, and says how to send it."""
    await year.align()
    await year.everything()
    await year.answer(await year.report(), code)
    await year.go(1)
    await year.everything()
    assert len(await year.all(Submission)) == 1
    report = await year.report()
    (text,) = await year.texts("submission")
    assert code in text
    assert f"access-facade submit {report.id}" in text
    await year.commit(await schedule.submit_report(report.id, year.context))
    assert (await year.report()).state is ReportState.SUBMITTED
    assert await year.texts() == []


class TestReview:
    """`reporting = "review"`: a person sends each report."""

    @pytest.fixture
    def reporting(self) -> str:
        return "review"

    async def test_a_complete_report_waits_for_a_person(self, year: Year) -> None:
        """READY, with the command in the work list; nothing is sent."""
        await year.align()
        await year.everything()
        report = await year.report()
        assert report.state is ReportState.READY
        assert await year.all(Submission) == []
        (text,) = await year.texts("report")
        assert f"access-facade submit {report.id}" in text
        await year.commit(await schedule.submit_report(report.id, year.context, agent="operator-1"))
        (submission,) = await year.all(Submission)
        assert submission.agent == "operator-1"
        assert await year.texts() == []

    async def test_a_ready_report_takes_newer_values(self, year: Year) -> None:
        """What a person sends is what is known then."""
        await year.align()
        await year.everything()
        before = await year.report()
        await year.go(1)
        newer = await year.measured("HbA1c", "6.9")
        after = await year.report()
        assert after.state is ReportState.READY
        assert after.evidence != before.evidence
        assert load_evidence(after.evidence)["HbA1c"][0].reference == f"Observation/{newer}/1"

    async def test_a_ready_report_whose_values_grow_too_old_is_open_again(self, year: Year) -> None:
        """A blood pressure counts for 15 days."""
        await year.align()
        await year.everything()
        await year.go(20)
        await year.assess()
        report = await year.report()
        assert (report.state, report.missing) == (ReportState.OPEN, "blood-pressure,weight,BMI,waist")
        assert await year.texts("report") == []

    async def test_a_report_is_sent_incomplete_only_on_purpose(self, year: Year) -> None:
        """The refusal names what is missing."""
        await year.align()
        await year.measured("HbA1c", "7.1")
        report = await year.report()
        with pytest.raises(Refused) as refused:
            await schedule.submit_report(report.id, year.context)
        assert (refused.value.status, "uACR" in refused.value.issues[0].text) == (422, True)
        await year.commit(await schedule.submit_report(report.id, year.context, incomplete=True))
        assert (await year.report()).state is ReportState.SUBMITTED

    @pytest.mark.parametrize(
        ("state", "days"), [(ReportState.ACCEPTED, 5), (ReportState.SUBMITTED, 5), (ReportState.OPEN, 61)]
    )
    async def test_a_report_that_is_sent_or_closed_is_not_sent(self, year: Year, state: ReportState, days: int) -> None:
        """409, in plain words."""
        await year.align()
        await year.everything()
        report = await year.report()
        if state is ReportState.SUBMITTED:
            await year.commit(await schedule.submit_report(report.id, year.context))
        else:
            await year.commit(Changeset(replace=(replace(report, state=state),)))
        year.clock.at = year.moment(days)
        with pytest.raises(Refused) as refused:
            await schedule.submit_report(report.id, year.context)
        assert refused.value.status == 409

    async def test_an_unknown_report_does_not_exist(self, year: Year) -> None:
        """404."""
        with pytest.raises(Refused) as refused:
            await schedule.submit_report("none", year.context)
        assert refused.value.status == 404

    async def test_a_person_may_send_an_early_success_report(self, year: Year) -> None:
        """From day 275 (CKM), though nothing is sent by itself before day 366."""
        await year.align()
        await year.everything()
        await year.commit(await schedule.submit_report((await year.report()).id, year.context))
        await year.answer(await year.report())
        year.clock.at = year.moment(275)
        await year.everything()
        last = await year.report("end-of-period")
        assert last.state is ReportState.SCHEDULED
        await year.commit(await schedule.submit_report(last.id, year.context))
        assert (await year.report("end-of-period")).state is ReportState.SUBMITTED


async def test_a_goal_that_is_reached_after_the_baseline_is_told_once(year: Year) -> None:
    """Blood pressure under 130: one row, one care update, however often the period is assessed."""
    await year.align()
    await year.everything(systolic=138)
    await year.answer(await year.report())
    await year.go(40)
    await year.pressure(129)
    await year.pressure(125, at=year.clock.now() - timedelta(minutes=1))
    (milestone,) = await year.all(MilestoneReached)
    assert milestone.measure == "blood-pressure"
    updates = await year.waiting(JobKind.CARE_UPDATE)
    assert updates["milestone|blood-pressure"] == year.day(40)


async def test_before_the_baseline_is_accepted_no_goal_counts(year: Year) -> None:
    """There is nothing to improve from."""
    await year.align()
    await year.everything(systolic=138)
    await year.go(1)
    await year.pressure(125)
    assert await year.all(MilestoneReached) == []


async def test_another_participant_can_not_assess_the_period(year: Year) -> None:
    """The job's participant has to own it."""
    period = await year.align()
    await year.everything()
    job = (
        await year.context.store.claim(now=year.moment(400), machine_now=year.moment(400), lease_seconds=1, limit=1)
    )[0]
    foreign = replace(job, participant_id="ACCES99999", key=period.id)
    assert await schedule.assess(foreign, year.context) == Changeset()


async def test_work_items_hold_no_phi(year: Year) -> None:
    """Ids, measures and dates only."""
    await year.align()
    await year.everything()
    await year.answer(await year.report(), "incorrect-track")
    await year.go(61)
    items = await year.all(WorkItem)
    assert items
    assert not [item for item in items if "Quillfeather" in item.text or "1EG4TE5MK73" in item.text]
