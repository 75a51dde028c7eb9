"""What the rounds begin with: aligned patients with all the values that a CKM baseline needs, and a subscriber."""

import re
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from profiles import fhir_json
from profiles.canonical import LOINC, MBI, UCUM
from server import schedule
from server.context import Context
from server.demo import messages
from server.domain.job import JobKind, NewJob
from server.domain.resource import PatientIdentity, StoredResource
from server.domain.submission import Operation, Submission
from server.intake.resources import put
from server.intake.subscription import prepare
from server.schedule.lifecycle import identity
from server.store.base import Changeset

ENTITY = "ACCES12345"
DAYS_AGO = 5
VALUES = {
    "29463-7": ("81.4", "kg"),
    "39156-5": ("28.1", "kg/m2"),
    "8280-0": ("99.5", "cm"),
    "4548-4": ("6.9", "%"),
    "98979-8": ("61", "mL/min/{1.73_m2}"),
    "14959-1": ("22", "mg/g"),
    "18262-6": ("92", "mg/dL"),
}
Resource = dict[str, Any]


def store_named(url: str, name: str) -> str:
    """Another store beside that of a URL: a file in the same folder, or a database of the same server."""
    return re.sub(r"[\w-]+(?=(\.db)?(\?|$))", name, url, count=1)


def mbi(number: int) -> str:
    """An MBI of the right format that is nobody's."""
    letters = "ACDEFGHJKM"
    digits = f"{number:06}"
    return (
        f"9{letters[int(digits[0])]}{letters[int(digits[1])]}{digits[2]}"
        f"{letters[int(digits[3])]}{letters[int(digits[4])]}{digits[5]}QT{number % 7}{number % 9}"
    )


def beneficiary(number: int) -> Resource:
    """The patient as CMS knows it: aligned to us for some days."""
    aligned = {"entity_id": ENTITY, "track": "CKM", "days_ago": DAYS_AGO}
    return {
        "mbi": mbi(number),
        "family": "Delgado",
        "given": "Rosa",
        "birthDate": "1952-03-14",
        "gender": "female",
        "diagnoses": ["E11.22", "I10"],
        "control_group": False,
        "alignments": [aligned],
    }


def patient_id(number: int) -> str:
    """Ours."""
    return f"patient-{number}"


def period_id(number: int) -> str:
    """Ours."""
    return identity("care-period", ENTITY, f"align-{number}")


async def add_patient(number: int, context: Context) -> None:
    """A patient with values, a care period and its reports; nothing is due yet."""
    now = context.clock.now()
    patient = messages.patient() | {"id": patient_id(number)}
    patient["identifier"] = [{**patient["identifier"][0], "value": mbi(number)}]
    rows = [_stored(resource, number, context) for resource in (patient, *_observations(number, context))]
    known = PatientIdentity(participant_id=ENTITY, identifier=f"{MBI}|{mbi(number)}", patient_id=patient_id(number))
    aligned = Submission(
        participant_id=ENTITY,
        id=f"align-{number}",
        operation=Operation.ALIGN,
        patient_id=patient_id(number),
        track="CKM",
        agent="ehr-1",
        created_at=now,
        request_sha256="",
        request=b"{}",
    )
    begun = await schedule.start_period(
        aligned,
        context,
        patient_id=patient_id(number),
        track="CKM",
        aligned_on=_day(context) - timedelta(days=DAYS_AGO),
        cms_submission_id=None,
    )
    await context.store.commit(Changeset(insert=(*rows, known, *begun.insert)))


def _day(context: Context) -> date:
    return context.clock.now().astimezone(messages.ZONE).date()


def _stored(resource: Resource, number: int, context: Context) -> StoredResource:
    return StoredResource(
        participant_id=ENTITY,
        resource_type=resource["resourceType"],
        id=resource["id"],
        last_updated=context.clock.now(),
        patient_id=patient_id(number),
        body=fhir_json.dump(resource),
    )


def _observations(number: int, context: Context) -> list[Resource]:
    at = context.clock.now() - timedelta(hours=1)
    found = [
        _observation(f"{number}-{code}", code, {"valueQuantity": _quantity(value, unit)}, at.isoformat())
        for code, (value, unit) in VALUES.items()
    ]
    for reading in range(3):
        parts = [
            {"code": _coded(code), "valueQuantity": _quantity(value, "mm[Hg]")}
            for code, value in (("8480-6", "128"), ("8462-4", "78"))
        ]
        taken = (at - timedelta(days=reading)).isoformat()
        found.append(_observation(f"{number}-bp-{reading}", "85354-9", {"component": parts}, taken))
    return [{**one, "subject": {"reference": f"Patient/{patient_id(number)}"}} for one in found]


def _observation(logical_id: str, code: str, value: Resource, at: str) -> Resource:
    return {
        "resourceType": "Observation",
        "id": logical_id,
        "status": "final",
        "code": _coded(code),
        "effectiveDateTime": at,
        **value,
    }


def _coded(code: str) -> Resource:
    return {"coding": [{"system": LOINC, "code": code}]}


def _quantity(value: str, unit: str) -> Resource:
    return {"value": Decimal(value), "unit": unit, "system": UCUM, "code": unit}


async def add_subscriber(url: str, context: Context) -> None:
    """Has the PCP's receiver subscribed, as the REST door does it."""
    asked = messages.subscription(context.settings.base_url, url)
    resource = fhir_json.parse(asked) if isinstance(asked, bytes) else asked
    shown, rows = await prepare(resource, "pcp-1", ENTITY, "pcp-subscription", context)
    stored = await put(
        shown | {"id": "pcp-subscription"},
        participant_id=ENTITY,
        patient_id=None,
        received_id=None,
        at=context.clock.now(),
        context=context,
    )
    await context.store.commit(stored.changes + rows)


def due(number: int, context: Context) -> Changeset:
    """Has the patient's care period looked at: that is what begins a round."""
    now = context.clock.now()
    return Changeset(jobs=(NewJob(participant_id=ENTITY, kind=JobKind.ASSESS, key=period_id(number), due_at=now),))
