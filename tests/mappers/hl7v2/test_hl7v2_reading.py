"""Reading ER7: separators, charsets, escapes, framing; and that nothing a sender can send raises."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mappers.conversion import Source
from mappers.hl7v2 import ack_code, convert, read, split
from mappers.hl7v2.parse import Message, parse, unescape
from profiles.issue import Issue, Severity

CASES = sorted((Path(__file__).parents[2] / "cases" / "hl7v2").glob("*.hl7"))
HEAD = b"MSH|^~\\&|A|B|C|D|20260901080000-0400||ORU^R01^ORU_R01|M1|P|2.5.1"
PID = b"PID|1||MRN-1^^^ORG&2.16.840.1.113883.3.9999.20&ISO^MR||%s^Jo||19500101|F"


def source(message: bytes) -> Source:
    """The source of some bytes."""
    return Source(hashlib.sha256(message).hexdigest(), "2026-09-10T12:00:00Z")


def message_of(data: bytes) -> Message:
    """Bytes that are a message, parsed."""
    found = parse(data, {})
    assert isinstance(found, Message)
    return found


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n", b"\n\n"])
def test_segments_may_end_in_cr_lf_or_both(end: bytes) -> None:
    """Files in the wild use all of them."""
    assert [each[0] for each in message_of(end.join([HEAD, b"PID|1", b"ZZZ|x"])).segments] == ["MSH", "PID", "ZZZ"]


def test_a_byte_order_mark_and_frame_bytes_are_no_content() -> None:
    """A BOM before MSH and MLLP's own bytes are stripped."""
    assert message_of(b"\x0b\xef\xbb\xbf" + HEAD + b"\r\x1c\r").header[10] == "M1"


def test_the_truncation_character_is_accepted() -> None:
    """MSH-2 has five characters from version 2.7 on."""
    assert message_of(HEAD.replace(b"^~\\&", b"^~\\&#")).header[10] == "M1"


@pytest.mark.parametrize(
    ("charset", "codec", "issues"),
    [
        (b"8859/1", "latin-1", 0),
        (b"UNICODE UTF-8", "utf-8", 0),
        (b"", "utf-8", 1),
        (b"", "latin-1", 1),
        (b"UNICODE UTF-8", "latin-1", 1),
        (b"NOSUCH", "utf-8", 1),
    ],
)
def test_charset(charset: bytes, codec: str, issues: int) -> None:
    """By MSH-18, else UTF-8, else Latin-1; no byte is dropped, and a guess is said."""
    data = HEAD + b"||||||" + charset + b"\r" + PID % "Nuñez".encode(codec)
    found = message_of(data)
    assert found.segments[1][5] == "Nuñez^Jo"
    assert len(found.issues) == issues


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\f", "a|b^c&d~e\\f"),
        ("\\X0d0a\\x", "\nx"),
        ("\\XC3A9\\", "é"),
        ("\\XE9\\", "é"),
        ("a\\.br\\b\\.sp2\\c", "a\nb\n\nc"),
        ("\\Zlocal\\", "\\Zlocal\\"),
        ("50\\", "50\\"),
        ("\\X00\\a", "a"),
    ],
)
def test_escapes(written: str, expected: str) -> None:
    """Known sequences are resolved once, unknown ones stay as text."""
    assert unescape(written) == expected


def test_an_escaped_carriage_return_creates_no_segment() -> None:
    """Text is unescaped after splitting, so nobody can smuggle a segment in."""
    data = HEAD + b"\r" + PID % b"Doe\\X0D\\OBX|1|NM|29463-7^w^LN||1|kg|||||F"
    assert [each[0] for each in message_of(data).segments] == ["MSH", "PID"]


def test_a_line_feed_in_a_field_creates_no_message() -> None:
    """Where CR ends segments, an LF inside a field is content, even before MSH."""
    data = HEAD + b"\r" + PID % b"Doe\nMSH|^~\\&|EVIL" + b"\r"
    assert len(split(data)) == 1
    assert len(message_of(data).segments) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MSH",
        b"MSH|",
        b"MSH|^",
        b"PID|1",
        b"{}",
        b"<xml/>",
        b"MSHA^~\\&A",
        b"MSH|^^~&|",
        b"MSH|abcd|x",
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_message_is_one_fatal_issue(data: bytes) -> None:
    """Truncated or foreign input is refused with a place, and rejected in the answer."""
    result = convert(data, source(data))
    assert [issue.severity for issue in result.issues] == [Severity.FATAL]
    assert result.issues[0].location.startswith("MSH")
    assert (result.patient, result.resources, ack_code(result.issues)) == (None, (), "AR")


def test_a_batch_is_taken_apart() -> None:
    """FHS, BHS, BTS and FTS are wrapping; BTS-1 is checked."""
    data = b"\r".join(
        [b"FHS|^~\\&|A", b"BHS|^~\\&|A", HEAD, b"PID|1", HEAD.replace(b"M1", b"M2"), b"PID|1", b"BTS|2", b"FTS|1"]
    )
    found = read(data)
    assert [message_of(each).header[10] for each in found.messages] == ["M1", "M2"]
    assert found.issues == ()
    assert [issue.location for issue in read(data.replace(b"BTS|2", b"BTS|3")).issues] == ["BTS[1]-1"]


def test_frames_back_to_back_are_taken_apart() -> None:
    """Two MLLP frames in one read are two messages."""
    frame = b"\x0b" + HEAD + b"\rPID|1\r\x1c\r"
    assert len(split(frame + frame)) == 2


def test_a_single_message_comes_through_byte_for_byte() -> None:
    """What needs no taking apart is not rewritten: its hash stays that of what was received."""
    data = HEAD + b"\r\nPID|1\r\n\r\n"
    assert split(data) == [data]


def test_an_empty_batch_has_no_messages() -> None:
    """A batch may be empty."""
    assert split(b"BHS|^~\\&|A\rBTS|0\r") == []


@settings(deadline=None)
@given(data=st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    """Any bytes, with or without a header before them, give a conversion."""
    for each in (data, HEAD + b"\r" + data, b"MSH|" + data):
        assert convert(each, source(each)).issues is not None
        assert isinstance(split(each), list)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    path=st.sampled_from(CASES),
    cuts=st.lists(
        st.tuples(
            st.floats(0, 1),
            st.sampled_from(
                [b"", b"|", b"^", b"~", b"\\", b"&", b"\r", b"\n", b'""', b"\x00", b"\xc3", b"9", b"X", b"\\X0D\\"]
            ),
            st.integers(0, 6),
        ),
        max_size=6,
    ),
)
def test_no_mutation_of_a_message_raises(path: Path, cuts: list[tuple[float, bytes, int]]) -> None:
    """Messages damaged anywhere, in any way, give a conversion; ids stay unique."""
    data = path.read_bytes()
    for place, inserted, removed in cuts:
        at = int(place * len(data))
        data = data[:at] + inserted + data[at + removed :]
    result = convert(data, source(data))
    ids = [(each["resourceType"], each["id"]) for each in result.resources]
    assert len(set(ids)) == len(ids)


def test_a_huge_message_is_read_in_linear_time() -> None:
    """Twenty thousand rows, continuation lines and escapes are no trap."""
    rows = [b"OBX|%d|ST|X^x^L||a\\F\\b||||||F" % number for number in range(20_000)]
    data = b"\r".join(
        [HEAD, PID % b"Doe", b"OBR|1||F|X^x^L|||20260901|||||||||||||||||||F", *rows, *[b"tail"] * 20_000]
    )
    assert len(convert(data, source(data)).resources) == 20_002


def test_too_many_segments_are_refused() -> None:
    """The number of segments is bounded."""
    result = convert(HEAD + b"\rZZZ|1" * 100_001, Source("0" * 64, "2026-09-10T12:00:00Z"))
    assert any(isinstance(issue, Issue) and issue.severity is Severity.FATAL for issue in result.issues)
