"""Requirement: answers by HL7 v2, C-CDA and FHIR all become the BH and MSK reports that CMS takes."""

from pathlib import Path
from typing import Any

import pytest

from profiles import fhir_json
from server.demo import messages
from server.domain.care_period import Report
from server.domain.resource import StoredResource
from server.domain.submission import Submission
from server.schedule.assessment import submit_report
from server.store.base import Where

CASES = Path(__file__).parents[1] / "cases" / "instruments"
DIAGNOSES = {"BH": ("F32.1", "bh"), "MSK": ("M54.50", "msk")}


def _alignment(track: str) -> bytes:
    """The demo's alignment, turned into one of CMS's own example patient."""
    code, name = DIAGNOSES[track]
    text = messages.operation("align", track).decode()
    swaps = {
        "1EG4TE5MK72": "1EG4TE5MK73",
        "Delgado": "Doe",
        "Rosa": "John",
        "female": "male",
        "1952-03-14": "1950-01-01",
        "E11.22": code,
        "access-ckm-condition": f"access-{name}-condition",
    }
    for old, new in swaps.items():
        text = text.replace(old, new)
    return text.encode()


async def _aligned(installation, track: str) -> None:
    answer = await installation.operation("align", _alignment(track))
    assert answer.status_code == 202, answer.text
    row = await installation.result(answer.headers["content-location"].rpartition("/")[2])
    assert b'"aligned"' in row.result, row.result


async def _bundle(installation, *names: str) -> None:
    responses = [fhir_json.parse((CASES / f"{name}.json").read_bytes()) for name in names]
    entries = [{"resource": one, "request": {"method": "POST", "url": "QuestionnaireResponse"}} for one in responses]
    body = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    answer = await installation.call("hie-1", "POST", "/fhir", fhir_json.dump(body))
    assert answer.status_code == 200, answer.text


async def _reported(installation, track: str) -> tuple[dict[str, Any], Submission]:
    """Sends the baseline report; the document Bundle that left, and what CMS made of it."""
    await installation.work()
    (report,) = [
        row
        for row in await installation.context.store.find(Report, Where("track", "==", track))
        if row.report_type == "baseline"
    ]
    assert report.missing == ""
    if report.submission_id is None:
        await installation.context.store.commit(await submit_report(report.id, installation.context))
        report = await installation.context.store.get(Report, id=report.id)
    done = await installation.result(report.submission_id)
    parameters = fhir_json.parse(done.request)
    document = next(one["resource"] for one in parameters["parameter"] if one["name"] == "dataBundle")
    return document, done


def _responses(document: dict[str, Any]) -> dict[str, list[str]]:
    found = [entry["resource"] for entry in document["entry"]]
    return {
        str(one["item"][0]["linkId"]): [item["linkId"] for item in one["item"]]
        for one in found
        if one["resourceType"] == "QuestionnaireResponse"
    }


async def test_a_bh_report_from_hl7v2_and_c_cda_and_fhir(installation):
    """PHQ-9 as OBX rows, GAD-7 as a C-CDA scale, WHODAS by FHIR: CMS accepts one report of all three."""
    await _aligned(installation, "BH")
    message, document = ((CASES / name).read_bytes() for name in ("oru-phq9.hl7", "gad7.xml"))
    er7 = await installation.call("hie-1", "POST", "/hl7v2", message, Content_Type="x-application/hl7-v2+er7")
    assert b"MSA|AA" in er7.content, er7.content
    cda = await installation.call("hie-1", "POST", "/cda", document, Content_Type="application/cda+xml")
    assert cda.status_code == 200, cda.text
    await _bundle(installation, "whodas")
    sent, done = await _reported(installation, "BH")
    assert set(_responses(sent)) == {"phq9-1", "gad7-1", "whodas-s1"}
    assert _responses(sent)["gad7-1"][-1] == "total-score"
    assert b'"accepted"' in done.result or b'"success"' in done.result, done.result


async def test_a_msk_report_from_fhir(installation):
    """PROMIS forms under LOINC's linkIds, ODI and the pain rating under CMS's: CMS accepts the report."""
    await _aligned(installation, "MSK")
    await _bundle(installation, "promis-pf-6b", "promis-pi-6a", "promis-nrs", "odi")
    sent, done = await _reported(installation, "MSK")
    assert set(_responses(sent)) == {"pf6b-1", "pi6a-1", "nrs-1", "odi-1"}
    assert b'"accepted"' in done.result or b'"success"' in done.result, done.result


@pytest.mark.parametrize("name", ["pco-phq9", "odi"])
async def test_answers_by_fhir_have_their_score(installation, name: str):
    """The PCO score is stored beside the response that it is derived from."""
    await _bundle(installation, name)
    rows = await installation.context.store.find(StoredResource, Where("resource_type", "==", "Observation"))
    (score,) = [fhir_json.parse(row.body) for row in rows]
    assert score["derivedFrom"][0]["reference"].startswith("QuestionnaireResponse/")
    assert "pco-prom-score-observation" in score["meta"]["profile"][0]
