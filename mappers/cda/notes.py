"""Note activities (4.202), wherever they stand -> DocumentReference.

Source: C-CDA on FHIR 2.0.0, CF-notes; US Core 6.1.0, us-core-documentreference.
"""

import base64
from typing import Any

from mappers.cda import dialect
from mappers.cda.attachments import attachment
from mappers.cda.claims import claim
from mappers.cda.context import Document, Resource
from mappers.cda.datatypes import concept, identifier, text
from mappers.cda.node import Node
from mappers.cda.observations import writers
from mappers.cda.paths import each, first
from mappers.cda.times import instant_of, time_of

TEMPLATE = "4.202"
_CATEGORY = "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category"
_AUTHORS = ("Practitioner", "PractitionerRole", "Organization", "Device", "Patient", "RelatedPerson")


def note(node: Node, document: Document) -> str | None:
    """act 34109-9 -> DocumentReference with the text itself, or the file, inside."""
    resource, kept = dialect.apply("note", node, document=document, kind="DocumentReference")
    content = _content(kept.get("text", [])[:1], document)
    if content is None:
        document.leave(node, "bad", reason="The note has no text, and none is referred to.")
        return None
    resource["status"] = "current"
    kind = _kind(kept["code"][0], document) if "code" in kept else None
    if kind:
        resource["type"] = kind
    resource["category"] = [{"coding": [{"system": _CATEGORY, "code": "clinical-note"}]}]
    resource["subject"] = document.subject
    _written(resource, kept.get("author", []), found=writers(kept, document), document=document)
    related = [found for one in kept.get("reference", ()) if (found := _related(one, document))]
    if related:
        resource["relatesTo"] = related
    resource["content"] = [{"attachment": content}]
    context = _context(kept.get("effectiveTime", []), document)
    visits = [
        one for node_ in kept.get("entryRelationship/encounter", ()) for one in document.linked(node_, "Encounter")
    ]
    if visits:
        context["encounter"] = [{"reference": one} for one in visits]
    if context:
        resource["context"] = context
    claim(resource, "us-core-documentreference")
    return document.add(resource, node)


def _kind(node: Node, document: Document) -> dict[str, Any] | None:
    """The translation says which note it is; 34109-9 says only that it is one."""
    found = concept(node, document.at(node))
    codings = found.get("coding", []) if found else []
    special = [one for one in codings if one.get("code") != "34109-9"]
    return found | {"coding": special} if found and special else found


def _content(nodes: list[Node], document: Document) -> dict[str, Any] | None:
    for node in nodes:
        packed = attachment(node, document.at(node)) if node.get("representation") == "B64" else None
        if packed and "data" in packed:
            return packed
        told = text(node, document)
        if told:
            return {"contentType": "text/plain", "data": base64.b64encode(told.encode()).decode("ascii")}
    return None


def _written(resource: Resource, nodes: list[Node], *, found: list[str], document: Document) -> None:
    people = [{"reference": one} for one in found if one.partition("/")[0] in _AUTHORS]
    if people:
        resource["author"] = people
    time = first("time")(nodes[0]) if nodes else None
    when = instant_of(time, document.at(time)) if time is not None else None
    if when:
        resource["date"] = when


def _related(node: Node, document: Document) -> dict[str, Any] | None:
    external = each("externalDocument/id")(node)
    target = identifier(external[0], document.at(node)) if external else None
    return {"code": "appends", "target": {"type": "DocumentReference", "identifier": target}} if target else None


def _context(nodes: list[Node], document: Document) -> dict[str, Any]:
    found = time_of(nodes[0], document.at(nodes[0])) if nodes else None
    if found is None:
        return {}
    return {"period": found[1] if found[0] == "Period" else {"start": found[1]}}
