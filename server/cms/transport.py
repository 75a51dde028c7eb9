"""HTTP/1.1 to CMS below the pooled client: keep-alive connections on a stack, parsed in C.

The client's own pool looks at every connection for every request, some 10 microseconds each: with 100 of them one poll
costs a millisecond, and a deadline day has 400 polls a second. A POST always gets a new connection, so that a
keep-alive connection that CMS has just dropped never makes a submission uncertain.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httptools
import httpx2

from server.clock import machine_now

MAX_HEAD_BYTES = 64 * 1024
BUFFER_BYTES = 256 * 1024  # unread answer, after which the connection is not read further
IDLE_SECONDS, IDLE_CONNECTIONS = 60.0, 128


class TooLate(httpx2.ConnectTimeout):
    """The request's `not_after` had passed before its first byte: nothing was sent."""


class CmsTransport(httpx2.AsyncBaseTransport):
    """For one origin. Raises httpx2's exceptions; ConnectError and ConnectTimeout mean that nothing was sent.

    A request with the extension `not_after` (a datetime on the machine's clock) is not begun later than that: it is
    looked at after the connection stands, right before the bytes go to the socket, with no wait between the two.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request; the answer is handed over when its head is here."""
        content = _request(request, await request.aread())
        kept = self._kept() if request.method == "GET" else None
        connection = kept or await self._connect(request)
        not_after: datetime | None = request.extensions.get("not_after")
        if not_after is not None and machine_now() > not_after:
            connection.end()
            raise TooLate("too late to send", request=request)
        return await connection.ask(content)

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

    async def _connect(self, request: httpx2.Request) -> "_Connection":
        url = request.url
        secure = url.scheme == "https"
        port = url.port or (443 if secure else 80)
        seconds = request.extensions.get("timeout", {}).get("connect")
        try:
            async with asyncio.timeout(seconds):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self), url.host, port, ssl=self._tls if secure else None
                )
        except TimeoutError as late:
            raise httpx2.ConnectTimeout("no connection in time", request=request) from late
        except OSError as refused:
            raise httpx2.ConnectError(type(refused).__name__, request=request) from refused
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


def _request(request: httpx2.Request, body: bytes) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [name + b": " + value for name, value in request.headers.raw]
    if any(b"\r" in line or b"\n" in line for line in lines):
        raise httpx2.LocalProtocolError("a header may not hold a line break", request=request)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class _Connection(asyncio.Protocol):
    """One connection; at most one request at a time."""

    def __init__(self, owner: CmsTransport) -> None:
        self._owner = owner
        self._answer: _Answer | None = None
        self._lost = False
        self._since = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's."""
        self._transport: Any = transport
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        """Asyncio's."""
        if self._answer is None:
            self.end()  # nobody asked
        else:
            self._answer.feed(data)

    def connection_lost(self, _: Exception | None) -> None:
        """Asyncio's."""
        self._lost = True
        self._owner.closed(self)
        if self._answer is not None:
            self._answer.cut()

    def usable(self) -> bool:
        """Whether another request may be sent."""
        young = time.monotonic() - self._since < IDLE_SECONDS
        return young and not self._lost and not self._transport.is_closing()

    def end(self) -> None:
        """Drops the connection at once."""
        self._transport.abort()

    def pause(self, *, reading: bool) -> None:
        """Stops or goes on reading from the socket."""
        if not self._lost:
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    async def ask(self, content: bytes) -> httpx2.Response:
        """Sends a request; returns when the head of its answer is here."""
        self._answer = answer = _Answer(self)
        self._transport.write(content)
        try:
            await answer.head()
        except BaseException:
            self.end()
            raise
        return httpx2.Response(answer.status, headers=answer.headers, stream=answer)

    def done(self, *, again: bool) -> None:
        """The answer was read, or given up."""
        self._answer, self._since = None, time.monotonic()
        if again and not self._lost:
            self._owner.free(self)
        else:
            self.end()


class _Answer(httpx2.AsyncByteStream):
    """One answer as it comes in; what the parser calls, and the stream that the client reads."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._head_bytes = 0
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._error: httpx2.TransportError | None = None
        self._begun = self._ended = self._again = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []

    # Called by the connection:

    def feed(self, data: bytes) -> None:
        """Bytes from the socket."""
        if not self._begun:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(httpx2.RemoteProtocolError("not HTTP"))
        if not self._begun and self._head_bytes > MAX_HEAD_BYTES:
            self._fail(httpx2.RemoteProtocolError("the head of the answer is too long"))
        self._wake()

    def cut(self) -> None:
        """The connection ended: that is the end of an answer that has no length, and the loss of any other."""
        names = {name.lower() for name, _ in self.headers}
        if self._begun and not names & {b"content-length", b"transfer-encoding"}:
            self._ended = True
        self._fail(httpx2.ReadError("the connection was lost"))
        self._wake()

    # Called by the parser:

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field."""
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is here; that of an interim answer (1xx) is dropped."""
        self.status = self._parser.get_status_code()
        self._begun = self.status >= 200
        if not self._begun:
            self.headers = []

    def on_body(self, body: bytes) -> None:
        """A piece of the body, its chunking undone."""
        self._chunks.append(body)
        self._buffered += len(body)
        if self._buffered > BUFFER_BYTES and not self._paused:
            self._paused = True
            self._connection.pause(reading=False)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._ended = self._begun
        self._again = self._ended and self._parser.should_keep_alive()

    # Called by the client:

    async def head(self) -> None:
        """Until the head is here. Raises httpx2.TransportError."""
        while not self._begun:
            await self._more()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, as it comes."""
        while True:
            if self._chunks:
                chunk, self._chunks, self._buffered = b"".join(self._chunks), [], 0
                yield chunk
            elif self._ended:
                return
            else:
                await self._more()

    async def aclose(self) -> None:
        """The connection serves again if the answer was read to its end."""
        self._connection.done(again=self._again and self._error is None and not self._chunks)

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        if self._paused:
            self._paused = False
            self._connection.pause(reading=True)
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _fail(self, error: httpx2.TransportError) -> None:
        if not self._ended:
            self._error = self._error or error

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
