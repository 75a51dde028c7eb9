"""CMS's answer, read: its result code, and what that means in plain words. Source: ACCESS API IG 0.9.12, responses."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from server.domain.submission import Operation


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a result code says to a coordinator. `outcome`: success, note, wait, refused, mend, unknown."""

    outcome: str
    text: str
    next: str
    who: str


UNKNOWN = Meaning(
    "unknown",
    "CMS answered with a result that this version does not know.",
    "Read CMS's own sentence, decide, and tell whoever keeps this software.",
    "coordinator",
)


@cache
def _table() -> dict[str, dict[str, Meaning]]:
    content = tomllib.loads(files("server.cms").joinpath("results.toml").read_text(encoding="utf-8"))
    return {operation: {code: Meaning(**row) for code, row in rows.items()} for operation, rows in content.items()}


def meaning(operation: Operation, code: str | None) -> Meaning:
    """The plain words for a result code; UNKNOWN for one that is not in the table."""
    return _table()[operation].get(code or "", UNKNOWN)


def codes(operation: Operation) -> frozenset[str]:
    """All codes that the table explains."""
    return frozenset(_table()[operation])


def result_code(body: bytes) -> str | None:
    """The code of the `result` parameter, found by name; None if there is none (an OperationOutcome, for one).

    Displays are never compared: they differ within CMS's own guide.
    """
    content = msgspec.json.decode(body)
    parameters: list[dict[str, Any]] = content.get("parameter", []) if isinstance(content, dict) else []
    for parameter in parameters:
        if parameter.get("name") == "result":
            for coding in parameter.get("valueCodeableConcept", {}).get("coding", []):
                code = coding.get("code")
                return code if isinstance(code, str) else None
    return None
