"""Every error leaves as an OperationOutcome that says where, why and what to do, and no more."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from profiles.fhir_json import BadJson
from profiles.issue import Issue, Severity, error, warning
from server.domain.errors import (
    BadConfiguration,
    Conflict,
    LeaseLost,
    PeerUnavailable,
    Refused,
    StoreDamaged,
    StoreUnavailable,
    UniqueViolation,
)
from server.outcomes import (
    FRAMEWORK,
    Application,
    Endpoint,
    FhirResponse,
    OutcomeMiddleware,
    for_exception,
    negotiate,
    outcome,
    request_id_of,
)

CANARY = "1EG4TE5MK73"


def test_an_outcome_has_severity_code_text_and_place() -> None:
    """The whole message is `details.text`; a FHIRPath is `expression`; `diagnostics` is never there."""
    made = outcome([error("required", "Patient.identifier[0].value", "Patient.identifier.value is missing: add it.")])
    assert made == {
        "resourceType": "OperationOutcome",
        "issue": [
            {
                "severity": "error",
                "code": "required",
                "details": {"text": "Patient.identifier.value is missing: add it."},
                "expression": ["Patient.identifier[0].value"],
            }
        ],
    }


@pytest.mark.parametrize(
    ("location", "element"),
    [
        ("Patient", "expression"),
        ("Patient.name[0].where(use = 'official')", "expression"),
        ("Bundle.entry[3].resource.ofType(Observation).value", "expression"),
        ("http.Accept", "expression"),
        ("OBX[2]-5.1", "location"),
        ("MSH", "location"),
        ("MSH-10", "location"),
        ("/ClinicalDocument/component[1]", "location"),
    ],
)
def test_the_place_stands_where_its_language_belongs(location: str, element: str) -> None:
    """FHIRPath in `expression`; HL7 v2 fields and XPaths in `location`."""
    assert outcome([warning("value", location, "Text.")])["issue"][0][element] == [location]


def test_no_issue_is_said_as_such() -> None:
    """An OperationOutcome needs an issue: none found is one of severity information."""
    assert outcome([])["issue"][0]["severity"] == "information"


@pytest.mark.parametrize(
    ("exc", "status", "code"),
    [
        (Refused(422, [error("business-rule", "", "No.")]), 422, "business-rule"),
        (StoreUnavailable("locked"), 503, "transient"),
        (PeerUnavailable("down", retry_after_seconds=2.2), 503, "transient"),
        (Conflict("moved on"), 409, "conflict"),
        (UniqueViolation("resource", ("id",)), 409, "conflict"),
        (LeaseLost("gone"), 409, "conflict"),
        (StoreDamaged("torn"), 500, "exception"),
        (BadConfiguration("no key"), 500, "exception"),
        (BadJson(error("structure", "", "No JSON.")), 400, "structure"),
        (HTTPException(404), 404, "not-found"),
        (HTTPException(405), 405, "not-supported"),
        (HTTPException(418), 418, "invalid"),
        (HTTPException(599), 599, "exception"),
        (ValueError(CANARY), 500, "exception"),
        (KeyError(CANARY), 500, "exception"),
    ],
)
def test_each_exception_has_its_answer(exc: Exception, status: int, code: str) -> None:
    """The tree of server/domain/errors.py, the framework's errors, and what nobody expected."""
    answer = for_exception(exc)
    assert (answer.status, answer.issues[0].code) == (status, code)
    assert CANARY not in str(outcome(answer.issues))


def test_a_temporary_error_says_when_to_come_back() -> None:
    """Retry-After: the peer's wish in whole seconds, rounded up; 5 without one."""
    assert for_exception(PeerUnavailable("x", retry_after_seconds=2.2)).headers == {"Retry-After": "3"}
    assert for_exception(StoreUnavailable("x")).headers == {"Retry-After": "5"}


def test_every_text_is_a_sentence() -> None:
    """Each text of the table ends in a full stop, and each code is a FHIR R4 IssueType."""
    types = (
        "invalid structure required value invariant security login unknown expired forbidden suppressed processing "
        "not-supported duplicate multiple-matches not-found deleted too-long code-invalid extension too-costly "
        "business-rule conflict transient lock-error no-store exception timeout incomplete throttled informational"
    )
    for code, text in FRAMEWORK.values():
        assert text.endswith(".")
        assert code in types.split()


@pytest.mark.parametrize(
    ("accept", "wished", "media_type"),
    [
        ("", "", "application/fhir+json; charset=UTF-8"),
        ("*/*", "", "application/fhir+json; charset=UTF-8"),
        ("application/fhir+json", "", "application/fhir+json; charset=UTF-8"),
        ("application/json", "", "application/json; charset=UTF-8"),
        ("application/fhir+json; fhirVersion=4.0", "", "application/fhir+json; charset=UTF-8"),
        ("text/html, application/json;q=0.5, application/fhir+json;q=0.9", "", "application/fhir+json; charset=UTF-8"),
        ("application/json, application/fhir+json;q=0.9", "", "application/json; charset=UTF-8"),
        ("application/fhir+xml", "json", "application/fhir+json; charset=UTF-8"),
        ("", "application/fhir json", "application/fhir+json; charset=UTF-8"),
        ("", "application/json", "application/json; charset=UTF-8"),
    ],
)
def test_the_caller_gets_the_format_it_asks_for(accept: str, wished: str, media_type: str) -> None:
    """`_format` goes before Accept. FHIR R4, RESTful API, content types."""
    assert negotiate(accept, wished) == media_type


@pytest.mark.parametrize(
    ("accept", "wished"),
    [
        ("application/fhir+xml", ""),
        ("text/html", ""),
        ("application/fhir+json;q=0", ""),
        ("application/fhir+json; fhirVersion=5.0", ""),
        ("application/fhir+json;q=x", ""),
        ("application/fhir+json", "xml"),
    ],
)
def test_a_format_that_is_not_offered_is_a_406(accept: str, wished: str) -> None:
    """XML, HTML and other FHIR versions are refused, not answered in JSON."""
    with pytest.raises(Refused) as refused:
        negotiate(accept, wished)
    assert refused.value.status == 406


def test_a_response_keeps_decimals() -> None:
    """What was 185.00 leaves as 185.00, with the charset that FHIR demands."""
    answer = FhirResponse({"resourceType": "Observation", "valueQuantity": {"value": Decimal("185.00")}})
    assert answer.body == b'{"resourceType":"Observation","valueQuantity":{"value":185.00}}'
    assert answer.headers["content-type"] == "application/fhir+json; charset=UTF-8"


def test_bytes_go_out_untouched_and_nothing_has_no_type() -> None:
    """Stored bytes are not written anew; an empty answer has no Content-Type (CMS's 202)."""
    assert FhirResponse(b'{"a": 1.50}').body == b'{"a": 1.50}'
    empty = FhirResponse(None, 202, {"Content-Location": "http://x"})
    assert (empty.body, "content-type" in empty.headers) == (b"", False)


async def _boom(request: Request) -> Response:
    raise ValueError(f"MBI {CANARY} of Jane Doe")


async def _refused(request: Request) -> Response:
    raise Refused(422, [Issue(Severity.ERROR, "invariant", "Patient.name", "A name is missing: add one.")])


async def _ident(request: Request) -> Response:
    return Response(request_id_of(request.scope))


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """An app that fails in each way."""
    routes = [
        Route("/boom", Endpoint(_boom)),
        Route("/refused", Endpoint(_refused)),
        Route("/id", Endpoint(_ident), methods=["GET"]),
    ]
    app = Application(routes=routes, middleware=[Middleware(OutcomeMiddleware)])
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://facade.test") as client:
        yield client


async def test_the_unexpected_says_a_reference_only(http: httpx2.AsyncClient, capsys: Any) -> None:
    """500 names the request id; neither the answer nor the log has the exception's message."""
    answer = await http.get("/boom", headers={"X-Request-Id": "abc-1"})
    assert answer.status_code == 500
    assert "reference abc-1" in answer.json()["issue"][0]["details"]["text"]
    printed = "".join(capsys.readouterr())
    assert "ValueError" in printed
    assert CANARY not in answer.text + printed
    assert "Jane" not in answer.text + printed


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/none", 404), ("DELETE", "/id", 405), ("GET", "/refused", 422)]
)
async def test_the_frameworks_errors_are_outcomes_too(
    http: httpx2.AsyncClient, method: str, path: str, status: int
) -> None:
    """No such route, wrong method, and a refusal: all OperationOutcomes in FHIR JSON."""
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert answer.headers["content-type"] == "application/fhir+json; charset=UTF-8"
    assert answer.headers["x-request-id"]


async def test_an_error_comes_in_the_format_asked_for(http: httpx2.AsyncClient) -> None:
    """Who accepts application/json only gets that."""
    answer = await http.get("/refused", headers={"Accept": "application/json"})
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"


async def test_a_harmless_request_id_is_kept(http: httpx2.AsyncClient) -> None:
    """The caller's id goes through to the handler and back."""
    answer = await http.get("/id", headers={"X-Request-Id": "req_1.a-B"})
    assert (answer.text, answer.headers["x-request-id"]) == ("req_1.a-B", "req_1.a-B")


@pytest.mark.parametrize("given", ["", "a b", "a" * 65, "\x1b[31m", "a;b", "<script>", "é"])
async def test_a_harmful_request_id_is_replaced(http: httpx2.AsyncClient, given: str) -> None:
    """Nothing that could forge a log line or a header survives. X10."""
    answer = await http.get("/id", headers={"X-Request-Id": given.encode()})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 32


async def test_an_answer_that_broke_off_is_not_answered_twice(capsys: Any) -> None:
    """Once bytes are out nothing is added and nothing raised: the server sees the end missing, and closes."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError(CANARY)

    await OutcomeMiddleware(half)({"type": "http", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert CANARY not in "".join(capsys.readouterr())


@pytest.mark.parametrize(("path", "status"), [("/id", 200), ("/refused", 422), ("/none", 404), ("/boom", 500)])
async def test_every_answer_is_counted(path: str, status: int) -> None:
    """Refusals and the framework's own errors too, by the status that the caller got."""
    told: list[tuple[str, int]] = []
    doors = {"/boom": _boom, "/refused": _refused, "/id": _ident}
    app = Application(
        routes=[Route(each, Endpoint(door), methods=["GET"]) for each, door in doors.items()],
        middleware=[Middleware(OutcomeMiddleware, answered=lambda path, status, _: told.append((path, status)))],
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://facade.test") as client:
        await client.get(path)
    assert told == [(path, status)]
