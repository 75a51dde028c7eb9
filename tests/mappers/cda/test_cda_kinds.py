"""Each kind of document that C-CDA names has a case, and what is particular to it reaches its resource."""

from typing import Any

import pytest

from mappers.conversion import Conversion

# By the LOINC code of the header (C-CDA R2.1; an Unstructured Document has any code, here a scanned consultation).
KINDS = {
    "34133-9": "care-summary",
    "57133-1": "referral-note",
    "11488-4": "consultation-note",
    "11506-3": "progress-note",
    "52521-2": "care-plan",
    "18842-5": "discharge-summary",
    "18761-7": "chart",
    "34117-2": "history-and-physical",
}


def _of(conversion: Conversion, kind: str) -> list[dict[str, Any]]:
    return [one for one in conversion.resources if one["resourceType"] == kind]


def _codes(concept: dict[str, Any]) -> list[str]:
    return [one["code"] for one in concept.get("coding", ())]


@pytest.mark.parametrize(("loinc", "name"), KINDS.items())
def test_the_kind_of_a_document_is_its_references_type(loinc, name, read):
    """The header's code is DocumentReference.type, with the format of a structured R2.1 body."""
    document = _of(read(name), "DocumentReference")[0]
    assert _codes(document["type"]) == [loinc]
    assert document["content"][0]["format"]["code"] == "urn:hl7-org:sdwg:ccda-structuredBody:2.1"


def test_a_new_version_names_what_it_replaces_and_the_series(read):
    """relatedDocument RPLC -> relatesTo replaces; setId -> identifier; the number of the version is in the account."""
    conversion = read("referral-note")
    document = _of(conversion, "DocumentReference")[0]
    (relation,) = document["relatesTo"]
    assert (relation["code"], relation["target"]["identifier"]["value"][-4:]) == ("replaces", "5999")
    assert document["identifier"][0]["value"] == "referrals-201"
    assert "/ClinicalDocument/versionNumber" in {one.location for one in conversion.unmapped}


def test_a_referral_says_how_soon_by_whom_and_why(read):
    """Patient Referral Act: priority, requester by the id of the author, and the problem that it points at."""
    conversion = read("referral-note")
    (request,) = _of(conversion, "ServiceRequest")
    (problem,) = _of(conversion, "Condition")
    assert (request["priority"], request["authoredOn"], request["intent"]) == ("urgent", "2026-06-10", "plan")
    assert request["reasonReference"] == [{"reference": f"Condition/{problem['id']}"}]
    assert conversion.patient["generalPractitioner"] != [request["requester"]]


def test_an_answer_names_the_referral(read):
    """inFulfillmentOf of the consultation is the identifier of the request that the referral made."""
    (request,) = _of(read("referral-note"), "ServiceRequest")
    document = _of(read("consultation-note"), "DocumentReference")[0]
    assert document["context"]["related"][0]["identifier"] == request["identifier"][0]


def test_a_code_of_a_translation_alone_is_the_code(read):
    """nullFlavor OTH with a translation: the code of the translation (ICD-10-CM), at the precision of the month."""
    (problem,) = _of(read("referral-note"), "Condition")
    assert problem["code"]["coding"][0]["system"] == "http://hl7.org/fhir/sid/icd-10-cm"
    assert problem["onsetDateTime"] == "2024-02"


def test_a_panel_without_time_spans_that_of_its_results(read):
    """The earliest and latest of its observations."""
    (report,) = _of(read("referral-note"), "DiagnosticReport")
    assert report["effectivePeriod"] == {"start": "2026-06-05T09:15:00-05:00", "end": "2026-06-07T09:15:00-05:00"}


def test_a_scale_under_a_problem_is_its_evidence(read):
    """SPRT: Condition.evidence.detail is the response and its score (C-CDA on FHIR 2.0.0, CF-problems)."""
    conversion = read("consultation-note")
    (problem,) = _of(conversion, "Condition")
    (response,) = _of(conversion, "QuestionnaireResponse")
    score = next(one for one in _of(conversion, "Observation") if "derivedFrom" in one)
    found = [one["reference"] for one in problem["evidence"][0]["detail"]]
    assert found == [f"QuestionnaireResponse/{response['id']}", f"Observation/{score['id']}"]


def test_what_was_never_asked_is_absent_and_no_value(read):
    """nullFlavor NASK -> dataAbsentReason not-asked."""
    smoking = next(one for one in _of(read("consultation-note"), "Observation") if _codes(one["code"]) == ["72166-2"])
    assert _codes(smoking["dataAbsentReason"]) == ["not-asked"]


def test_a_cat_score_alone_is_a_prom_score(read):
    """PROMIS T-score without items: the number as stated, no response."""
    score = next(one for one in _of(read("consultation-note"), "Observation") if _codes(one["code"]) == ["77865-4"])
    assert str(score["valueQuantity"]["value"]) == "61.4"
    assert "derivedFrom" not in score


def test_readings_of_one_time_in_organizers_of_their_own(read):
    """A vendor's way: pressures pair by time, keep their unit, and neither organizer's time is called lost."""
    conversion = read("progress-note")
    pressure = next(one for one in _of(conversion, "Observation") if "component" in one)
    assert [part["valueQuantity"]["code"] for part in pressure["component"]] == ["kPa", "kPa"]
    assert not [one for one in conversion.unmapped if one.location.endswith("entry[1]/organizer/effectiveTime")]


def test_a_stay_says_where_the_patient_went(read):
    """encompassingEncounter of a discharge: class, period, disposition."""
    (stay,) = _of(read("discharge-summary"), "Encounter")
    assert (stay["class"]["code"], stay["period"]["end"], stay["status"]) == ("IMP", "2026-07-14", "finished")
    assert _codes(stay["hospitalization"]["dischargeDisposition"]) == ["01"]


def test_a_procedure_that_is_ordered_is_a_request(read):
    """Mood RQO is no fact: ServiceRequest, not Procedure."""
    conversion = read("discharge-summary")
    assert [_codes(one["code"]) for one in _of(conversion, "Procedure")] == [["40701008"]]
    assert [(_codes(one["code"]), one["intent"]) for one in _of(conversion, "ServiceRequest")] == [
        (["29303009"], "order")
    ]


def test_a_care_team_has_its_members_in_their_roles(read):
    """Care Team Organizer: its name, period, and each member whom the document names; others are booked."""
    conversion = read("history-and-physical")
    (team,) = _of(conversion, "CareTeam")
    assert (team["name"], team["status"], team["period"]) == ("Back care team", "active", {"start": "2026-07-01"})
    (member,) = team["participant"]
    assert member["role"][0]["coding"][0]["system"] == "http://terminology.hl7.org/CodeSystem/v3-ParticipationFunction"
    doctor = next(one for one in _of(conversion, "Practitioner") if one["name"][0]["family"] == "Diaz")
    assert member["member"] == {"reference": f"Practitioner/{doctor['id']}"}
    assert [one.kind for one in conversion.unmapped if one.location.endswith("act/performer")] == ["bad"]
