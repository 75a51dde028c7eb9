"""One audited access: who did what to which record. Ids only, never PHI."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from server.domain.record import Record, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry(Record):
    """One row of the chain of a participant. The engine sets `sequence`, `previous_hash` and `hash`.

    `hash` = SHA-256 over `previous_hash` and the canonical JSON of the other columns (see `server/store/chain.py`).
    Source: IHE BALP (agent, entity, outcome); 45 CFR 164.312(b).
    """

    TABLE: ClassVar[Table] = Table(
        "audit", key=("participant_id", "sequence"), indexes=(("participant_id", "patient_id"),), append_only=True
    )
    at: datetime
    action: str  # C, R, U, D, E (FHIR AuditEventAction)
    subtype: str  # create, read, search, $align, mllp, submit, deliver, login ...
    outcome: str  # "0" success, "4" refused, "8" failed (FHIR AuditEventOutcome)
    agent: str  # client id, "worker", "cli", "mllp:HOST"
    entity: str  # Type/id or table/id touched, "" when none
    patient_id: str | None = None
    request_id: str | None = None
    sequence: int = 0
    previous_hash: str = ""
    hash: str = ""
