"""One exchange with CMS: what is sent, what came back, and whether bytes may have arrived when nothing did.

TLS 1.3 only, certificates checked, redirects never followed, answers read up to a cap, the bearer token sent to CMS's
own origin only. Source: ACCESS API IG 0.9.12, authentication (transport).
"""

import contextlib
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from urllib.parse import urljoin, urlsplit

import httpx2

from server.cms.transport import MAX_ANSWER_BYTES, TOO_LONG, Answer, CmsTransport, NoAnswer
from server.context import Context
from server.domain.submission import Operation
from server.settings import Participant, Settings

# On every request. Nothing to unpack in an answer is nothing that can blow up.
ALWAYS = {"User-Agent": "access-facade", "Accept-Encoding": "identity"}
# What may follow an origin as it is; anything else is first written as RFC 3986 wants it.
PLAIN = re.compile(r"/(?!\.|.*/\.)[A-Za-z0-9\-._~/?!$&()*+,;=:@]*")


@contextlib.asynccontextmanager
async def connections(settings: Settings) -> AsyncIterator[Mapping[str, CmsTransport]]:
    """To CMS's origins, of all participants: TLS 1.3 and nothing older. Closed when the block ends."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    origins = {
        _origin(url)
        for participant in settings.participants.values()
        for url in (participant.cms.base_url, participant.cms.token_url)
    }
    made = {origin: CmsTransport(origin, context) for origin in origins}
    try:
        yield made
    finally:
        for transport in made.values():
            await transport.aclose()


def operation_url(participant: Participant, operation: Operation) -> str:
    """Where the operation of this participant is POSTed. Source: IG 0.9.12, endpoints."""
    return f"{participant.cms.base_url}/access/Patient/${operation}?entityId={participant.entity_id}"


def status_url(participant: Participant, operation: Operation, answer: Answer) -> str | None:
    """The `Content-Location` of a 202, made absolute; None without one; two that differ are unusable."""
    given = sorted({value.strip() for value in answer.values("Content-Location")} - {""})
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
    own = _origin(participant.cms.base_url)
    origin = own if url.startswith(f"{own}/") else _origin(url)
    target = url[len(origin) :]
    if not url.startswith(origin) or PLAIN.fullmatch(target) is None:
        try:
            target = _written(url)
        except httpx2.InvalidURL as bad:
            return NoAnswer(False, type(bad).__name__)
    transport: CmsTransport = context.cms[origin]
    seconds = participant.cms.timeout_seconds
    answer = await transport.exchange(method, target, {**headers, **ALWAYS}, body, seconds=seconds, not_after=not_after)
    return answer if isinstance(answer, NoAnswer) else _unpacked(answer)


@lru_cache(maxsize=1024)
def _written(url: str) -> str:
    return httpx2.URL(url).raw_path.decode("ascii")


def _unpacked(answer: Answer) -> Answer:
    """A gzip that nobody asked for is unpacked up to the cap and no further."""
    if not answer.body or [value.lower() for value in answer.values("Content-Encoding")] != ["gzip"]:
        return answer
    try:
        body = zlib.decompressobj(wbits=31).decompress(answer.body, MAX_ANSWER_BYTES + 1)
    except zlib.error:
        return replace(answer, body=b"")
    return replace(answer, body=body) if len(body) <= MAX_ANSWER_BYTES else replace(answer, body=b"", fault=TOO_LONG)


@lru_cache(maxsize=256)
def _origin(url: str) -> str:
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, default) else "")
