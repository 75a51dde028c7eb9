"""Work that is due: a row that a worker claims, runs through the pipeline's step, and finishes."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from server.domain.record import Record, Table


class JobKind(StrEnum):
    """Each kind is one step; `server/pipeline.py` knows the order."""

    MAP = "map"  # a received message that no door finished: map it now
    SUBMIT = "submit"  # a built submission: fix its bytes, write down the intent
    SEND = "send"  # POST it to CMS
    POLL = "poll"  # ask CMS once for the result
    APPLY = "apply"  # draw the consequences of a result
    ASSESS = "assess"  # look at one care period: what is due, what is missing, what can be built
    OPEN_WINDOW = "open-window"  # a reporting window opens
    REMIND = "remind"  # a deadline comes near
    CLOSE_WINDOW = "close-window"  # a reporting window ended
    CARE_UPDATE = "care-update"  # compose the update for one moment of care
    HANDSHAKE = "handshake"  # ask a subscriber's endpoint to confirm
    DELIVER = "deliver"  # one attempt to hand a notification to one subscriber
    MAILBOX = "mailbox"  # look for new e-mail of CMS
    RECOVER = "recover"  # find what a crash left half done


class JobState(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"  # due at `due_at`
    LEASED = "leased"  # a worker runs it until `leased_until`
    DEAD = "dead"  # gave up; a WorkItem says why


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Record):
    """One piece of due work. A finished job is deleted.

    `key` names the thing worked on (a submission id, a care period id, ...): with `kind` it bars a second waiting job.
    `due_at` is on the business clock (the sandbox's in a demo); `leased_until` is on the machine's own clock.
    `attempts` counts claims, and is committed by the claim itself: a claim is the durable intent to run the step.
    """

    TABLE: ClassVar[Table] = Table(
        "job", key=("id",), unique=(("waiting_key",),), indexes=(("state", "due_at"), ("state", "leased_until"))
    )
    id: str
    kind: JobKind
    key: str
    due_at: datetime
    state: JobState = JobState.WAITING
    waiting_key: str | None = None  # kind + ":" + key while waiting, None else: the engine sets it
    leased_until: datetime | None = None
    lease_token: str | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """Work to enqueue. If a job of that kind and key waits already, the earlier due time of the two is kept."""

    participant_id: str
    kind: JobKind
    key: str
    due_at: datetime
