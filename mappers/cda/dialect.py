"""The converters that table rows may call, and the tables, compiled once."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from mappers import engine
from mappers.cda import paths
from mappers.cda.compiled import Converter, Kept, Table, compile_table
from mappers.cda.context import Document, Resource, codes, says
from mappers.cda.datatypes import CONVERTERS, token
from mappers.cda.node import Node
from mappers.cda.times import point
from profiles.canonical import CONDITION_CLINICAL, CONDITION_VERIFICATION, R4

ALLERGY_CLINICAL = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"

_GOAL_PRIORITY = "http://terminology.hl7.org/CodeSystem/goal-priority"


def _birth_time(node: Node, document: Document) -> dict[str, Any] | None:
    """birthTime with a clock time -> the extension that keeps it."""
    found = point(node, document)
    return {"url": R4("patient-birthTime"), "valueDateTime": found} if found and "T" in found else None


def _language(node: Node, document: Document) -> dict[str, Any] | None:
    for child in node[:]:
        if child.tag not in _LANGUAGE and says(child):
            document.leave(child, "left", reason="How well or by which means a language is used: no one asks for it.")
    code = token(paths.first("languageCode/@code")(node))
    if not code:
        return None
    result: dict[str, Any] = {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": code}]}}
    preferred = paths.first("preferenceInd/@value")(node)
    return result | ({"preferred": preferred == "true"} if preferred in ("true", "false") else {})


_LANGUAGE = frozenset({paths.qualified("languageCode"), paths.qualified("preferenceInd")})


def _coded(name: str, system: str) -> Any:
    """A converter: a code of CDA -> a CodeableConcept by one map of tables/codes.toml."""

    def convert(written: str, document: Document) -> dict[str, Any] | None:
        code = codes()[name].get(written.strip())
        if code is None:
            document.warn("code-invalid", f"The code is not in the map {name} of the CDA tables: correct it.")
        return {"coding": [{"system": system, "code": code}]} if code else None

    return convert


def _refuted(written: str, _document: Document) -> dict[str, Any] | None:
    return {"coding": [{"system": CONDITION_VERIFICATION, "code": "refuted"}]} if written == "true" else None


_CONVERTERS: Mapping[str, Converter] = {
    **CONVERTERS,
    "TS[birthTime]": _birth_time,
    "languageCommunication[communication]": _language,
    "problem-status[clinicalStatus]": _coded("problem-status", CONDITION_CLINICAL),
    "allergy-status[clinicalStatus]": _coded("allergy-status", ALLERGY_CLINICAL),
    "priority[Goal.priority]": _coded("priority", _GOAL_PRIORITY),
    "negationInd[verificationStatus]": _refuted,
}


@cache
def table(name: str) -> Table:
    """`tables/<name>.toml`, compiled once."""
    content = engine.load("mappers.cda", f"tables/{name}.toml")
    return compile_table(content["row"], _CONVERTERS, keep=content.get("keep", ()))


def apply(name: str, node: Node, *, document: Document, kind: str) -> tuple[Resource, Kept]:
    """A new resource of type `kind` from an element, by one table, and the children that the table keeps."""
    resource: Resource = {"resourceType": kind}
    return resource, table(name).apply(node, resource, document)
