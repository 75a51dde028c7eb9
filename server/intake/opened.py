"""A DiagnosticReport that comes alone: the Observations inside are stored beside it, in the same transaction."""

from datetime import datetime

from mappers import fhir
from mappers.conversion import Resource, Source
from server.context import Context
from server.domain.received import Received
from server.intake.resources import instant, put
from server.store.base import Changeset


async def opened_rows(
    report: Resource, received: Received, *, patient_id: str, at: datetime, context: Context
) -> Changeset:
    """The rows of its contained Observations and their Provenance; none for a report that contains none."""
    changes = Changeset()
    for resource in fhir.opened(report, Source(received.sha256, instant(received.received_at))).resources:
        done = await put(
            resource,
            participant_id=received.participant_id,
            patient_id=patient_id,
            received_id=received.id,
            at=at,
            context=context,
        )
        changes += done.changes
    return changes
