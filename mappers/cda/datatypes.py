"""CDA data types to FHIR data types. Each converter takes (element, Document) and gives a value, or None for nothing.

Source: C-CDA on FHIR 2.0.0, Mapping Guidance (data types); HL7 V3 Data Types R1 ITS; FHIR R4.
"""

import re
from decimal import Decimal
from functools import lru_cache
from typing import Any

from mappers.cda.context import Document, codes, folded
from mappers.cda.demographics import address, human_name, telecom
from mappers.cda.node import Node
from mappers.cda.paths import first, qualified
from mappers.cda.times import date_of, earliest, instant_of, point, time_of
from mappers.codesystems import system_of_oid, ucum
from mappers.converters import decimal
from profiles.canonical import DATA_ABSENT_REASON, DATA_ABSENT_REASON_EXTENSION, MBI, NPI, SSN, UCUM, UUID_SYSTEM

_SAME = "The value is mapped in the unit that the document gives it first; a translation says the same in another."
_MANY = 50
Choice = tuple[str, Any]  # suffix of value[x] and its value

_CODE = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]+( [^\s\x00-\x1f\x7f-\x9f]+)*")
_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_URI_ROOT = "2.16.840.1.113883.4.873"  # the extension is a URI itself
_NO_ROOT_ALONE = {SSN, NPI, MBI}  # such a root without an extension names a kind of id, not one
_XSI_TYPE = qualified("xsi:type")
_TRANSLATION, _ORIGINAL, _REFERENCE = qualified("translation"), qualified("originalText"), qualified("reference")


@lru_cache(1024)
def system(oid: str | None) -> str | None:
    """The URI of a code or identifier system, or None when the root is no OID."""
    if not oid:
        return None
    return codes()["oids"].get(oid) or system_of_oid(oid.strip())


def identifier(node: Node, document: Document) -> dict[str, Any] | None:
    """II -> Identifier."""
    root = node.get("root")
    if not root:
        return None
    extension = node.get("extension")
    if not extension:
        document.keys.append(f"{root}|")
        return _root_alone(root.strip(), document)
    document.keys.append(f"{root}|{extension}")
    root, extension = root.strip(), extension.strip()
    if not extension:
        return _root_alone(root, document)
    if root == _URI_ROOT:
        return {"system": UUID_SYSTEM, "value": extension}
    uri = _namespace(root)
    if uri is None:
        document.warn("value", "The root of the id is neither an OID nor a UUID: send a registered one.")
        return {"value": extension}
    if uri in (MBI, SSN):
        extension = extension.replace("-", "").replace(" ", "")
    return {"system": uri, "value": extension}


@lru_cache(1024)
def _namespace(root: str) -> str | None:
    return f"urn:uuid:{root.lower()}" if _UUID.fullmatch(root) else system(root)


def _root_alone(root: str, document: Document) -> dict[str, Any] | None:
    if _UUID.fullmatch(root):
        return {"system": UUID_SYSTEM, "value": f"urn:uuid:{root.lower()}"}
    if system(root) in _NO_ROOT_ALONE:
        return None
    if _OID.fullmatch(root):
        return {"system": UUID_SYSTEM, "value": f"urn:oid:{root}"}
    document.warn("value", "The root of the id is neither an OID nor a UUID: send a registered one.")
    return None


def token(written: str | None) -> str | None:
    """A string as a FHIR `code`, which has no blanks at its ends and single ones inside; None when it is none."""
    code = (written or "").strip()
    return code if _CODE.fullmatch(code) else None


def coding(node: Node, document: Document) -> dict[str, Any] | None:
    """One code of a CD, CE, CO or CV; None when the element carries none."""
    return _coded(node, document)[0]


Coded = tuple[dict[str, Any] | None, dict[str, Any] | None]  # a Coding, and the CodeableConcept that it is


def _coded(node: Node, document: Document) -> Coded:
    code = node.get("code")
    if not code:
        return _NO_CODE
    made = _known(code, node.get("codeSystem"), node.get("displayName"))
    if (made[0] is None or "code" not in made[0]) and code.strip():
        document.warn("code-invalid", "A code with double blanks is no FHIR code: only its display is kept.")
    return made


_NO_CODE: Coded = (None, None)


@lru_cache(4096)
def _known(written: str, oid: str | None, name: str | None) -> Coded:
    """The Coding and its concept: one object for all resources, not to be changed. Of no FHIR code only the display."""
    code, display = written.strip(), " ".join(name.split()) if name else ""
    if not code:
        return _NO_CODE
    made = {"display": display} if display else {}
    if _CODE.fullmatch(code):
        uri = system(oid)
        made = ({"system": uri} if uri else {}) | {"code": code} | made
    return (made, {"coding": [made]}) if made else _NO_CODE


def concept(node: Node, document: Document) -> dict[str, Any] | None:
    """CD -> CodeableConcept: the code and its translations, once each; the original text."""
    own, alone = _coded(node, document)
    if alone is not None and not len(node):
        return alone
    codings = [own] if own else []
    spoken = None
    for child in node[:]:
        if child.tag == _TRANSLATION:
            other = coding(child, document)
            if other:
                _once(other, codings)
        elif child.tag == _ORIGINAL:
            spoken = spoken or text(child, document)
        else:
            document.unread(child)  # a qualifier
    if not codings:
        spoken = spoken or " ".join((node.get("displayName") or "").split())
        return {"text": spoken} if spoken else None
    return {"coding": codings, "text": spoken} if spoken else {"coding": codings}


def _once(other: dict[str, Any], codings: list[dict[str, Any]]) -> None:
    """Adds a translation that is not there yet; of very many, the neighbours alone are compared (no quadratic time)."""
    if other not in (codings if len(codings) < _MANY else codings[-_MANY:]):
        codings.append(other)


def named(coded: dict[str, Any] | None, node: Node | None, document: Document) -> dict[str, Any] | None:
    """What a thing is: its code, and its name as the text where the code has no words of its own."""
    name = folded(node) if node is not None else None
    if node is None or name is None:
        return coded
    if coded and coded.get("text", name) != name:
        document.leave(node, "left", reason="The code has words of its own: another name of the same stays out.")
    return {"text": name} | (coded or {})


def original_text(node: Node, document: Document) -> str | None:
    """originalText, its `#reference` followed into the narrative."""
    return text(found, document) if (found := first("originalText")(node)) is not None else None


def text(node: Node, document: Document) -> str | None:
    """ED or ST as plain text; a reference into the narrative is followed."""
    for child in node[:]:
        if child.tag != _REFERENCE:
            continue
        anchor = child.get("value")
        if anchor and anchor.startswith("#"):
            found = document.narrative(anchor)
            own = folded(node)
            if found is None and own is None:
                document.at(child).inform("The reference leads to no text of the narrative.")
            return own or found
    own = folded(node)
    return None if own is None or node.get("representation") == "B64" else own


def absent_reason(node: Node, _document: Document) -> dict[str, Any] | None:
    """nullFlavor -> dataAbsentReason."""
    code = codes()["null-flavor"].get(node.get("nullFlavor") or "")
    return {"coding": [{"system": DATA_ABSENT_REASON, "code": code}]} if code else None


def absent(code: str) -> dict[str, Any]:
    """The data-absent-reason extension."""
    return {"url": DATA_ABSENT_REASON_EXTENSION, "valueCode": code}


def number(written: str | None, document: Document) -> Decimal | None:
    """A REAL or INT attribute as an exact decimal."""
    if not written:
        return None
    value = decimal(written)
    if value is None and written.strip():
        document.warn("value", "This is no number: correct it and send the document again.")
    return value


def quantity(node: Node, document: Document) -> dict[str, Any] | None:
    """PQ -> Quantity. `system` and `code` stand only when the unit is UCUM or is known to mean one."""
    written = node.get("value")
    if written is None:
        other = first("translation")(node)
        if node.get("nullFlavor") != "OTH" or other is None:
            return None
        return _quantity(other.get("value"), original_text(other, document), document=document)
    for other in node[:]:
        document.leave(other, "left", reason=_SAME)
    return _quantity(written, node.get("unit"), document=document)


def _quantity(written: str | None, unit: str | None, *, document: Document) -> dict[str, Any] | None:
    value = number(written, document)
    if value is None:
        return None
    unit, code = _unit(unit) if unit else ("", None)
    if not unit:
        return {"value": value}
    if code is None:
        document.warn("code-invalid", "The unit is not UCUM and not in mappers/codesystems/units.json: kept as text.")
        return {"value": value, "unit": unit}
    return {"value": value, "unit": unit, "system": UCUM, "code": code}


@lru_cache(1024)
def _unit(written: str) -> tuple[str, str | None]:
    """A unit with its blanks folded, and its UCUM code."""
    unit = " ".join(written.split())
    return unit, ucum(unit)


def interval(node: Node, document: Document) -> Choice | None:
    """IVL_PQ, IVL_INT, IVL_REAL -> Quantity with a comparator, or Range."""
    low, high = first("low")(node), first("high")(node)
    start = quantity(low, document) if low is not None else None
    end = quantity(high, document) if high is not None else None
    if start and end and start["value"] != 0:
        return "Range", {"low": start, "high": end} if _ordered(start, end, document) else {"low": start}
    if end:
        return "Quantity", _compared(end, "<" if high.get("inclusive") == "false" else "<=")
    if start:
        return "Quantity", _compared(start, ">" if low.get("inclusive") == "false" else ">=")
    return ("Quantity", found) if (found := quantity(node, document)) else None


def _compared(value: dict[str, Any], comparator: str) -> dict[str, Any]:
    return {"value": value["value"], "comparator": comparator} | value


def limits(node: Node, document: Document) -> dict[str, Any] | None:
    """IVL_PQ and the like -> low and high of a Range or a reference range; bounds are never turned into comparators."""
    found = {name: first(name)(node) for name in ("low", "high")}
    values = {name: quantity(part, document) for name, part in found.items() if part is not None}
    bounds = {name: value for name, value in values.items() if value}
    if len(bounds) == 2 and not _ordered(bounds["low"], bounds["high"], document):
        del bounds["high"]
    return bounds or None


def _ordered(low: dict[str, Any], high: dict[str, Any], document: Document) -> bool:
    """Whether an interval of one unit does not end below its start (rng-2); that it does is said."""
    wrong = low.get("unit") == high.get("unit") and low["value"] > high["value"]
    if wrong:
        document.warn("value", "The interval ends below its start: its end is left out.")
    return not wrong


def value(node: Node, document: Document) -> Choice | None:
    """Any observation value -> value[x], by its xsi:type, else by its attributes; None when it says nothing."""
    kind = node.get(_XSI_TYPE) or ("CD" if node.get("code") else "PQ" if node.get("value") else "ST")
    convert = _BY_TYPE.get(kind) or _BY_TYPE.get(kind.rpartition(":")[2])
    if convert is None:
        document.warn("not-supported", "Values of this type are not mapped: the document itself is kept.")
        return None
    return convert(node, document)


def _as_quantity(node: Node, document: Document) -> Choice | None:
    return ("Quantity", found) if (found := quantity(node, document)) else None


def _as_integer(node: Node, document: Document) -> Choice | None:
    found = number(node.get("value"), document)
    if found is None:
        return None
    return ("Integer", int(found)) if found == found.to_integral_value() else ("Quantity", {"value": found})


def _as_concept(node: Node, document: Document) -> Choice | None:
    return ("CodeableConcept", found) if (found := concept(node, document)) else None


def _as_text(node: Node, document: Document) -> Choice | None:
    return ("String", found) if (found := text(node, document)) else None


def _as_boolean(node: Node, _document: Document) -> Choice | None:
    return ("Boolean", node.get("value") == "true") if node.get("value") in ("true", "false") else None


def _as_time(node: Node, document: Document) -> Choice | None:
    return ("DateTime", found) if (found := point(node, document)) else None


def _as_period(node: Node, document: Document) -> Choice | None:
    return time_of(node, document)


_BY_TYPE = {
    **dict.fromkeys(("PQ", "REAL", "MO"), _as_quantity),
    **dict.fromkeys(("IVL_PQ", "IVL_INT", "IVL_REAL"), interval),
    **dict.fromkeys(("CD", "CE", "CO", "CV", "CS"), _as_concept),
    **dict.fromkeys(("ST", "ED", "SC"), _as_text),
    "INT": _as_integer,
    "BL": _as_boolean,
    "TS": _as_time,
    "IVL_TS": _as_period,
}


def annotation(node: Node, document: Document) -> dict[str, Any] | None:
    """Comment activity text -> Annotation."""
    return {"text": found} if (found := text(node, document)) else None


def reference_range(node: Node, document: Document) -> dict[str, Any] | None:
    """observationRange -> referenceRange; only the normal one, as FHIR's own default type is normal."""
    if first("interpretationCode/@code")(node) not in (None, "N"):
        return None
    found = first("value")(node)
    result: dict[str, Any] = (limits(found, document) or {}) if found is not None else {}
    if (words := first("text")(node)) is not None and (spoken := text(words, document)):
        result["text"] = spoken
    if not result and found is not None and (spoken := text(found, document)):
        result["text"] = spoken
    return result or None


def code_of(name: str) -> Any:
    """A converter of a code attribute by one map of tables/codes.toml; an unknown code is a warning."""

    def convert(written: str, document: Document) -> str | None:
        known = codes()[name]
        target = known.get(written) or known.get(written.strip())
        if target is None:
            document.warn("code-invalid", f"The code is not in the map {name} of the CDA tables: correct it.")
        return target

    return convert


def age(node: Node, document: Document) -> dict[str, Any] | None:
    """PQ -> Age: in a unit of time; any other is an Issue."""
    found = quantity(node, document)
    if found is None:
        return None
    if found.get("code") not in ("a", "mo", "wk", "d", "h", "min"):
        document.warn("value", "The age is not in a unit of time: it stays in the document.")
        return None
    return found


def place(node: Node, _document: Document) -> dict[str, Any] | None:
    """EN -> Encounter.location: the place by its name."""
    return {"location": {"display": name}} if (name := folded(node)) else None


def boolean(written: str, _document: Document) -> bool | None:
    """BL -> boolean."""
    return written == "true" if written in ("true", "false") else None


CONVERTERS: dict[str, Any] = {
    "BL[boolean]": boolean,
    "II[Identifier]": identifier,
    "CD[CodeableConcept]": concept,
    "CD[Coding]": coding,
    "TS[dateTime]": point,
    "TS[date]": date_of,
    "TS[instant]": instant_of,
    "IVL_TS[effective]": time_of,
    "IVL_TS[dateTime]": earliest,
    "PQ[Quantity]": quantity,
    "PQ[Age]": age,
    "EN[location]": place,
    "ANY[value]": value,
    "PN[HumanName]": human_name,
    "AD[Address]": address,
    "TEL[ContactPoint]": telecom,
    "ED[string]": text,
    "ED[Annotation]": annotation,
    "nullFlavor[dataAbsentReason]": absent_reason,
    "observationRange[referenceRange]": reference_range,
    **{f"CS[{name}]": code_of(name) for name in codes() if name != "oids"},
}
