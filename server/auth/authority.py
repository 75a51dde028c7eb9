"""The authorization server: authenticates clients, grants scopes, issues and verifies access tokens, audits log-ins."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.auth import assertion as assertions
from server.auth.caller import Caller
from server.auth.credentials import AssertionCredentials, Credentials, read_credentials, read_form
from server.auth.jwks import KeySource, key_source
from server.auth.published import published_keys
from server.auth.refusal import NO_STORE, OAuthRefused, invalid_client
from server.auth.scopes import intersect
from server.auth.secrets import ClientSecrets
from server.auth.tokens import Tokens
from server.clock import machine_now
from server.domain.audit import AuditEntry
from server.domain.errors import Conflict, UniqueViolation
from server.domain.memory import SeenAssertion
from server.logs import get_logger
from server.settings import Client, Settings
from server.store.base import Changeset, Store, Where

FORGET_EVERY = timedelta(minutes=1)
FORGET_AT_ONCE = 500
REFUSALS_AUDITED = 60  # a minute; more are in the log only, so that nobody can fill the disk without a key

log = get_logger()


class Authority:
    """Everything about who is calling. `token` and `participant_jwks` are Starlette endpoints."""

    def __init__(self, settings: Settings, store: Store, http: httpx2.AsyncClient) -> None:
        """Reads keys and secrets. Raises BadConfiguration in plain words."""
        self.settings = settings
        self.token_url = f"{settings.base_url}/auth/token"
        self._store = store
        self._tokens = Tokens(settings)
        self._secrets = ClientSecrets(settings.clients)
        sources = {client_id: key_source(client, http) for client_id, client in settings.clients.items()}
        self._keys: dict[str, KeySource] = {name: source for name, source in sources.items() if source is not None}
        self._forgot_at = datetime.fromtimestamp(0, UTC)
        self._refusals: tuple[int, int] = (0, 0)  # minute, refusals audited in it

    def authenticate(self, authorization: str | None) -> Caller:
        """The caller of an `Authorization` header. Raises Refused (401, issue code login or expired)."""
        return self._tokens.authenticate(authorization)

    async def token(self, request: Request) -> Response:
        """`POST /auth/token`: the client credentials grant. Source: RFC 6749, section 4.4; SMART Backend Services."""
        request_id = request.scope.get("state", {}).get("request_id")
        try:
            answer = await self._grant(request, request_id)
        except OAuthRefused as refused:
            await self._record_refusal(refused, request_id)
            return refused.response()
        return JSONResponse(answer, headers=NO_STORE)

    async def participant_jwks(self, request: Request) -> Response:
        """`GET /participants/{entity_id}/jwks.json`: the public keys that CMS is given."""
        keys = published_keys(self.settings, request.path_params["entity_id"])
        return JSONResponse({"keys": keys}, headers={"Cache-Control": "public, max-age=300"})

    async def _grant(self, request: Request, request_id: str | None) -> dict[str, Any]:
        form = await read_form(request)
        if "grant_type" not in form:
            raise OAuthRefused("invalid_request", "grant-type")
        if form["grant_type"] != "client_credentials":
            raise OAuthRefused("unsupported_grant_type", "grant-type")
        credentials = read_credentials(form, request.headers.get("authorization"))
        client, seen = await self._identify(credentials)
        scope = intersect(form.get("scope", client.scope), client.scope)  # none asked: all (RFC 6749, section 3.3)
        if not scope:
            raise OAuthRefused("invalid_scope", "scope", client_id=client.client_id)
        token_id = uuid4().hex
        await self._record_login(client, seen, token_id=token_id, request_id=request_id)
        return {
            "access_token": self._tokens.issue(client, scope=scope, token_id=token_id),
            "token_type": "Bearer",
            "expires_in": self.settings.token_seconds,
            "scope": scope,
        }

    async def _identify(self, credentials: Credentials) -> tuple[Client, SeenAssertion | None]:
        if isinstance(credentials, AssertionCredentials):
            return await self._by_assertion(credentials)
        client = self.settings.clients.get(credentials.client_id)
        if not self._secrets.match(credentials.client_id, credentials.secrets) or client is None:
            raise _of(client, invalid_client("secret" if client else "no-such-client"))
        return client, None

    async def _by_assertion(self, credentials: AssertionCredentials) -> tuple[Client, SeenAssertion]:
        read = assertions.read(credentials.assertion)
        client = self.settings.clients.get(read.issuer)
        keys = self._keys.get(read.issuer)
        if client is None or keys is None or credentials.client_id not in (None, read.issuer):
            raise _of(client, invalid_client("no-such-client"))
        expected = assertions.Expected(client.client_id, self.token_url, client.jwks_url, time.time())
        try:
            await assertions.verify(read, expected, keys)
        except OAuthRefused as refused:
            raise _of(client, refused) from None
        expires_at = datetime.fromtimestamp(read.claims["exp"], UTC)
        return client, SeenAssertion(
            participant_id=client.participant, issuer=client.client_id, jti=read.claims["jti"], expires_at=expires_at
        )

    async def _record_login(
        self, client: Client, seen: SeenAssertion | None, *, token_id: str, request_id: str | None
    ) -> None:
        audit = _entry(client, outcome="0", entity=f"token/{token_id}", request_id=request_id)
        try:
            await self._store.commit(Changeset(insert=(seen,) if seen else (), audit=(audit,)))
        except UniqueViolation:
            raise _of(client, invalid_client("jti-seen")) from None
        if seen:
            await self._forget_expired()

    async def _record_refusal(self, refused: OAuthRefused, request_id: str | None) -> None:
        client = self.settings.clients.get(refused.client_id)
        name = client.client_id if client else None
        log.warning("token refused", reason=refused.reason, error=refused.error, client_id=name, request_id=request_id)
        minute = int(time.time() // 60)
        audited = self._refusals[1] if self._refusals[0] == minute else 0
        if audited < REFUSALS_AUDITED:
            self._refusals = (minute, audited + 1)
            audit = _entry(client, outcome="4", entity=f"token/{refused.reason}", request_id=request_id)
            await self._store.commit(Changeset(audit=(audit,)))

    async def _forget_expired(self) -> None:
        """Deletes replay rows that no longer matter. Another process may be at it too: then it does the work."""
        now = machine_now()
        if now - self._forgot_at < FORGET_EVERY:
            return
        self._forgot_at = now
        expired = await self._store.find(SeenAssertion, Where("expires_at", "<", now), limit=FORGET_AT_ONCE)
        if expired:
            try:
                await self._store.commit(Changeset(delete=tuple(expired)))
            except Conflict:
                log.debug("expired assertions were deleted by another process")


def _of(client: Client | None, refused: OAuthRefused) -> OAuthRefused:
    refused.client_id = client.client_id if client else ""
    return refused


def _entry(client: Client | None, *, outcome: str, entity: str, request_id: str | None) -> AuditEntry:
    return AuditEntry(
        participant_id=client.participant if client else "",
        at=machine_now(),
        agent=client.client_id if client else "unknown",
        action="E",
        subtype="login",
        outcome=outcome,
        entity=entity,
        request_id=request_id,
    )
