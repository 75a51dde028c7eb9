"""The commands about submissions, alignments and keys, as a person types them."""

import asyncio
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from server.cli import app
from server.domain.alignment import Alignment, AlignmentState
from server.domain.submission import Operation, Submission, SubmissionEvent, SubmissionState
from server.initialise import initialise
from server.settings import load
from server.store.base import Changeset
from server.store.opening import open_store

AT = datetime(2026, 9, 1, 12, tzinfo=UTC)
KEY = {"participant_id": "ACCES12345", "patient_id": "p1", "track": "CKM"}


def submission(name: str, **columns: Any) -> Submission:
    values = {
        "id": name,
        "operation": Operation.ALIGN,
        "agent": "ehr-1",
        "created_at": AT,
        "request_sha256": "",
        "request": b"{}",
    }
    return Submission(**{**KEY, **values, **columns})


ROWS = (
    submission("done", state=SubmissionState.APPLIED, result_code="aligned", result_status=200),
    submission("waiting", state=SubmissionState.ACCEPTED),
    submission("refused", state=SubmissionState.NEEDS_REVIEW, result=b"<html>", result_status=400),
    submission("stopped", state=SubmissionState.NEEDS_REVIEW),
    submission("odd", state=SubmissionState.NEEDS_REVIEW, result_code="x", result_status=200, result=b"{}"),
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation with a few submissions and an alignment."""
    made = initialise(tmp_path_factory.mktemp("cli") / "here", demo=False)
    settings = load(made.config)

    async def fill() -> None:
        store = open_store(settings.store_url, settings.key_file)
        event = SubmissionEvent(
            participant_id="ACCES12345", submission_id="stopped", sequence=1, at=AT,
            state=SubmissionState.NEEDS_REVIEW, detail="CMS named a status URL on another server.",
        )  # fmt: skip
        aligned = Alignment(**KEY, state=AlignmentState.ALIGNED, aligned_on=date(2026, 9, 1))
        await store.commit(Changeset(insert=(*ROWS, event, aligned)))
        await store.close()

    asyncio.run(fill())
    return made.config


def run(config: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--config", str(config)])


def test_submissions_are_told_in_plain_words(config: Path) -> None:
    """State, sentence, next step, who acts."""
    said = run(config, "submissions").stdout
    assert "The 12-month care period and the 90-day lock-in begin." in said
    assert "CMS has the request and is at work." in said
    assert "Next (interface)" in said
    assert "Why it stopped: CMS named a status URL on another server." in said


def test_only_open_ones_on_request(config: Path) -> None:
    """What is done is left out."""
    rows = json.loads(run(config, "submissions", "--open", "--json").stdout)["submissions"]
    assert {row["id"] for row in rows} == {"waiting", "refused", "stopped", "odd"}


@pytest.mark.parametrize(
    ("name", "severity", "part"),
    [
        ("done", "information", "aligned to you"),
        ("waiting", "information", "is at work"),
        ("refused", "error", "no answer of CMS"),
        ("stopped", "error", "person's decision"),
        ("odd", "error", "does not know"),
    ],
)
def test_one_submission_as_json(config: Path, name: str, severity: str, part: str) -> None:
    """For programs: the same words, and the severity."""
    (row,) = json.loads(run(config, "submissions", name, "--json").stdout)["submissions"]
    assert row["severity"] == severity
    assert part in row["text"]
    assert row["who"]


def test_an_unknown_submission_is_said(config: Path) -> None:
    """Exit 1 and a sentence."""
    result = run(config, "submissions", "nothing")
    assert result.exit_code == 1
    assert "There is no submission nothing." in result.stderr


def test_a_date_is_corrected_by_command(config: Path) -> None:
    """And listed afterwards."""
    assert run(config, "alignment", "set-date", "p1", "CKM", "lock-in-until", "2026-12-24").exit_code == 0
    (row,) = json.loads(run(config, "alignment", "list", "--json").stdout)["alignments"]
    assert (row["lock_in_until"], row["state"]) == ("2026-12-24", "aligned")
    assert "2026-12-24" in run(config, "alignment", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("p1", "CKM", "lock-in-until", "soon"), "is not a date"),
        (("p1", "CKM", "birthday", "2026-12-24"), "There is no such date"),
        (("p2", "CKM", "aligned-on", "2026-12-24"), "There is no record"),
    ],
)
def test_a_wrong_correction_is_refused_in_words(config: Path, arguments: tuple[str, ...], said: str) -> None:
    """Exit 1."""
    result = run(config, "alignment", "set-date", *arguments)
    assert result.exit_code == 1
    assert said in result.stderr


def test_keys_are_rotated_by_command(config: Path) -> None:
    """Two keys, then one again."""
    done = json.loads(run(config, "keys", "rotate", "ACCES12345", "--json").stdout)
    assert len(done["live"]) == 2
    assert run(config, "keys", "rotate", "ACCES12345").exit_code == 1
    ended = json.loads(run(config, "keys", "rotate", "ACCES12345", "--retire", "--json").stdout)
    assert ended["live"] == done["live"][1:]
    assert ended["retired"] == done["live"][0]
