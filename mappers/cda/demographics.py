"""CDA names, addresses and telecoms to FHIR data types.

Source: C-CDA on FHIR 2.0.0, Mapping Guidance and CF-NameUse, CF-AddressUse, CF-TelecomUse; FHIR R4.
"""

from typing import Any

from mappers.cda.context import Document, codes, folded
from mappers.cda.node import Node
from mappers.cda.paths import qualified


def human_name(node: Node, _document: Document) -> dict[str, Any] | None:
    """PN -> HumanName; a name that is only text is text."""
    uses = (node.get("use") or "").split()
    parts: dict[str, list[str]] = {}
    for child in node[:]:
        name = _NAME_PARTS.get(child.tag)
        if name and (said := folded(child)):
            if name in parts:
                parts[name].append(said)
            else:
                parts[name] = [said]
    result: dict[str, Any] = {"family": " ".join(parts.pop("family"))} if "family" in parts else {}
    result |= parts
    if not result and (whole := folded(node)):
        result["text"] = whole
    use = codes()["name-use"].get(uses[0]) if uses else None
    use = use or ("official" if "C" in uses else None)
    return ({"use": use} if use else {}) | result if result else None


_NAME_PARTS = {qualified(name): name for name in ("family", "given", "prefix", "suffix")}
_ADDRESS = {"city": "city", "county": "district", "state": "state", "postalCode": "postalCode", "country": "country"}
_ADDRESS_PARTS = {qualified(name): target for name, target in _ADDRESS.items()}
_LINE = qualified("streetAddressLine")


def address(node: Node, _document: Document) -> dict[str, Any] | None:
    """AD -> Address."""
    result: dict[str, Any] = {}
    lines = []
    for child in node[:]:
        said = folded(child)
        if not said:
            continue
        tag = child.tag
        if tag == _LINE:
            lines.append(said)
        elif (target := _ADDRESS_PARTS.get(tag)) and target not in result:
            result[target] = said
    if lines:
        result = {"line": lines} | result
    if not result and (whole := folded(node)):
        result["text"] = whole
    use = codes()["address-use"].get((node.get("use") or "").split(" ")[0])
    return ({"use": use} if use else {}) | result if result else None


def telecom(node: Node, document: Document) -> dict[str, Any] | None:
    """TEL -> ContactPoint; the URL scheme gives the system, a bare number is a phone by CDA's custom."""
    written = (node.get("value") or "").strip()
    if not written:
        return None
    scheme, colon, rest = written.partition(":")
    kind = codes()["telecom-system"].get(scheme.lower()) if colon else None
    if kind is None:
        return {"system": "email" if "@" in written else "other", "value": written} | _telecom_use(node)
    kept = written if kind == "url" else rest.strip()
    return {"system": kind, "value": kept} | _telecom_use(node) if kept else None


def _telecom_use(node: Node) -> dict[str, Any]:
    use = codes()["telecom-use"].get((node.get("use") or "").split(" ")[0])
    return {"use": use} if use else {}
