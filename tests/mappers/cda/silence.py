"""Which values of a document could be other ones without anybody noticing: neither resources nor account would change.

Used by the tests on the own cases; by hand on any file: `python tests/mappers/cda/silence.py FILE ...`.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lxml import etree

from mappers.cda import convert
from mappers.conversion import Conversion, Source

V3 = "{urn:hl7-org:v3}"
HERE = {"id", "source", "data", "hash", "size", "url", "div", "reference", "location", "what", "recorded"}
# What carries nothing of its own: kinds of template, narrative (kept in the document), and the frame of an entry.
FRAME = {"templateId", "realmCode", "typeId", "text", "title"}


def _content(value: Any) -> Any:
    """A resource without ids, places and the document's own bytes; references by their type only."""
    if isinstance(value, dict):
        kept = {name: _content(one) for name, one in value.items() if name not in HERE or isinstance(one, (dict, list))}
        if isinstance(value.get("reference"), str):
            kept["reference"] = value["reference"].partition("/")[0]
        return kept
    return [_content(one) for one in value] if isinstance(value, list) else str(value)


def fingerprint(conversion: Conversion) -> str:
    """What the conversion says and what its account says, without places."""
    said = [json.dumps(_content(one), sort_keys=True) for one in (conversion.patient, *conversion.resources)]
    account = [(one.kind, one.reason) for one in conversion.unmapped]
    issues = [(issue.code, issue.text) for issue in conversion.issues]
    return json.dumps([said, sorted(account), sorted(issues)])


def _convert(data: bytes) -> Conversion:
    return convert(data, Source(hashlib.sha256(b"").hexdigest(), "2026-02-03T04:05:06Z"))


def _values(root: etree._Element) -> Iterator[etree._Element]:
    """Elements of the header and of entries that carry a value, outside narrative and templates."""
    head = (one for one in root if one.tag != f"{V3}component")
    for part in (*head, *root.iter(f"{V3}entry")):
        for node in part.iter(f"{V3}*"):
            name = node.tag.removeprefix(V3)
            framed = any(above.tag.removeprefix(V3) in FRAME for above in node.iterancestors())
            stated = any(node.get(key) for key in ("value", "code", "extension", "root"))
            if name not in FRAME and not framed and (stated or (node.text or "").strip()):
                yield node


def _altered(node: etree._Element) -> dict[str, str]:
    """The attributes of an element with another value in the first that says something."""
    for key in ("value", "code", "extension", "root"):
        written = node.get(key)
        if written:
            other = {"value": "20010203" if written.isdigit() and len(written) > 7 else "3", "code": "aborted"}
            return {key: other.get(key, f"{written}9") if other.get(key) != written else f"{written}9"}
    return {}


def silent(data: bytes) -> list[str]:
    """The places of values that could be other ones and nothing would change; parts of booked statements are booked."""
    root = etree.fromstring(data, etree.XMLParser(remove_comments=True, resolve_entities=False))
    tree = root.getroottree()
    conversion = _convert(etree.tostring(root))
    before = fingerprint(conversion)
    booked = tuple(one.location.removeprefix("/ClinicalDocument/") for one in conversion.unmapped)
    found = []
    for node in list(_values(root)):
        place = tree.getelementpath(node).replace(V3, "")
        if any(place == one or place.startswith(f"{one}/") for one in booked):
            continue
        kept, text = dict(node.attrib), node.text
        node.attrib.update(_altered(node))
        node.text = text if _altered(node) else "other"
        if fingerprint(_convert(etree.tostring(root))) == before:
            found.append(place)
        node.text = text
        node.attrib.update(kept)
    return found


if __name__ == "__main__":
    for name in sys.argv[1:]:
        missed = silent(Path(name).read_bytes())
        print(name, len(missed), *missed, sep="\n   ")
