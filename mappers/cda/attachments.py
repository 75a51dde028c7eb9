"""Files in a document: base64 inside it, or the place where they are.

Source: HL7 V3 Data Types R1 ITS, ED; FHIR R4, Attachment, rule att-1.
"""

import base64
import binascii
from typing import Any

from mappers.cda.context import Document
from mappers.cda.datatypes import token
from mappers.cda.node import Node
from mappers.cda.paths import first


def attachment(node: Node, document: Document) -> dict[str, Any] | None:
    """ED with base64 or a reference to elsewhere -> Attachment; base64 that is none is an Issue."""
    result: dict[str, Any] = {}
    if media := token(node.get("mediaType")):
        result["contentType"] = media
    url = (first("reference/@value")(node) or "").strip()
    if url and not url.startswith("#"):
        if len(url.split()) > 1:
            document.warn("value", "The reference is no URL (it has blanks): it is kept in the document only.")
            return None
        return result | {"url": url}
    packed = "".join("".join(map(str, node.itertext())).split())
    if node.get("representation") != "B64" or not packed:
        return None
    try:
        base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        document.warn("value", "The attachment is not base64: it is kept in the document only.")
        return None
    result.setdefault("contentType", "application/octet-stream")  # att-1: data have a type; that it is not known
    return result | {"data": packed}
