"""The messages of the demo, as the real senders write them. One invented patient; times follow the simulated clock."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any
from zoneinfo import ZoneInfo

from profiles import fhir_json
from profiles.canonical import ACCESS, ACCESS_CODES, ACCESS_IG, ICD10CM, LOINC, MBI, UCUM, US_CORE_PINNED

ZONE = ZoneInfo("America/New_York")
PATIENT_MBI = "1EG4TE5MK72"
PAYER_SYSTEM = "urn:oid:2.16.840.1.113883.3.221.5"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"


@dataclass(frozen=True, slots=True)
class Visit:
    """The values of one visit: three home blood pressures, labs as printed, clinic measures (weight in lb)."""

    pressures: tuple[tuple[int, int], ...]
    cholesterol: int
    triglyceride: int
    hdl: int
    ldl: int
    a1c: str
    egfr: int
    uacr: int
    weight: str
    bmi: str
    waist: str


@cache
def _template(name: str) -> Template:
    return Template(files("server.demo").joinpath("data", name).read_text(encoding="utf-8"))


def hl7_time(at: datetime) -> str:
    """`YYYYMMDDHHMMSS-ZZZZ` in the lab's zone."""
    return at.astimezone(ZONE).strftime("%Y%m%d%H%M%S%z")


def labs(visit: Visit, at: datetime, control: str) -> bytes:
    """The lab's ORU^R01, drawn the morning before."""
    drawn = hl7_time(at - timedelta(hours=26))
    values = {
        name: getattr(visit, name) for name in ("cholesterol", "triglyceride", "hdl", "ldl", "a1c", "egfr", "uacr")
    }
    text = _template("labs.hl7").substitute(values, sent=hl7_time(at), drawn=drawn, control=control)
    return text.replace("\n", "\r").encode()


def clinic(visit: Visit, at: datetime, document: str) -> bytes:
    """The clinic's C-CDA Progress Note."""
    times = {"sent": hl7_time(at), "taken": hl7_time(at - timedelta(hours=1)), "document": document}
    text = _template("clinic.xml").substitute(times, weight=visit.weight, bmi=visit.bmi, waist=visit.waist)
    return text.encode()


def pressures(visit: Visit, at: datetime) -> bytes:
    """The device gateway's Bundle: one Observation a reading, a day apart, the patient named by the MBI."""
    taken = [at - timedelta(days=days, hours=2) for days in range(len(visit.pressures), 0, -1)]
    entries = [
        {"resource": _pressure(reading, when), "request": {"method": "POST", "url": "Observation"}}
        for reading, when in zip(visit.pressures, taken, strict=True)
    ]
    return fhir_json.dump({"resourceType": "Bundle", "type": "transaction", "entry": entries})


def _pressure(reading: tuple[int, int], when: datetime) -> dict[str, Any]:
    parts = zip((("8480-6", "Systolic blood pressure"), ("8462-4", "Diastolic blood pressure")), reading, strict=True)
    return {
        "resourceType": "Observation",
        "meta": {"profile": [US_CORE_PINNED("us-core-blood-pressure")]},
        "identifier": [{"system": "urn:example:gateway:reading", "value": when.strftime("bp-%Y%m%d%H%M")}],
        "status": "final",
        "category": [{"coding": [{"system": TERMINOLOGY + "observation-category", "code": "vital-signs"}]}],
        "code": {"coding": [{"system": LOINC, "code": "85354-9", "display": "Blood pressure panel"}]},
        "subject": {"identifier": {"system": MBI, "value": PATIENT_MBI}},
        "effectiveDateTime": when.astimezone(ZONE).isoformat(timespec="seconds"),
        "device": {"display": "Upper-arm cuff, home"},
        "component": [
            {
                "code": {"coding": [{"system": LOINC, "code": code, "display": display}]},
                "valueQuantity": {"value": value, "unit": "mmHg", "system": UCUM, "code": "mm[Hg]"},
            }
            for (code, display), value in parts
        ],
    }


def operation(name: str, track: str) -> bytes:
    """The EHR's `$check-eligibility` or `$align`, exactly as it would send it to CMS."""
    parameters: list[dict[str, Any]] = [
        {"name": "participantID", "valueIdentifier": {"system": f"{ACCESS_IG}/participant-id", "value": "ACCES12345"}},
        {"name": "payerID", "valueIdentifier": _payer()},
        {"name": "patient", "resource": patient()},
        {
            "name": "track",
            "valueCodeableConcept": {"coding": [{"system": ACCESS_CODES("ACCESSTrackCS"), "code": track}]},
        },
    ]
    if name == "align":
        parameters += [
            {
                "name": "condition",
                "resource": _condition("E11.22", "Type 2 diabetes with diabetic chronic kidney disease"),
            },
            {"name": "isProviderReferral", "valueBoolean": True},
        ]
    request = {
        "resourceType": "Parameters",
        "meta": {"profile": [ACCESS(f"access-{name}-in")]},
        "parameter": parameters,
    }
    return fhir_json.dump(request)


def _payer() -> dict[str, Any]:
    kind = {"system": "http://hl7.org/fhir/us/carin-bb/CodeSystem/C4BBIdentifierType", "code": "payerid"}
    return {"type": {"coding": [kind]}, "system": PAYER_SYSTEM, "value": "00831"}


def patient() -> dict[str, Any]:
    """The Patient as the EHR sends it."""
    return {
        "resourceType": "Patient",
        "id": "delgado-rosa",
        "meta": {"profile": [US_CORE_PINNED("us-core-patient")]},
        "text": _narrative("Rosa Delgado, female"),
        "identifier": [
            {
                "type": {"coding": [{"system": TERMINOLOGY + "v2-0203", "code": "MC"}]},
                "system": MBI,
                "value": PATIENT_MBI,
            }
        ],
        "name": [{"family": "Delgado", "given": ["Rosa"]}],
        "gender": "female",
        "birthDate": "1952-03-14",
    }


def _condition(code: str, display: str) -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "id": "qualifying",
        "meta": {"profile": [ACCESS("access-ckm-condition")]},
        "text": _narrative(display),
        "clinicalStatus": {"coding": [{"system": TERMINOLOGY + "condition-clinical", "code": "active"}]},
        "verificationStatus": {"coding": [{"system": TERMINOLOGY + "condition-ver-status", "code": "confirmed"}]},
        "category": [{"coding": [{"system": TERMINOLOGY + "condition-category", "code": "problem-list-item"}]}],
        "code": {"coding": [{"system": ICD10CM, "code": code, "display": display}]},
        "subject": {"reference": "Patient/delgado-rosa"},
        "onsetDateTime": "2019-05-02",
    }


def _narrative(text: str) -> dict[str, str]:
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{text}</div>'}


def subscription(facade: str, pcp: str) -> bytes:
    """The PCP's Subscription to care updates. Source: Subscriptions R5 Backport 1.1.0, R4 rest-hook."""
    content = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-payload-content"
    return fhir_json.dump(
        {
            "resourceType": "Subscription",
            "status": "requested",
            "reason": "Care updates for our patients in ACCESS",
            "criteria": f"{facade}/SubscriptionTopic/care-update",
            "channel": {
                "type": "rest-hook",
                "endpoint": f"{pcp}/care-updates",
                "payload": "application/fhir+json",
                "_payload": {"extension": [{"url": content, "valueCode": "full-resource"}]},
            },
        }
    )
