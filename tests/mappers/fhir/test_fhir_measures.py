"""Stored Observations become the Observations of CMS's report, by table and in exact decimals."""

from decimal import Decimal

import pytest

from mappers.fhir import measures, quantities
from mappers.fhir.measures import measure_of, normalise, tables
from profiles.issue import Severity
from profiles.validate import validate

UCUM = "http://unitsofmeasure.org"
LOINC = "http://loinc.org"


def _coded(code):
    return {"coding": [{"system": "urn:local", "code": "x"}, {"system": LOINC, "code": code}]}


def _observation(code, value, unit, *, text=False, **more):
    quantity = {"value": Decimal(value), "unit": unit} | ({} if text else {"system": UCUM, "code": unit})
    return {
        "resourceType": "Observation",
        "id": "o-1",
        "meta": {"versionId": "3"},
        "status": "final",
        "code": _coded(code),
        "subject": {"reference": "Patient/p"},
        "effectiveDateTime": "2026-01-15T09:45:00-05:00",
        "performer": [{"reference": "Practitioner/x"}],
        "valueQuantity": quantity,
    } | more


def _pressure(upper="8480-6", lower="8462-4", unit="mm[Hg]", values=("138", "86"), code="85354-9"):
    parts = [
        {"code": _coded(name), "valueQuantity": {"value": Decimal(value), "system": UCUM, "code": unit, "unit": unit}}
        for name, value in zip((upper, lower), values, strict=True)
    ]
    made = _observation(code, "1", "kg", component=parts)
    del made["valueQuantity"]
    return made


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("85354-9", "blood-pressure"), ("55284-4", "blood-pressure"), ("18262-6", "lipids"), ("13457-7", "lipids"),
        ("2089-1", "lipids"), ("29463-7", "weight"), ("3141-9", "weight"), ("39156-5", "BMI"), ("41909-3", "BMI"),
        ("8280-0", "waist"), ("56086-2", "waist"), ("4548-4", "HbA1c"), ("17856-6", "HbA1c"), ("98979-8", "eGFR"),
        ("62238-1", "eGFR"), ("48642-3", "eGFR"), ("14959-1", "uACR"), ("9318-7", "uACR"), ("32294-1", "uACR"),
        ("8480-6", None), ("8867-4", None), ("3142-7", None), ("96607-7", None), ("48643-1", None),
    ],
)  # fmt: skip
def test_the_measure_of_a_code(code, name):
    """Synonyms belong to their slice; averages, stated weights and lone halves of a pressure to none."""
    assert measure_of({"code": _coded(code)}) == name


@pytest.mark.parametrize(
    ("code", "value", "unit", "expected"),
    [
        ("29463-7", "187.5", "[lb_av]", "85.05"),
        ("29463-7", "3200", "[oz_av]", "90.72"),
        ("29463-7", "85300", "g", "85.30"),
        ("8280-0", "41", "[in_i]", "104.1"),
        ("8280-0", "1.04", "m", "104.0"),
        ("18262-6", "2.59", "mmol/L", "100"),
        ("4548-4", "53", "mmol/mol", "7.0"),
        ("4548-4", "48", "mmol/mol", "6.5"),
        ("14959-1", "3.39", "mg/mmol", "30.0"),
        ("14959-1", "30", "ug/mg", "30"),
    ],
)
def test_units_are_converted_exactly_and_rounded_as_documented(code, value, unit, expected):
    """The table's factor in exact decimals, half up to the measure's digits."""
    made, issues = normalise(_observation(code, value, unit))
    assert str(made["valueQuantity"]["value"]) == expected
    assert not any(issue.is_error for issue in issues)


@pytest.mark.parametrize(
    ("code", "value", "unit"),
    [
        ("29463-7", "85.3048", "kg"),
        ("39156-5", "31.25", "kg/m2"),
        ("4548-4", "7.25", "%"),
        ("18262-6", "100.4", "mg/dL"),
    ],
)
def test_a_value_in_the_unit_of_the_report_keeps_its_digits(code, value, unit):
    """Nothing is rounded that is not converted."""
    assert str(normalise(_observation(code, value, unit))[0]["valueQuantity"]["value"]) == value


@pytest.mark.parametrize(
    ("code", "unit", "expected"),
    [
        ("29463-7", "lbs", "[lb_av]"), ("39156-5", "kg/m²", "kg/m2"), ("98979-8", "mL/min/1.73 m2", "mL/min/{1.73_m2}"),
        ("14959-1", "mgAlb/gCre", "mg/g"), ("8280-0", "inches", "[in_i]"), ("4548-4", "percent", "%"),
    ],
)  # fmt: skip
def test_what_people_write_is_known_by_table(code, unit, expected):
    """A unit that is only text is understood when the table of spellings has it."""
    assert quantities.ucum_code({"unit": unit}) == expected
    assert normalise(_observation(code, "50", unit, text=True))[0] is not None


@pytest.mark.parametrize(
    ("code", "unit"),
    [
        ("29463-7", "st"),
        ("39156-5", "m2"),
        ("98979-8", "mL/min"),
        ("14959-1", "mg/L"),
        ("4548-4", "g/dL"),
        ("8280-0", "%"),
    ],
)
def test_a_unit_of_something_else_is_refused(code, unit):
    """No unit is guessed: an error says that no row turns it into CMS's."""
    made, issues = normalise(_observation(code, "5", unit))
    assert made is None
    assert (issues[-1].severity, issues[-1].location) == (Severity.ERROR, "Observation.valueQuantity")


@pytest.mark.parametrize("name", [row.name for row in tables().measures.values()])
def test_the_result_is_what_cms_takes(name):
    """One coding, CMS's unit, one category, one profile of US Core 6.1.0 that it meets."""
    row = next(one for one in tables().measures.values() if one.name == name)
    made, issues = normalise(_pressure() if row.components else _observation(row.code, "50", row.unit))
    assert issues == []
    assert [one["code"] for one in made["code"]["coding"]] == [row.code]
    assert made["meta"]["profile"] == [f"http://hl7.org/fhir/us/core/StructureDefinition/{row.profile}|6.1.0"]
    assert made["category"][0]["coding"][0]["code"] == row.category
    assert [issue for issue in validate(made) if issue.is_error] == []


def test_time_status_subject_and_id_are_the_sources():
    """What was measured when, of whom, and how sure; nothing else comes along."""
    made, _ = normalise(_observation("29463-7", "85", "kg", status="corrected"))
    assert made["effectiveDateTime"] == "2026-01-15T09:45:00-05:00"
    assert (made["status"], made["subject"], made["id"]) == ("corrected", {"reference": "Patient/p"}, "o-1")
    assert "performer" not in made
    assert "versionId" not in made["meta"]


def test_the_input_is_not_changed():
    """The stored Observation stays as it is."""
    before = _observation("3141-9", "187", "[lb_av]")
    normalise(before)
    assert before == _observation("3141-9", "187", "[lb_av]")


def test_a_comparator_is_kept():
    """`<5` stays `<5`."""
    given = _observation("14959-1", "0.5", "mg/mmol")
    given["valueQuantity"]["comparator"] = "<"
    made, _ = normalise(given)
    assert (made["valueQuantity"]["comparator"], made["valueQuantity"]["value"]) == ("<", Decimal("4.4"))


@pytest.mark.parametrize("status", ["preliminary", "registered", "cancelled", "entered-in-error", "unknown"])
def test_only_what_is_settled_is_reported(status):
    """Preliminary, cancelled and wrong values are refused."""
    made, issues = normalise(_observation("29463-7", "85", "kg", status=status))
    assert made is None
    assert issues[0].location == "Observation.status"


@pytest.mark.parametrize(
    "change",
    [
        {"effectiveDateTime": "2026-01"},
        {"effectiveDateTime": None},
        {"valueQuantity": None},
        {"valueQuantity": {"unit": "kg"}},
        {"valueQuantity": {"value": True, "unit": "kg"}},
        {"valueQuantity": {"value": Decimal("1e399"), "unit": "kg"}},
        {"valueQuantity": {"value": 85}},
        {"modifierExtension": [{"url": "urn:x"}]},
        {"code": {"coding": [{"system": LOINC, "code": "29463-7"}, {"system": LOINC, "code": "39156-5"}]}},
    ],
)
def test_what_can_not_be_reported_is_refused_with_the_place(change):
    """No time, no value, no unit, two measures, unknown modifiers: None and an error, never an exception."""
    given = {key: part for key, part in (_observation("29463-7", "85", "kg") | change).items() if part is not None}
    made, issues = normalise(given)
    assert made is None
    assert any(issue.is_error and issue.location.startswith("Observation.") for issue in issues)


def test_what_is_no_measure_is_none_without_issues():
    """A heart rate is nothing for CMS."""
    assert normalise(_observation("8867-4", "70", "/min")) == (None, [])


def test_a_pressure_has_both_components_in_order():
    """Synonyms of the parts, kPa to whole mm[Hg], systolic first."""
    given = _pressure("8459-0", "8453-3", "kPa", ("18.4", "11.5"), "55284-4")
    given["component"].reverse()
    made, issues = normalise(given)
    assert [part["code"]["coding"][0]["code"] for part in made["component"]] == ["8480-6", "8462-4"]
    assert [part["valueQuantity"]["value"] for part in made["component"]] == [138, 86]
    assert all(issue.severity is Severity.INFORMATION for issue in issues)


def test_half_a_pressure_is_refused():
    """A missing or doubled component is an error."""
    given = _pressure()
    given["component"] = given["component"][:1] * 2
    made, issues = normalise(given)
    assert made is None
    assert len([issue for issue in issues if issue.is_error]) == 2


def test_another_method_is_said():
    """A calculated LDL is reported under CMS's code, and an information says so; an equivalent code needs none."""
    _, inexact = normalise(_observation("13457-7", "100", "mg/dL"))
    _, equivalent = normalise(_observation("3141-9", "85", "kg"))
    assert [issue.location for issue in inexact] == ["Observation.code"]
    assert equivalent == []


def test_an_instant_is_sent_as_a_time():
    """us-core-vital-signs takes dateTime and Period only."""
    given = _observation("29463-7", "85", "kg", effectiveInstant="2026-01-15T09:45:00-05:00")
    del given["effectiveDateTime"]
    assert normalise(given)[0]["effectiveDateTime"] == "2026-01-15T09:45:00-05:00"


def test_every_row_of_the_tables_has_a_source_and_a_target():
    """Each synonym, conversion and spelling says where it comes from and leads to something that CMS takes."""
    known = tables()
    assert {row.to for row in known.synonyms.values()} == set(known.measures) | set(known.components) | {"8302-2"}
    assert all(row.source for row in known.synonyms.values())
    names = {row.name for row in known.measures.values()}
    assert {measure for measure, _ in quantities.units().conversions} <= names | {"height"}
    assert all(row.source for row in quantities.units().conversions.values())


def test_the_units_of_the_tables_are_those_of_canonical():
    """One table of measures: profiles.canonical agrees with it."""
    from profiles.canonical import MEASURE_UNIT

    for row in measures.tables().measures.values():
        for code in row.components or (row.code,):
            assert MEASURE_UNIT[code] == row.unit
