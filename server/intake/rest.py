"""One resource at a time: create, read, vread, update. Source: FHIR R4, RESTful API.

A create with the very bytes of an earlier one by the same client answers with the resource that those made: a retry
after a lost answer makes no second reading.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import Response

from capability.statement import interactions
from mappers.conversion import Resource
from profiles import fhir_json
from profiles.issue import Issue, error
from profiles.validate import validate
from server.audit import record
from server.auth import Caller
from server.context import Context
from server.domain.errors import Conflict, Refused, StoreUnavailable
from server.domain.received import Door, Received, ReceivedState
from server.domain.resource import Lookup, ResourceVersion, StoredResource
from server.intake import binary, subscription
from server.intake.accept import TRIES, assessment, identities, merged
from server.intake.identity import find, identity_keys, match
from server.intake.kept import caller_of, context_of, handed_over, kept_if_refused, refuse_on_errors, reply
from server.intake.opened import opened_rows
from server.intake.resources import PATIENT_ELEMENTS, Put, patient_reference, put
from server.intake.scores import score_rows
from server.outcomes import FhirResponse, header
from server.store.base import Changeset, JobForEach, Pending, Where

Commit = Callable[[Changeset], Awaitable[None]]
ACTIONS = {"created": "C", "updated": "U", "unchanged": "R"}  # of an audit entry
BESIDE = {"DiagnosticReport": opened_rows, "QuestionnaireResponse": score_rows}  # what else is stored with one
MOST_SEEN = 200_000  # patients remembered; then it starts anew


async def create(request: Request) -> FhirResponse:
    """`POST /fhir/{type}`."""
    kind = _supported(request, "create")
    caller_of(request).require(kind, "c")
    received, pending = await handed_over(request, Door.REST)
    context = context_of(request)

    async def work() -> FhirResponse:
        resource = _read(received, kind, context)
        existing = await _if_none_exist(request, kind)
        if existing is not None:
            return _answer(request, existing, 200, existing.revision)
        name = f"{received.agent} {received.sha256}"
        resource = {**resource, "id": hashlib.sha256(name.encode()).hexdigest()[:32]}
        done = await write(resource, received, context, pending, fresh=kind != "Patient")
        return _answer(
            request, done.stored, 200 if kind == "Patient" and done.change != "created" else 201, done.version
        )

    return await kept_if_refused(request, received, work, pending)


async def update(request: Request) -> FhirResponse:
    """`PUT /fhir/{type}/{id}`: a new version, or the first one under an id of the caller's."""
    kind = _supported(request, "update")
    caller_of(request).require(kind, "u")
    received, pending = await handed_over(request, Door.REST)

    async def work() -> FhirResponse:
        resource = _read(received, kind, context_of(request))
        if resource.get("id") != request.path_params["id"]:
            text = "The id in the body must be the id in the address."
            raise Refused(400, [error("value", f"{kind}.id", text)])
        await _if_match(request, received, kind)
        done = await write(resource, received, context_of(request), pending)
        return _answer(request, done.stored, 201 if done.change == "created" else 200, done.version)

    return await kept_if_refused(request, received, work, pending)


async def read(request: Request) -> Response:
    """`GET /fhir/{type}/{id}`; a Binary as its own content for who asks for its type."""
    kind, context, caller = _supported(request, "read"), context_of(request), caller_of(request)
    caller.require(kind, "r")
    row = await context.store.get(
        StoredResource, participant_id=caller.participant_id, resource_type=kind, id=request.path_params["id"]
    )
    await _audited(request, row, "read")
    if row is None:
        raise _unknown(kind)
    if row.deleted:
        raise Refused(410, [error("deleted", "", "This resource was deleted; its history is kept.")])
    return binary.content(row, header(request, b"accept")) or _answer(request, row, 200, row.revision)


async def vread(request: Request) -> FhirResponse:
    """`GET /fhir/{type}/{id}/_history/{vid}`."""
    kind, context, caller = _supported(request, "vread"), context_of(request), caller_of(request)
    caller.require(kind, "r")
    key = {"participant_id": caller.participant_id, "resource_type": kind, "id": request.path_params["id"]}
    version = request.path_params["vid"]
    current = await context.store.get(StoredResource, **key)
    await _audited(request, current, "vread")
    if current is not None and str(current.revision) == version:
        return _answer(request, current, 200, current.revision)
    earlier = (
        await context.store.get(ResourceVersion, **key, version_id=int(version))
        if version.isascii() and version.isdigit() and len(version) < 10
        else None
    )
    if earlier is None:
        raise _unknown(kind)
    return reply(request, earlier.body, 200, etag=f'W/"{version}"')


async def write(
    resource: Resource, received: Received, context: Context, pending: Pending | None = None, *, fresh: bool = False
) -> Put:
    """Stores one checked resource and ends its message, as one transaction. `fresh`: the id is most likely new."""
    commit = (pending or context.store).commit
    for _ in range(TRIES):
        try:
            return await _write(resource, received, context, commit, fresh=fresh)
        except Conflict:
            fresh, commit = False, context.store.commit
    raise StoreUnavailable("others keep changing the same record", retry_after_seconds=1.0)


async def _write(resource: Resource, received: Received, context: Context, commit: Commit, *, fresh: bool) -> Put:
    at, participant_id = context.clock.now(), received.participant_id
    resource, patient_id, extra = await _placed(resource, received, context)
    done = await put(
        resource,
        participant_id=participant_id,
        patient_id=patient_id,
        received_id=received.id,
        at=at,
        context=context,
        fresh=fresh,
    )
    each: tuple[JobForEach, ...] = ()
    if patient_id is not None and done.change != "unchanged":
        each = (assessment(participant_id, patient_id, at, context),)
        beside = BESIDE.get(resource["resourceType"])
        if beside is not None:
            extra = await beside(resource, received, patient_id=patient_id, at=at, context=context)
    kept = received.state is ReceivedState.KEPT  # says all there is to say: no second write of the raw bytes
    rows = () if kept else (replace(received, state=ReceivedState.ACCEPTED, patient_id=patient_id),)
    entry = record(
        participant_id=participant_id,
        at=at,
        agent=received.agent,
        action=ACTIONS[done.change],
        subtype="rest",
        entity=done.reference,
        patient_id=patient_id,
    )
    written = done.changes
    changes = Changeset(
        insert=written.insert, replace=written.replace + rows, delete=written.delete, each=each, audit=(entry,)
    )
    await commit(changes if extra is None else changes + extra)
    return done


async def _placed(
    resource: Resource, received: Received, context: Context
) -> tuple[Resource, str | None, Changeset | None]:
    """The resource as it will be kept, whose it is, and what else is written with it."""
    participant_id, kind = received.participant_id, resource["resourceType"]
    if kind == "Patient":
        known, identifiers = await _patient(resource, participant_id, context)
        return known, known["id"], identifiers
    resource, patient_id = await bound(resource, participant_id, context)
    if kind == "Subscription":
        asked, rows = await subscription.prepare(resource, received.agent, participant_id, resource["id"], context)
        return asked, patient_id, rows
    return resource, patient_id, None


async def _patient(patient: Resource, participant_id: str, context: Context) -> tuple[Resource, Changeset]:
    """An EHR's Patient: what it says counts; the logical id is ours when the person is known already."""
    found = await match(patient, participant_id, context, registers=True, location="Patient.identifier")
    if isinstance(found, Issue):
        raise Refused(409 if found.code == "conflict" else 422, [found])
    ours = merged({"identifier": patient.get("identifier", [])}, found) if found.stored else {}
    known = {
        **patient,
        "id": found.patient_id,
        **({"identifier": ours["identifier"]} if ours.get("identifier") else {}),
    }
    return known, Changeset(insert=identities(participant_id, found))


async def bound(resource: Resource, participant_id: str, context: Context) -> tuple[Resource, str | None]:
    """The resource with its patient reference resolved, and that patient's id. Raises Refused for an unknown one.

    Another participant's patient is an unknown one.
    """
    reference = patient_reference(resource)
    if reference is not None:
        patient_id = reference.rpartition("Patient/")[2].partition("/")[0]
        if not await _is_patient(patient_id, participant_id, context):
            raise _no_patient(resource)
        return resource, patient_id
    for element in PATIENT_ELEMENTS:
        named = resource.get(element)
        if isinstance(named, dict) and "identifier" in named:
            owners = set(
                (
                    await find(identity_keys(named | {"identifier": [named["identifier"]]}), participant_id, context)
                ).values()
            )
            if len(owners) != 1:
                raise _no_patient(resource)
            (patient_id,) = owners
            return {**resource, element: {**named, "reference": f"Patient/{patient_id}"}}, patient_id
    return resource, None


async def _is_patient(patient_id: str, participant_id: str, context: Context) -> bool:
    """Whether there is such a patient; a yes is remembered, as patients are never deleted."""
    name = (participant_id, patient_id)
    if name in context.seen_patients:
        return True
    found = await context.store.get(
        StoredResource, participant_id=participant_id, resource_type="Patient", id=patient_id
    )
    if found is not None:
        if len(context.seen_patients) >= MOST_SEEN:
            context.seen_patients.clear()
        context.seen_patients.add(name)
    return found is not None


def _no_patient(resource: Resource) -> Refused:
    element = next((name for name in PATIENT_ELEMENTS if name in resource), "subject")
    text = "No such patient is known here: create the Patient first, or name the patient by the MBI."
    return Refused(422, [error("not-found", f"{resource['resourceType']}.{element}", text)])


def _read(received: Received, kind: str, context: Context) -> Resource:
    resource = fhir_json.parse(received.body)
    if resource.get("resourceType") != kind:
        text = f"The body must be a {kind}, as the address says."
        raise Refused(400, [error("invalid", "resourceType", text)])
    refuse_on_errors(validate(resource, guide=context.settings.participant(received.participant_id).guide))
    return resource


async def _if_none_exist(request: Request, kind: str) -> StoredResource | None:
    """Conditional create by identifier. Source: FHIR R4, RESTful API, conditional create."""
    condition = header(request, b"if-none-exist")
    if not condition:
        return None
    name, _, value = condition.partition("=")
    if name != "identifier" or "|" not in value or "&" in value:
        text = "If-None-Exist must read identifier=system|value here."
        raise Refused(412, [error("not-supported", "If-None-Exist", text)])
    found = await by_identifier(kind, value, caller_of(request), context_of(request))
    if len(found) > 1:
        raise Refused(412, [error("multiple-matches", "If-None-Exist", "More than one resource has this identifier.")])
    return found[0] if found else None


async def by_identifier(kind: str, value: str, caller: Caller, context: Context) -> list[StoredResource]:
    """The resources of a type that have an identifier, `system|value`."""
    rows = await context.store.find(
        Lookup,
        Where("participant_id", "==", caller.participant_id),
        Where("resource_type", "==", kind),
        Where("parameter", "==", "identifier"),
        Where("value", "==", value),
    )
    found = [
        await context.store.get(
            StoredResource, participant_id=caller.participant_id, resource_type=kind, id=row.resource_id
        )
        for row in rows
    ]
    return [row for row in found if row is not None and not row.deleted]


async def _if_match(request: Request, received: Received, kind: str) -> None:
    wanted = request.headers.get("if-match")
    if wanted is None:
        return
    current = await context_of(request).store.get(
        StoredResource, participant_id=received.participant_id, resource_type=kind, id=request.path_params["id"]
    )
    if current is None or wanted.strip() != f'W/"{current.revision}"':
        raise Refused(412, [error("conflict", "If-Match", "The resource has another version: read it again first.")])


def _supported(request: Request, interaction: str) -> str:
    kind: str = request.path_params["type"]
    offered = interactions(kind)
    if not offered:
        raise Refused(404, [error("not-supported", "", "This resource type is not kept here: see /fhir/metadata.")])
    if interaction not in offered:
        text = f"{interaction} is not offered for this resource type: see /fhir/metadata."
        raise Refused(405, [error("not-supported", "", text)])
    return kind


def _unknown(kind: str) -> Refused:
    return Refused(404, [error("not-found", "", f"There is no such {kind} here.")])


async def _audited(request: Request, row: StoredResource | None, subtype: str) -> None:
    caller, context = caller_of(request), context_of(request)
    entry = record(
        participant_id=caller.participant_id,
        at=context.clock.now(),
        agent=caller.client_id,
        action="R",
        subtype=subtype,
        entity=f"{row.resource_type}/{row.id}" if row else f"{request.path_params['type']}/?",
        outcome="0" if row else "4",
        patient_id=row.patient_id if row else None,
        request_id=request.scope.get("state", {}).get("request_id"),
    )
    await context.store.commit(Changeset(audit=(entry,)))


def _answer(request: Request, row: StoredResource, status: int, version: int) -> FhirResponse:
    headers = {"ETag": f'W/"{version}"', "Last-Modified": _http_date(int(row.last_updated.timestamp()))}
    if request.method != "GET":
        base = context_of(request).settings.base_url
        headers["Location"] = f"{base}/fhir/{row.resource_type}/{row.id}/_history/{version}"
        if "return=minimal" in header(request, b"prefer"):
            return FhirResponse(None, status, headers)
    return FhirResponse(row.body, status, headers, accept=header(request, b"accept"))


@lru_cache(maxsize=64)
def _http_date(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)
