"""What comes through each door ends up as resources with its own times and units, or is refused, explained and kept."""

import asyncio
from decimal import Decimal

import pytest

from profiles import fhir_json
from server.domain.coordination import WorkItem
from server.domain.received import Received, ReceivedState
from server.domain.resource import PatientIdentity, StoredResource
from server.store.base import Where

MBI_SYSTEM = "http://terminology.hl7.org/NamingSystem/cmsMBI"
ER7 = "x-application/hl7-v2+er7"
CDA = "application/cda+xml"


async def _rows(installation, kind: str) -> list[dict]:
    rows = await installation.context.store.find(StoredResource, Where("resource_type", "==", kind))
    return [fhir_json.parse(row.body) for row in rows]


async def _hl7v2(installation, message: bytes, client: str = "hie-1"):
    return await installation.call(client, "POST", "/hl7v2", message, Content_Type=ER7)


async def test_lab_results_keep_their_values_units_and_times(installation, labs):
    """ORU^R01: seven Observations, the lab's own units, the time of the draw, Provenance to the bytes."""
    answer = await _hl7v2(installation, labs)
    assert (answer.status_code, b"MSA|AA" in answer.content) == (200, True)
    found = {o["code"]["coding"][0]["code"]: o for o in await _rows(installation, "Observation")}
    assert found["4548-4"]["valueQuantity"]["value"] == Decimal("8.1")
    assert found["14959-1"]["valueQuantity"]["code"] == "mg/g"
    assert found["13457-7"]["effectiveDateTime"] == "2026-08-19T19:30:00-04:00"
    (provenance,) = await _rows(installation, "Provenance")
    (received,) = await installation.context.store.find(Received)
    assert received.sha256 in str(provenance["entity"])


async def test_device_readings_keep_their_values_and_times(installation, device):
    """A Bundle of three blood pressures: three Observations, as posted."""
    answer = await installation.call("hie-1", "POST", "/fhir", device)
    assert answer.status_code == 200, answer.text
    found = await _rows(installation, "Observation")
    pairs = {tuple(int(c["valueQuantity"]["value"]) for c in o["component"]) for o in found}
    assert pairs == {(148, 88), (144, 86), (146, 87)}


async def test_a_document_becomes_vital_signs(installation, clinic):
    """C-CDA: weight in the clinic's own pounds, BMI, waist."""
    answer = await installation.call("hie-1", "POST", "/cda", clinic, Content_Type=CDA)
    assert answer.status_code == 200, answer.text
    found = {
        o["code"]["coding"][0]["code"]: o["valueQuantity"]
        for o in await _rows(installation, "Observation")
        if "valueQuantity" in o
    }
    assert (found["29463-7"]["value"], found["29463-7"]["code"]) == (Decimal("198.4"), "[lb_av]")
    assert found["8280-0"]["value"] == Decimal("104.5")


async def test_all_doors_name_one_patient(installation, labs, device, clinic, eligibility):
    """The EHR, the lab, the gateway and the clinic mean the same person."""
    await installation.operation("check-eligibility", eligibility)
    await _hl7v2(installation, labs)
    await installation.call("hie-1", "POST", "/fhir", device)
    await installation.call("hie-1", "POST", "/cda", clinic, Content_Type=CDA)
    rows = await installation.context.store.find(PatientIdentity)
    assert len({row.patient_id for row in rows}) == 1
    assert len(await _rows(installation, "Patient")) == 1


async def test_the_same_message_twice_has_one_effect(installation, labs):
    """The stored ACK again, no second result."""
    first = await _hl7v2(installation, labs)
    count = len(await installation.context.store.find(StoredResource))
    again = await _hl7v2(installation, labs)
    assert first.content == again.content
    assert len(await installation.context.store.find(StoredResource)) == count
    assert len(await installation.context.store.find(Received)) == 1


async def test_two_deliveries_at_the_same_moment_have_one_effect(installation, labs):
    """Ten at once: one message, one set of resources, the same ACK."""
    answers = await asyncio.gather(*(_hl7v2(installation, labs) for _ in range(10)))
    assert {a.status_code for a in answers} == {200}
    assert len(await installation.context.store.find(Received)) == 1
    assert len(await _rows(installation, "Patient")) == 1


async def test_other_bytes_under_the_same_control_id_are_refused(installation, labs):
    """AE with 205 (duplicate key); the first message stands."""
    await _hl7v2(installation, labs)
    answer = await _hl7v2(installation, labs.replace(b"|8.1|", b"|6.1|"))
    assert b"MSA|AE" in answer.content
    values = [
        o["valueQuantity"]["value"]
        for o in await _rows(installation, "Observation")
        if o["code"]["coding"][0]["code"] == "4548-4"
    ]
    assert values == [Decimal("8.1")]


async def test_the_same_resource_twice_is_one(installation, eligibility):
    """A retry of a create after a lost answer gets the same Location."""
    await installation.operation("check-eligibility", eligibility)
    body = fhir_json.dump(
        {
            "resourceType": "Observation",
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
            "subject": {"identifier": {"system": MBI_SYSTEM, "value": "1EG4TE5MK72"}},
            "effectiveDateTime": "2026-08-20",
            "valueQuantity": {
                "value": Decimal("81.60"),
                "unit": "kg",
                "system": "http://unitsofmeasure.org",
                "code": "kg",
            },
        }
    )
    first = await installation.call("ehr-1", "POST", "/fhir/Observation", body)
    again = await installation.call("ehr-1", "POST", "/fhir/Observation", body)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.headers["Location"] == again.headers["Location"]
    assert b'"value":81.60' in first.content


TRUNCATED = "MSH|^~\\&|LAB|X|F|C|20260820||ORU^R01|T1|P|2.5.1\rPID|1||MRN"
DOCTYPE = '<!DOCTYPE x [<!ENTITY y "z">]><ClinicalDocument xmlns="urn:hl7-org:v3"/>'
NOT_DONE = '{"resourceType":"Observation","status":"done"}'
WRONG = [
    # client, path, body, content type, status, what the answer names
    ("hie-1", "/hl7v2", TRUNCATED, ER7, (400, 422), "PID"),
    ("hie-1", "/hl7v2", "no message at all", ER7, (400,), "MSH"),
    ("hie-1", "/cda", "<ClinicalDocument", CDA, (400,), "line"),
    ("hie-1", "/cda", DOCTYPE, CDA, (400,), "document type"),
    ("hie-1", "/cda", "<html/>", CDA, (400,), "ClinicalDocument"),
    ("hie-1", "/fhir", '{"resourceType":"Bundle","type":"transaction","entry":[', "application/json", (400,), "JSON"),
    ("hie-1", "/fhir", '{"resourceType":"Bundle","type":"searchset"}', "application/json", (400,), "Bundle.type"),
    ("ehr-1", "/fhir/Observation", NOT_DONE, "application/json", (422,), "Observation.status"),
    ("ehr-1", "/fhir/Observation", '{"resourceType":"Patient"}', "application/json", (400,), "resourceType"),
    (
        "ehr-1",
        "/fhir/Observation",
        '{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/nobody"}}',
        "application/json",
        (422,),
        "Observation.subject",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("client", "path", "body", "kind", "statuses", "place"), WRONG, ids=lambda v: str(v)[:24])
async def test_wrong_input_is_refused_explained_and_kept(installation, client, path, body, kind, statuses, place):
    """The right status, an OperationOutcome or NAK that names the place, and the bytes in quarantine."""
    answer = await installation.call(client, "POST", path, body.encode(), Content_Type=kind)
    assert answer.status_code in statuses, answer.text
    assert place in answer.text
    (kept,) = await installation.context.store.find(Received)
    assert (kept.state, kept.body) == (ReceivedState.QUARANTINED, body.encode())
    assert [item.kind for item in await installation.context.store.find(WorkItem)] == ["quarantine"]


async def test_a_result_for_a_patient_nobody_knows_is_refused(installation, labs):
    """A local number that nobody told us of, and no MBI: AR, unknown key identifier (204) in PID-3; it is kept."""
    message = labs.replace(b"~1EG4TE5MK72^^^CMS&2.16.840.1.113883.4.927&ISO^MC", b"")
    answer = await _hl7v2(installation, message)
    assert b"MSA|AR" in answer.content
    assert b"PID^1^3" in answer.content
    assert b"204^" in answer.content
    (kept,) = await installation.context.store.find(Received)
    assert kept.state is ReceivedState.QUARANTINED


async def test_a_refused_message_is_taken_in_once_its_patient_is_known(installation, labs, eligibility):
    """The sender's retry, after the EHR has registered the patient and her number, is accepted."""
    message = labs.replace(b"~1EG4TE5MK72^^^CMS&2.16.840.1.113883.4.927&ISO^MC", b"")
    await _hl7v2(installation, message)
    patient = {
        "resourceType": "Patient",
        "identifier": [
            {"system": MBI_SYSTEM, "value": "1EG4TE5MK72"},
            {"system": "urn:oid:2.16.840.1.113883.3.9999.10", "value": "MRN-20731"},
        ],
        "name": [{"family": "Delgado", "given": ["Rosa"]}],
        "gender": "female",
        "birthDate": "1952-03-14",
    }
    assert (await installation.call("ehr-1", "POST", "/fhir/Patient", patient)).status_code == 201
    assert b"MSA|AA" in (await _hl7v2(installation, message)).content
    assert [i for i in await installation.context.store.find(WorkItem) if i.closed_at is None] == []


async def test_another_person_under_a_known_number_is_refused(installation, labs, eligibility):
    """Another name and another birth date under the same MBI: it may be another person; nothing is merged."""
    await installation.operation("check-eligibility", eligibility)
    other = labs.replace(b"Delgado^Rosa", b"Whitaker^Anna").replace(b"19520314", b"19610101")
    assert b"MSA|AE" in (await _hl7v2(installation, other)).content
    assert await _rows(installation, "Observation") == []


async def test_no_token_is_401(installation, labs):
    """Every door but the public ones."""
    for path in ("/hl7v2", "/cda", "/fhir", "/fhir/Patient", "/fhir/access/Patient/$align"):
        answer = await installation.http.post(path, content=labs)
        assert (answer.status_code, answer.json()["resourceType"]) == (401, "OperationOutcome")


async def test_an_expired_token_is_401(installation, labs, monkeypatch):
    """Issue code expired, and the header says so."""
    await _hl7v2(installation, labs)
    import time

    later = time.time() + 400
    monkeypatch.setattr("time.time", lambda: later)
    answer = await installation.call("hie-1", "GET", "/fhir/Patient")
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (401, "expired")


async def test_a_reader_may_not_write(installation, labs):
    """A PCP's token reads; it does not create."""
    assert (await _hl7v2(installation, labs, "pcp-1")).status_code == 403


async def test_another_participants_patient_does_not_exist(installation, eligibility):
    """Read, search and reference: the same as for an id that was never given."""
    await installation.operation("check-eligibility", eligibility)
    (patient,) = await installation.context.store.find(StoredResource, Where("resource_type", "==", "Patient"))
    theirs = await installation.call("ehr-2", "GET", f"/fhir/Patient/{patient.id}")
    never = await installation.call("ehr-2", "GET", f"/fhir/Patient/{'0' * 32}")
    assert (theirs.status_code, theirs.content) == (404, never.content)
    search = await installation.call("ehr-2", "GET", f"/fhir/Patient?identifier={MBI_SYSTEM}|1EG4TE5MK72")
    assert fhir_json.parse(search.content)["total"] == 0
    body = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": f"Patient/{patient.id}"},
    }
    assert (await installation.call("ehr-2", "POST", "/fhir/Observation", body)).status_code == 422


async def test_too_long_a_body_is_413(installation):
    """With an OperationOutcome, before it is read whole."""
    answer = await installation.call("ehr-1", "POST", "/fhir/Observation", b" " * (10 * 1024 * 1024 + 1))
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (413, "too-long")


async def test_another_media_type_is_415(installation):
    """With an OperationOutcome."""
    answer = await installation.call("ehr-1", "POST", "/fhir/Observation", b"{}", Content_Type="text/csv")
    assert answer.status_code == 415


async def test_a_result_never_moves_to_another_patient(installation, eligibility):
    """An update that names another person is refused with 409: a mistaken identity is no new version."""
    await installation.operation("check-eligibility", eligibility)
    await installation.operation("check-eligibility", eligibility.replace(b"1EG4TE5MK72", b"1EG4TE5MK73"))
    patients = await installation.context.store.find(StoredResource, Where("resource_type", "==", "Patient"))
    answers = []
    for patient in patients:
        body = {
            "resourceType": "Observation",
            "id": "weight-1",
            "status": "final",
            "code": {"text": "weight"},
            "subject": {"reference": f"Patient/{patient.id}"},
        }
        answers.append((await installation.call("ehr-1", "PUT", "/fhir/Observation/weight-1", body)).status_code)
    assert answers == [201, 409]


async def test_the_bytes_of_a_resource_outlive_a_defect_of_the_reader(installation, monkeypatch):
    """The store has the bytes before they are read: a reader that fails on them loses nothing."""

    def fails(*_, **__):
        raise RuntimeError("a defect")

    monkeypatch.setattr("server.intake.rest.validate", fails)
    body = b'{"resourceType":"Patient","active":true}'
    answer = await installation.call("ehr-1", "POST", "/fhir/Patient", body)
    assert answer.status_code == 500
    assert [row.body for row in await installation.context.store.find(Received)] == [body]
