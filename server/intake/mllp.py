"""The MLLP listener: HL7 v2 over TCP, framed by 0x0B and 0x1C 0x0D. Source: HL7 v2 Transport Specification, MLLP R1.

One message at a time on a connection, as in original mode; many connections at once. Nothing is acknowledged that is
not on disk. When the store can not take a message, the connection is closed without an answer: the sender keeps it.
"""

import asyncio
import contextlib

from mappers.hl7v2 import acknowledgement_wanted
from server.context import Context
from server.domain.errors import Temporary
from server.domain.received import Door
from server.intake.accept import Arrival
from server.intake.hl7v2 import take
from server.logs import get_logger
from server.settings import Mllp

START = b"\x0b"
END = b"\x1c\x0d"
CONTENT_TYPE = "x-application/hl7-v2+er7"

log = get_logger()


async def listen(context: Context, mllp: Mllp, *, host: str | None = None, port: int | None = None) -> asyncio.Server:
    """Starts listening; close the server to stop."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _serve(reader, writer, context, mllp)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    return await asyncio.start_server(
        connected, host or mllp.host, mllp.port if port is None else port, limit=mllp.max_bytes
    )


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: Context, mllp: Mllp) -> None:
    """Frame by frame until the peer closes, falls silent, or sends what is no frame."""
    while True:
        frame = await _frame(reader, mllp)
        if frame is None:
            return
        arrival = Arrival(mllp.participant, Door.MLLP, mllp.client_id, CONTENT_TYPE, frame)
        try:
            done = await take(arrival, context)
        except Temporary as failure:
            log.warning("message not taken", door="mllp", error=type(failure).__name__)
            return
        except Exception as failure:  # the edge: the raw bytes are stored, the sender must not take silence for an AA
            log.error("message failed", door="mllp", exc_info=failure)
            return
        if acknowledgement_wanted(frame, done.code):
            writer.write(START + done.ack + END)
            await writer.drain()


async def _frame(reader: asyncio.StreamReader, mllp: Mllp) -> bytes | None:
    """The next message, or None when there will be none. Noise between frames is skipped."""
    try:
        async with asyncio.timeout(mllp.idle_seconds):
            await reader.readuntil(START)
            framed = await reader.readuntil(END)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ConnectionError) as end:
        if not isinstance(end, asyncio.IncompleteReadError) or end.partial:
            log.info("connection ended", door="mllp", reason=type(end).__name__)
        return None
    return framed[: -len(END)]
