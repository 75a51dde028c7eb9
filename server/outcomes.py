"""Exceptions and Issues become HTTP answers here, and nowhere else: every 4xx and 5xx carries an OperationOutcome.

Wiring: an `Application` whose outermost layer is `OutcomeMiddleware` and whose routes lead to an `Endpoint` each. It
answers the framework's own errors (no such route, wrong method) too.
Nothing that is answered repeats a value of the request.
Source: FHIR R4, OperationOutcome; RESTful API, section "Service Base URL, errors".
"""

import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from profiles import fhir_json
from profiles.issue import Issue, Severity, error
from server.domain.errors import Conflict, FacadeError, Refused, Temporary
from server.logs import get_logger, place_of

FHIR_JSON = "application/fhir+json; charset=UTF-8"
PLAIN_JSON = "application/json; charset=UTF-8"
DEFAULT_RETRY_SECONDS = 5
GONE = 499  # counted where no answer was begun: the caller went away
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = get_logger()

# HTTP status -> FHIR R4 IssueType and the whole sentence, for errors that the framework makes.
FRAMEWORK: dict[int, tuple[str, str]] = {
    400: ("invalid", "The request is not well-formed: check its headers and its body."),
    401: ("login", "The request needs a valid access token: get one at /auth/token."),
    403: ("forbidden", "The access token does not allow this."),
    404: ("not-found", "There is nothing at this address: check it against /fhir/metadata and /openapi.json."),
    405: ("not-supported", "This address does not take this method: the Allow header lists those that it takes."),
    406: ("not-supported", "No format that was asked for is offered: ask for application/fhir+json."),
    408: ("timeout", "The request did not arrive in time: send it again."),
    409: ("conflict", "Somebody else changed this at the same time: read it again, then repeat the change."),
    410: ("deleted", "This was deleted."),
    411: ("required", "The request needs a Content-Length header."),
    412: ("conflict", "The precondition of the request does not hold: read the current version first."),
    413: ("too-long", "The request body is longer than this server takes: send it in parts."),
    414: ("too-long", "The address is too long: use POST [type]/_search."),
    415: ("not-supported", "The Content-Type is not taken here: see /openapi.json for those that are."),
    422: ("processing", "The request was understood but can not be processed."),
    429: ("throttled", "Too many requests: wait as long as the Retry-After header says."),
    431: ("too-long", "The request headers are too long: send fewer or shorter ones."),
    500: ("exception", "Internal error: the operator finds it in the log under the request id."),
    501: ("not-supported", "This is not supported."),
    503: ("transient", "The service can not do this now: repeat the request after the time in Retry-After."),
    504: ("timeout", "A system that this service depends on did not answer in time: repeat the request later."),
    507: ("no-store", "The service has no room left to store this: nothing was stored; tell its operator."),
}

_FHIRPATH = re.compile(r"(?:http\.|(?:[A-Z][a-z]\w*)(?:$|[.\[]))")


class Answer(NamedTuple):
    """What an exception is answered with."""

    status: int
    issues: tuple[Issue, ...]
    headers: Mapping[str, str]


def outcome(issues: Iterable[Issue]) -> dict[str, Any]:
    """The OperationOutcome of some issues; without any, one that says that nothing was found.

    A FHIRPath location goes to `expression`, an HL7 v2 or XPath one to `location`. `diagnostics` stays empty: it is
    where other servers echo values.
    """
    found = [_issue(issue) for issue in issues]
    return {"resourceType": "OperationOutcome", "issue": found or [_issue(_NOTHING_FOUND)]}


_NOTHING_FOUND = Issue(Severity.INFORMATION, "informational", "", "No problem was found.")


def _issue(issue: Issue) -> dict[str, Any]:
    made: dict[str, Any] = {
        "severity": issue.severity.value,
        "code": issue.code,
        "details": {"text": issue.text},
    }
    if issue.location:
        made["expression" if _FHIRPATH.match(issue.location) else "location"] = [issue.location]
    return made


def for_exception(exc: BaseException, *, request_id: str = "") -> Answer:
    """Status, issues and headers for any exception. What we do not know is a 500 that says the request id only."""
    if isinstance(exc, Refused):
        return Answer(exc.status, exc.issues, exc.headers)
    if isinstance(exc, fhir_json.BadJson):
        return Answer(400, (exc.issue,), {})
    if isinstance(exc, Temporary):
        seconds = math.ceil(exc.retry_after_seconds or DEFAULT_RETRY_SECONDS)
        return Answer(503, (_framework(503),), {"Retry-After": str(max(1, seconds))})
    if isinstance(exc, Conflict):
        return Answer(409, (_framework(409),), {})
    if isinstance(exc, HTTPException):
        return Answer(exc.status_code, (_framework(exc.status_code),), exc.headers or {})
    text = f"Internal error, reference {request_id}: give it to the operator, whose log has the place."
    return Answer(500, (error("exception", "", text),), {})


def _framework(status: int) -> Issue:
    code, text = FRAMEWORK.get(status) or FRAMEWORK[400 if status < 500 else 500]
    return error(code, "", text)


class FhirResponse(Response):
    """A FHIR resource as JSON, decimals exact; no body and no Content-Type for None. Bytes go out as they are.

    `accept` is the caller's Accept header: who asks for plain `application/json` gets that media type. `media_type` is
    what `negotiate` returned, where that was asked.
    """

    def __init__(
        self,
        content: Mapping[str, Any] | bytes | None,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        accept: str = "",
        media_type: str | None = None,
    ) -> None:
        super().__init__(None, status_code)
        if content is None:
            self.init_headers(headers)
            return
        self.body = content if isinstance(content, bytes) else fhir_json.dump(content)
        named = [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in (headers or {}).items()]
        kind = media_type or media_type_for(accept)
        length = (b"content-length", b"%d" % len(self.body))
        self.raw_headers = [length, (b"content-type", kind.encode("latin-1")), *named]


@lru_cache(maxsize=512)
def media_type_for(accept: str, wished: str = "") -> str:
    """The media type of an answer, FHIR JSON if nothing else is asked for. Never fails: errors need one too."""
    return _negotiated(accept, wished) or FHIR_JSON


def negotiate(accept: str, wished: str = "") -> str:
    """The media type for an Accept header and a `_format` parameter (which wins). Raises Refused (406)."""
    found = _negotiated(accept[:1000], wished[:100])
    if found is None:
        raise Refused(406, [_framework(406)])
    return found


# what a caller may ask for -> what it gets. Source: FHIR R4, RESTful API, "Content Types and encodings".
OFFERED: dict[str, str] = {
    "application/fhir+json": FHIR_JSON,
    "application/json": PLAIN_JSON,
    "application/*": FHIR_JSON,
    "*/*": FHIR_JSON,
}
FORMATS = {"json": FHIR_JSON, **OFFERED}
FHIR_VERSIONS = frozenset({"", "4.0", "4.0.1"})


@lru_cache(maxsize=512)
def _negotiated(accept: str, wished: str) -> str | None:
    if wished:
        return FORMATS.get(wished.replace(" ", "+").partition(";")[0].lower())  # an unescaped + arrives as a space
    ranges = [_media_range(item) for item in (accept or "*/*").split(",")]
    offered = [(quality, OFFERED[name]) for name, quality, version in ranges if name in OFFERED and version]
    best = max(offered, key=lambda item: item[0], default=(0.0, ""))
    return best[1] if best[0] > 0 else None


def _media_range(item: str) -> tuple[str, float, bool]:
    """Name, quality, and whether the FHIR version asked for is ours."""
    name, *parameters = (part.strip().lower() for part in item.split(";"))
    given = dict(parameter.partition("=")[::2] for parameter in parameters)
    try:
        quality = float(given.get("q", "1"))
    except ValueError:
        quality = 0.0
    return name, quality, given.get("fhirversion", "").strip('"') in FHIR_VERSIONS


def respond(exc: BaseException, *, accept: str = "", request_id: str = "") -> FhirResponse:
    """The whole answer to an exception."""
    answer = for_exception(exc, request_id=request_id)
    if answer.status in (204, 304):
        return FhirResponse(None, answer.status, answer.headers)
    return FhirResponse(outcome(answer.issues), answer.status, answer.headers, accept=accept)


class Application(Starlette):
    """Starlette without its own two layers for errors: what is raised goes up to OutcomeMiddleware."""

    def build_middleware_stack(self) -> ASGIApp:
        """Our layers around the routes, and nothing else: each costs a call in and out of every request."""
        app: ASGIApp = self.router
        for layer, arguments, options in reversed(self.user_middleware):
            app = layer(app, *arguments, **options)
        return app


class Endpoint:
    """A function of a Request that returns a Response, as an ASGI application: what it raises is answered above."""

    __slots__ = ("_door",)

    def __init__(self, door: Callable[[Request], Awaitable[Response]]) -> None:
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one request."""
        response = await self._door(Request(scope, receive, send))
        await response(scope, receive, send)


def request_id_of(scope: Scope) -> str:
    """The id of the request that the middleware has set; empty outside of it."""
    found: str = scope.get("state", {}).get("request_id", "")
    return found


def header(request: Request, name: bytes) -> str:
    """The value of a header, empty if it is absent. `name` in lower case; of a header sent twice the last counts."""
    found: bytes = request.scope["state"]["headers"].get(name, b"")
    return found.decode("latin-1")


class OutcomeMiddleware:
    """Pure ASGI, first in the list of middleware: gives each request an id, and answers whatever is raised below it.

    Puts `request_id` and `headers` (by name, in bytes) into the request's state.

    The id is the caller's X-Request-Id if that is harmless (letters, digits, `.`, `_`, `-`; at most 64), else new.
    `answered` is told the path, the status (499: the caller went away) and the seconds of each request.
    """

    def __init__(self, app: ASGIApp, answered: Callable[[str, int, float], None] | None = None) -> None:
        self._app = app
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = _request_id(headers)
        scope.setdefault("state", {}).update(request_id=request_id, headers=headers)
        tracked = _Tracked(send, request_id)
        try:
            await self._app(scope, receive, tracked)
        except ClientDisconnect:
            log.info("caller went away", request_id=request_id)
        except Exception as exc:  # the edge: the only other place is the worker
            _log(exc, request_id)
            if tracked.status == GONE:
                accept = headers.get(b"accept", b"").decode("latin-1")
                await respond(exc, accept=accept, request_id=request_id)(scope, receive, tracked)
        if self._answered is not None:
            self._answered(scope["path"], tracked.status, time.perf_counter() - started)


class _Tracked:
    """`send`, with the request id added, that remembers the status of the answer once that has begun."""

    __slots__ = ("_id", "_send", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._id = request_id
        self.status = GONE

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self._id.encode("ascii"))]
        await self._send(message)


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if given and REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


def _log(exc: BaseException, request_id: str) -> None:
    answer = for_exception(exc)
    write: Callable[..., None] = log.error if answer.status >= 500 and not isinstance(exc, Temporary) else log.info
    write(
        "request refused" if isinstance(exc, FacadeError | HTTPException | fhir_json.BadJson) else "unexpected error",
        status=answer.status,
        issue_codes=",".join(issue.code for issue in answer.issues[:5]),
        error=type(exc).__name__,
        place=place_of(exc.__traceback__),
        request_id=request_id,
    )
