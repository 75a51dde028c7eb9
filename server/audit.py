"""Audit entries: who did what to which record. Rows are appended by the store; here they are only made."""

from datetime import datetime

from server.domain.audit import AuditEntry


def record(
    *,
    participant_id: str,
    at: datetime,
    agent: str,
    action: str,
    subtype: str,
    entity: str = "",
    outcome: str = "0",
    patient_id: str | None = None,
    request_id: str | None = None,
) -> AuditEntry:
    """One entry. `action` is C, R, U, D or E; `outcome` "0" success, "4" refused, "8" failed. Ids only."""
    return AuditEntry(
        participant_id=participant_id,
        at=at,
        agent=agent,
        action=action,
        subtype=subtype,
        entity=entity,
        outcome=outcome,
        patient_id=patient_id,
        request_id=request_id,
    )
