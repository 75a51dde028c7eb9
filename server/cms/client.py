"""One exchange with CMS: what is sent, what came back, and whether bytes may have arrived when nothing did.

TLS 1.3 only, certificates checked, redirects never followed, answers read up to a cap, the bearer token sent to CMS's
own origin only. Source: ACCESS API IG 0.9.12, authentication (transport).
"""

import asyncio
import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from urllib.parse import urljoin, urlsplit

import httpx2

from server.cms.policy import longest_retry_after
from server.cms.transport import CmsTransport
from server.context import Context
from server.domain.submission import Operation
from server.settings import Participant, Settings

MAX_ANSWER_BYTES = 5 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """CMS answered. Header names are case-insensitive in `headers`. `fault`: why `body` is not whole, if so."""

    status: int
    headers: httpx2.Headers
    body: bytes
    fault: str = ""

    def retry_after(self, now: datetime) -> float | None:
        """CMS's wish in seconds, if it has a readable one."""
        return longest_retry_after(self.headers.get_list("Retry-After"), now)


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No status came back. `sent` says whether bytes of the request may have arrived."""

    sent: bool
    reason: str  # the kind of failure, no address


TOO_LONG, CUT_OFF = "too long", "cut off"
# On every request. Nothing to unpack in an answer is nothing that can blow up.
ALWAYS = {"User-Agent": "access-facade", "Accept-Encoding": "identity"}


def transports(settings: Settings) -> dict[str, httpx2.AsyncBaseTransport]:
    """For the pooled client: how it speaks to CMS's origins, TLS 1.3 and nothing older."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    origins = {
        _origin(url)
        for participant in settings.participants.values()
        for url in (participant.cms.base_url, participant.cms.token_url)
    }
    return {origin: CmsTransport(context) for origin in origins}


def operation_url(participant: Participant, operation: Operation) -> str:
    """Where the operation of this participant is POSTed. Source: IG 0.9.12, endpoints."""
    return f"{participant.cms.base_url}/access/Patient/${operation}?entityId={participant.entity_id}"


def status_url(participant: Participant, operation: Operation, answer: Answer) -> str | None:
    """The `Content-Location` of a 202, made absolute; None without one; two that differ are unusable."""
    given = sorted({value.strip() for value in answer.headers.get_list("Content-Location")} - {""})
    if not given:
        return None
    location = " ".join(given)
    try:
        relative = not urlsplit(location).scheme
        return urljoin(operation_url(participant, operation), location) if relative else location
    except ValueError:
        return location


def same_origin(participant: Participant, url: str) -> bool:
    """Whether a status URL is on CMS's own origin: scheme, host and port, parsed."""
    own = _origin(participant.cms.base_url)
    if url.startswith(f"{own}/") and " " not in url:  # the slash ends the authority: nothing more to parse
        return True
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and parts.username is None and " " not in url and _origin(url) == own
    except ValueError:
        return False


async def post(
    participant: Participant,
    operation: Operation,
    body: bytes,
    *,
    token: str,
    context: Context,
    not_after: datetime | None = None,
) -> Answer | NoAnswer:
    """POSTs a request, bytes as they are; none of them once `not_after` is over on the machine's clock."""
    cms = participant.cms
    headers = {"Authorization": f"Bearer {token}", "Content-Type": cms.content_type, "Accept": cms.accept}
    if cms.prefer_respond_async:
        headers["Prefer"] = "respond-async"
    url = operation_url(participant, operation)
    return await exchange("POST", url, headers, body, participant, context, not_after=not_after)


async def status(participant: Participant, url: str, token: str, context: Context) -> Answer | NoAnswer:
    """Asks once. The URL is used as it was given; on any origin but CMS's own, nothing is sent."""
    if not same_origin(participant, url):
        return NoAnswer(False, "status URL on another origin")
    headers = {"Authorization": f"Bearer {token}", "Accept": participant.cms.accept}
    if participant.cms.status_entity_id and "entityId=" not in url:
        url += f"{'&' if '?' in url else '?'}entityId={participant.entity_id}"
    return await exchange("GET", url, headers, None, participant, context)


async def exchange(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    participant: Participant,
    context: Context,
    *,
    not_after: datetime | None = None,
) -> Answer | NoAnswer:
    """One request and its answer, or why there is none, within the participant's deadline.

    Once the head of an answer is here its status counts, even if the body never ends.
    """
    seconds = participant.cms.timeout_seconds
    timeout = {"connect": min(10.0, seconds / 2), "read": seconds, "write": seconds, "pool": seconds}
    extensions = {"timeout": timeout, "not_after": not_after}
    head: httpx2.Response | None = None
    try:
        # Made here and not by the client, which would parse each URL twice more and merge headers that we do not have.
        request = httpx2.Request(
            method, _parsed(url), headers={**headers, **ALWAYS}, content=body, extensions=extensions
        )
        async with asyncio.timeout(seconds):
            head = await context.http.send(request, stream=True, follow_redirects=False)
            read = await _read(head)
        return Answer(head.status_code, head.headers, read or b"", "" if read is not None else TOO_LONG)
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol) as failure:
        return NoAnswer(False, type(failure).__name__)
    except (TimeoutError, httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as failure:
        if head is None:
            return NoAnswer(True, type(failure).__name__)
        return Answer(head.status_code, head.headers, b"", CUT_OFF)
    finally:
        if head is not None:
            await head.aclose()


@lru_cache(maxsize=16_384)  # a status URL is asked again and again
def _parsed(url: str) -> httpx2.URL:
    return httpx2.URL(url)


async def _read(response: httpx2.Response) -> bytes | None:
    """The body, or None if it passes the cap; a gzip that nobody asked for is unpacked up to the cap and no further."""
    body = bytearray()
    async for chunk in response.aiter_raw(65536):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return None
    if response.headers.get("Content-Encoding", "identity").lower() != "gzip":
        return bytes(body)
    try:
        unpacked = zlib.decompressobj(wbits=31).decompress(bytes(body), MAX_ANSWER_BYTES + 1)
    except zlib.error:
        return b""
    return unpacked if len(unpacked) <= MAX_ANSWER_BYTES else None


@lru_cache(maxsize=256)
def _origin(url: str) -> str:
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, default) else "")
