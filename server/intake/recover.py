"""Finds messages that a crash left unread, and reads them. Also what a person uses to have a message read again."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from server.context import Context
from server.domain.job import Job, JobKind, NewJob
from server.domain.received import Door, Received, ReceivedState
from server.intake import bundle, cda, email, hl7v2
from server.store.base import Changeset, Where

EVERY = timedelta(seconds=60)
OLD = timedelta(seconds=60)  # a door that is still at work with it is done by then
AT_ONCE = 200

# How a stored message of each door is read. The others answer while the caller waits: a caller that got no answer
# asks again, so its half-done request is set aside, not acted on behind its back.
READERS: dict[Door, Callable[[Received, Context], Awaitable[object]]] = {
    Door.HL7V2: hl7v2.read,
    Door.MLLP: hl7v2.read,
    Door.CDA: cda.read,
    Door.BUNDLE: bundle.read,
    Door.EMAIL: email.read,
}


async def recover(job: Job, context: Context) -> Changeset:
    """Enqueues a MAP job for each message that has been waiting for too long; due again after a minute."""
    now = context.clock.now()
    rows = await context.store.find(
        Received,
        Where("state", "==", ReceivedState.RECEIVED),
        Where("received_at", "<", now - OLD),
        order_by="received_at",
        limit=AT_ONCE,
    )
    jobs = [NewJob(participant_id=row.participant_id, kind=JobKind.MAP, key=row.id, due_at=now) for row in rows]
    jobs.append(NewJob(participant_id=job.participant_id, kind=JobKind.RECOVER, key=job.key, due_at=now + EVERY))
    return Changeset(jobs=tuple(jobs))


async def map_received(job: Job, context: Context) -> Changeset:
    """Reads one stored message."""
    received = await context.store.get(Received, participant_id=job.participant_id, id=job.key)
    if received is None or received.state is ReceivedState.ACCEPTED:
        return Changeset()
    reader = READERS.get(received.door)
    if reader is not None:
        await reader(received, context)
        return Changeset()
    return Changeset(replace=(replace(received, state=ReceivedState.QUARANTINED),))
