"""Identifiers and telephones: CX, EI, HD and XTN. A system is written only where the message leaves no doubt about it.

Source: HL7 v2-to-FHIR 1.0.0, CX, EI, HD and XTN maps.
"""

from functools import lru_cache
from typing import Any

from mappers.codesystems import (
    code_map,
    identifier_type_system,
    identifier_types,
    system_of_authority,
    system_of_namespace,
)
from mappers.converters import concept, is_mbi
from mappers.engine import Converter
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.datatypes import text
from mappers.hl7v2.dialect import components
from mappers.hl7v2.parse import unescape
from profiles import canonical

_TYPES, _TYPE_SYSTEM = identifier_types(), identifier_type_system()


@lru_cache(1024)
def authority(value: str) -> str | None:
    """The system of an HD: its OID, UUID or URI, or a name that leaves no doubt; None for a sender's own name."""
    namespace, universal, kind = ([part.strip() for part in value.split("&")] + ["", ""])[:3]
    return system_of_authority(universal, kind) or system_of_namespace(namespace)


def identifier_system(value: str, _context: MessageContext, raw_authority: str, kind: str) -> str | None:
    """CX.4 or XCN.9 as system. Without one, type MC with a value in CMS's format is an MBI, type NPI an NPI."""
    found = authority(raw_authority) if raw_authority else None
    if found:
        return found
    if kind == "MC" and is_mbi(value):
        return canonical.MBI
    return canonical.NPI if kind == "NPI" else None


def identifier_type(value: str, _context: MessageContext) -> dict[str, Any]:
    """CX.5 or XCN.13 as type."""
    if value in _TYPES:
        return {"coding": [{"system": _TYPE_SYSTEM, "code": value}]}
    return {"text": unescape(value)}


def assigner(value: str, context: MessageContext) -> dict[str, Any] | None:
    """The name of an HD that has no system."""
    if authority(value) is not None:
        return None
    name = text(value.partition("&")[0], context)
    return {"display": name} if name else None


def entity_identifier(kind: str) -> Converter:
    """EI as Identifier of a type (PLAC, FILL): EI.1 the value, EI.2 to EI.4 the authority."""

    def convert(value: str, context: MessageContext) -> dict[str, Any] | None:
        parts = components(value)
        own = text(parts[0], context)
        if own is None:
            return None
        made: dict[str, Any] = {"type": concept(identifier_type_system(), kind)} if kind else {}
        system = system_of_authority(parts[2].strip(), parts[3].strip())
        if system:
            return {**made, "system": system, "value": own}
        named = text(parts[1], context)
        return {**made, "value": own, **({"assigner": {"display": named}} if named else {})}

    return convert


def telephone(use: str | None) -> Converter:
    """XTN as ContactPoint; `use` is what the field says when XTN.2 says nothing."""
    uses, systems = code_map("v2-0201-use").targets, code_map("v2-0202").targets

    def convert(value: str, context: MessageContext) -> dict[str, Any] | None:
        parts = components(value)
        address = parts[3] if parts[2].upper() in ("INTERNET", "X.400") or parts[1] == "NET" else ""
        number = text(address or parts[11] or parts[0] or _dialled(parts), context)
        if number is None:
            return None
        system = systems.get(parts[2]) or ("email" if "@" in number else "phone")
        said = uses.get(parts[1]) or ("mobile" if parts[2] == "CP" else use)
        return {"system": system, "value": number, **({"use": said} if said else {})}

    return convert


def _dialled(parts: list[str]) -> str:
    country = f"+{parts[4].lstrip('+')}" if parts[4] else ""
    extension = f"ext. {parts[7]}" if parts[7] else ""
    return " ".join(filter(None, (country, parts[5], parts[6], extension))) if parts[6] else ""
