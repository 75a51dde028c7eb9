"""A DiagnosticReport that comes alone: the Observations inside are stored beside it, in the same transaction."""

from datetime import datetime

from mappers import fhir
from mappers.conversion import Resource, Source
from server.context import Context
from server.domain.received import Received
from server.intake.resources import Origin, instant, put_all
from server.store.base import Changeset


async def opened_rows(
    report: Resource, received: Received, *, patient_id: str, at: datetime, context: Context
) -> Changeset:
    """The rows of its contained Observations and their Provenance; none for a report that contains none."""
    inside = fhir.opened(report, Source(received.sha256, instant(received.received_at))).resources
    return await put_all(inside, Origin(received.participant_id, patient_id, received.id, at), context)
