"""CDA data types keep what they say, and say what they lose."""

from decimal import Decimal

import pytest

from mappers.cda import datatypes, times
from mappers.cda.context import Document
from mappers.cda.parse import read
from mappers.conversion import Source
from profiles.canonical import LOINC, MBI, NPI, SSN, UCUM

ROOT = (
    '<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    '<effectiveTime value="{}"/>{}</ClinicalDocument>'
)


def _read(element, *, time="20260301120000-0500", zone=None):
    root, _ = read(ROOT.format(time, element).encode())
    document = Document(root, Source("0" * 64, "2026-01-01T00:00:00Z", zone))
    return document.at(root[1]), root[1]


def _convert(convert, element, **header):
    document, node = _read(element, **header)
    return convert(node, document), [issue.code for issue in document.issues]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ('root="2.16.840.1.113883.4.927" extension="1EG4-TE5-MK73"', {"system": MBI, "value": "1EG4TE5MK73"}),
        ('root="2.16.840.1.113883.4.6" extension="1234567893"', {"system": NPI, "value": "1234567893"}),
        ('root="2.16.840.1.113883.4.1" extension="000-11-2222"', {"system": SSN, "value": "000112222"}),
        ('root="2.16.840.1.113883.4.6"', None),
        ('root="1.2.3" extension="A-1"', {"system": "urn:oid:1.2.3", "value": "A-1"}),
        ('root="1.2.3"', {"system": "urn:ietf:rfc:3986", "value": "urn:oid:1.2.3"}),
        (
            'root="5F7AC500-32A4-4B47-9D35-2D5D9E66A001"',
            {"system": "urn:ietf:rfc:3986", "value": "urn:uuid:5f7ac500-32a4-4b47-9d35-2d5d9e66a001"},
        ),
        (
            'root="2.16.840.1.113883.4.873" extension="http://a.example/1"',
            {"system": "urn:ietf:rfc:3986", "value": "http://a.example/1"},
        ),
        ('nullFlavor="UNK"', None),
    ],
)
def test_an_id_is_an_identifier(attributes, expected):
    """Root and extension give a registered system where there is one, else urn:oid; a kind of id alone is no id."""
    assert _convert(datatypes.identifier, f"<id {attributes}/>")[0] == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("20260115094500-0500", "2026-01-15T09:45:00-05:00"),
        ("202601150945-0500", "2026-01-15T09:45:00-05:00"),
        ("20260115094500.123+0000", "2026-01-15T09:45:00.123+00:00"),
        ("20260115", "2026-01-15"),
        ("202601", "2026-01"),
        ("2026", "2026"),
        ("2026011509-0500", "2026-01-15"),
        ("20260115094500", "2026-01-15T09:45:00-05:00"),
        ("200130311", None),
        ("2014030200908-0500", None),
        ("20220813124536-500", None),
        ("20220813124536-08", None),
        ("20260230", None),
        ("PIDDOB!", None),
        ("20260115254500-0500", None),
    ],
)
def test_a_time_keeps_its_precision_or_is_left_out(written, expected):
    """No digit is added, no offset is invented, and a bad time is an Issue."""
    found, issues = _convert(times.point, f'<effectiveTime value="{written}"/>')
    assert found == expected
    assert ("value" in issues) == (expected is None)


def test_a_time_without_any_offset_is_cut_to_its_date():
    """Neither the header nor a configured zone says the offset: the day is all that is sure."""
    found, issues = _convert(times.point, '<effectiveTime value="20260715094500"/>', time="20260301")
    assert (found, issues) == ("2026-07-15", ["informational"])


def test_the_senders_zone_gives_the_offset_of_that_day():
    """The configured zone knows summer time."""
    found, _ = _convert(times.point, '<t value="20260715094500"/>', time="20260301", zone="America/New_York")
    assert found == "2026-07-15T09:45:00-04:00"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            'xsi:type="PQ" value="187.50" unit="kg"',
            ("Quantity", {"value": Decimal("187.50"), "unit": "kg", "code": "kg"}),
        ),
        ('xsi:type="PQ" value="5" unit="wombats/L"', ("Quantity", {"value": Decimal(5), "unit": "wombats/L"})),
        ('xsi:type="PQ" value="5"', ("Quantity", {"value": Decimal(5)})),
        ('xsi:type="INT" value="12"', ("Integer", 12)),
        ('xsi:type="REAL" value="1.20"', ("Quantity", {"value": Decimal("1.20")})),
        ('xsi:type="BL" value="true"', ("Boolean", True)),
        ('xsi:type="TS" value="20260101"', ("DateTime", "2026-01-01")),
        ('value="7" unit="%"', ("Quantity", {"value": Decimal(7), "unit": "%", "code": "%"})),
        ('xsi:type="PQ" nullFlavor="UNK"', None),
        ('xsi:type="PQ" value="abc" unit="kg"', None),
        ('xsi:type="RTO_PQ_PQ"', None),
    ],
)
def test_a_value_becomes_the_choice_of_its_type(value, expected):
    """xsi:type decides; digits stay; UCUM is claimed only for a unit that is UCUM."""
    found = _convert(datatypes.value, f"<value {value}/>")[0]
    if expected and isinstance(expected[1], dict) and "code" in expected[1]:
        expected = (expected[0], expected[1] | {"system": UCUM})
    assert found == expected


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ('<low value="7" unit="%"/>', (">=", 7)),
        ('<low value="7" unit="%" inclusive="false"/>', (">", 7)),
        ('<high value="7" unit="%"/>', ("<=", 7)),
        ('<low value="0" unit="%"/><high value="7" unit="%" inclusive="false"/>', ("<", 7)),
    ],
)
def test_a_half_open_interval_is_a_comparator(inner, expected):
    """low only is at least, high only at most; inclusive="false" is strict."""
    suffix, quantity = _convert(datatypes.value, f'<value xsi:type="IVL_PQ">{inner}</value>')[0]
    assert (suffix, quantity["comparator"], quantity["value"]) == ("Quantity", *expected)


def test_a_closed_interval_is_a_range():
    """Both bounds stay."""
    inner = '<low value="4" unit="%"/><high value="7" unit="%"/>'
    suffix, found = _convert(datatypes.value, f'<value xsi:type="IVL_PQ">{inner}</value>')[0]
    assert (suffix, found["low"]["value"], found["high"]["value"]) == ("Range", 4, 7)


def test_an_unusual_unit_comes_from_the_translation():
    """PQ of nullFlavor OTH: the real value and the unit as written stand in the translation."""
    inner = '<translation value="8"><originalText>stone</originalText></translation>'
    found = _convert(datatypes.value, f'<value xsi:type="PQ" nullFlavor="OTH">{inner}</value>')[0]
    assert found == ("Quantity", {"value": Decimal(8), "unit": "stone"})


def test_translations_are_codings_once_each():
    """A code without a value of its own lives in its translations; doubles are dropped."""
    one = '<translation code="1-8" codeSystem="2.16.840.1.113883.6.1"/>'
    found = _convert(datatypes.concept, f'<code nullFlavor="OTH">{one}{one}</code>')[0]
    assert found == {"coding": [{"system": LOINC, "code": "1-8"}]}
