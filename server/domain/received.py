"""What came in through a door, byte for byte, before anything was read of it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from server.domain.record import Record, Table, blind, sealed


class Door(StrEnum):
    """Where it came in."""

    REST = "rest"  # one FHIR resource
    BUNDLE = "bundle"  # a FHIR batch, transaction or collection
    OPERATION = "cms-operation"  # the CMS-shaped front door
    HL7V2 = "hl7v2"  # HTTP
    MLLP = "mllp"
    CDA = "cda"
    EMAIL = "email"


class ReceivedState(StrEnum):
    """How far it got."""

    RECEIVED = "received"  # on disk, not read yet
    KEPT = "kept"  # on disk: one resource over REST; if it was taken in, the resource names it (`received_id`)
    ACCEPTED = "accepted"  # read, mapped, its resources are stored
    QUARANTINED = "quarantined"  # could not be taken in; kept for the operator with the reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Received(Record):
    """One message, document or request body.

    `content_key` makes a repeat of the same bytes by the same sender find the first answer; `control_key` (HL7 v2
    MSH-3 and MSH-10) makes other bytes under the same control id a conflict. Both None once they no longer count.
    `answer` is what was answered (ACK, OperationOutcome or resource list), so that a repeat gets it again.
    """

    TABLE: ClassVar[Table] = Table(
        "received",
        key=("id",),
        unique=(("participant_id", "content_key"), ("participant_id", "control_key")),
        indexes=(("state", "received_at"),),
    )
    id: str
    door: Door
    agent: str  # client id or peer
    content_type: str
    sha256: str  # hex, of `body`
    received_at: datetime
    content_key: str | None = blind(default=None)
    control_key: str | None = blind(default=None)
    state: ReceivedState = ReceivedState.RECEIVED
    patient_id: str | None = None
    answer_status: int | None = None  # HTTP status of the answer
    answer: bytes | None = sealed(default=None)
    body: bytes = sealed()
