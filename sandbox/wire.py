"""From ASGI to the rules and back: reads a request, answers it in one transaction with its journal row, sends.

The transaction is on disk before the first byte of the answer leaves.
"""

import asyncio
import json
import os
import socket
import struct
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from sandbox import decide, faults, journal, operations, tables, tokens
from sandbox.exchange import Answer, Exchange, Refused, refusal
from sandbox.faults import Fault
from sandbox.world import World

TOKEN_PATH = "/oauth2/token"  # noqa: S105 - a path
TRANSPORT = "sandbox.transport"


def call_of(path: str) -> str:
    """Which call a path is: token, an operation, status, or unknown."""
    name = path.removeprefix(operations.PREFIX)
    if path == TOKEN_PATH:
        return "token"
    if name == path:
        return "unknown"
    if name.startswith(operations.STATUS):
        return "status"
    return name if name in tables.table("requests")["operations"] else "unknown"


def respond(world: World, call: str, exchange: Exchange) -> Answer:
    """The answer of the CMS that nothing goes wrong with."""
    try:
        if call == "token":
            return tokens.answer(world, exchange)
        if call == "status":
            return operations.status(world, exchange)
        if call == "unknown":
            raise refusal(404, "There is nothing at this address")
        return operations.submit(call, world, exchange)
    except Refused as refused:
        return refused.answer


def _faulty(world: World, call: str, exchange: Exchange, fault: Fault) -> Answer:
    return fault.instead(call) if fault.is_instead else fault.altered(respond(world, call, exchange))


class Door:
    """The ASGI application of everything that CMS itself has."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        call = call_of(scope["path"])
        if self._cut_short(call, scope):
            await _reset(scope, receive)
            return
        try:
            exchange = await _read(scope, receive)
        except ClientDisconnect:
            return
        if call == "token":
            await tokens.fetch_keys(self._world, exchange)
        fault, answer = self._process(call, exchange)
        if fault is not None and fault.kind != faults.SLOW_BYTES:
            await asyncio.sleep(fault.seconds)
        await _send(scope, receive, send, answer, fault)

    def _cut_short(self, call: str, scope: Scope) -> bool:
        """Whether the connection is to be reset before the request's body is read."""
        world = self._world
        with world.store.transaction():
            fault = faults.take(world, call, kind=faults.RESET_DURING)
            if fault is not None:
                journal.write(world, call, _exchange(scope, b""), fault.instead(call), fault.kind)
        return fault is not None

    def _process(self, call: str, exchange: Exchange) -> tuple[Fault | None, Answer]:
        world = self._world
        with world.store.transaction():
            decide.settle(world)
            fault = faults.take(world, call)
            answer = _faulty(world, call, exchange, fault) if fault else respond(world, call, exchange)
            journal.write(world, call, exchange, answer, fault.kind if fault else None)
        return fault, answer


async def _read(scope: Scope, receive: Receive) -> Exchange:
    body = bytearray()
    message: Message = {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect  # half a request is no request: nothing is journalled or taken
        body += message.get("body", b"")
    return _exchange(scope, bytes(body))


def _exchange(scope: Scope, body: bytes) -> Exchange:
    headers = Headers(scope=scope)
    query = scope["query_string"].decode("latin-1")
    return Exchange(
        method=scope["method"],
        path=scope["path"],
        query=dict(QueryParams(query)),
        headers={name.lower(): value for name, value in headers.items()},
        body=body,
        base=f"{scope['scheme']}://{headers.get('host', '')}",
        raw_path=scope.get("raw_path", scope["path"].encode()).decode("latin-1").split("?")[0],
        raw_query=query,
    )


async def _send(scope: Scope, receive: Receive, send: Send, answer: Answer, fault: Fault | None) -> None:
    if answer.status == 0:
        await _reset(scope, receive)
        return
    body, headers = _content(answer)
    kind = fault.kind if fault else None
    if fault is not None and kind == faults.DUPLICATE_HEADERS:
        headers += _doubled(headers, fault)
    if fault is not None and kind in (faults.TRUNCATE, faults.WRONG_LENGTH, faults.SLOW_BYTES):
        await _send_raw(scope, receive, _raw(answer.status, headers, body, fault.kind), fault)
        return
    if fault is not None and kind == faults.HUGE:
        await _send_huge(send, answer.status, headers, fault.size)
        return
    # 302 and 202 alike: an empty body is announced as such.
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


Fields = list[tuple[bytes, bytes]]


def _doubled(headers: Fields, fault: Fault) -> Fields:
    """The same again; another Content-Location if one is planned."""
    other = fault.location.encode("latin-1") if fault.location else None
    return [(name, other if other and name == b"content-location" else value) for name, value in headers]


def _raw(status: int, headers: Fields, body: bytes, kind: str) -> bytes:
    """The answer as bytes, with the lie that the fault tells about its length."""
    promised = len(body)
    if kind == faults.TRUNCATE:
        promised, body = len(body) or 64, body[: len(body) // 2]
    elif kind == faults.WRONG_LENGTH:
        promised, body = len(body) // 2, body or b" " * 64
    fields = [*headers, (b"content-length", str(promised).encode()), (b"connection", b"close")]
    lines = [f"HTTP/1.1 {status} Planned".encode(), *(name + b": " + value for name, value in fields)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def _send_raw(scope: Scope, receive: Receive, content: bytes, fault: Fault) -> None:
    """Writes past the server, which would not let it through, and ends the connection."""
    transport = _transport(scope)
    if fault.kind == faults.SLOW_BYTES:
        for at in range(len(content)):
            if transport.is_closing():
                break
            transport.write(content[at : at + 1])
            await asyncio.sleep(fault.seconds)
    else:
        transport.write(content)
    await _drop(scope, receive)


async def _send_huge(send: Send, status: int, headers: Fields, size: int) -> None:
    """Spaces, a MB at a time."""
    headers.append((b"content-length", str(size).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for at in range(0, size, 1_000_000):
        block = b" " * min(1_000_000, size - at)
        await send({"type": "http.response.body", "body": block, "more_body": at + len(block) < size})


def _content(answer: Answer) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    headers = dict(answer.headers)
    body = answer.body if isinstance(answer.body, bytes) else b""
    if answer.body is not None and not isinstance(answer.body, bytes):
        body = json.dumps(answer.body, separators=(",", ":")).encode()
        headers.setdefault("Content-Type", "application/json")
    return body, [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def transport_of(send: Send) -> asyncio.Transport | None:
    """The connection below an ASGI server's `send`: uvicorn's is a method of the object that holds it."""
    found: asyncio.Transport | None = getattr(getattr(send, "__self__", None), "transport", None)
    return found


async def _reset(scope: Scope, receive: Receive) -> None:
    """Ends the connection with a TCP reset."""
    transport = _transport(scope)
    number = transport.get_extra_info("socket").fileno()
    with socket.socket(fileno=os.dup(number)) as connection:  # uvloop's own socket object takes no options
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    await _gone(receive)


async def _drop(scope: Scope, receive: Receive) -> None:
    """Ends the connection after what was written."""
    _transport(scope).close()
    await _gone(receive)


def _transport(scope: Scope) -> Any:
    transport = scope.get("extensions", {}).get(TRANSPORT)
    if transport is None:  # called in process, without a server: the caller sees what a socket would show
        raise ConnectionResetError("planned fault")
    return transport


async def _gone(receive: Receive) -> None:
    """Until the server has noticed; else it would report a missing answer."""
    while (await receive())["type"] != "http.disconnect":
        pass
