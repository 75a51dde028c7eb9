"""When CMS expects a report: windows of calendar dates, pure and without a clock.

Source: ACCESS API IG 0.9.12, ACCESSReportTypeCS; the numbers and the open points stand in `rules/*.toml`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from server.domain.care_period import CarePeriod, CarePeriodState, Report, ReportState
from server.domain.rules import Rules


class ReportType(StrEnum):
    """ACCESSReportTypeCS."""

    BASELINE = "baseline"
    QUARTERLY = "quarterly"
    END_OF_PERIOD = "end-of-period"


# In an active period reports are owed; while an unalignment is pending CMS goes on expecting them.
ACTIVE = frozenset({CarePeriodState.ALIGNED, CarePeriodState.UNALIGNMENT_PENDING})
DUE = frozenset({ReportState.SCHEDULED, ReportState.OPEN, ReportState.READY})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportingWindow:
    """The days on which one report may be sent: `opens` to `closes`, both included, as CMS counts.

    `safe_opens` to `safe_closes` keeps clear of the edges, because CMS's time zone is not stated.
    `early_from` is the first day of early success reporting, of an end-of-period report only.
    """

    report_type: ReportType
    number: int
    opens: date
    closes: date
    safe_opens: date
    safe_closes: date
    early_from: date | None = None

    def is_open(self, on: date) -> bool:
        """Whether CMS takes the report on that day."""
        return (self.early_from or self.opens) <= on <= self.closes


@dataclass(frozen=True, slots=True, kw_only=True)
class DueWork:
    """One line of the work list. `days_left` counts from the day asked for to `closes`; 0 is the last day."""

    participant_id: str
    patient_id: str
    track: str
    report_id: str
    report_type: str
    number: int
    state: ReportState
    opens: date
    closes: date
    days_left: int
    missing: tuple[str, ...]


def reporting_windows(
    period: CarePeriod, reports: Sequence[Report], rules: Rules, *, zone: ZoneInfo
) -> tuple[ReportingWindow, ...]:
    """The windows of one care period, as far as they are known: a quarterly one hangs on the submission before it.

    Shape: baseline first, then quarterly by date, then end-of-period; never empty.
    Units: calendar dates in `zone`, both ends inclusive; lengths in whole days.
    Raises: nothing; a period that ended early ends its windows early.
    Source: ACCESS API IG 0.9.12, ACCESSReportTypeCS.
    """
    windows = (
        _baseline(period, rules),
        *_quarterlies(period, reports, rules, zone),
        _end_of_period(period, rules),
    )
    return tuple(window for found in windows if (window := _until(found, period.ended_on)) is not None)


def due_work(reports: Sequence[Report], *, on: date) -> tuple[DueWork, ...]:
    """The reports that a person can work on that day, the most urgent first."""
    due = [_due(report, on) for report in reports if report.state in DUE and report.opens <= on <= report.closes]
    return tuple(sorted(due, key=lambda line: (line.days_left, line.patient_id, line.report_id)))


def start_of(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a calendar day in a zone, in UTC; where a clock change skips midnight, the next one."""
    return datetime.combine(day, time.min, zone).astimezone(UTC)


def day_of(instant: datetime, zone: ZoneInfo) -> date:
    """The calendar day of an aware instant in a zone."""
    return instant.astimezone(zone).date()


def _baseline(period: CarePeriod, rules: Rules) -> ReportingWindow:
    """Day 0 to the last day. Its first day needs no margin: the alignment itself is answered before any report goes."""
    closes = period.aligned_on + timedelta(days=rules.baseline_last_day.value)
    return _window(ReportType.BASELINE, 1, period.aligned_on, closes, rules, first_margin=0)


def _end_of_period(period: CarePeriod, rules: Rules) -> ReportingWindow:
    opens = period.aligned_on + timedelta(days=rules.period_days.value)
    closes = period.aligned_on + timedelta(days=rules.end_last_day.value)
    early = rules.early_success_days.value.get(period.track)
    window = _window(ReportType.END_OF_PERIOD, 1, opens, closes, rules)
    return window if early is None else replace(window, early_from=opens - timedelta(days=early))


def _quarterlies(
    period: CarePeriod, reports: Sequence[Report], rules: Rules, zone: ZoneInfo
) -> Iterator[ReportingWindow]:
    """One window for each answered report of the chain baseline, quarterly 1, quarterly 2, ... and the next one."""
    chain = {(report.report_type, report.number): report for report in reports}
    anchor = _anchor(chain.get((ReportType.BASELINE, 1)), rules, zone)
    number = 1
    while anchor is not None and (window := _quarterly(period, anchor, number, rules)) is not None:
        yield window
        anchor = _anchor(chain.get((ReportType.QUARTERLY, number)), rules, zone)
        number += 1


def _anchor(report: Report | None, rules: Rules, zone: ZoneInfo) -> date | None:
    """The day on which the next window hangs; None while the report is not answered."""
    if report is None:
        return None
    if report.state is ReportState.ACCEPTED and report.submitted_at is not None:
        return day_of(report.submitted_at, zone)
    if report.state is ReportState.MISSED:
        return report.opens if rules.quarterly_after_missed.value == "opens" else report.closes
    return None


def _quarterly(period: CarePeriod, anchor: date, number: int, rules: Rules) -> ReportingWindow | None:
    """The window after `anchor`; None when the end of the period leaves no room for it."""
    opens = anchor + timedelta(days=rules.quarterly_min_days.value)
    closes = anchor + timedelta(days=rules.quarterly_max_days.value)
    end = period.aligned_on + timedelta(days=rules.period_days.value)
    if opens >= end:
        return None
    if closes >= end and rules.quarterly_at_end.value != "keep":
        closes = end - timedelta(days=1)
        short = (closes - opens).days + 1 < rules.quarterly_trim_min_days.value
        if rules.quarterly_at_end.value == "drop" or short:
            return None
    return _window(ReportType.QUARTERLY, number, opens, closes, rules)


def _window(
    report_type: ReportType, number: int, opens: date, closes: date, rules: Rules, *, first_margin: int | None = None
) -> ReportingWindow:
    margin = rules.edge_margin_days.value
    first = margin if first_margin is None else first_margin
    return ReportingWindow(
        report_type=report_type,
        number=number,
        opens=opens,
        closes=closes,
        safe_opens=opens + timedelta(days=first),
        safe_closes=closes - timedelta(days=margin),
    )


def _until(window: ReportingWindow, ended_on: date | None) -> ReportingWindow | None:
    """The window as far as it lies before the end of the alignment. The baseline's stays: there is always one."""
    if ended_on is None or window.closes <= ended_on:
        return window
    if (window.early_from or window.opens) > ended_on and window.report_type is not ReportType.BASELINE:
        return None
    return replace(window, closes=ended_on, safe_closes=min(window.safe_closes, ended_on))


def _due(report: Report, on: date) -> DueWork:
    return DueWork(
        participant_id=report.participant_id,
        patient_id=report.patient_id,
        track=report.track,
        report_id=report.id,
        report_type=report.report_type,
        number=report.number,
        state=report.state,
        opens=report.opens,
        closes=report.closes,
        days_left=(report.closes - on).days,
        missing=tuple(name for name in report.missing.split(",") if name),
    )
