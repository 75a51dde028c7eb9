"""The closing count: what the stand-in CMS's journal, the PCP and the mailbox say, held against the facade's rows."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from server.demo.ledger import Ledger
from server.demo.world import World
from server.domain.care_period import CarePeriod, CarePeriodState, Report, ReportState
from server.domain.coordination import CareUpdate, CmsNotification, Delivery, DeliveryState
from server.domain.received import Received, ReceivedState
from server.domain.submission import Submission, SubmissionState

OPERATIONS = frozenset({"check-eligibility", "align", "unalign", "report-data"})


@dataclass(frozen=True, slots=True)
class Count:
    """One line of the closing table."""

    what: str
    result: str
    good: bool


def lost_and_duplicate(submissions: list[Submission], journal: list[dict[str, Any]]) -> tuple[int, int]:
    """Submissions that CMS never took, and takings beyond the one for each, by the hash of the bytes."""
    taken = Counter(row["body_sha256"] for row in journal if row.get("accepted") and row["call"] in OPERATIONS)
    wanted = Counter(submission.request_sha256 for submission in submissions)
    lost = sum((wanted - taken).values())
    duplicate = sum((taken - wanted).values())
    return lost, duplicate


def counted(world: World, ledger: Ledger) -> list[Count]:
    """All of it."""
    return [
        *_received(ledger),
        *_submitted(world, ledger),
        *_reported(ledger),
        *_delivered(world, ledger),
        *_told(world, ledger),
    ]


def _received(ledger: Ledger) -> list[Count]:
    rows = ledger.rows(Received)
    doors = Counter(str(row.door) for row in rows)
    states = Counter(row.state for row in rows)
    stuck = states[ReceivedState.RECEIVED] + states[ReceivedState.QUARANTINED]
    listed = ", ".join(f"{count} {door}" for door, count in sorted(doors.items()))
    return [
        Count(f"messages received ({listed})", str(len(rows)), bool(rows)),
        Count("of these refused or unread", str(stuck), stuck == 0),
    ]


def _submitted(world: World, ledger: Ledger) -> list[Count]:
    submissions, journal = ledger.rows(Submission), world.journal()
    lost, duplicate = lost_and_duplicate(submissions, journal)
    applied = sum(submission.state is SubmissionState.APPLIED for submission in submissions)
    faults = sum(bool(row.get("fault")) for row in journal)
    return [
        Count(
            "submissions that CMS answered, and that were acted on",
            f"{applied} of {len(submissions)}",
            applied == len(submissions) > 0,
        ),
        Count("requests that CMS let fail on purpose", str(faults), faults > 0),
        Count("lost (by CMS's journal)", str(lost), lost == 0),
        Count("sent twice (by CMS's journal)", str(duplicate), duplicate == 0),
    ]


def _reported(ledger: Ledger) -> list[Count]:
    reports = ledger.rows(Report)
    accepted = Counter(report.report_type for report in reports if report.state is ReportState.ACCEPTED)
    missed = sum(report.state is ReportState.MISSED for report in reports)
    (period,) = ledger.rows(CarePeriod) or (None,)
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(accepted.items()))
    complete = all(accepted[kind] for kind in ("baseline", "quarterly", "end-of-period"))
    return [
        Count(f"reports accepted ({listed})", str(sum(accepted.values())), complete),
        Count("reports missed", str(missed), missed == 0),
        Count(
            "care period",
            str(period.state) if period else "none",
            period is not None and period.state is CarePeriodState.COMPLETED,
        ),
    ]


def _delivered(world: World, ledger: Ledger) -> list[Count]:
    updates = Counter(str(update.moment) for update in ledger.rows(CareUpdate))
    deliveries = ledger.rows(Delivery)
    proven = [d for d in deliveries if d.state is DeliveryState.DELIVERED and d.proof and d.body_sha256]
    got = Counter(event_numbers(world))
    listed = ", ".join(f"{count} {moment}" for moment, count in sorted(updates.items()))
    complete = all(updates[moment] for moment in ("initiation", "milestone", "completion"))
    unseen = [d.event_number for d in deliveries if str(d.event_number) not in got]
    return [
        Count(f"care updates composed ({listed})", str(sum(updates.values())), complete),
        Count(
            "delivered to the PCP, with proof",
            f"{len(proven)} of {len(deliveries)}",
            len(proven) == len(deliveries) > 0,
        ),
        Count("delivered, but not seen by the PCP", str(len(unseen)), not unseen),
    ]


def event_numbers(world: World) -> list[str]:
    """The numbers of the events in the notifications that the PCP holds."""
    return [str(number) for item in received(world) for number in item["events"]]


def received(world: World) -> list[dict[str, Any]]:
    """The notifications that the PCP holds: `type`, the `events` in each, and the types of the `resources` in it."""
    rows = world.delivered()
    return [{"type": row["type"], "events": row["events"], "resources": _types(row["body"])} for row in rows]


def _types(bundle: dict[str, Any]) -> list[str]:
    return [entry["resource"]["resourceType"] for entry in bundle.get("entry", []) if "resource" in entry]


def _told(world: World, ledger: Ledger) -> list[Count]:
    notices = ledger.rows(CmsNotification)
    known = sum(notice.care_period_id is not None for notice in notices)
    events = ", ".join(sorted({notice.event for notice in notices}))
    quarterly = any(notice.event == "quarterly-reporting-window" for notice in notices)
    return [
        Count(f"e-mails of CMS taken in ({events})", f"{known} of {len(notices)}", quarterly and known == len(notices))
    ]
