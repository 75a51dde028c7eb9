"""The functions that mapping tables share, and the code systems they name."""

import json
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import pytest

from mappers.codesystems import code_map, system_of_authority, system_of_name, system_of_oid, ucum
from mappers.converters import compact_time, decimal, is_mbi, is_npi, resource_id
from profiles.validate import validate


def test_an_id_depends_on_its_parts_and_their_borders() -> None:
    """Equal parts give equal ids; moving a border between parts does not."""
    assert resource_id("Patient", "a", "bc") == resource_id("Patient", "a", "bc")
    assert resource_id("Patient", "a", "bc") != resource_id("Patient", "ab", "c")
    assert len(resource_id("x")) == 32


@pytest.mark.parametrize(("written", "expected"), [("1.50", Decimal("1.50")), ("x", None), ("", None), ("1e5", None)])
def test_decimal(written: str, expected: Decimal | None) -> None:
    """Plain numbers only."""
    assert decimal(written) == expected


@pytest.mark.parametrize(("value", "expected"), [("1234567893", True), ("1234567890", False), ("123456789", False)])
def test_npi(value: str, expected: bool) -> None:
    """Ten digits and the check digit (US Core us-core-17)."""
    assert is_npi(value) is expected


@pytest.mark.parametrize(
    ("value", "expected"), [("1EG4TE5MK73", True), ("1EG4-TE5-MK73", False), ("1SG4TE5MK73", False)]
)
def test_mbi(value: str, expected: bool) -> None:
    """CMS's format, without dashes."""
    assert is_mbi(value) is expected


def test_a_leap_second_and_midnight_are_times() -> None:
    """FHIR allows both; 24:00 is none."""
    assert compact_time("20161231235960Z", None, None).text == "2016-12-31T23:59:60Z"
    assert compact_time("20260901000000-0000", None, None).text == "2026-09-01T00:00:00-00:00"
    assert compact_time("20260901240000Z", None, None) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LN", "http://loinc.org"),
        ("I10", "http://hl7.org/fhir/sid/icd-10-cm"),
        ("HL70078", "http://terminology.hl7.org/CodeSystem/v2-0078"),
        ("2.16.840.1.113883.6.1", "http://loinc.org"),
        ("L", None),
        ("99LAB", None),
        ("HL7xyz", None),
    ],
)
def test_names_of_code_systems(name: str, expected: str | None) -> None:
    """Table 0396 where registered; a local name has no URI."""
    assert system_of_name(name) == expected


def test_authorities_become_uris_only_of_known_kinds() -> None:
    """OID, UUID and URI; a sender's own name gives nothing."""
    assert system_of_authority("2.16.840.1.113883.4.6", "ISO") == "http://hl7.org/fhir/sid/us-npi"
    assert system_of_authority("1.2.3", "ISO") == "urn:oid:1.2.3"
    assert system_of_authority("1.2.3", "GUID") is None
    assert system_of_authority("HOSPITAL", "L") is None
    assert system_of_oid("not an oid") is None


@pytest.mark.parametrize(
    ("written", "expected"), [("mm[Hg]", "mm[Hg]"), ("mmHg", "mm[Hg]"), ("MG/DL", "mg/dL"), ("stone", None)]
)
def test_units(written: str, expected: str | None) -> None:
    """UCUM is case sensitive; other spellings of the same unit come from a map, nothing else does."""
    assert ucum(written) == expected


def test_every_dirty_unit_leads_to_a_ucum_code_that_we_know() -> None:
    """The unit map's targets are themselves in the UCUM list."""
    assert [target for target in code_map("units").targets.values() if ucum(target) != target] == []


@pytest.mark.parametrize("path", sorted((files("mappers") / "codesystems").glob("*.json")), ids=lambda path: path.stem)
def test_concept_maps_are_valid_fhir(path: Path) -> None:
    """Each code table is a ConceptMap that meets base R4 and translates no code twice."""
    resource = json.loads(path.read_text("utf-8"))
    assert [issue for issue in validate(resource) if issue.is_error] == []
    codes = [element["code"] for group in resource["group"] for element in group["element"]]
    assert len(codes) == len(set(codes))
