"""Logs: one JSON object a line on stderr, made only of allow-listed keys. No PHI gets through by accident.

A key that is not in ALLOWED is dropped. A text value that is not an id, a code or a path of them is replaced: names,
sentences and Medicare identifiers do not fit the pattern. Exceptions give their type and place, never their message.
Other libraries' records keep their logger's name and place only, since their texts may hold URLs or values.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from datetime import datetime
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, cast

import structlog

_ALLOWED = """
    event level timestamp logger place error request_id participant_id client_id role method route status reason
    door kind state outcome operation count attempts seconds milliseconds bytes job_id job_kind received_id
    submission_id report_id care_period_id delivery_id subscription_id patient_id resource_type resource_id
    ack_code result_code track report_type host port peer pid version table revision url_origin
    due_at retry_after_seconds worker_id issue_codes key_id signal
"""
ALLOWED = frozenset(_ALLOWED.split())
QUIET = ("httpx2", "httpx", "httpcore", "httpcore2", "asyncio", "mail.log")
SPEAKING = frozenset({"uvicorn", "uvicorn.error"})  # their texts are fixed templates about ports and signals
LONGEST = 160
DROPPED = "(dropped)"
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:/$,|+@{}\[\]*-]{0,160}")
_MBI = re.compile(  # CMS, "Understanding the Medicare Beneficiary Identifier format": C A AN N A AN N A A N N
    r"(?<![A-Z0-9])[1-9][AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y][0-9]-?[AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y][0-9]-?"
    r"[AC-HJKMNP-RT-Y]{2}[0-9]{2}(?![A-Z0-9])",
    re.IGNORECASE,
)
_FORGING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")

Event = MutableMapping[str, Any]


def sanitise(text: str) -> str:
    """The text without anything that could forge a line or steer a terminal, cut to a sensible length."""
    return _FORGING.sub(" ", text[:LONGEST])


def place_of(trace: TracebackType | None) -> str:
    """Where an exception was raised, as `module.py:line`: the innermost frame, without any value."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    file = Path(trace.tb_frame.f_code.co_filename)
    return f"{file.parent.name}/{file.name}:{trace.tb_lineno}"


def drop_unknown(_logger: Any, _method: str, event: Event) -> Event:
    """The structlog processor that lets through allow-listed keys with harmless values only."""
    if "exc_info" in event:
        event.update(_exception(event["exc_info"]))
    return {key: _harmless(key, value) for key, value in event.items() if key in ALLOWED}


def _exception(exc_info: Any) -> dict[str, str]:
    error = sys.exc_info()[1] if exc_info is True else exc_info
    error = error[1] if isinstance(error, tuple) else error
    if not isinstance(error, BaseException):
        return {}
    return {"error": type(error).__name__, "place": place_of(error.__traceback__)}


def _harmless(key: str, value: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if not isinstance(value, str) or _MBI.search(value):
        return DROPPED
    if key == "event":
        return sanitise(value)
    return value if _IDENTIFIER.fullmatch(value) else DROPPED


class LibraryHandler(logging.Handler):
    """Turns the records of other libraries into our lines: name, level and place, no text that we do not know."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record; the text is kept only as the unfilled template of a logger in SPEAKING."""
        event = str(record.msg) if record.name in SPEAKING else "library record"
        place = f"{Path(record.pathname).parent.name}/{record.filename}:{record.lineno}"
        fields: dict[str, Any] = {"logger": record.name, "place": place}
        if record.exc_info:
            fields |= _exception(record.exc_info)
        get_logger().log(record.levelno, event, **fields)


class _Stderr:
    """Standard error as it is when a line is written: a logger that was made earlier never holds a closed file."""

    def write(self, text: str) -> int:
        """Passes it on."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Passes it on."""
        sys.stderr.flush()


def configure(level: str = "INFO", *, stream: TextIO | None = None) -> None:
    """Sets up structlog and the standard library's logging, once a process. Output goes to stderr."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            drop_unknown,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stream or cast(TextIO, _Stderr())),
        cache_logger_on_first_use=stream is None,
    )
    root = logging.getLogger()
    root.handlers[:] = [LibraryHandler()]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def get_logger() -> Any:
    """The logger: `log.info("submission accepted", submission_id=...)`. The event is a fixed text, never built."""
    return structlog.get_logger()


def uvicorn_options() -> dict[str, Any]:
    """Arguments for `uvicorn.Config`: no access log (URLs may hold PHI), no logging set-up of its own.

    Nothing here depends on the caller's address or scheme, so what a proxy says of them is not read.
    """
    return {"access_log": False, "log_config": None, "proxy_headers": False}
