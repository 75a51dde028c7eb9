"""The document itself: DocumentReference and Binary with its exact bytes; who wrote, keeps and receives it.

Source: C-CDA on FHIR 2.0.0, header; US Core 6.1.0, us-core-documentreference.
"""

import hashlib
from binascii import b2a_base64
from dataclasses import dataclass
from typing import Any

from mappers.cda.attachments import attachment
from mappers.cda.claims import claim
from mappers.cda.context import Document, Resource, codes, folded, says
from mappers.cda.datatypes import concept, identifier, token
from mappers.cda.encounters import encompassing
from mappers.cda.node import Node
from mappers.cda.paths import children, each, first, grouped, qualified
from mappers.cda.people import author, organization, practitioner, related
from mappers.cda.times import bounds, instant_of

_CATEGORY = "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category"
_NOTE = [{"coding": [{"system": _CATEGORY, "code": "clinical-note"}]}]  # not to be changed
_FORMATS = "urn:oid:1.3.6.1.4.1.19376.1.2.3"
_PCP = "PCP"
_CUSTODIAN = "assignedCustodian/representedCustodianOrganization"
_RELATIVES = frozenset({"PRS", "NOK", "CAREGIVER", "AGNT", "ECON", "GUAR", "GUARD"})

_MAPPED = frozenset(
    [
        "realmCode",
        "typeId",
        "templateId",
        "id",
        "code",
        "title",
        "effectiveTime",
        "confidentialityCode",
        "languageCode",
        "setId",
        "versionNumber",
        "recordTarget",
        "author",
        "custodian",
        "legalAuthenticator",
        "authenticator",
        "participant",
        "inFulfillmentOf",
        "documentationOf",
        "relatedDocument",
        "componentOf",
        "component",
    ]
)
_PIECES = 8
_VERSION = "A DocumentReference has no version number: what a version replaces is named by relatedDocument."
_PARENT = "The related document is named by its id."
_NO_RULE = "No rule maps this part of the header; the document itself is kept."

_TIME, _EVENT = qualified("time"), qualified("serviceEvent")
_FILE, _CARE = first("nonXMLBody/text"), first("serviceEvent/effectiveTime")

Head = dict[str, list[Node]]


def authors(head: Head, document: Document) -> list[str]:
    """The references of the document's authors, each once; when they wrote, if not when the document was made."""
    made = head["effectiveTime"][0].get("value") if "effectiveTime" in head else None
    for time in (one for node in head.get("author", ()) for one in node[:] if one.tag == _TIME):
        if time.get("value") != made and says(time):
            document.leave(time, "left", reason="When an author wrote: the date of the document is that of its making.")
    found = dict.fromkeys([author(node, document) for node in head.get("author", ())])
    return [one for one in found if one]


def custodian(head: Head, document: Document) -> str | None:
    """The organization that keeps the document."""
    return organization(first(_CUSTODIAN)(head["custodian"][0]), document) if "custodian" in head else None


def participants(head: Head, patient: Resource, document: Document) -> None:
    """Patient.generalPractitioner from performers and participants with the function PCP; relatives and carers."""
    found = []
    for event in (grouped(event) for node in head.get("documentationOf", ()) for event in children(node, _EVENT)):
        _left(event, document, names=("id", "code"), reason="Of the care told of, its time is mapped.")
        for node in event.get("performer", ()):
            if first("functionCode/@code")(node) == _PCP and (role := first("assignedEntity")(node)) is not None:
                found.append(practitioner(role, "assignedPerson", document=document))
                _left(
                    grouped(node),
                    document,
                    names=("time",),
                    reason="Since when a person is the PCP: Patient has no room for it.",
                )
            elif says(node):
                document.leave(node, "left", reason="A performer of the care who is not the PCP is not mapped.")
    for node in head.get("participant", ()):
        role = first("associatedEntity")(node)
        if role is None:
            continue
        if first("functionCode/@code")(node) == _PCP:
            found.append(practitioner(role, "associatedPerson", document=document))
        elif role.get("classCode") in _RELATIVES:
            related(role, "associatedPerson", document=document)
        else:
            document.leave(node, "left", reason="A participant who is neither PCP, relative nor carer is not mapped.")
    references = [{"reference": one} for one in dict.fromkeys(one for one in found if one)]
    if references:
        patient["generalPractitioner"] = references


def _left(parts: Head, document: Document, *, names: tuple[str, ...], reason: str) -> None:
    """Books the parts of these names that say anything."""
    for name in names:
        for one in parts.get(name, ()):
            if says(one):
                document.leave(one, "left", reason=reason)


def account(head: Head, document: Document) -> None:
    """Books the parts of the header that no resource carries (recipients, informants, data enterers, consents)."""
    for name in sorted(head.keys() - _MAPPED):
        for node in head[name]:
            if says(node):
                document.leave(node, "unknown", reason=_NO_RULE)


@dataclass(frozen=True, slots=True)
class Stored:
    """The document's own resources: the DocumentReference, by its reference, and the Binary that takes the bytes."""

    reference: str
    binary: Resource


def document_reference(
    data: bytes, head: Head, *, writers: list[str], keeper: str | None, document: Document
) -> Stored:
    """Binary and DocumentReference of the document; the bytes come into the Binary by `complete`."""
    root = document.at(document.root).root
    binary: Resource = {"resourceType": "Binary", "contentType": "application/xml"}
    binary["securityContext"] = document.subject
    binary["data"] = ""
    stored = document.add(binary, root, key=f"binary|{document.source.sha256}")
    resource: Resource = {"resourceType": "DocumentReference"}
    _identify(resource, head, document=document)
    resource["category"] = _NOTE
    resource["subject"] = document.subject
    _describe(resource, head, document=document)
    if writers:
        resource["author"] = [document.refer(one) for one in writers]
    _signer(resource, head, document=document)
    if keeper:
        resource["custodian"] = document.refer(keeper)
    _relations(resource, head, document=document)
    digest = hashlib.sha1(data, usedforsecurity=False).digest()  # FHIR R4 Attachment.hash is SHA-1
    own = {"contentType": "application/xml", **_language(head), "url": stored, "size": len(data)}
    own["hash"] = b2a_base64(digest, newline=False).decode("ascii")
    resource["content"] = [{"attachment": own, "format": {"system": _FORMATS, "code": _format(head)}}]
    _unstructured(resource, head, document=document)
    _context(resource, head, document=document)
    claim(resource, "us-core-documentreference")
    return Stored(document.add(resource, root), binary)


def complete(stored: Stored, data: bytes) -> None:
    """The exact bytes, last of all and in pieces: they are the largest part of what is made."""
    piece = 3 * (len(data) // (3 * _PIECES) + 1)  # bytes; a multiple of three has no padding
    text, view = "", memoryview(data)
    for start in range(0, len(data), piece):
        text += str(b2a_base64(view[start : start + piece], newline=False), "ascii")
    stored.binary["data"] = text


def _identify(resource: Resource, head: Head, *, document: Document) -> None:
    master = identifier(head["id"][0], document) if "id" in head else None
    if master:
        resource["masterIdentifier"] = master
    series = identifier(head["setId"][0], document) if "setId" in head else None
    if series:
        resource["identifier"] = [series]
    for node in head.get("versionNumber", ()):
        if says(node):
            document.leave(node, "left", reason=_VERSION)
    resource["status"] = "current"
    kind = concept(head["code"][0], document) if "code" in head else None
    if kind:
        resource["type"] = kind


def _describe(resource: Resource, head: Head, *, document: Document) -> None:
    written = instant_of(head["effectiveTime"][0], document) if "effectiveTime" in head else None
    if written:
        resource["date"] = written
    elif "effectiveTime" in head and says(head["effectiveTime"][0]):
        document.leave(head["effectiveTime"][0], "bad", reason="DocumentReference.date takes seconds and an offset.")
    if "title" in head and (name := folded(head["title"][0])):
        resource["description"] = name
    label = concept(head["confidentialityCode"][0], document) if "confidentialityCode" in head else None
    if label:
        resource["securityLabel"] = [label]


def _signer(resource: Resource, head: Head, *, document: Document) -> None:
    for node in (*head.get("legalAuthenticator", ()), *head.get("authenticator", ())):
        if "authenticator" in resource:
            document.leave(node, "left", reason="DocumentReference has room for one who signed: the first is mapped.")
            continue
        parts = grouped(node)
        _left(parts, document, names=("time", "signatureCode"), reason="DocumentReference says who signed, not when.")
        roles = parts.get("assignedEntity")
        signer = practitioner(roles[0], "assignedPerson", document=document) if roles else None
        if signer:
            resource["authenticator"] = {"reference": signer}


def _relations(resource: Resource, head: Head, *, document: Document) -> None:
    """relatedDocument: what this document replaces, appends or transforms."""
    related_: list[dict[str, Any]] = []
    for node in head.get("relatedDocument", ()):
        kind = codes()["relates-to"].get(node.get("typeCode") or "")
        parent = first("parentDocument/id")(node)
        target = identifier(parent, document.at(node)) if parent is not None else None
        if kind and target:
            related_.append({"code": kind, "target": {"type": "DocumentReference", "identifier": target}})
            for above in each("parentDocument")(node):
                _left(grouped(above), document, names=("code", "setId", "versionNumber"), reason=_PARENT)
        else:
            document.leave(node, "bad", reason="The related document has no id, or the relation no code in FHIR.")
    if related_:
        resource["relatesTo"] = related_


def _language(head: Head) -> dict[str, str]:
    code = token(head["languageCode"][0].get("code")) if "languageCode" in head else None
    return {"language": code} if code else {}


def _format(head: Head) -> str:
    """The IHE format code: by body, and 2.1 when a template of the header is dated (R1.1 dates none)."""
    dated = any(node.get("extension") for node in head.get("templateId", ()))
    bodies = [one.tag for node in head.get("component", ()) for one in node[:]]
    body = "structuredBody" if any(tag.endswith("}structuredBody") for tag in bodies) else "nonXMLBody"
    return f"urn:hl7-org:sdwg:ccda-{body}:{'2.1' if dated else '1.1'}"


def _unstructured(resource: Resource, head: Head, *, document: Document) -> None:
    """nonXMLBody: the file inside, or the place where it is, as a second content."""
    for node in head.get("component", ()):
        body = _FILE(node)
        inner = attachment(body, document.at(body)) if body is not None else None
        if inner:
            resource["content"].append({"attachment": inner})


def _context(resource: Resource, head: Head, *, document: Document) -> None:
    context: dict[str, Any] = {}
    visit = encompassing(head, document)
    if visit:
        context["encounter"] = [{"reference": visit}]
    for node in head.get("documentationOf", ())[:1]:
        time = _CARE(node)
        period = bounds(time, document.at(time)) if time is not None else {}
        if period:
            context["period"] = period
    if "inFulfillmentOf" in head:
        orders = [identifier(one, document) for node in head["inFulfillmentOf"] for one in each("order/id")(node)]
        related_ = [{"type": "ServiceRequest", "identifier": one} for one in orders if one]
        if related_:
            context["related"] = related_
    if context:
        resource["context"] = context
