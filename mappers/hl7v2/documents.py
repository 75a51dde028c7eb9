"""A document that came as a result (OBX of type ED): its bytes as Binary, what it is as DocumentReference.

The Observation keeps the R5 value as extension, as the guide has it, but with the Binary's address for the bytes: they
stand once in what a message becomes, and can be fetched by themselves.
Source: HL7 v2-to-FHIR 1.0.0, OBX[Observation], ED; FHIR R4, DocumentReference and Binary. The split is ours.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from mappers.conversion import Resource
from mappers.converters import reference
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.identity import identify
from mappers.hl7v2.observations import Finding

_UNKNOWN = "application/octet-stream"
_DOC_STATUS = {
    "final": "final",
    "amended": "amended",
    "corrected": "amended",
    "preliminary": "preliminary",
    "entered-in-error": "entered-in-error",
}


def documents(findings: Iterable[Finding], context: MessageContext) -> list[Resource]:
    """Binary and DocumentReference for each attachment with data; the observations have their ids already."""
    return [
        made
        for finding in findings
        for attachment in _attached(finding.resource)
        for made in _document(finding.resource, attachment, context)
    ]


def _attached(observation: Resource) -> Iterator[dict[str, Any]]:
    for holder in (observation, *observation.get("component", ())):
        for extension in holder.get("extension", ()):
            if "data" in extension.get("valueAttachment", ()):
                yield extension["valueAttachment"]


def _document(observation: Resource, attachment: dict[str, Any], context: MessageContext) -> tuple[Resource, Resource]:
    parts, source = {"observation": observation["id"]}, {"source": observation["meta"]["source"]}
    binary: Resource = {
        "resourceType": "Binary",
        "id": identify("Binary", parts, context),
        "meta": source,
        "contentType": attachment.get("contentType", _UNKNOWN),
        "securityContext": context.subject,
        "data": attachment.pop("data"),
    }
    attachment["url"] = f"Binary/{binary['id']}"
    made: Resource = {
        "resourceType": "DocumentReference",
        "id": identify("DocumentReference", parts, context),
        "meta": dict(source),
        "status": "entered-in-error" if observation["status"] == "entered-in-error" else "current",
        "type": observation["code"],
        "subject": context.subject,
        "content": [{"attachment": dict(attachment)}],
        "context": {"related": [reference("Observation", observation["id"])]},
    }
    if observation["status"] in _DOC_STATUS:
        made["docStatus"] = _DOC_STATUS[observation["status"]]
    return binary, made
