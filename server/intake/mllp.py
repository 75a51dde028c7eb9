"""The MLLP listener: HL7 v2 over TCP or TLS, framed by 0x0B and 0x1C 0x0D.

One message at a time on a connection, as in original mode; many connections at once. Nothing is acknowledged that is
not on disk. When the store can not take a message, the connection is closed without an answer: the sender keeps it.
Source: HL7 Transport Specification, MLLP Release 1.
"""

import asyncio
import contextlib
import resource

from mappers.hl7v2 import acknowledgement_wanted
from server.context import Context
from server.domain.errors import Temporary
from server.domain.received import Door
from server.intake.accept import Arrival
from server.intake.hl7v2 import messages, take
from server.intake.mllp_tls import tls_context
from server.logs import get_logger
from server.settings import LOOPBACK, Mllp

START = b"\x0b"
END = b"\x1c\x0d"
CONTENT_TYPE = "x-application/hl7-v2+er7"
HANDSHAKE_SECONDS = 10.0  # for TLS, before a frame may come
GOODBYE_SECONDS = 5.0  # for the peer to confirm that the TLS connection ends
GRACE_SECONDS = 10.0  # for messages at work when the listener closes
OTHER_FILES = 256  # what the process has open beside the connections: store, CMS, logs
BACKLOG = 1024  # connections the kernel holds while the loop is busy: all senders come back at once after a restart

log = get_logger()


async def listen(context: Context, mllp: Mllp, *, host: str | None = None, port: int | None = None) -> "Listener":
    """Starts listening. Raises BadConfiguration for unusable TLS files, OSError for a port that is taken."""
    listener = Listener(context, mllp)
    await listener.start(host or mllp.host, mllp.port if port is None else port)
    return listener


class Listener:
    """Takes connections until it is closed: idle ones then end at once, those at work when they are answered."""

    def __init__(self, context: Context, mllp: Mllp) -> None:
        self._context = context
        self._mllp = mllp
        self._idle: set[asyncio.StreamWriter] = set()  # those that wait for a frame
        self._tasks: set[asyncio.Task[None]] = set()  # one for each connection
        self._server: asyncio.Server | None = None
        self._closing = False

    async def start(self, host: str, port: int) -> None:
        """Binds the port; see `listen`."""
        tls = tls_context(self._mllp)
        if tls is None and host not in LOOPBACK:
            log.warning("mllp without tls", door="mllp", host=host, port=port)
        _allow_files(self._mllp.max_connections + OTHER_FILES)
        self._server = await asyncio.start_server(
            self._connected,
            host,
            port,
            limit=self._mllp.max_bytes,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None,
            ssl_shutdown_timeout=GOODBYE_SECONDS if tls else None,
        )

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self._listening.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._tasks)

    @property
    def _listening(self) -> asyncio.Server:
        if self._server is None:
            raise RuntimeError("the listener was not started")
        return self._server

    async def serve_forever(self) -> None:
        """Runs until cancelled."""
        await self._listening.serve_forever()

    def close(self) -> None:
        """Takes no more connections and frames."""
        self._closing = True
        self._listening.close()
        for writer in self._idle:
            writer.close()

    async def wait_closed(self) -> None:
        """Until each connection has ended: what is not answered in time is cut off, and its sender sends it again."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=GRACE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._closing or len(self._tasks) >= self._mllp.max_connections:
            log.warning("connection refused", door="mllp", count=len(self._tasks))
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Frame by frame until the peer closes, falls silent, sends what is no frame, or takes no answers."""
        while not self._closing:
            try:
                frame = await self._frame(reader, writer)
                if not await self._answered(frame, writer):
                    return
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError) as end:
                if not isinstance(end, asyncio.IncompleteReadError) or end.partial:
                    log.info("connection ended", door="mllp", reason=type(end).__name__)
                return

    async def _frame(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """The next message. Noise between frames is skipped; so is a frame that a new start byte breaks off."""
        self._idle.add(writer)
        try:
            async with asyncio.timeout(self._mllp.idle_seconds):
                await reader.readuntil(START)
            async with asyncio.timeout(self._mllp.frame_seconds):
                framed = await reader.readuntil(END)
        finally:
            self._idle.discard(writer)
        return framed[: -len(END)].rpartition(START)[2]

    async def _answered(self, frame: bytes, writer: asyncio.StreamWriter) -> bool:
        """Takes the frame's message (or batch) and sends the answers; False if it could not be taken."""
        for message in messages(frame):
            arrival = Arrival(self._mllp.participant, Door.MLLP, self._mllp.client_id, CONTENT_TYPE, message)
            try:
                done = await take(arrival, self._context)
            except Temporary as failure:
                log.warning("message not taken", door="mllp", error=type(failure).__name__)
                return False
            except Exception as failure:  # the edge: the raw bytes are stored; silence must not be taken for an AA
                log.error("message failed", door="mllp", exc_info=failure)
                return False
            if acknowledgement_wanted(message, done.code):
                writer.write(START + done.ack + END)
                if writer.transport.get_write_buffer_size():  # else the kernel has it already
                    async with asyncio.timeout(self._mllp.frame_seconds):
                        await writer.drain()
        return True


def _allow_files(count: int) -> None:
    """Asks the system for as many open files as the connections need; says so if it does not give them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        count = min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
