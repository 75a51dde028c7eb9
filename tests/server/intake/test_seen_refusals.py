"""What CMS's test environment was seen to refuse: here it is refused at the door, or put right; CMS sees none of it.

Each case is one refusal that engineers of other clients wrote down in June and July 2026.
"""

from collections.abc import Callable
from typing import Any

import pytest

from profiles import fhir_json
from tests.server.intake.requests import operation, report_of

Change = Callable[[dict[str, Any]], object]


def bundle(request: dict[str, Any]) -> dict[str, Any]:
    return request["parameter"][-1]["resource"]


def composition(request: dict[str, Any]) -> dict[str, Any]:
    return bundle(request)["entry"][0]["resource"]


def without(request: dict[str, Any], name: str) -> None:
    request["parameter"] = [p for p in request["parameter"] if p["name"] != name]


def flat(request: dict[str, Any]) -> None:
    request.clear()
    request |= {"resourceType": "Parameters", "participantID": "ACCES12345", "track": "CKM", "mbi": "1EG4TE5MK72"}


@pytest.mark.parametrize(
    "change",
    [
        flat,
        lambda r: without(r, "participantID"),
        lambda r: without(r, "payerID"),
        lambda r: without(r, "patient"),
        lambda r: without(r, "condition"),
        lambda r: without(r, "isProviderReferral"),
        lambda r: r["parameter"].append({"name": "alignmentId", "valueString": "a-1"}),
        lambda r: r["parameter"].append({"name": "clinicalJustification", "valueString": "because"}),
        lambda r: r["parameter"][2]["resource"].pop("identifier"),
        lambda r: r["parameter"][2]["resource"].pop("name"),
        lambda r: r["parameter"][2]["resource"].pop("gender"),
        lambda r: r["parameter"][2]["resource"].pop("birthDate"),
        lambda r: r["parameter"][2]["resource"]["identifier"][0].pop("system"),
        lambda r: r["parameter"][2]["resource"]["identifier"][0].update(value="9876543210B"),
        lambda r: r["parameter"][3]["valueCodeableConcept"]["coding"][0].update(code="ckm"),
        lambda r: r["parameter"][4]["resource"]["code"]["coding"][0].update(code="E11"),
        lambda r: r["parameter"][4]["resource"]["code"]["coding"][0].update(code="Z00.00"),
    ],
)
async def test_an_alignment_that_cms_would_refuse(installation: Any, change: Change) -> None:
    """400, with the place and the remedy; nothing is sent."""
    request = fhir_json.parse(operation("align"))
    change(request)
    answer = await installation.operation("align", fhir_json.dump(request))
    outcome = fhir_json.parse(answer.content)
    assert answer.status_code == 400, outcome
    assert all(issue["details"]["text"].endswith(".") for issue in outcome["issue"])
    await installation.work()
    assert installation.cms.journal() == []


@pytest.mark.parametrize(
    "change",
    [
        lambda r: bundle(r)["identifier"].pop("system"),  # CMS took it, and refused it at the poll
        lambda r: bundle(r).pop("timestamp"),
        lambda r: bundle(r).update(type="collection"),
        lambda r: bundle(r)["entry"].reverse(),
        lambda r: composition(r)["section"][0].pop("code"),
        lambda r: composition(r)["section"][0]["code"]["coding"][0].update(code="BH"),
        lambda r: composition(r).update(section=[]),
        lambda r: composition(r).pop("custodian"),
        lambda r: composition(r)["author"][0].update(reference="urn:uuid:Practitioner/nobody"),
        lambda r: composition(r)["subject"].update(reference="Patient/somebody-else"),
        lambda r: composition(r)["section"][0]["section"][0]["entry"][0].update(reference="Observation/none"),
        lambda r: r["parameter"].append({"name": "patient", "resource": bundle(r)["entry"][1]["resource"]}),
    ],
)
async def test_a_report_that_cms_would_refuse(installation: Any, change: Change) -> None:
    """The same for reports, whose faults CMS finds late."""
    request = report_of("CKM")
    change(request)
    content = fhir_json.dump(request)
    answer = await installation.operation("report-data", content)
    assert answer.status_code == 400, answer.text
    await installation.work()
    assert installation.cms.journal() == []


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.pop("meta"),
        lambda r: bundle(r).pop("meta"),
        lambda r: [entry["resource"].pop("text") for entry in bundle(r)["entry"]],
        lambda r: composition(r)["section"][0].pop("text"),
        lambda r: [entry["resource"].pop("meta") for entry in bundle(r)["entry"]],
        lambda r: [
            entry.update(fullUrl=f"urn:uuid:{entry['resource']['resourceType']}/{entry['resource']['id']}")
            for entry in bundle(r)["entry"]
        ],
        lambda r: [entry.pop("fullUrl") for entry in bundle(r)["entry"]],
    ],
)
async def test_a_report_that_can_be_put_right_is_taken_by_cms(installation: Any, change: Change) -> None:
    """The stand-in, as strict as the test environment, answers the repaired report with 202."""
    request = report_of("CKM")
    change(request)
    answer = await installation.operation("report-data", fhir_json.dump(request))
    assert answer.status_code == 202, answer.text
    await installation.result(answer.headers["Content-Location"].rpartition("/")[2])
    (post,) = installation.cms.journal("report-data")
    assert post["status"] == 202
