"""Requirement: the ACCESS document Bundle, exact and deterministic (access-data-reporting 1 to 6 and 10)."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from mappers.fhir.measures import normalise
from mappers.narrative import generated, narrative
from mappers.report import ReportRequest, build_report, instrument_of, sections
from profiles import canonical, fhir_json
from profiles.validate import validate

IG = "https://dsacms.github.io/cmmi-access-model"
NAME, MBI = "Quillfeather", "1EG4TE5MK73"
PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [
        {"system": "http://clinic.example/mrn", "value": "77"},
        {"system": "http://hl7.org/fhir/sid/us-mbi", "value": "1eg4-te5-mk73"},
    ],
    "name": [{"family": NAME, "given": ["Ida"]}],
    "gender": "female",
    "birthDate": "1951-02-03",
    "address": [{"line": ["1 Hidden Way"]}],
    "generalPractitioner": [{"reference": "Practitioner/elsewhere"}],
}
UNITS = {
    "weight": ("29463-7", "81.60", "kg"),
    "BMI": ("39156-5", "27.1", "kg/m2"),
    "waist": ("8280-0", "98", "cm"),
    "HbA1c": ("4548-4", "7.10", "%"),
    "eGFR": ("98979-8", "61", "mL/min/{1.73_m2}"),
    "uACR": ("14959-1", "22", "mg/g"),
    "lipids": ("18262-6", "101", "mg/dL"),
}


def observation(measure: str, logical_id: str) -> dict[str, Any]:
    """A normalised Observation of a measure, as the schedule hands it over."""
    if measure == "blood-pressure":
        parts = ",".join(
            f'{{"code":{{"coding":[{{"system":"http://loinc.org","code":"{code}"}}]}},"valueQuantity":{{"value":{value},'
            '"unit":"mm[Hg]","system":"http://unitsofmeasure.org","code":"mm[Hg]"}}'
            for code, value in (("8480-6", "138"), ("8462-4", "88"))
        )
        code, rest = "85354-9", f'"component":[{parts}]'
    else:
        code, value, unit = UNITS[measure]
        rest = (
            f'"valueQuantity":{{"value":{value},"unit":"{unit}","system":"http://unitsofmeasure.org","code":"{unit}"}}'
        )
    raw = (
        f'{{"resourceType":"Observation","id":"{logical_id}","status":"final","subject":{{"reference":"Patient/p1"}},'
        f'"code":{{"coding":[{{"system":"http://loinc.org","code":"{code}"}}]}},'
        f'"effectiveDateTime":"2026-09-01T08:30:00-04:00",{rest}}}'
    )
    normalised, issues = normalise(fhir_json.parse(raw.encode()))
    assert normalised is not None, issues
    return normalised


def answers(link: str, questionnaire: str | None = "http://clinic.example/Questionnaire/q|2") -> dict[str, Any]:
    """A QuestionnaireResponse with one coded item and a score."""
    ordinal = {"url": canonical.ORDINAL_VALUE, "valueDecimal": 1}
    coding = {"extension": [ordinal], "system": "http://loinc.org", "code": "LA6569-3", "display": "Several days"}
    response: dict[str, Any] = {
        "resourceType": "QuestionnaireResponse",
        "id": f"r-{link}",
        "status": "completed",
        "subject": {"reference": "Patient/other-name-of-p1"},
        "authored": "2026-09-01T08:30:00-04:00",
        "source": {"reference": "RelatedPerson/elsewhere"},
        "item": [
            {"linkId": f"{link}1", "text": "owned wording", "answer": [{"valueCoding": coding}]},
            {"linkId": "total-score", "answer": [{"valueDecimal": 7}]},
        ],
    }
    return response | ({"questionnaire": questionnaire} if questionnaire else {})


def request(**changes: Any) -> ReportRequest:
    """A CKM baseline with everything, three blood pressures among it."""
    values = {measure: [observation(measure, f"o-{measure}")] for measure in UNITS}
    values["blood-pressure"] = [observation("blood-pressure", f"bp-{number}") for number in range(3)]
    made = ReportRequest(
        base_url="https://facade.example/fhir",
        report_id="f" * 32,
        revision=3,
        participant_id="ACCES12345",
        participant_name="Example Care",
        payer_id="00831",
        author_npi="1234567893",
        author_family="Rivera",
        author_given="Ana",
        patient=PATIENT,
        track="CKM",
        report_type="baseline",
        at=datetime(2026, 9, 2, 12, tzinfo=UTC),
        values=values,
    )
    return replace(made, **changes)


def questionnaires_request(track: str, **links: str) -> ReportRequest:
    """A report of instruments."""
    return request(track=track, values={measure: [answers(link)] for measure, link in links.items()})


def parameter(parameters: dict[str, Any], name: str) -> dict[str, Any]:
    """One parameter by name."""
    (found,) = [one for one in parameters["parameter"] if one["name"] == name]
    return dict(found)


def bundle(parameters: dict[str, Any]) -> dict[str, Any]:
    """The document."""
    return dict(parameter(parameters, "dataBundle")["resource"])


def references(value: Any) -> Iterator[str]:
    """All literal references in a resource."""
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        for child in value.values():
            yield from references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)


REQUESTS = {
    "CKM": request(),
    "eCKM": request(track="eCKM", values={"weight": [observation("weight", "w")]}, report_type="quarterly"),
    "BH": questionnaires_request("BH", **{"PHQ-9": "phq9-", "GAD-7": "gad7-", "WHODAS": "whodas-s", "PGIC": "pgic-"}),
    "MSK": questionnaires_request("MSK", **{"ODI": "odi-", "PROMIS-NRS": "nrs-", "PGIC": "pgic-"}),
}


@pytest.mark.parametrize("track", REQUESTS)
def test_a_report_of_each_track_is_valid(track: str) -> None:
    """No error from any profile that the document and its resources claim."""
    assert [issue for issue in validate(build_report(REQUESTS[track])) if issue.is_error] == []


def test_the_same_input_gives_the_same_bytes() -> None:
    """Each POST of a report is byte-identical (P2)."""
    assert fhir_json.dump(build_report(request())) == fhir_json.dump(build_report(request()))


def test_the_parameters_are_those_of_the_profile_and_no_other() -> None:
    """The slicing on parameter.name is closed; there is no patient parameter."""
    parameters = build_report(request())
    assert [one["name"] for one in parameters["parameter"]] == [
        "participantID",
        "payerID",
        "track",
        "reportType",
        "dataBundle",
    ]
    assert parameters["meta"]["profile"] == [f"{IG}/StructureDefinition/access-report-data-in"]


def test_track_and_first_section_have_the_same_single_coding() -> None:
    """access-report-data-track-matches-composition-section."""
    parameters = build_report(request())
    composition = bundle(parameters)["entry"][0]["resource"]
    coding = [{"system": f"{IG}/CodeSystem/ACCESSTrackCS", "code": "CKM"}]
    assert parameter(parameters, "track")["valueCodeableConcept"]["coding"] == coding
    assert composition["section"][0]["code"]["coding"] == coding
    assert len(composition["section"]) == 1


def test_the_document_has_what_base_fhir_and_the_guide_demand() -> None:
    """bdl-9, bdl-10, bdl-11; exactly one Patient; every entry with fullUrl, profile and narrative."""
    document = bundle(build_report(request()))
    types = [entry["resource"]["resourceType"] for entry in document["entry"]]
    assert document["type"] == "document"
    assert document["identifier"] == {"system": "https://facade.example/fhir/report", "value": "f" * 32 + "-3"}
    assert document["timestamp"] == "2026-09-02T12:00:00Z"
    assert types[0] == "Composition"
    assert types.count("Patient") == 1
    for entry in document["entry"]:
        resource = entry["resource"]
        assert entry["fullUrl"] == f"https://facade.example/fhir/{resource['resourceType']}/{resource['id']}"
        assert resource["meta"]["profile"]
        assert resource["text"]["div"].startswith('<div xmlns="http://www.w3.org/1999/xhtml">')


@pytest.mark.parametrize("track", REQUESTS)
def test_every_reference_resolves_in_the_document(track: str) -> None:
    """Also those outside the Composition: nothing points to what CMS can not see."""
    document = bundle(build_report(REQUESTS[track]))
    urls = {entry["fullUrl"] for entry in document["entry"]}
    assert {f"https://facade.example/fhir/{one}" for one in references(document)} <= urls


def test_the_sections_are_those_of_the_track_in_order() -> None:
    """Each value stands in the section of its measure."""
    section = bundle(build_report(request()))["entry"][0]["resource"]["section"][0]
    codes = [part["code"]["coding"][0]["code"] for part in section["section"]]
    assert codes == ["85354-9", "29463-7", "39156-5", "8280-0", "4548-4", "98979-8", "14959-1", "18262-6"]
    assert [entry["reference"] for entry in section["section"][0]["entry"]] == [f"Observation/bp-{n}" for n in range(3)]


def test_values_keep_their_digits_times_and_ids() -> None:
    """81.60 kg stays 81.60 kg, at the source's own time."""
    body = fhir_json.dump(build_report(request())).decode()
    assert '"value":81.60' in body
    assert '"value":7.10' in body
    assert '"effectiveDateTime":"2026-09-01T08:30:00-04:00"' in body
    assert '"id":"o-HbA1c"' in body


def test_the_patient_is_cut_down_to_what_cms_asks_for() -> None:
    """Minimum necessary: MBI in CMS's form, name, gender, birth date; no address, no other number, no reference."""
    document = bundle(build_report(request()))
    patient = document["entry"][1]["resource"]
    assert set(patient) == {"resourceType", "id", "meta", "text", "identifier", "name", "gender", "birthDate"}
    assert patient["identifier"] == [
        {
            "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MC"}]},
            "system": "http://terminology.hl7.org/NamingSystem/cmsMBI",
            "value": MBI,
        }
    ]


def test_no_narrative_names_the_patient() -> None:
    """The examples do; it is not needed."""
    divs = re.findall(r'"div":"(.*?)</div>', fhir_json.dump(build_report(request())).decode())
    assert divs
    assert not [div for div in divs if NAME in div or MBI in div or "1951" in div]


def test_narrative_is_escaped() -> None:
    """A label from outside can not become markup."""
    resource = {"resourceType": "Observation", "code": {"text": "<script>&"}, "status": "final"}
    assert "<script>" not in narrative(resource)["div"]
    assert "&lt;script&gt;&amp;" in generated("<script>&")["div"]


def test_the_timestamp_is_utc_whatever_the_zone_of_the_clock() -> None:
    """An instant is an instant."""
    at = datetime(2026, 9, 2, 7, tzinfo=timezone(timedelta(hours=-5)))
    assert bundle(build_report(request(at=at)))["timestamp"] == "2026-09-02T12:00:00Z"


def test_another_revision_has_another_bundle_identifier() -> None:
    """Unique for each attempt."""
    values = {bundle(build_report(request(revision=n)))["identifier"]["value"] for n in (3, 4)}
    assert len(values) == 2


def test_each_questionnaire_that_is_named_is_in_the_document_without_its_wording() -> None:
    """CMS's test environment refused what it could not resolve; the wording belongs to its owner."""
    document = bundle(build_report(questionnaires_request("BH", **{"PHQ-9": "phq9-"})))
    questionnaire = document["entry"][-1]["resource"]
    assert (questionnaire["url"], questionnaire["version"]) == ("http://clinic.example/Questionnaire/q", "2")
    assert questionnaire["item"] == [
        {"linkId": "phq9-1", "type": "choice"},
        {"linkId": "total-score", "type": "decimal"},
    ]


def test_answers_without_a_questionnaire_get_one() -> None:
    """Every canonical resolves."""
    document = bundle(build_report(request(track="BH", values={"GAD-7": [answers("gad7-", None)]})))
    response, questionnaire = (entry["resource"] for entry in document["entry"][-2:])
    assert response["questionnaire"] == questionnaire["url"] == "https://facade.example/fhir/Questionnaire/GAD-7"


def test_answers_are_about_and_by_the_patient_of_the_document() -> None:
    """us-core-questionnaireresponse; what refers elsewhere stays behind."""
    document = bundle(build_report(questionnaires_request("BH", **{"PHQ-9": "phq9-"})))
    response = document["entry"][-2]["resource"]
    assert response["subject"] == response["author"] == {"reference": "Patient/p1"}
    assert "source" not in response
    assert response["item"][0]["answer"][0]["valueCoding"]["extension"][0]["valueDecimal"] == 1


@pytest.mark.parametrize(
    ("link", "measure"), [("phq9-3", "PHQ-9"), ("pi-cat-1", "PROMIS-PI-CAT"), ("pgic-1", "PGIC"), ("other-1", None)]
)
def test_an_instrument_is_known_by_its_link_ids(link: str, measure: str | None) -> None:
    """The linkIds are those of the guide's examples."""
    assert instrument_of({"resourceType": "QuestionnaireResponse", "item": [{"linkId": link}]}) == measure


def test_a_measure_without_a_section_is_refused() -> None:
    """eCKM has no eGFR section."""
    with pytest.raises(ValueError, match="eGFR"):
        build_report(request(track="eCKM"))


@pytest.mark.parametrize(("track", "count"), [("eCKM", 6), ("CKM", 8), ("MSK", 11), ("BH", 4), ("HF", 0)])
def test_each_track_has_the_slices_of_the_guide(track: str, count: int) -> None:
    """access-data-reporting-composition."""
    assert len(sections(track)) == count
