"""Requirement: answers that come alone by REST are scored and checked as those of a Bundle (mappers, instruments)."""

from decimal import Decimal
from pathlib import Path
from typing import Any

from profiles import fhir_json
from profiles.validate import validate
from server.domain.coordination import WorkItem
from server.domain.resource import StoredResource
from server.store.base import Where

CASES = Path(__file__).parents[2] / "cases" / "instruments"
PATIENT = {
    "resourceType": "Patient",
    "identifier": [{"system": "http://terminology.hl7.org/NamingSystem/cmsMBI", "value": "1EG4TE5MK73"}],
    "name": [{"family": "Doe", "given": ["John"]}],
    "gender": "male",
    "birthDate": "1950-01-01",
}


async def _sent(installation: Any, method: str, path: str, resource: dict[str, Any]) -> dict[str, Any]:
    answer = await installation.call("ehr-1", method, path, fhir_json.dump(resource))
    assert answer.status_code in (200, 201), answer.text
    return fhir_json.parse(answer.content)


async def _posted(installation: Any) -> dict[str, Any]:
    """PHQ-9 with its total, posted alone; as it is stored."""
    patient = await _sent(installation, "POST", "/fhir/Patient", PATIENT)
    response = fhir_json.parse((CASES / "pco-phq9.json").read_bytes())
    response = {key: value for key, value in response.items() if key != "id"}
    response["subject"] = {"reference": f"Patient/{patient['id']}"}
    return await _sent(installation, "POST", "/fhir/QuestionnaireResponse", response)


async def _stored(installation: Any, kind: str) -> list[dict[str, Any]]:
    rows = await installation.context.store.find(StoredResource, Where("resource_type", "==", kind))
    return [fhir_json.parse(row.body) for row in rows]


async def _items(installation: Any) -> list[WorkItem]:
    rows = await installation.context.store.find(WorkItem, Where("kind", "==", "answers"))
    return [row for row in rows if row.closed_at is None]


def _with_total(response: dict[str, Any], value: str) -> dict[str, Any]:
    """The same response, its total stated otherwise."""
    items = [
        item | {"answer": [{"valueDecimal": Decimal(value)}]} if "valueDecimal" in item["answer"][0] else item
        for item in response["item"]
    ]
    return response | {"item": items}


async def test_a_response_alone_gets_its_score(installation):
    """The PCO score is there when the create is answered, derived from the response, with Provenance to the bytes."""
    response = await _posted(installation)
    (score,) = await _stored(installation, "Observation")
    assert score["derivedFrom"] == [{"reference": f"QuestionnaireResponse/{response['id']}"}]
    assert "pco-prom-score-observation" in score["meta"]["profile"][0]
    (provenance,) = await _stored(installation, "Provenance")
    assert provenance["target"] == [{"reference": f"Observation/{score['id']}"}]
    assert provenance["entity"][0]["what"]["identifier"]["value"].startswith("urn:sha256:")
    assert [issue for one in (score, provenance) for issue in validate(one) if issue.is_error] == []
    assert await _items(installation) == []


async def test_a_total_that_does_not_fit_is_told_and_kept(installation):
    """The number stays as it was sent, and a person is told; the right one afterwards settles it."""
    response = await _posted(installation)
    wrong = _with_total(response, "26")
    address = f"/fhir/QuestionnaireResponse/{response['id']}"
    await _sent(installation, "PUT", address, wrong)
    (score,) = await _stored(installation, "Observation")
    assert score["valueQuantity"]["value"] == 26
    (item,) = await _items(installation)
    assert "is not that of its answers" in item.text
    await _sent(installation, "PUT", address, response)
    assert await _items(installation) == []
    (score,) = await _stored(installation, "Observation")
    assert score["meta"]["versionId"] == "3"


async def test_a_withdrawn_response_withdraws_its_score(installation):
    """Entered in error: so is the number that was made of it."""
    response = await _posted(installation)
    address = f"/fhir/QuestionnaireResponse/{response['id']}"
    await _sent(installation, "PUT", address, response | {"status": "entered-in-error"})
    (score,) = await _stored(installation, "Observation")
    assert score["status"] == "entered-in-error"


async def test_a_score_that_the_sender_stored_is_enough(installation):
    """Its own total of that time stands; none is made beside it."""
    response = await _posted(installation)
    (made,) = await _stored(installation, "Observation")
    own = {name: made[name] for name in made if name not in ("id", "meta", "derivedFrom")}
    later = {**response, "authored": "2026-08-19T09:00:00-04:00"}
    await _sent(installation, "POST", "/fhir/Observation", own | {"effectiveDateTime": later["authored"]})
    await _sent(installation, "POST", "/fhir/QuestionnaireResponse", {k: v for k, v in later.items() if k != "id"})
    assert len(await _stored(installation, "Observation")) == 2
