"""The four operations on all four tracks, through a whole installation, with CMS's stand-in as strict as CMS."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from profiles import fhir_json
from profiles.canonical import ACCESS, ICD10CM, LOINC, MBI, TRACK_CONDITION, UCUM, UNALIGNMENT_REASON, US_CORE_PINNED
from server.demo import messages
from server.domain.alignment import Alignment, AlignmentState
from server.domain.care_period import CarePeriod, Report, ReportState
from server.domain.coordination import WorkItem
from server.domain.submission import Operation, Submission
from server.store.base import Where

TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"


@dataclass(frozen=True)
class Person:
    """One of CMS's synthetic people, who is eligible on the track."""

    track: str
    mbi: str
    family: str
    given: str
    born: str
    gender: str
    diagnosis: str

    @property
    def patient(self) -> dict[str, Any]:
        return messages.patient() | {
            "identifier": [
                {
                    "type": {"coding": [{"system": TERMINOLOGY + "v2-0203", "code": "MC"}]},
                    "system": MBI,
                    "value": self.mbi,
                }
            ],
            "name": [{"family": self.family, "given": [self.given]}],
            "gender": self.gender,
            "birthDate": self.born,
        }


PEOPLE = (
    Person("eCKM", "3HK7MN8PQ11", "Fairchild", "Edith", "1946-03-03", "female", "I10"),
    Person("CKM", "1EG4TE5MK72", "Delgado", "Rosa", "1952-03-14", "female", "E11.22"),
    Person("MSK", "3HK7MN8PQ13", "Iverson", "Marta", "1957-07-07", "female", "M17.11"),
    Person("BH", "3HK7MN8PQ15", "Kowalczyk", "Irena", "1958-09-23", "female", "F33.1"),
)
EVERYONE = pytest.mark.parametrize("person", PEOPLE, ids=lambda person: person.track)


def request(name: str, person: Person, **more: Any) -> bytes:
    """A request of the EHR about that person."""
    content = fhir_json.parse(messages.operation("align" if name == "align" else "check-eligibility", person.track))
    content["meta"]["profile"] = [ACCESS(f"access-{name}-in")]
    for parameter in content["parameter"]:
        if parameter["name"] == "patient":
            parameter["resource"] = person.patient
        if parameter["name"] == "condition":
            parameter["resource"]["meta"]["profile"] = [TRACK_CONDITION[person.track]]
            parameter["resource"]["code"]["coding"] = [{"system": ICD10CM, "code": person.diagnosis}]
    content["parameter"] += [{"name": key, "valueCodeableConcept": value} for key, value in more.items()]
    return fhir_json.dump(content)


def values(person: Person, at: datetime) -> bytes:
    """What the EHR posts of one visit: everything that the track's baseline needs."""
    when = at - timedelta(hours=2)
    made = _vitals(when) if person.track in ("eCKM", "CKM") else _answers(person.track, when.isoformat())
    subject = {"identifier": {"system": MBI, "value": person.mbi}}
    entries = [
        {
            "resource": one | {"subject": subject},
            "request": {"method": "POST", "url": one["resourceType"]},
        }
        for one in made
    ]
    return fhir_json.dump({"resourceType": "Bundle", "type": "transaction", "entry": entries})


def _vitals(when: datetime) -> list[dict[str, Any]]:
    simple = {
        "29463-7": ("vital-signs", "us-core-body-weight", 88, "kg"),
        "39156-5": ("vital-signs", "us-core-bmi", 31, "kg/m2"),
        "8280-0": ("vital-signs", "us-core-observation-clinical-result", 101, "cm"),
        "4548-4": ("laboratory", "us-core-observation-lab", Decimal("7.2"), "%"),
        "98979-8": ("laboratory", "us-core-observation-lab", 61, "mL/min/{1.73_m2}"),
        "14959-1": ("laboratory", "us-core-observation-lab", 40, "mg/g"),
        "18262-6": ("laboratory", "us-core-observation-lab", 112, "mg/dL"),
    }
    made = [
        _observation(code, category, profile, when.isoformat()) | {"valueQuantity": _quantity(value, unit)}
        for code, (category, profile, value, unit) in simple.items()
    ]
    for number in range(3):
        parts = [
            {"code": {"coding": [{"system": LOINC, "code": code}]}, "valueQuantity": _quantity(value, "mm[Hg]")}
            for code, value in (("8480-6", 140 + number), ("8462-4", 85))
        ]
        at = (when - timedelta(minutes=number)).isoformat()
        made.append(
            _observation("85354-9", "vital-signs", "us-core-blood-pressure", at)
            | {"component": parts, "device": {"display": "Upper-arm cuff"}}
        )
    return made


def _observation(code: str, category: str, profile: str, when: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "meta": {"profile": [US_CORE_PINNED(profile)]},
        "status": "final",
        "category": [{"coding": [{"system": TERMINOLOGY + "observation-category", "code": category}]}],
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "effectiveDateTime": when,
    }


def _quantity(value: Any, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}


def _answers(track: str, when: str) -> list[dict[str, Any]]:
    """The instruments of a baseline, in the linkIds of the guide's examples, with scores."""
    coded = lambda link, points: {"linkId": link, "answer": [_coded(points)]}  # noqa: E731
    score = lambda link, value: {"linkId": link, "answer": [{"valueDecimal": Decimal(value)}]}  # noqa: E731
    forms = {
        "MSK": {
            "koosjr": [*(coded(f"koosjr-{n}", 2) for n in range(1, 8)), score("total-interval-score", "54.840")],
            "nrs": [{"linkId": "nrs-1", "answer": [{"valueInteger": 6}]}],
        },
        "BH": {
            "phq9": [
                *(coded(f"phq9-{n}", 1) for n in range(1, 10)),
                coded("phq9-10", 1),
                score("total-score", "9"),
            ],
            "gad7": [*(coded(f"gad7-{n}", 1) for n in range(1, 8)), score("total-score", "7")],
            "pgic": [coded("pgic-1", 3)],
        },
    }
    return [
        {
            "resourceType": "QuestionnaireResponse",
            "meta": {"profile": [US_CORE_PINNED("us-core-questionnaireresponse")]},
            "questionnaire": f"https://ehr.example/Questionnaire/{name}",
            "status": "completed",
            "authored": when,
            "item": items,
        }
        for name, items in forms[track].items()
    ]


def _coded(points: int) -> dict[str, Any]:
    ordinal = {"url": "http://hl7.org/fhir/StructureDefinition/ordinalValue", "valueDecimal": Decimal(points)}
    return {"valueCoding": {"extension": [ordinal], "display": f"Answer {points}"}}


async def done(installation: Any, name: str, person: Person, **more: Any) -> str | None:
    """Sends a request and gives CMS's result code."""
    answer = await installation.operation(name, request(name, person, **more))
    assert answer.status_code == 202, answer.text
    return (await installation.result(answer.headers["Content-Location"].rpartition("/")[2])).result_code


async def reported(installation: Any) -> Submission:
    """The report that the facade built and sent by itself, answered."""
    for _ in range(3):
        await installation.work(until=timedelta(seconds=30))
        conditions = (Where("operation", "==", Operation.REPORT_DATA),)
        found = await installation.context.store.find(Submission, *conditions)
        if found:
            return await installation.result(found[0].id)
    reports = await installation.context.store.find(Report)
    items = [item.text for item in await installation.context.store.find(WorkItem)]
    raise AssertionError([(one.state, one.missing) for one in reports], items)


@EVERYONE
async def test_a_year_begins_and_ends(installation, person):
    """Eligible, aligned, the baseline built of stored values and taken, unaligned: on every track."""
    assert await done(installation, "check-eligibility", person) == "eligible"
    assert await done(installation, "align", person) == "aligned"
    answer = await installation.call("ehr-1", "POST", "/fhir", values(person, installation.clock.at))
    assert answer.status_code == 200, answer.text
    submission = await reported(installation)
    assert submission.result_code == "success", submission.result
    (baseline,) = await installation.context.store.find(Report, Where("report_type", "==", "baseline"))
    assert baseline.state is ReportState.ACCEPTED
    reason = {"coding": [{"system": UNALIGNMENT_REASON, "code": "geographic-relocated"}]}
    assert await done(installation, "unalign", person, reason=reason) == "unaligned"
    (row,) = await installation.context.store.find(Alignment)
    (period,) = await installation.context.store.find(CarePeriod)
    assert row.state is AlignmentState.UNALIGNED
    assert row.cms_submission_id == period.cms_submission_id


@EVERYONE
async def test_a_refused_unalignment_leaves_the_patient_aligned(installation, person):
    """CMS's lock-in answer changes nothing here: reports stay due (a known client loses the patient there)."""
    await done(installation, "align", person)
    reason = {"coding": [{"system": UNALIGNMENT_REASON, "code": "patient-initiated"}]}
    body = request("unalign", person, reason=reason)
    assert (await installation.operation("unalign", body)).status_code == 422
    (row,) = await installation.context.store.find(Alignment)
    assert row.state is AlignmentState.ALIGNED
    assert row.lock_in_until is not None


async def test_a_repeated_alignment_changes_nothing(installation):
    """CMS answers already-aligned; the record, the care period and the way to unalign stay."""
    person = PEOPLE[1]
    await done(installation, "align", person)
    again = request("align", person).replace(b'"valueBoolean":true', b'"valueBoolean":false')
    answer = await installation.operation("align", again)
    row = await installation.result(answer.headers["Content-Location"].rpartition("/")[2])
    assert row.result_code == "not-aligned-already-aligned"
    (alignment,) = await installation.context.store.find(Alignment)
    assert (alignment.state, alignment.last_code) == (AlignmentState.ALIGNED, "not-aligned-already-aligned")
    assert len(await installation.context.store.find(CarePeriod)) == 1


async def test_from_eckm_to_ckm_by_way_of_unaligning(installation):
    """Refused while eCKM stands; after unaligning with the new diagnosis it goes through (IG 0.9.12, tracks)."""
    first = PEOPLE[0]
    await done(installation, "align", first)
    moved = Person("CKM", first.mbi, first.family, first.given, first.born, first.gender, "E11.22")
    assert (await installation.operation("align", request("align", moved))).status_code == 409
    reason = {"coding": [{"system": UNALIGNMENT_REASON, "code": "geographic-relocated"}]}
    assert await done(installation, "unalign", first, reason=reason) == "unaligned"
    assert await done(installation, "align", moved) == "aligned"


CONTROL = Person("CKM", "2AC4DE5FG65", "Castellano", "Vincent", "1955-09-09", "male", "E11.9")
ELSEWHERE = Person("CKM", "2AC4DE5FG67", "Petrov", "Anton", "1953-04-04", "male", "E11.9")
PENDING = Person("CKM", "2AC4DE5FG72", "Haddad", "Samir", "1952-02-29", "male", "E11.9")


async def test_the_control_group_lasts_twelve_months(installation):
    """Until the day before the same date of the next year; a second answer within it does not begin it again."""
    assert await done(installation, "check-eligibility", CONTROL) == "not-eligible-control-group"
    (row,) = await installation.context.store.find(Alignment)
    assert (row.state, str(row.control_until)) == (AlignmentState.CONTROL_GROUP, "2027-08-19")
    installation.clock.move(days=30)
    installation.tokens.clear()
    assert await done(installation, "align", CONTROL) == "not-aligned-control-group"
    (again,) = await installation.context.store.find(Alignment)
    assert again.control_until == row.control_until


async def test_a_switch_is_attested(installation):
    """Told by the eligibility answer, attested in the request, recorded on whose word."""
    assert await done(installation, "check-eligibility", ELSEWHERE) == "eligible-switch-participants"
    content = fhir_json.parse(request("align", ELSEWHERE))
    assert (await installation.operation("align", fhir_json.dump(content))).status_code == 400
    content["parameter"].append({"name": "switchConsentAttestation", "valueBoolean": True})
    answer = await installation.operation("align", fhir_json.dump(content))
    row = await installation.result(answer.headers["Content-Location"].rpartition("/")[2])
    assert row.result_code == "aligned-switch-approved"
    (alignment,) = await installation.context.store.find(Alignment)
    assert (alignment.state, alignment.attestation) == (AlignmentState.ALIGNED, "stated by ehr-1")


async def test_a_pending_unalignment_stays_pending(installation):
    """CMS reviews by hand: the care period goes on, the record says pending."""
    await done(installation, "align", PENDING)
    reason = {"coding": [{"system": UNALIGNMENT_REASON, "code": "geographic-relocated"}]}
    assert await done(installation, "unalign", PENDING, reason=reason) == "unalignment-pending"
    (alignment,) = await installation.context.store.find(Alignment)
    assert alignment.state is AlignmentState.UNALIGNMENT_PENDING
    assert alignment.is_held
