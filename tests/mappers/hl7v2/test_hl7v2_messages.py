"""Messages other than plain results: admissions, merges, documents, referrals, and what surrounds the results."""

import hashlib
from base64 import b64encode
from typing import Any

import pytest

from mappers.conversion import Conversion, Source
from mappers.hl7v2 import ack_code, convert
from profiles.validate import validate

AT = "20260901080000-0400"
PID = "PID|1||MRN-2^^^ORG&2.16.840.1.113883.3.9999.20&ISO^MR||Doe^Jo^^^^^L||19500101|F"
DOCTOR = "1234567893^Okafor^Ngozi^^^^MD^^NPI&2.16.840.1.113883.4.6&ISO^L^^^NPI"
PRACTICE = "Example Practice^L^^^^NPI&2.16.840.1.113883.4.6&ISO^NPI^^^1234567893"
OBR = f"OBR|1||F-1^GATE|57698-3^Lipid panel^LN|||{AT}|||||||||||||||{AT}|||F"


def message(kind: str, *segments: str, version: str = "2.5.1") -> Conversion:
    """A message of a kind (`ADT^A08`) with one patient and these segments, converted; its output is always valid."""
    head = f"MSH|^~\\&|GATE|DEV|FACADE|ORG|{AT}||{kind}|M1|P|{version}"
    data = "\r".join([head, PID, *segments]).encode()
    result = convert(data, Source(hashlib.sha256(data).hexdigest(), "2026-09-10T12:00:00Z"))
    for resource in filter(None, (result.patient, *result.resources)):
        assert [issue for issue in validate(resource) if issue.is_error] == []
    return result


def of(result: Conversion, kind: str) -> list[dict[str, Any]]:
    """The resources of a type."""
    return [each for each in result.resources if each["resourceType"] == kind]


def segment(name: str, **fields: str) -> str:
    """A segment with only these fields: `segment("PR1", f3="…")`."""
    numbered = {int(key[1:]): value for key, value in fields.items()}
    return "|".join([name, *(numbered.get(index, "") for index in range(1, max(numbered) + 1))])


# --- ADT ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("event", "status"), [("A01", "in-progress"), ("A03", "finished"), ("A04", "planned"), ("A08", "unknown")]
)
def test_the_event_says_how_the_encounter_stands(event: str, status: str) -> None:
    """HL7 v2-to-FHIR: Encounter.status by trigger event."""
    (encounter,) = of(message(f"ADT^{event}", segment("PV1", f2="O", f19="V-1")), "Encounter")
    assert (encounter["status"], encounter["class"]["code"]) == (status, "AMB")


@pytest.mark.parametrize("event", ["A28", "A31"])
def test_person_updates_make_no_encounter(event: str) -> None:
    """A28 and A31 are about the person: a DG1 is a problem, a PV1 no visit."""
    result = message(f"ADT^{event}", segment("PV1", f2="O", f19="V-1"), segment("DG1", f3="I10^Hypertension^I10C"))
    assert of(result, "Encounter") == []
    assert of(result, "Condition")[0]["category"][0]["coding"][0]["code"] == "problem-list-item"
    assert ("PV1[1]-19", "left") in {(each.location, each.kind) for each in result.unmapped}


@pytest.mark.parametrize("kind", ["ADT^A08", "ADT^A31", "REF^I12"])
def test_allergies_are_taken(kind: str) -> None:
    """AL1 as us-core-allergyintolerance: category by table 0127, reactions with the severity of table 0128."""
    al1 = segment("AL1", f1="1", f2="DA", f3="7980^Penicillin G^RXNORM", f4="SV", f5="hives~shock", f6="20100501")
    (found,) = of(message(kind, al1), "AllergyIntolerance")
    assert found["category"] == ["medication"]
    assert found["code"]["coding"][0]["system"] == "http://www.nlm.nih.gov/research/umls/rxnorm"
    assert found["reaction"] == [{"manifestation": [{"text": "hives"}, {"text": "shock"}], "severity": "severe"}]
    assert found["onsetDateTime"] == "2010-05-01"
    assert found["meta"]["profile"] == [
        "http://hl7.org/fhir/us/core/StructureDefinition/us-core-allergyintolerance|6.1.0"
    ]


def test_a_severity_without_a_reaction_is_said_and_not_placed() -> None:
    """R4 has no severity of an allergy as such: nothing is guessed, the account and an Issue name the field."""
    result = message("ADT^A08", segment("AL1", f2="FA", f3="^Peanut", f4="MO"))
    (found,) = of(result, "AllergyIntolerance")
    assert (found["code"], found["category"], "reaction" in found) == ({"text": "Peanut"}, ["food"], False)
    assert [issue.location for issue in result.issues] == ["AL1[1]-4"]
    assert "AL1[1]-4" in {each.location for each in result.unmapped}


def test_an_allergy_to_nothing_is_an_error() -> None:
    """AL1-3 is required; nothing is made of the row."""
    result = message("ADT^A08", segment("AL1", f2="DA"))
    assert of(result, "AllergyIntolerance") == []
    assert [issue.location for issue in result.issues if issue.is_error] == ["AL1[1]-3"]


def test_procedures_are_taken() -> None:
    """PR1 as us-core-procedure: done if it has a time, else its status is not known."""
    done = segment("PR1", f3="27447^Total knee arthroplasty^C4", f5="20240310", f11=DOCTOR)
    planned = segment("PR1", f3="0SRD0J9^Knee^I10P")
    wrong = segment("PR1", f3="0SRD0J9^Knee^I10P", f5="20240311", f20="D")
    first, second, third = of(message("ADT^A08", done, planned, wrong), "Procedure")
    assert (first["status"], first["performedDateTime"]) == ("completed", "2024-03-10")
    assert first["performer"][0]["actor"]["reference"].startswith("Practitioner/")
    assert (second["status"], second["code"]["coding"][0]["system"]) == (
        "unknown",
        "http://www.cms.gov/Medicare/Coding/ICD10",
    )
    assert third["status"] == "entered-in-error"


# --- Who the primary care provider is -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "row",
    [
        segment("ROL", f2="AD", f3="PP^^HL70443", f4=DOCTOR),
        segment("PRT", f2="AD", f4="PP^Primary care provider^HL70912", f5=DOCTOR),
        segment("PD1", f4=DOCTOR),
    ],
)
def test_the_primary_care_provider_alone_is_a_practitioner(row: str) -> None:
    """ROL-3, PRT-4 or PD1-4: the same person as the same resource."""
    result = message("ADT^A08", row)
    (doctor,) = of(result, "Practitioner")
    assert result.patient is not None
    assert result.patient["generalPractitioner"] == [{"reference": f"Practitioner/{doctor['id']}"}]


@pytest.mark.parametrize(
    "row",
    [
        segment("ROL", f2="UP", f3="PP", f4=DOCTOR, f5="20250101", f12="^WPN^PH^^1^419^5550100", f14=PRACTICE),
        segment("PRT", f2="UP", f4="PP", f5=DOCTOR, f8=PRACTICE, f11="20250101", f15="^WPN^PH^^1^419^5550100"),
    ],
)
def test_the_primary_care_provider_in_a_practice_is_a_role(row: str) -> None:
    """With organization, time or telephone: us-core-practitionerrole."""
    result = message("ADT^A08", row)
    (role,) = of(result, "PractitionerRole")
    assert result.patient is not None
    assert result.patient["generalPractitioner"] == [{"reference": f"PractitionerRole/{role['id']}"}]
    assert role["period"] == {"start": "2025-01-01"}
    assert role["telecom"][0]["value"] == "+1 419 5550100"
    assert {role["practitioner"]["reference"], role["organization"]["reference"]} == {
        f"{each['resourceType']}/{each['id']}" for each in (*of(result, "Practitioner"), *of(result, "Organization"))
    }
    assert role["meta"]["profile"] == ["http://hl7.org/fhir/us/core/StructureDefinition/us-core-practitionerrole|6.1.0"]


@pytest.mark.parametrize(
    "row",
    [
        segment("ROL", f2="AD", f3="AT^^HL70443", f4=DOCTOR),
        segment("ROL", f2="DE", f3="PP^^HL70443", f4=DOCTOR),
        segment("PRT", f2="DE", f4="PP", f5=DOCTOR),
        segment("PRT", f2="AD", f4="OP", f5=DOCTOR),
    ],
)
def test_other_roles_and_ended_ones_are_left_with_the_reason(row: str) -> None:
    """Nobody becomes the patient's doctor by another role; the account lists each field."""
    result = message("ADT^A08", row)
    assert result.patient is not None
    assert "generalPractitioner" not in result.patient
    assert of(result, "Practitioner") == []
    left = {each.location for each in result.unmapped if each.kind == "left" and each.location.startswith(row[:3])}
    assert left == {f"{row[:3]}[1]-{index}" for index, value in enumerate(row.split("|")) if index and value}


# --- Merges ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("event", ["A34", "A40"])
def test_a_merge_links_both_records(event: str) -> None:
    """The record of MRG is not active any more and is replaced by that of PID (FHIR R4 Patient.link)."""
    mrg = segment("MRG", f1="MRN-1^^^ORG&2.16.840.1.113883.3.9999.20&ISO^MR", f7="Doe^J")
    result = message(f"ADT^{event}", "EVN|A40", mrg)
    (other,) = of(result, "Patient")
    assert result.patient is not None
    assert (other["active"], other["identifier"][0]["value"], other["name"]) == (
        False,
        "MRN-1",
        [{"family": "Doe", "given": ["J"]}],
    )
    assert other["link"] == [{"other": {"reference": f"Patient/{result.patient['id']}"}, "type": "replaced-by"}]
    assert result.patient["link"] == [{"other": {"reference": f"Patient/{other['id']}"}, "type": "replaces"}]


def test_a_merged_record_has_the_id_that_its_own_messages_give() -> None:
    """So the link leads to the record that earlier messages made."""
    mrg = segment("MRG", f1="MRN-2^^^ORG&2.16.840.1.113883.3.9999.20&ISO^MR")
    earlier = message("ADT^A08").patient
    data = "\r".join([f"MSH|^~\\&|GATE|DEV|FACADE|ORG|{AT}||ADT^A40|M2|P|2.5.1", PID.replace("MRN-2", "MRN-3"), mrg])
    later = convert(data.encode(), Source("0" * 64, "2026-09-10T12:00:00Z"))
    assert earlier is not None
    assert [each["id"] for each in of(later, "Patient")] == [earlier["id"]]


def test_a_merge_into_itself_or_of_nothing_is_an_error() -> None:
    """MRG-1 must name another record."""
    for prior in ("MRN-2^^^ORG&2.16.840.1.113883.3.9999.20&ISO^MR", ""):
        result = message("ADT^A40", f"MRG|{prior}||||||Doe^J")
        assert [issue.location for issue in result.issues if issue.is_error] == ["MRG[1]-1"]
        assert ack_code(result.issues) == "AE"


def test_a_merge_without_the_replaced_record_is_an_error() -> None:
    """No MRG: nothing is merged, and the sender is told."""
    result = message("ADT^A40")
    assert [issue.location for issue in result.issues if issue.is_error] == ["MRG[1]"]


# --- Order of segments ----------------------------------------------------------------------------------------------
def test_results_after_the_specimen_belong_to_the_report_before_it() -> None:
    """OBX after SPM, as in 2.5.1's specimen group and in what senders write."""
    rows = [segment("OBX", f2="NM", f3="2093-3^x^LN", f5="1", f11="F"), segment("SPM", f1="1", f4="BLD")]
    rows.append(segment("OBX", f2="NM", f3="2571-8^y^LN", f5="2", f11="F"))
    result = message("ORU^R01", OBR, *rows)
    assert len(of(result, "DiagnosticReport")[0]["result"]) == 2
    assert all(each["category"][0]["coding"][0]["code"] == "laboratory" for each in of(result, "Observation"))


@pytest.mark.parametrize("kind", ["ADT^A04", "ORU^R01"])
def test_results_before_the_visit_are_taken(kind: str) -> None:
    """OBX before PV1: out of order, and nothing is lost."""
    weight = segment("OBX", f1="1", f2="NM", f3="29463-7^Body weight^LN", f5="80", f6="kg", f11="F", f14=AT)
    result = message(kind, weight, segment("PV1", f2="O", f19="V-1"))
    assert of(result, "Observation")[0]["valueQuantity"]["value"] == 80
    assert len(of(result, "Encounter")) == 1


def test_a_report_without_results_is_a_report() -> None:
    """OBR without OBX: a DiagnosticReport without result."""
    result = message("ORU^R01", OBR, OBR.replace("F-1", "F-2"))
    assert len(of(result, "DiagnosticReport")) == 2
    assert not any("result" in each for each in of(result, "DiagnosticReport"))


def test_a_note_after_the_patient_is_left_with_the_reason() -> None:
    """NTE after PID in ORU has no target in the guide."""
    result = message("ORU^R01", "NTE|1||Lives alone", OBR)
    assert ("NTE[1]-3", "left") in {(each.location, each.kind) for each in result.unmapped}
    assert "conclusion" not in of(result, "DiagnosticReport")[0]


# --- Documents and referrals ----------------------------------------------------------------------------------------
def test_a_document_in_a_document_message_is_its_content() -> None:
    """MDM^T02 with ED: DocumentReference with the bytes as they came."""
    pdf = b64encode(b"%PDF-1.4 invented").decode()
    obx = segment(
        "OBX", f1="1", f2="ED", f3="18842-5^Discharge summary^LN", f5=f"^application^pdf^Base64^{pdf}", f11="F"
    )
    (found,) = of(message("MDM^T02", segment("TXA", f1="1", f2="DS", f12="D-1", f17="AU"), obx), "DocumentReference")
    assert found["content"] == [{"attachment": {"contentType": "application/pdf", "data": pdf}}]
    assert (found["status"], found["docStatus"]) == ("current", "final")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("QUJD", "QUJD"),
        ("QU JD", "QUJD"),
        ("QUI=", "QUI="),
        ("QUJD=", None),
        ("QU=D", None),
        ("====", None),
        ("", None),
    ],
)
def test_a_documents_base64_is_whole_or_refused(sent: str, kept: str | None) -> None:
    """Four characters at a time, padding at the end alone, as FHIR writes it; blanks are dropped."""
    obx = segment("OBX", f1="1", f2="ED", f3="18842-5^Discharge summary^LN", f5=f"^application^pdf^Base64^{sent}")
    result = message("MDM^T02", segment("TXA", f1="1", f2="DS", f12="D-1", f17="AU"), obx)
    found = [each["attachment"]["data"] for one in of(result, "DocumentReference") for each in one["content"]]
    assert found == ([kept] if kept else [])
    assert any(issue.is_error for issue in result.issues) is (kept is None)


@pytest.mark.parametrize(
    ("status", "expected"),
    [("F", ("current", "final")), ("C", ("current", "amended")), ("W", ("entered-in-error",) * 2)],
)
def test_a_document_in_a_result_is_a_document(status: str, expected: tuple[str, str]) -> None:
    """ORU with ED: the bytes once, as Binary; DocumentReference and the Observation's R5 value name its address."""
    pdf = b64encode(b"%PDF-1.4 invented").decode()
    obx = segment("OBX", f2="ED", f3="11502-2^Laboratory report^LN", f5=f"^application^pdf^Base64^{pdf}", f11=status)
    result = message("ORU^R01", OBR, obx)
    ((binary,), (document,), (observation,)) = (of(result, k) for k in ("Binary", "DocumentReference", "Observation"))
    assert (binary["contentType"], binary["data"]) == ("application/pdf", pdf)
    where = {"contentType": "application/pdf", "url": f"Binary/{binary['id']}"}
    assert observation["extension"][0]["valueAttachment"] == where
    assert document["content"] == [{"attachment": where}]
    assert document["context"]["related"] == [{"reference": f"Observation/{observation['id']}"}]
    assert (document["status"], document["docStatus"]) == expected


def test_two_documents_of_one_result_are_two() -> None:
    """A repeated ED: a component, a Binary and a DocumentReference each."""
    obx = segment("OBX", f2="ED", f3="X^x^L", f5="^text^plain^A^one~^text^plain^A^two", f11="F")
    result = message("ORU^R01", OBR, obx)
    assert len({each["id"] for each in of(result, "Binary")}) == 2
    assert len({each["id"] for each in of(result, "DocumentReference")}) == 2


def test_a_pointer_in_a_result_is_kept_as_url() -> None:
    """RP: the R5 value as extension (HL7 v2-to-FHIR), never fetched."""
    obx = segment("OBX", f1="1", f2="RP", f3="X^x^L", f5="https://pacs.example/1^^application^pdf", f11="F")
    (found,) = of(message("ORU^R01", OBR, obx), "Observation")
    assert found["extension"][0]["valueAttachment"] == {
        "contentType": "application/pdf",
        "url": "https://pacs.example/1",
    }


def test_a_referral_names_who_refers_and_who_is_referred_to() -> None:
    """REF^I12: RF1 as ServiceRequest, PRD by role; no map in the guide, ours."""
    rf1 = segment("RF1", f1="A", f2="R", f6="R-1^CLINIC", f10="^Knee pain")
    providers = [f"PRD|{role}|{name}|||||{number}^NPI" for role, name, number in (
        ("RP", "Okafor^Ngozi", "1234567893"), ("RT", "Lee^Sam", "1003000126"), ("PP", "Okafor^Ngozi", "1234567893")
    )]  # fmt: skip
    result = message("REF^I12", rf1, *providers)
    (request,) = of(result, "ServiceRequest")
    first, second = of(result, "Practitioner")
    assert (request["status"], request["priority"], request["intent"]) == ("active", "routine", "order")
    assert request["requester"] == {"reference": f"Practitioner/{first['id']}"}
    assert request["performer"] == [{"reference": f"Practitioner/{second['id']}"}]
    assert result.patient is not None
    assert result.patient["generalPractitioner"] == [request["requester"]]


# --- Versions -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "version", ["2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8", "2.9", ""]
)
def test_the_version_changes_no_result(version: str) -> None:
    """The same segments give the same resources in each version, and without one (which is warned about)."""
    obx = segment("OBX", f1="1", f2="NM", f3="2093-3^x^LN", f5="212", f6="mg/dL", f11="F")
    result, usual = message("ORU^R01", OBR, obx, version=version), message("ORU^R01", OBR, obx)
    assert [each["id"] for each in result.resources[:-1]] == [each["id"] for each in usual.resources[:-1]]
    assert [issue.location for issue in result.issues] == ([] if version else ["MSH[1]-12"])
