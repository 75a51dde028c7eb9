"""ORU^R01 rules that one message each shows: pairing, corrections, numbers, times, statuses, questionnaires."""

import hashlib
from decimal import Decimal
from typing import Any

import pytest

from mappers.conversion import Conversion, Source
from mappers.hl7v2 import ack_code, convert
from profiles.issue import Severity

MSH = "MSH|^~\\&|GATE|DEV|FACADE|ORG|{at}||ORU^R01^ORU_R01|{control}|P|2.5.1"
PID = "PID|1||MRN-1^^^ORG&2.16.840.1.113883.3.9999.20&ISO^MR||Doe^Jo^^^^^L||19500101|F"
OBR = "OBR|1||F-1^GATE|85353-1^Vital signs^LN|||{at}|||||||||||||||{at}|||F"
AT = "20260901080000-0400"


def oru(*rows: str, control: str = "M1", at: str = AT, obr: str = OBR, zone: str | None = None) -> Conversion:
    """An ORU^R01 with one patient, one OBR and these rows, converted."""
    segments = [MSH.format(at=at, control=control), PID, obr.format(at=at), *rows]
    message = "\r".join(segments).encode()
    return convert(message, Source(hashlib.sha256(message).hexdigest(), "2026-09-10T12:00:00Z", zone))


def observations(result: Conversion) -> list[dict[str, Any]]:
    """The Observations of a conversion."""
    return [each for each in result.resources if each["resourceType"] == "Observation"]


def pressure(number: int, code: str, value: str, sub: str = "", status: str = "F", at: str = "") -> str:
    """An OBX with half a blood pressure."""
    return f"OBX|{number}|NM|{code}^x^LN|{sub}|{value}|mm[Hg]|||||{status}|||{at}"


def weight(value: str, kind: str = "NM", status: str = "F", sub: str = "") -> str:
    """An OBX with a body weight."""
    return f"OBX|1|{kind}|29463-7^Body weight^LN|{sub}|{value}|kg^kg^UCUM|||||{status}"


def test_halves_with_the_same_sub_id_are_one_blood_pressure() -> None:
    """8480-6 and 8462-4 with equal OBX-4 become one 85354-9 with two components and no value (US Core)."""
    rows = [pressure(1, "8480-6", "138", "1"), pressure(2, "8480-6", "134", "2")]
    rows += [pressure(3, "8462-4", "82", "2"), pressure(4, "8462-4", "84", "1")]
    found = observations(oru(*rows))
    pairs = [[part["valueQuantity"]["value"] for part in each["component"]] for each in found]
    assert pairs == [[Decimal(138), Decimal(84)], [Decimal(134), Decimal(82)]]
    assert all(each["code"]["coding"][0]["code"] == "85354-9" for each in found)


def test_halves_without_sub_id_pair_by_their_time() -> None:
    """Where OBX-4 is empty, the same OBX-14 makes a pair."""
    rows = [
        pressure(1, "8480-6", "138", at="20260901080000-0400"),
        pressure(2, "8480-6", "134", at="20260901090000-0400"),
    ]
    rows += [
        pressure(3, "8462-4", "82", at="20260901090000-0400"),
        pressure(4, "8462-4", "84", at="20260901080000-0400"),
    ]
    found = observations(oru(*rows))
    assert [each["component"][1]["valueQuantity"]["value"] for each in found] == [Decimal(84), Decimal(82)]


def test_half_a_blood_pressure_says_what_is_absent() -> None:
    """A lone half is kept with dataAbsentReason for the other, and warned about."""
    result = oru(pressure(1, "8462-4", "84"))
    systolic, diastolic = observations(result)[0]["component"]
    assert systolic["dataAbsentReason"]["coding"][0]["code"] == "unknown"
    assert diastolic["valueQuantity"]["value"] == 84
    assert [issue.code for issue in result.issues] == ["incomplete"]


def test_the_more_cautious_status_of_two_halves_holds() -> None:
    """A blood pressure of which one half is wrong is wrong."""
    found = observations(oru(pressure(1, "8480-6", "138"), pressure(2, "8462-4", "84", status="W")))
    assert found[0]["status"] == "entered-in-error"


@pytest.mark.parametrize(
    ("status", "expected"), [("C", "corrected"), ("D", "entered-in-error"), ("W", "entered-in-error")]
)
def test_a_correction_has_the_id_of_the_result_it_corrects(status: str, expected: str) -> None:
    """Same order, OBX-3, OBX-4 and time: OBX-11 C, D and W act on the earlier result (HL7 v2 chapter 7)."""
    first = observations(oru(weight("81.0")))[0]
    second = observations(oru(weight("80.1", status=status), control="M2"))[0]
    assert (second["id"], second["status"]) == (first["id"], expected)


def test_two_like_rows_never_merge() -> None:
    """Equal rows of one message stay two resources."""
    found = observations(oru(weight("81.0"), weight("81.0")))
    assert len({each["id"] for each in found}) == 2


def test_results_without_order_or_time_of_two_messages_never_merge() -> None:
    """Nothing but MSH-10 tells them apart, so it is part of their identity."""
    obr = "OBR|1|||29463-7^Body weight^LN|||||||||||||||||||||F"
    first, second = (observations(oru(weight("81"), control=each, obr=obr))[0] for each in ("M1", "M2"))
    assert first["id"] != second["id"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [("+69.50", "69.50"), ("0065.88", "65.88"), (" 7 ", "7"), ("-1.20", "-1.20"), (".5", "0.5")],
)
def test_numbers_keep_the_digits_of_the_source(written: str, expected: str) -> None:
    """NM is read exactly, as Decimal."""
    assert str(observations(oru(weight(written)))[0]["valueQuantity"]["value"]) == expected


@pytest.mark.parametrize("written", ["eighty", "1e3", "NaN", "Infinity", "8 1", "81,5", "٣", "1" * 41, "0x10", "81kg"])
def test_text_in_a_number_field_gives_no_number(written: str) -> None:
    """NM with text: value absent, an error that names the row, and the message is answered AE."""
    result = oru(weight(written))
    assert "valueQuantity" not in observations(result)[0]
    assert [issue.location for issue in result.issues if issue.severity is Severity.ERROR] == ["OBX[1]-5"]
    assert ack_code(result.issues) == "AE"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (">^90", {"valueQuantity": {"value": Decimal(90), "comparator": ">"}}),
        ("^182", {"valueQuantity": {"value": Decimal(182)}}),
        ("=^5", {"valueQuantity": {"value": Decimal(5)}}),
        ("^1^-^3", {"valueRange": {"low": {"value": Decimal(1)}, "high": {"value": Decimal(3)}}}),
        ("^1^:^128", {"valueRatio": {"numerator": {"value": Decimal(1)}, "denominator": {"value": Decimal(128)}}}),
        ("^2^+", {"valueString": "2+"}),
        ("<>^3", {"valueString": "<>3"}),
    ],
)
def test_structured_numbers(written: str, expected: dict[str, Any]) -> None:
    """SN as Quantity, Range, Ratio or string (HL7 v2-to-FHIR, SN maps)."""
    found = observations(oru(f"OBX|1|SN|X^x^L||{written}||||||F"))[0]
    assert {key: value for key, value in found.items() if key.startswith("value")} == expected


@pytest.mark.parametrize(
    ("kind", "written", "expected"),
    [
        ("ST", "128/82", ("valueString", "128/82")),
        ("TX", "one~two", ("valueString", "one\ntwo")),
        ("FT", "a\\.br\\b \\H\\c\\N\\", ("valueString", "a\nb c")),
        ("DT", "202609", ("valueDateTime", "2026-09")),
        ("TM", "0815", ("valueTime", "08:15:00")),
        (
            "CWE",
            "LA6568-5^Not at all^LN",
            (
                "valueCodeableConcept",
                {"coding": [{"system": "http://loinc.org", "code": "LA6568-5", "display": "Not at all"}]},
            ),
        ),
        ("IS", "POS", ("valueCodeableConcept", {"coding": [{"code": "POS"}]})),
        ("NR", "1^2", ("valueRange", {"low": {"value": Decimal(1)}, "high": {"value": Decimal(2)}})),
        ("DR", "20260901^20260903", ("valuePeriod", {"start": "2026-09-01", "end": "2026-09-03"})),
    ],
)
def test_value_types(kind: str, written: str, expected: tuple[str, Any]) -> None:
    """Each OBX-2 has its value[x]."""
    found = observations(oru(f"OBX|1|{kind}|X^x^L||{written}||||||F"))[0]
    assert (expected[0], found.get(expected[0])) == expected


def test_repeated_values_are_components() -> None:
    """More than one OBX-5 that is not text: one component each (HL7 v2-to-FHIR)."""
    found = observations(oru("OBX|1|NM|X^x^L||1~2|kg^kg^UCUM|||||F"))[0]
    assert [part["valueQuantity"]["value"] for part in found["component"]] == [1, 2]
    assert not any(key.startswith("value") for key in found)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("kg^kg^UCUM", {"unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"}),
        ("lbs", {"unit": "lbs", "system": "http://unitsofmeasure.org", "code": "[lb_av]"}),
        ("mmHg", {"unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"}),
        ("MLMIN", {"unit": "MLMIN"}),
        ("1^ML^METRIC", {"unit": "ML"}),
        ("", {}),
    ],
)
def test_units_are_ucum_only_where_right(unit: str, expected: dict[str, str]) -> None:
    """Another spelling of the same unit gets its UCUM code; an unknown unit stays text, with an Issue."""
    result = oru(f"OBX|1|NM|X^x^L||5|{unit}|||||F")
    found = observations(result)[0]["valueQuantity"]
    assert {key: value for key, value in found.items() if key != "value"} == expected
    assert bool(result.issues) == ("code" not in expected and bool(unit))


def test_a_weight_in_an_unknown_unit_claims_no_weight_profile() -> None:
    """us-core-body-weight allows kg, g and [lb_av] only; the parent profile still holds."""
    found = observations(oru("OBX|1|NM|29463-7^Body weight^LN||12|stone|||||F"))[0]
    assert found["meta"]["profile"] == ["http://hl7.org/fhir/us/core/StructureDefinition/us-core-vital-signs|6.1.0"]


def test_a_score_without_a_number_claims_no_pco_profile() -> None:
    """pco-prom-score-observation wants a Quantity; without one it is a plain screening observation."""
    found = observations(oru("OBX|1|NM|44261-6^PHQ-9 total^LN||||||||X"))[0]
    assert found["meta"]["profile"][0].endswith("us-core-observation-screening-assessment|6.1.0")
    assert found["dataAbsentReason"]["coding"][0]["code"] == "unknown"


@pytest.mark.parametrize(
    ("written", "message_offset", "zone", "expected", "rule"),
    [
        ("20260901080000-0500", "-0400", None, "2026-09-01T08:00:00-05:00", None),
        ("20260901080000", "-0400", None, "2026-09-01T08:00:00-04:00", "MSH-7"),
        ("20260901080000", "", "America/Chicago", "2026-09-01T08:00:00-05:00", "time zone"),
        ("20261101013000", "", "America/Chicago", "2026-11-01", "cut"),
        ("20260308023000", "", "America/Chicago", "2026-03-08", "cut"),
        ("20260901080000", "", None, "2026-09-01", "cut"),
        ("20260901080000", "", "Mars/Olympus", "2026-09-01", "cut"),
        ("2026090108", "-0400", None, "2026-09-01", "cut"),
        ("202609", "-0400", None, "2026-09", None),
        ("20260901080000.1234-0400", "", None, "2026-09-01T08:00:00.1234-04:00", None),
    ],
)
def test_times(written: str, message_offset: str, zone: str | None, expected: str, rule: str | None) -> None:
    """A missing offset comes from MSH-7, else the sender's zone, else the time is cut to its date."""
    row = f"OBX|1|ST|X^x^L||a||||||F|||{written}"
    result = oru(row, at=f"20260901080000{message_offset}", zone=zone, obr="OBR|1||F-1|X^x^L|||||||||||||||||||||F")
    assert observations(result)[0]["effectiveDateTime"] == expected
    said = [issue.text for issue in result.issues]
    assert (rule is None and not said) or any(str(rule) in text for text in said)


@pytest.mark.parametrize(
    "written", ["220241021055726", "20261301", "2026090125", "PIDDOB!", "20260901080000-9900", "20260230"]
)
def test_a_time_that_is_none_is_dropped_and_not_replaced(written: str) -> None:
    """The observation stays, the time does not, and OBR-7 does not stand in for it."""
    result = oru(weight("80").replace("|F", f"|F|||{written}"))
    assert "effectiveDateTime" not in observations(result)[0]
    assert [issue.location for issue in result.issues] == ["OBX[1]-14"]


def test_an_empty_status_is_taken_from_the_report_and_said() -> None:
    """OBX-11 is required; without it OBR-25 stands in, with a warning."""
    result = oru(weight("80", status=""))
    assert observations(result)[0]["status"] == "final"
    assert [issue.location for issue in result.issues] == ["OBX[1]-11"]


def test_a_second_patient_is_refused_and_nothing_is_attributed_to_the_first() -> None:
    """Rows after a second PID never become the first patient's."""
    result = oru(weight("80"), PID.replace("MRN-1", "MRN-2"), OBR.format(at=AT), weight("99"))
    assert [each["valueQuantity"]["value"] for each in observations(result)] == [80]
    assert ack_code(result.issues) == "AE"


def test_a_note_belongs_to_the_row_before_it() -> None:
    """NTE after OBX is its note; NTE after OBR is the report's conclusion."""
    result = oru("NTE|1||Fasting", weight("80"), "NTE|1||Shoes on\\.br\\Dressed")
    report = next(each for each in result.resources if each["resourceType"] == "DiagnosticReport")
    assert report["conclusion"] == "Fasting"
    assert observations(result)[0]["note"] == [{"text": "Shoes on\nDressed"}]


def test_a_null_is_no_value() -> None:
    """`\"\"` says that the value is known to be empty; a snapshot has none."""
    found = observations(oru(weight('""')))[0]
    assert "valueQuantity" not in found
    assert found["dataAbsentReason"]["coding"][0]["code"] == "unknown"


def test_gad7_items_become_a_response_with_the_score_derived_from_it() -> None:
    """One item an OBX, the total as Observation.derivedFrom; GAD-7's second item has its own code for 2."""
    codes = ["69725-0", "68509-9", "69733-4", "69734-2", "69735-9", "69689-8", "69736-7"]
    answers = ["LA6569-3", "LA18938-3", "LA6568-5", "LA6568-5", "LA6571-9", "LA6568-5", "LA6568-5"]
    rows = [
        f"OBX|{n}|CWE|{code}^q^LN||{answer}^a^LN||||||F"
        for n, (code, answer) in enumerate(zip(codes, answers, strict=True))
    ]
    obr = "OBR|1||G-1|69737-5^GAD-7^LN|||{at}|||||||||||||||{at}|||F"
    result = oru(*rows, "OBX|8|NM|70274-6^GAD-7 total^LN||6|{score}^score^UCUM|||||F", obr=obr.replace("{at}", AT))
    response = next(each for each in result.resources if each["resourceType"] == "QuestionnaireResponse")
    assert [item["linkId"] for item in response["item"]] == [f"/{code}" for code in [*codes, "70274-6"]]
    score = observations(result)[0]
    assert score["derivedFrom"] == [{"reference": f"QuestionnaireResponse/{response['id']}"}]
    assert score["meta"]["profile"] == [
        "http://hl7.org/fhir/us/pco/StructureDefinition/pco-prom-score-observation|1.0.0"
    ]
    assert result.issues == ()


def test_each_field_with_a_value_is_mapped_or_accounted_for() -> None:
    """The account names what was left, and a Z segment as unknown."""
    result = oru("OBX|1|NM|29463-7^w^LN||80|kg|||0.9||F||acc", "ZZZ|1|x")
    kinds = {each.location: each.kind for each in result.unmapped}
    assert kinds["OBX[1]-9"] == kinds["OBX[1]-13"] == "left"
    assert kinds["ZZZ[1]-2"] == "unknown"
    assert "OBX[1]-5" not in kinds


@pytest.mark.parametrize(
    ("old", "new", "place", "expected"),
    [
        ("ORU^R01^ORU_R01", "VXU^V04^VXU_V04", "MSH[1]-9.1", "AR"),
        ("ORU^R01^ORU_R01", "ORU^R99", "MSH[1]-9.2", "AR"),
        ("|P|2.5.1", "|X|2.5.1", "MSH[1]-11", "AR"),
        ("|P|2.5.1", "|P|3.0", "MSH[1]-12", "AR"),
        ("|M1|", "||", "MSH[1]-10", "AE"),
        ("PID|1", "ZID|1", "PID[1]", "AE"),
        ("MRN-1^", "^", "PID[1]-3", "AE"),
    ],
)
def test_what_the_header_or_the_patient_lacks(old: str, new: str, place: str, expected: str) -> None:
    """Unsupported type, event, processing id and version are rejected; a missing patient or control id is an error."""
    text = "\r".join([MSH.format(at=AT, control="M1"), PID, OBR.format(at=AT), weight("80")]).replace(old, new)
    result = convert(text.encode(), Source("0" * 64, "2026-09-10T12:00:00Z"))
    assert place in [issue.location for issue in result.issues if issue.is_error]
    assert ack_code(result.issues) == expected
    if expected == "AR" or place == "PID[1]":
        assert (result.patient, result.resources) == (None, ())
        assert result.unmapped


def test_the_structure_alone_names_the_message() -> None:
    """MSH-9 without event but with structure is understood; so is MSH-9 without structure."""
    for name in ("ORU^^ORU_R01", "ORU^R01"):
        text = "\r".join([MSH.format(at=AT, control="M1").replace("ORU^R01^ORU_R01", name), PID])
        assert ack_code(convert(text.encode(), Source("0" * 64, "2026-09-10T12:00:00Z")).issues) == "AA"


def test_people_are_one_resource_each() -> None:
    """The same clinician in two fields is one Practitioner; an organization has no US Core claim without `active`."""
    who = "1234567893^Okafor^Ngozi^^^^MD^^NPI&2.16.840.1.113883.4.6&ISO^L^^^NPI"
    row = f"OBX|1|NM|X^x^L||5||||||F|||||{who}|||||||Valley Lab^^^^^CLIA&2.16.840.1.113883.4.7&ISO^XX^^^05D0000001"
    result = oru(f"PD1||||{who}", row)
    people = [each for each in result.resources if each["resourceType"] in ("Practitioner", "Organization")]
    assert [each["resourceType"] for each in people] == ["Practitioner", "Organization"]
    assert people[1]["identifier"] == [{"system": "urn:oid:2.16.840.1.113883.4.7", "value": "05D0000001"}]
    assert "profile" not in people[1]["meta"]
    assert len(observations(result)[0]["performer"]) == 2


def test_an_npi_that_fails_its_check_digit_claims_no_us_core_profile() -> None:
    """us-core-17: the number is kept as sent, the claim is not made."""
    result = oru("PD1||||1234567890^Okafor^Ngozi^^^^MD^^NPI&2.16.840.1.113883.4.6&ISO^L^^^NPI")
    who = next(each for each in result.resources if each["resourceType"] == "Practitioner")
    assert "profile" not in who["meta"]


def test_provenance_names_the_bytes_and_all_they_gave() -> None:
    """One Provenance a message; each resource says in meta.source from which segments it comes."""
    result = oru(weight("80"))
    provenance = result.resources[-1]
    made = [result.patient, *result.resources[:-1]]
    assert [each["reference"] for each in provenance["target"]] == [f"{r['resourceType']}/{r['id']}" for r in made if r]
    urn = provenance["entity"][0]["what"]["identifier"]["value"]
    assert observations(result)[0]["meta"]["source"] == f"{urn}#OBX/1"


def test_no_issue_repeats_a_value_of_the_message() -> None:
    """Issues name places and rules, never the data (no PHI)."""
    result = oru("OBX|1|NM|29463-7^w^LN||SECRETVALUE|SECRETUNIT|||SECRETFLAG||SECRETSTATUS|||SECRETTIME")
    assert result.issues
    assert not any("SECRET" in issue.text or "SECRET" in issue.location for issue in result.issues)
