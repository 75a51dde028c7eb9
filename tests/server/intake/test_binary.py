"""Requirement: an HIE that takes no FHIR gets a document as it is (care coordination, C-CDA out)."""

from base64 import b64encode

import pytest

from profiles import fhir_json

XML = b'<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3"/>'


async def _stored(installation, **changes: str) -> str:
    binary = {"resourceType": "Binary", "contentType": "application/xml", "data": b64encode(XML).decode()} | changes
    answer = await installation.call("ehr-1", "POST", "/fhir/Binary", fhir_json.dump(binary))
    assert answer.status_code == 201, answer.text
    return f"/fhir/Binary/{fhir_json.parse(answer.content)['id']}"


@pytest.mark.parametrize("accept", ["application/xml", "text/xml;q=0.9, application/pdf", "application/octet-stream"])
async def test_the_content_itself_for_who_asks_for_its_type(installation, accept: str):
    """The bytes, under the type that the Binary states, as a file that no browser opens as a page."""
    answer = await installation.call("ehr-1", "GET", await _stored(installation), Accept=accept)
    assert (answer.status_code, answer.content) == (200, XML)
    assert answer.headers["content-type"].startswith("application/xml")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"] == "attachment"


@pytest.mark.parametrize("accept", ["*/*", "application/fhir+json", "application/json", "application/pdf", ""])
async def test_the_resource_for_everybody_else(installation, accept: str):
    """FHIR JSON, as ever."""
    answer = await installation.call("ehr-1", "GET", await _stored(installation), Accept=accept)
    assert fhir_json.parse(answer.content)["data"] == b64encode(XML).decode()
