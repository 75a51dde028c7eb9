"""One exchange with CMS: what is sent, what came back, and whether bytes may have arrived when nothing did.

TLS 1.3 only, certificates checked, redirects never followed, answers read up to a cap, the bearer token sent to CMS's
own origin only. Source: ACCESS API IG 0.9.12, authentication (transport).
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from server.context import Context
from server.domain.submission import Operation
from server.settings import Participant, Settings

MAX_ANSWER_BYTES = 5 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """CMS answered. Header names are case-insensitive in `headers`."""

    status: int
    headers: httpx2.Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Nothing usable came back. `sent` says whether bytes of the request may have arrived."""

    sent: bool
    reason: str  # the kind of failure, no address


def transports(settings: Settings) -> dict[str, httpx2.AsyncBaseTransport]:
    """For the pooled client: https to CMS's origins speaks TLS 1.3 and nothing older."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    origins = {
        _origin(url)
        for participant in settings.participants.values()
        for url in (participant.cms.base_url, participant.cms.token_url)
    }
    return {
        origin: httpx2.AsyncHTTPTransport(verify=context, limits=httpx2.Limits(max_keepalive_connections=100))
        for origin in origins
        if origin.startswith("https://")
    }


def operation_url(participant: Participant, operation: Operation) -> str:
    """Where the operation of this participant is POSTed. Source: IG 0.9.12, endpoints."""
    return f"{participant.cms.base_url}/access/Patient/${operation}?entityId={participant.entity_id}"


def same_origin(participant: Participant, url: str) -> bool:
    """Whether a status URL is on CMS's own origin: scheme, host and port, parsed."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https")
            and not parts.username
            and _origin(url) == _origin(participant.cms.base_url)
        )
    except ValueError:
        return False


async def post(
    participant: Participant, operation: Operation, body: bytes, token: str, context: Context
) -> Answer | NoAnswer:
    """POSTs a request, bytes as they are."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Prefer": "respond-async",
    }
    return await exchange("POST", operation_url(participant, operation), headers, body, participant, context)


async def status(participant: Participant, url: str, token: str, context: Context) -> Answer | NoAnswer:
    """Asks once. The URL is used as it was given."""
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    return await exchange("GET", url, headers, None, participant, context)


async def exchange(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None, participant: Participant, context: Context
) -> Answer | NoAnswer:
    """One request and its whole answer, or why there is none."""
    timeout = httpx2.Timeout(participant.cms.timeout_seconds, connect=min(10.0, participant.cms.timeout_seconds))
    try:
        async with context.http.stream(
            method, url, headers=headers, content=body, timeout=timeout, follow_redirects=False
        ) as response:
            read = await _read(response)
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol) as failure:
        return NoAnswer(False, type(failure).__name__)
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as failure:
        return NoAnswer(True, type(failure).__name__)
    return NoAnswer(True, "answer too long") if read is None else Answer(response.status_code, response.headers, read)


async def _read(response: httpx2.Response) -> bytes | None:
    """The decoded body, or None once it passes the cap (a decompression bomb is never unpacked further)."""
    body = bytearray()
    async for chunk in response.aiter_bytes(65536):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return None
    return bytes(body)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, default) else "")
