"""The stand-in CMS as an application and as a running server."""

import asyncio
import contextlib
import json
import logging
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from sandbox import admin, decide, faults, notices, settings, wire
from sandbox.settings import Settings
from sandbox.world import World, open_world

TICK_SECONDS = 0.25
RETRY_SECONDS = (0.5, 10.0)  # between attempts to reach the SMTP server, doubling
_log = logging.getLogger("sandbox")


class SandboxApp(Starlette):
    """Starlette that also tells its routes the connection they answer on, for the faults that break it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request, or the lifespan."""
        scope.setdefault("extensions", {})[wire.TRANSPORT] = wire.transport_of(send)
        await super().__call__(scope, receive, send)


def create_app(with_settings: Settings | None = None) -> SandboxApp:
    """The sandbox with its own state. `app.state.world` is that state."""
    world = open_world(with_settings or Settings())
    door = wire.Door(world)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(tick(world))
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        world.store.close()

    errors = {admin.BadRequest: admin.bad_request, faults.BadPlan: admin.bad_request}
    app = SandboxApp(routes=[*admin.routes(world), Mount("/", app=door)], lifespan=lifespan, exception_handlers=errors)
    app.state.world = world
    return app


async def tick(world: World) -> None:
    """Lets time take its effect and hands mails to the SMTP server, until cancelled."""
    pause = RETRY_SECONDS[0]
    next_try = 0.0
    loop = asyncio.get_running_loop()
    while True:
        with world.store.transaction():
            decide.advance(world)
        if loop.time() >= next_try:
            taken = await notices.send(world)
            next_try = 0.0 if taken else loop.time() + pause
            pause = RETRY_SECONDS[0] if taken else min(pause * 2, RETRY_SECONDS[1])
        await asyncio.sleep(TICK_SECONDS)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of the server's certificate, its chain included, and of its key."""

    certificate: Path
    private_key: Path


def server(app: SandboxApp, *, host: str = "127.0.0.1", port: int = 0, tls: Tls | None = None) -> uvicorn.Server:
    """A uvicorn server for the app, not started. With `tls` it speaks TLS 1.3 and nothing older, as CMS does.

    Raises OSError (an SSLError, too) if the files are no certificate and its key.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
        lifespan="on",
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.private_key if tls else None,
    )
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    return uvicorn.Server(config)


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8090,
    latency: float | None = None,
    data: Path | None = None,
    config: Path | None = None,
    auth_methods: tuple[str, ...] | None = None,
    tls: Tls | None = None,
) -> None:
    """Runs until SIGINT or SIGTERM. Prints one JSON line with its URL when it listens; port 0 takes a free one.

    What is given here goes before the configuration file. Raises settings.BadSettings, or OSError if the port is taken.
    """
    app = create_app(settings.load(config, latency=latency, data=data, methods=auth_methods))
    running = server(app, host=host, port=port, tls=tls)
    listening = running.config.bind_socket()
    listening.listen(2048)
    scheme = "https" if tls else "http"
    sys.stdout.write(json.dumps({"sandbox": f"{scheme}://{host}:{listening.getsockname()[1]}"}) + "\n")
    sys.stdout.flush()
    running.run(sockets=[listening])
