"""Requests and resources of one invented patient, as an EHR sends them."""

from pathlib import Path
from typing import Any

from profiles import fhir_json
from profiles.canonical import ACCESS, MBI
from server.demo import messages
from server.intake import gates

REPORT = Path(__file__).parents[2] / "cases" / "profiles" / "report.json"


def operation(name: str, track: str = "CKM", **values: Any) -> bytes:
    """The demo's request; `values` are further parameters: booleans, or CodeableConcepts."""
    request = fhir_json.parse(messages.operation("check-eligibility" if name == "unalign" else name, track))
    request["meta"]["profile"] = [ACCESS(f"access-{name}-in")]
    for parameter, value in values.items():
        kind = "valueBoolean" if isinstance(value, bool) else "valueCodeableConcept"
        request["parameter"].append({"name": parameter, kind: value})
    return fhir_json.dump(request)


def consent(category: str, **changes: Any) -> bytes:
    """A Bundle with a Consent of the demo's patient, who is named by the MBI."""
    resource: dict[str, Any] = {
        "resourceType": "Consent",
        "identifier": [{"system": "urn:example:consents", "value": category}],
        "status": "active",
        "scope": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "treatment"}]},
        "category": [{"coding": [{"system": gates.CONSENT_CATEGORY, "code": category}]}],
        "patient": {"identifier": {"system": MBI, "value": messages.PATIENT_MBI}},
        "dateTime": "2026-08-01",
        "policyRule": {"text": "CMS ACCESS Model disclosure"},
    }
    entry = {"resource": resource | changes, "request": {"method": "POST", "url": "Consent"}}
    return fhir_json.dump({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})


def report_of(track: str) -> dict[str, Any]:
    """A whole report that CMS takes, of the participant and the demo's patient."""
    assert track == "CKM"
    request = fhir_json.parse(REPORT.read_bytes())
    for entry in request["parameter"][-1]["resource"]["entry"]:
        if entry["resource"]["resourceType"] == "Patient":
            own = messages.patient()
            entry["resource"] |= {name: own[name] for name in ("identifier", "name", "gender", "birthDate")}
    return request
