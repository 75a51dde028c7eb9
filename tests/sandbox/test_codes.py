"""The guide's code lists as data files."""

import json
from pathlib import Path

import pytest

from sandbox import tables
from sandbox.codes import Codes


def test_concepts_and_roots(tmp_path: Path) -> None:
    """A list has single codes, and roots with everything beneath them."""
    include = [{"concept": [{"code": "E11.9"}]}, {"filter": [{"property": "concept", "op": "is-a", "value": "G30"}]}]
    value_set = {"resourceType": "ValueSet", "url": "http://x/vs", "compose": {"include": include}}
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "one.json").write_text(json.dumps(value_set))
    codes = Codes(tmp_path)
    found = {code: codes.contains("http://x/vs", code) for code in ("E11.9", "E11.91", "G30", "G30.9", "G3")}
    assert found == {"E11.9": True, "E11.91": False, "G30": True, "G30.9": True, "G3": False}


def test_unknown_list(tmp_path: Path) -> None:
    """A list that is not there is unknown, neither true nor false."""
    codes = Codes(tmp_path)
    assert codes.contains("http://x/vs", "A") is None
    assert codes.codes_of("http://x/cs") is None
    assert codes.display("http://x/cs", "A") is None


def test_whole_system(tmp_path: Path) -> None:
    """A value set that takes a whole code system in lists nothing and decides nothing."""
    value_set = {"resourceType": "ValueSet", "url": "http://x/vs", "compose": {"include": [{"system": "http://x/cs"}]}}
    (tmp_path / "one.json").write_text(json.dumps(value_set))
    assert Codes(tmp_path).contains("http://x/vs", "A") is None


@pytest.mark.parametrize(("track", "size"), [("eCKM", 45), ("CKM", 688), ("MSK", 2495), ("BH", 69)])
def test_packaged_lists(track: str, size: int) -> None:
    """The definitions of this distribution hold the guide's four diagnosis lists."""
    value_set = tables.ig("ValueSet", f"ACCESS{track}DiagnosisVS")
    assert len(Codes()._lists[value_set].codes) == size


def test_people_qualify() -> None:
    """Each synthetic person's diagnoses are complete codes of a track's list, or of an exclusion list."""
    codes = Codes()
    lists = [tables.ig("ValueSet", f"ACCESS{track}DiagnosisVS") for track in ("eCKM", "CKM", "MSK", "BH")]
    lists.append(tables.ig("ValueSet", "ACCESSCKMClinicalExclusionDiagnosisVS"))
    for person in tables.people():
        for code in person["diagnoses"]:
            assert any(codes.contains(one, code) for one in lists), (person["mbi"], code)


def test_every_result_has_words() -> None:
    """Each result code of the guide has its sentence, and there is no sentence for a code that it does not have."""
    codes = Codes()
    for call, operation in tables.table("requests")["operations"].items():
        assert set(tables.table("results")[call]) == codes.codes_of(tables.ig("CodeSystem", operation["results"]))
