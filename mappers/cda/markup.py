"""CDA data types from FHIR: elements for the writer. The reverse of mappers/cda/datatypes.py, read back by it in tests.

Source: HL7 V3 Data Types R1 ITS; C-CDA on FHIR 2.0.0, Mapping Guidance (FHIR to CDA); C-CDA R2.1.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from lxml import etree

from mappers.cda.context import codes
from mappers.cda.node import Node
from mappers.cda.parse import HL7, SDTC, XSI
from mappers.codesystems import oids
from profiles.canonical import UCUM, UUID_SYSTEM

Resource = dict[str, Any]
Child = Node | str | None

NAMESPACES = {None: HL7, "sdtc": SDTC, "xsi": XSI}
LOINC_OID, SNOMED_OID, ROLE_OID = "2.16.840.1.113883.6.1", "2.16.840.1.113883.6.96", "2.16.840.1.113883.5.111"
_URI_ROOT = "2.16.840.1.113883.4.873"  # the extension is a URI
_URN = re.compile(r"urn:(oid|uuid):(.+)")
_UNTIMED = re.compile(r"\d{4}(-\d\d){0,2}")
_CONTROL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # no character of XML 1.0


def element(name: str, *children: Child, **attributes: str | None) -> Node:
    """An element of CDA; `sdtc_` before a name is its namespace. Of attributes, `type_` is xsi:type."""
    uri, local = (SDTC, name[5:]) if name.startswith("sdtc_") else (HL7, name)
    made: Node = etree.Element(f"{{{uri}}}{local}", nsmap=NAMESPACES)  # type: ignore[arg-type,assignment]
    for key, value in attributes.items():
        if value is not None:
            made.set(f"{{{XSI}}}type" if key == "type_" else key.rstrip("_"), clean(value))
    for child in children:
        if isinstance(child, str):
            _append_text(made, clean(child))
        elif child is not None:
            made.append(child)
    return made


def _append_text(node: Node, text: str) -> None:
    if len(node):
        node[-1].tail = (node[-1].tail or "") + text
    else:
        node.text = (node.text or "") + text


def clean(text: str) -> str:
    """The text without what XML can not hold."""
    return _CONTROL.sub("", text)


def template(root: str, extension: str | None = None) -> Node:
    """templateId; a root that begins with a digit and a point below 10 (`4.27`) is one of C-CDA's own."""
    whole = root if root.startswith(("2.16.", "1.3.")) else f"2.16.840.1.113883.10.20.22.{root}"
    return element("templateId", root=whole, extension=extension)


_NEW_IN_R2 = frozenset({"1.14", "1.15", "2.56", "2.58", "4.132", "4.146"})  # R1.1 had no such templates


def templates(root: str, extension: str | None) -> list[Node]:
    """The templateIds of a template: dated, and undated before it where R1.1 had it, as R2.1 asks for R1.1's readers.

    Source: C-CDA R2.1, 1.9 (Compatibility); CONF:1198-32936.
    """
    if extension is None or root in _NEW_IN_R2:
        return [template(root, extension)]
    return [template(root), template(root, extension)]


# --- ids and codes -------------------------------------------------------------------------------------------------
@cache
def _roots() -> dict[str, str]:
    """The OID of each URI that we know."""
    ours = {uri: oid for oid, uri in codes()["oids"].items()}
    return {uri: oid for oid, uri in reversed(list(oids().items()))} | ours


def root_of(uri: str | None) -> str | None:
    """The OID or UUID of a system, if it has one; None for any other URI."""
    match = _URN.fullmatch(uri or "")
    return match[2] if match else _roots().get(uri or "")


def unique(*parts: str) -> str:
    """A UUID that follows from its parts: the same update gives the same document."""
    return str(uuid5(NAMESPACE_URL, "|".join(parts)))


def identifier(value: Resource) -> Node:
    """Identifier -> II. A system that is no OID gives an id by URI (root 2.16.840.1.113883.4.873)."""
    uri, written = value.get("system"), value.get("value", "")
    match = _URN.fullmatch(written) if uri == UUID_SYSTEM else None
    if match:
        return element("id", root=match[2])
    root = root_of(uri)
    if root:
        return element("id", root=root, extension=written)
    return element("id", root=_URI_ROOT, extension=f"{uri}/{written}" if uri and uri != UUID_SYSTEM else written)


def identifiers(resource: Resource, base: str) -> list[Node]:
    """The ids of an entry: its own, else one from its place at `base`."""
    known = [identifier(one) for one in resource.get("identifier", ()) if one.get("value")]
    return known or [element("id", root=unique(base, resource["resourceType"], str(resource.get("id"))))]


def coded(name: str, concept: Resource | None, **attributes: str | None) -> Node:
    """CodeableConcept -> CD: the first coding that has an OID, the others as translations, the text as originalText."""
    concept = concept or {}
    known = [one for one in concept.get("coding", ()) if root_of(one.get("system")) and one.get("code")]
    text = concept.get("text")
    spoken = element("originalText", text) if text else None
    if not known:
        display = next((one["display"] for one in concept.get("coding", ()) if one.get("display")), None)
        words = spoken if spoken is not None else element("originalText", display) if display else None
        return element(name, words, **attributes, nullFlavor="UNK")
    first, *others = known
    rest = [element("translation", **_coding(one)) for one in others]
    return element(name, spoken, *rest, **attributes, **_coding(first))


def _coding(coding: Resource) -> dict[str, str | None]:
    return {"code": coding["code"], "codeSystem": root_of(coding["system"]), "displayName": coding.get("display")}


def code(name: str, value: str, oid: str, display: str | None = None, **attributes: str | None) -> Node:
    """One code."""
    return element(name, **attributes, code=value, codeSystem=oid, displayName=display)


# --- times and values ----------------------------------------------------------------------------------------------
def stamp(written: str | None) -> str | None:
    """A FHIR date, dateTime or instant as TS, with its precision."""
    if not written:
        return None
    if _UNTIMED.fullmatch(written):
        return written.replace("-", "")
    day, _, rest = written.partition("T")
    match = re.fullmatch(r"([\d:]+)(\.\d+)?(Z|[+-]\d\d:\d\d)?", rest)
    if match is None:
        return day.replace("-", "")
    offset = "+0000" if match[3] == "Z" else (match[3] or "").replace(":", "")
    return f"{day.replace('-', '')}{match[1].replace(':', '')}{match[2] or ''}{offset}"


def moment(name: str, written: str | None) -> Node:
    """A time, or that it is not known."""
    found = stamp(written)
    return element(name, value=found, nullFlavor=None if found else "UNK")


def span(
    name: str, start: str | None, end: str | None = None, *, ended: bool = False, type_: str | None = None
) -> Node:
    """IVL_TS. An end that is not known is left out, but told as not known where the template wants one (`ended`)."""
    high = moment("high", end) if end or ended else None
    return element(name, moment("low", start), high, type_=type_)


def effective(resource: Resource) -> Node:
    """effectiveDateTime or effectivePeriod -> effectiveTime."""
    period = resource.get("effectivePeriod")
    if period:
        return span("effectiveTime", period.get("start"), period.get("end"))
    return moment("effectiveTime", resource.get("effectiveDateTime"))


def interval(resource: Resource) -> Node:
    """effectiveDateTime or effectivePeriod -> effectiveTime with both ends, as a result organizer has it."""
    period, at = resource.get("effectivePeriod"), resource.get("effectiveDateTime")
    start, end = (period.get("start"), period.get("end")) if period else (at, at)
    return span("effectiveTime", start, end, ended=True)


def number(value: Any) -> str:
    """A decimal as it is written, never with an exponent."""
    return format(Decimal(str(value)), "f")


def quantity(name: str, value: Resource, **attributes: str | None) -> Node:
    """Quantity -> PQ. A unit that is no UCUM stands in a translation, as C-CDA asks; no number is not known."""
    if "value" not in value:
        return element(name, **attributes, nullFlavor="UNK")
    written, unit = number(value["value"]), value.get("unit")
    if value.get("system") == UCUM and value.get("code"):
        return element(name, **attributes, value=written, unit=value["code"])
    if not unit:
        return element(name, **attributes, value=written)
    other = element("translation", element("originalText", unit), value=written)
    return element(name, other, **attributes, nullFlavor="OTH")


def valued(holder: Resource, stem: str = "value") -> Node | None:
    """value[x] or detail[x] of a resource or component -> value; None when there is none."""
    for kind, convert in _VALUES.items():
        found = holder.get(f"{stem}{kind}")
        if found is not None:
            made: Node = convert(found)
            return made
    absent = holder.get("dataAbsentReason")
    return element("value", type_="PQ", nullFlavor=_flavor(absent)) if absent else None


def _flavor(absent: Resource) -> str:
    known = {reason: flavor for flavor, reason in reversed(codes()["null-flavor"].items())}
    found = (known.get(one.get("code", "")) for one in absent.get("coding", ()))
    return next((one for one in found if one), "UNK")


def _compared(value: Resource) -> Node:
    sign = value.get("comparator")
    if sign is None or "value" not in value:
        if (
            "value" in value and value.get("code") == "1" and value.get("system") == UCUM
        ):  # a score: PCO's unit, CDA has none
            whole = Decimal(str(value["value"])) == Decimal(str(value["value"])).to_integral_value()
            return element("value", type_="INT" if whole else "REAL", value=number(value["value"]))
        return quantity("value", value, type_="PQ")
    bound = quantity("low" if sign[0] == ">" else "high", value)
    bound.set("inclusive", "true" if sign.endswith("=") else "false")
    return element("value", bound, type_="IVL_PQ")


def _range(value: Resource) -> Node:
    bounds = [quantity(name, value[name]) for name in ("low", "high") if name in value]
    return element("value", *bounds, type_="IVL_PQ")


_VALUES: dict[str, Any] = {
    "Quantity": _compared,
    "Range": _range,
    "Integer": lambda value: element("value", type_="INT", value=str(value)),
    "CodeableConcept": lambda value: coded("value", value, type_="CD"),
    "String": lambda value: element("value", value, type_="ST"),
    "Boolean": lambda value: element("value", type_="BL", value="true" if value else "false"),
    "DateTime": lambda value: element("value", type_="TS", value=stamp(value)),
}


# --- people --------------------------------------------------------------------------------------------------------
def name(value: Resource) -> Node:
    """HumanName -> PN: its parts with a given and a family name, if not known; of one without parts its words."""
    uses = {use: letter for letter, use in reversed(codes()["name-use"].items())}
    use = uses.get(value.get("use", ""))
    if not any(value.get(part) for part in ("prefix", "given", "family", "suffix")):
        return element("name", value["text"], use=use) if value.get("text") else element("name", nullFlavor="UNK")
    parts = [element("prefix", one) for one in value.get("prefix", ())]
    parts += [element("given", one) for one in value.get("given", ())] or [element("given", nullFlavor="UNK")]
    parts += [_known("family", value.get("family")), *[element("suffix", one) for one in value.get("suffix", ())]]
    return element("name", *parts, use=use)


def _known(tag: str, words: str | None) -> Node:
    return element(tag, words) if words else element(tag, nullFlavor="UNK")


def addresses(resource: Resource) -> list[Node]:
    """addr, or that none is known: the header wants one."""
    return [_address(one) for one in resource.get("address", ())] or [element("addr", nullFlavor="UNK")]


def _address(value: Resource) -> Node:
    """A US Realm address: at most four lines, city, in the USA state and postal code; what is not known is said."""
    uses = {use: letter for letter, use in reversed(codes()["address-use"].items())}
    lines = value.get("line") or [one for one in (value.get("text"),) if one]
    lines = [*lines[: _MOST_LINES - 1], ", ".join(lines[_MOST_LINES - 1 :])]
    parts = [_known("streetAddressLine", line) for line in lines if line] or [_known("streetAddressLine", None)]
    needed = ("city", "state", "postalCode") if value.get("country", "US") in _USA else ("city",)
    parts += [_known(tag, value.get(tag)) for tag in _ADDRESS if tag in needed or value.get(tag)]
    return element("addr", *parts, use=uses.get(value.get("use", "")))


_ADDRESS = ("city", "state", "postalCode", "country")
_USA = ("US", "USA")
_MOST_LINES = 4
_SCHEMES = {"phone": "tel:", "fax": "fax:", "email": "mailto:", "sms": "sms:", "url": "", "other": ""}
_TELECOM_USES = {"home": "HP", "work": "WP", "mobile": "MC"}


def telecoms(resource: Resource) -> list[Node]:
    """telecom, or that none is known: the header wants one."""
    made = [
        element(
            "telecom",
            value=_SCHEMES.get(one.get("system", ""), "") + one["value"],
            use=_TELECOM_USES.get(one.get("use")),
        )
        for one in resource.get("telecom", ())
        if one.get("value")
    ]
    return made or [element("telecom", nullFlavor="UNK")]


def leading(values: Any) -> Resource:
    """The first of a list of objects; an empty one where there is none."""
    found: Resource = next(iter(values or ()), {})
    return found


def nodes(*parts: Node | None | Iterable[Node]) -> list[Node]:
    """One flat list of elements; None is nothing."""
    found: list[Node] = []
    for part in parts:
        if isinstance(part, Node):
            found.append(part)
        elif part is not None:
            found += part
    return found
