"""The one place where XML is opened. Nothing in it can reach a file or a socket, expand an entity or raise.

Refused before the parser sees a byte: too large, an encoding that is not UTF-8, UTF-16, ASCII, Latin-1 or Windows-1252,
any document type declaration (so no entity, no external subset, no parameter entity). XInclude is never processed and
processing instructions (`xml-stylesheet` too) are dropped unread. libxml2 stops at 256 levels and 10 MB a text node.

Source: CDA R2; OWASP XML External Entity Prevention; libxml2 2.14 limits (`huge_tree` off).
"""

import codecs
import re
from typing import Any, Final

from lxml import etree

from mappers.cda.node import Node
from profiles.issue import Issue, Severity

HL7: Final = "urn:hl7-org:v3"
SDTC: Final = "urn:hl7-org:sdtc"
XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
MAX_BYTES: Final = 20 * 1024 * 1024
ROOT_TAG: Final = f"{{{HL7}}}ClinicalDocument"

_ENCODINGS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "latin1": "latin-1",
    "latin-1": "latin-1",
    "windows-1252": "cp1252",
    "cp1252": "cp1252",
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
}
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_WIDE = ((b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"))  # UTF-16 without a byte order mark, by its first character
_MARKED = _BOMS + _WIDE
_MARKS = tuple(mark for mark, _ in _MARKED)
_DECLARATION = re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_PLAIN = re.compile(rb"\s*+(?:<\?xml [^<>]*+\?>\s*+)?<[A-Za-z]")  # the usual prolog: the root comes next
_PROLOG = re.compile(r"(?:\s+|<\?.*?\?>|<!--.*?-->)*+", re.DOTALL)  # possessive: what it took it never gives back


def _fatal(code: str, location: str, *, text: str) -> Issue:
    return Issue(Severity.FATAL, code, location, text)


def read(document: bytes) -> tuple[Node | None, list[Issue]]:
    """The ClinicalDocument element, or None and one fatal Issue that says where (line and column) and why.

    Raises: nothing.
    """
    if len(document) > MAX_BYTES:
        return None, [_fatal("too-long", "/", text=f"The document is larger than {MAX_BYTES} bytes; send it in parts.")]
    data, issue = _readable(document)
    return _parsed(data) if data is not None else (None, [issue] if issue else [])


def _readable(document: bytes) -> tuple[bytes | None, Issue | None]:
    """The document in UTF-8, without a document type declaration; or why not."""
    encoding = _encoding(document)
    if encoding is None:
        return None, _fatal("not-supported", "/", text="The encoding is not supported: send UTF-8.")
    if encoding == "utf-8" and document.isascii() and _PLAIN.match(document):
        return document, None
    text, issue = _decoded(document, encoding)
    if text is None:
        return None, issue
    start = _PROLOG.match(text)
    place = start.end() if start else 0
    if text.startswith("<!", place) and not text.startswith("<!--", place):
        why = "A document type declaration is not allowed (entities, external files): remove it and send again."
        return None, _fatal("security", "/", text=why)
    return document if encoding == "utf-8" else text.encode("utf-8"), None


def _decoded(document: bytes, encoding: str) -> tuple[str | None, Issue | None]:
    """The characters; a lone surrogate of UTF-16 has no place in XML."""
    try:
        text = document.decode(encoding)
        if encoding.startswith("utf-16"):
            text.encode("utf-8")
    except UnicodeError as problem:
        place = problem.start if isinstance(problem, (UnicodeDecodeError, UnicodeEncodeError)) else 0
        why = f"Byte {place} is not {encoding}, which the document says it is written in: correct the declaration."
        return None, _fatal("structure", "/", text=why)
    return text.removeprefix("\ufeff"), None


def _encoding(document: bytes) -> str | None:
    """By byte order mark, else by declaration, else UTF-8; None for what is not supported."""
    if document.startswith(_MARKS):
        encoding = next(encoding for mark, encoding in _MARKED if document.startswith(mark))
        return None if document.startswith(codecs.BOM_UTF32_LE) else encoding
    declared = _DECLARATION.match(document)
    return _ENCODINGS.get(declared[1].decode("ascii").lower()) if declared else "utf-8"


_PARSER = etree.XMLParser(  # lxml locks a parser that threads share
    encoding="utf-8",  # we decoded it: the declaration no longer holds
    resolve_entities=False,
    no_network=True,
    load_dtd=False,
    dtd_validation=False,
    huge_tree=False,
    remove_pis=True,
    remove_comments=True,
    recover=False,
    collect_ids=False,  # we look up by ID ourselves, in narrative only
)


def _parsed(data: bytes) -> tuple[Node | None, list[Issue]]:
    try:
        root: Any = etree.fromstring(data, _PARSER)
    except etree.XMLSyntaxError as problem:
        line, column = problem.position
        last = getattr(problem.error_log, "last_error", None)
        rule = last.type_name if last is not None else "ERR_DOCUMENT_EMPTY"
        why = f"The XML is not well-formed ({rule}): mend it at line {line}, column {column}, and send it again."
        return None, [_fatal("structure", f"line {line}, column {column}", text=why)]
    docinfo: Any = root.getroottree().docinfo
    if docinfo.doctype or docinfo.internalDTD is not None:
        return None, [_fatal("security", "/", text="A document type declaration is not allowed.")]
    if root.tag != ROOT_TAG:
        why = "The root is not ClinicalDocument of urn:hl7-org:v3: send a C-CDA document."
        return None, [_fatal("structure", "/*", text=why)]
    return root, []


def plain_lines(fragment: str) -> list[str]:
    """The text of an XHTML fragment, a line for each block; nothing of one that is not well-formed or has a DOCTYPE."""
    if "<!" in fragment:
        return []
    try:
        root = etree.fromstring(fragment.encode("utf-8", "replace"), _PARSER)
    except etree.XMLSyntaxError:
        return []
    blocks = [node for node in root.iter() if node.tag.rpartition("}")[2] in _BLOCKS] or [root]
    lines = (" ".join("".join(map(str, node.itertext())).split()) for node in blocks)
    return [line for line in lines if line]


_BLOCKS = frozenset({"p", "li", "tr", "h1", "h2", "h3"})
