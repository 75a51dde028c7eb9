"""One installation for the authentication tests: two participants, clients of each kind, an app in front."""

import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from server.auth import AuthMiddleware, Authority
from server.domain.errors import UniqueViolation
from server.domain.memory import SeenAssertion
from server.keys import SigningKey, generate, public_jwk, published_jwk, thumbprint
from server.outcomes import Application, Endpoint, OutcomeMiddleware
from server.settings import Author, Client, CmsEndpoint, Participant, Settings
from server.store.base import Changeset

BASE = "http://facade.test"
TOKEN_URL = f"{BASE}/auth/token"
JWKS_URL = "https://hie.test/jwks.json"
SECRET = "a-secret-of-the-pcp-0123456789"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class MemoryStore:
    """Keeps changesets, and holds to the unique key of used assertions: what these tests need of a store."""

    def __init__(self) -> None:
        self.audit: list[Any] = []
        self.seen: dict[tuple[str, str], SeenAssertion] = {}

    async def commit(self, changeset: Changeset) -> None:
        for row in changeset.insert:
            assert isinstance(row, SeenAssertion)
            if (row.issuer, row.jti) in self.seen:
                raise UniqueViolation("seen_assertion", ("issuer", "jti"))
            self.seen[row.issuer, row.jti] = row
        for row in changeset.delete:
            del self.seen[row.issuer, row.jti]  # type: ignore[attr-defined]
        self.audit.extend(changeset.audit)

    async def find(self, kind: Any, *where: Any, **options: Any) -> list[Any]:
        return [row for row in self.seen.values() if row.expires_at < where[0].value]


@dataclass
class KeyServer:
    """The HIE's JWKS URL: what it answers, and how often it was asked."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    body: bytes | None = None
    asked: int = 0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked += 1
        body = self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()
        return httpx2.Response(self.status, content=body, headers=self.headers)


@dataclass
class World:
    """The parts, and how to ask for a token."""

    settings: Settings
    store: MemoryStore
    authority: Authority
    key_server: KeyServer
    es384: SigningKey
    rs384: SigningKey
    http: httpx2.AsyncClient

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {"iss": "ehr-1", "sub": "ehr-1", "aud": TOKEN_URL, "exp": now + 240, "iat": now, "jti": uuid4().hex}
        return {name: value for name, value in {**claims, **changes}.items() if value is not None}

    def assertion(self, key: SigningKey | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        key = key or self.es384
        headers = {"kid": key.kid, **(header or {})}
        return jwt.encode(self.claims(**changes), key.key, algorithm=key.alg, headers=headers)

    async def ask(self, assertion: str, **changes: str) -> httpx2.Response:
        form = {
            "grant_type": "client_credentials",
            "scope": "system/Observation.rs",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion,
            **changes,
        }
        return await self.http.post("/auth/token", data=form)


def _participant(entity_id: str, folder: Path) -> Participant:
    cms = CmsEndpoint(
        base_url="https://cms.test/fhir",
        token_url="https://cms.test/token",
        client_id="example",
        private_key_file=folder / f"cms-{entity_id}.pem",
    )
    author = Author("1234567893", "Smith", "Jane")
    return Participant(entity_id=entity_id, name="Example Care", payer_id="00831", cms=cms, author=author)


@pytest.fixture(scope="session")
def key_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys and secrets, made once."""
    folder = tmp_path_factory.mktemp("keys")
    es384 = generate(folder / "ehr.pem")
    generate(folder / "token-key.pem", "ES256")
    for name in ("cms-ACCES12345.pem", "cms-ACCES12345-next.pem", "cms-ACCES123456.pem", "cms-ACCES54321.pem"):
        generate(folder / name)
    (folder / "pcp.secret").write_text(SECRET + "\n")
    rsa_key = rsa.generate_private_key(65537, 2048)
    (folder / "ehr-rsa.json").write_text(json.dumps(public_jwk(rsa_key)))
    keys = [published_jwk(es384), {**public_jwk(rsa_key), "kid": thumbprint(public_jwk(rsa_key))}]
    (folder / "ehr.jwks").write_text(json.dumps({"keys": keys}))
    RSA_KEYS[folder] = rsa_key
    return folder


RSA_KEYS: dict[Path, rsa.RSAPrivateKey] = {}


def _make_settings(folder: Path) -> Settings:
    clients = [
        Client("ehr-1", "ACCES12345", "ehr", "system/*.cruds access/submit", jwks_file=folder / "ehr.jwks"),
        Client("hie-1", "ACCES12345", "hie", "system/*.rs", jwks_url=JWKS_URL),
        Client("pcp-1", "ACCES12345", "pcp", "system/Patient.rs", client_secret_file=folder / "pcp.secret"),
        Client("ehr-2", "ACCES54321", "ehr", "system/*.cruds", client_secret_file=folder / "pcp.secret"),
    ]
    return Settings(
        path=folder / "access-facade.toml",
        base_url=BASE,
        store_url="memory",
        key_file=folder / "master.key",
        participants={name: _participant(name, folder) for name in ("ACCES12345", "ACCES54321")},
        clients={client.client_id: client for client in clients},
    )


@pytest.fixture
async def world(key_folder: Path) -> AsyncIterator[World]:
    """A fresh installation with an empty store."""
    from server.keys import cms_signing_key

    settings, store, key_server = _make_settings(key_folder), MemoryStore(), KeyServer()
    outward = httpx2.AsyncClient(transport=httpx2.MockTransport(key_server))
    authority = Authority(settings, store, outward)  # type: ignore[arg-type]

    async def whoami(request: Request) -> JSONResponse:
        caller = request.state.caller
        return JSONResponse({"client_id": caller.client_id, "participant_id": caller.participant_id})

    routes = [
        Route("/auth/token", Endpoint(authority.token), methods=["POST"]),
        Route("/participants/{entity_id}/jwks.json", Endpoint(authority.participant_jwks)),
        Route("/fhir/Patient", Endpoint(whoami)),
    ]
    gates = [Middleware(OutcomeMiddleware), Middleware(AuthMiddleware, authenticate=authority.authenticate)]
    app = Application(routes=routes, middleware=gates)
    rsa_key = RSA_KEYS[key_folder]
    rs384 = SigningKey(rsa_key, thumbprint(public_jwk(rsa_key)), "RS384")
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=BASE) as http:
        es384 = cms_signing_key(key_folder / "ehr.pem")
        yield World(settings, store, authority, key_server, es384, rs384, http)
    await outward.aclose()


@pytest.fixture
def restarted(world: World) -> Callable[[], Authority]:
    """Another worker, or this one after a restart: nothing in memory, the same store."""
    return lambda: Authority(world.settings, world.store, world.http)  # type: ignore[arg-type]
