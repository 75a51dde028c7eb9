"""What a person has to look at. Made here only, so that the same matter is never opened twice."""

from dataclasses import replace
from datetime import datetime

from server.context import Context, new_id
from server.domain.coordination import WorkItem
from server.store.base import Where


async def work_item(
    context: Context,
    *,
    participant_id: str,
    kind: str,
    subject: str,
    text: str,
    patient_id: str | None = None,
    due_on: str | None = None,
) -> tuple[WorkItem, ...]:
    """The new item to insert, or nothing if one about the same kind and subject is open. `text` holds no PHI."""
    open_key = f"{participant_id}|{kind}|{subject}"
    if await context.store.find(WorkItem, Where("open_key", "==", open_key), limit=1):
        return ()
    item = WorkItem(
        participant_id=participant_id,
        id=new_id(),
        kind=kind,
        subject=subject,
        text=text,
        opened_at=context.clock.now(),
        open_key=open_key,
        patient_id=patient_id,
        due_on=due_on,
    )
    return (item,)


async def closed(
    context: Context, *, participant_id: str, kind: str, subject: str, at: datetime
) -> tuple[WorkItem, ...]:
    """The open item about that kind and subject as it reads when closed, to replace; nothing if none is open."""
    found = await context.store.find(WorkItem, Where("open_key", "==", f"{participant_id}|{kind}|{subject}"), limit=1)
    return tuple(replace(item, open_key=None, closed_at=at) for item in found)
