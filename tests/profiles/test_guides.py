"""Two versions of the ACCESS guide side by side. Requirement: the guide's version is a setting per participant."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from profiles import library
from profiles.canonical import ACCESS, ACCESS_CODES, ACCESS_VALUES
from profiles.fhir_json import parse
from profiles.validate import prepare, validate
from profiles.valuesets import contains

CASES = Path(__file__).parent.parent / "cases" / "profiles"
OLD, NEW = library.ACCESS_VERSION, "0.9.13"


@pytest.fixture
def two_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Beside the packaged guide one whose $align wants no payerID, and whose mails know one more event."""
    definitions = Path(str(library.guide_folder(f"access-{OLD}"))).parent
    for folder in definitions.iterdir():
        if folder.is_dir():
            (tmp_path / folder.name).symlink_to(folder)
    new = tmp_path / f"access-{NEW}"
    shutil.copytree(definitions / f"access-{OLD}", new)
    _edit(new / "StructureDefinition-access-align-in.json", _no_payer)
    _edit(new / "CodeSystem-ACCESSEventTypeCS.json", lambda d: d["concept"].append({"code": "moonlight"}))
    monkeypatch.setattr(library, "_ROOT", tmp_path)
    library.select()
    yield
    monkeypatch.undo()
    library.select()


def _edit(file: Path, change: Any) -> None:
    definition = json.loads(file.read_bytes())
    change(definition)
    file.write_text(json.dumps(definition), encoding="utf-8")


def _no_payer(definition: dict[str, Any]) -> None:
    elements = {element["id"]: element for element in definition["differential"]["element"]}
    elements["Parameters.parameter:payerID"]["min"] = 0
    elements["Parameters.parameter"]["min"] -= 1


def _without_payer() -> dict[str, Any]:
    request = parse((CASES / "align.json").read_bytes())
    request["parameter"] = [each for each in request["parameter"] if each["name"] != "payerID"]
    return request


@pytest.mark.usefixtures("two_versions")
def test_each_check_says_which_version_holds() -> None:
    """The same request, by turns: refused by one version, sound by the other, whatever came before."""
    request = _without_payer()
    for _ in range(3):
        assert [issue.code for issue in validate(request, ACCESS("access-align-in")) if issue.is_error] != []
        assert [issue for issue in validate(request, guide=NEW) if issue.is_error] == []


@pytest.mark.usefixtures("two_versions")
def test_what_was_made_of_a_version_is_kept() -> None:
    """Turning back and forth reads and compiles nothing again."""
    prepare(OLD, NEW)
    of_new = library.profiles()
    library.turn_to(OLD)
    of_old = library.profiles()
    library.turn_to(NEW)
    assert library.profiles() is of_new
    library.turn_to(OLD)
    assert library.profiles() is of_old


@pytest.mark.usefixtures("two_versions")
def test_codes_are_those_of_the_version() -> None:
    """A code that only the newer version knows."""
    asked = (ACCESS_VALUES("ACCESSEventTypeVS"), ACCESS_CODES("ACCESSEventTypeCS"), "moonlight")
    assert contains(*asked, guide=NEW) is True
    assert contains(*asked) is False


@pytest.mark.usefixtures("two_versions")
def test_both_versions_are_there_to_choose_from() -> None:
    """A second version is a folder."""
    assert library.access_versions() == (OLD, NEW)
