"""An official package takes the place of built-in definitions; a hostile one does nothing."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from profiles import archive, library
from profiles.archive import PackageRefused, json_files
from profiles.canonical import FHIR_BASE, US_CORE
from profiles.fhir_json import parse
from profiles.packages import load_package, loaded_in
from profiles.validate import validate

CASES = Path(__file__).parent.parent / "cases" / "profiles"
MANIFEST = {"name": "hl7.fhir.us.core", "version": "6.1.1", "fhirVersions": ["4.0.1"]}
QUOTES = '"); raise SystemExit(1) #\'"""\\'


def profile(url: str, *elements: dict[str, Any]) -> dict[str, Any]:
    """A profile of Patient."""
    head = {"resourceType": "StructureDefinition", "id": "p", "url": url, "type": "Patient", "kind": "resource"}
    head |= {"derivation": "constraint", "baseDefinition": FHIR_BASE + "Patient"}
    return head | {"differential": {"element": list(elements)}}


def element(name: str, **facts: Any) -> dict[str, Any]:
    """One element of a differential."""
    return {"id": name, "path": name, **facts}


def package(folder: Path, *resources: Any, manifest: Any = MANIFEST, prefix: str = "package/") -> Path:
    """A package with these resources."""
    file = folder / "package.tgz"
    with tarfile.open(file, "w:gz") as made:
        for number, resource in enumerate([manifest, *resources]):
            data = resource if isinstance(resource, bytes) else json.dumps(resource).encode()
            member = tarfile.TarInfo(prefix + (f"r{number}.json" if number else "package.json"))
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return file


@pytest.fixture
def selection() -> Iterator[None]:
    """Puts the built-in definitions back."""
    yield
    library.select()


@pytest.mark.usefixtures("selection")
def test_a_loaded_profile_takes_the_place_of_the_built_in_one(tmp_path: Path) -> None:
    """The same URL means the loaded definition from then on, and the built-in one again when nothing is loaded."""
    patient = parse((CASES / "patient.json").read_bytes())
    assert validate(patient) == []
    strict = profile(US_CORE("us-core-patient"), element("Patient.photo", min=1, max="*"))
    loaded = load_package(package(tmp_path, strict), tmp_path / "definitions")
    assert (loaded.folder.name, loaded.profiles) == ("hl7.fhir.us.core-6.1.1", 1)
    library.select(loaded=loaded_in(tmp_path / "definitions"))
    assert [issue.text for issue in validate(patient)] == ["us-core-patient requires at least 1 photo; add it."]
    library.select()
    assert validate(patient) == []


@pytest.mark.usefixtures("selection")
def test_words_of_a_definition_never_become_code(tmp_path: Path) -> None:
    """Names, codes and URLs of a package are data in the generated functions, whatever they hold."""
    name = f"Patient.{QUOTES.replace('.', '')}"
    url = f"http://example.org/{QUOTES}"
    hostile = profile(
        url,
        element("Patient.gender", min=1, fixedCode=QUOTES),
        element("Patient.maritalStatus", patternCodeableConcept={"coding": [{"system": QUOTES, "code": QUOTES}]}),
        element(name, min=1, fixedString=QUOTES),
        element("Patient.identifier", slicing={"discriminator": [{"type": "value", "path": "system"}]}),
        element(f"Patient.identifier:{QUOTES}", sliceName=QUOTES, min=1),
        element(f"Patient.identifier:{QUOTES}.system", fixedUri=QUOTES),
    )
    library.select(loaded=[load_package(package(tmp_path, hostile), tmp_path / "definitions").folder])
    patient = parse((CASES / "patient.json").read_bytes())
    assert any(issue.is_error for issue in validate(patient, url))


def test_loading_again_replaces(tmp_path: Path) -> None:
    """A package of the same name and version leaves one folder, with what came last."""
    into = tmp_path / "definitions"
    load_package(package(tmp_path, profile("http://example.org/a")), into)
    load_package(package(tmp_path, profile("http://example.org/b", element("Patient.photo", min=1))), into)
    (folder,) = loaded_in(into)
    assert [each["url"] for each in json.loads((folder / "profiles.json").read_bytes())] == ["http://example.org/b"]
    assert [each.name for each in into.iterdir()] == [folder.name]


LACKING = {"resourceType": "StructureDefinition", "id": "x", "url": "http://example.org/x", "derivation": "constraint"}
CORE = {"resourceType": "StructureDefinition", "id": "Patient", "url": FHIR_BASE + "Patient"}
REFUSED = {
    "no name": ({"version": "1"}, []),
    "a name that leaves the folder": (MANIFEST | {"name": "../../etc"}, []),
    "a version that leaves the folder": (MANIFEST | {"version": "1/../../x"}, []),
    "another release": (MANIFEST | {"fhirVersions": ["5.0.0"]}, []),
    "the core package": (MANIFEST, [CORE]),
    "no JSON": (MANIFEST, [b"{"]),
    "nested JSON": (MANIFEST, [b"[" * 100_000]),
    "a definition without type": (MANIFEST, [LACKING]),
    "a cardinality that is none": (MANIFEST, [profile("http://example.org/a", element("Patient.photo", max="x"))]),
    "a type that R4 does not know": (MANIFEST, [profile("http://example.org/a") | {"type": "Spaceship"}]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_package_is_refused_whole(name: str, tmp_path: Path) -> None:
    """Each defect is a sentence, and leaves no file behind."""
    manifest, resources = REFUSED[name]
    with pytest.raises(PackageRefused, match=r"\.$"):
        load_package(package(tmp_path, *resources, manifest=manifest), tmp_path / "definitions")
    assert loaded_in(tmp_path / "definitions") == []
    assert [*(tmp_path / "definitions").glob("*")] == []


def test_only_files_right_under_package_are_read(tmp_path: Path) -> None:
    """Links, folders and paths that lead elsewhere are passed over."""
    file = tmp_path / "package.tgz"
    with tarfile.open(file, "w:gz") as made:
        for name in ("package/../a.json", "../package/a.json", "/package/a.json", "package/example/a.json", "a.json"):
            member = tarfile.TarInfo(name)
            member.size = 1
            made.addfile(member, io.BytesIO(b"1"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            link = tarfile.TarInfo("package/link.json")
            link.type, link.linkname = kind, "/etc/hostname"
            made.addfile(link)
    assert list(json_files(file)) == []


def test_a_bomb_does_not_go_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size of the file, of what it unpacks to, of a member, and the number of members have limits."""
    file = package(tmp_path, *[b'"' + b" " * 300_000 + b'"'] * 2)
    for name, limit in (("MAX_FILE", 100), ("MAX_UNPACKED", 400_000), ("MAX_MEMBER", 200_000), ("MAX_MEMBERS", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(archive, name, limit)
            with pytest.raises(PackageRefused, match="official"):
                list(json_files(file))


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b\x08\x00" + bytes(20)])
def test_a_damaged_file_is_refused(data: bytes, tmp_path: Path) -> None:
    """What is no gzipped tar archive says so."""
    (tmp_path / "x.tgz").write_bytes(data)
    with pytest.raises(PackageRefused, match="download it again"):
        list(json_files(tmp_path / "x.tgz"))


def test_a_package_cut_off_is_refused(tmp_path: Path) -> None:
    """Half a download is not half a guide."""
    file = package(tmp_path, {"text": "".join(str(number) for number in range(50_000))})
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(PackageRefused):
        load_package(file, tmp_path / "definitions")


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    """A process is not started with definitions that are not there."""
    with pytest.raises(library.UnknownGuide):
        library.select(loaded=[tmp_path])
