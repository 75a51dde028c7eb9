"""The body of an HTTP request, read up to a cap."""

from starlette.requests import ClientDisconnect, Request

from profiles.issue import error
from server.domain.errors import Refused
from server.outcomes import header

FHIR_TYPES = frozenset({"application/fhir+json", "application/json", "application/json+fhir", "text/json"})
HL7V2_TYPES = frozenset({"application/hl7-v2", "x-application/hl7-v2+er7", "application/hl7-v2+er7"})
CDA_TYPES = frozenset({"application/cda+xml", "application/xml", "text/xml"})


def media_type(request: Request) -> str:
    """The media type of the request, lower case, without parameters."""
    return header(request, b"content-type").partition(";")[0].strip().lower()


async def read_body(request: Request, *, allowed: frozenset[str], limit: int) -> bytes:
    """The whole body. Raises Refused: 415 for another media type or an encoded body, 413 past `limit` bytes."""
    kind = media_type(request)
    if kind not in allowed or header(request, b"content-encoding") not in ("", "identity"):
        text = f"This door takes {', '.join(sorted(allowed))}, not compressed: set Content-Type accordingly."
        raise Refused(415, [error("not-supported", "Content-Type", text)])
    declared = header(request, b"content-length")
    if declared.isdigit() and int(declared) > limit:
        raise _too_long(limit)
    chunks, size, more = [], 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise _too_long(limit)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_long(limit: int) -> Refused:
    text = f"The body is longer than {limit} bytes: send it in smaller parts."
    return Refused(413, [error("too-long", "body", text)])
