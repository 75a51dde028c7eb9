"""How a patient stands to the model: the table of decisions, and its dates."""

import json
from datetime import UTC, date, datetime
from importlib.resources import files

import pytest

from server.domain.alignment import (
    CONTRADICTIONS,
    FREE,
    HELD,
    HELD_MOVES,
    Alignment,
    AlignmentState,
    Decision,
    dated,
    decided,
    locked,
    months_after,
    stands,
)
from server.domain.rules import rules_for
from server.domain.submission import Operation

DAY = date(2026, 9, 1)
RULES = rules_for(DAY)
S = AlignmentState
CODES = {
    Operation.CHECK_ELIGIBILITY: "ACCESSEligibilityResultCS",
    Operation.ALIGN: "ACCESSAlignmentResultCS",
    Operation.UNALIGN: "ACCESSUnalignmentResultCS",
}


def row(state: AlignmentState = S.UNKNOWN, **columns: object) -> Alignment:
    values = {"participant_id": "ACCES12345", "patient_id": "p", "track": "CKM", "state": state} | columns
    return Alignment(**values)  # type: ignore[arg-type]


def decision(operation: Operation, code: str, day: date = DAY) -> Decision:
    return Decision(operation=operation, code=code, at=datetime(2026, 9, 1, 12, tzinfo=UTC), day=day)


def published() -> list[tuple[Operation, str]]:
    """Every code of the guide's three code systems about alignment."""
    folder = files("profiles") / "definitions" / "access-0.9.12"
    systems = {op: json.loads((folder / f"CodeSystem-{name}.json").read_text("utf-8")) for op, name in CODES.items()}
    return [(op, concept["code"]) for op, system in systems.items() for concept in system["concept"]]


@pytest.mark.parametrize(("operation", "code"), published())
def test_every_code_of_the_guide_is_in_the_table(operation: Operation, code: str) -> None:
    """For a patient who is not held; the two unalignment refusals say nothing new about one."""
    silent = {"patient-not-aligned", "cannot-unalign-during-lock-in"}
    assert ((operation, code) in FREE) is (code not in silent)


@pytest.mark.parametrize(("operation", "code"), published())
@pytest.mark.parametrize("state", sorted(HELD))
def test_only_cms_answers_to_our_own_wish_end_an_alignment(
    operation: Operation, code: str, state: AlignmentState
) -> None:
    """No eligibility answer, and no refusal, takes a patient from us: a contradiction is told instead."""
    moved = decided(row(state), decision(operation, code), RULES)
    assert moved.row.state is HELD_MOVES.get((operation, code), state)
    assert moved.contradicts is ((operation, code) in CONTRADICTIONS)
    assert moved.row.last_code == code


def test_an_unknown_code_moves_nothing() -> None:
    """It is remembered as what CMS last said."""
    moved = decided(row(S.ELIGIBLE), decision(Operation.ALIGN, "aligned-by-moonlight"), RULES)
    assert (moved.row.state, moved.row.last_code, moved.contradicts) == (S.ELIGIBLE, "aligned-by-moonlight", False)


def test_an_alignment_counts_its_dates_from_day_0() -> None:
    """90 days of lock-in and 12 months, the first day included (IG 0.9.12: from the day of the alignment)."""
    aligned = decided(row(), decision(Operation.ALIGN, "aligned"), RULES).row
    assert (aligned.aligned_on, aligned.lock_in_until, aligned.ends_on) == (DAY, date(2026, 11, 29), date(2027, 8, 31))
    assert locked(aligned, date(2026, 11, 29))
    assert not locked(aligned, date(2026, 11, 30))
    assert stands(aligned, date(2027, 8, 31))
    assert not stands(aligned, date(2027, 9, 1))


def test_the_lock_in_of_a_patient_who_left_is_over() -> None:
    """Only an alignment that is held bars anything."""
    gone = dated(row(S.UNALIGNED), DAY, RULES)
    assert not locked(gone, DAY)
    assert not stands(gone, DAY)
    assert not stands(None, DAY)


def test_the_control_group_is_drawn_once() -> None:
    """12 calendar months from the first answer; an answer within them does not begin them again, a later one does."""
    first = decided(row(), decision(Operation.CHECK_ELIGIBILITY, "not-eligible-control-group"), RULES).row
    assert first.control_until == date(2027, 8, 31)
    again = decided(first, decision(Operation.ALIGN, "not-aligned-control-group", date(2027, 8, 31)), RULES).row
    assert again.control_until == first.control_until
    later = decided(again, decision(Operation.ALIGN, "not-aligned-control-group", date(2027, 9, 1)), RULES).row
    assert later.control_until == date(2028, 8, 31)


@pytest.mark.parametrize(
    ("day", "months", "then"),
    [
        (date(2026, 8, 31), 12, date(2027, 8, 31)),
        (date(2028, 2, 29), 12, date(2029, 2, 28)),
        (date(2026, 12, 31), 2, date(2027, 2, 28)),
        (date(2026, 1, 15), 11, date(2026, 12, 15)),
        (date(2026, 1, 15), 12, date(2027, 1, 15)),
    ],
)
def test_months_are_of_the_calendar(day: date, months: int, then: date) -> None:
    """The last day of a month that has no such day."""
    assert months_after(day, months) == then


@pytest.mark.parametrize("code", ["eligible-switch-participants"])
def test_a_possible_switch_is_remembered_until_it_is_over(code: str) -> None:
    """The next alignment has to be attested; once aligned, or free, it has not."""
    may = decided(row(), decision(Operation.CHECK_ELIGIBILITY, code), RULES).row
    assert (may.state, may.may_switch) == (S.ELIGIBLE, True)
    assert not decided(may, decision(Operation.CHECK_ELIGIBILITY, "eligible"), RULES).row.may_switch
    assert not decided(may, decision(Operation.ALIGN, "aligned-switch-approved"), RULES).row.may_switch
