"""Requirement: height and weight of one visit are enough for the BMI that CMS's baseline needs (mappers, FHIR in)."""

from datetime import datetime
from decimal import Decimal

from profiles import fhir_json
from server.domain.resource import StoredResource
from server.store.base import Where
from tests.server.test_tracks import PEOPLE, done, reported, values

CKM = PEOPLE[1]


def _visit(at: datetime) -> bytes:
    """What the EHR posts of a visit, with a height in inches in the place of the BMI and the weight in pounds."""
    bundle = fhir_json.parse(values(CKM, at))
    for entry in bundle["entry"]:
        resource = entry["resource"]
        coding = resource["code"]["coding"][0]
        changed = {"39156-5": ("8302-2", "67.5", "[in_i]"), "29463-7": ("29463-7", "194.5", "[lb_av]")}
        if coding["code"] in changed:
            coding["code"], value, unit = changed[coding["code"]]
            del resource["meta"]
            resource["valueQuantity"] |= {"value": Decimal(value), "unit": unit, "code": unit}
    return fhir_json.dump(bundle)


async def test_cms_takes_a_baseline_whose_bmi_was_calculated(installation):
    """Posted over REST, calculated, stored with Provenance, reported, and accepted by the stand-in."""
    assert await done(installation, "align", CKM) == "aligned"
    answer = await installation.call("ehr-1", "POST", "/fhir", _visit(installation.clock.at))
    assert answer.status_code == 200, answer.text
    submission = await reported(installation)
    assert submission.result_code == "success", submission.result
    document = fhir_json.parse(submission.request)["parameter"][-1]["resource"]
    coded = {
        entry["resource"]["code"]["coding"][0]["code"]: entry["resource"]
        for entry in document["entry"]
        if entry["resource"]["resourceType"] == "Observation"
    }
    assert coded["39156-5"]["valueQuantity"]["value"] == Decimal("30.0")
    bmi = coded["39156-5"]["id"]
    told = await installation.context.store.find(StoredResource, Where("resource_type", "==", "Provenance"))
    bodies = [fhir_json.parse(row.body) for row in told]
    assert [one for one in bodies if one["target"] == [{"reference": f"Observation/{bmi}"}]]
