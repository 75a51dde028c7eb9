"""A load generator on raw asyncio protocols: prebuilt requests over keep-alive connections, latencies kept."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class Load:
    """What came of one run: answers a second, latencies in seconds, statuses."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """A latency in milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the answer to the one before is whole."""

    def __init__(self, requests: Iterator[bytes], load: Load, until: float, done: asyncio.Future[None]) -> None:
        self.requests, self.load, self.until, self.done = requests, load, until, done
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._next()

    def _next(self) -> None:
        if time.perf_counter() > self.until:
            self.transport.close()
            return
        self.sent = time.perf_counter()
        self.transport.write(next(self.requests))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.buffer) < end + 4 + length:
            return
        self.buffer = self.buffer[end + 4 + length :]
        self.load.latencies.append(time.perf_counter() - self.sent)
        status = int(head[9:12])
        self.load.statuses[status] = self.load.statuses.get(status, 0) + 1
        self._next()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def run(port: int, make: Callable[[int], Iterator[bytes]], *, connections: int, seconds: float) -> Load:
    """Loads 127.0.0.1:port for some seconds; `make(n)` gives the requests of connection n."""
    loop = asyncio.get_running_loop()
    load, until = Load(), time.perf_counter() + seconds
    ends = []
    started = time.perf_counter()
    for number in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        ends.append(done)
        requests = make(number)
        await loop.create_connection(lambda r=requests, d=done: _Connection(r, load, until, d), "127.0.0.1", port)
    await asyncio.gather(*ends)
    load.seconds = time.perf_counter() - started
    return load
