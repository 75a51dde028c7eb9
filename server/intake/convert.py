"""Conversion without storing: `POST /fhir/$convert-data` and `access-facade convert`."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mappers import cda, fhir, hl7v2
from mappers.conversion import Conversion, Resource, Source
from profiles import fhir_json
from profiles.issue import Issue
from profiles.validate import validate
from server.clock import machine_now
from server.intake.body import CDA_TYPES, FHIR_TYPES, HL7V2_TYPES, read_body
from server.intake.kept import caller_of, context_of
from server.intake.resources import instant
from server.outcomes import PLAIN_JSON


def converted(data: bytes, *, time_zone: str | None = None) -> list[dict[str, Any]]:
    """One entry for each message in the bytes: `ack`, `bundle`, `unmapped`, `issues` (the contract's `convert --json`).

    What it is, is seen from the first byte: `<` is a document, `{` is FHIR, the rest is HL7 v2.
    """
    first = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if first == b"<":
        return [_entry(cda.convert(data, _source(data, time_zone)), None)]
    if first == b"{":
        return [_fhir(data, time_zone)]
    return [_hl7v2(message, time_zone) for message in hl7v2.split(data) or [data]]


def _source(data: bytes, time_zone: str | None) -> Source:
    return Source(hashlib.sha256(data).hexdigest(), instant(machine_now()), time_zone)


def _fhir(data: bytes, time_zone: str | None) -> dict[str, Any]:
    try:
        resource = fhir_json.parse(data)
    except fhir_json.BadJson as bad:
        return _entry(Conversion(issues=(bad.issue,)), None)
    return _entry(fhir.convert(resource, _source(data, time_zone)), None)


def _hl7v2(message: bytes, time_zone: str | None) -> dict[str, Any]:
    conversion = hl7v2.convert(message, _source(message, time_zone))
    return _entry(conversion, hl7v2.ack_code(conversion.issues))


def _entry(conversion: Conversion, ack: str | None) -> dict[str, Any]:
    resources = ([conversion.patient] if conversion.patient else []) + list(conversion.resources)
    issues = [*conversion.issues, *_checked(resources)]
    return {
        "ack": ack,
        "bundle": _bundle(resources) if resources else None,
        "unmapped": [asdict(item) for item in conversion.unmapped],
        "issues": [
            {"severity": i.severity.value, "code": i.code, "location": i.location, "text": i.text} for i in issues
        ],
    }


def _checked(resources: list[Resource]) -> Iterator[Issue]:
    """Our own output is checked as well: what does not pass is said, not hidden."""
    for resource in resources:
        yield from (issue for issue in validate(resource) if issue.is_error)


def _bundle(resources: list[Resource]) -> Resource:
    """A transaction that puts each resource under its id: applying it twice changes nothing."""
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"resource": resource, "request": {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"}}
            for resource in resources
        ],
    }


async def door(request: Request) -> Response:
    """`POST /fhir/$convert-data`: the message as the body, in its own media type; the answer as JSON."""
    context, caller = context_of(request), caller_of(request)
    caller.require("Observation", "c")
    allowed = FHIR_TYPES | HL7V2_TYPES | CDA_TYPES
    body = await read_body(request, allowed=allowed, limit=context.settings.max_body_bytes)
    zone = context.settings.participant(caller.participant_id).time_zone
    return Response(fhir_json.dump({"messages": converted(body, time_zone=zone)}), media_type=PLAIN_JSON)
