"""Reads ER7, the pipe-and-hat form of HL7 v2, without ever raising on its content.

Shape: a `Message` is a list of segments; a `Segment` is a list of raw fields, `segment[0]` its name, `segment[5]` field
5 (MSH counts the separator as field 1, as the standard does). Fields are split here; repetitions, components and
subcomponents by whoever needs them, and only then unescaped. Whatever the sender's separators are, they have been
rewritten to `|^~\\&` when this module is done, so nothing after it has to know them.
Source: HL7 v2.9 chapter 2 (encoding rules, escape sequences), chapter 2C table 0211.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from profiles.issue import Issue, Severity, warning

STANDARD = "|^~\\&"
MAX_SEGMENTS = 100_000
DEFAULT_WIDTH = 8  # fields of a segment that no table reads
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\r") + b"\x7f"
_LETTERS = "^~\\&"
_CHARSETS = {
    "ASCII": "ascii",
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    "UNICODE": "utf-8",
    "8859/1": "latin-1",
    **{f"8859/{part}": f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 9, 15)},
}
_ESCAPE = re.compile(r"\\([^\\]*)\\")
_LITERALS = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\", "P": "#", "H": "", "N": ""}
_FORMATS = re.compile(r"\.(br|sp|in|ti|sk|ce|fi|nf)\s*([+-]?\d*)")
_ESCAPE_LETTERS = ("F", "S", "R", "E", "T")  # in the order of the separators |^~\&


NULL = '""'
_NOTHING: dict[int, str] = {}


class Segment(list[str]):
    """A segment's fields (or a field's components), each cut to its first repetition (or first subcomponent).

    `whole` holds, by index, the full text of those that were cut; for most segments it is the one empty dict. `sent` is
    how many there were before they were filled up with empty ones.
    """

    __slots__ = ("sent", "whole")
    sent: int
    whole: dict[int, str]

    def cut(self, divider: str) -> None:
        """Cuts each at the divider; what was cut stands in `whole`."""
        self.whole = {index: value for index, value in enumerate(self) if divider in value}
        for index, value in self.whole.items():
            first = value.partition(divider)[0]
            self[index] = "" if first == NULL else first

    def full(self, index: int) -> str:
        """The full text of one field."""
        return self.whole.get(index) or self[index]

    def replaced(self, index: int, value: str) -> "Segment":
        """The same with one field replaced by a value without repetitions."""
        made = Segment(self)
        made[index] = value
        made.sent = len(made)
        made.whole = {place: text for place, text in self.whole.items() if place != index}
        return made


_EMPTY = [[""] * count for count in range(64)]


def splitter(divider: str, inner: str, width: int = DEFAULT_WIDTH) -> Callable[..., Segment]:
    """The function that splits a text at the divider, and fills up to a width; `inner` divides what is between."""

    def split(text: str, width: int = width) -> Segment:
        made = Segment(text.split(divider))
        if NULL in text:
            made[:] = ["" if value == NULL else value for value in made]
        if inner in text:
            made.cut(inner)
        else:
            made.whole = _NOTHING
        made.sent = sent = len(made)
        if sent < width:
            made += _EMPTY[width - sent]
        return made

    return split


_fields = splitter("|", "~")


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `separators` are the sender's own: field, component, repetition, escape, subcomponent."""

    segments: list[Segment]
    separators: str = STANDARD
    issues: list[Issue] = field(default_factory=list)

    @property
    def header(self) -> Segment:
        """The MSH segment."""
        return self.segments[0]


def parse(data: bytes, widths: Mapping[str, int]) -> Message | Issue:
    """One message, or the fatal Issue that says why it is none.

    `widths`: to how many fields a segment of that name is filled up with empty ones, so that readers need no check.
    """
    data = data.strip(b"\x0b\x1c\r\n \t")
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:].lstrip()
    problem = _not_a_message(data[:12])
    if problem is not None:
        return problem
    issues: list[Issue] = []
    text = _decode(_printable(data, issues), issues)
    del data  # a message may be one document nearly: no more copies of it at once than are needed
    separators = _separators(text)
    if separators != STANDARD:
        text = _standardize(text, separators)
    lines = _lines(text)
    del text
    return Message(_segments(lines, widths, issues), separators, issues)


def _fatal(location: str, text: str) -> Issue:
    return Issue(Severity.FATAL, "structure", location, text)


@lru_cache(256)
def _not_a_message(data: bytes) -> Issue | None:
    """What is wrong with the first bytes, which hold the separators; None if nothing is."""
    if not data.startswith(b"MSH"):
        return _fatal("MSH", "The input does not start with an MSH segment. Send one HL7 v2 message in ER7 form.")
    head = data[3:9]
    if len(head) < 6 or head[:1].isalnum() or head[0] <= 32 or head[0] > 126:
        return _fatal("MSH[1]-1", "The field separator is missing, a letter, a digit or a control character. Send `|`.")
    encoding = data[4 : data.find(head[:1], 4)] if head[:1] in data[4:11] else b""
    if not 1 <= len(encoding) <= 5 or len(set(encoding)) < len(encoding) or any(c <= 32 or c > 126 for c in encoding):
        return _fatal("MSH[1]-2", "The encoding characters are missing, repeated or unreadable. Send `^~\\&`.")
    if re.search(rb"[A-Za-z0-9]", encoding):
        return _fatal("MSH[1]-2", "An encoding character is a letter or a digit. Send `^~\\&`.")
    return None


def _decode(data: bytes, issues: list[Issue]) -> str:
    """Text by MSH-18; if that fails UTF-8, then Latin-1, which reads any bytes. No byte is dropped."""
    if data.isascii():
        return data.decode("ascii")
    declared = _declared_charset(data)
    codec = _CHARSETS.get(declared, "utf-8")
    for name in (codec, "utf-8"):
        try:
            text = data.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
        if declared not in _CHARSETS or name != codec:
            issues.append(_charset_issue("UTF-8", Severity.WARNING if declared else Severity.INFORMATION))
        return text
    issues.append(_charset_issue("Latin-1", Severity.WARNING))
    return data.decode("latin-1")


def _charset_issue(used: str, severity: Severity) -> Issue:
    text = f"MSH-18 names no character set that fits the bytes; they were read as {used}. Declare it in MSH-18."
    return Issue(severity, "value", "MSH[1]-18", text)


def _declared_charset(data: bytes) -> str:
    header = re.split(rb"[\r\n]", data, maxsplit=1)[0].split(data[3:4])
    repetition = data[5:6]
    raw = header[17].split(repetition)[0] if len(header) > 17 else b""
    return raw.decode("latin-1").strip().upper()


def _printable(data: bytes, issues: list[Issue]) -> bytes:
    """Without the control characters that no FHIR string may hold; in every charset we read they are single bytes."""
    cleaned = data.translate(None, _CONTROLS)
    if len(cleaned) != len(data):
        text = "Control characters inside the message were dropped. Send them escaped, as \\X..\\."
        issues.append(warning("value", "MSH[1]", text))
    return cleaned


def _separators(text: str) -> str:
    """Field, component, repetition, escape, subcomponent; a blank for each that the sender does not define."""
    encoding = text[4 : text.index(text[3], 4)]
    return (text[3] + encoding[:4]).ljust(5)


def _standardize(text: str, separators: str) -> str:
    """The same message with `|^~\\&`: what would now be a separator is escaped, escapes keep their meaning."""
    own = dict(zip(separators, STANDARD, strict=True))
    own.pop(" ", None)
    escaped = {literal: f"\\{letter}\\" for literal, letter in zip(STANDARD, _ESCAPE_LETTERS, strict=True)}
    escape = separators[3].strip()
    named = (
        {f"{escape}{letter}{escape}": char for char, letter in zip(separators, _ESCAPE_LETTERS, strict=True)}
        if escape
        else {}
    )

    def rewrite(match: re.Match[str]) -> str:
        found = match[0]
        if found in named:
            return escaped.get(named[found], named[found])
        return own.get(found) or escaped.get(found, found)

    pattern = "|".join(map(re.escape, [*named, *sorted(own.keys() | set(STANDARD))]))
    start = text.index(separators[0], 4)
    return f"MSH|{_LETTERS}" + re.sub(pattern, rewrite, text[start:])


def _segments(lines: list[str], widths: Mapping[str, int], issues: list[Issue]) -> list[Segment]:
    """The segments. A line that is no segment continues the last."""
    heads = [line for line in lines if line[3:4] == "|" or len(line) == 3]
    tails = _tails(lines) if len(heads) < len(lines) else {}
    if tails:
        words = "Lines without a segment name were taken as part of the field before them. Escape line ends in fields."
        issues.append(warning("structure", f"{heads[min(tails)][:3]} (segment {min(tails) + 1})", words))
        for index, more in tails.items():
            heads[index] = "\n".join([heads[index], *more])
    segments = [
        _fields(head, widths.get(head[:3], DEFAULT_WIDTH)) if head[:3] != "MSH" else _header(head, widths)
        for head in heads
    ]
    if len(segments) > MAX_SEGMENTS:
        issues.append(_fatal("MSH[1]", f"The message has more than {MAX_SEGMENTS} segments. Split it."))
        del segments[1:]
    return segments


def _tails(lines: list[str]) -> dict[int, list[str]]:
    """By the index of a segment, the lines after it that are none."""
    tails: dict[int, list[str]] = {}
    last = -1
    for line in lines:
        if line[3:4] == "|" or len(line) == 3:
            last += 1
        elif line and last >= 0 and not line.isspace():
            tails.setdefault(last, []).append(line)
    return tails


def _lines(text: str) -> list[str]:
    """CR ends a segment; if there is no CR at all, LF does."""
    if "\r" not in text:
        return text.split("\n")
    lines = text.split("\r")
    return [line.strip("\n") for line in lines] if "\n" in text else lines


def _header(line: str, widths: Mapping[str, int]) -> Segment:
    """MSH: the separators are no content, and would be taken for repetitions and nulls."""
    made: Segment = _fields(f"MSH|||{line[4:].partition('|')[2]}", widths.get("MSH", DEFAULT_WIDTH))
    made[1] = "|"
    return made


def unescape(text: str) -> str:
    """The text of a leaf: escape sequences resolved, `\\.br\\` and the like as line ends. Unknown sequences stay."""
    if "\\" not in text:
        return text
    return _legal(_ESCAPE.sub(_resolve, text))


def has_unknown_escape(text: str) -> bool:
    """Whether an escape sequence is left that we can not resolve."""
    return "\\" in text and any(_resolve(match) == match[0] for match in _ESCAPE.finditer(text))


def _resolve(match: re.Match[str]) -> str:
    body = match[1]
    if body in _LITERALS:
        return _LITERALS[body]
    if body[:1] == "X" and re.fullmatch(r"X([0-9A-Fa-f]{2})+", body):
        return _hexadecimal(body[1:])
    formatted = _FORMATS.fullmatch(body)
    return _format(formatted[1], formatted[2]) if formatted else match[0]


def _hexadecimal(digits: str) -> str:
    raw = bytes.fromhex(digits)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _format(command: str, count: str) -> str:
    if command == "sk":
        return " " * min(int(count or 1), 80) if not count.startswith("-") else ""
    if command == "sp":
        return "\n" * max(1, min(int(count or 1), 10))
    return "\n" if command in ("br", "ce") else ""


def _legal(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.translate(_ILLEGAL) if any(char < " " and char not in "\n\t" for char in text) else text


_ILLEGAL = dict.fromkeys(_CONTROLS)
