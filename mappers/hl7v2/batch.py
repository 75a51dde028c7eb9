"""Takes one message after the other out of what a sender delivers: MLLP frames, FHS/BHS batches, files of messages.

Source: HL7 v2.9 chapter 2.10.3 (batch), HL7 transport specification MLLP release 1. No input raises.
"""

import re
from dataclasses import dataclass

from profiles.issue import Issue, warning

_BATCH = (b"FHS", b"BHS", b"BTS", b"FTS")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Batch:
    """The messages, and what is odd about the wrapping (a count that does not fit, say)."""

    messages: tuple[bytes, ...]
    issues: tuple[Issue, ...] = ()


def split(data: bytes) -> list[bytes]:
    """The single messages, without framing and batch segments. Input without MSH comes back whole, for its Issue."""
    return list(read(data).messages)


def read(data: bytes) -> Batch:
    """The single messages, with the batch counts (BTS-1) checked."""
    messages: list[bytes] = []
    expected: list[int] = []
    for frame in _frames(data):
        found, counts = _unwrap(frame)
        messages += found
        expected += counts
    if not messages and data.strip() and not expected and not _only_batch(data):
        messages = [data]
    return Batch(tuple(messages), _count_issues(len(messages), expected))


def _frames(data: bytes) -> list[bytes]:
    return [frame for frame in re.split(rb"\x1c\r?|\x0b", data) if frame.strip()] if b"\x0b" in data else [data]


def _only_batch(data: bytes) -> bool:
    return data.strip().removeprefix(_BOM)[:3] in _BATCH


def _unwrap(frame: bytes) -> tuple[list[bytes], list[int]]:
    """Messages begin at each MSH. An LF ends a segment only where no CR does: inside a field it starts nothing."""
    end = b"\r" if b"\r" in frame else b"\n"
    messages: list[list[bytes]] = []
    counts: list[int] = []
    if frame.count(b"MSH") == 1 and frame.lstrip().removeprefix(_BOM).startswith(b"MSH"):
        return [frame], counts
    for line in frame.split(end):
        segment = line.strip(b"\r\n").removeprefix(_BOM)
        if segment.startswith(_BATCH):
            counts += _count(segment)
        elif segment.startswith(b"MSH"):
            messages.append([segment])
        elif messages:
            messages[-1].append(segment)
        elif segment.strip():
            messages.append([segment])
    return [end.join(lines).rstrip() + end for lines in messages], counts


def _count(segment: bytes) -> list[int]:
    match = re.match(rb"BTS.(\d{1,9})", segment)
    return [int(match[1])] if match else []


def _count_issues(found: int, expected: list[int]) -> tuple[Issue, ...]:
    if not expected or sum(expected) == found:
        return ()
    text = "BTS-1 does not count the messages in the batch. All that were found are processed; check the transmission."
    return (warning("structure", "BTS[1]-1", text),)
