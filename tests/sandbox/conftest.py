"""A stand-in CMS in process with small code lists of its own, and requests that it takes."""

import base64
import copy
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sandbox.app import SandboxApp, create_app
from sandbox.settings import Settings

IG = "https://dsacms.github.io/cmmi-access-model"
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition"
ENTITY = "ACCES12345"
START = datetime.fromisoformat("2026-07-06T15:00:00-04:00")
Json = dict[str, Any]

LISTS = {
    "ACCESSCKMDiagnosisVS": ["E11.9", "E11.22", "N18.31", "I25.10"],
    "ACCESSeCKMDiagnosisVS": ["I10", "R73.03"],
    "ACCESSMSKDiagnosisVS": ["M54.50", "M17.11"],
    "ACCESSBHDiagnosisVS": ["F32.1", "F33.1", "F41.1"],
}


def coded(system: str, code: str) -> Json:
    """A CodeableConcept of one of the guide's code systems."""
    return {"coding": [{"system": f"{IG}/CodeSystem/{system}", "code": code}]}


def loinc(code: str) -> Json:
    """A CodeableConcept of LOINC."""
    return {"coding": [{"system": "http://loinc.org", "code": code}]}


TEXT = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'}


class Made:
    """Requests as CMS takes them, about John Doe unless said otherwise."""

    def patient(
        self, mbi: str = "1EG4TE5MK73", family: str = "Doe", given: str = "John", birth: str = "1950-01-01"
    ) -> Json:
        return {
            "resourceType": "Patient",
            "id": "p",
            "meta": {"profile": [f"{US_CORE}/us-core-patient|6.1.0"]},
            "text": TEXT,
            "identifier": [{"system": "http://terminology.hl7.org/NamingSystem/cmsMBI", "value": mbi}],
            "name": [{"family": family, "given": [given]}],
            "gender": "male",
            "birthDate": birth,
        }

    def person(self, app: SandboxApp, mbi: str) -> Json:
        """The patient as CMS's record has it."""
        record = app.state.world.beneficiary(mbi)
        return self.patient(mbi, record["family"], record["given"], record["birthDate"])

    def condition(self, code: str, profile: str) -> Json:
        return {
            "resourceType": "Condition",
            "meta": {"profile": [f"{IG}/StructureDefinition/{profile}"]},
            "category": [
                {
                    "coding": [
                        {
                            "system": "http://terminology.hl7.org/CodeSystem/condition-category",
                            "code": "problem-list-item",
                        }
                    ]
                }
            ],
            "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": code}]},
            "subject": {"reference": "Patient/p"},
        }

    def _parameters(self, profile: str, track: str, *more: Json, entity: str = ENTITY) -> Json:
        return {
            "resourceType": "Parameters",
            "meta": {"profile": [f"{IG}/StructureDefinition/{profile}"]},
            "parameter": [
                {"name": "participantID", "valueIdentifier": {"system": f"{IG}/participant-id", "value": entity}},
                {"name": "payerID", "valueIdentifier": {"value": "00831"}},
                {"name": "track", "valueCodeableConcept": coded("ACCESSTrackCS", track)},
                *more,
            ],
        }

    def _conditions(self, diagnoses: tuple[str, ...], profile: str) -> list[Json]:
        return [{"name": "condition", "resource": self.condition(code, profile)} for code in diagnoses]

    def check_eligibility(
        self, *diagnoses: str, track: str = "CKM", patient: Json | None = None, entity: str = ENTITY
    ) -> Json:
        return self._parameters(
            "access-check-eligibility-in",
            track,
            {"name": "patient", "resource": patient or self.patient()},
            *self._conditions(diagnoses, "access-condition"),
            entity=entity,
        )

    def align(
        self,
        *diagnoses: str,
        track: str = "CKM",
        patient: Json | None = None,
        attested: bool | None = None,
        entity: str = ENTITY,
    ) -> Json:
        body = self._parameters(
            "access-align-in",
            track,
            {"name": "patient", "resource": patient or self.patient()},
            *self._conditions(diagnoses or ("E11.9",), f"access-{track.lower()}-condition"),
            {"name": "isProviderReferral", "valueBoolean": False},
            entity=entity,
        )
        if attested is not None:
            body["parameter"].append({"name": "switchConsentAttestation", "valueBoolean": attested})
        return body

    def unalign(
        self,
        reason: str = "geographic-relocated",
        *diagnoses: str,
        track: str = "CKM",
        patient: Json | None = None,
        entity: str = ENTITY,
    ) -> Json:
        return self._parameters(
            "access-unalign-in",
            track,
            {"name": "patient", "resource": patient or self.patient()},
            {"name": "reason", "valueCodeableConcept": coded("ACCESSUnalignmentReasonCS", reason)},
            *self._conditions(diagnoses, "access-clinical-exclusion-condition"),
            entity=entity,
        )

    def observation(self, code: str, unit: str, value: float, profile: str) -> Json:
        return {
            "resourceType": "Observation",
            "meta": {"profile": [f"{US_CORE}/{profile}|6.1.0"]},
            "text": TEXT,
            "status": "final",
            "category": [{"text": "measured"}],
            "code": loinc(code),
            "subject": {"reference": "Patient/p"},
            "effectiveDateTime": "2026-07-06T10:00:00Z",
            "valueQuantity": {"value": value, "system": "http://unitsofmeasure.org", "code": unit},
        }

    def pressure(self) -> Json:
        reading = self.observation("85354-9", "", 0, "us-core-blood-pressure")
        del reading["valueQuantity"]
        quantity = {"value": 128, "system": "http://unitsofmeasure.org", "code": "mm[Hg]"}
        reading["component"] = [{"code": loinc(c), "valueQuantity": quantity} for c in ("8480-6", "8462-4")]
        return reading

    def response(self, url: str) -> Json:
        return {
            "resourceType": "QuestionnaireResponse",
            "meta": {"profile": [f"{US_CORE}/us-core-questionnaireresponse|6.1.0"]},
            "text": TEXT,
            "questionnaire": url,
            "status": "completed",
            "authored": "2026-07-06",
            "item": [{"linkId": "total-score", "answer": [{"valueDecimal": 7}]}],
        }

    def measures(self) -> dict[str, Json]:
        result = "us-core-observation-clinical-result"
        return {
            "85354-9": self.pressure(),
            "18262-6": self.observation("18262-6", "mg/dL", 92, result),
            "29463-7": self.observation("29463-7", "kg", 81.4, "us-core-body-weight"),
            "4548-4": self.observation("4548-4", "%", 6.9, result),
            "98979-8": self.observation("98979-8", "mL/min/{1.73_m2}", 61, result),
            "14959-1": self.observation("14959-1", "mg/g", 22, result),
        }

    def report(
        self,
        report_type: str = "baseline",
        *,
        measures: dict[str, Json] | None = None,
        extra: tuple[Json, ...] = (),
        track: str = "CKM",
        patient: Json | None = None,
        entity: str = ENTITY,
        number: str = "1",
    ) -> Json:
        measures = self.measures() if measures is None else measures
        base = "http://report.example/"
        sections = [{"title": c, "code": loinc(c), "entry": [{"reference": f"Observation/{c}"}]} for c in measures]
        composition = {
            "resourceType": "Composition",
            "id": "c",
            "meta": {"profile": [f"{IG}/StructureDefinition/access-data-reporting-composition"]},
            "text": TEXT,
            "status": "final",
            "type": loinc("74465-6"),
            "subject": {"reference": "Patient/p"},
            "date": "2026-07-06",
            "author": [{"reference": "Practitioner/d"}],
            "title": "Report",
            "custodian": {"reference": "Organization/o"},
            "section": [{"title": track, "code": coded("ACCESSTrackCS", track), "text": TEXT}],
        }
        if sections:
            composition["section"][0]["section"] = sections  # type: ignore[index]
        practitioner = {
            "resourceType": "Practitioner",
            "id": "d",
            "meta": {"profile": [f"{US_CORE}/us-core-practitioner|6.1.0"]},
            "text": TEXT,
            "identifier": [{"system": "http://hl7.org/fhir/sid/us-npi", "value": "1234567893"}],
            "name": [{"family": "Lee"}],
        }
        organization = {
            "resourceType": "Organization",
            "id": "o",
            "meta": {"profile": [f"{US_CORE}/us-core-organization"]},
            "text": TEXT,
            "identifier": [{"system": f"{IG}/participant-id", "value": entity}],
            "active": True,
            "name": "Example Care",
        }
        given = {
            f"{base}Composition/c": composition,
            f"{base}Patient/p": patient or self.patient(),
            f"{base}Practitioner/d": practitioner,
            f"{base}Organization/o": organization,
            **{f"{base}Observation/{code}": resource for code, resource in measures.items()},
            **{f"{base}Questionnaire/{n}": resource for n, resource in enumerate(extra)},
        }
        bundle = {
            "resourceType": "Bundle",
            "meta": {"profile": [f"{IG}/StructureDefinition/access-data-reporting-bundle"]},
            "identifier": {"system": "http://report.example/id", "value": number},
            "type": "document",
            "timestamp": "2026-07-06T12:00:00Z",
            "entry": [{"fullUrl": url, "resource": resource} for url, resource in given.items()],
        }
        body = self._parameters(
            "access-report-data-in",
            track,
            {"name": "reportType", "valueCodeableConcept": coded("ACCESSReportTypeCS", report_type)},
            {"name": "dataBundle", "resource": bundle},
            entity=entity,
        )
        return copy.deepcopy(body)


class Cms:
    """One sandbox and a client at it."""

    def __init__(self, app: SandboxApp, client: httpx2.AsyncClient) -> None:
        self.app = app
        self.client = client
        self.world = app.state.world
        self.made = Made()
        self._token = ""

    async def token(self) -> str:
        basic = base64.b64encode(b"someone:secret").decode()
        answer = await self.client.post(
            "/oauth2/token", data={"grant_type": "client_credentials"}, headers={"Authorization": f"Basic {basic}"}
        )
        self._token = answer.json()["access_token"]
        return self._token

    async def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token or await self.token()}", "Content-Type": "application/json"}

    async def post(self, call: str, body: Json | bytes, *, entity: str | None = ENTITY) -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        query = {"entityId": entity} if entity else {}
        url = f"/fhir/access/Patient/${call}"
        return await self.client.post(url, content=content, params=query, headers=await self.headers())

    async def poll(self, location: str) -> httpx2.Response:
        return await self.client.get(location, headers=await self.headers())

    async def result(self, call: str, body: Json, *, entity: str = ENTITY) -> str:
        """Submits, polls, and gives the result code."""
        return str(
            (await self.answer(call, body, entity=entity))["result"]["valueCodeableConcept"]["coding"][0]["code"]
        )

    async def answer(self, call: str, body: Json, *, entity: str = ENTITY) -> dict[str, Json]:
        """Submits, polls, and gives the answer's parameters by name."""
        taken = await self.post(call, body, entity=entity)
        assert taken.status_code == 202, taken.text
        done = await self.poll(taken.headers["content-location"])
        assert done.status_code == 200, done.text
        return {parameter["name"]: parameter for parameter in done.json()["parameter"]}

    async def day(self, number: int) -> None:
        """Sets the clock to that many days after the start; the old token is void by then."""
        moment = START + timedelta(days=number)
        answer = await self.client.post("/sandbox/clock", json={"now": moment.isoformat()})
        assert answer.status_code == 200
        self._token = ""

    async def aligned(self, **options: Any) -> str:
        """Day 0: John Doe is aligned; the submission id."""
        await self.day(0)
        taken = await self.post("align", self.made.align(**options))
        done = await self.poll(taken.headers["content-location"])
        assert done.json()["parameter"][0]["valueCodeableConcept"]["coding"][0]["code"] == "aligned"
        return str(taken.headers["content-location"].rsplit("/", 1)[1])

    async def get(self, path: str) -> Any:
        return (await self.client.get(path)).json()


@pytest.fixture
def made() -> Made:
    """Builds requests."""
    return Made()


@pytest.fixture(scope="session")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Code lists of these tests' own."""
    folder = tmp_path_factory.mktemp("definitions")
    for name, codes in LISTS.items():
        concepts = [{"code": code} for code in codes]
        compose = {"include": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "concept": concepts}]}
        value_set = {"resourceType": "ValueSet", "url": f"{IG}/ValueSet/{name}", "compose": compose}
        (folder / f"{name}.json").write_text(json.dumps(value_set))
    excluded = {"include": [{"filter": [{"property": "concept", "op": "is-a", "value": "G30"}]}]}
    value_set = {
        "resourceType": "ValueSet",
        "url": f"{IG}/ValueSet/ACCESSCKMClinicalExclusionDiagnosisVS",
        "compose": excluded,
    }
    system = {
        "resourceType": "CodeSystem",
        "url": f"{IG}/CodeSystem/ACCESSAlignmentResultCS",
        "concept": [{"code": "aligned", "display": "Aligned"}],
    }
    (folder / "bundle.json").write_text(
        json.dumps({"resourceType": "Bundle", "entry": [{"resource": value_set}, {"resource": system}]})
    )
    return folder


@pytest.fixture
def open_cms(definitions: Path) -> Iterator[Callable[..., Cms]]:
    """Makes a sandbox with the settings given; several may share one data file."""
    opened: list[Cms] = []

    def make(**settings: Any) -> Cms:
        app = create_app(Settings(**{"latency": 0.0, "definitions": definitions, **settings}))
        transport = httpx2.ASGITransport(app=app)
        opened.append(Cms(app, httpx2.AsyncClient(transport=transport, base_url="http://cms.test")))
        return opened[-1]

    yield make
    for cms in opened:
        cms.world.store.close()


@pytest.fixture
def cms(open_cms: Callable[..., Cms]) -> Cms:
    """A sandbox in memory that decides at once."""
    return open_cms()
