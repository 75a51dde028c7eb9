"""CMS's answer, read: its result code, and what that means in plain words. Source: ACCESS API IG 0.9.12, responses."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import msgspec

from server.domain.submission import Operation, SubmissionState


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an answer says to a coordinator. `outcome`: success, note, wait, refused, mend, unknown.

    `who` acts: coordinator, clinician, interface, nobody. `again`: when it may be sent again; empty: not.
    """

    outcome: str
    text: str
    next: str
    who: str
    again: str

    @property
    def severity(self) -> str:
        """FHIR's issue severity: information, warning, error."""
        return SEVERITY[self.outcome]


SEVERITY = {
    "success": "information",
    "note": "information",
    "wait": "information",
    "mend": "warning",
    "refused": "warning",
    "unknown": "error",
}


UNKNOWN = Meaning(
    "unknown",
    "CMS answered with a result that this version does not know.",
    "Read CMS's own sentence, decide, and tell whoever keeps this software.",
    "coordinator",
    "when a person has decided",
)


@cache
def _table() -> dict[str, dict[str, Meaning]]:
    content = tomllib.loads(files("server.cms").joinpath("results.toml").read_text(encoding="utf-8"))
    return {operation: {code: Meaning(**row) for code, row in rows.items()} for operation, rows in content.items()}


def meaning(operation: Operation, code: str | None) -> Meaning:
    """The plain words for a result code; UNKNOWN for one that is not in the table."""
    return _table()[operation].get(code or "", UNKNOWN)


def standing(state: SubmissionState) -> Meaning:
    """The plain words for a state before the end."""
    return _table()["state"].get(str(state), _table()["failure"]["stopped"])


def failure(what: int | str) -> Meaning:
    """The plain words for a failed exchange: an HTTP status, or `no-answer`, `not-fhir`, `no-status-url`,
    `foreign-status-url`, `no-result`, `stopped`. A status without a row of its own has its class's."""
    rows = _table()["failure"]
    if isinstance(what, str):
        return rows[what]
    return rows.get(str(what)) or rows.get(f"{what // 100}xx") or rows["not-fhir"]


def codes(operation: Operation) -> frozenset[str]:
    """All codes that the table explains."""
    return frozenset(_table()[operation])


class _Coding(msgspec.Struct):
    code: str | None = None


class _Concept(msgspec.Struct):
    coding: list[_Coding] = []


class _Parameter(msgspec.Struct):
    name: str | None = None
    valueCodeableConcept: _Concept | None = None


class _Answer(msgspec.Struct):
    resourceType: str
    parameter: list[_Parameter] = []


def is_answer(body: bytes) -> bool:
    """Whether CMS's decision can be read: Parameters, or an OperationOutcome (finished with errors)."""
    answer = _read(body)
    return answer is not None and answer.resourceType in ("Parameters", "OperationOutcome")


def result_code(body: bytes) -> str | None:
    """The code of the `result` parameter, found by name; None if there is none (an OperationOutcome, for one).

    Displays are never compared: they differ within CMS's own guide.
    """
    answer = _read(body)
    for parameter in answer.parameter if answer is not None else []:
        if parameter.name == "result" and parameter.valueCodeableConcept is not None:
            return next((coding.code for coding in parameter.valueCodeableConcept.coding if coding.code), None)
    return None


def _read(body: bytes) -> _Answer | None:
    try:
        return msgspec.json.decode(body, type=_Answer)
    except msgspec.DecodeError:
        return None
