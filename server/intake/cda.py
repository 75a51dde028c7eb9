"""C-CDA documents over HTTP."""

from starlette.requests import Request
from starlette.responses import Response

from mappers import cda
from mappers.conversion import Source
from profiles import fhir_json
from profiles.issue import Issue, Severity
from server.context import Context
from server.domain.received import Door, Received
from server.intake.accept import Arrival, Plan, Reading, answered, process, receive
from server.intake.body import CDA_TYPES, media_type, read_body
from server.intake.resources import instant
from server.outcomes import FhirResponse, outcome


async def door(request: Request) -> Response:
    """`POST /cda`: 200 and an OperationOutcome once its resources are on disk."""
    context: Context = request.app.state.context
    caller = request.state.caller
    caller.require("DocumentReference", "c")
    body = await read_body(request, allowed=CDA_TYPES, limit=context.settings.max_body_bytes)
    arrival = Arrival(caller.participant_id, Door.CDA, caller.client_id, media_type(request), body)
    received = await receive(arrival, context)
    status, answer = answered(received) or await read(received, context)
    return FhirResponse(answer, status, accept=request.headers.get("accept", ""))


async def read(received: Received, context: Context) -> tuple[int, bytes]:
    """Reads a stored document; also what a worker does with one that a crash left unread."""
    zone = context.settings.participant(received.participant_id).time_zone
    conversion = cda.convert(received.body, Source(received.sha256, instant(received.received_at), zone))
    # A document's own id is no name for its bytes: vendors send new versions, and other documents, under one id.
    reading = Reading(conversion, registers=False, location="ClinicalDocument/recordTarget/patientRole/id")
    return await process(received, reading, _answer, context)


def _answer(plan: Plan) -> tuple[int, bytes]:
    if not plan.refused:
        done = Issue(Severity.INFORMATION, "informational", "", f"{len(plan.puts)} resources were taken in.")
        return 200, fhir_json.dump(outcome((done, *plan.issues)))
    unreadable = any(issue.severity == "fatal" for issue in plan.issues)
    return (400 if unreadable else 422), fhir_json.dump(outcome(plan.issues))
