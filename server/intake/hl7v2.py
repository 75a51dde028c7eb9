"""HL7 v2 messages, over HTTP or MLLP: stored, mapped, acknowledged. The ACK leaves only after the commit."""

import re
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from mappers import hl7v2
from mappers.conversion import Source
from server.context import Context
from server.domain.received import Door, Received
from server.intake.accept import Arrival, Plan, Reading, answered, process, receive
from server.intake.body import HL7V2_TYPES, media_type, read_body
from server.intake.resources import instant

# Events by which a sender tells us about a person: they may make a patient known by the sender's own numbers.
REGISTERING = re.compile(r"ADT")
BATCH_HEADERS = (b"FHS", b"BHS")
STATUS_OF_ACK = {"AA": 200, "CA": 200, "AE": 422, "CE": 422, "AR": 400, "CR": 400}


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One message's ACK, as bytes, and its code."""

    code: str
    ack: bytes


async def take(arrival: Arrival, context: Context) -> Acknowledged:
    """One message: stored, read, mapped, committed, acknowledged. A repeat gets the stored ACK again."""
    received = await receive(arrival, context)
    earlier = answered(received)
    status, ack = earlier if earlier is not None else await read(received, context)
    return Acknowledged(_code(ack), ack)


async def read(received: Received, context: Context) -> tuple[int, bytes]:
    """Reads a stored message; also what a worker does with one that a crash left unread."""
    source = Source(received.sha256, instant(received.received_at), _zone(received, context))
    conversion = hl7v2.convert(received.body, source, account=False)  # which nobody reads here
    reading = Reading(
        conversion,
        registers=bool(REGISTERING.match(conversion.meta.get("message_type", ""))),
        location="PID-3",
        control_key=conversion.control_id,
    )

    def acknowledge(plan: Plan) -> tuple[int, bytes]:
        ack = hl7v2.acknowledge(received.body, plan.issues, at=context.clock.now(), control_id=received.id[-20:])
        return STATUS_OF_ACK.get(_code(ack), 200), ack

    return await process(received, reading, acknowledge, context)


def _zone(received: Received, context: Context) -> str:
    return context.settings.participant(received.participant_id).time_zone


def _code(ack: bytes) -> str:
    """MSA-1 of an ACK of ours."""
    start = ack.find(b"\rMSA") + len("\rMSA|")
    return ack[start : start + 2].decode("ascii", "replace")


def messages(body: bytes) -> list[bytes]:
    """The messages of a batch, or the one message with its bytes as they came."""
    found = hl7v2.split(body)
    return found if len(found) > 1 or body.lstrip()[:3] in BATCH_HEADERS else [body]


async def door(request: Request) -> Response:
    """`POST /hl7v2`: one message or a batch; the ACKs, one after the other."""
    context: Context = request.app.state.context
    caller = request.state.caller
    caller.require("Observation", "c")
    body = await read_body(request, allowed=HL7V2_TYPES, limit=context.settings.max_body_bytes)
    acks = []
    for message in messages(body):
        arrival = Arrival(
            caller.participant_id,
            Door.HL7V2,
            caller.client_id,
            media_type(request),
            message,
            request.scope.get("state", {}).get("request_id"),
        )
        acks.append(await take(arrival, context))
    status = max(STATUS_OF_ACK.get(ack.code, 200) for ack in acks) if len(acks) == 1 else 200
    return Response(b"".join(ack.ack for ack in acks), status, media_type="application/hl7-v2")
