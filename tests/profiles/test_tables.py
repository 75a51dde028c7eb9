"""The derivation of tables from a package, on a package of one profile made here."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from profiles.tables import Package, derive

CORE = "http://hl7.org/fhir/StructureDefinition/"
ELE = [{"key": "ele-1", "severity": "error", "human": "prose", "expression": "hasValue()"}]


def package(folder: Path, *resources: dict[str, Any]) -> Package:
    """A package of these resources."""
    file = folder / "package.tgz"
    with tarfile.open(file, "w:gz") as archive:
        for number, resource in enumerate(resources):
            data = json.dumps(resource).encode()
            member = tarfile.TarInfo(f"package/r{number}.json")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return Package(file)


def read(folder: Path, name: str) -> Any:
    """One table of the output."""
    return json.loads((folder / name).read_text(encoding="utf-8"))


PATIENT = {"resourceType": "StructureDefinition", "url": CORE + "Patient", "id": "Patient", "type": "Patient"}
PATIENT |= {"kind": "resource", "derivation": "specialization", "baseDefinition": CORE + "DomainResource"}
SYSTEM_STRING = "http://hl7.org/fhirpath/System.String"
STATUS_VS = "http://example.org/ValueSet/status"
ELEMENTS = [
    {
        "path": "Patient",
        "min": 0,
        "max": "*",
        "constraint": [*ELE, {"key": "p-1", "severity": "error", "expression": "a"}],
    },
    {"path": "Patient.id", "min": 0, "max": "1", "base": {"path": "Resource.id"}, "type": [{"code": SYSTEM_STRING}]},
    {"path": "Patient.stray", "min": 0, "max": "1", "type": [{"code": "uri"}]},
    {"path": "Patient.status", "min": 1, "max": "1", "type": [{"code": "code"}], "constraint": ELE},
    {"path": "Patient.link", "min": 0, "max": "*", "type": [{"code": "BackboneElement"}], "constraint": ELE},
    {"path": "Patient.link.other", "min": 1, "max": "1", "type": [{"code": "Reference"}], "constraint": ELE},
]
ELEMENTS[3]["binding"] = {"strength": "required", "valueSet": STATUS_VS + "|4.0.1", "description": "prose"}
ELEMENTS[5]["type"][0]["targetProfile"] = [CORE + "Patient", CORE + "Person"]  # type: ignore[index]
CODES = {"resourceType": "CodeSystem", "url": "http://example.org/cs", "content": "complete"}
CODES["concept"] = [{"code": "a", "definition": "prose", "concept": [{"code": "b"}]}]  # type: ignore[assignment]
VALUES = {"resourceType": "ValueSet", "url": STATUS_VS, "compose": {"include": [{"system": "http://example.org/cs"}]}}


def test_types_become_rows(tmp_path: Path) -> None:
    """Cardinality, type, targets and value set make one row; what HL7 did not define is left out."""
    found = package(tmp_path, PATIENT | {"snapshot": {"element": ELEMENTS}}, CODES, VALUES)
    derive(found, tmp_path / "out")
    assert read(tmp_path / "out", "types.json") == {
        "Patient": {
            "kind": "resource",
            "elements": {"id": "0..1 id", "status": f"1..1 code ! {STATUS_VS}", "link": "0..* @Patient.link"},
        },
        "Patient.link": {"kind": "backbone", "elements": {"other": "1..1 Reference(Patient,Person)"}},
    }
    assert read(tmp_path / "out", "rules.json") == {"Patient": {"p-1": ["error", "a"]}}
    assert read(tmp_path / "out", "valuesets.json") == {STATUS_VS: {"http://example.org/cs": ["a", "b"]}}


def test_a_profile_loses_its_prose(tmp_path: Path) -> None:
    """A differential keeps its facts, gains the type that its snapshot narrows a choice to, and loses all text."""
    profile = {"resourceType": "StructureDefinition", "url": "http://example.org/p", "id": "p", "type": "Observation"}
    profile |= {"kind": "resource", "derivation": "constraint", "baseDefinition": CORE + "Observation"}
    written = {"id": "Observation.valueQuantity", "path": "Observation.valueQuantity", "min": 1, "short": "prose"}
    told = {"id": "Observation.note", "path": "Observation.note", "comment": "prose"}
    narrowed = {"id": "Observation.value[x]", "path": "Observation.value[x]", "type": [{"code": "Quantity"}]}
    profile |= {"differential": {"element": [written, told]}, "snapshot": {"element": [narrowed]}}
    derive(package(tmp_path, profile), tmp_path / "out")
    (found,) = read(tmp_path / "out", "profiles.json")
    assert found["differential"]["element"] == [
        {"id": "Observation.valueQuantity", "path": "Observation.valueQuantity", "min": 1},
        narrowed,
    ]
