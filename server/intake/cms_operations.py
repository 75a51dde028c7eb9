"""The CMS-shaped front door: what a client written for CMS sends to CMS, it may send here unchanged.

202 with an absolute `Content-Location` and no body; a poll gives 202 until CMS decided, then CMS's own answer. CMS's
401, 429, 503 and broken answers are ours to deal with and never reach the client.
Source: ACCESS API IG 0.9.12, endpoints and responses.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta

from starlette.requests import Request

from mappers.conversion import Resource
from profiles import fhir_json
from profiles.canonical import ACCESS
from profiles.issue import Issue, error
from profiles.validate import validate
from server.audit import record
from server.auth import Caller
from server.context import Context, new_id
from server.domain.errors import Conflict, Refused, StoreUnavailable, UniqueViolation
from server.domain.job import JobKind, NewJob
from server.domain.received import Door, Received, ReceivedState
from server.domain.submission import FINAL, Operation, Submission, SubmissionState
from server.intake.accept import TRIES, identities, merged
from server.intake.identity import Match, match
from server.intake.kept import caller_of, context_of, kept_if_refused, refuse_on_errors, reply, stored
from server.intake.repair import repaired
from server.intake.resources import put, retargeted
from server.outcomes import FhirResponse
from server.store.base import Changeset, Where

REPLAY_HOURS = 24  # a finished write asked for again in the same bytes within this time is the same one


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may go to CMS."""

    operation: Operation
    parameters: Resource
    body: bytes
    received: Received

    def value(self, name: str, kind: str = "valueCodeableConcept") -> str:
        """The code, or the identifier's value, of a parameter that the profile demands."""
        parameter = next(p for p in self.parameters["parameter"] if p.get("name") == name)
        found = parameter[kind]
        return str(found["value"] if kind == "valueIdentifier" else found["coding"][0]["code"])

    def resources(self, name: str) -> list[Resource]:
        """The resources of all parameters of a name."""
        return [p["resource"] for p in self.parameters["parameter"] if p.get("name") == name]


async def submit(request: Request) -> FhirResponse:
    """`POST /fhir/access/Patient/$check-eligibility`, `$align`, `$unalign`, `$report-data`."""
    operation, caller = _operation(request), caller_of(request)
    caller.require_scope("access/submit")
    received = await stored(request, Door.OPERATION, repeatable=False)

    async def work() -> FhirResponse:
        _entity(request, caller)
        asked = _asked(received, operation, caller)
        submission = await _taken(asked, context_of(request))
        return reply(request, None, 202, content_location=status_url(submission, context_of(request)))

    return await kept_if_refused(request, received, work)


async def submission_status(request: Request) -> FhirResponse:
    """`GET /fhir/access/Patient/$submission-status/{id}`: 202 until the true end, then CMS's answer as it came."""
    caller, context = caller_of(request), context_of(request)
    caller.require_scope("access/submit")
    submission = await context.store.get(Submission, participant_id=caller.participant_id, id=request.path_params["id"])
    if submission is None:
        raise Refused(404, [error("not-found", "", "There is no such submission here.")])
    entry = record(
        participant_id=caller.participant_id,
        at=context.clock.now(),
        agent=caller.client_id,
        action="R",
        subtype="$submission-status",
        entity=f"submission/{submission.id}",
        patient_id=submission.patient_id,
    )
    await context.store.commit(Changeset(audit=(entry,)))
    if submission.state is SubmissionState.APPLIED or (submission.state in FINAL and submission.result_status):
        status = submission.result_status or 200
        return reply(request, submission.result, status if 200 <= status < 300 or 400 <= status < 500 else 422)
    waits = "a person has to look at it" if submission.state is SubmissionState.NEEDS_REVIEW else str(submission.state)
    return reply(request, None, 202, x_progress=waits)


def status_url(submission: Submission, context: Context) -> str:
    """The absolute status URL of a submission, at our front door."""
    return f"{context.settings.base_url}/fhir/access/Patient/$submission-status/{submission.id}"


def _operation(request: Request) -> Operation:
    name = request.path_params["operation"].removeprefix("$")
    try:
        return Operation(name)
    except ValueError:
        text = "There is no such operation: $check-eligibility, $align, $unalign and $report-data are."
        raise Refused(404, [error("not-supported", "", text)]) from None


def _entity(request: Request, caller: Caller) -> None:
    entity_id = request.query_params.get("entityId")
    if entity_id is None:
        raise Refused(400, [error("required", "entityId", "The query parameter entityId is missing: it is required.")])
    if entity_id != caller.participant_id:
        text = "The access token is not for this entityId: use a client of that participant."
        raise Refused(403, [error("forbidden", "entityId", text)])


def _asked(received: Received, operation: Operation, caller: Caller) -> Asked:
    parameters, notes = repaired(fhir_json.parse(received.body), operation)
    refuse_on_errors(validate(parameters, ACCESS(f"access-{operation}-in")), status=400)
    body = fhir_json.dump(parameters) if notes else received.body
    asked = Asked(operation, parameters, body, received)
    if asked.value("participantID", "valueIdentifier") != caller.participant_id:
        text = "participantID must be the entityId of the address."
        raise Refused(400, [error("value", "Parameters.parameter.where(name='participantID')", text)])
    return asked


async def _taken(asked: Asked, context: Context) -> Submission:
    """The submission of this request: a new one, or the one that the same bytes made already."""
    for _ in range(TRIES):
        try:
            return await _new(asked, context)
        except UniqueViolation as bar:
            earlier = await _earlier(asked, context) if "replay_key" in bar.index else None
            if earlier is not None:
                return earlier
        except Conflict:
            continue
    raise StoreUnavailable("others keep changing the same record", retry_after_seconds=1.0)


def _replay_key(asked: Asked) -> str:
    return f"{asked.received.agent}|{asked.operation}|{asked.received.sha256}"


async def _earlier(asked: Asked, context: Context) -> Submission | None:
    """The submission of the same bytes; None after its time is over (it gives the key free)."""
    conditions = (
        Where("participant_id", "==", asked.received.participant_id),
        Where("replay_key", "==", _replay_key(asked)),
    )
    found = await context.store.find(Submission, *conditions, limit=1)
    if not found:
        return None
    over = found[0].finished_at is not None and context.clock.now() - found[0].finished_at > timedelta(
        hours=REPLAY_HOURS
    )
    if over:
        await context.store.commit(Changeset(replace=(replace(found[0], replay_key=None),)))
        return None
    row = replace(asked.received, state=ReceivedState.ACCEPTED, patient_id=found[0].patient_id)
    await context.store.commit(Changeset(replace=(row,)))
    return found[0]


async def _new(asked: Asked, context: Context) -> Submission:
    participant_id, now = asked.received.participant_id, context.clock.now()
    patient, changes = await _patient(asked, context)
    submission = Submission(
        participant_id=participant_id,
        id=new_id(),
        operation=asked.operation,
        patient_id=patient,
        track=asked.value("track"),
        agent=asked.received.agent,
        created_at=now,
        request_sha256=hashlib.sha256(asked.body).hexdigest(),
        report_type=asked.value("reportType") if asked.operation is Operation.REPORT_DATA else None,
        replay_key=_replay_key(asked),
        request=asked.body,
    )
    entry = record(
        participant_id=participant_id,
        at=now,
        agent=asked.received.agent,
        action="E",
        subtype=f"${asked.operation}",
        entity=f"submission/{submission.id}",
        patient_id=patient,
    )
    row = replace(asked.received, state=ReceivedState.ACCEPTED, patient_id=patient)
    job = NewJob(participant_id=participant_id, kind=JobKind.SUBMIT, key=submission.id, due_at=now)
    await context.store.commit(changes + Changeset(insert=(submission,), replace=(row,), jobs=(job,), audit=(entry,)))
    return submission


async def _patient(asked: Asked, context: Context) -> tuple[str, Changeset]:
    """Our id of the request's patient, and the rows that keep the patient and the diagnoses sent."""
    bundled = [e.get("resource", {}) for bundle in asked.resources("dataBundle") for e in bundle.get("entry", [])]
    patients = asked.resources("patient") or [r for r in bundled if r.get("resourceType") == "Patient"]
    place = "Parameters.parameter.where(name='patient').resource.identifier"
    found = await match(patients[0], asked.received.participant_id, context, registers=True, location=place)
    if isinstance(found, Issue):
        raise Refused(409 if found.code == "conflict" else 400, [found])
    changes = Changeset(insert=identities(asked.received.participant_id, found))
    for resource in (merged(patients[0], found), *_conditions(asked, patients[0], found)):
        done = await put(
            resource,
            participant_id=asked.received.participant_id,
            patient_id=found.patient_id,
            received_id=asked.received.id,
            at=context.clock.now(),
            context=context,
        )
        changes += done.changes
    return found.patient_id, changes


def _conditions(asked: Asked, patient: Resource, found: Match) -> list[Resource]:
    """The diagnoses, kept under ids of our own: which measures are due hangs on them."""
    conditions = []
    for condition in asked.resources("condition"):
        code = next((c.get("code", "") for c in condition.get("code", {}).get("coding", [])), "")
        name = f"{found.patient_id} {code} {condition.get('onsetDateTime', '')}"
        logical_id = hashlib.sha256(name.encode()).hexdigest()[:32]
        own = {**condition, "id": logical_id}
        own = {**own, "subject": {"reference": f"Patient/{found.patient_id}"}}
        conditions.append(retargeted(own, f"Patient/{patient.get('id', '')}", f"Patient/{found.patient_id}"))
    return list({c["id"]: c for c in conditions}.values())
