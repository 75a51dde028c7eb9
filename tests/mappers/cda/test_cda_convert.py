"""A C-CDA document becomes US Core and PCO resources that pass their profiles, and nothing is invented."""

import base64
import json
from collections import Counter
from decimal import Decimal

import pytest

from mappers.cda import convert
from mappers.conversion import Source
from profiles import fhir_json
from profiles.issue import Severity
from profiles.validate import validate

CASES = ("clinic-vitals", "care-summary", "care-plan", "chart", "legacy", "scanned")
NOW = "2026-02-03T04:05:06Z"


def _all(conversion):
    return [conversion.patient, *conversion.resources]


def _of(conversion, kind):
    return [one for one in conversion.resources if one["resourceType"] == kind]


def _loinc(conversion, code):
    found = [
        one
        for one in _of(conversion, "Observation")
        if code in [part["code"] for part in one["code"].get("coding", ()) if part["system"] == "http://loinc.org"]
    ]
    assert len(found) == 1
    return found[0]


def _profiles(resource):
    return [one.rpartition("/")[2] for one in resource.get("meta", {}).get("profile", ())]


def _references(value):
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)


@pytest.mark.parametrize("name", CASES)
def test_all_resources_pass_base_r4_and_every_profile_they_claim(name, read):
    """No error of profiles.validate in anything that the mapper makes."""
    for resource in _all(read(name)):
        errors = [issue for issue in validate(fhir_json.parse(fhir_json.dump(resource))) if issue.is_error]
        assert errors == [], resource["resourceType"]


@pytest.mark.parametrize("name", CASES)
def test_every_reference_has_its_resource_and_ids_are_unique(name, read):
    """References end inside the Conversion, at the one patient or another resource."""
    conversion = read(name)
    known = Counter(f"{one['resourceType']}/{one['id']}" for one in _all(conversion))
    assert set(known.values()) == {1}
    assert set(_references(list(conversion.resources))) <= set(known)


@pytest.mark.parametrize("name", CASES)
def test_the_same_bytes_give_the_same_resources(name, case):
    """Ids and content depend on the bytes only; the clock stands in Provenance.recorded alone."""
    data = case(name)
    one, other = (convert(data, Source("ab" * 32, when)) for when in (NOW, "2030-01-01T00:00:00Z"))
    later = [part | ({"recorded": NOW} if "recorded" in part else {}) for part in other.resources]
    assert list(one.resources) == later
    assert one.patient == other.patient


def test_the_same_entry_in_another_document_keeps_its_id(case):
    """An entry id makes the resource id: the next export of the same chart updates, it does not double."""
    data = case("care-summary")
    one = convert(data, Source("ab" * 32, NOW))
    other = convert(data.replace(b"Care summary", b"Later summary"), Source("cd" * 32, NOW))
    kinds = ("Condition", "Observation", "Goal", "Encounter")
    assert [_of(one, kind)[0]["id"] for kind in kinds] == [_of(other, kind)[0]["id"] for kind in kinds]


def test_provenance_names_the_exact_bytes_and_the_place(read, case):
    """Each resource says in meta.source from which XPath of which bytes it comes; Provenance names the same bytes."""
    conversion = read("clinic-vitals")
    covered = {one["reference"] for made in _of(conversion, "Provenance") for one in made["target"]}
    for resource in conversion.resources:
        if resource["resourceType"] in ("Observation", "DocumentReference"):
            assert f"{resource['resourceType']}/{resource['id']}" in covered
            assert "#/ClinicalDocument" in resource["meta"]["source"]
    weight = _loinc(conversion, "29463-7")["meta"]["source"]
    assert weight.endswith("/component[1]/section/entry/organizer/component[1]/observation")
    urn = _of(conversion, "Provenance")[0]["entity"][0]["what"]["identifier"]["value"]
    assert weight.startswith(f"{urn}#")


def test_the_document_itself_is_kept_byte_for_byte(read, case):
    """DocumentReference points at a Binary with the bytes as they came."""
    conversion = read("clinic-vitals")
    document, binary = _of(conversion, "DocumentReference")[0], _of(conversion, "Binary")[0]
    assert document["content"][0]["attachment"]["url"] == f"Binary/{binary['id']}"
    assert base64.b64decode(binary["data"]) == case("clinic-vitals")
    assert document["date"] == "2026-01-15T10:15:00-05:00"


def test_the_patient_has_the_identifiers_and_the_pcp_of_the_header(read):
    """MBI without dashes under CMS's system, us-core-patient, race and ethnicity, general practitioner."""
    conversion = read("clinic-vitals")
    patient = conversion.patient
    mbi = {"system": "http://terminology.hl7.org/NamingSystem/cmsMBI", "value": "1EG4TE5MK73"}
    assert mbi in patient["identifier"]
    assert _profiles(patient) == ["us-core-patient|6.1.0"]
    assert (patient["birthDate"], patient["gender"]) == ("1952-03-04", "female")
    assert patient["_birthDate"]["extension"][0]["valueDateTime"] == "1952-03-04T06:11:00-05:00"
    doctor = patient["generalPractitioner"][0]["reference"].partition("/")[2]
    names = {one["id"]: one["name"][0]["family"] for one in _of(conversion, "Practitioner")}
    assert names[doctor] == "Ibarra"
    race = next(one for one in patient["extension"] if one["url"].endswith("us-core-race"))
    assert [part["url"] for part in race["extension"]] == ["ombCategory", "detailed", "text"]
    assert conversion.control_id == "2.16.840.1.113883.3.9999.77|visit-1"


def test_weight_bmi_and_waist_keep_value_unit_and_time(read):
    """The source's digits and offset; UCUM for a unit that is known; the profile that is met."""
    conversion = read("clinic-vitals")
    weight, waist = _loinc(conversion, "29463-7"), _loinc(conversion, "56086-2")
    assert weight["valueQuantity"]["value"] == Decimal("187.50")
    assert (weight["valueQuantity"]["unit"], weight["valueQuantity"]["code"]) == ("lbs", "[lb_av]")
    assert weight["effectiveDateTime"] == "2026-01-15T09:45:00-05:00"
    assert _profiles(weight) == ["us-core-body-weight|6.1.0"]
    assert _profiles(_loinc(conversion, "39156-5")) == ["us-core-bmi|6.1.0"]
    assert _profiles(waist) == ["us-core-observation-clinical-result|6.1.0"]


def test_systolic_and_diastolic_of_one_organizer_are_one_blood_pressure(read):
    """One 85354-9 with two components and no value; both entry ids stay as identifiers."""
    pressure = _loinc(read("clinic-vitals"), "85354-9")
    assert [part["valueQuantity"]["value"] for part in pressure["component"]] == [138, 86]
    assert "valueQuantity" not in pressure
    assert len(pressure["identifier"]) == 2
    assert _profiles(pressure) == ["us-core-blood-pressure|6.1.0"]


def _reading(code, value, when):
    return (
        '<entry><organizer classCode="CLUSTER" moodCode="EVN"><templateId root="2.16.840.1.113883.10.20.22.4.26"/>'
        '<component><observation classCode="OBS" moodCode="EVN">'
        f'<code code="{code}" codeSystem="2.16.840.1.113883.6.1"/>'
        f'<statusCode code="completed"/><effectiveTime value="{when}"/>'
        f'<value xsi:type="PQ" value="{value}" unit="mm[Hg]"/></observation></component></organizer></entry>'
    )


def test_pressures_of_different_organizers_pair_by_equal_time(of):
    """Vendors write one organizer an observation: equal times are one reading, others never are."""
    entries = _reading("8480-6", 130, "20260101") + _reading("8480-6", 140, "20260102")
    entries += _reading("8462-4", 90, "20260102") + _reading("8462-4", 80, "20260101")
    found = _of(of("8716-3", entries), "Observation")
    pairs = [tuple(int(part["valueQuantity"]["value"]) for part in one["component"]) for one in found]
    assert sorted(pairs) == [(130, 80), (140, 90)]


def test_half_a_pressure_is_kept_and_said(of):
    """A systolic without a diastolic of its time is no blood pressure; it is not dropped either."""
    conversion = of("8716-3", _reading("8480-6", 130, "20260101") + _reading("8462-4", 80, "20260102"))
    assert sorted(one["code"]["coding"][0]["code"] for one in _of(conversion, "Observation")) == ["8462-4", "8480-6"]
    assert [issue.code for issue in conversion.issues] == ["incomplete", "incomplete"]


def test_what_was_not_observed_is_no_result(read):
    """negationInd makes no Observation; the account says where it stands."""
    conversion = read("clinic-vitals")
    assert all(one["code"]["coding"][0]["code"] != "8867-4" for one in _of(conversion, "Observation"))
    assert any("negationInd" in one.reason for one in conversion.unmapped)


def test_problems_become_conditions_with_status_codes_and_text(read):
    """Codes of value and translation, text of the narrative; an end rules out active; negation is refuted."""
    diabetes, asthma, kidney, visit = _of(read("care-summary"), "Condition")
    assert [one["code"] for one in diabetes["code"]["coding"]] == ["44054006", "E11.9"]
    assert diabetes["code"]["text"] == "Type 2 diabetes, poorly controlled"
    assert diabetes["clinicalStatus"]["coding"][0]["code"] == "active"
    assert (asthma["clinicalStatus"]["coding"][0]["code"], asthma["abatementDateTime"]) == ("resolved", "2023-03-01")
    assert kidney["verificationStatus"]["coding"][0]["code"] == "refuted"
    assert "clinicalStatus" not in kidney
    assert visit["category"][0]["coding"][0]["code"] == "encounter-diagnosis"


def test_no_known_problems_is_no_condition(of):
    """A negated "problem" states that none is known; it is no refuted problem."""
    inner = (
        '<observation classCode="OBS" moodCode="EVN" negationInd="true">'
        '<templateId root="2.16.840.1.113883.10.20.22.4.4"/>'
        '<value xsi:type="CD" code="55607006" codeSystem="2.16.840.1.113883.6.96"/></observation>'
    )
    act = '<entry><act classCode="ACT" moodCode="EVN"><templateId root="2.16.840.1.113883.10.20.22.4.3"/>'
    conversion = of("11450-4", f'{act}<entryRelationship typeCode="SUBJ">{inner}</entryRelationship></act></entry>')
    assert _of(conversion, "Condition") == []
    assert [one.kind for one in conversion.unmapped] == ["left"]


def test_results_become_a_report_and_its_observations(read):
    """Reference range, interpretation, comparator, absent value; the report has its results' and its author's time."""
    conversion = read("care-summary")
    report, ldl = _of(conversion, "DiagnosticReport")[0], _loinc(conversion, "13457-7")
    assert (report["effectiveDateTime"], report["issued"]) == ("2026-02-04T08:30:00-05:00", "2026-02-05T12:00:00-05:00")
    assert _profiles(report) == ["us-core-diagnosticreport-lab|6.1.0"]
    assert ldl["referenceRange"][0]["high"]["value"] == 99
    uacr = _loinc(conversion, "14959-1")["valueQuantity"]
    assert (uacr["comparator"], uacr["value"], uacr["unit"]) == ("<", 5, "mgAlb/gCre")
    egfr = _loinc(conversion, "98979-8")
    assert egfr["dataAbsentReason"]["coding"][0]["code"] == "masked"


def test_a_scale_nested_in_another_section_becomes_answers_and_a_score(read):
    """GAD-7 in Social History: a response with the answers, a PCO score derived from it, the sum checked."""
    conversion = read("care-summary")
    response, score = _of(conversion, "QuestionnaireResponse")[0], _loinc(conversion, "70274-6")
    assert score["valueQuantity"]["value"] == 9
    assert _profiles(score) == ["pco-prom-score-observation"]
    assert score["derivedFrom"] == [{"reference": f"QuestionnaireResponse/{response['id']}"}]
    assert len(response["item"]) == 8
    assert response["item"][-1] == {"linkId": "/70274-6", "answer": [{"valueDecimal": 9}]}
    first = response["item"][0]["answer"][0]["valueCoding"]
    assert (first["code"], first["extension"][0]["valueDecimal"]) == ("LA6569-3", 1)
    assert any("not the sum" in issue.text for issue in conversion.issues)


def test_a_scale_whose_total_is_the_sum_is_not_remarked(case):
    """1 + 2 + 2 + 1 + 0 + 1 + 0 = 7."""
    data = case("care-summary").replace(b'<value xsi:type="INT" value="9"/>', b'<value xsi:type="INT" value="7"/>')
    assert not any("not the sum" in issue.text for issue in convert(data, Source("ab" * 32, NOW)).issues)


def test_a_goal_with_a_start_is_a_pco_goal_and_one_without_is_not(read):
    """startDate decides the profile; a comparator, a due date, the patient's own words and the problem are kept."""
    sugar, weight = _of(read("care-summary"), "Goal")
    assert _profiles(sugar) == ["pco-goal-profile"]
    target = sugar["target"][0]
    assert (target["detailQuantity"]["comparator"], target["detailQuantity"]["value"]) == ("<", Decimal("7.0"))
    assert (sugar["startDate"], target["dueDate"]) == ("2026-02-10", "2026-08-10")
    assert sugar["expressedBy"]["reference"].startswith("Patient/")
    assert sugar["addresses"][0]["reference"].startswith("Condition/")
    assert (_profiles(weight), weight["target"][0]["dueDate"]) == (["us-core-goal|6.1.0"], "2026-08-01")


def test_the_plan_of_treatment_is_a_care_plan_with_its_narrative(read):
    """Goals and requests of the section are linked; the narrative is XHTML without the document's attributes."""
    conversion = read("care-summary")
    plan = _of(conversion, "CarePlan")[0]
    assert len(plan["goal"]) == 2
    assert plan["activity"][0]["reference"]["reference"].startswith("ServiceRequest/")
    assert "onload" not in plan["text"]["div"]
    assert '<td colspan="2">Next visit</td>' in plan["text"]["div"]
    assert _of(conversion, "ServiceRequest")[0]["intent"] == "order"


def test_an_encounter_has_class_type_and_diagnosis(read):
    """CPT 99213 is ambulatory; a single time is a visit that ended."""
    visit = _of(read("care-summary"), "Encounter")[0]
    assert (visit["class"]["code"], visit["status"]) == ("AMB", "finished")
    assert visit["diagnosis"][0]["condition"]["reference"].startswith("Condition/")


def test_smoking_status_claims_its_profile(read):
    """72166-2 in Social History."""
    assert _profiles(_loinc(read("care-summary"), "72166-2")) == ["us-core-smokingstatus|6.1.0"]


def test_the_account_names_all_that_no_resource_carries(read):
    """Nameless medications, unknown entries, empty sections and left children, each with place and reason."""
    vitals, summary = read("clinic-vitals"), read("care-summary")
    assert any(one.location.endswith("/substanceAdministration") and one.kind == "bad" for one in vitals.unmapped)
    kinds = {one.location.rpartition("/")[2]: one.kind for one in summary.unmapped}
    left = {"specimen", "code", "section", "effectiveTime", "time"}
    assert kinds == dict.fromkeys(left, "left") | {"supply": "unknown"}


@pytest.mark.parametrize("mood", ["INT", "RQO", "PRMS", "ARQ", "APT"])
def test_a_planned_observation_is_no_fact(of, mood):
    """Only mood EVN is a fact: a planned weight is a request, never a weight."""
    entry = (
        f'<entry><observation classCode="OBS" moodCode="{mood}">'
        '<code code="29463-7" codeSystem="2.16.840.1.113883.6.1"/>'
        '<statusCode code="active"/><value xsi:type="PQ" value="80" unit="kg"/></observation></entry>'
    )
    conversion = of("8716-3", entry)
    assert _of(conversion, "Observation") == []
    assert len(_of(conversion, "ServiceRequest")) == 1


def test_a_more_specific_code_is_joined_by_the_profiles_own(of):
    """3141-9 stays first; 29463-7 is added, as FHIR's vital signs ask."""
    entry = (
        '<entry><observation classCode="OBS" moodCode="EVN"><code code="3141-9" codeSystem="2.16.840.1.113883.6.1"/>'
        '<statusCode code="completed"/><effectiveTime value="20260101"/>'
        '<value xsi:type="PQ" value="80" unit="kg"/></observation></entry>'
    )
    weight = _of(of("8716-3", entry), "Observation")[0]
    assert [one["code"] for one in weight["code"]["coding"]] == ["3141-9", "29463-7"]


def test_a_unit_that_a_profile_does_not_take_costs_the_claim(of):
    """A weight in stones is a vital sign, but no us-core-body-weight; without any time it claims nothing."""
    entry = (
        '<entry><observation classCode="OBS" moodCode="EVN"><code code="29463-7" codeSystem="2.16.840.1.113883.6.1"/>'
        '<statusCode code="completed"/><value xsi:type="PQ" value="12" unit="stones"/></observation></entry>'
    )
    weight = _of(of("8716-3", entry), "Observation")[0]
    assert _profiles(weight) == []
    assert weight["valueQuantity"] == {"value": Decimal(12), "unit": "stones"}


def test_repeated_entry_ids_do_not_merge(of):
    """Vendors repeat ids: two entries stay two resources."""
    entries = (_reading("8867-4", 70, "20260101") + _reading("8867-4", 75, "20260102")).replace(
        "<statusCode", '<id root="1.2.3.9" extension="same"/><statusCode'
    )
    found = _of(of("8716-3", entries), "Observation")
    assert len({one["id"] for one in found}) == 2


def test_an_unstructured_document_is_kept_and_nothing_is_read_from_it(case, wrap):
    """nonXMLBody: the header's resources and a second content with the file's place."""
    body = '<nonXMLBody><text mediaType="application/pdf"><reference value="scan.pdf"/></text></nonXMLBody>'
    data = wrap("8716-3", "")
    start, end = data.index(b"<structuredBody>"), data.index(b"</structuredBody>") + len(b"</structuredBody>")
    conversion = convert(data[:start] + body.encode() + data[end:], Source("ab" * 32, NOW))
    contents = _of(conversion, "DocumentReference")[0]["content"]
    assert contents[1]["attachment"] == {"contentType": "application/pdf", "url": "scan.pdf"}
    assert not _of(conversion, "Observation")


def test_an_embedded_file_stays_as_it_is_and_the_earlier_document_is_named(read):
    """A PDF in base64 is a second content; relatedDocument and the order that is answered keep their ids."""
    document = _of(read("scanned"), "DocumentReference")[0]
    scan = document["content"][1]["attachment"]
    assert (scan["contentType"], base64.b64decode(scan["data"])[:5]) == ("application/pdf", b"%PDF-")
    assert document["content"][0]["format"]["code"].endswith("ccda-nonXMLBody:2.1")
    earlier = document["relatesTo"][0]
    assert (earlier["code"], earlier["target"]["identifier"]["value"][-4:]) == ("appends", "2000")
    order = document["context"]["related"][0]["identifier"]
    assert order == {"system": "urn:oid:2.16.840.1.113883.3.9999.60", "value": "referral-7"}


def test_a_replacement_names_what_it_replaces(read):
    """relatedDocument RPLC, setId as identifier."""
    document = _of(read("care-plan"), "DocumentReference")[0]
    assert document["relatesTo"][0]["code"] == "replaces"
    assert document["identifier"] == [{"system": "urn:oid:2.16.840.1.113883.3.9999.78", "value": "plan"}]


def test_a_plain_observation_in_a_section_of_another_kind_is_a_survey(of):
    """Found by 100,000 mutations: the section's category need not be one of observations."""
    entry = (
        '<entry><observation classCode="OBS" moodCode="EVN"><templateId root="2.16.840.1.113883.10.20.22.4.67"/>'
        '<code code="54522-8" codeSystem="2.16.840.1.113883.6.1"/><value xsi:type="ST">walks</value>'
        "</observation></entry>"
    )
    for section in ("11450-4", "75310-3", "46240-8", "99999-9"):
        found = _of(of(section, entry), "Observation")[0]
        assert found["category"][0]["coding"][0]["code"] == "survey"


def test_two_like_rows_without_ids_stay_two(read):
    """Equal code, time and value, no id: the place tells them apart."""
    found = [one for one in _of(read("legacy"), "Observation") if one["code"]["coding"][0]["code"] == "4548-4"]
    assert len({one["id"] for one in found}) == 2


def test_goals_outcomes_and_interventions_are_linked_by_their_ids(read):
    """GEVL and RSON pointers become focus, achievement, reason and supporting goal; the plan holds both goals."""
    conversion = read("care-plan")
    pressure, mood = _of(conversion, "Goal")
    measured = next(one for one in _of(conversion, "Observation") if one.get("valueQuantity", {}).get("value") == 127)
    assert measured["focus"] == [{"reference": f"Goal/{pressure['id']}"}]
    assert pressure["outcomeReference"] == [{"reference": f"Observation/{measured['id']}"}]
    assert pressure["achievementStatus"]["coding"][0]["code"] == "achieved"
    assert mood["achievementStatus"]["coding"][0]["code"] == "in-progress"
    assert mood["expressedBy"]["reference"].startswith("Patient/")
    request = _of(conversion, "ServiceRequest")[0]
    assert request["supportingInfo"] == [{"reference": f"Goal/{pressure['id']}"}]
    assert request["reasonReference"][0]["reference"].startswith("Condition/")


def test_a_medicine_keeps_its_code_words_dose_and_times(read):
    """What is taken is a reported plan; twice a day is once in 12 hours; the sig is the patient's instruction."""
    taken, planned = _of(read("chart"), "MedicationRequest")
    assert (taken["intent"], taken["reportedBoolean"], planned["intent"]) == ("plan", True, "order")
    dosage = taken["dosageInstruction"][0]
    assert dosage["text"] == "One tablet twice a day"
    repeat = {"boundsPeriod": {"start": "2025-01-01"}, "frequency": 1, "period": 12, "periodUnit": "h"}
    assert dosage["timing"]["repeat"] == repeat
    assert taken["medicationCodeableConcept"]["text"] == "Lisinopril 10 MG Oral Tablet"


def test_an_allergy_keeps_its_reaction_and_none_known_has_a_code(read):
    """Manifestation with severity; a negated allergy to food in general is "no known food allergy"."""
    penicillin, none = _of(read("chart"), "AllergyIntolerance")
    assert (penicillin["category"], penicillin["criticality"]) == (["medication"], "high")
    assert penicillin["reaction"][0]["severity"] == "moderate"
    assert none["code"]["coding"][0]["code"] == "429625007"


def test_a_note_keeps_its_text_type_author_and_time(read):
    """The referenced narrative as text/plain, the translation as type."""
    note = _of(read("chart"), "DocumentReference")[1]
    assert base64.b64decode(note["content"][0]["attachment"]["data"]) == b"Slept well; pain less."
    assert (note["type"]["coding"][0]["code"], note["date"]) == ("34746-8", "2026-04-01T21:00:00-04:00")


def test_a_document_without_a_patient_is_refused():
    """Nobody's data are nobody's record."""
    conversion = convert(b'<ClinicalDocument xmlns="urn:hl7-org:v3"/>', Source("ab" * 32, NOW))
    assert conversion.patient is None
    assert conversion.resources == ()
    assert [issue.severity for issue in conversion.issues] == [Severity.FATAL]


def test_no_value_of_the_document_stands_in_issues_or_account(case):
    """No PHI: names, ids and dates of the patient are in no text and no location."""
    for name in CASES:
        conversion = convert(case(name).replace(b"20260204083000", b"2026020408300"), Source("ab" * 32, NOW))
        said = json.dumps([[one.location, one.text] for one in conversion.issues])
        said += json.dumps([[one.location, one.reason] for one in conversion.unmapped])
        for secret in ("Quill", "Lindqvist", "1EG4", "MRN-88", "1952", "1949", "20260204"):
            assert secret not in said
