"""A Binary's own content: what a caller gets that asks for the content's type and not for FHIR.

Source: FHIR R4, Binary, "Serving Binary Resources using the RESTful API".
"""

import binascii
from base64 import b64decode

from starlette.responses import Response

from profiles import fhir_json
from server.domain.resource import StoredResource

_XML = frozenset({"application/xml", "text/xml", "application/cda+xml"})
_ANY = "application/octet-stream"


def content(row: StoredResource, accept: str) -> Response | None:
    """The bytes under the type that the Binary states, as a file; None where FHIR was asked for, or there are none.

    `accept` is the Accept header: a type of it has to be the Binary's own (any name of XML for XML) or octet-stream.
    """
    wished = {one.partition(";")[0].strip().lower() for one in accept[:1000].split(",")}
    if row.resource_type != "Binary" or wished <= {"", "*/*", "application/fhir+json", "application/json"}:
        return None
    binary = fhir_json.parse(row.body)
    stated = str(binary.get("contentType", "")).partition(";")[0].strip().lower()
    own = _XML if stated in _XML else {stated}
    if wished.isdisjoint(own | {_ANY}):
        return None
    try:
        data = b64decode(binary.get("data", ""), validate=True)
    except (binascii.Error, ValueError):
        return None
    headers = {"ETag": f'W/"{row.revision}"', "X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
    return Response(data, headers=headers, media_type=stated or _ANY)
