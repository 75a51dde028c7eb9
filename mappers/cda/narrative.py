"""CDA narrative blocks as the XHTML that a FHIR Narrative takes: structure kept, attributes and links dropped.

Source: CDA R2 narrative block; FHIR R4 Narrative, rules txt-1 and txt-2.
"""

from html import escape
from typing import Any

from mappers.cda.parse import Node

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


def narrative(*blocks: Node) -> dict[str, Any] | None:
    """section/text elements -> Narrative; None when they hold no text."""
    if not any("".join(map(str, block.itertext())).strip() for block in blocks):
        return None
    inner = "".join(f"<div>{_inside(block)}</div>" for block in blocks)
    return {"status": "additional", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{inner}</div>'}


def _inside(node: Any) -> str:
    parts = [escape(node.text or "", quote=False)]
    for child in node:
        parts += [_element(child), escape(child.tail or "", quote=False)]
    return "".join(parts)


def _element(node: Any) -> str:
    name = node.tag.rpartition("}")[2]
    if name == "br":
        return "<br/>"
    if name == "list":
        tag = "ol" if node.get("listType") == "ordered" else "ul"
        items = "".join(_element(child) for child in node if child.tag.endswith("}item"))
        return f"<{tag}>{items}</{tag}>" if items else _inside(node)
    tag = _TAGS.get(name, "")
    if not tag:
        return _inside(node)
    spans = "".join(f' {key}="{int(node.get(key))}"' for key in _SPANS if (node.get(key) or "").isdecimal())
    return f"<{tag}{spans}>{_inside(node)}</{tag}>"
