"""Requirement: values inside a DiagnosticReport that comes alone by REST are kept as values (mappers, FHIR in)."""

from typing import Any

from profiles import fhir_json
from profiles.validate import validate
from server.domain.resource import StoredResource
from server.store.base import Where

LOINC = "http://loinc.org"
PATIENT = {
    "resourceType": "Patient",
    "identifier": [{"system": "http://terminology.hl7.org/NamingSystem/cmsMBI", "value": "1EG4TE5MK73"}],
    "name": [{"family": "Doe", "given": ["John"]}],
    "gender": "male",
    "birthDate": "1950-01-01",
}
RESULT = {
    "resourceType": "Observation",
    "id": "a1c",
    "status": "final",
    "code": {"coding": [{"system": LOINC, "code": "4548-4"}]},
    "effectiveDateTime": "2026-08-19",
    "valueQuantity": {"value": 7, "unit": "%", "system": "http://unitsofmeasure.org", "code": "%"},
}


async def _sent(installation: Any, method: str, path: str, resource: dict[str, Any]) -> dict[str, Any]:
    answer = await installation.call("ehr-1", method, path, fhir_json.dump(resource))
    assert answer.status_code in (200, 201), answer.text
    return fhir_json.parse(answer.content)


async def _stored(installation: Any, kind: str) -> list[dict[str, Any]]:
    rows = await installation.context.store.find(StoredResource, Where("resource_type", "==", kind))
    return [fhir_json.parse(row.body) for row in rows]


async def test_a_report_alone_gives_its_values(installation):
    """The Observation inside stands beside the report, which stays as it was sent; Provenance names both sources."""
    patient = await _sent(installation, "POST", "/fhir/Patient", PATIENT)
    posted = {
        "resourceType": "DiagnosticReport",
        "contained": [RESULT],
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "4548-4"}]},
        "subject": {"reference": f"Patient/{patient['id']}"},
        "result": [{"reference": "#a1c"}],
    }
    report = await _sent(installation, "POST", "/fhir/DiagnosticReport", posted)
    assert report["contained"] == [RESULT]
    (value,) = await _stored(installation, "Observation")
    assert (value["subject"], value["valueQuantity"]["value"]) == (posted["subject"], 7)
    (provenance,) = await _stored(installation, "Provenance")
    assert provenance["entity"][1]["what"] == {"reference": f"DiagnosticReport/{report['id']}"}
    assert [issue for one in (value, provenance) for issue in validate(one) if issue.is_error] == []

    corrected = RESULT | {"status": "corrected", "valueQuantity": RESULT["valueQuantity"] | {"value": 8}}
    await _sent(installation, "PUT", f"/fhir/DiagnosticReport/{report['id']}", report | {"contained": [corrected]})
    (value,) = await _stored(installation, "Observation")
    assert (value["status"], value["valueQuantity"]["value"]) == ("corrected", 8)
