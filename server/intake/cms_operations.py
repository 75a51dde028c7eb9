"""The CMS-shaped front door: what a client written for CMS sends to CMS, it may send here unchanged.

202 with an absolute `Content-Location` and no body; a poll gives 202 until CMS decided, then CMS's own answer. CMS's
401, 429, 503 and broken answers are ours to deal with and never reach the client.
Source: ACCESS API IG 0.9.12, endpoints and responses.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from server.domain.submission import FINAL, Operation, Submission, SubmissionEvent, SubmissionState
from server.intake import gates
from server.intake.accept import TRIES, identities, merged
from server.intake.identity import Match, match
from server.intake.kept import caller_of, context_of, kept_if_refused, reply, stored
from server.intake.repair import repaired, track_of
from server.intake.repair_steps import rows
from server.intake.replays import Repeat, by_bytes, by_key, key_noted, key_of, unique_identifier
from server.intake.resources import Origin, put_all, retargeted
from server.intake.verdict import answer_of
from server.outcomes import FhirResponse, negotiate
from server.settings import Participant
from server.store.base import Changeset

LONGEST_DETAIL = 4000  # characters of an event


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may go to CMS. `notes`: what was put right, and what to keep in mind."""

    operation: Operation
    parameters: Resource
    received: Received
    repeat: Repeat
    patient: Match
    notes: tuple[Issue, ...]

    def value(self, name: str) -> str:
        """The code of a parameter that the profile demands."""
        parameter = next(p for p in self.parameters["parameter"] if p.get("name") == name)
        return str(parameter["valueCodeableConcept"]["coding"][0]["code"])

    def resources(self, name: str) -> list[Resource]:
        """The resources of all parameters of a name."""
        return [p["resource"] for p in self.parameters["parameter"] if p.get("name") == name]


async def submit(request: Request) -> FhirResponse:
    """`POST /fhir/access/Patient/$check-eligibility`, `$align`, `$unalign`, `$report-data`.

    `Prefer: respond-async` is what happens anyway; `Idempotency-Key` makes a repeat find the first submission.
    """
    operation, caller = _operation(request), caller_of(request)
    caller.require_scope("access/submit")
    negotiate(request.headers.get("accept", ""))
    key = key_of(request)
    received = await stored(request, Door.OPERATION, repeatable=False)

    async def work() -> FhirResponse:
        _entity(request, caller)
        repeat = Repeat(caller.participant_id, f"{received.agent}|{operation}", received.sha256, key)
        submission = await _taken(received, operation, repeat, context_of(request))
        url = status_url(submission, context_of(request))
        if "respond-async" in request.headers.get("prefer", ""):
            return reply(request, None, 202, content_location=url, preference_applied="respond-async")
        return reply(request, None, 202, content_location=url)

    return await kept_if_refused(request, received, work)


async def submission_status(request: Request) -> FhirResponse:
    """`GET /fhir/access/Patient/$submission-status/{id}`: 202 until the true end, then CMS's answer as it came."""
    caller, context = caller_of(request), context_of(request)
    caller.require_scope("access/submit")
    negotiate(request.headers.get("accept", ""))
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
    if submission.state in FINAL:
        status, content, progress = await answer_of(submission, context)
        return reply(request, content, status, **({"x_progress": progress} if status == 202 else {}))
    return reply(request, None, 202, x_progress=str(submission.state))


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


async def _taken(received: Received, operation: Operation, repeat: Repeat, context: Context) -> Submission:
    """The submission of this request: a new one, or the one that it repeats."""
    for _ in range(TRIES):
        earlier = await by_key(repeat, context) or await by_bytes(repeat, context)
        try:
            if earlier is not None:
                return await _again(received, earlier, repeat, context)
            return await _new(await _asked(received, operation, repeat, context), context)
        except (UniqueViolation, Conflict):
            continue
    raise StoreUnavailable("others keep changing the same record", retry_after_seconds=1.0)


async def _again(received: Received, earlier: Submission, repeat: Repeat, context: Context) -> Submission:
    row = replace(received, state=ReceivedState.ACCEPTED, patient_id=earlier.patient_id)
    noted = await key_noted(repeat, earlier.id, context)
    await context.store.commit(Changeset(replace=(row,)) + noted)
    return earlier


async def _asked(received: Received, operation: Operation, repeat: Repeat, context: Context) -> Asked:
    """The request, repaired and checked: by its profile, by itself, and by what is known of its patient.

    Raises: Refused with every reason at once.
    """
    participant = context.settings.participant(repeat.participant_id)
    given = fhir_json.parse(received.body)
    parameters, notes = repaired(given, operation, base_url=f"{context.settings.base_url}/fhir")
    track = track_of(parameters)
    issues = gates.findings(parameters, operation, participant, track)
    issues += validate(parameters, ACCESS(f"access-{operation}-in"), guide=participant.guide)
    found: Match | None = None
    if _names_patient(parameters, issues):
        found, more = await _known(parameters, operation, track, participant=participant, context=context)
        issues += more
    if found is None or any(issue.is_error for issue in issues):
        raise Refused(gates.status_of(issues), [issue for issue in issues if issue.is_error] or issues)
    kept = [*notes, *(issue for issue in issues if issue.code == "business-rule")]
    return Asked(operation, parameters, received, repeat, found, tuple(kept))


def _names_patient(parameters: Resource, issues: Sequence[Issue]) -> bool:
    """Whether the request is sound enough to ask whose it is: patient, track and reason are there and not at fault."""
    places = [
        f"Parameters.parameter[{number}]"
        for number, parameter in enumerate(rows(parameters.get("parameter")))
        if parameter.get("name") in ("patient", "track", "reason", "dataBundle")
    ]
    faulty = any(issue.is_error and issue.location.startswith(place) for issue in issues for place in places)
    return len(places) > 1 and not faulty and _patient_of(parameters) is not None


def _patient_of(parameters: Resource) -> Resource | None:
    """The Patient of the request, or of its report."""
    for parameter in rows(parameters.get("parameter")):
        resource = parameter.get("resource")
        if isinstance(resource, dict):
            inner = [entry.get("resource") for entry in rows(resource.get("entry"))]
            for one in (resource, *inner):
                if isinstance(one, dict) and one.get("resourceType") == "Patient":
                    return one
    return None


async def _known(
    parameters: Resource, operation: Operation, track: str, *, participant: Participant, context: Context
) -> tuple[Match | None, list[Issue]]:
    """The patient, and what stands against the request because of what is known of the patient."""
    place = "Parameters.parameter.where(name='patient').resource.identifier"
    found = await match(_patient_of(parameters) or {}, participant.entity_id, context, registers=True, location=place)
    if isinstance(found, Issue):
        return None, [found]
    known = await gates.standing(
        parameters, operation, track, participant=participant, patient_id=found.patient_id, context=context
    )
    return found, gates.barred(known)


async def _new(asked: Asked, context: Context) -> Submission:
    participant_id, now = asked.received.participant_id, context.clock.now()
    parameters, more, remembered = await unique_identifier(asked.parameters, asked.repeat, context)
    notes = [*asked.notes, *more]
    was_changed = any(issue.code == "informational" for issue in notes)
    body = fhir_json.dump(parameters) if was_changed else asked.received.body
    patient, changes = await _patient(asked, context)
    submission = Submission(
        participant_id=participant_id,
        id=new_id(),
        operation=asked.operation,
        patient_id=patient,
        track=asked.value("track"),
        agent=asked.received.agent,
        created_at=now,
        request_sha256=hashlib.sha256(body).hexdigest(),
        report_type=asked.value("reportType") if asked.operation is Operation.REPORT_DATA else None,
        replay_key=asked.repeat.replay_key,
        request=body,
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
    changes += remembered + await key_noted(asked.repeat, submission.id, context)
    event = _event(submission, asked, notes)
    await context.store.commit(
        changes + Changeset(insert=(submission, event), replace=(row,), jobs=(job,), audit=(entry,))
    )
    return submission


def _event(submission: Submission, asked: Asked, notes: Sequence[Issue]) -> SubmissionEvent:
    """The first event: whose statement this is, and what was put right. The bytes as they came stay with Received."""
    said = [f"taken from {submission.agent} as received/{asked.received.id}"]
    for name in ("isProviderReferral", "switchConsentAttestation"):
        value = gates.value_of(asked.parameters, name, "valueBoolean")
        if value is not None:
            said.append(f"{name} = {str(value).lower()} is the statement of {submission.agent}")
    said += [f"{issue.location}: {issue.text}" for issue in notes]
    return SubmissionEvent(
        participant_id=submission.participant_id,
        submission_id=submission.id,
        sequence=1,
        at=submission.created_at,
        state=SubmissionState.BUILT,
        detail="; ".join(said)[:LONGEST_DETAIL],
    )


async def _patient(asked: Asked, context: Context) -> tuple[str, Changeset]:
    """Our id of the request's patient, and the rows that keep the patient and the diagnoses sent."""
    patient, found = _patient_of(asked.parameters) or {}, asked.patient
    changes = Changeset(insert=identities(asked.received.participant_id, found))
    kept = (merged(patient, found), *_conditions(asked, patient, found))
    origin = Origin(asked.received.participant_id, found.patient_id, asked.received.id, context.clock.now())
    return found.patient_id, changes + await put_all(kept, origin, context)


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
