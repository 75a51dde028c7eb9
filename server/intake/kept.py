"""What the HTTP doors share: who calls, what came, and that a refused body is kept for the operator."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request

from profiles import fhir_json
from profiles.issue import Issue
from server.auth import Caller
from server.context import Context
from server.domain.errors import Refused
from server.domain.received import Door, Received
from server.intake.accept import Arrival, hand_over, quarantine, receive
from server.intake.body import FHIR_TYPES, media_type, read_body
from server.outcomes import FhirResponse, for_exception, header, outcome, request_id_of
from server.store.base import Changeset, Pending


def context_of(request: Request) -> Context:
    """The wiring."""
    context: Context = request.scope["app"].state.context
    return context


def caller_of(request: Request) -> Caller:
    """Who calls."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


async def stored(request: Request, door: Door, *, repeatable: bool) -> Received:
    """The FHIR body of the request, on disk."""
    context = context_of(request)
    return await receive(await _arrival(request, door, context), context, repeatable=repeatable)


async def handed_over(request: Request, door: Door) -> tuple[Received, Pending]:
    """The FHIR body of the request, with the store."""
    context = context_of(request)
    return await hand_over(await _arrival(request, door, context), context)


async def _arrival(request: Request, door: Door, context: Context) -> Arrival:
    caller = caller_of(request)
    body = await read_body(request, allowed=FHIR_TYPES, limit=context.settings.max_body_bytes)
    return Arrival(
        caller.participant_id, door, caller.client_id, media_type(request), body, request_id_of(request.scope)
    )


async def kept_if_refused(
    request: Request,
    received: Received,
    work: Callable[[], Awaitable[FhirResponse]],
    pending: Pending | None = None,
) -> FhirResponse:
    """Does the work; when it refuses the body, the body stays in quarantine with the answer."""
    try:
        return await work()
    except (Refused, fhir_json.BadJson) as refused:
        answer = for_exception(refused)
        content = fhir_json.dump(outcome(answer.issues))
        await quarantine(received, answer.issues, answer.status, content, context_of(request), pending)
        return FhirResponse(content, answer.status, answer.headers, accept=header(request, b"accept"))
    except Exception:  # answered at the edge: the bytes are on disk before anything is answered, a defect of ours too
        if pending is not None:
            await pending.commit(Changeset())
        raise


def refuse_on_errors(issues: list[Issue], status: int = 422) -> None:
    """Raises Refused with all issues if one of them is an error."""
    if any(issue.is_error for issue in issues):
        raise Refused(status, issues)


def reply(request: Request, content: bytes | None, status: int = 200, **headers: str) -> FhirResponse:
    """A FHIR answer; header names are given in snake_case."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    return FhirResponse(content, status, named, accept=header(request, b"accept"))
