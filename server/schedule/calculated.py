"""A body mass index that nobody sent: made of height and weight where a report takes one, stored with its Provenance.

It is an Observation like any other afterwards: it follows its sources when they are corrected, and is withdrawn with
them. A BMI that was received is never replaced, and goes before ours of the same day.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import date

from mappers.fhir.derived import Derived, derived_bmi, derived_id
from mappers.fhir.measures import normalise
from profiles import fhir_json
from server.context import Context
from server.domain.measures import Reading, Resource, load_evidence, reading
from server.domain.resource import StoredResource
from server.intake.resources import Put, instant, put
from server.schedule.gather import Gathered
from server.schedule.lifecycle import Calendar, audited, pending
from server.store.base import Changeset

MEASURE = "BMI"
SOURCE = "weight"

Pair = tuple[str, str]  # ids of a height and a weight


async def with_bmi(gathered: Gathered, calendar: Calendar, context: Context) -> tuple[Gathered, Changeset]:
    """What was gathered, with our BMI as its sources have it now, and the rows that this writes.

    A new one is made only while an open report of the period takes a BMI; one that is stored always follows its
    sources.
    """
    ours = dict(_stored(gathered))
    newest = _newest(gathered, calendar, ours=ours)
    if newest is not None:
        ours[derived_id(*newest)] = newest
    changes, rows = Changeset(), dict(gathered.rows)
    for logical_id, pair in ours.items():
        for one in await _puts(logical_id, pair, gathered=gathered, calendar=calendar, context=context):
            changes += one.changes + _noted(one, calendar)
            rows[one.reference] = replace(one.stored, revision=one.version)
    return _joined(gathered, calendar, rows=rows, ours=ours), changes


def _stored(gathered: Gathered) -> Iterator[tuple[str, Pair]]:
    """Each stored BMI of ours, by id, with the ids of its height and weight. None of them came through a door."""
    for one in gathered.readings:
        row = gathered.rows[one.name]
        if one.measure == MEASURE and row.received_id is None:
            sources = [each.get("reference", "") for each in fhir_json.parse(row.body).get("derivedFrom", ())]
            named = [each.partition("/")[2] for each in sources]
            if len(named) == 2 and derived_id(named[0], named[1]) == row.id:
                yield row.id, (named[0], named[1])


def _newest(gathered: Gathered, calendar: Calendar, *, ours: Collection[str]) -> Pair | None:
    """The newest height and weight that make a BMI, if an open report takes one and none was received since."""
    taken = (calendar.rules.requirement(one.track, one.report_type).measures for one in pending(calendar.reports))
    if not gathered.heights or not any(MEASURE in measures for measures in taken):
        return None
    last = max(_received(gathered, ours), default=date.min)
    weights = [one for one in gathered.readings if one.measure == SOURCE and one.is_reportable and one.day > last]
    for weight in sorted(weights, key=lambda one: (one.effective, one.reference), reverse=True):
        body = fhir_json.parse(gathered.rows[weight.name].body)
        for height in gathered.heights:
            if _derived(height, body, calendar).observation is not None:
                return height["id"], body["id"]
    return None


def _received(gathered: Gathered, ours: Collection[str]) -> set[date]:
    """The days for which somebody sent a BMI."""
    found = (one for one in gathered.readings if one.measure == MEASURE and one.is_reportable)
    return {one.day for one in found if one.name.partition("/")[2] not in ours}


def _derived(height: Resource, weight: Resource, calendar: Calendar) -> Derived:
    """The calculation. Both are in one patient's compartment, whatever way each names the patient."""
    subject = {"subject": {"reference": f"Patient/{calendar.period.patient_id}"}}
    return derived_bmi(height | subject, weight | subject, recorded=instant(calendar.now))


async def _puts(
    logical_id: str, pair: Pair, *, gathered: Gathered, calendar: Calendar, context: Context
) -> tuple[Put, ...]:
    """The BMI and, if that is new, the Provenance; one whose sources are none any more is withdrawn."""
    height, weight = (_body(gathered.rows.get(f"Observation/{one}")) for one in pair)
    made = _derived(height, weight, calendar) if height and weight else Derived(None, None, ())
    observation = made.observation or _withdrawn(gathered.rows[f"Observation/{logical_id}"])
    done = await _put(observation, calendar, context)
    if done.change == "unchanged" or made.provenance is None:
        return (done,)
    return done, await _put(made.provenance, calendar, context)


def _noted(done: Put, calendar: Calendar) -> Changeset:
    if done.change == "unchanged":
        return Changeset()
    return Changeset(audit=(audited(calendar, "calculated", entity=done.reference),))


def _body(row: StoredResource | None) -> Resource | None:
    return None if row is None or row.deleted else fhir_json.parse(row.body)


def _withdrawn(row: StoredResource) -> Resource:
    return fhir_json.parse(row.body) | {"status": "entered-in-error"}


async def _put(resource: Resource, calendar: Calendar, context: Context) -> Put:
    return await put(
        resource,
        participant_id=calendar.period.participant_id,
        patient_id=calendar.period.patient_id,
        received_id=None,
        at=calendar.now,
        context=context,
    )


def _joined(
    gathered: Gathered, calendar: Calendar, *, rows: dict[str, StoredResource], ours: Collection[str]
) -> Gathered:
    """The readings with ours as they are now; ours of a day for which one was sent only where a report has it."""
    reported = {used.reference for one in calendar.reports for used in load_evidence(one.evidence).get(MEASURE, ())}
    kept = {reference.rpartition("/")[0] for reference in reported}
    sent = _received(gathered, ours)
    names = {f"Observation/{one}" for one in ours}
    current = (_reading(rows[name], calendar) for name in names)
    own = [one for one in current if one is not None and (one.day not in sent or one.name in kept)]
    others = [one for one in gathered.readings if one.name not in names]
    return replace(gathered, readings=(*others, *own), rows=rows)


def _reading(row: StoredResource, calendar: Calendar) -> Reading | None:
    normalised, _ = normalise(fhir_json.parse(row.body))
    if normalised is None:
        return None
    reference = f"Observation/{row.id}/{row.revision}"
    return reading(MEASURE, normalised, reference=reference, zone=calendar.zone)
