"""CMS's e-mails: the only way in which CMS tells of events. They arrive in a maildir and are stored before being read.

Source: ACCESS API IG 0.9.12, notifications: each names event type, submission id, participant id, deadline and the
action wanted, and holds no health data. The layout is not fixed there, so the words are looked for, not counted on.
"""

import asyncio
import email
import email.policy
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

from profiles.canonical import ACCESS_CODES, ACCESS_VALUES
from profiles.issue import Issue, error
from profiles.valuesets import contains
from server.audit import record
from server.context import Context, new_id
from server.domain.care_period import CarePeriod
from server.domain.coordination import CmsNotification
from server.domain.job import Job, JobKind, NewJob
from server.domain.received import Door, Received, ReceivedState
from server.intake.accept import Arrival, quarantine, receive
from server.store.base import Changeset, Where
from server.work_items import work_item

AT_ONCE = 50
SUBMISSION = re.compile(r"submission[ _-]*id\W{1,5}([A-Za-z0-9][A-Za-z0-9._-]{2,63})", re.IGNORECASE)
DEADLINE = re.compile(r"deadline\W{1,5}(\d{4}-\d{2}-\d{2})", re.IGNORECASE)
WORD = re.compile(r"(?<![\w-])[a-z]+(?:-[a-z]+)*(?![\w-])")
# Events that CMS has been seen to write in another way. Source: IG 0.9.12, notifications page against code system.
ALIASES = {"provider-lock-ending": "participant-lock-ending"}


@dataclass(frozen=True, slots=True)
class Notice:
    """What an e-mail of CMS says."""

    event: str
    cms_submission_id: str
    deadline: str | None


async def read_mailbox(job: Job, context: Context) -> Changeset:
    """Takes in what is new in the participant's maildir; due again after `mailbox_seconds`."""
    participant = context.settings.participants.get(job.participant_id)
    if participant is None or participant.mailbox is None:
        return Changeset()
    for path in await asyncio.to_thread(_new_mail, participant.mailbox):
        body = await asyncio.to_thread(path.read_bytes)
        await take(Arrival(job.participant_id, Door.EMAIL, "cms", "message/rfc822", body), context)
        await asyncio.to_thread(_done, path)
    again = context.clock.now() + timedelta(seconds=context.settings.mailbox_seconds)
    return Changeset(jobs=(NewJob(participant_id=job.participant_id, kind=JobKind.MAILBOX, key=job.key, due_at=again),))


def _new_mail(mailbox: Path) -> list[Path]:
    folder = mailbox / "new"
    return sorted(folder.iterdir())[:AT_ONCE] if folder.is_dir() else []


def _done(path: Path) -> None:
    """Moves the file to `cur`, marked as seen: it is in the store by now."""
    folder = path.parent.parent / "cur"
    folder.mkdir(exist_ok=True)
    path.rename(folder / f"{path.name}:2,S")


async def take(arrival: Arrival, context: Context) -> None:
    """One e-mail: stored, read, matched to an alignment."""
    received = await receive(arrival, context)
    if received.state is ReceivedState.RECEIVED:
        await read(received, context)


async def read(received: Received, context: Context) -> None:
    """Reads a stored e-mail; also what a worker does with one that a crash left unread."""
    notice = understood(received.body)
    if isinstance(notice, Issue):
        await quarantine(received, [notice], 422, b"", context)
        return
    await context.store.commit(await _noted(received, notice, context))


def understood(body: bytes) -> Notice | Issue:
    """What the e-mail says, or why it can not be told."""
    message = email.message_from_bytes(body, policy=email.policy.default)
    text = _text(message)
    events = [ALIASES.get(word, word) for word in WORD.findall(text) if _is_event(ALIASES.get(word, word))]
    submission = SUBMISSION.search(text)
    if not events or submission is None:
        return error(
            "value", "email.body", "No event type or no submission id was found: read the e-mail and act on it."
        )
    deadline = DEADLINE.search(text)
    return Notice(events[0], submission[1].rstrip("."), deadline[1] if deadline else None)


def _is_event(word: str) -> bool:
    return bool(contains(ACCESS_VALUES("ACCESSEventTypeVS"), ACCESS_CODES("ACCESSEventTypeCS"), word))


def _text(message: EmailMessage) -> str:
    part = message.get_body(preferencelist=("plain", "html"))
    try:
        content = part.get_content() if part is not None else ""
    except (LookupError, ValueError):  # a character set nobody knows
        content = ""
    return f"{message.get('Subject', '')}\n{content if isinstance(content, str) else ''}"


async def _noted(received: Received, notice: Notice, context: Context) -> Changeset:
    now = context.clock.now()
    conditions = (Where("participant_id", "==", received.participant_id),)
    periods = [
        period
        for period in await context.store.find(CarePeriod, *conditions)
        if period.cms_submission_id == notice.cms_submission_id
    ]
    row = CmsNotification(
        participant_id=received.participant_id,
        id=new_id(),
        received_id=received.id,
        at=now,
        event=notice.event,
        cms_submission_id=notice.cms_submission_id,
        deadline=notice.deadline,
        care_period_id=periods[0].id if periods else None,
    )
    entry = record(
        participant_id=received.participant_id,
        at=now,
        agent="cms",
        action="C",
        subtype=f"email {notice.event}",
        entity=f"cms_notification/{row.id}",
        patient_id=periods[0].patient_id if periods else None,
    )
    done = replace(received, state=ReceivedState.ACCEPTED, patient_id=entry.patient_id)
    jobs = tuple(
        NewJob(participant_id=received.participant_id, kind=JobKind.ASSESS, key=period.id, due_at=now)
        for period in periods
    )
    told = await _told(row, bool(periods), context)
    return Changeset(insert=(row,), replace=(done,), jobs=jobs, audit=(entry,)) + told


async def _told(row: CmsNotification, matched: bool, context: Context) -> Changeset:
    """Someone has to know of an unalignment, and of an e-mail about an alignment that we do not have."""
    if matched and row.event != "unalignment":
        return Changeset()
    text = (
        "CMS has told by e-mail that the patient was unaligned. Check why, send what is still owed, close the care."
        if matched
        else f"CMS sent an e-mail ({row.event}) about an alignment unknown here. Find it in CMS's alignment report."
    )
    items = await work_item(
        context, participant_id=row.participant_id, kind="mail", subject=f"cms_notification/{row.id}", text=text
    )
    return Changeset(insert=items)
