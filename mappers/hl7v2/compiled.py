"""The compiled mapping tables of HL7 v2, made once at import: datatypes first, then the segments that use them."""

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mappers.engine import Converter, Table, as_converter, compile_table, load
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.datatypes import codeable_concept, coded_only, date_time, in_table, text
from mappers.hl7v2.dialect import HL7v2Dialect, components
from mappers.hl7v2.identifiers import identifier_system, identifier_type
from mappers.hl7v2.people import (
    acting,
    interpreter,
    organization,
    participant,
    practitioner,
    provider_identifier,
    referring,
)
from mappers.hl7v2.registry import CONVERTERS

PACKAGE = "mappers.hl7v2"
_HL7 = "http://terminology.hl7.org/CodeSystem/"


def _datatypes(dialect: HL7v2Dialect, converters: dict[str, Converter]) -> None:
    for datatype in load(PACKAGE, "tables/datatypes.toml")["datatype"]:
        needs = dialect.first(datatype["needs"]) if "needs" in datatype else None
        table = compile_table(datatype["row"], dialect, nested=True)
        converters[datatype["name"]] = as_converter(table, components, needs=needs)


def _references(converters: dict[str, Converter]) -> dict[str, Converter]:
    person = referring("XCN", converters["XCN[Practitioner]"], practitioner)
    return {
        "XCN[Reference]": person,
        "XON[Reference]": referring("XON", converters["XON[Organization]"], organization),
        "NDL[Reference]": interpreter(person),
        "performer": acting(person),
        **{f"participant-{role}": participant(role, person) for role in ("ATND", "REF", "CON", "ADM")},
    }


def _collection_period(end: str, context: MessageContext, start: str) -> tuple[str, Any] | None:
    """OBR-7 and OBR-8: a period, or one time if they are the same."""
    last, first = date_time(end, context), date_time(start, context) if start else None
    if first == last and first:
        return "DateTime", first
    made = {name: part for name, part in (("start", first), ("end", last)) if part}
    return ("Period", made) if made else None


def _file_name(value: str, context: MessageContext) -> dict[str, Any] | None:
    found = text(value, context)
    return {"value": found} if found else None


def _text_or_code(value: str, context: MessageContext) -> dict[str, Any] | None:
    """A field that is text in one version and coded in another."""
    if "^" in value:
        return codeable_concept(value, context)
    words = text(value, context)
    return {"text": words} if words else None


def _severity_alone(_value: str, context: MessageContext) -> None:
    context.warn("incomplete", "A severity without the reaction (AL1-5) has no place in FHIR R4. Send the reaction.")


def _said_elsewhere(_value: str, context: MessageContext) -> None:
    context.leave(context.path, "another field of the segment, which comes first, says it")


_SEGMENT_CONVERTERS: Mapping[str, Converter] = {
    "collection-period": _collection_period,
    "file-name": _file_name,
    "text-or-code": _text_or_code,
    "severity-alone": _severity_alone,
    "said-elsewhere": _said_elsewhere,
    "PLN[Identifier]": provider_identifier(identifier_system, identifier_type),
    "admission-type": in_table(f"{_HL7}v2-0007"),
    "hospital-service": in_table(f"{_HL7}v2-0069"),
    "discharge-disposition": in_table(f"{_HL7}v2-0112"),
    "verification-status": coded_only("v2-0052"),
}


def _compile() -> dict[str, Table]:
    converters = {**CONVERTERS, **_SEGMENT_CONVERTERS}
    dialect = HL7v2Dialect(converters)
    _datatypes(dialect, converters)
    converters.update(_references(converters))
    return {name: compile_table(rows, dialect) for name, rows in load(PACKAGE, "tables/segments.toml").items()}


def _width(tables: Mapping[str, Table]) -> dict[str, int]:
    """To how many fields each segment is filled up, so that every getter finds its index."""
    widths = {"MSH": 22, "SPM": 8, "ORC": 13}
    for table in tables.values():
        for path in table.reads | table.left.keys():
            match = re.match(r"([A-Z0-9]{3})-(\d+)", path)
            if match:
                widths[match[1]] = max(widths.get(match[1], 0), int(match[2]) + 1)
    return widths


TABLES = _compile()
WIDTHS = _width(TABLES)


def recompile() -> None:
    """Compiles the tables again, in place, because the readers hold them: at the start of a process only."""
    for name, made in _compile().items():
        table = TABLES.setdefault(name, made)
        for part in fields(Table):
            object.__setattr__(table, part.name, getattr(made, part.name))
    WIDTHS.clear()
    WIDTHS.update(_width(TABLES))
