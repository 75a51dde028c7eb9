"""Requirement: a report takes new, final, still valid values only, and tells what is missing."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from server.domain.measures import (
    Reading,
    Selection,
    Used,
    dump_evidence,
    load_evidence,
    milestones,
    newest_reported,
    reading,
    select,
    value_of,
)
from server.domain.rules import rules_for

RULES = rules_for(date(2026, 9, 1))
ZONE = ZoneInfo("America/Denver")
ON = date(2026, 10, 1)
AT = datetime(2026, 10, 1, 20, tzinfo=UTC)


def observation(effective: str, *, value: str = "7.1", status: str = "final") -> dict[str, Any]:
    """A laboratory value."""
    quantity = {"value": Decimal(value), "unit": "%"}
    return {"resourceType": "Observation", "status": status, "effectiveDateTime": effective, "valueQuantity": quantity}


def pressure(effective: str, systolic: int) -> dict[str, Any]:
    """A blood pressure."""
    component = {"code": {"coding": [{"code": "8480-6"}]}, "valueQuantity": {"value": systolic}}
    return {"resourceType": "Observation", "status": "final", "effectiveDateTime": effective, "component": [component]}


def read(measure: str, resource: dict[str, Any], reference: str = "Observation/a/1") -> Reading:
    """A Reading of it, in the zone of these tests."""
    found = reading(measure, resource, reference=reference, zone=ZONE)
    assert found is not None
    return found


def chosen(*readings: Reading, track: str = "CKM", report: str = "quarterly", **reported: datetime) -> Selection:
    """What a report takes of these readings."""
    requirement = RULES.requirement(track, report)
    return select(readings, requirement, RULES, reported=reported, at=AT, on=ON)


def references(selection: Selection) -> dict[str, list[str]]:
    """The references of what was chosen."""
    return {measure: [one.reference for one in found] for measure, found in selection.chosen.items()}


def test_only_values_after_the_last_reported_one_are_new() -> None:
    """A value that was reported, and any before it, does not go again."""
    readings = [
        read("HbA1c", observation("2026-08-01T10:00:00-06:00"), "Observation/old/1"),
        read("HbA1c", observation("2026-08-02T10:00:00-06:00"), "Observation/new/1"),
    ]
    reported = datetime(2026, 8, 1, 16, tzinfo=UTC)
    assert references(chosen(*readings, HbA1c=reported)) == {"HbA1c": ["Observation/new/1"]}
    assert references(chosen(readings[0], HbA1c=reported)) == {}


@pytest.mark.parametrize(
    ("measure", "days", "valid"),
    [("weight", 15, True), ("weight", 16, False), ("HbA1c", 365, True), ("HbA1c", 366, False)],
)
def test_a_value_counts_as_long_as_its_measure_is_valid(measure: str, days: int, valid: bool) -> None:
    """The number of days is that of the rules, both edges included."""
    day = (ON - timedelta(days=days)).isoformat()
    assert (measure in chosen(read(measure, observation(day))).chosen) is valid


@pytest.mark.parametrize("status", ["preliminary", "entered-in-error", "cancelled", "unknown", "registered"])
def test_only_final_values_are_reported(status: str) -> None:
    """Preliminary values change, the others are none."""
    assert not chosen(read("HbA1c", observation("2026-09-30", status=status))).chosen


@pytest.mark.parametrize("effective", ["2026-10-01T20:00:01Z", "2026-10-02"])
def test_a_value_from_the_future_is_not_reported(effective: str) -> None:
    """A wrong clock at the source must not reach CMS."""
    assert not chosen(read("HbA1c", observation(effective))).chosen


def test_the_newest_three_blood_pressures_go_oldest_first() -> None:
    """As in the guide's examples: single readings."""
    readings = [
        read("blood-pressure", pressure(f"2026-09-{day}", 120), f"Observation/{day}/1") for day in range(20, 26)
    ]
    selection = chosen(*reversed(readings))
    assert references(selection)["blood-pressure"] == [f"Observation/{day}/1" for day in (23, 24, 25)]
    assert selection.thin == ()


def test_fewer_readings_than_wished_are_said_but_do_not_count_as_missing() -> None:
    """bp.min_readings is a warning."""
    selection = chosen(read("blood-pressure", pressure("2026-09-20", 120)))
    assert selection.thin == ("blood-pressure",)
    assert "blood-pressure" not in selection.missing


def test_the_same_reading_by_two_doors_is_one() -> None:
    """Equal measure and instant: one value."""
    twice = [read("blood-pressure", pressure("2026-09-20T08:00:00Z", 120), f"Observation/{name}/1") for name in "ab"]
    assert references(chosen(*twice)) == {"blood-pressure": ["Observation/b/1"]}


def test_missing_names_what_the_report_needs_and_does_not_have() -> None:
    """In the order of the rules."""
    selection = chosen(read("weight", observation("2026-09-30")))
    assert selection.missing == ("blood-pressure", "lipids", "HbA1c")


@pytest.mark.parametrize(
    ("given", "met"),
    [
        (("PROMIS-PF", "PROMIS-PI-CAT"), True),
        (("ODI",), True),
        (("PROMIS-PF", "PROMIS-PF-CAT"), False),
        ((), False),
    ],
)
def test_an_instrument_of_the_site_stands_in_for_both_promis_measures(given: tuple[str, ...], met: bool) -> None:
    """MSK: physical function and pain interference, or an approved instrument."""
    answers = {"resourceType": "QuestionnaireResponse", "status": "completed", "authored": "2026-09-30T10:00:00Z"}
    readings = [read(name, answers, f"QuestionnaireResponse/{name}/1") for name in (*given, "PROMIS-NRS")]
    assert (chosen(*readings, track="MSK").missing == ()) is met


def test_a_measure_of_another_track_does_not_come_along() -> None:
    """Minimum necessary: eCKM has no eGFR section."""
    assert not chosen(read("eGFR", observation("2026-09-30")), track="eCKM").chosen


@pytest.mark.parametrize(
    ("effective", "day"),
    [
        ("2026-09-30", date(2026, 9, 30)),
        ("2026-10-01T03:30:00Z", date(2026, 9, 30)),
        ("2026-09-30T23:59:59.999999-06:00", date(2026, 9, 30)),
    ],
)
def test_the_day_of_a_value_is_the_local_one(effective: str, day: date) -> None:
    """A date stands as it is; an instant is seen in the participant's zone."""
    assert read("HbA1c", observation(effective)).day == day


@pytest.mark.parametrize("effective", ["2026", "2026-09", "2026-09-30T10:00:00", "soon", "2026-02-30"])
def test_a_time_that_is_not_known_to_the_day_gives_no_reading(effective: str) -> None:
    """Nothing is guessed."""
    assert reading("HbA1c", observation(effective), reference="Observation/a/1", zone=ZONE) is None


def test_a_period_counts_by_its_end() -> None:
    """An average over a week is known when the week is over."""
    resource = {
        "resourceType": "Observation",
        "effectivePeriod": {"start": "2026-09-01", "end": "2026-09-08"},
    }
    assert read("weight", resource).day == date(2026, 9, 8)


def test_evidence_survives_being_written_down() -> None:
    """What a report used can be shown to an auditor, and bars its reuse."""
    evidence = chosen(read("weight", observation("2026-09-30T01:02:03.456Z"))).evidence
    assert load_evidence(dump_evidence(evidence)) == evidence
    assert newest_reported([evidence]) == {"weight": datetime(2026, 9, 30, 1, 2, 3, 456000, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("before", "after", "reached"),
    [(138, 129, True), (130, 129, True), (138, 130, False), (128, 120, False), (150, 138, False)],
)
def test_control_is_a_milestone_only_when_the_baseline_was_not_controlled(
    before: int, after: int, reached: bool
) -> None:
    """Systolic under 130, measured after the baseline; 130 is not under."""
    first = read("blood-pressure", pressure("2026-08-01T08:00:00Z", before), "Observation/first/1")
    later = read("blood-pressure", pressure("2026-09-28T08:00:00Z", after), "Observation/later/1")
    baseline = {"blood-pressure": (Used(first.reference, first.effective),)}
    found = milestones([first, later], RULES.targets_of("CKM"), RULES, baseline=baseline, at=AT)
    assert found == ({"blood-pressure": later} if reached else {})


@pytest.mark.parametrize(("before", "after", "reached"), [("40", "32", True), ("40", "33", False), ("40", "50", False)])
def test_without_a_control_target_the_improvement_counts(before: str, after: str, reached: bool) -> None:
    """ODI: down by 8 at least."""
    answers = [odi(before, "2026-08-01T08:00:00Z"), odi(after, "2026-09-28T08:00:00Z")]
    first, later = (read("ODI", one, f"QuestionnaireResponse/{i}/1") for i, one in enumerate(answers))
    found = milestones(
        [first, later],
        RULES.targets_of("MSK"),
        RULES,
        baseline={"ODI": (Used(first.reference, first.effective),)},
        at=AT,
    )
    assert ("ODI" in found) is reached


def odi(score: str, authored: str) -> dict[str, Any]:
    """Answers to the ODI with their score."""
    item = {"linkId": "score", "answer": [{"valueDecimal": Decimal(score)}]}
    return {"resourceType": "QuestionnaireResponse", "status": "completed", "authored": authored, "item": [item]}


def test_a_measure_that_the_baseline_does_not_have_reaches_no_milestone() -> None:
    """There is nothing to compare with."""
    later = read("blood-pressure", pressure("2026-09-28T08:00:00Z", 120))
    assert milestones([later], RULES.targets_of("CKM"), RULES, baseline={}, at=AT) == {}


def test_a_baseline_value_that_is_not_stored_any_more_reaches_no_milestone() -> None:
    """A deleted Observation can not be compared with."""
    later = read("blood-pressure", pressure("2026-09-28T08:00:00Z", 120))
    gone = {"blood-pressure": (Used("Observation/gone/1", datetime(2026, 8, 1, tzinfo=UTC)),)}
    assert milestones([later], RULES.targets_of("CKM"), RULES, baseline=gone, at=AT) == {}


@pytest.mark.parametrize(
    ("effective", "status", "reached"),
    [
        ("2026-08-01T08:00:01Z", "final", True),
        ("2026-10-01T20:00:00Z", "final", True),
        ("2026-08-01T08:00:00Z", "final", False),
        ("2026-10-01T20:00:01Z", "final", False),
        ("2026-09-28T08:00:00Z", "preliminary", False),
    ],
)
def test_a_milestone_is_a_final_value_after_the_baseline_and_not_of_the_future(
    effective: str, status: str, reached: bool
) -> None:
    """Each edge of the time between."""
    first = read("blood-pressure", pressure("2026-08-01T08:00:00Z", 140), "Observation/first/1")
    later = read("blood-pressure", pressure(effective, 120) | {"status": status}, "Observation/later/1")
    weight = read("weight", observation("2026-09-30"), "Observation/weight/1")
    baseline = {"blood-pressure": (Used(first.reference, first.effective),)}
    found = milestones([first, later, weight], RULES.targets_of("CKM"), RULES, baseline=baseline, at=AT)
    assert bool(found) is reached


@pytest.mark.parametrize(("after", "reached"), [("42", True), ("41.9", False), ("38", False)])
def test_an_improvement_upwards_counts_from_its_exact_size(after: str, reached: bool) -> None:
    """PROMIS physical function: T-score up by 2 at least."""
    scores = {"2026-08-01T08:00:00Z": "40", "2026-09-28T08:00:00Z": after}
    first, later = (
        read("PROMIS-PF", odi(score, at) | {"item": [tscore(score)]}, f"QuestionnaireResponse/{score}/1")
        for at, score in scores.items()
    )
    baseline = {"PROMIS-PF": (Used(first.reference, first.effective),)}
    found = milestones([first, later], RULES.targets_of("MSK"), RULES, baseline=baseline, at=AT)
    assert bool(found) is reached


def tscore(score: str) -> dict[str, Any]:
    """The item of a T-score."""
    return {"linkId": "tscore", "answer": [{"valueDecimal": Decimal(score)}]}


def test_a_value_of_this_very_moment_is_reported() -> None:
    """Only later ones are of the future."""
    assert chosen(read("HbA1c", observation("2026-10-01T20:00:00Z"))).chosen


def test_a_value_that_is_only_bounded_is_not_compared() -> None:
    """`<5.0` is no number."""
    resource = observation("2026-09-30")
    resource["valueQuantity"]["comparator"] = "<"
    assert value_of(resource, RULES.measures["HbA1c"]) is None


def test_a_coded_answer_counts_by_its_ordinal() -> None:
    """The ordinal stands inside the coding since IG 0.9.11."""
    coding = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/ordinalValue", "valueDecimal": 2}]}
    response = {
        "resourceType": "QuestionnaireResponse",
        "item": [{"linkId": "pgic-1", "answer": [{"valueCoding": coding}]}],
    }
    assert value_of(response, RULES.measures["PGIC"]) == 2
