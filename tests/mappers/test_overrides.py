"""Requirement: a new field is one row, from the user's folder, without code: docs/mapping.md, run."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from mappers import cda, codesystems, hl7v2, overrides, recompile
from mappers.conversion import Source
from mappers.fhir.measures import measure_of, normalise
from mappers.instruments import catalogue

ROOT = Path(__file__).parents[2]
SOURCE = Source("ab" * 32, "2026-08-20T00:00:00Z")
FENCE = re.compile(r"<!-- example: (\S+) -->\n```\w*\n(.*?)```", re.S)
EXAMPLES = dict(FENCE.findall((ROOT / "docs" / "mapping.md").read_text("utf-8")))
MESSAGE = EXAMPLES["message"].replace("\n", "\r").encode()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of the document's examples; afterwards the tables are as shipped again."""
    for name, text in EXAMPLES.items():
        if "/" in name:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
    yield tmp_path
    recompile.install(overrides.Overrides())


def _weight(code: str, unit: str) -> dict:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "effectiveDateTime": "2026-08-19",
        "valueQuantity": {"value": Decimal("81.6"), "unit": unit},
    }


def test_the_field_is_left_and_told_as_shipped():
    """What the worked example starts from."""
    conversion = hl7v2.convert(MESSAGE, SOURCE)
    assert "extension" not in conversion.patient
    assert [one.kind for one in conversion.unmapped if "PID" in one.location and "6" in one.location] == ["left"]


def test_the_worked_example_works(folder: Path):
    """One row: the field is in the Patient and out of the account."""
    recompile.install(overrides.load(folder))
    conversion = hl7v2.convert(MESSAGE, SOURCE)
    assert conversion.patient["extension"] == json.loads(EXAMPLES["extension"])
    assert [one for one in conversion.unmapped if "PID" in one.location and "6" in one.location] == []


def test_a_code_and_a_unit_of_ones_own_are_rows(folder: Path):
    """A synonym and a spelling make an Observation reportable that is not as shipped."""
    stated = _weight("3142-7", "kilos")
    assert measure_of(stated) is None
    recompile.install(overrides.load(folder))
    assert measure_of(stated) == "weight"
    assert normalise(stated)[0]["valueQuantity"]["code"] == "kg"


def test_an_element_of_a_concept_map_is_added(folder: Path):
    """The user's stand beside ours."""
    recompile.install(overrides.load(folder))
    assert (codesystems.ucum("MGDECI"), codesystems.ucum("mg/dl")) == ("mg/dL", "mg/dL")


def test_a_row_of_a_document_is_replaced(folder: Path):
    """A C-CDA field is left out, with the reason."""
    document = (ROOT / "tests" / "cases" / "cda" / "care-summary.xml").read_bytes()
    flagged = document.replace(
        b"</observation>", b'<interpretationCode code="H" codeSystem="2.16.840.1.113883.5.83"/></observation>'
    )
    shipped = [one for one in cda.convert(flagged, SOURCE).resources if "interpretation" in one]
    recompile.install(overrides.load(folder))
    own = [one for one in cda.convert(flagged, SOURCE).resources if "interpretation" in one]
    assert len(own) < len(shipped)


def test_a_new_instrument_is_a_file(tmp_path: Path, folder: Path):
    """Its linkIds and its rule, nothing else."""
    (folder / "instruments").mkdir()
    (folder / "instruments" / "two.toml").write_text(
        'measure = "TWO"\ntitle = "Two"\nsystem = "LOINC"\ncode = "55758-7"\n'
        '[[item]]\nlink = "two-1"\nrange = [0, 3]\n[[score]]\nlink = "total-score"\nrule = "sum"\nsource = "ours"\n'
    )
    recompile.install(overrides.load(folder))
    assert catalogue()["TWO"].items[0].link == "two-1"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("hl7v2/segmnts.toml", "", "no such table"),
        ("hl7v2/identity.toml", "", "no such table"),
        ("hl7v2/segments.toml", "[[PID]\n", "segments.toml"),
        ("hl7v2/segments.toml", '[[PID]]\nfrom = "PID-6"\nto = "x"\ndatatype = "nonsense"\n', "nonsense"),
        ("hl7v2/segments.toml", '[[PID]]\nfrom = "PID-6"\nfrm = "x"\n', "not understood"),
        ("fhir/synonyms.toml", '[[synonym]]\nfrom = "1-1"\n', "'to'"),
        ("codesystems/units.json", "{", "units.json"),
        ("lab/segments.toml", "", "hl7v2/"),
    ],
)
def test_a_wrong_file_stops_the_start_in_plain_words(tmp_path: Path, name: str, text: str, says: str):
    """The file is named, and the shipped tables stay in use."""
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(overrides.OverrideError, match=re.escape(says)) as raised:
        recompile.install(overrides.load(tmp_path))
    assert Path(name).name in str(raised.value)
    assert "extension" not in hl7v2.convert(MESSAGE, SOURCE).patient
