"""Composes the care update of one moment and puts it on its way: everything in one transaction.

The update, the event number of each subscriber and the delivery it is owed are written together, so that no event is
lost between them, and a unique index bars a second update for the same moment.
Source: Subscriptions R5 Backport IG 1.1.0 (numbers without gaps, also while a subscription is in error).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from hashlib import sha256

from mappers.report import sections
from profiles.fhir_json import parse
from profiles.validate import validate
from server.audit import record
from server.context import Context
from server.coordination import progress
from server.coordination.compose import Occasion, Resource, binary, ccda, compose, document_reference
from server.coordination.subscriber import Subscriber, of_participant
from server.domain.care_period import CarePeriod
from server.domain.coordination import CareUpdate, Delivery, Moment
from server.domain.job import Job, JobKind, NewJob
from server.domain.record import Record
from server.domain.resource import StoredResource
from server.domain.rules import Rules, rules_for
from server.intake.resources import Put, put
from server.intake.subscription import CARE_UPDATE, wants
from server.store.base import Changeset, Where
from server.work_items import work_item

_UNREACHED = "A subscriber is in error: its updates wait until it asks for its subscription again."
_NOBODY = (
    "Nobody receives updates for this patient: have the clinician's system subscribe, or tell the clinician yourself."
)
_UNSOUND = "A care update failed our own check and was not sent ({place}): tell whoever keeps this software."


@dataclass(slots=True)
class Written:
    """What the resources of one update become in the store."""

    changes: Changeset = field(default_factory=Changeset)
    references: list[str] = field(default_factory=list)

    def add(self, stored: Put, *, told: bool) -> None:
        """Takes up one resource; `told`: it goes with the notification, in exactly this version."""
        self.changes += stored.changes
        if told:
            version = stored.version
            self.references.append(f"{stored.reference}/_history/{version}")


async def care_update(job: Job, context: Context) -> Changeset:
    """Composes and addresses one update. `job.key` reads `care_period_id|moment|subject`.

    The subject is a measure for a milestone, else empty. An update that exists is not written again.
    """
    care_period_id, moment, subject = job.key.split("|", 2)
    update_id = sha256(f"CareUpdate {job.key}".encode()).hexdigest()[:32]
    period = await context.store.get(CarePeriod, id=care_period_id)
    if period is None or await context.store.get(CareUpdate, id=update_id) is not None:
        return Changeset()
    patient = await context.store.get(
        StoredResource, participant_id=period.participant_id, resource_type="Patient", id=period.patient_id
    )
    if patient is None or patient.deleted:
        return Changeset()
    occasion = await _occasion(
        period, parse(patient.body), Moment(moment), subject, update_id=update_id, context=context
    )
    unsound = [issue for issue in validate(compose(occasion).document) if issue.is_error]
    if unsound:
        text = _UNSOUND.format(place=unsound[0].location)
        return await _told(context, period, subject=f"care_update/{update_id}", text=text, patient_id=period.patient_id)
    written, update = await _written(occasion, subject, context)
    return written + await _addressed(update, context)


async def _occasion(
    period: CarePeriod, patient: Resource, moment: Moment, subject: str, *, update_id: str, context: Context
) -> Occasion:
    at = context.clock.now()
    rules = rules_for(period.aligned_on)
    earlier = await context.store.find(
        CareUpdate, Where("care_period_id", "==", period.id), order_by="composed_at", descending=True, limit=1
    )
    titles = {row.measure: row.title for row in sections(period.track)}
    bare = Occasion(
        update_id=update_id,
        moment=moment,
        subject=titles.get(subject, subject),
        at=at,
        fhir_base=f"{context.settings.base_url}/fhir",
        period=period,
        ends=_ends(period, rules),
        participant=context.settings.participant(period.participant_id),
        patient=patient,
        previous=earlier[0].id if earlier else None,
    )
    return replace(
        bare,
        progress=await progress.progress_of(period, rules, at=at, context=context),
        own_goals=await progress.own_goals(period, plan_id=bare.plan_id, context=context),
        medications=await progress.medications(period, context=context),
    )


def _ends(period: CarePeriod, rules: Rules) -> date:
    """The last day of the care period."""
    return period.ended_on or period.aligned_on + timedelta(days=rules.period_days.value - 1)


async def _written(occasion: Occasion, subject: str, context: Context) -> tuple[Changeset, CareUpdate]:
    """The rows of the update's resources, and the update itself. `subject` is the measure, as the key names it."""
    composed = compose(occasion)
    written = Written()
    document = await _put(composed.document, occasion, context)
    written.add(document, told=True)
    for resource in composed.resources[1:]:
        written.add(await _put(resource, occasion, context), told=True)
    for resource in composed.agents:
        written.add(await _put(resource, occasion, context), told=False)
    as_ccda = ccda(occasion, composed.document)
    written.add(await _put(binary(occasion, as_ccda), occasion, context), told=True)
    reference = document_reference(occasion, document=document.stored.body, as_ccda=as_ccda)
    focus = await _put(reference, occasion, context)
    written.add(focus, told=False)
    update = CareUpdate(
        participant_id=occasion.period.participant_id,
        id=occasion.update_id,
        care_period_id=occasion.period.id,
        patient_id=occasion.period.patient_id,
        moment=occasion.moment,
        subject=subject,
        composed_at=occasion.at,
        focus=focus.reference,
        context=" ".join(written.references),
    )
    entry = record(
        participant_id=update.participant_id,
        at=occasion.at,
        agent="worker",
        action="C",
        subtype="care-update",
        entity=focus.reference,
        patient_id=update.patient_id,
    )
    return written.changes + Changeset(insert=(update,), audit=(entry,)), update


async def _put(resource: Resource, occasion: Occasion, context: Context) -> Put:
    return await put(
        resource,
        participant_id=occasion.period.participant_id,
        patient_id=None if resource["resourceType"] in ("Organization", "Practitioner") else occasion.period.patient_id,
        received_id=None,
        at=occasion.at,
        context=context,
    )


async def _addressed(update: CareUpdate, context: Context) -> Changeset:
    """An event for each subscriber that wants to hear of this patient, due now where the subscription is active."""
    subscribers = await of_participant(context, update.participant_id, CARE_UPDATE)
    addressees = [each for each in subscribers if wants(each.resource, update.patient_id)]
    if not addressees:
        subject = f"patient/{update.patient_id}"
        return await _told(context, update, subject=subject, text=_NOBODY, patient_id=update.patient_id)
    return _events(update, addressees) + await _silent(addressees, context)


def _events(update: CareUpdate, addressees: Sequence[Subscriber]) -> Changeset:
    counted = tuple(replace(each.status, events=each.status.events + 1) for each in addressees)
    deliveries = tuple(_delivery(update, each.subscription_id, each.events, update.composed_at) for each in counted)
    jobs = tuple(
        NewJob(participant_id=row.participant_id, kind=JobKind.DELIVER, key=row.id, due_at=row.created_at)
        for row, status in zip(deliveries, counted, strict=True)
        if status.status == "active"  # the others get theirs when their handshake succeeds
    )
    return Changeset(insert=deliveries, replace=counted, jobs=jobs)


def _delivery(update: CareUpdate, subscription_id: str, number: int, at: datetime) -> Delivery:
    return Delivery(
        participant_id=update.participant_id,
        id=sha256(f"Delivery {update.id} {subscription_id}".encode()).hexdigest()[:32],
        subscription_id=subscription_id,
        event_number=number,
        care_update_id=update.id,
        patient_id=update.patient_id,
        created_at=at,
    )


async def _silent(addressees: Sequence[Subscriber], context: Context) -> Changeset:
    """A person is told of each addressee that is in error, unless that is known already."""
    found = Changeset()
    for each in addressees:
        if each.status.status == "error":
            subject = f"subscription_status/{each.status.subscription_id}"
            found += await _told(context, each.status, subject=subject, text=_UNREACHED)
    return found


async def _told(
    context: Context, about: Record, *, subject: str, text: str, patient_id: str | None = None
) -> Changeset:
    items = await work_item(
        context,
        participant_id=about.participant_id,
        kind="delivery",
        subject=subject,
        text=text,
        patient_id=patient_id,
    )
    return Changeset(insert=items)
