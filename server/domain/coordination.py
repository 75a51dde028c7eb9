"""Care updates, who is to get them, and the proof that they did."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from server.domain.record import Record, Table, sealed


class Moment(StrEnum):
    """When an update is owed."""

    INITIATION = "initiation"
    MILESTONE = "milestone"
    COMPLETION = "completion"
    ADVERSE_EVENT = "adverse-event"


class DeliveryState(StrEnum):
    """Where one delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"  # the receiver confirmed; `proof` says how
    FAILED = "failed"  # given up after all attempts; a WorkItem says so


@dataclass(frozen=True, slots=True, kw_only=True)
class CareUpdate(Record):
    """One composed update. `document` is the logical id of the document Bundle it stands in."""

    TABLE: ClassVar[Table] = Table(
        "care_update",
        key=("id",),
        unique=(("care_period_id", "moment", "subject"),),
        indexes=(("participant_id", "patient_id"),),
    )
    id: str
    care_period_id: str
    patient_id: str
    moment: Moment
    subject: str  # what it is about: a measure for a milestone, "" else
    composed_at: datetime
    focus: str  # DocumentReference/id: the focus of the notification
    context: str  # Type/id of the resources that go with it, space separated


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionStatus(Record):
    """Counters of one Subscription. Source: Subscriptions R5 Backport 1.1.0, backport-subscription-status-r4."""

    TABLE: ClassVar[Table] = Table("subscription_status", key=("participant_id", "subscription_id"))
    subscription_id: str
    status: str  # requested, active, error, off
    topic: str
    content: str  # empty, id-only, full-resource
    client_id: str
    events: int = 0  # eventsSinceSubscriptionStart
    secret: bytes | None = sealed(default=None)  # channel.header values: sent, never returned


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Record):
    """One event for one subscriber, all its attempts, and the proof."""

    TABLE: ClassVar[Table] = Table(
        "delivery",
        key=("id",),
        unique=(("participant_id", "subscription_id", "event_number"),),
        indexes=(("participant_id", "state"), ("care_update_id",)),
    )
    id: str
    subscription_id: str
    event_number: int
    care_update_id: str  # or submission/id: CMS's result of it
    patient_id: str
    created_at: datetime
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    delivered_at: datetime | None = None
    status: int | None = None  # HTTP status of the last attempt
    body_sha256: str | None = None  # of the notification that was delivered
    proof: bytes | None = sealed(default=None)  # what the receiver answered (status, headers, first bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class CmsNotification(Record):
    """One e-mail of CMS, read. Source: ACCESS API IG 0.9.12, ACCESSEventTypeCS."""

    TABLE: ClassVar[Table] = Table("cms_notification", key=("id",), indexes=(("participant_id", "at"),))
    id: str
    received_id: str
    at: datetime
    event: str
    cms_submission_id: str
    deadline: str | None = None
    care_period_id: str | None = None  # None: no alignment has that submission id; a WorkItem says so


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem(Record):
    """Something a person has to decide or mend. `open_key` bars a second open one about the same thing."""

    TABLE: ClassVar[Table] = Table(
        "work_item", key=("id",), unique=(("open_key",),), indexes=(("participant_id", "closed_at", "opened_at"),)
    )
    id: str
    kind: str  # quarantine, submission, report, delivery, deadline, late, mail, job
    subject: str  # table/id it is about
    text: str  # plain words: what happened, what to do; no PHI
    opened_at: datetime
    open_key: str | None = None
    patient_id: str | None = None
    due_on: str | None = None
    closed_at: datetime | None = None
