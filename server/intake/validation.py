"""`$validate`: the same checks as at the doors, storing nothing. Always 200 with an OperationOutcome.

Source: FHIR R4, Resource-operation-validate.
"""

from starlette.requests import Request

from capability.statement import interactions
from mappers.conversion import Resource
from profiles import fhir_json
from profiles.issue import Issue, error
from profiles.library import ACCESS_VERSION
from profiles.validate import validate
from server.domain.errors import Refused
from server.intake.body import FHIR_TYPES, read_body
from server.intake.kept import caller_of, context_of
from server.outcomes import FhirResponse, outcome


def checked(data: bytes, *profiles: str, guide: str = ACCESS_VERSION) -> list[Issue]:
    """All findings about one resource against base R4, the profiles it claims, and those named."""
    try:
        resource = fhir_json.parse(data)
    except fhir_json.BadJson as bad:
        return [bad.issue]
    return validate(*_unwrapped(resource, profiles), guide=guide)


def _unwrapped(resource: Resource, profiles: tuple[str, ...]) -> tuple[Resource, *tuple[str, ...]]:
    """The resource itself, or the one inside the operation's Parameters, with the profile named there."""
    parts = resource.get("parameter", []) if resource.get("resourceType") == "Parameters" else []
    inner = next((p["resource"] for p in parts if p.get("name") == "resource" and "resource" in p), None)
    if inner is None:
        return (resource, *profiles)
    named = [str(p[key]) for p in parts if p.get("name") == "profile" for key in p if key.startswith("value")]
    return (inner, *profiles, *named)


async def door(request: Request) -> FhirResponse:
    """`POST /fhir/$validate` or `/fhir/{type}/$validate`, with `?profile=`."""
    kind = request.path_params.get("type", "Observation")
    if not interactions(kind):
        raise Refused(404, [error("not-supported", "", "This resource type is not kept here: see /fhir/metadata.")])
    caller, settings = caller_of(request), context_of(request).settings
    caller.require(kind, "c")
    body = await read_body(request, allowed=FHIR_TYPES, limit=settings.max_body_bytes)
    guide = settings.participant(caller.participant_id).guide
    issues = checked(body, *request.query_params.getlist("profile"), guide=guide)
    return FhirResponse(outcome(issues), accept=request.headers.get("accept", ""))
