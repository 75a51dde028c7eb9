"""What changed between two versions of a guide is listed. Requirement: a second version can be added as a folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profiles import library
from profiles.changes import changes, main
from profiles.validate import validate

OLD = library.guide_folder("access-0.9.12")


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Writes one definition anew."""
    file = folder / name
    definition = json.loads(file.read_text(encoding="utf-8"))
    change(definition)
    file.write_text(json.dumps(definition), encoding="utf-8")


@pytest.fixture
def next_version(tmp_path: Path) -> Path:
    """A copy of the packaged version."""
    folder = tmp_path / "access-0.9.13"
    shutil.copytree(str(OLD), folder)
    return folder


def element(definition: dict[str, Any], name: str) -> dict[str, Any]:
    """One element of a differential."""
    found: dict[str, Any] = next(each for each in definition["differential"]["element"] if each["id"] == name)
    return found


def test_a_version_does_not_differ_from_itself() -> None:
    """Nothing is listed where nothing changed."""
    assert changes(OLD, OLD) == []


def test_parameters_and_cardinalities_are_listed(next_version: Path) -> None:
    """A parameter that came, one that became optional, and a rule that went."""

    def change(definition: dict[str, Any]) -> None:
        element(definition, "Parameters.parameter:track")["min"] = 0
        del element(definition, "Parameters")["constraint"]
        new = {"id": "Parameters.parameter:note", "path": "Parameters.parameter", "sliceName": "note", "max": "1"}
        definition["differential"]["element"].append(new)

    edit(next_version, "StructureDefinition-access-align-in.json", change)
    assert [str(each) for each in changes(OLD, next_version)] == [
        "removed access-align-in Parameters rule access-facade-condition-of-track",
        "changed access-align-in Parameters.parameter:track min: 1 -> 0",
        "added   access-align-in Parameters.parameter:note",
        "added   access-align-in Parameters.parameter:note max",
    ]


def test_codes_are_listed(next_version: Path) -> None:
    """A result code that came, and a diagnosis that went."""
    edit(
        next_version,
        "CodeSystem-ACCESSAlignmentResultCS.json",
        lambda definition: definition["concept"].append({"code": "deferred"}),
    )
    edit(
        next_version,
        "ValueSet-ACCESSeCKMDiagnosisVS.json",
        lambda definition: definition["compose"]["include"][0]["concept"].pop(0),
    )
    gone = json.loads((OLD / "ValueSet-ACCESSeCKMDiagnosisVS.json").read_bytes())["compose"]["include"][0]
    assert [str(each) for each in changes(OLD, next_version)] == [
        "added   ACCESSAlignmentResultCS code deferred",
        f"removed ACCESSeCKMDiagnosisVS code {gone['system']}|{gone['concept'][0]['code']}",
    ]


def test_a_definition_that_went_is_one_change(next_version: Path) -> None:
    """A profile that is no longer there is not listed part by part."""
    (next_version / "StructureDefinition-access-unalign-out.json").unlink()
    assert [str(each) for each in changes(OLD, next_version)] == ["removed access-unalign-out"]


def test_the_command_prints_one_change_a_line(next_version: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A packaged version is named, the other is a folder."""
    (next_version / "StructureDefinition-access-unalign-out.json").unlink()
    main(["access-0.9.12", str(next_version)])
    assert capsys.readouterr().out == "removed access-unalign-out\n"


def test_an_unknown_version_is_refused() -> None:
    """Neither the list of changes nor a process can take what is not packaged."""
    with pytest.raises(library.UnknownGuide):
        library.guide_folder("access-0.0.1")
    with pytest.raises(library.UnknownGuide, match=r"0\.9\.12"):
        validate({"resourceType": "Basic"}, guide="0.0.1")
    assert library.access_versions() == (library.ACCESS_VERSION,)
