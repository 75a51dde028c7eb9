"""CDA narrative blocks as the XHTML that a FHIR Narrative takes: structure kept, attributes and links dropped.

Source: CDA R2 narrative block; FHIR R4 Narrative, rules txt-1 and txt-2.
"""

from html import escape
from typing import Any

from mappers.cda.context import words
from mappers.cda.node import Node

_TAGS = {
    "paragraph": "p",
    "content": "span",
    "item": "li",
    "caption": "span",
    "table": "table",
    "thead": "thead",
    "tbody": "tbody",
    "tfoot": "tfoot",
    "tr": "tr",
    "th": "th",
    "td": "td",
    "sub": "sub",
    "sup": "sup",
    "footnote": "span",
    "linkHtml": "span",
}
_SPANS = ("colspan", "rowspan")
_CELLS = frozenset({"td", "th"})


def narrative(*blocks: Node) -> dict[str, Any] | None:
    """section/text elements -> Narrative; None when they hold no text."""
    if not any(words(block).strip() for block in blocks):
        return None
    inner = "".join(f"<div>{_inside(block)}</div>" for block in blocks)
    return {"status": "additional", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{inner}</div>'}


def _inside(node: Any) -> str:
    text = node.text
    said = escape(text, quote=False) if text else ""
    for child in node[:]:
        said += _element(child)
        tail = child.tail
        if tail:
            said += tail if tail.isspace() else escape(tail, quote=False)
    return said


def _element(node: Any) -> str:
    name = node.tag.rpartition("}")[2]
    tag = _TAGS.get(name)
    if tag is not None:
        spans = _spans(node) if name in _CELLS else ""
        return f"<{tag}{spans}>{_inside(node)}</{tag}>"
    if name == "br":
        return "<br/>"
    if name == "list":
        tag = "ol" if node.get("listType") == "ordered" else "ul"
        items = "".join([_element(child) for child in node[:] if child.tag.endswith("}item")])
        return f"<{tag}>{items}</{tag}>" if items else _inside(node)
    return _inside(node)


def _spans(node: Any) -> str:
    return "".join([f' {key}="{int(node.get(key))}"' for key in _SPANS if (node.get(key) or "").isdecimal()])
