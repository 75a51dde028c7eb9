"""The narrative allow-list: a `div` of formatting elements, and nothing that runs or is fetched.

Source: FHIR R4 4.0.1, Narrative, rules txt-1 and txt-2; stricter in that images and links must stay inside the resource
or be plain links, and that a style may not call anything.
"""

import re
import tomllib
from importlib import resources
from typing import Any

_TOKEN = re.compile(
    r"""[^<&]+
    |&(?:[A-Za-z][A-Za-z0-9]*|\#\d+|\#x[0-9A-Fa-f]+);
    |<(?P<close>/?)(?P<name>[a-z][a-z0-9]*)
        (?P<attributes>(?:\s+[A-Za-z:_][\w:.-]*\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*(?P<empty>/?)>
    |<!--(?:(?!--).)*-->""",
    re.VERBOSE | re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""([A-Za-z:_][\w:.-]*)\s*=\s*(?:"([^"<]*)"|'([^'<]*)')""")
_XMLNS = r'xmlns="http://www\.w3\.org/1999/xhtml"'
_LANG = r'lang="[A-Za-z-]{2,12}"'
_TEXT = r"\s*+[^<&\s][^<&]*+"  # some content; possessive, so that a long text is read once
_PLAIN = re.compile(  # what most systems generate: text, or paragraphs of text
    rf"""<div\ (?:{_XMLNS}(?:\ xml:{_LANG})?|xml:{_LANG}\ {_XMLNS})(?:\ {_LANG})?>
        (?:{_TEXT}|(?:<p>{_TEXT}</p>)++)</div>""",
    re.VERBOSE,
).fullmatch
_XHTML = re.compile(r"""\sxmlns\s*=\s*["']http://www\.w3\.org/1999/xhtml["']""")
_ALLOWED = tomllib.loads((resources.files("profiles") / "definitions" / "narrative.toml").read_text(encoding="utf-8"))
_ELEMENTS = frozenset(_ALLOWED["elements"])
_ATTRIBUTES = frozenset(_ALLOWED["attributes"])
_LINK = re.compile(r"(?:#|https?://|mailto:|tel:)[^\s]*")
_IMAGE = re.compile(r"#[^\s]*|[A-Za-z0-9_.-]+|data:image/(?:png|jpeg|gif);base64,[A-Za-z0-9+/=]*")
_OWN_FILE = re.compile(r"url\([A-Za-z0-9_.-]+\)")  # the table lines of HL7's publisher
_HARMFUL_STYLE = re.compile(r"url|expression|@|\\|behavior|javascript|/\*", re.IGNORECASE)
_MAX_DEPTH = 64


def is_safe(div: Any) -> bool:
    """Whether the value is one well-formed XHTML div with some content, of allowed elements and attributes only."""
    if type(div) is not str:
        return False
    return _PLAIN(div) is not None or _is_well_formed(div.strip())


def _is_well_formed(div: str) -> bool:
    position, has_content = 0, False
    open_elements: list[str] = []
    while position < len(div):
        token = _TOKEN.match(div, position)
        if token is None or (position and not open_elements):
            return False  # not XML, or something after the div
        position = token.end()
        if token["name"] is None:
            has_content = has_content or not (token[0].isspace() or token[0].startswith("<!--"))
        elif not _tag(token, open_elements):
            return False
        else:
            has_content = has_content or token["name"] in ("img", "hr")
    return has_content and not open_elements and div.startswith("<div")


def _tag(token: re.Match[str], open_elements: list[str]) -> bool:
    name = token["name"]
    if token["close"]:
        return not token["attributes"] and bool(open_elements) and open_elements.pop() == name
    if not open_elements and not (name == "div" and _XHTML.search(token["attributes"])):
        return False
    if name not in _ELEMENTS or not _attributes_are_safe(name, token["attributes"]):
        return False
    if not token["empty"]:
        open_elements.append(name)
    return len(open_elements) <= _MAX_DEPTH


def _attributes_are_safe(element: str, attributes: str) -> bool:
    seen = set()
    for name, double, single in _ATTRIBUTE.findall(attributes):
        value = double or single
        if name in seen or not (name in _ATTRIBUTES or name.startswith("xmlns:")):
            return False
        seen.add(name)
        if not _value_is_safe(element, name, value):
            return False
    return True


def _value_is_safe(element: str, name: str, value: str) -> bool:
    if name == "style":
        return not (_HARMFUL_STYLE.search(_OWN_FILE.sub("", value)) or "&" in value)
    if name == "src":
        return element == "img" and _IMAGE.fullmatch(value) is not None
    if name == "href":
        return _LINK.fullmatch(value) is not None or not (":" in value or "&" in value)  # a scheme, plain or as entity
    if name in ("longdesc", "cite", "usemap"):
        return _LINK.fullmatch(value) is not None
    return True
