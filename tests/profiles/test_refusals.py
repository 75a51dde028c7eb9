"""What CMS's test environment was seen to refuse, and the guide's list of what to check before sending.

Requirement: each such refusal is found here, or put right before (`server.intake.repair`), or is no matter of form. An
error refuses at the door; a warning is what the door repairs first. Sources: the ACCESS guide 0.9.12, and accounts of
engineers who sent requests to the test environment in June and July 2026.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profiles.canonical import ACCESS, MBI
from profiles.fhir_json import parse
from profiles.issue import Severity
from profiles.validate import validate

CASES = Path(__file__).parent.parent / "cases" / "profiles"
BUNDLE = "Parameters.parameter[4].resource"
TRACK_SECTION = f"{BUNDLE}.entry[0].resource.section"
OPERATION = {"align": "align", "report": "report-data", "check-eligibility": "check-eligibility", "unalign": "unalign"}
ERROR, WARNING = Severity.ERROR, Severity.WARNING
Change = Callable[[dict[str, Any]], object]


def load(name: str) -> dict[str, Any]:
    """A case, read as the server reads."""
    return parse((CASES / f"{name}.json").read_bytes())


def parameter(request: dict[str, Any], name: str) -> dict[str, Any]:
    """The first parameter of that name."""
    found: dict[str, Any] = next(each for each in request["parameter"] if each["name"] == name)
    return found


def resource(request: dict[str, Any], name: str) -> dict[str, Any]:
    """The resource of a parameter."""
    found: dict[str, Any] = parameter(request, name)["resource"]
    return found


def drop(request: dict[str, Any], name: str) -> None:
    """Takes the parameters of that name away."""
    request["parameter"] = [each for each in request["parameter"] if each["name"] != name]


def entry(request: dict[str, Any], number: int) -> dict[str, Any]:
    """A resource of the report's Bundle."""
    found: dict[str, Any] = resource(request, "dataBundle")["entry"][number]["resource"]
    return found


def section(request: dict[str, Any]) -> dict[str, Any]:
    """The track's section."""
    found: dict[str, Any] = entry(request, 0)["section"][0]
    return found


def of_msk(request: dict[str, Any]) -> dict[str, Any]:
    """The alignment of the case as one of MSK, and its condition."""
    parameter(request, "track")["valueCodeableConcept"]["coding"][0]["code"] = "MSK"
    condition = resource(request, "condition")
    condition["meta"]["profile"] = [ACCESS("access-msk-condition")]
    condition["code"]["coding"] = [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "M17.11"}]
    return condition


def without_mbi(request: dict[str, Any]) -> None:
    """The patient with a number of another kind."""
    resource(request, "patient")["identifier"][0]["system"] = "https://ehr.example.org/mrn"


def flat(request: dict[str, Any]) -> None:
    """The first payloads that were sent: values beside the resource type."""
    request |= {"participantID": "ACCES12345", "track": "CKM", "mbi": "1EG4TE5MK73"}
    del request["parameter"]


def questionnaire(request: dict[str, Any]) -> None:
    """A response whose form is not in the Bundle."""
    answer = {
        "resourceType": "QuestionnaireResponse",
        "id": "q",
        "status": "completed",
        "text": entry(request, 1)["text"],
    }
    answer |= {"meta": {"profile": ["https://example.org/p"]}, "questionnaire": "https://example.org/q|1"}
    url = "https://facade.example/fhir/QuestionnaireResponse/q"
    resource(request, "dataBundle")["entry"].append({"fullUrl": url, "resource": answer})


def malformed_references(request: dict[str, Any]) -> None:
    """References by `urn:uuid:Type/id`, as one client wrote them."""
    entry(request, 0)["subject"]["reference"] = "urn:uuid:Patient/p1"


def two_sections(request: dict[str, Any]) -> None:
    """A report about two tracks."""
    other = {**section(request), "code": {"coding": [{**section(request)["code"]["coding"][0], "code": "MSK"}]}}
    entry(request, 0)["section"].append(other)


Row = tuple[str, str, Change, str, Severity]
ROWS: list[Row] = [
    ("a flat payload", "align", flat, "Parameters.participantID", ERROR),
    *(
        (f"{case}: no {name}", case, lambda request, name=name: drop(request, name), "Parameters", ERROR)
        for case, names in {
            "check-eligibility": ["participantID", "payerID", "track", "patient"],
            "align": ["participantID", "payerID", "track", "patient", "condition", "isProviderReferral"],
            "unalign": ["participantID", "payerID", "track", "patient", "reason"],
            "report": ["participantID", "payerID", "track", "reportType", "dataBundle"],
        }.items()
        for name in names
    ),
    *((f"{case}: no meta", case, lambda request: request.pop("meta"), "Parameters", ERROR) for case in OPERATION),
    *(
        (f"{case}: no birth date", case, lambda r: resource(r, "patient").pop("birthDate"), "birthDate", ERROR)
        for case in ("check-eligibility", "align", "unalign")
    ),
    *(
        (f"{case}: no MBI", case, without_mbi, "patient has an MBI, or the member number", ERROR)
        for case in ("check-eligibility", "align", "unalign")
    ),
    (
        "the patient claims nothing",
        "align",
        lambda r: resource(r, "patient")["meta"].pop("profile"),
        "Parameters.parameter[2].resource",
        ERROR,
    ),
    (
        "the condition claims nothing",
        "align",
        lambda r: resource(r, "condition")["meta"].pop("profile"),
        "Parameters.parameter[4].resource",
        ERROR,
    ),
    ("MSK without category", "align", lambda r: of_msk(r).pop("category"), "Parameters.parameter[4].resource", ERROR),
    (
        "MSK without its profile",
        "align",
        lambda r: of_msk(r)["meta"].update(profile=[ACCESS("access-ckm-condition")]),
        "Parameters.parameter[4].resource.meta.profile",
        ERROR,
    ),
    (
        "alignmentId is no parameter",
        "align",
        lambda r: r["parameter"].append({"name": "alignmentId", "valueString": "a"}),
        "Parameters.parameter[6]",
        ERROR,
    ),
    (
        "clinicalJustification is no parameter",
        "unalign",
        lambda r: r["parameter"].append({"name": "clinicalJustification", "valueString": "a"}),
        "Parameters.parameter",
        ERROR,
    ),
    (
        "a transaction to $align",
        "align",
        lambda r: r.update(resourceType="Bundle", type="transaction"),
        "Bundle",
        ERROR,
    ),
    (
        "identifier without system",
        "report",
        lambda r: resource(r, "dataBundle")["identifier"].pop("system"),
        BUNDLE,
        ERROR,
    ),
    ("no timestamp", "report", lambda r: resource(r, "dataBundle").pop("timestamp"), BUNDLE, ERROR),
    ("no document", "report", lambda r: resource(r, "dataBundle").update(type="collection"), BUNDLE, ERROR),
    (
        "Composition not first",
        "report",
        lambda r: resource(r, "dataBundle")["entry"].reverse(),
        BUNDLE,
        ERROR,
    ),
    (
        "no Patient",
        "report",
        lambda r: resource(r, "dataBundle")["entry"].pop(1),
        BUNDLE,
        ERROR,
    ),
    ("a malformed reference", "report", malformed_references, f"{BUNDLE}.entry[0].resource.subject", ERROR),
    (
        "an entry of a section that is not there",
        "report",
        lambda r: resource(r, "dataBundle")["entry"].pop(7),
        f"{TRACK_SECTION}[0].section[1].entry[0]",
        ERROR,
    ),
    ("no track section", "report", lambda r: entry(r, 0).pop("section"), f"{BUNDLE}.entry[0].resource", ERROR),
    ("two track sections", "report", two_sections, f"{BUNDLE}.entry[0].resource", ERROR),
    (
        "the section of another track",
        "report",
        lambda r: parameter(r, "track")["valueCodeableConcept"]["coding"][0].update(code="MSK"),
        "Parameters",
        ERROR,
    ),
    ("no text in the track section", "report", lambda r: section(r).pop("text"), f"{TRACK_SECTION}[0]", ERROR),
    ("no text in a resource", "report", lambda r: entry(r, 7).pop("text"), f"{BUNDLE}.entry[7].resource", WARNING),
    ("no claim in a resource", "report", lambda r: entry(r, 7).pop("meta"), f"{BUNDLE}.entry[7].resource", WARNING),
    ("a form that is not there", "report", questionnaire, f"{BUNDLE}.entry[14].resource.questionnaire", WARNING),
    (
        "a participant id of another form",
        "report",
        lambda r: parameter(r, "participantID")["valueIdentifier"].update(value="ACCES123"),
        "Parameters.parameter[0]",
        ERROR,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_it_is_found_before_it_is_sent(row: Row) -> None:
    """The finding stands at or under the place, or its text names the rule."""
    _, case, change, where, severity = row
    request = load(case)
    change(request)
    profile = ACCESS(f"access-{OPERATION[case]}-in")
    found = [issue for issue in validate(request, profile) if issue.severity is severity]
    assert any(issue.location.startswith(where) or where in issue.text for issue in found), validate(request, profile)


@pytest.mark.parametrize("unit", ["[lb_av]", "[oz_av]", "lbs"])
def test_a_unit_that_the_profile_does_not_know_is_refused(unit: str) -> None:
    """Weight is in a unit of US Core's list, which a free text is not."""
    report = load("report")
    entry(report, 8)["valueQuantity"] |= {"unit": unit, "code": unit}
    known = unit == "[lb_av]"
    assert any(f"{BUNDLE}.entry[8]" in issue.location for issue in validate(report) if issue.is_error) != known


def test_a_missing_measure_is_no_matter_of_form() -> None:
    """CMS answers 200 `incomplete-data`, so the form may not refuse it; the window's assessment tells it before."""
    report = load("report")
    gone = section(report)["section"].pop(1)["entry"][0]["reference"]
    entries = resource(report, "dataBundle")["entry"]
    entries[:] = [each for each in entries if not each["fullUrl"].endswith(gone)]
    assert not any(issue.is_error for issue in validate(report, ACCESS("access-report-data-in")))


def test_a_diagnosis_off_the_list_is_no_matter_of_form() -> None:
    """CMS answers 200 `not-aligned-diagnoses`: another diagnosis may qualify, and our list may be older than theirs."""
    request = load("align")
    resource(request, "condition")["code"]["coding"][0]["code"] = "Z00.00"
    assert [issue for issue in validate(request) if issue.is_error and "condition" not in issue.text] == []


def test_both_forms_of_reference_are_sound() -> None:
    """The guide's examples refer by `Type/id`, the first client by fullUrl: each finds its entry."""
    report = load("report")
    entry(report, 0)["subject"]["reference"] = "https://facade.example/fhir/Patient/p1"
    assert validate(report) == []
    assert MBI in {each["system"] for each in entry(report, 1)["identifier"]}
