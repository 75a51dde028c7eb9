"""Behind every door: the raw bytes are stored first, then read, mapped and checked, then all of it is one transaction.

What can not be taken in stays in the store as it came, with the reasons, and an item in the work list says so.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mappers.conversion import Conversion, Resource
from profiles import fhir_json
from profiles.issue import Issue, error
from profiles.validate import validate
from server.audit import record
from server.context import Context, new_id
from server.domain.care_period import CarePeriod
from server.domain.errors import Conflict, Refused, StoreUnavailable, UniqueViolation
from server.domain.job import JobKind
from server.domain.received import Door, Received, ReceivedState
from server.domain.resource import PatientIdentity
from server.intake.identity import Match, match
from server.intake.merge import merged_records
from server.intake.resources import Origin, Put, Standing, joined, put_at, retargeted, standing_all
from server.store.base import Changeset, JobForEach, Pending, Where
from server.work_items import closed, work_item

_NOTHING = Changeset()
TRIES = 5  # of a plan that somebody else's write overtook


@dataclass(frozen=True, slots=True)
class Arrival:
    """What came through a door. `agent` is the client id or the peer."""

    participant_id: str
    door: Door
    agent: str
    content_type: str
    body: bytes
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a message will change. With an error among `issues` it changes nothing and is quarantined."""

    puts: tuple[Put, ...]
    patient_id: str | None
    issues: tuple[Issue, ...]
    changes: Changeset

    @property
    def refused(self) -> bool:
        """Whether the message is not taken in."""
        return any(issue.is_error for issue in self.issues)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a door reads its bytes.

    `registers`: the sender may make a patient known by its own numbers. `location`: where the source names the
    patient. `control_key`: the sender's name for this message; other bytes under the same name are refused.
    """

    conversion: Conversion
    registers: bool
    location: str
    control_key: str | None = None


Answer = Callable[[Plan], tuple[int, bytes]]  # HTTP status and the body to give (and to give again to a repeat)


async def receive(arrival: Arrival, context: Context, *, repeatable: bool = True) -> Received:
    """The stored row: a new one, or the earlier one of the same bytes from the same sender. On disk when it returns.

    `repeatable` False: the same bytes twice are two messages (the door tells repeats apart in its own way).
    """
    row = _row(arrival, context, repeatable=repeatable)
    try:
        await context.store.commit(Changeset(insert=(row,)))
    except UniqueViolation:
        conditions = (
            Where("participant_id", "==", row.participant_id),
            Where("content_key", "==", row.content_key),
        )
        earlier = await context.store.find(Received, *conditions, limit=1)
        if not earlier:
            raise StoreUnavailable("the earlier message of these bytes was just changed") from None
        return earlier[0]
    return row


async def hand_over(arrival: Arrival, context: Context) -> tuple[Received, Pending]:
    """As `receive`, for a message that is no repeat, without waiting for the disk.

    The store has the bytes when it returns; they are on disk, by themselves or together with what is read of them,
    before anything is answered.
    """
    row = _row(arrival, context, repeatable=False)
    return row, await context.store.begin(Changeset(insert=(row,)))


def _row(arrival: Arrival, context: Context, *, repeatable: bool) -> Received:
    digest = hashlib.sha256(arrival.body).hexdigest()
    return Received(
        participant_id=arrival.participant_id,
        id=new_id(),
        door=arrival.door,
        agent=arrival.agent,
        content_type=arrival.content_type,
        sha256=digest,
        received_at=context.clock.now(),
        content_key=f"{arrival.door}|{arrival.agent}|{digest}" if repeatable else None,
        state=ReceivedState.KEPT if arrival.door is Door.REST else ReceivedState.RECEIVED,
        body=arrival.body,
        revision=1,
    )


def answered(received: Received) -> tuple[int, bytes] | None:
    """What a repeat of an accepted message gets again; None when the message still has to be read."""
    if received.state is ReceivedState.ACCEPTED and received.answer is not None:
        return received.answer_status or 200, received.answer
    return None


async def process(received: Received, reading: Reading, answer: Answer, context: Context) -> tuple[int, bytes]:
    """Plans, answers and commits, as one transaction; plans again when somebody else wrote first."""
    for _ in range(TRIES):
        plan = await _plan(received, reading, context)
        try:
            return await _settle(received, reading, plan, answer, context)
        except UniqueViolation as bar:
            if "control_key" in bar.index:
                text = "Another message came under this control id with other content: send it under a new control id."
                twice = Plan((), None, (error("duplicate", "MSH-10", text),), Changeset())
                return await _settle(received, reading, twice, answer, context)
        except Conflict:
            pass
        received = await context.store.get(Received, participant_id=received.participant_id, id=received.id) or received
        if (earlier := answered(received)) is not None:
            return earlier
    raise StoreUnavailable("others keep changing the same records", retry_after_seconds=1.0)


async def _plan(received: Received, reading: Reading, context: Context) -> Plan:
    conversion = reading.conversion
    issues = list(conversion.issues)
    if any(issue.is_error for issue in issues):
        return Plan((), None, tuple(issues), Changeset())
    found, moved = None, Changeset()
    if conversion.patient is not None:
        outcome = await match(
            conversion.patient,
            received.participant_id,
            context,
            registers=reading.registers,
            location=reading.location,
        )
        if isinstance(outcome, Issue):
            return Plan((), None, (*issues, outcome), Changeset())
        merge = await merged_records(
            conversion, outcome, received.participant_id, location=reading.location, context=context
        )
        if isinstance(merge, Issue):
            return Plan((), outcome.patient_id, (*issues, merge), Changeset())
        conversion, found, moved = merge.conversion, merge.found, merge.changes
        issues += found.issues
    resources, stored = _resources(conversion, found), found.stored if found else None
    places = await standing_all(resources, received.participant_id, context, read=stored)
    guide = context.settings.participant(received.participant_id).guide
    for place in places:
        if not place.same:  # what says the same as the stored version was checked when that came
            issues += _checked(place.resource, guide)
    if any(issue.is_error for issue in issues):
        return Plan((), found.patient_id if found else None, tuple(issues), Changeset())
    try:
        plan = _rows(received, places, found, tuple(issues), context)
        return replace(plan, changes=plan.changes + moved) if moved != _NOTHING else plan
    except Refused as refused:
        return Plan((), found.patient_id if found else None, (*issues, *refused.issues), Changeset())


def _checked(resource: Resource, guide: str) -> list[Issue]:
    place = f"{resource['resourceType']}/{resource.get('id', '')}"
    return [
        issue if issue.location.startswith(place) else replace(issue, location=issue.location or place)
        for issue in validate(resource, guide=guide)
        if issue.severity != "information"
    ]


def _resources(conversion: Conversion, found: Match | None) -> list[Resource]:
    """All resources, their references to the source's patient turned to ours; the patient as it will read."""
    if conversion.patient is None or found is None:
        return list(conversion.resources)
    old, new = f"Patient/{conversion.patient['id']}", f"Patient/{found.patient_id}"
    resources = [retargeted(resource, old, new) for resource in conversion.resources]
    return [merged(conversion.patient, found), *resources]


def merged(patient: Resource, found: Match) -> Resource:
    """Our patient, with what the source adds: what we hold already stays, identifiers and doctors are joined."""
    patient = patient | {"id": found.patient_id}
    if found.stored is None:
        return patient
    ours = fhir_json.parse(found.stored.body)
    joined = {
        element: ours.get(element, []) + [item for item in patient[element] if item not in ours.get(element, [])]
        for element in ("identifier", "generalPractitioner", "telecom", "link")
        if element in patient
    }
    return patient | ours | joined


def _rows(
    received: Received, places: list[Standing], found: Match | None, issues: tuple[Issue, ...], context: Context
) -> Plan:
    at = context.clock.now()
    patient_id = found.patient_id if found else None
    origin = Origin(received.participant_id, patient_id, received.id, at)
    puts = [put_at(place, origin) for place in places]
    changes = joined(puts)
    if found is not None:
        learnt = identities(received.participant_id, found)
        changes += Changeset(insert=learnt, each=(assessment(received.participant_id, found.patient_id, at, context),))
    return Plan(tuple(puts), patient_id, issues, changes)


def identities(participant_id: str, found: Match) -> tuple[PatientIdentity, ...]:
    """The identifiers to be learnt."""
    return tuple(
        PatientIdentity(participant_id=participant_id, identifier=key, patient_id=found.patient_id)
        for key in found.unknown
    )


def assessment(participant_id: str, patient_id: str, at: datetime, context: Context) -> JobForEach:
    """Has the patient's running care periods looked at: there are new values."""
    tracks = context.settings.participant(participant_id).tracks
    running = tuple([f"{patient_id}|{track}" for track in tracks])
    return JobForEach(
        participant_id=participant_id,
        kind=JobKind.ASSESS,
        due_at=at,
        record=CarePeriod,
        where=(Where("participant_id", "==", participant_id), Where("active_key", "in", running)),
    )


async def _settle(
    received: Received, reading: Reading, plan: Plan, answer: Answer, context: Context
) -> tuple[int, bytes]:
    status, body = answer(plan)
    if plan.refused:
        await quarantine(received, plan.issues, status, body, context)
        return status, body
    row = replace(
        received,
        state=ReceivedState.ACCEPTED,
        patient_id=plan.patient_id,
        control_key=reading.control_key,
        answer_status=status,
        answer=body,
    )
    at = context.clock.now()
    entry = record(
        participant_id=received.participant_id,
        at=at,
        agent=received.agent,
        action="C",
        subtype=str(received.door),
        entity=f"received/{received.id}",
        patient_id=plan.patient_id,
    )
    changes = plan.changes + Changeset(replace=(row,), audit=(entry,))
    if received.state is ReceivedState.QUARANTINED:
        changes += Changeset(replace=await closed(context, **_subject(received), at=at))
    await context.store.commit(changes)
    return status, body


def _subject(received: Received) -> dict[str, str]:
    return {"participant_id": received.participant_id, "kind": "quarantine", "subject": f"received/{received.id}"}


async def quarantine(
    received: Received,
    issues: Sequence[Issue],
    status: int,
    answer: bytes,
    context: Context,
    pending: Pending | None = None,
) -> None:
    """Keeps what could not be taken in, with the answer that was given, and tells a person."""
    reasons = "; ".join(f"{issue.location}: {issue.text}" for issue in issues if issue.is_error)
    text = f"A message through the door {received.door} was refused and is kept. {reasons}"[:1000]
    items = await work_item(context, **_subject(received), text=text)
    entry = record(
        participant_id=received.participant_id,
        at=context.clock.now(),
        agent=received.agent,
        action="C",
        subtype=str(received.door),
        entity=f"received/{received.id}",
        outcome="4",
    )
    row = replace(received, state=ReceivedState.QUARANTINED, answer_status=status, answer=answer)
    await (pending or context.store).commit(Changeset(replace=(row,), insert=items, audit=(entry,)))
