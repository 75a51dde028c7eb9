"""The HTTP doors: one table of routes, two pure ASGI layers (outcome, auth), one lifespan."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from capability import openapi, smart, statement
from profiles import fhir_json
from server.auth import AuthMiddleware, Authority
from server.auth.caller import Caller
from server.context import Context
from server.coordination import events as subscription_events
from server.coordination import status as subscription_status
from server.domain.errors import FacadeError
from server.domain.job import Job, JobState
from server.intake import bundle, cda, cms_operations, convert, hl7v2, rest, search, validation
from server.intake.mllp import listen
from server.intake.subscription import topics
from server.metrics import answered, exposition
from server.outcomes import Application, Endpoint, FhirResponse, OutcomeMiddleware
from server.settings import Settings
from server.store.base import Where
from server.wiring import wired
from server.worker import Worker

Wiring = Callable[[Settings], AbstractAsyncContextManager[Context]]
READY_SECONDS = 3.0  # a balancer that asks will not wait longer


def create_app(settings: Settings, *, work: bool, wiring: Wiring = wired) -> Starlette:
    """The application. `work`: it runs a worker too."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with wiring(settings) as context:
            app.state.context = context
            app.state.authority = Authority(settings, context.store, context.http)
            async with _listening(context), _working(context, work):
                app.state.ready = True
                yield
                app.state.ready = False

    app: Starlette = Application(
        routes=_routes(),
        lifespan=lifespan,
        middleware=[
            Middleware(OutcomeMiddleware, answered=answered),
            Middleware(AuthMiddleware, authenticate=lambda header: _authenticate(app, header)),
        ],
    )
    app.state.settings = settings
    app.state.ready = False
    return app


class _TypeName(StringConvertor):
    """The part of an address that may name a resource type; `$convert-data` and the like do not."""

    regex = "[A-Za-z]+"


register_url_convertor("type", _TypeName())


def _authenticate(app: Starlette, header: str | None) -> Caller:
    authority: Authority = app.state.authority
    return authority.authenticate(header)


@contextlib.asynccontextmanager
async def _listening(context: Context) -> AsyncIterator[None]:
    """The MLLP listener, if it is configured."""
    if context.settings.mllp is None:
        yield
        return
    server = await listen(context, context.settings.mllp)
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def _working(context: Context, work: bool) -> AsyncIterator[None]:
    """A worker beside the doors, if this process is to have one."""
    if not work:
        yield
        return
    worker = Worker(context)
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await task


def _routes() -> list[Route]:
    """Every address of the contract, the special before the general; the busiest first: they are tried in order."""
    get, post, put = ["GET"], ["POST"], ["PUT"]
    operations = "/fhir/access/Patient"
    table = [
        ("/fhir/{type:type}", rest.create, post),
        ("/fhir/$convert-data", convert.door, post),
        ("/fhir/$validate", validation.door, post),
        ("/fhir/metadata", metadata, get),
        ("/fhir/.well-known/smart-configuration", smart_configuration, get),
        ("/.well-known/smart-configuration", smart_configuration, get),
        ("/openapi.json", openapi_document, get),
        ("/auth/token", token, post),
        ("/participants/{entity_id}/jwks.json", participant_jwks, get),
        ("/healthz", healthz, get),
        ("/readyz", readyz, get),
        ("/metrics", metrics, get),
        ("/hl7v2", hl7v2.door, post),
        ("/cda", cda.door, post),
        ("/fhir", bundle.door, post),
        ("/fhir/", bundle.door, post),
        (operations + "/$submission-status/{id}", cms_operations.submission_status, get),
        (operations + "/{operation}", cms_operations.submit, post),
        ("/fhir/{type:type}/$validate", validation.door, post),
        ("/fhir/Subscription/$status", subscription_status.door, get),
        ("/fhir/Subscription/{id}/$status", subscription_status.door, get),
        ("/fhir/Subscription/{id}/$events", subscription_events.door, get),
        ("/fhir/{type:type}/_search", search.search, post),
        ("/fhir/{type:type}", search.search, get),
        ("/fhir/{type:type}/{id}", rest.read, get),
        ("/fhir/{type:type}/{id}", rest.update, put),
        ("/fhir/{type:type}/{id}/_history/{vid}", rest.vread, get),
    ]
    return [Route(path, Endpoint(door), methods=methods) for path, door, methods in table]


async def metadata(request: Request) -> Response:
    """The CapabilityStatement."""
    base = _base(request)
    return FhirResponse(
        statement.capability_statement(base, topics=topics(base)), accept=request.headers.get("accept", "")
    )


async def smart_configuration(request: Request) -> Response:
    """Where and how to get a token."""
    return JSONResponse(smart.smart_configuration(_base(request)))


async def openapi_document(request: Request) -> Response:
    """All routes, for tools."""
    return Response(fhir_json.dump(openapi.openapi(_base(request))), media_type="application/json")


async def token(request: Request) -> Response:
    """The token endpoint."""
    authority: Authority = request.app.state.authority
    return await authority.token(request)


async def participant_jwks(request: Request) -> Response:
    """The public keys that CMS is given."""
    authority: Authority = request.app.state.authority
    return await authority.participant_jwks(request)


async def healthz(_: Request) -> Response:
    """The process answers."""
    return PlainTextResponse("ok")


async def readyz(request: Request) -> Response:
    """The store answers: doors can take messages."""
    context: Context = request.app.state.context
    try:
        async with asyncio.timeout(READY_SECONDS):
            await context.store.count(Job, Where("state", "==", JobState.DEAD))
    except (FacadeError, TimeoutError) as failure:
        return PlainTextResponse(type(failure).__name__, 503, {"Retry-After": "5"})
    return PlainTextResponse("ready")


async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    return await exposition(request.app.state.context)


def _base(request: Request) -> str:
    settings: Settings = request.app.state.settings
    return settings.base_url
