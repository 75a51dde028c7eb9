"""HTTP/1.1 to CMS: keep-alive connections on a stack, answers parsed in C, nothing between the bytes and their meaning.

A general client's layers (its pool, which looks at every connection for every request; its request, response and header
objects; redirects, cookies, proxies, none of which we want) cost more than the exchange itself, and a deadline day has
400 polls a second. A POST always gets a new connection, so that a keep-alive connection that CMS has just dropped never
makes a submission uncertain. Redirects are not followed.
"""

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httptools
import httpx2

from server.clock import machine_now
from server.cms.policy import longest_retry_after

MAX_ANSWER_BYTES = 5 * 1024 * 1024
MAX_HEAD_BYTES = 64 * 1024
IDLE_SECONDS, IDLE_CONNECTIONS = 60.0, 128
LAST_LOOK_SECONDS = 0.1  # of the deadline; a tenth of it if that is less
TOO_LONG, CUT_OFF, TOO_LATE = "too long", "cut off", "too late to send"
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """CMS answered. `fault`: why there is no `body`, if so."""

    status: int
    headers: Headers
    body: bytes
    fault: str = ""

    def retry_after(self, now: datetime) -> float | None:
        """CMS's wish in seconds, if it has a readable one."""
        return longest_retry_after(self.values("Retry-After"), now)

    def values(self, name: str) -> list[str]:
        """Of a header, in whatever case it was written, each time that it was sent."""
        wanted = name.lower().encode("ascii")
        return [_text(value) for given, value in self.headers if given.lower() == wanted]


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No status came back. `sent` says whether bytes of the request may have arrived."""

    sent: bool
    reason: str  # the kind of failure, no address


class CmsTransport:
    """For one origin: scheme, host and port."""

    def __init__(self, origin: str, tls: ssl.SSLContext) -> None:
        url = httpx2.URL(origin)
        secure = url.scheme == "https"
        self._address = (url.host, url.port or (443 if secure else 80))
        self._tls = tls if secure else None
        self._host = url.netloc.decode("ascii")
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()

    async def exchange(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        seconds: float,
        not_after: datetime | None = None,
    ) -> Answer | NoAnswer:
        """One request and its answer, all of it within so many seconds. Once the head is here the status counts.

        It is not begun later than `not_after` on the machine's clock: that is looked at when the connection stands,
        right before the bytes go to the socket, with no wait between the two.
        """
        end = asyncio.get_running_loop().time() + seconds
        request = _request(method, target, {"Host": self._host, **headers}, body)
        if request is None:
            return NoAnswer(False, "a line break in the request")
        connection = self._kept() if method == "GET" else None
        if connection is None:
            try:
                connection = await self._connect(min(10.0, seconds / 2))
            except OSError as failure:  # a TimeoutError and what TLS finds wrong are such, too
                return NoAnswer(False, type(failure).__name__)
        if not_after is not None and machine_now() > not_after:
            connection.end()
            return NoAnswer(False, TOO_LATE)
        return await connection.ask(request, end, min(LAST_LOOK_SECONDS, seconds / 10))

    async def aclose(self) -> None:
        """Ends all connections."""
        for connection in list(self._all):
            connection.end()
        await asyncio.sleep(0)

    def _kept(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.end()
        return None

    async def _connect(self, seconds: float) -> "_Connection":
        async with asyncio.timeout(seconds):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self), *self._address, ssl=self._tls
            )
        return connection

    def opened(self, connection: "_Connection") -> None:
        """Called by a connection."""
        self._all.add(connection)

    def closed(self, connection: "_Connection") -> None:
        """Called by a connection that has ended."""
        self._all.discard(connection)

    def free(self, connection: "_Connection") -> None:
        """Called by a connection whose answer was read to its end."""
        if len(self._idle) < IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.end()


def _request(method: str, target: str, headers: dict[str, str], body: bytes | None) -> bytes | None:
    """The request's bytes; None if a line break would make another request of it."""
    if body is not None:
        headers["Content-Length"] = str(len(body))
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()]]
    head = "\r\n".join(lines)
    if head.count("\r") != len(headers) or head.count("\n") != len(headers):
        return None
    return head.encode("ascii") + b"\r\n\r\n" + (body or b"")


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


class _Connection(asyncio.Protocol):
    """One connection; at most one request at a time."""

    def __init__(self, owner: CmsTransport) -> None:
        self._owner = owner
        self._asked: _Asked | None = None
        self._lost = False
        self._since = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's."""
        self._transport: Any = transport
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        """Asyncio's."""
        if self._asked is None:
            self.end()  # nobody asked
        else:
            self._asked.feed(data)

    def connection_lost(self, _: Exception | None) -> None:
        """Asyncio's."""
        self._lost = True
        self._owner.closed(self)
        if self._asked is not None:
            self._asked.lost()

    def usable(self) -> bool:
        """Whether another request may be sent."""
        young = time.monotonic() - self._since < IDLE_SECONDS
        return young and not self._lost and not self._transport.is_closing()

    def end(self) -> None:
        """Drops the connection at once."""
        self._transport.abort()

    async def ask(self, request: bytes, end: float, last_look: float) -> Answer | NoAnswer:
        """Sends a request, waits for its answer until `end` on the loop's clock."""
        if self._lost:
            return NoAnswer(False, "the connection was lost at once")
        self._asked = asked = _Asked(end, last_look)
        self._transport.write(request)
        try:
            return await asked.answer
        finally:
            asked.timer.cancel()
            self._asked, self._since = None, time.monotonic()
            if asked.again and not self._lost:
                self._owner.free(self)
            else:
                self.end()


class _Asked:
    """One answer as it comes in: what the parser and the connection call.

    When the time is over it looks once more a moment later: a process that was stopped finds the deadline past and the
    answer in the socket at the same instant, and the answer is what counts.
    """

    def __init__(self, end: float, last_look: float) -> None:
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Answer | NoAnswer] = loop.create_future()
        self.timer = loop.call_at(end - last_look, self._over, loop, last_look)
        self.again = False  # whether the connection serves again
        self._parser = httptools.HttpResponseParser(self)
        self._begun = self._ended = False
        self._size = 0  # of the head, then of the body
        self._chunks: list[bytes] = []
        self._status = 0
        self._headers: Headers = []

    # Called by the connection and the clock:

    def feed(self, data: bytes) -> None:
        """Bytes from the socket."""
        if not self._begun:
            self._size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._cut("not HTTP")
        if not self._begun and self._size > MAX_HEAD_BYTES:
            self._cut("the head of the answer is too long")

    def lost(self) -> None:
        """The connection ended: that is the end of an answer that has no length, and the loss of any other."""
        if self._begun and not {name.lower() for name, _ in self._headers} & {b"content-length", b"transfer-encoding"}:
            self._tell(Answer(self._status, self._headers, b"".join(self._chunks)))
        else:
            self._cut("the connection was lost")

    def _over(self, loop: asyncio.AbstractEventLoop, last_look: float) -> None:
        self.timer = loop.call_later(last_look, self._cut, "no answer in time")

    def _cut(self, reason: str) -> None:
        """No more will come."""
        self.again = False
        self._tell(Answer(self._status, self._headers, b"", CUT_OFF) if self._begun else NoAnswer(True, reason))

    def _tell(self, answer: Answer | NoAnswer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    # Called by the parser:

    def on_message_begin(self) -> None:
        """Of an interim answer, the answer, or one that nobody asked for."""
        self.again = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field."""
        if not self._ended:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is here; that of an interim answer (1xx) is dropped."""
        if self._ended:
            return
        self._status = self._parser.get_status_code()
        self._begun = self._status >= 200
        if self._begun:
            self._size = 0
        else:
            self._headers = []

    def on_body(self, body: bytes) -> None:
        """A piece of the body, its chunking undone."""
        self._size += len(body)
        if self._size <= MAX_ANSWER_BYTES:
            self._chunks.append(body)
        else:
            self._tell(Answer(self._status, self._headers, b"", TOO_LONG))

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._begun and not self._ended:
            self._ended, self.again = True, self._parser.should_keep_alive()
            self._tell(Answer(self._status, self._headers, b"".join(self._chunks)))
