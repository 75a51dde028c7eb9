"""The document itself: DocumentReference and Binary with its exact bytes; who wrote and keeps it.

Source: C-CDA on FHIR 2.0.0, header; US Core 6.1.0, us-core-documentreference.
"""

import base64
import hashlib
from typing import Any

from mappers.cda.claims import claim
from mappers.cda.context import Document, Resource, codes, folded
from mappers.cda.datatypes import attachment, concept, identifier, token
from mappers.cda.encounters import encompassing
from mappers.cda.parse import Node
from mappers.cda.paths import each, first
from mappers.cda.people import author, organization, practitioner
from mappers.cda.times import bounds, instant_of

_CATEGORY = "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category"
_FORMATS = "urn:oid:1.3.6.1.4.1.19376.1.2.3"
_PCP = "PCP"


def authors(document: Document) -> list[str]:
    """The references of the document's authors, each once."""
    found = [author(node, document) for node in each("author")(document.root)]
    return list(dict.fromkeys(one for one in found if one))


def custodian(document: Document) -> str | None:
    """The organization that keeps the document."""
    path = "custodian/assignedCustodian/representedCustodianOrganization"
    return organization(first(path)(document.root), document)


def care_team(patient: Resource, document: Document) -> None:
    """Patient.generalPractitioner from performers and participants with the function PCP; managingOrganization."""
    root = document.root
    performers = each("documentationOf/serviceEvent/performer")(root)
    roles = [(one, "assignedEntity") for one in performers if first("functionCode/@code")(one) == _PCP]
    others = [one for one in each("participant")(root) if first("functionCode/@code")(one) == _PCP]
    roles += [(one, "associatedEntity") for one in others]
    found = []
    for node, name in roles:
        role = first(name)(node)
        person = "assignedPerson" if name == "assignedEntity" else "associatedPerson"
        reference = practitioner(role, person, document=document) if role is not None else None
        if reference:
            found.append({"reference": reference})
    if found:
        patient["generalPractitioner"] = [one for index, one in enumerate(found) if one not in found[:index]]
    provider = organization(first("recordTarget/patientRole/providerOrganization")(root), document)
    if provider:
        patient["managingOrganization"] = {"reference": provider}


def document_reference(data: bytes, document: Document, *, writers: list[str], keeper: str | None) -> str:
    """Binary and DocumentReference of the document; gives the reference of the latter."""
    root = document.at(document.root).root
    binary: Resource = {"resourceType": "Binary", "contentType": "application/xml"}
    if document.patient_reference:
        binary["securityContext"] = {"reference": document.patient_reference}
    binary["data"] = base64.b64encode(data).decode("ascii")
    stored = document.add(binary, root, key=f"binary|{document.source.sha256}")
    resource: Resource = {"resourceType": "DocumentReference"}
    _identify(resource, root, document=document)
    resource["category"] = [{"coding": [{"system": _CATEGORY, "code": "clinical-note"}]}]
    resource["subject"] = {"reference": document.patient_reference}
    _describe(resource, root, document=document)
    if writers:
        resource["author"] = [{"reference": one} for one in writers]
    _signer(resource, root, document=document)
    if keeper:
        resource["custodian"] = {"reference": keeper}
    _relations(resource, root, document=document)
    digest = hashlib.sha1(data, usedforsecurity=False).digest()  # FHIR R4 Attachment.hash is SHA-1
    own = {"contentType": "application/xml", **_language(root), "url": stored, "size": len(data)}
    own["hash"] = base64.b64encode(digest).decode("ascii")
    resource["content"] = [{"attachment": own, "format": {"system": _FORMATS, "code": _format(root)}}]
    _unstructured(resource, root, document=document)
    _context(resource, root, document=document)
    claim(resource, "us-core-documentreference")
    return document.add(resource, root)


def _identify(resource: Resource, root: Node, *, document: Document) -> None:
    found = first("id")(root)
    master = identifier(found, document) if found is not None else None
    if master:
        resource["masterIdentifier"] = master
    version = first("setId")(root)
    series = identifier(version, document) if version is not None else None
    if series:
        resource["identifier"] = [series]
    resource["status"] = "current"
    code = first("code")(root)
    kind = concept(code, document) if code is not None else None
    if kind:
        resource["type"] = kind


def _describe(resource: Resource, root: Node, *, document: Document) -> None:
    time, title, secret = first("effectiveTime")(root), first("title")(root), first("confidentialityCode")(root)
    written = instant_of(time, document) if time is not None else None
    if written:
        resource["date"] = written
    if title is not None and (name := folded(title)):
        resource["description"] = name
    label = concept(secret, document) if secret is not None else None
    if label:
        resource["securityLabel"] = [label]


def _signer(resource: Resource, root: Node, *, document: Document) -> None:
    for name in ("legalAuthenticator", "authenticator"):
        role = first(f"{name}/assignedEntity")(root)
        signer = practitioner(role, "assignedPerson", document=document) if role is not None else None
        if signer:
            resource["authenticator"] = {"reference": signer}
            return


def _relations(resource: Resource, root: Node, *, document: Document) -> None:
    related: list[dict[str, Any]] = []
    for node in each("relatedDocument")(root):
        kind = codes()["relates-to"].get(node.get("typeCode") or "")
        parent = first("parentDocument/id")(node)
        target = identifier(parent, document) if parent is not None else None
        if kind and target:
            related.append({"code": kind, "target": {"type": "DocumentReference", "identifier": target}})
    if related:
        resource["relatesTo"] = related


def _language(root: Node) -> dict[str, str]:
    code = token(first("languageCode/@code")(root))
    return {"language": code} if code else {}


def _format(root: Node) -> str:
    """The IHE format code: by body, and 2.1 when a template of the header is dated."""
    dated = any(node.get("extension") for node in each("templateId")(root))
    body = "structuredBody" if first("component/structuredBody")(root) is not None else "nonXMLBody"
    return f"urn:hl7-org:sdwg:ccda-{body}:{'2.1' if dated else '1.1'}"


def _unstructured(resource: Resource, root: Node, *, document: Document) -> None:
    """nonXMLBody: the file inside, or the place where it is, as a second content."""
    body = first("component/nonXMLBody/text")(root)
    inner = attachment(body, document.at(body)) if body is not None else None
    if inner:
        resource["content"].append({"attachment": inner})


def _context(resource: Resource, root: Node, *, document: Document) -> None:
    context: dict[str, Any] = {}
    visit = encompassing(document)
    if visit:
        context["encounter"] = [{"reference": visit}]
    time = first("documentationOf/serviceEvent/effectiveTime")(root)
    period = bounds(time, document.at(time)) if time is not None else {}
    if period:
        context["period"] = period
    orders = [identifier(node, document) for node in each("inFulfillmentOf/order/id")(root)]
    related = [{"type": "ServiceRequest", "identifier": one} for one in orders if one]
    if related:
        context["related"] = related
    if context:
        resource["context"] = context
