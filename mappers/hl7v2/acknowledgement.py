"""The answer to a message: MSH, MSA and an ERR for each Issue.

Source: HL7 v2.9 chapter 2 (MSA, ERR, original and enhanced mode), tables 0008, 0155, 0357, 0516; before 2.5 an ERR-1 of
segment, sequence, field and code. What an answer says of an Issue is a table: tables/acknowledgement.toml.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

from mappers.engine import load
from mappers.hl7v2.batch import split
from mappers.hl7v2.parse import STANDARD, parse
from mappers.hl7v2.rules import name_of
from profiles.issue import Issue, Severity

MAX_ERRORS = 50  # an answer is no log: the first ones say enough
_PLACE = re.compile(
    r"(?P<segment>[A-Z][A-Z0-9]{2})(?:\[(?P<sequence>\d+)\])?(?:-(?P<field>\d+)(?:\.(?P<component>\d+))?)?"
)
_ALWAYS, _NEVER, _ON_ERROR, _ON_SUCCESS = "AL", "NE", "ER", "SU"  # table 0155


@dataclass(frozen=True, slots=True)
class _Header:
    """What an answer needs to know of the message; all empty if it could not be read."""

    fields: list[str]
    separators: str

    @property
    def version(self) -> tuple[int, ...]:
        digits = re.match(r"2\.(\d)", self.fields[12])
        return (2, int(digits[1])) if digits else (2, 5)

    @property
    def commits(self) -> bool:
        """Enhanced mode with a commit acknowledgement: MSH-15 asks for one. MSH-16 alone asks for an application's."""
        return self.fields[15].strip() not in ("", _NEVER)


@cache
def _facts() -> dict[str, Any]:
    return load("mappers.hl7v2", "tables/acknowledgement.toml")


def condition_of(issue: Issue) -> str:
    """The code of table 0357 for an Issue."""
    for row in _facts()["row"]:
        known = issue.severity in row.get("severity", (issue.severity,)) and issue.code in row.get(
            "code", (issue.code,)
        )
        if known and issue.location.startswith(row.get("at", "")):
            return str(row["condition"])
    return "207"


def ack_code(issues: Sequence[Issue]) -> str:
    """AA, AE or AR (table 0008) for what was found: AR if the message can not be taken at all, AE for other errors."""
    errors = [issue for issue in issues if issue.is_error]
    if any(condition_of(issue) in _facts()["rejections"] for issue in errors):
        return "AR"
    return "AE" if errors else "AA"


def acknowledge(message: bytes, issues: Sequence[Issue], *, at: datetime, control_id: str) -> bytes:
    """The ACK for a message: in its version, with its separators, to its sender.

    `at` is the answer's own time (with offset), `control_id` its own MSH-10. Never raises: an unreadable message is
    answered AR with what is known of it.
    """
    header = _header_of(message)
    code = ack_code(issues)
    if header.commits:
        code = code.replace("A", "C", 1)
    segments = [_msh(header, at, control_id), ["MSA", code, header.fields[10]]]
    segments += _errors(issues, header) if issues else []
    text = "\r".join("|".join(fields).rstrip("|") for fields in segments) + "\r"
    return _in_their_separators(text, header.separators).encode("utf-8")


def acknowledgement_wanted(message: bytes, code: str) -> bool:
    """Whether the sender wants an answer: MSH-15 (or MSH-16) may say never, on error only, on success only."""
    fields = _header_of(message).fields
    wish = fields[15].strip() or fields[16].strip() or _ALWAYS
    if wish == _NEVER and fields[16].strip() not in ("", _NEVER):
        wish = fields[16].strip()
    success = code in ("AA", "CA")
    return {_NEVER: False, _ON_ERROR: not success, _ON_SUCCESS: success}.get(wish, True)


def _header_of(message: bytes) -> _Header:
    found = split(message)
    return _read(re.split(rb"[\r\n]", found[0].lstrip(), maxsplit=1)[0] if found else b"")


@lru_cache(64)  # asked twice for a message: what to answer, and whether
def _read(line: bytes) -> _Header:
    parsed = parse(line, {"MSH": 22})
    if isinstance(parsed, Issue):
        return _Header([""] * 22, STANDARD)
    return _Header(parsed.header, parsed.separators)


def _msh(header: _Header, at: datetime, control_id: str) -> list[str]:
    fields = header.fields
    _, event = name_of(fields)
    kind = "ACK" if header.version < (2, 4) and not event else f"ACK^{event}^ACK" if event else "ACK"
    made = ["MSH", "^~\\&", fields[5], fields[6], fields[3], fields[4], at.strftime("%Y%m%d%H%M%S%z"), "", kind]
    made += [_escaped(control_id), fields[11] or "P", fields[12] or "2.5.1"]
    return [*made, "", "", "", "", "", "UNICODE UTF-8"] if not "".join(made).isascii() else made


def _errors(issues: Sequence[Issue], header: _Header) -> list[list[str]]:
    told = sorted(issues, key=lambda issue: not issue.is_error)
    told = [issue for issue in told if issue.severity is not Severity.INFORMATION][:MAX_ERRORS]
    return [_err(issue) for issue in told] if header.version >= (2, 5) else _old_err(told)


def _err(issue: Issue) -> list[str]:
    condition = condition_of(issue)
    coded = f"{condition}^{_facts()['texts'][condition]}^HL70357"
    return [
        "ERR",
        "",
        _location(issue),
        coded,
        _facts()["severities"][issue.severity],
        "",
        "",
        "",
        _escaped(issue.text),
    ]


def _old_err(issues: Sequence[Issue]) -> list[list[str]]:
    """ERR-1 before 2.5, one repetition an Issue."""
    parts = []
    for issue in issues:
        condition = condition_of(issue)
        segment, sequence, place = (_location(issue).split("^") + ["", ""])[:3]
        parts.append(f"{segment}^{sequence}^{place}^{condition}&{_facts()['texts'][condition]}&HL70357")
    return [["ERR", "~".join(parts)]] if parts else []


def _location(issue: Issue) -> str:
    """ERL: segment^sequence^field^repetition^component."""
    match = _PLACE.match(issue.location)
    if match is None:
        return ""
    made = [match["segment"], match["sequence"] or "1"]
    if match["field"]:
        made.append(match["field"])
        if match["component"]:
            made += ["1", match["component"]]
    return "^".join(made)


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\E\\")
    for char, letter in (("|", "F"), ("^", "S"), ("~", "R"), ("&", "T"), ("\r", "X0D"), ("\n", "X0A")):
        text = text.replace(char, f"\\{letter}\\")
    return text


def _in_their_separators(text: str, separators: str) -> str:
    """With the sender's own separators, if they are five and other than the usual ones."""
    if separators == STANDARD or " " in separators or any(each in text for each in set(separators) - set(STANDARD)):
        return text
    return text.translate(dict(zip(map(ord, STANDARD), separators, strict=True)))
