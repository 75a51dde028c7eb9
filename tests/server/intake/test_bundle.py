"""A Bundle at the base: one answer for each entry, conditions looked up, a batch entry by entry."""

from typing import Any

from profiles import fhir_json
from server.domain.resource import StoredResource
from server.store.base import Where

MBI = {"system": "http://terminology.hl7.org/NamingSystem/cmsMBI", "value": "1EG4TE5MK73"}
OTHER = {**MBI, "value": "1EG4TE5MK72"}
READING = "urn:example:reading"
DOCTOR = {"system": "http://hl7.org/fhir/sid/us-npi", "value": "1234567893"}


def _weight(value: int, who: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    unit = {"unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"}
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
        "subject": {"identifier": who or MBI},
        "effectiveDateTime": "2026-08-19T08:00:00-04:00",
        "valueQuantity": {"value": value, **unit},
        **more,
    }


def _entry(resource: dict[str, Any], method: str = "POST", url: str = "", **more: Any) -> dict[str, Any]:
    return {"resource": resource, "request": {"method": method, "url": url or resource["resourceType"], **more}}


async def _post(installation, *entries: dict[str, Any], kind: str = "transaction"):
    body = fhir_json.dump({"resourceType": "Bundle", "type": kind, "entry": list(entries)})
    answer = await installation.call("hie-1", "POST", "/fhir", body)
    return answer.status_code, fhir_json.parse(answer.content)


async def _stored(installation, kind: str) -> list[dict[str, Any]]:
    rows = await installation.context.store.find(StoredResource, Where("resource_type", "==", kind))
    return [fhir_json.parse(row.body) for row in rows]


def _statuses(content: dict[str, Any]) -> list[str]:
    return [entry["response"]["status"] for entry in content["entry"]]


async def test_each_entry_has_its_answer_in_order(installation):
    """Patient in the middle, an entry that carries nothing at the end: five answers for five entries."""
    patient = {"resourceType": "Patient", "identifier": [MBI], "name": [{"family": "Doe"}], "gender": "male"}
    nothing = {"resourceType": "OperationOutcome", "issue": [{"severity": "information", "code": "informational"}]}
    entries = [_entry(_weight(81)), _entry(patient), _entry(_weight(82)), _entry(_weight(82)), _entry(nothing)]
    status, content = await _post(installation, *entries)
    assert (status, content["type"]) == (200, "transaction-response")
    assert _statuses(content) == ["201 Created"] * 4 + ["204 No Content"]
    kinds = [entry["response"].get("location", "").partition("/")[0] for entry in content["entry"]]
    assert kinds == ["Observation", "Patient", "Observation", "Observation", ""]
    (patient,) = await _stored(installation, "Patient")
    assert content["entry"][1]["response"]["location"] == f"Patient/{patient['id']}/_history/1"


async def test_a_put_keeps_the_id_of_its_address(installation):
    """Created, then a second version of it; an id inside the body of a POST is ours to give."""
    status, first = await _post(installation, _entry(_weight(81), "PUT", "Observation/scale-1"))
    assert (status, first["entry"][0]["response"]["location"]) == (200, "Observation/scale-1/_history/1")
    _, second = await _post(installation, _entry(_weight(80), "PUT", "Observation/scale-1"))
    assert second["entry"][0]["response"]["etag"] == 'W/"2"'
    _, third = await _post(installation, _entry(_weight(79, id="scale-1")))
    assert "scale-1" not in third["entry"][0]["response"]["location"]


async def test_a_conditional_create_of_what_is_here_changes_nothing(installation):
    """200 with the stored resource's address; what refers to the entry refers to the stored one."""
    named = _weight(81, identifier=[{"system": READING, "value": "r-1"}])
    await _post(installation, _entry(named, "PUT", "Observation/r1"))
    again = _entry(named | {"status": "amended"}, ifNoneExist=f"identifier={READING}|r-1") | {"fullUrl": "urn:uuid:1"}
    derived = _entry(_weight(82, derivedFrom=[{"reference": "urn:uuid:1"}]))
    status, content = await _post(installation, again, derived)
    assert (status, _statuses(content)) == (200, ["200 OK", "201 Created"])
    assert content["entry"][0]["response"]["location"] == "Observation/r1/_history/1"
    found = [one for one in await _stored(installation, "Observation") if "derivedFrom" in one]
    assert found[0]["derivedFrom"] == [{"reference": "Observation/r1"}]


async def test_a_conditional_update_finds_its_resource(installation):
    """PUT Observation?identifier=... writes the next version of the one that has it."""
    named = _weight(81, identifier=[{"system": READING, "value": "r-2"}])
    await _post(installation, _entry(named, "PUT", "Observation/r2"))
    changed = named | {"status": "corrected"}
    _, content = await _post(installation, _entry(changed, "PUT", f"Observation?identifier={READING}|r-2"))
    assert content["entry"][0]["response"]["location"] == "Observation/r2/_history/2"


async def test_a_conditional_reference_becomes_literal(installation):
    """To an entry of the Bundle, then to what is stored; to nobody is refused."""
    doctor = {"resourceType": "Practitioner", "identifier": [DOCTOR], "name": [{"family": "Rivera"}]}
    reference = {"reference": f"Practitioner?identifier={DOCTOR['system']}|{DOCTOR['value']}"}
    status, _ = await _post(installation, _entry(doctor), _entry(_weight(81, performer=[reference])))
    assert status == 200
    await _post(installation, _entry(_weight(82, performer=[reference])))
    (stored,) = await _stored(installation, "Practitioner")
    found = [one["performer"][0]["reference"] for one in await _stored(installation, "Observation")]
    assert found == [f"Practitioner/{stored['id']}"] * 2
    unknown = {"reference": "Practitioner?identifier=http://hl7.org/fhir/sid/us-npi|1"}
    status, content = await _post(installation, _entry(_weight(83, performer=[unknown])))
    assert (status, content["resourceType"]) == (422, "OperationOutcome")


async def test_a_batch_takes_each_entry_by_itself(installation):
    """Two patients, one bad entry between them, two equal readings: each has its own answer."""
    bad = _weight(1) | {"status": "no such status"}
    entries = [_entry(_weight(81)), _entry(bad), _entry(_weight(64, OTHER)), _entry(_weight(81))]
    status, content = await _post(installation, *entries, kind="batch")
    assert (status, content["type"]) == (200, "batch-response")
    assert [one[:3] for one in _statuses(content)] == ["201", "422", "201", "201"]
    assert content["entry"][1]["response"]["outcome"]["issue"][0]["severity"] == "error"
    assert len(await _stored(installation, "Observation")) == 3
    assert len(await _stored(installation, "Patient")) == 2


async def test_a_batch_again_has_no_second_effect(installation):
    """The stored answer is given again."""
    entries = [_entry(_weight(81)), _entry(_weight(64, OTHER))]
    first = await _post(installation, *entries, kind="batch")
    assert await _post(installation, *entries, kind="batch") == first
    assert len(await _stored(installation, "Observation")) == 2


async def test_a_transaction_about_two_patients_is_refused_whole(installation):
    """The answer says to send one each, or a batch."""
    status, content = await _post(installation, _entry(_weight(81)), _entry(_weight(64, OTHER)))
    assert status == 422
    assert "batch" in content["issue"][0]["details"]["text"]
    assert await _stored(installation, "Observation") == []


async def test_what_is_no_fhir_is_refused_under_a_stored_id_too(installation):
    """It is laid beside the stored version before it is checked: nothing in it may break that."""
    status, content = await _post(installation, _entry(_weight(81)))
    name = content["entry"][0]["response"]["location"].split("/")[-3]
    for odd in ({"meta": []}, {"meta": "x"}, {"meta": {"source": 1}}, {"resourceType": "Observation", "code": None}):
        status, content = await _post(installation, _entry(_weight(82, id=name) | odd, "PUT", f"Observation/{name}"))
        assert (status in (400, 422), content["resourceType"]) == (True, "OperationOutcome"), odd
