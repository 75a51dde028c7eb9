"""The registered public keys of one client: from a file, or fetched from its JWKS URL, cached as it allows.

Source: SMART App Launch 2.2, Asymmetric Client Authentication (key lookup, caching); RFC 7517.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt import PyJWK
from jwt.exceptions import InvalidKeyError, PyJWKError

from server.domain.errors import BadConfiguration, PeerUnavailable
from server.keys import MINIMUM_RSA_BITS, THUMBPRINT_MEMBERS
from server.settings import LOOPBACK, Client

ALGORITHMS = {"RS384": ("RSA", None), "ES384": ("EC", "P-384")}  # alg -> kty, crv: fixed by the key, never by the token
FETCH_SECONDS = 5.0
LARGEST = 256 * 1024
MOST_KEYS = 100
DEFAULT_AGE = 300.0  # when the answer has no Cache-Control max-age
OLDEST = 3600.0  # a removed key stops working within this time, whatever max-age says
YOUNGEST = 1.0  # one burst of token requests is one use of the answer, even under no-store
COOL_DOWN = 30.0  # between fetches for a kid that we do not know, and after a fetch that failed
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})", re.IGNORECASE)

Jwk = dict[str, Any]


def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON object hook that refuses a member that stands twice: parsers differ in which one counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found


def parse_jwks(data: bytes) -> tuple[Jwk, ...]:
    """The keys of a JWK Set. Raises ValueError; keys of unknown kinds stay, and match nothing."""
    document = json.loads(data, object_pairs_hook=unique_members)
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or len(keys) > MOST_KEYS:
        raise ValueError(f"a JWK Set has an array `keys` of at most {MOST_KEYS} keys")
    return tuple(key for key in keys if isinstance(key, dict))


def match(keys: tuple[Jwk, ...], *, kid: str, alg: str) -> PyJWK | None:
    """The one key of that `kid` that fits the algorithm; None if there is none or more than one."""
    found = [key for key in keys if key.get("kid") == kid and _fits(key, alg)]
    return _public(found[0], alg) if len(found) == 1 else None


def _fits(key: Jwk, alg: str) -> bool:
    kty, crv = ALGORITHMS[alg]
    return (
        key.get("kty") == kty
        and (crv is None or key.get("crv") == crv)
        and key.get("use", "sig") == "sig"
        and key.get("alg", alg) == alg
    )


def _public(key: Jwk, alg: str) -> PyJWK | None:
    try:
        public = PyJWK({name: key[name] for name in THUMBPRINT_MEMBERS[key["kty"]]}, algorithm=alg)
    except (KeyError, TypeError, ValueError, PyJWKError, InvalidKeyError):
        return None
    too_short = isinstance(public.key, rsa.RSAPublicKey) and public.key.key_size < MINIMUM_RSA_BITS
    return None if too_short else public


class FileKeys:
    """The keys in a file, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = -1
        self._keys: tuple[Jwk, ...] = ()
        self._read()

    async def find(self, *, kid: str, alg: str) -> PyJWK | None:
        """The key, or None."""
        self._read()
        return match(self._keys, kid=kid, alg=alg)

    def _read(self) -> None:
        try:
            stamp = self._path.stat().st_mtime_ns
            if stamp != self._stamp:
                self._keys = parse_jwks(self._path.read_bytes())
                self._stamp = stamp
        except OSError as bad:
            raise BadConfiguration(f"{self._path}: jwks_file can not be read ({type(bad).__name__})") from None
        except ValueError:
            raise BadConfiguration(f"{self._path}: jwks_file is not a JWK Set (RFC 7517)") from None


class UrlKeys:
    """The keys at a URL: fetched by one task at a time, kept as long as the answer allows."""

    def __init__(self, url: str, http: httpx2.AsyncClient, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
            raise BadConfiguration(f"jwks_url {url}: it must be https (http is for loopback only)")
        self._url = url
        self._http = http
        self._now = monotonic
        self._lock = asyncio.Lock()
        self._keys: tuple[Jwk, ...] = ()
        self._fresh_until = float("-inf")
        self._fetched_at = float("-inf")
        self._failed_at = float("-inf")

    async def find(self, *, kid: str, alg: str) -> PyJWK | None:
        """The key, or None. Raises PeerUnavailable when the keys can not be had now."""
        async with self._lock:
            if self._now() >= self._fresh_until:
                await self._fetch()
            found = match(self._keys, kid=kid, alg=alg)
            if found is None and self._now() >= self._fetched_at + COOL_DOWN:
                await self._fetch()  # the client may have rotated
                found = match(self._keys, kid=kid, alg=alg)
            return found

    async def _fetch(self) -> None:
        wait = self._failed_at + COOL_DOWN - self._now()
        if wait > 0:
            raise PeerUnavailable("a client's JWKS URL did not answer lately", retry_after_seconds=wait)
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                keys, age = await self._get()
        except (httpx2.HTTPError, TimeoutError, ValueError) as bad:
            self._failed_at = self._now()
            text = f"a client's JWKS URL did not answer with a JWK Set ({type(bad).__name__})"
            raise PeerUnavailable(text, retry_after_seconds=COOL_DOWN) from None
        self._keys = keys
        self._fetched_at = self._now()
        self._fresh_until = self._fetched_at + age

    async def _get(self) -> tuple[tuple[Jwk, ...], float]:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        async with self._http.stream("GET", self._url, headers=headers, follow_redirects=False) as answer:
            if answer.status_code != 200 or "content-encoding" in answer.headers:
                raise ValueError("not a plain 200")
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > LARGEST:
                    raise ValueError("too long")
            return parse_jwks(bytes(body)), cache_seconds(answer.headers.get("cache-control", ""))


def cache_seconds(cache_control: str) -> float:
    """How long an answer may be kept. Source: RFC 9111, section 5.2.2."""
    if re.search(r"\bno-(store|cache)\b", cache_control, re.IGNORECASE):
        return YOUNGEST
    stated = _MAX_AGE.search(cache_control)
    return min(OLDEST, max(YOUNGEST, float(stated[1]) if stated else DEFAULT_AGE))


KeySource = FileKeys | UrlKeys


def key_source(client: Client, http: httpx2.AsyncClient) -> KeySource | None:
    """Where the keys of a client are; None for a client without keys. Raises BadConfiguration."""
    if client.jwks_file is not None:
        return FileKeys(client.jwks_file)
    if client.jwks_url is not None:
        return UrlKeys(client.jwks_url, http)
    return None
