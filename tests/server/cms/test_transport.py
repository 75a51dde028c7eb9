"""The bytes between us and CMS: what the transport makes of answers that other clients stumble over."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop

from server.clock import machine_now
from server.cms.transport import CUT_OFF, MAX_ANSWER_BYTES, TOO_LATE, TOO_LONG, Answer, CmsTransport, NoAnswer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.asynccontextmanager
async def peer(answer: bytes, *, close: bool = False) -> AsyncIterator[tuple[CmsTransport, list[bytes]]]:
    """A listener that answers each piece that comes with the same bytes; the transport to it and what it saw."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(b"")
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                seen[-1] += data
                writer.write(answer)
                if close:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    transport = CmsTransport(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", ssl.create_default_context())
    try:
        yield transport, seen
    finally:
        await transport.aclose()
        server.close()
        await asyncio.sleep(0)


async def test_the_bytes_of_a_request() -> None:
    """Host first, then what was given, the length of a body; the body as it is."""
    async with peer(OK) as (transport, seen):
        await transport.exchange("POST", "/a?b=c", {"Accept": "application/json"}, b"{}", seconds=5)
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /a?b=c HTTP/1.1"
    assert lines[1].startswith(b"Host: 127.0.0.1:")
    assert lines[2:] == [b"Accept: application/json", b"Content-Length: 2"]
    assert body == b"{}"


async def test_polls_share_a_connection_and_a_post_has_its_own() -> None:
    """A kept connection that CMS has just dropped must never make a submission uncertain."""
    async with peer(OK) as (transport, seen):
        for method in ("GET", "GET", "POST", "GET", "POST"):
            answer = await transport.exchange(method, "/", {}, seconds=5)
            assert answer == Answer(200, [(b"Content-Length", b"2")], b"ok")
    assert [piece.count(b"HTTP/1.1") for piece in seen] == [2, 2, 1]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n" + OK, Answer(200, [(b"Content-Length", b"2")], b"ok")),
        (OK + OK.replace(b"200", b"500"), Answer(200, [(b"Content-Length", b"2")], b"ok")),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", Answer(200, [], b"to the end")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Answer(200, [(b"Transfer-Encoding", b"chunked")], b"ok"),
        ),
        (b"HTTP/1.1 202 A\r\nContent-Length: 5\r\n\r\nok", Answer(202, [(b"Content-Length", b"5")], b"", CUT_OFF)),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz",
            Answer(200, [(b"Transfer-Encoding", b"chunked")], b"", CUT_OFF),
        ),
        (b"SSH-2.0-OpenSSH\r\n", NoAnswer(True, "not HTTP")),
        (b"", NoAnswer(True, "the connection was lost")),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000, NoAnswer(True, "the head of the answer is too long")),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"a" * (MAX_ANSWER_BYTES + 1),
            Answer(200, [(b"Content-Length", b"9999999")], b"", TOO_LONG),
        ),
    ],
    ids=["interim", "two at once", "no length", "chunks", "cut", "bad chunk", "not HTTP", "nothing", "head", "body"],
)
async def test_what_becomes_of_an_answer(answer: bytes, expected: Answer | NoAnswer) -> None:
    """Once the head is here the status counts; a body is whole or not there."""
    async with peer(answer, close=True) as (transport, _):
        assert await transport.exchange("GET", "/", {}, seconds=5) == expected


async def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    """The next request gets another one, and its own answer."""
    async with peer(OK + OK) as (transport, seen):
        for _ in range(2):
            answer = await transport.exchange("GET", "/", {}, seconds=5)
            assert isinstance(answer, Answer)
    assert len(seen) == 2


async def test_nothing_is_sent_too_late() -> None:
    """The connection stands, but the lease is over: no byte leaves."""
    async with peer(OK) as (transport, seen):
        assert await transport.exchange("POST", "/", {}, b"", seconds=5, not_after=machine_now()) == NoAnswer(
            False, TOO_LATE
        )
    assert b"".join(seen) == b""


async def test_a_line_break_makes_no_second_request() -> None:
    """In a target or a header: nothing is sent."""
    async with peer(OK) as (transport, seen):
        for target, value in (("/a\r\nX: y", "v"), ("/", "v\nX: y"), ("/", "v\r")):
            answer = await transport.exchange("GET", target, {"A": value}, seconds=5)
            assert isinstance(answer, NoAnswer)
            assert not answer.sent
    assert seen == []


async def test_a_header_is_found_in_any_case_and_each_time() -> None:
    """As CMS may write it; what is not UTF-8 is Latin-1."""
    head = b"HTTP/1.1 202 Accepted\r\nretry-after: 5\r\nRetry-After: 7\r\nX: \xe9\r\nContent-Length: 0\r\n\r\n"
    async with peer(head) as (transport, _):
        answer = await transport.exchange("GET", "/", {}, seconds=5)
    assert isinstance(answer, Answer)
    assert (answer.values("RETRY-AFTER"), answer.values("x")) == (["5", "7"], ["é"])
    assert answer.retry_after(machine_now()) == 7.0


async def test_the_deadline_ends_what_never_ends() -> None:
    """A head that does not come, and a body that does not."""
    async with peer(b"HTTP/1.1 202 Acc") as (transport, _):
        assert await transport.exchange("GET", "/", {}, seconds=0.2) == NoAnswer(True, "no answer in time")
    async with peer(b"HTTP/1.1 202 Accepted\r\nContent-Length: 9\r\n\r\n") as (transport, _):
        answer = await transport.exchange("GET", "/", {}, seconds=0.2)
    assert (answer.status, answer.fault) == (202, CUT_OFF)  # type: ignore[union-attr]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_an_answer_that_came_while_the_process_was_stopped_counts(run: Callable[[Awaitable[None]], None]) -> None:
    """The process goes on after the deadline; the answer, a status URL perhaps, has been in the socket for long."""

    async def stopped() -> None:
        async with peer(OK) as (transport, seen):
            asked = asyncio.create_task(transport.exchange("POST", "/", {}, b"{}", seconds=0.5))
            while not seen or not seen[0]:
                await asyncio.sleep(0)
            time.sleep(0.7)
            answer = await asked
        assert isinstance(answer, Answer)

    run(stopped())
