"""The fault plan: what goes wrong next, per call, in the order it was planned. Stored, so a restart keeps it.

A fault that stands `instead` answers before anything is processed; any other is applied to the answer of a request
that was processed as usual. `wire.py` does what only the connection can: resets, cuts, lies about the length.

    reset-before         read, not processed, connection reset        http       `status`, `headers`, OperationOutcome
    reset-during         reset before the body of the request is read html       a page, `status` (502)
    reset-after          processed, connection reset                  redirect   `status` (302) to `location`
    truncate             processed, the answer ends half-way          malformed  JSON that never ends, `status` (200)
    wrong-length         processed, Content-Length is too small       no-location, foreign-location, relative-location
    slow                 processed, answered after `seconds` (5)      duplicate-headers  all twice; the second
    slow-bytes           processed, one byte every `seconds` (1)                         Content-Location: `location`
    gzip-bomb, huge      processed, a body of `bytes` (100,000,000), packed or not
"""

import gzip
import json
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from sandbox.exchange import ISSUE_CODES, Answer, Issue, outcome
from sandbox.world import World

CALLS = ("token", "check-eligibility", "align", "unalign", "report-data", "status", "unknown", "*")
RESET_BEFORE, RESET_DURING, RESET_AFTER, TRUNCATE = "reset-before", "reset-during", "reset-after", "truncate"
SLOW, SLOW_BYTES, WRONG_LENGTH, DUPLICATE_HEADERS = "slow", "slow-bytes", "wrong-length", "duplicate-headers"
GZIP_BOMB, HUGE, MALFORMED = "gzip-bomb", "huge", "malformed"
INSTEAD = {"http", RESET_BEFORE, RESET_DURING, "html", "redirect", MALFORMED}
ALTERING = {"no-location", "foreign-location", "relative-location", DUPLICATE_HEADERS, GZIP_BOMB, HUGE}
FAULTS = INSTEAD | ALTERING | {RESET_AFTER, TRUNCATE, WRONG_LENGTH, SLOW, SLOW_BYTES}
KEYS = {"call", "fault", "status", "headers", "seconds", "location", "bytes", "times"}
SECONDS = {SLOW: 5.0, SLOW_BYTES: 1.0}  # unless planned otherwise
BODYLESS = (204, 304)
FOREIGN = "https://cms.example.invalid/fhir/access/Patient/$submission-status/"


class BadPlan(ValueError):
    """The plan cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault to apply to one request. `seconds`: how long to wait before the answer goes, or between its bytes."""

    kind: str
    status: int | None = None
    headers: dict[str, str] | None = None
    seconds: float = 0.0
    location: str | None = None
    size: int = 100_000_000

    @property
    def is_instead(self) -> bool:
        """Whether the request is not processed at all."""
        return self.kind in INSTEAD

    def instead(self, call: str) -> Answer:
        """The answer that stands in for the processing. Status 0: there is none."""
        if self.kind in (RESET_BEFORE, RESET_DURING):
            return Answer(0)
        if self.kind == MALFORMED:
            headers = {"Content-Type": "application/json", **(self.headers or {})}
            return Answer(self.status or 200, b'{"resourceType": "Parameters", "parameter": [{', headers)
        if self.kind == "html":
            page = b"<!DOCTYPE html><html><body><h1>Bad Gateway</h1></body></html>"
            return Answer(
                self.status or 502, page, {"Content-Type": "text/html; charset=utf-8", **(self.headers or {})}
            )
        if self.kind == "redirect":
            location = self.location or "https://login.example.invalid/"
            return Answer(self.status or 302, None, {"Location": location, **(self.headers or {})})
        return self._http(call)

    def altered(self, answer: Answer) -> Answer:
        """What becomes of the answer of a processed request."""
        headers = {name: value for name, value in answer.headers.items() if name != "Content-Location"}
        if self.kind == "no-location":
            return replace(answer, headers=headers)
        if self.kind == "foreign-location":
            location = self.location or f"{FOREIGN}{answer.submission_id}"
            return replace(answer, headers={**headers, "Content-Location": location})
        if self.kind == "relative-location":
            relative = urlsplit(answer.headers.get("Content-Location", "")).path
            return replace(answer, headers={**headers, "Content-Location": relative})
        if self.kind == GZIP_BOMB:
            return replace(answer, body=_bomb(self.size), headers={**answer.headers, "Content-Encoding": "gzip"})
        return replace(answer, status=0) if self.kind == RESET_AFTER else answer

    def _http(self, call: str) -> Answer:
        status = self.status or 503
        headers = dict(self.headers or {})
        if status == 401:
            headers.setdefault("WWW-Authenticate", 'Bearer error="invalid_token"')
        if call == "token":
            error = "invalid_client" if status == 401 else "temporarily_unavailable"
            return Answer(status, {"error": error, "error_description": "Planned fault"}, headers)
        if status in BODYLESS:
            return Answer(status, None, headers)
        return Answer(status, outcome(Issue(ISSUE_CODES.get(status, "processing"), "Planned fault")), headers)


@cache
def _bomb(size: int) -> bytes:
    return gzip.compress(bytes(size), compresslevel=9)


def plan(world: World, rows: Any) -> None:
    """Adds to the plan; an empty list empties it. Raises BadPlan and then changes nothing."""
    rows = [rows] if isinstance(rows, dict) else rows
    if not isinstance(rows, list):
        raise BadPlan("the plan must be a list of faults")
    for row in rows:
        _check(row)
    if not rows:
        world.store.run("DELETE FROM fault")
    for row in rows:
        world.store.insert("fault", plan=json.dumps(row), remaining=row.get("times", 1))


def _check(row: Any) -> None:
    if not isinstance(row, dict) or set(row) - KEYS:
        raise BadPlan(f"a fault is an object with the keys {', '.join(sorted(KEYS))}")
    if row.get("call") not in CALLS:
        raise BadPlan(f"call must be one of {', '.join(CALLS)}")
    if row.get("fault") not in FAULTS:
        raise BadPlan(f"fault must be one of {', '.join(sorted(FAULTS))}")
    if not isinstance(row.get("times", 1), int) or row.get("times", 1) < 1:
        raise BadPlan("times must be a whole number of 1 or more")
    if not isinstance(row.get("bytes", 1), int) or not 1 <= row.get("bytes", 1) <= 1_000_000_000:
        raise BadPlan("bytes must be a whole number of 1 to 1,000,000,000")
    if not isinstance(row.get("status", 503), int) or not 200 <= row.get("status", 503) <= 599:
        raise BadPlan("status must be an HTTP status of 200 to 599")
    if not isinstance(row.get("seconds", 0), (int, float)) or row.get("seconds", 0) < 0:
        raise BadPlan("seconds must be a number of 0 or more")
    if not isinstance(row.get("headers", {}), dict) or not isinstance(row.get("location", ""), str):
        raise BadPlan("headers must be an object, location a string")


def read(world: World) -> list[dict[str, Any]]:
    """What is still planned, with the times left."""
    rows = world.store.all("SELECT * FROM fault ORDER BY seq")
    return [json.loads(row["plan"]) | {"times": row["remaining"]} for row in rows]


def take(world: World, call: str, *, kind: str | None = None) -> Fault | None:
    """The next fault planned for the call, used up by one; None if there is none, or if it is not of the `kind`."""
    for row in world.store.all("SELECT * FROM fault ORDER BY seq"):
        planned = json.loads(row["plan"])
        if planned["call"] in (call, "*"):
            if kind not in (None, planned["fault"]):
                return None
            world.store.run("UPDATE fault SET remaining = remaining - 1 WHERE seq = ?", row["seq"])
            world.store.run("DELETE FROM fault WHERE remaining <= 0")
            return _fault(planned)
    return None


def _fault(planned: dict[str, Any]) -> Fault:
    headers = {str(name): str(value) for name, value in planned.get("headers", {}).items()}
    seconds = float(planned.get("seconds", SECONDS.get(planned["fault"], 0.0)))
    size = planned.get("bytes", 100_000_000)
    return Fault(planned["fault"], planned.get("status"), headers, seconds, planned.get("location"), size)
