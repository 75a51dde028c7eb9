"""Content that is not a value: ED, RP and report text as Attachment.

Source: HL7 v2-to-FHIR 1.0.0, ED and RP maps.
"""

import re
from base64 import b64encode
from typing import Any

from mappers.codesystems import code_map
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.datatypes import lines
from mappers.hl7v2.dialect import components
from mappers.hl7v2.parse import unescape

_BLANK = re.compile(r"\s")
_PACKED = re.compile(r"[A-Za-z0-9+/]*={0,2}")


def content_type(kind: str, subtype: str) -> str | None:
    """The media type from ED.2 and ED.3 (or RP.3 and RP.4); None if they do not decide one."""
    known = code_map("v2-0291").targets.get(subtype.upper()) or code_map("v2-0291").targets.get(kind.upper())
    if known:
        return known
    made = f"{kind}/{subtype}".lower()
    return made if kind.lower() in ("application", "text", "image", "audio", "video") and subtype else None


def encapsulated(value: str, context: MessageContext) -> dict[str, Any] | None:
    """ED as Attachment: Base64 data are checked, plain and hexadecimal text is encoded."""
    _, kind, subtype, encoding, data = (part.strip() for part in components(value)[:5])
    encoded = _base64(encoding, data)
    if not encoded:
        context.error("value", "The data in ED.5 are missing or not in the encoding that ED.4 names; none were taken.")
        return None
    media = content_type(kind, subtype)
    return {**({"contentType": media} if media else {}), "data": encoded}


def _base64(encoding: str, data: str) -> str | None:
    """Documents are large: nothing here copies Base64 that is written without blanks."""
    if encoding.upper() == "BASE64":
        packed = "".join(data.split()) if _BLANK.search(data) else data
        return packed if len(packed) % 4 == 0 and _PACKED.fullmatch(packed) else None
    if encoding.upper() == "HEX":
        try:
            return b64encode(bytes.fromhex("".join(data.split()))).decode("ascii")
        except ValueError:
            return None
    return b64encode(unescape(data).encode("utf-8")).decode("ascii") if encoding.upper() == "A" else None


def pointer(value: str, context: MessageContext) -> dict[str, Any] | None:
    """RP as Attachment with url."""
    address, _, kind, subtype = (unescape(part).strip() for part in components(value)[:4])
    if ":" not in address or any(char.isspace() for char in address):
        context.warn("value", "The reference pointer in RP.1 is no URL; it was not taken.")
        return None
    media = content_type(kind, subtype)
    return {**({"contentType": media} if media else {}), "url": address}


def plain_attachment(value: str, context: MessageContext) -> dict[str, Any] | None:
    """TX, FT or ST as a text attachment, repetitions as lines."""
    words = lines(value, context)
    return text_attachment(words) if words else None


def text_attachment(words: str) -> dict[str, Any]:
    """Text as an Attachment, UTF-8 in Base64."""
    return {
        "contentType": "text/plain; charset=utf-8",
        "data": b64encode(words.encode("utf-8", "replace")).decode("ascii"),
    }
