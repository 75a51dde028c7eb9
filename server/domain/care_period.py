"""One patient's year in one track, its reporting windows and what was reported in them."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import ClassVar

from server.domain.record import Record, Table, sealed


class CarePeriodState(StrEnum):
    """Where the alignment stands."""

    ALIGNED = "aligned"
    UNALIGNMENT_PENDING = "unalignment-pending"
    UNALIGNED = "unaligned"
    COMPLETED = "completed"  # the end-of-period report was accepted


class ReportState(StrEnum):
    """Where one due report stands."""

    SCHEDULED = "scheduled"  # its window is not open yet
    OPEN = "open"  # the window is open, values are being gathered
    READY = "ready"  # built and checked; a person has to send it (reporting = "review")
    SUBMITTED = "submitted"  # a submission is under way
    ACCEPTED = "accepted"  # CMS took it
    MISSED = "missed"  # the window closed without it
    CANCELLED = "cancelled"  # the alignment ended first


@dataclass(frozen=True, slots=True, kw_only=True)
class CarePeriod(Record):
    """An alignment and the 12 months that it starts. Dates are calendar dates in the participant's zone."""

    TABLE: ClassVar[Table] = Table(
        "care_period",
        key=("id",),
        unique=(("participant_id", "active_key"),),
        indexes=(("participant_id", "patient_id"), ("state",)),
    )
    id: str
    patient_id: str
    track: str
    aligned_on: date
    align_submission_id: str  # ours
    state: CarePeriodState = CarePeriodState.ALIGNED
    active_key: str | None = None  # patient and track while active: one alignment per track
    cms_submission_id: str | None = None  # CMS's e-mails name the alignment by it: kept for good
    ended_on: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Record):
    """One report owed to CMS. `evidence` is JSON: measure -> list of `Type/id/version` used, with effective times."""

    TABLE: ClassVar[Table] = Table(
        "report",
        key=("id",),
        unique=(("care_period_id", "report_type", "number"),),
        indexes=(("participant_id", "state", "closes"), ("care_period_id",)),
    )
    id: str
    care_period_id: str
    patient_id: str
    track: str
    report_type: str  # baseline, quarterly, end-of-period
    number: int  # 1 for baseline and end-of-period; 1.. for quarterly
    opens: date
    closes: date
    state: ReportState = ReportState.SCHEDULED
    missing: str = ""  # measures still missing, comma separated
    submission_id: str | None = None
    submitted_at: datetime | None = None
    evidence: bytes | None = sealed(default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MilestoneReached(Record):
    """A measure reached its goal in this care period: told once."""

    TABLE: ClassVar[Table] = Table("milestone", key=("care_period_id", "measure"), append_only=True)
    care_period_id: str
    patient_id: str
    measure: str
    at: datetime
    observation: str  # Type/id/version
