"""The acknowledgement, judged by an independent reader (hl7apy) and by the tables it follows."""

from datetime import datetime, timedelta, timezone

import pytest
from hl7apy.parser import parse_message

from mappers.hl7v2 import ack_code, acknowledge, acknowledgement_wanted
from profiles.issue import Issue, Severity, error, warning

AT = datetime(2026, 9, 1, 8, 0, 1, tzinfo=timezone(timedelta(hours=-4)))
HEAD = "MSH|^~\\&|GATE|DEV|FACADE|ORG|20260901080000-0400||ORU^R01^ORU_R01|M1|P|{version}|||{accept}|{application}"
REQUIRED = error("required", "OBX[2]-3", "OBX-3 is empty.")
TYPE = error("not-supported", "MSH[1]-9.1", "This message type is not taken.")


def answer(*issues: Issue, version: str = "2.5.1", accept: str = "", application: str = "") -> list[list[str]]:
    """The segments of the ACK for some issues, split into fields."""
    message = HEAD.format(version=version, accept=accept, application=application).encode()
    found = acknowledge(message, issues, at=AT, control_id="A1")
    return [segment.split("|") for segment in found.decode().rstrip("\r").split("\r")]


def test_an_answer_goes_back_to_the_sender_in_its_version() -> None:
    """Sender and receiver change places; version, processing id and MSH-10 are the message's."""
    msh, msa = answer()
    assert msh == [
        "MSH",
        "^~\\&",
        "FACADE",
        "ORG",
        "GATE",
        "DEV",
        "20260901080001-0400",
        "",
        "ACK^R01^ACK",
        "A1",
        "P",
        "2.5.1",
    ]
    assert msa == ["MSA", "AA", "M1"]


@pytest.mark.parametrize(
    ("issues", "expected"),
    [
        ((), "AA"),
        ((warning("value", "OBX[1]-5", "x"),), "AA"),
        ((REQUIRED,), "AE"),
        ((error("duplicate", "MSH[1]-10", "x"),), "AE"),
        ((TYPE, REQUIRED), "AR"),
        ((Issue(Severity.FATAL, "structure", "MSH", "x"),), "AR"),
        ((error("exception", "", "x"),), "AR"),
    ],
)
def test_codes(issues: tuple[Issue, ...], expected: str) -> None:
    """Table 0008: AR for what can not be taken at all, AE for other errors, AA with or without warnings."""
    assert ack_code(issues) == expected


@pytest.mark.parametrize(
    ("accept", "application", "expected"),
    [("", "", "AE"), ("AL", "NE", "CE"), ("AL", "", "CE"), ("NE", "AL", "AE"), ("", "AL", "AE")],
)
def test_enhanced_mode_commits(accept: str, application: str, expected: str) -> None:
    """MSH-15 asks for a commit acknowledgement (CA, CE, CR); MSH-16 alone for the application's."""
    assert answer(REQUIRED, accept=accept, application=application)[1][1] == expected


def test_an_error_names_place_condition_and_severity() -> None:
    """ERR-2, ERR-3 (table 0357), ERR-4 and ERR-8, warnings after errors."""
    found = answer(warning("code-invalid", "OBX[1]-8", "Odd."), REQUIRED)
    assert found[2][2:5] == ["OBX^2^3", "101^Required field missing^HL70357", "E"]
    assert found[2][8] == "OBX-3 is empty."
    assert found[3][2:5] == ["OBX^1^8", "103^Table value not found^HL70357", "W"]


@pytest.mark.parametrize(
    ("issue", "condition"),
    [
        (TYPE, "200"),
        (error("not-supported", "MSH[1]-9.2", "x"), "201"),
        (error("not-supported", "MSH[1]-11", "x"), "202"),
        (error("not-supported", "MSH[1]-12", "x"), "203"),
        (error("duplicate", "MSH[1]-10", "x"), "205"),
        (error("structure", "PID[1]", "x"), "100"),
        (error("value", "OBX[1]-5", "x"), "102"),
    ],
)
def test_conditions(issue: Issue, condition: str) -> None:
    """Table 0357 by the Issue's code and place."""
    assert answer(issue)[2][3].split("^")[0] == condition


def test_before_2_5_the_error_is_in_err_1() -> None:
    """ERR-1 of segment, sequence, field and code."""
    assert answer(REQUIRED, version="2.3")[2] == ["ERR", "OBX^2^3^101&Required field missing&HL70357"]


@pytest.mark.parametrize("version", ["2.3", "2.4", "2.5", "2.5.1", "2.6", "2.8"])
def test_an_independent_reader_finds_the_same(version: str) -> None:
    """hl7apy parses each answer and finds code and control id where they belong."""
    message = HEAD.format(version=version, accept="", application="").encode()
    found = parse_message(
        acknowledge(message, [REQUIRED], at=AT, control_id="A1").decode().strip("\r"), find_groups=False
    )
    assert (found.msa.msa_1.value, found.msa.msa_2.value, found.msh.msh_10.value) == ("AE", "M1", "A1")
    assert found.msh.msh_12.value == version
    assert found.err.value.startswith("ERR|")


@pytest.mark.parametrize("data", [b"", b"not a message", b"MSH|", b"MSH|^~\\&|A|B"])
def test_what_can_not_be_read_is_answered_all_the_same(data: bytes) -> None:
    """AR with what is known of the message, which may be nothing."""
    found = acknowledge(
        data, [Issue(Severity.FATAL, "structure", "MSH", "No message.")], at=AT, control_id="A1"
    ).decode()
    assert found.startswith("MSH|^~\\&|")
    assert "\rMSA|AR" in found


def test_the_senders_own_separators_are_used() -> None:
    """A sender with other separators gets them back."""
    data = b"MSH$%*?@$GATE$DEV$F$O$20260901$$ORU%R01%ORU_R01$M1$P$2.5.1"
    found = acknowledge(data, [REQUIRED], at=AT, control_id="A1").decode()
    assert found.startswith("MSH$%*?@$F$O$GATE$DEV$")
    assert "\rMSA$AE$M1\r" in found


def test_a_text_can_not_break_the_answer() -> None:
    """Separators and line ends in a text are escaped."""
    found = answer(error("value", "OBX[1]-5", "a|b^c\rMSA|AA|M1"))
    assert [segment[0] for segment in found] == ["MSH", "MSA", "ERR"]


@pytest.mark.parametrize(
    ("accept", "application", "code", "expected"),
    [
        ("", "", "AA", True),
        ("NE", "NE", "AE", False),
        ("ER", "", "CA", False),
        ("ER", "", "CE", True),
        ("SU", "", "CA", True),
        ("NE", "AL", "AA", True),
    ],
)
def test_whether_an_answer_is_wanted(accept: str, application: str, code: str, expected: bool) -> None:
    """Table 0155: always, never, on error, on success."""
    message = HEAD.format(version="2.5.1", accept=accept, application=application).encode()
    assert acknowledgement_wanted(message, code) is expected
