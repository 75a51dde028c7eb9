"""The loss account: a field with a value changes what is made of the message, or the account or an Issue names it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mappers.conversion import Conversion, Source
from mappers.hl7v2 import convert
from mappers.hl7v2.compiled import WIDTHS
from mappers.hl7v2.parse import Message, Segment, parse

CASES = sorted((Path(__file__).parents[2] / "cases").glob("*/*.hl7"))
SOURCE = Source("0" * 64, "2026-09-10T12:00:00Z", "America/Denver")  # the same for all, so that only content counts
KINDS = {"left", "bad", "unknown"}


def valued(message: Message) -> Iterator[tuple[str, int, int]]:
    """Place in the account, segment and field of each field with a value, the header apart."""
    counts: Counter[str] = Counter()
    for position, fields in enumerate(message.segments):
        counts[fields[0]] += 1
        for index in range(1, len(fields)):
            if position and fields.full(index).strip("^~& "):
                yield f"{fields[0]}[{counts[fields[0]]}]-{index}", position, index


def written(segments: list[Segment]) -> bytes:
    """The message as ER7 again, with the usual separators."""
    lines = ["|".join(fields.full(index) for index in range(len(fields))).rstrip("|") for fields in segments]
    return "\r".join(["MSH|^~\\&" + lines[0][6:], *lines[1:]]).encode()


def changed(message: Message, position: int, index: int) -> Iterator[bytes]:
    """The message with one field empty, and with another value there."""
    for value in ("", "ZZ9^ZZ8"):
        segments = list(message.segments)
        segments[position] = segments[position].replaced(index, value)
        yield written(segments)


def made(conversion: Conversion) -> tuple[object, ...]:
    """All that a message becomes."""
    return (conversion.patient, conversion.resources, conversion.issues)


def unaccounted(data: bytes) -> list[str]:
    """The fields that are neither used nor named: each one is a silent loss."""
    message = parse(data, WIDTHS)
    if not isinstance(message, Message):
        return []
    plain = replace(message, segments=message.segments)
    whole = convert(written(plain.segments), SOURCE)
    named = {each.location for each in whole.unmapped}
    named |= {issue.location.partition(".")[0] for issue in whole.issues}
    return [
        place
        for place, position, index in valued(message)
        if place not in named
        and all(made(convert(each, SOURCE)) == made(whole) for each in changed(message, position, index))
    ]


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_field_is_lost_in_silence(path: Path) -> None:
    """Each field in turn is emptied, and changed: if that makes no difference, the account or an Issue names it."""
    assert unaccounted(path.read_bytes()) == []


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_line_of_the_account_names_a_field_with_a_value_and_says_why(path: Path) -> None:
    """No line is about nothing, none comes twice for one reason, and the kind is one of three."""
    data = path.read_bytes()
    message = parse(data, WIDTHS)
    assert isinstance(message, Message)
    lines = convert(data, SOURCE).unmapped
    assert {each.location for each in lines} <= {place for place, _, _ in valued(message)}
    assert {each.kind for each in lines} <= KINDS
    assert all(each.reason for each in lines)
    assert len(set(lines)) == len(lines)
