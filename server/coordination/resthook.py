"""The rest-hook channel: one POST to a subscriber's endpoint.

A name is resolved once and the connection goes to the address that was checked, so that no second answer of the name
server can lead it elsewhere; TLS still proves the name. No redirects, no proxy authentication, no kept connection (one
kept under an address could be used for another name at that address).
Source: FHIR R4 Subscription, rest-hook; Subscriptions R5 Backport IG 1.1.0, REST-Hook.
"""

import asyncio
import contextlib
import socket
from collections.abc import Mapping, Sequence

import httpx2

from server.context import Context
from server.coordination.channel import Answer, Outgoing, Verdict
from server.intake.endpoint import Endpoint, check, permitted

KEPT_BYTES = 2048
KEPT_HEADERS = ("date", "content-type", "location", "etag", "x-request-id", "x-correlation-id")
_NOT_NOW = frozenset({408, 425, 429})


async def send(outgoing: Outgoing, context: Context) -> Answer:
    """One attempt. Never raises for what the other side does: the answer says it."""
    endpoint = check(outgoing.endpoint, context.settings.subscriber_hosts)
    if isinstance(endpoint, str):
        return Answer(verdict=Verdict.REFUSED, problem=endpoint)
    try:
        async with asyncio.timeout(outgoing.timeout_seconds):
            addresses = await _addresses(endpoint)
            if not all(permitted(address, endpoint) for address in addresses):
                text = "The endpoint's name leads to an address that notifications may not be sent to."
                return Answer(verdict=Verdict.REFUSED, problem=text)
            return await _first_that_connects(outgoing, context, endpoint=endpoint, addresses=addresses)
    except TimeoutError:
        return Answer(verdict=Verdict.AGAIN, problem="The endpoint did not answer in time.")
    except (httpx2.TransportError, OSError):
        return Answer(verdict=Verdict.AGAIN, problem="The endpoint could not be reached.")


async def _addresses(endpoint: Endpoint) -> list[str]:
    """The addresses of the endpoint's host, each once, in the resolver's order. Raises OSError if there is none."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


async def _first_that_connects(
    outgoing: Outgoing, context: Context, *, endpoint: Endpoint, addresses: Sequence[str]
) -> Answer:
    """Another address is tried only where no connection came about: then nothing was sent."""
    *others, last = addresses
    for address in others:
        with contextlib.suppress(httpx2.ConnectError):
            return await _post(outgoing, context, url=endpoint.url(address), endpoint=endpoint)
    return await _post(outgoing, context, url=endpoint.url(last), endpoint=endpoint)


async def _post(outgoing: Outgoing, context: Context, *, url: str, endpoint: Endpoint) -> Answer:
    headers = [
        *outgoing.headers,
        ("Host", endpoint.authority),
        ("Content-Type", outgoing.content_type),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    async with context.http.stream(
        "POST",
        url,
        content=outgoing.body,
        headers=headers,
        follow_redirects=False,
        timeout=outgoing.timeout_seconds,
        extensions={"sni_hostname": endpoint.host},
    ) as response:
        body = await _first_bytes(response)
        return Answer(
            verdict=verdict(response.status_code),
            status=response.status_code,
            headers={name: response.headers[name] for name in KEPT_HEADERS if name in response.headers},
            body=body,
            retry_after_seconds=_retry_after(response.headers),
        )


def verdict(status: int) -> Verdict:
    """What an HTTP status means here. A redirect is a refusal: the client has to name the new endpoint itself."""
    if 200 <= status < 300:
        return Verdict.DELIVERED
    if status == 410:
        return Verdict.GONE
    return Verdict.REFUSED if 300 <= status < 500 and status not in _NOT_NOW else Verdict.AGAIN


async def _first_bytes(response: httpx2.Response) -> bytes:
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= KEPT_BYTES:
            break
    return body[:KEPT_BYTES]


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0.0
