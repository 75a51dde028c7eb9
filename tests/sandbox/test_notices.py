"""CMS's e-mails: which, when, what they say, and that each is handed over once however often the server is away."""

import asyncio
import contextlib
import email
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import mailbox, notices
from sandbox.app import tick
from sandbox.settings import Smtp


@pytest.fixture
async def smtp(tmp_path: Path) -> AsyncIterator[int]:
    """A real SMTP server on loopback that delivers into a maildir; its port."""
    server = await mailbox.listen("127.0.0.1", 0, tmp_path / "inbox")
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


def mails(folder: Path) -> list[email.message.Message]:
    """What was delivered."""
    return [email.message_from_bytes(path.read_bytes()) for path in sorted((folder / "inbox" / "new").glob("*"))]


async def events(cms: Any) -> list[tuple[str, str]]:
    """The notices made so far, with their deadlines."""
    return [(row["event"], row["deadline"]) for row in await cms.get("/sandbox/outbox")]


async def test_content(open_cms: Any, smtp: int, tmp_path: Path) -> None:
    """A mail names event, alignment, participant, deadline and action, and nothing of the patient."""
    cms = open_cms(smtp=Smtp("127.0.0.1", smtp, "care@care.example"))
    submission_id = await cms.aligned()
    await cms.result("unalign", cms.made.unalign())
    assert await notices.send(cms.world)
    (mail,) = mails(tmp_path)
    lines = mail.get_payload().splitlines()
    assert lines[:4] == [
        "Event type: unalignment",
        f"Submission ID: {submission_id}",
        "Participant ID: ACCES12345",
        "Deadline: 2026-07-06",
    ]
    assert lines[4].startswith("Action: ")
    assert (mail["To"], mail["From"]) == ("care@care.example", "access-notices@cms.example")
    assert not [word for word in ("Doe", "1EG4TE5MK73", "E11.9") if word in mail.as_string()]


@pytest.mark.parametrize(
    ("day", "event", "deadline"),
    [
        (40, "baseline-reporting-window", "2026-09-04"),
        (76, "participant-lock-ending", "2026-10-04"),
        (75, "quarterly-reporting-window", "2026-10-29"),
        (275, "eoy-reporting-window", "2027-09-04"),
        (335, "alignment-renewal", "2027-07-06"),
    ],
)
async def test_due(cms: Any, day: int, event: str, deadline: str) -> None:
    """Each notice is made on its day, not before, and once."""
    await cms.aligned()
    if event != "baseline-reporting-window":
        await cms.day(5)
        await cms.result("report-data", cms.made.report())
    await cms.day(day - 1)
    assert event not in [name for name, _ in await events(cms)]
    await cms.day(day)
    await cms.day(day + 1)
    assert (await events(cms)).count((event, deadline)) == 1


async def test_control_group_ending(cms: Any) -> None:
    """The participant that asked is told before a patient's time in the control group ends."""
    await cms.day(0)
    patient = cms.made.person(cms.app, "2AC4DE5FG65")
    await cms.result("check-eligibility", cms.made.check_eligibility(patient=patient))
    await cms.day(335)
    assert await events(cms) == [("control-group-ending", "2027-07-06")]


async def test_not_after_the_report(cms: Any) -> None:
    """No notice for a report that was accepted already, and none after the alignment ended but its end."""
    await cms.aligned()
    await cms.result("report-data", cms.made.report())
    await cms.day(45)
    assert await events(cms) == []
    await cms.result("unalign", cms.made.unalign())
    await cms.day(100)
    assert [name for name, _ in await events(cms)] == ["unalignment"]


async def test_lapse_is_told(cms: Any) -> None:
    """A patient unaligned for want of a baseline is told as of that day."""
    await cms.aligned()
    await cms.day(80)
    assert ("unalignment", "2026-09-05") in await events(cms)


async def test_seeded_people_are_silent(cms: Any) -> None:
    """What the synthetic people have elsewhere sends nobody a mail."""
    await cms.day(0)
    await cms.day(80)
    assert await events(cms) == []


async def test_retried(open_cms: Any, smtp: int, tmp_path: Path) -> None:
    """While the server is away a mail waits; afterwards it is sent, once."""
    closed = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = closed.sockets[0].getsockname()[1]
    closed.close()
    await closed.wait_closed()
    data = tmp_path / "sandbox.db"
    away = open_cms(smtp=Smtp("127.0.0.1", port, "care@care.example"), data=data)
    await away.aligned()
    await away.result("unalign", away.made.unalign())
    assert not await notices.send(away.world)
    away.world.store.close()
    back = open_cms(smtp=Smtp("127.0.0.1", smtp, "care@care.example"), data=data)
    assert await notices.send(back.world)
    assert await notices.send(back.world)
    (row,) = await back.get("/sandbox/outbox")
    assert (row["attempts"], row["sent_at"] is not None, len(mails(tmp_path))) == (2, True, 1)


async def test_ticks(open_cms: Any, smtp: int, tmp_path: Path) -> None:
    """A running sandbox hands its mails over by itself."""
    cms = open_cms(smtp=Smtp("127.0.0.1", smtp, {"ACCES12345": "care@care.example"}))
    await cms.aligned()
    await cms.result("unalign", cms.made.unalign())
    task = asyncio.create_task(tick(cms.world))
    for _ in range(100):
        if mails(tmp_path):
            break
        await asyncio.sleep(0.02)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert len(mails(tmp_path)) == 1


async def test_no_address(open_cms: Any, smtp: int, tmp_path: Path) -> None:
    """A participant without an address gets none; the notice stays in the outbox."""
    cms = open_cms(smtp=Smtp("127.0.0.1", smtp, {"ACCES54321": "other@care.example"}))
    await cms.aligned()
    await cms.result("unalign", cms.made.unalign())
    assert await notices.send(cms.world)
    assert (mails(tmp_path), len(await events(cms))) == ([], 1)
