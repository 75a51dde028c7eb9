"""A FHIR Bundle at the base: transaction, batch or collection of an EHR or a device gateway. All of it or nothing."""

from starlette.requests import Request

from mappers import fhir
from mappers.conversion import Conversion, Resource, Source
from profiles import fhir_json
from profiles.issue import Issue, error
from server.auth import Caller
from server.context import Context
from server.domain.errors import Refused
from server.domain.received import Door, Received
from server.domain.resource import StoredResource
from server.intake.accept import Plan, Reading, answered, process
from server.intake.kept import caller_of, context_of, kept_if_refused, stored
from server.intake.resources import instant
from server.outcomes import FhirResponse, outcome

TYPES = frozenset({"transaction", "batch", "collection", "message"})
METHODS = frozenset({"POST", "PUT"})


async def door(request: Request) -> FhirResponse:
    """`POST /fhir`: a `transaction-response` Bundle, one entry for each of the request's, in their order."""
    caller, context = caller_of(request), context_of(request)
    received = await stored(request, Door.BUNDLE, repeatable=True)
    accept = request.headers.get("accept", "")
    earlier = answered(received)
    if earlier is not None:
        return FhirResponse(earlier[1], earlier[0], accept=accept)

    async def work() -> FhirResponse:
        bundle = fhir_json.parse(received.body)
        _check(bundle, caller, context.settings.max_bundle_entries)
        status, content = await _take(received, bundle, context)
        return FhirResponse(content, status, accept=accept)

    return await kept_if_refused(request, received, work)


async def read(received: Received, context: Context) -> tuple[int, bytes]:
    """Reads a stored Bundle; what a worker does with one that a crash left unread."""
    return await _take(received, fhir_json.parse(received.body), context)


async def _take(received: Received, bundle: Resource, context: Context) -> tuple[int, bytes]:
    zone = context.settings.participant(received.participant_id).time_zone
    conversion = fhir.convert(bundle, Source(received.sha256, instant(received.received_at), zone))
    conversion = await _known_patient(conversion, received.participant_id, context)
    reading = Reading(conversion, registers=True, location="Bundle.entry")
    return await process(received, reading, _answer, context)


async def _known_patient(conversion: Conversion, participant_id: str, context: Context) -> Conversion:
    """A Bundle may name our Patient by its literal reference: then it must be one of this participant's."""
    reference = conversion.meta.get("patient", "")
    if conversion.patient is not None or not reference:
        return conversion
    row = await context.store.get(
        StoredResource, participant_id=participant_id, resource_type="Patient", id=reference.rpartition("/")[2]
    )
    if row is None:
        text = "No such patient is known here: create the Patient first, or name the patient by the MBI."
        return Conversion(issues=(*conversion.issues, error("not-found", "Bundle.entry.resource.subject", text)))
    return Conversion(
        patient=fhir_json.parse(row.body),
        resources=conversion.resources,
        unmapped=conversion.unmapped,
        issues=conversion.issues,
        meta=conversion.meta,
    )


def _check(bundle: Resource, caller: Caller, limit: int) -> None:
    issues: list[Issue] = []
    if bundle.get("resourceType") != "Bundle" or bundle.get("type") not in TYPES:
        text = "The base takes a Bundle of type transaction, batch or collection; single resources go to their type."
        raise Refused(400, [error("invalid", "Bundle.type", text)])
    entries = bundle.get("entry", [])
    if len(entries) > limit:
        raise Refused(413, [error("too-costly", "Bundle.entry", f"At most {limit} entries are taken in one Bundle.")])
    for number, entry in enumerate(entries):
        method = entry.get("request", {}).get("method", "POST")
        if method not in METHODS:
            text = f"{method} is not taken in a Bundle here: POST and PUT are."
            issues.append(error("not-supported", f"Bundle.entry[{number}].request.method", text))
        elif "resource" in entry:
            caller.require(str(entry["resource"].get("resourceType")), "c" if method == "POST" else "u")
    if issues:
        raise Refused(422, issues)


def _answer(plan: Plan) -> tuple[int, bytes]:
    if plan.refused:
        status = 409 if any(issue.code == "conflict" for issue in plan.issues) else 422
        return status, fhir_json.dump(outcome(plan.issues))
    entries = []
    for done in plan.puts:
        version = done.stored.revision + (0 if done.change == "unchanged" else 1)
        entries.append(
            {
                "response": {
                    "status": "201 Created" if done.change == "created" else "200 OK",
                    "location": f"{done.reference}/_history/{version}",
                    "etag": f'W/"{version}"',
                }
            }
        )
    empty = {"resourceType": "Bundle", "type": "transaction-response"}
    return 200, fhir_json.dump(empty | ({"entry": entries} if entries else {}))
