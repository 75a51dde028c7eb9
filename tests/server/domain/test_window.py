"""Requirement: windows on calendar dates, right at every edge (reliability T1 and T2).

The oracle below is written from the guide's sentences day by day, and shares no code with the module.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from server.domain.care_period import CarePeriod, CarePeriodState, Report, ReportState
from server.domain.rules import Rules, rules_for
from server.domain.window import ReportingWindow, day_of, due_work, reporting_windows, start_of

NEW_YORK = ZoneInfo("America/New_York")
RULES = rules_for(date(2026, 9, 1))
EARLY_FROM = {"eCKM": 275, "CKM": 275, "MSK": 185, "BH": 185}
FIRST_DAY = date(2026, 7, 5)
FOUR_YEARS = 1461  # with 2028-02-29


def period(aligned_on: date, track: str = "CKM", **columns: object) -> CarePeriod:
    """A care period of the tests' patient."""
    return CarePeriod(
        participant_id="ACCES12345",
        id="p",
        patient_id="patient",
        track=track,
        aligned_on=aligned_on,
        align_submission_id="s",
        **columns,  # type: ignore[arg-type]
    )


def report(kind: str, number: int, state: ReportState, *, sent: datetime | None = None, **columns: object) -> Report:
    """One report row."""
    values: dict[str, object] = {"opens": FIRST_DAY, "closes": FIRST_DAY, **columns}
    return Report(
        participant_id="ACCES12345",
        id=f"{kind}-{number}",
        care_period_id="p",
        patient_id="patient",
        track="CKM",
        report_type=kind,
        number=number,
        state=state,
        submitted_at=sent,
        **values,  # type: ignore[arg-type]
    )


def accepted(aligned_on: date, offsets: Sequence[int], *, at: time, zone: ZoneInfo = NEW_YORK) -> list[Report]:
    """Baseline and quarterly reports accepted at a local time of day, so many days after the alignment."""
    reports = []
    for number, offset in enumerate(offsets):
        kind = "baseline" if number == 0 else "quarterly"
        sent = datetime.combine(aligned_on + timedelta(days=offset), at, zone).astimezone(UTC)
        reports.append(report(kind, max(number, 1), ReportState.ACCEPTED, sent=sent))
    return reports


def days(window: ReportingWindow, aligned_on: date, *, early: bool = False) -> set[int]:
    """The days of a window, counted from the alignment."""
    first = (window.early_from if early and window.early_from else window.opens) - aligned_on
    return set(range(first.days, (window.closes - aligned_on).days + 1))


def oracle(offsets: Sequence[int], track: str) -> dict[tuple[str, int], set[int]]:
    """Day by day: which report may be sent on day d after the alignment?"""
    year = range(431)
    expected = {
        ("baseline", 1): {d for d in year if d <= 60},
        ("end-of-period", 1): {d for d in year if 365 <= d <= 425},
        ("early", 1): {d for d in year if EARLY_FROM[track] <= d <= 425},
    }
    for number, anchor in enumerate(offsets, 1):
        open_days = {d for d in year if 70 <= d - anchor <= 110 and d <= 364}
        if len(open_days) >= 7:
            expected["quarterly", number] = open_days
    return expected


def test_every_day_of_four_years_agrees_with_the_oracle() -> None:
    """Each alignment day in 4 years x each offset 0 to 430 x 4 tracks, with moving submissions: no difference."""
    for index in range(FOUR_YEARS):
        aligned_on = FIRST_DAY + timedelta(days=index)
        offsets = [index % 61]
        while offsets[-1] + 70 <= 364 - 6:
            offsets.append(min(364, offsets[-1] + 70 + index * 7 % 41))
        reports = accepted(aligned_on, offsets, at=time(index % 24, index % 60))
        for track in EARLY_FROM:
            windows = reporting_windows(period(aligned_on, track), reports, RULES, zone=NEW_YORK)
            found = {(one.report_type.value, one.number): days(one, aligned_on) for one in windows}
            found["early", 1] = days(windows[-1], aligned_on, early=True)
            assert found == oracle(offsets, track), (aligned_on, track, offsets)


@pytest.mark.parametrize("hour", [0, 2, 12, 23])
@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Honolulu", "America/Havana", "Pacific/Kiritimati"])
@pytest.mark.parametrize("day", [date(2026, 11, 1), date(2027, 3, 14), date(2028, 2, 29), date(2027, 12, 31)])
def test_the_anchor_is_the_local_day_of_the_submission(day: date, zone: str, hour: int) -> None:
    """Clock changes, leap day and year end: the window opens 70 local calendar days after the local day."""
    local = ZoneInfo(zone)
    sent = datetime.combine(day, time(hour, 30), local).astimezone(UTC)
    reports = [report("baseline", 1, ReportState.ACCEPTED, sent=sent)]
    windows = reporting_windows(period(day - timedelta(days=5)), reports, RULES, zone=local)
    assert windows[1].opens == day + timedelta(days=70)
    assert windows[1].closes == day + timedelta(days=110)


@pytest.mark.parametrize("zone", ["America/New_York", "America/Havana", "Asia/Beirut", "Pacific/Apia"])
def test_the_first_instant_of_every_day_is_on_that_day(zone: str) -> None:
    """Also where a clock change skips or repeats midnight; and it is the first: a second earlier is the day before."""
    local = ZoneInfo(zone)
    for offset in range(800):
        day = FIRST_DAY + timedelta(days=offset)
        first = start_of(day, local)
        assert day_of(first, local) == day
        assert day_of(first - timedelta(seconds=1), local) == day - timedelta(days=1)


def test_without_an_accepted_baseline_no_quarterly_window_is_known() -> None:
    """It hangs on the submission before it."""
    reports = [report("baseline", 1, ReportState.SUBMITTED)]
    windows = reporting_windows(period(FIRST_DAY), reports, RULES, zone=NEW_YORK)
    assert [window.report_type for window in windows] == ["baseline", "end-of-period"]


@pytest.mark.parametrize(("choice", "anchor"), [("closes", date(2027, 1, 10)), ("opens", date(2026, 12, 1))])
def test_after_a_missed_quarterly_the_next_window_hangs_where_the_rule_says(choice: str, anchor: date) -> None:
    """UNCONFIRMED in the guide, so it is data."""
    rules = changed(RULES, quarterly_after_missed=choice)
    sent = datetime(2026, 9, 1, 12, tzinfo=UTC)
    reports = [
        report("baseline", 1, ReportState.ACCEPTED, sent=sent),
        report("quarterly", 1, ReportState.MISSED, opens=date(2026, 12, 1), closes=date(2027, 1, 10)),
    ]
    windows = reporting_windows(period(date(2026, 8, 1)), reports, rules, zone=NEW_YORK)
    assert windows[2].opens == anchor + timedelta(days=70)


@pytest.mark.parametrize(("choice", "last_day"), [("trim", 364), ("keep", 390), ("drop", None)])
def test_a_quarterly_window_that_reaches_day_365_is_treated_as_the_rule_says(choice: str, last_day: int | None) -> None:
    """UNCONFIRMED in the guide, so it is data."""
    rules = changed(RULES, quarterly_at_end=choice)
    reports = accepted(FIRST_DAY, [0, 90, 180, 280], at=time(12))
    windows = [
        window
        for window in reporting_windows(period(FIRST_DAY), reports, rules, zone=NEW_YORK)
        if (window.report_type, window.number) == ("quarterly", 4)
    ]
    assert [(window.closes - FIRST_DAY).days for window in windows] == ([] if last_day is None else [last_day])


def test_a_quarterly_window_that_would_open_on_day_365_is_not_owed() -> None:
    """The end-of-period report takes its place, whatever the rule for an overlap says."""
    rules = changed(RULES, quarterly_at_end="keep")
    for anchor, owed in ((294, True), (295, False)):
        reports = accepted(FIRST_DAY, [0, 90, 180, anchor], at=time(12))
        windows = reporting_windows(period(FIRST_DAY), reports, rules, zone=NEW_YORK)
        assert (("quarterly", 4) in {(one.report_type.value, one.number) for one in windows}) is owed


def test_an_accepted_report_without_a_time_anchors_nothing() -> None:
    """Nothing is guessed."""
    windows = reporting_windows(period(FIRST_DAY), [report("baseline", 1, ReportState.ACCEPTED)], RULES, zone=NEW_YORK)
    assert len(windows) == 2


def test_a_window_that_opens_on_the_last_day_of_the_alignment_stays_for_that_day() -> None:
    """Both ends are included."""
    ended = period(FIRST_DAY, ended_on=FIRST_DAY + timedelta(days=75), state=CarePeriodState.UNALIGNED)
    window = reporting_windows(ended, accepted(FIRST_DAY, [5], at=time(12)), RULES, zone=NEW_YORK)[1]
    assert window.opens == window.closes == FIRST_DAY + timedelta(days=75)


def test_a_period_that_ended_early_ends_its_windows_early() -> None:
    """After an unalignment nothing new opens."""
    ended = period(FIRST_DAY, ended_on=FIRST_DAY + timedelta(days=80), state=CarePeriodState.UNALIGNED)
    reports = accepted(FIRST_DAY, [5], at=time(12))
    windows = reporting_windows(ended, reports, RULES, zone=NEW_YORK)
    assert [(one.report_type.value, (one.closes - FIRST_DAY).days) for one in windows] == [
        ("baseline", 60),
        ("quarterly", 80),
    ]


def test_safe_days_keep_clear_of_the_edges_that_cms_counts() -> None:
    """CMS's time zone is not stated; only the baseline's first day needs no margin."""
    windows = reporting_windows(period(FIRST_DAY), accepted(FIRST_DAY, [5], at=time(12)), RULES, zone=NEW_YORK)
    one = timedelta(days=1)
    assert [window.safe_opens - window.opens for window in windows] == [one * 0, one, one]
    assert [window.closes - window.safe_closes for window in windows] == [one, one, one]


def test_an_early_success_report_may_be_sent_before_the_window_opens() -> None:
    """From 90 days before day 365 (CKM)."""
    window = reporting_windows(period(FIRST_DAY), [], RULES, zone=NEW_YORK)[-1]
    assert not window.is_open(FIRST_DAY + timedelta(days=274))
    assert window.is_open(FIRST_DAY + timedelta(days=275))
    assert window.is_open(FIRST_DAY + timedelta(days=425))
    assert not window.is_open(FIRST_DAY + timedelta(days=426))


def test_the_work_list_begins_with_the_most_urgent_open_report() -> None:
    """Days left count to the last day; what is not open, sent or over is not on it."""
    on = date(2026, 9, 10)
    reports = [
        report(
            "quarterly", 1, ReportState.OPEN, opens=date(2026, 9, 1), closes=date(2026, 9, 20), missing="HbA1c,uACR"
        ),
        report("baseline", 1, ReportState.READY, opens=on, closes=on),
        report("quarterly", 2, ReportState.SCHEDULED, opens=date(2026, 9, 11), closes=date(2026, 10, 1)),
        report("quarterly", 3, ReportState.SUBMITTED, opens=date(2026, 9, 1), closes=date(2026, 10, 1)),
        report("quarterly", 4, ReportState.OPEN, opens=date(2026, 8, 1), closes=date(2026, 9, 9)),
    ]
    lines = due_work(reports, on=on)
    assert [(line.report_id, line.days_left, line.missing) for line in lines] == [
        ("baseline-1", 0, ()),
        ("quarterly-1", 10, ("HbA1c", "uACR")),
    ]


def changed(rules: Rules, **values: object) -> Rules:
    """The rules with other values."""
    return replace(rules, **{name: replace(getattr(rules, name), value=value) for name, value in values.items()})  # type: ignore[arg-type]
