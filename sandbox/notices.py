"""The seven notices CMS sends by e-mail: when they fall due, and the mails that carry them.

They wait in the store until the SMTP server takes them. A mail names the event, the alignment's submission id, the
participant, the deadline and the action wanted; no personal or health data. Source: ACCESS API IG 0.9.12,
notifications page and ACCESSEventTypeCS; days in data/program.toml.
"""

import contextlib
from datetime import date, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from hashlib import sha256
from typing import Any

import aiosmtplib

from sandbox import tables
from sandbox.store import Row
from sandbox.world import World


def due(world: World, today: date) -> None:
    """Puts every notice into the outbox that is due and not there yet."""
    for notice in tables.program()["notice"]:
        for subject, since in _subjects(world, notice):
            days = _due_day(notice, subject["track"])
            deadline = since + timedelta(days=notice["deadline_day"])
            if days is not None and since + timedelta(days=days) <= today <= deadline:
                _queue(world, notice, subject, deadline)


def unalignment(world: World, alignment: Row, day: date) -> None:
    """Tells the participant that the patient was unaligned."""
    if not alignment["seeded"]:
        subject = {"submission_id": alignment["id"], "entity_id": alignment["entity_id"]}
        _queue(world, tables.program()["unalignment"], subject, day)


def _due_day(notice: dict[str, Any], track: str) -> int | None:
    days: int | dict[str, int] = notice["due_day"]
    return days if isinstance(days, int) else days.get(track)


def _subjects(world: World, notice: dict[str, Any]) -> list[tuple[dict[str, Any], date]]:
    """What the notice is about, with the day that its days count from."""
    if notice["from"] == "control":
        rows = world.store.all("SELECT * FROM control")
        return [(dict(row), date.fromisoformat(row["since"])) for row in rows]
    reports: dict[str, list[Row]] = {}
    for report in world.store.all("SELECT * FROM report ORDER BY received_on, rowid"):
        reports.setdefault(report["alignment_id"], []).append(report)
    current = world.store.all("SELECT *, id AS submission_id FROM alignment WHERE ended_on IS NULL AND seeded = 0")
    return [
        (dict(row), since)
        for row in current
        if (since := _since(notice, row, reports.get(row["id"], []))) is not None
        and notice.get("unless") not in {report["report_type"] for report in reports.get(row["id"], [])}
    ]


def _since(notice: dict[str, Any], alignment: Row, reports: list[Row]) -> date | None:
    """The alignment's day, or the last report's if its next quarter begins within the care period."""
    aligned_on = date.fromisoformat(alignment["aligned_on"])
    if notice["from"] == "alignment":
        return aligned_on
    last = date.fromisoformat(reports[-1]["received_on"]) if reports else None
    period = tables.program()["alignment"]["period_days"]
    in_period = last is not None and (last - aligned_on).days + notice["due_day"] <= period
    return last if in_period else None


def _queue(world: World, notice: dict[str, Any], subject: dict[str, Any], deadline: date) -> None:
    world.store.insert(
        "mail", event_key=f"{subject['submission_id']}/{notice['event']}/{deadline}", event=notice["event"],
        submission_id=subject["submission_id"], entity_id=subject["entity_id"], deadline=deadline.isoformat(),
        action=notice["action"], made_at=world.clock.now().isoformat(),
    )  # fmt: skip


def message(world: World, row: Row, to: str) -> EmailMessage:
    """The mail of one notice; the same notice always has the same Message-ID."""
    event_system = tables.ig("CodeSystem", "ACCESSEventTypeCS")
    mail = EmailMessage()
    mail["From"] = world.settings.smtp.sender if world.settings.smtp else ""
    mail["To"] = to
    mail["Subject"] = f"ACCESS Model notice: {world.codes.display(event_system, row['event']) or row['event']}"
    mail["Date"] = format_datetime(world.clock.now())
    mail["Message-ID"] = f"<{sha256(row['event_key'].encode()).hexdigest()[:32]}@access-sandbox.example>"
    lines = {
        "Event type": row["event"],
        "Submission ID": row["submission_id"],
        "Participant ID": row["entity_id"],
        "Deadline": row["deadline"],
        "Action": row["action"],
    }
    mail.set_content("".join(f"{name}: {value}\n" for name, value in lines.items()), cte="7bit")
    return mail


async def send(world: World) -> bool:
    """Sends what waits, in order. False if a mail was not taken; it stays and is tried again."""
    waiting = world.store.all("SELECT * FROM mail WHERE sent_at IS NULL ORDER BY rowid")
    smtp = world.settings.smtp
    for row in waiting if smtp else []:
        to = smtp.address(row["entity_id"]) if smtp else None
        if to is None:
            continue
        taken = await _hand_over(world, message(world, row, to))
        with world.store.transaction():
            sent_at = world.clock.now().isoformat() if taken else None
            world.store.run(
                "UPDATE mail SET attempts = attempts + 1, sent_at = ? WHERE event_key = ?", sent_at, row["event_key"]
            )
        if not taken:
            return False
    return True


async def _hand_over(world: World, mail: EmailMessage) -> bool:
    smtp = world.settings.smtp
    if smtp is None:
        return False
    with contextlib.suppress(aiosmtplib.SMTPException, OSError):
        await aiosmtplib.send(mail, hostname=smtp.host, port=smtp.port, timeout=10, start_tls=False, use_tls=False)
        return True
    return False
