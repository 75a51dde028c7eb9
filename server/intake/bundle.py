"""A FHIR Bundle at the base, of an EHR or a device gateway: a transaction or collection all or nothing, a batch entry
by entry. Source: FHIR R4, RESTful API, batch and transaction."""

from dataclasses import replace
from functools import partial
from http import HTTPStatus

from starlette.requests import Request

from mappers import fhir
from mappers.conversion import Conversion, Resource, Source
from mappers.fhir.references import objects
from profiles import fhir_json
from profiles.issue import Issue, error
from server.auth import Caller
from server.context import Context
from server.domain.errors import Refused
from server.domain.received import Door, Received, ReceivedState
from server.domain.resource import StoredResource
from server.intake.accept import Arrival, Plan, Reading, answered, process, receive
from server.intake.conditional import Conditions, answered_conditions
from server.intake.kept import caller_of, context_of, kept_if_refused, stored
from server.intake.resources import Put, instant
from server.outcomes import FhirResponse, outcome
from server.store.base import Changeset

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
    if bundle.get("type") == "batch":
        return await _batch(received, bundle, context)
    return await _together(received, bundle, context)


async def _together(
    received: Received, bundle: Resource, context: Context, *, occurrence: int = 1
) -> tuple[int, bytes]:
    """All entries or none."""
    conditions = await answered_conditions(bundle, received.participant_id, context)
    zone = context.settings.participant(received.participant_id).time_zone
    source = Source(received.sha256, instant(received.received_at), zone)
    conversion = fhir.convert(conditions.bundle, source, occurrence=occurrence)
    if conditions.existing and not any(conversion.entries):
        conversion = Conversion(entries=conversion.entries)  # nothing to do: all of it is here already
    conversion = replace(conversion, issues=(*conditions.issues, *conversion.issues))
    conversion = await _known_patient(conversion, received.participant_id, context)
    reading = Reading(conversion, registers=True, location="Bundle.entry")
    return await process(received, reading, partial(_answer, conversion=conversion, conditions=conditions), context)


async def _batch(received: Received, bundle: Resource, context: Context) -> tuple[int, bytes]:
    """Each entry by itself: one that is refused keeps none of the others out. Source: FHIR R4, batch processing rules.

    Each is stored as a message of its own. Ids follow from content, so that a batch that a crash cut short may be read
    again from its start.
    """
    seen: dict[bytes, int] = {}
    answers: list[Resource] = []
    for entry in objects(bundle.get("entry")):
        body = fhir_json.dump({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
        seen[body] = seen.get(body, 0) + 1
        arrival = Arrival(received.participant_id, Door.BUNDLE, received.agent, received.content_type, body)
        part = await receive(arrival, context, repeatable=False)
        status, content = await _together(part, fhir_json.parse(body), context, occurrence=seen[body])
        answers.append(_single(status, fhir_json.parse(content)))
    content = fhir_json.dump(_response("batch-response", answers))
    row = replace(received, state=ReceivedState.ACCEPTED, answer_status=200, answer=content)
    await context.store.commit(Changeset(replace=(row,)))
    return 200, content


def _single(status: int, content: Resource) -> Resource:
    """The answer to the one entry of a transaction, as an entry of the batch."""
    if content["resourceType"] == "Bundle":
        answer: Resource = content["entry"][0]
        return answer
    return {"response": {"status": f"{status} {HTTPStatus(status).phrase}", "outcome": content}}


def _response(kind: str, entries: list[Resource]) -> Resource:
    empty = {"resourceType": "Bundle", "type": kind}
    return empty | ({"entry": entries} if entries else {})


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
        issue = error("not-found", "Bundle.entry.resource.subject", text)
        return Conversion(issues=(*conversion.issues, issue), entries=conversion.entries)
    return replace(conversion, patient=fhir_json.parse(row.body))


def _check(bundle: Resource, caller: Caller, limit: int) -> None:
    issues: list[Issue] = []
    if bundle.get("resourceType") != "Bundle" or bundle.get("type") not in TYPES:
        text = "The base takes a Bundle of type transaction, batch or collection; single resources go to their type."
        raise Refused(400, [error("invalid", "Bundle.type", text)])
    entries = bundle.get("entry", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Refused(400, [error("structure", "Bundle.entry", "The entries must be a list of objects.")])
    if len(entries) > limit:
        raise Refused(413, [error("too-costly", "Bundle.entry", f"At most {limit} entries are taken in one Bundle.")])
    for number, entry in enumerate(entries):
        issues += _allowed(entry, f"Bundle.entry[{number}]", caller)
    if issues:
        raise Refused(422, issues)


def _allowed(entry: Resource, place: str, caller: Caller) -> list[Issue]:
    request, resource = entry.get("request", {}), entry.get("resource", {})
    if not isinstance(request, dict) or not isinstance(resource, dict):
        return [error("structure", place, "request and resource must be objects.")]
    method = request.get("method", "POST")
    if method not in METHODS:
        return [error("not-supported", f"{place}.request.method", "POST and PUT are taken in a Bundle here.")]
    if resource:
        caller.require(str(resource.get("resourceType")), "c" if method == "POST" else "u")
    return []


def _answer(plan: Plan, *, conversion: Conversion, conditions: Conditions) -> tuple[int, bytes]:
    if plan.refused:
        status = 409 if any(issue.code == "conflict" for issue in plan.issues) else 422
        return status, fhir_json.dump(outcome(plan.issues))
    puts = {done.reference: done for done in plan.puts}
    theirs = f"Patient/{conversion.patient['id']}" if conversion.patient else None
    entries = []
    for number, became in enumerate(conversion.entries):
        reference = f"Patient/{plan.patient_id}" if became is not None and became == theirs else became
        row = conditions.existing.get(number)
        answer = _stood(row) if row is not None else _done(puts.get(reference or ""))
        told = tuple(issue for issue in plan.issues if _is_about(issue, number, reference))
        entries.append({"response": answer | ({"outcome": outcome(told)} if told else {})})
    return 200, fhir_json.dump(_response("transaction-response", entries))


def _is_about(issue: Issue, number: int, reference: str | None) -> bool:
    own = issue.location.startswith(f"Bundle.entry[{number}]")
    return own or (reference is not None and issue.location.startswith(reference))


def _stood(row: StoredResource) -> Resource:
    """A conditional create of what is here already."""
    return _written("200 OK", f"{row.resource_type}/{row.id}", row.revision)


def _done(put: Put | None) -> Resource:
    if put is None:
        return {"status": "204 No Content"}  # an entry that carries nothing to keep
    version = put.stored.revision + (0 if put.change == "unchanged" else 1)
    return _written("201 Created" if put.change == "created" else "200 OK", put.reference, version)


def _written(status: str, reference: str, version: int) -> Resource:
    return {"status": status, "location": f"{reference}/_history/{version}", "etag": f'W/"{version}"'}
