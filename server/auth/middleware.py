"""The gate before every door: no route is reached without a valid access token, except the public ones."""

import re
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from server.auth.caller import Caller

PUBLIC = frozenset(
    {
        "/fhir/metadata",
        "/fhir/.well-known/smart-configuration",
        "/.well-known/smart-configuration",
        "/auth/token",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
    }
)
_PUBLIC_KEYS = re.compile(r"/participants/[A-Za-z0-9.-]{1,64}/jwks\.json")


def is_public(path: str) -> bool:
    """Whether a path is answered without a token. Compared whole: what is not listed is closed."""
    return path in PUBLIC or (path.startswith("/participants/") and _PUBLIC_KEYS.fullmatch(path) is not None)


class AuthMiddleware:
    """Pure ASGI: puts the Caller into `scope["state"]["caller"]`, or raises Refused (401)."""

    def __init__(
        self,
        app: ASGIApp,
        authenticate: Callable[[str | None], Caller],
        public: Callable[[str], bool] = is_public,
    ) -> None:
        self._app = app
        self._authenticate = authenticate
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the request through, or refuses it before any body is read."""
        if scope["type"] != "lifespan" and not self._public(scope["path"]):
            headers = [value for name, value in scope["headers"] if name == b"authorization"]
            one = headers[0].decode("latin-1") if len(headers) == 1 else None
            scope.setdefault("state", {})["caller"] = self._authenticate(one)
        await self._app(scope, receive, send)
