"""Requirement: CMS's numbers are data with a source and an effective range (access-program 0 and 9)."""

from datetime import date
from importlib.resources import files

import pytest

from server.domain.errors import BadConfiguration
from server.domain.rules import Mark, Rules, all_rules, load, rules_for
from server.settings import TRACKS

TEXT = (files("server.domain") / "rules" / "access-2026.toml").read_text("utf-8")


@pytest.fixture
def rules() -> Rules:
    """The packaged rules."""
    return rules_for(date(2026, 9, 1))


@pytest.mark.parametrize(
    ("name", "value", "mark"),
    [
        ("baseline_last_day", 60, Mark.CONFIRMED),
        ("quarterly_min_days", 70, Mark.CONFIRMED),
        ("quarterly_max_days", 110, Mark.CONFIRMED),
        ("end_last_day", 425, Mark.CONFIRMED),
        ("early_success_days", {"eCKM": 90, "CKM": 90, "MSK": 180, "BH": 180}, Mark.CONFIRMED),
        ("lock_in_days", 90, Mark.CONFIRMED),
        ("initiation_days", 10, Mark.SECONDARY),
        ("completion_days", 30, Mark.SECONDARY),
        ("quarterly_at_end", "trim", Mark.UNCONFIRMED),
    ],
)
def test_a_rule_has_the_value_and_the_mark_of_its_source(rules: Rules, name: str, value: object, mark: Mark) -> None:
    """The packaged values are those of the guide, each with how sure it is."""
    rule = getattr(rules, name)
    assert (rule.value, rule.mark) == (value, mark)
    assert rule.source


@pytest.mark.parametrize("day", [date(2026, 7, 5), date(2027, 12, 31)])
def test_both_ends_of_the_effective_range_are_covered(day: date) -> None:
    """A care period that begins on the first or last day has rules."""
    assert rules_for(day).first <= day <= rules_for(day).last


@pytest.mark.parametrize("day", [date(2026, 7, 4), date(2028, 1, 1)])
def test_a_period_that_no_file_covers_is_a_configuration_error(day: date) -> None:
    """No rule is guessed: the message names the day and the folder."""
    with pytest.raises(BadConfiguration, match=f"rules covers a care period that begins on {day}"):
        rules_for(day)


def test_egfr_and_uacr_are_needed_at_the_baseline_of_ckm_only(rules: Rules) -> None:
    """ACCESS API IG 0.9.12: at the baseline of each care period; the eCKM section has no such slice."""
    needing = {key for key, row in rules.requirements.items() if any(need.name == "eGFR" for need in row.needs)}
    assert needing == {("CKM", "baseline")}
    assert "eGFR" not in rules.requirement("eCKM", "end-of-period").measures


def test_a_ckm_baseline_takes_all_eight_measures(rules: Rules) -> None:
    """The guide's CKM section has eight slices."""
    expected = {"blood-pressure", "lipids", "weight", "BMI", "waist", "HbA1c", "eGFR", "uACR"}
    assert set(rules.requirement("CKM", "baseline").measures) == expected
    assert {need.name for need in rules.requirement("CKM", "baseline").needs} == expected


@pytest.mark.parametrize("track", sorted(TRACKS))
@pytest.mark.parametrize("report", ["baseline", "quarterly", "end-of-period"])
def test_every_track_and_report_has_requirements(rules: Rules, track: str, report: str) -> None:
    """No report is owed without knowing what it needs."""
    assert rules.requirement(track, report).needs


def test_an_unknown_track_is_a_configuration_error(rules: Rules) -> None:
    """A new track comes with its rows."""
    with pytest.raises(BadConfiguration, match="HF"):
        rules.requirement("HF", "baseline")


def test_no_target_is_shown_as_verified(rules: Rules) -> None:
    """All targets come from third parties (access-program 2)."""
    assert not any(target.mark.is_verified for target in rules.targets)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('value = "trim"', 'value = "maybe"', "quarterly_at_end"),
        ("[rule.lock_in_days]", "[rule.lock_in]", "lock_in"),
        ('mark = "OURS"', 'mark = "SURE"', "SURE"),
        ('measures = ["WHODAS"]', 'measures = ["WHODAZ"]', "WHODAZ"),
        ("[effective]  ", "[effective  ", "TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_row(old: str, new: str, message: str) -> None:
    """An edited rule file fails when it is read, not in the middle of a care period."""
    with pytest.raises(BadConfiguration, match=message):
        load(TEXT.replace(old, new, 1))


def test_the_packaged_files_do_not_overlap() -> None:
    """A day has one set of rules."""
    assert [rules.name for rules in all_rules()] == ["access-2026"]
