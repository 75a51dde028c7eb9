"""X9, X10: no PHI and no forged line in the logs."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from server.domain.submission import SubmissionState
from server.logs import DROPPED, configure, get_logger, sanitise

MARKERS = [
    "1EG4TE5MK73",
    "1EG4-TE5-MK73",
    "Doe, Jane",
    "Jane Q. Doe",
    "1 Main Street",
    "jane@example.org?x=1",
    "1950-01-31 Doe",
]

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Logging as in production, into memory."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure("DEBUG", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_is_one_json_object(lines: Lines) -> None:
    """Event, level, UTC timestamp, and the allowed keys; enums by value, instants in ISO form."""
    at = datetime(2027, 3, 1, tzinfo=UTC)
    get_logger().info("submission sent", submission_id="ab12", state=SubmissionState.SENDING, attempts=2, due_at=at)
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "submission sent",
        "level": "info",
        "submission_id": "ab12",
        "state": "sending",
        "attempts": 2,
        "due_at": "2027-03-01T00:00:00+00:00",
    }


@pytest.mark.parametrize("marker", MARKERS)
def test_marked_values_do_not_get_through(lines: Lines, marker: str) -> None:
    """Neither under an unknown key, nor as an id, nor inside a list, a dict or bytes, nor in an exception."""
    log = get_logger()
    log.info("a", patient_name=marker, body=marker, url=marker)
    log.info("b", patient_id=marker, resource_id=f"Patient/{marker}", route=marker)
    log.info("c", reason=[marker], state={"a": marker}, kind=marker.encode())
    try:
        raise ValueError(marker)
    except ValueError:
        log.exception("d")
        log.error("e", exc_info=True, stack_info=True)
    text = json.dumps(lines())
    assert marker not in text
    assert text.count("ValueError") == 2


def test_ids_that_look_random_do_get_through(lines: Lines) -> None:
    """Our own ids, references, routes and codes are kept."""
    values = {
        "patient_id": "0123456789abcdef0123456789abcdef",
        "resource_id": "Observation/3a42f0c1d2e34b5f9a8b7c6d5e4f3a2b",
        "route": "/fhir/access/Patient/$submission-status/{id}",
        "client_id": "ehr-1",
        "participant_id": "ACCES12345",
    }
    get_logger().info("x", **values)
    assert values.items() <= lines()[0].items()


@pytest.mark.parametrize("evil", ["a\r\nb", "\x1b[2Jx", "a\u2028b", "a\u202eb", "a\x00b", "\ud800", "a\u200bb"])
def test_no_line_can_be_forged(lines: Lines, evil: str) -> None:
    """CR, LF, ANSI escapes, line separators and direction marks are gone from texts, and refused in ids. X10."""
    get_logger().info(f"event {evil}", client_id=evil)
    (line,) = lines()
    assert line["client_id"] == DROPPED
    assert not set(evil) & set("\r\n\x1b\u2028\u202e\x00\ud800\u200b") & set(line["event"])


def test_a_long_text_is_cut() -> None:
    """No log line grows with its input."""
    assert len(sanitise("a" * 10_000)) == 160


def test_other_libraries_say_where_but_not_what(lines: Lines) -> None:
    """Their texts and arguments may hold URLs and values: only uvicorn's fixed templates are kept, unfilled."""
    logging.getLogger("httpx2").warning("GET https://x/Patient?name=%s", "Doe")
    logging.getLogger("somebody").error("Doe, Jane failed", exc_info=ValueError("Doe"))
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)  # a server of another test may have changed it
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
    text = json.dumps(lines())
    assert "Doe" not in text
    assert [line["event"] for line in lines()] == ["library record", "library record", "Started server process [%d]"]
    assert lines()[1]["error"] == "ValueError"
