"""How one patient stands to the model on one track, and what each decision of CMS makes of it. Pure.

The record outlives care periods: it begins with the first question about a patient and is never deleted. Its dates may
be wrong, because CMS returns none: a person can correct them, and `$check-eligibility` is held against them.
Source: ACCESS API IG 0.9.12, eligibility, alignment, unalignment; the lengths are data (`rules/*.toml`).
"""

from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from server.domain.record import Record, Table
from server.domain.rules import Rules
from server.domain.submission import Operation


class AlignmentState(StrEnum):
    """Where a patient stands on a track."""

    UNKNOWN = "unknown"  # nothing was asked, or CMS found no such person
    ELIGIBLE = "eligible"  # may be aligned now
    NOT_ELIGIBLE = "not-eligible"  # may not be aligned now; `last_code` says why
    CONTROL_GROUP = "control-group"  # not before `control_until`
    ALIGNED = "aligned"
    UNALIGNMENT_PENDING = "unalignment-pending"  # CMS reviews by hand; reports stay due
    UNALIGNED = "unaligned"
    SWITCHED = "switched"  # moved to another participant; told by CMS's e-mail


S = AlignmentState
HELD = frozenset({S.ALIGNED, S.UNALIGNMENT_PENDING})
EXCLUSIVE = {"eCKM": "CKM", "CKM": "eCKM"}  # never both. Source: ACCESS API IG 0.9.12, guidance, tracks


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment(Record):
    """One patient on one track. Dates are calendar dates in the participant's zone, the last day included."""

    TABLE: ClassVar[Table] = Table(
        "alignment", key=("participant_id", "patient_id", "track"), indexes=(("participant_id", "state"),)
    )
    patient_id: str
    track: str
    state: AlignmentState = AlignmentState.UNKNOWN
    changed_at: datetime | None = None  # when the state last changed
    aligned_on: date | None = None
    lock_in_until: date | None = None
    ends_on: date | None = None  # last day of the 12 months
    control_until: date | None = None
    may_switch: bool = False  # aligned elsewhere, and CMS lets the patient move
    last_code: str | None = None  # CMS's last result code
    checked_at: datetime | None = None  # when CMS last said anything
    cms_submission_id: str | None = None  # of the alignment: CMS's e-mails name it; kept for good
    referral: str = ""  # on whose word `isProviderReferral` was sent: a client id, or Type/id
    attestation: str = ""  # the same for `switchConsentAttestation`

    @property
    def is_held(self) -> bool:
        """Whether the patient is aligned to us, as far as we know."""
        return self.state in HELD


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What CMS decided: operation, result code, when we read it, and the day that counts, in the participant's zone."""

    operation: Operation
    code: str
    at: datetime
    day: date
    cms_submission_id: str | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """The row after a decision. `contradicts`: CMS said what can not be while we hold the patient as aligned."""

    row: Alignment
    contradicts: bool = False


# --- The table: what a result code makes of a patient whom we do not hold, and of one whom we do. -------------------
# A code without a row in HELD leaves an alignment that we hold as it is. One in CONTRADICTIONS does so as well, and a
# person is told: CMS seems to hold another truth. An eligibility question never ends an alignment by itself.

FREE: Mapping[tuple[Operation, str], AlignmentState] = {
    (Operation.CHECK_ELIGIBILITY, "eligible"): S.ELIGIBLE,
    (Operation.CHECK_ELIGIBILITY, "eligible-pending-diagnosis"): S.ELIGIBLE,
    (Operation.CHECK_ELIGIBILITY, "eligible-switch-participants"): S.ELIGIBLE,
    (Operation.CHECK_ELIGIBILITY, "not-eligible-not-medicare"): S.NOT_ELIGIBLE,
    (Operation.CHECK_ELIGIBILITY, "not-eligible-services"): S.NOT_ELIGIBLE,
    (Operation.CHECK_ELIGIBILITY, "not-eligible-diagnoses"): S.NOT_ELIGIBLE,
    (Operation.CHECK_ELIGIBILITY, "not-eligible-control-group"): S.CONTROL_GROUP,
    (Operation.CHECK_ELIGIBILITY, "not-eligible-already-aligned"): S.NOT_ELIGIBLE,
    (Operation.CHECK_ELIGIBILITY, "not-eligible-clinical-exclusion"): S.NOT_ELIGIBLE,
    (Operation.CHECK_ELIGIBILITY, "not-eligible-mismatch"): S.UNKNOWN,
    (Operation.ALIGN, "aligned"): S.ALIGNED,
    (Operation.ALIGN, "aligned-switch-approved"): S.ALIGNED,
    (Operation.ALIGN, "not-aligned-control-group"): S.CONTROL_GROUP,
    (Operation.ALIGN, "not-aligned-already-aligned"): S.NOT_ELIGIBLE,
    (Operation.ALIGN, "not-aligned-not-medicare"): S.NOT_ELIGIBLE,
    (Operation.ALIGN, "not-aligned-services"): S.NOT_ELIGIBLE,
    (Operation.ALIGN, "not-aligned-diagnoses"): S.NOT_ELIGIBLE,
    (Operation.ALIGN, "not-aligned-clinical-exclusion"): S.NOT_ELIGIBLE,
    (Operation.ALIGN, "not-aligned-mismatch"): S.UNKNOWN,
    (Operation.ALIGN, "not-aligned-no-switch-attestation"): S.ELIGIBLE,
    (Operation.UNALIGN, "unaligned"): S.UNALIGNED,
    (Operation.UNALIGN, "unalignment-pending"): S.UNALIGNMENT_PENDING,
}
HELD_MOVES: Mapping[tuple[Operation, str], AlignmentState] = {
    (Operation.ALIGN, "aligned"): S.ALIGNED,
    (Operation.ALIGN, "aligned-switch-approved"): S.ALIGNED,
    (Operation.UNALIGN, "unaligned"): S.UNALIGNED,
    (Operation.UNALIGN, "unalignment-pending"): S.UNALIGNMENT_PENDING,
}
CONTRADICTIONS = frozenset(
    {key for key in FREE if key[0] is Operation.CHECK_ELIGIBILITY and key[1] != "not-eligible-already-aligned"}
    | {(Operation.UNALIGN, "patient-not-aligned")}
)
SWITCHABLE = frozenset({"eligible-switch-participants", "not-aligned-no-switch-attestation"})
STARTS = frozenset({"aligned", "aligned-switch-approved"})


def decided(row: Alignment, decision: Decision, rules: Rules) -> Moved:
    """The row after CMS decided. An unknown code, and a report's, change nothing but what CMS last said."""
    key = (decision.operation, decision.code)
    table = HELD_MOVES if row.is_held else FREE
    heard = replace(row, last_code=decision.code, checked_at=decision.at)
    contradicts = row.is_held and key in CONTRADICTIONS
    state = table.get(key, row.state)
    if not row.is_held and key in FREE:
        heard = replace(heard, may_switch=decision.code in SWITCHABLE)
    if state is S.CONTROL_GROUP:
        heard = _controlled(heard, decision.day, rules)
    if decision.operation is Operation.ALIGN and decision.code in STARTS:
        heard = dated(replace(heard, cms_submission_id=decision.cms_submission_id), decision.day, rules)
    if state is not row.state:
        heard = replace(heard, state=state, changed_at=decision.at)
    return Moved(heard, contradicts)


def dated(row: Alignment, aligned_on: date, rules: Rules) -> Alignment:
    """The row with the alignment's dates counted from its first day, which is day 0."""
    return replace(
        row,
        aligned_on=aligned_on,
        lock_in_until=aligned_on + timedelta(days=rules.lock_in_days.value - 1),
        ends_on=aligned_on + timedelta(days=rules.period_days.value - 1),
        control_until=None,
        may_switch=False,
    )


def _controlled(row: Alignment, day: date, rules: Rules) -> Alignment:
    """CMS decides once for 12 months: an answer within them does not begin them again."""
    if row.control_until is not None and day <= row.control_until:
        return row
    return replace(row, control_until=months_after(day, rules.control_group_months.value) - timedelta(days=1))


def months_after(day: date, months: int) -> date:
    """The same day of the month so many months later; the month's last day where it has no such day."""
    years, month = divmod(day.month - 1 + months, 12)
    year, month = day.year + years, month + 1
    return date(year, month, min(day.day, monthrange(year, month)[1]))


def stands(row: Alignment | None, day: date) -> bool:
    """Whether an alignment bars another one that day: held, and its 12 months are not over."""
    return row is not None and row.is_held and (row.ends_on is None or day <= row.ends_on)


def locked(row: Alignment | None, day: date) -> bool:
    """Whether the alignment is within its lock-in that day."""
    return row is not None and row.is_held and row.lock_in_until is not None and day <= row.lock_in_until
