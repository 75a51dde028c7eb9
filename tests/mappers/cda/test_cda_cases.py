"""Each own case against its checked expectation, and the loss account of each: no value is lost in silence."""

import re
import sys
from pathlib import Path

import pytest

from mappers.cda import convert
from mappers.conversion import Source

sys.path.insert(0, str(Path(__file__).parent))

from silence import fingerprint, silent
from summary import summary

CASES = Path(__file__).parents[2] / "cases" / "cda"
NAMES = sorted(path.stem for path in CASES.glob("*.xml"))
# What only frames a statement: the status that its template fixes, and the id and code of what holds other statements
# (acts, organizers, relations). Everything else that changes a value changes a resource, the account or an issue.
FRAME = re.compile(r"/statusCode$|/act/(id|code)$|/organizer/code$|/entryRelationship(\[\d+\])?/observation/(id|code)$")


@pytest.mark.parametrize("name", NAMES)
def test_a_case_gives_what_was_checked(name, read):
    """A line a resource, with code, value, time, status and profile; then the account and the issues."""
    assert summary(read(name)) == (CASES / f"{name}.expected.txt").read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_no_value_is_lost_in_silence(name, case):
    """Any value of any entry, made another one, changes a resource, the account or an issue (the loss account)."""
    assert [place for place in silent(case(name)) if not FRAME.search(place)] == []


def test_the_check_itself_finds_a_loss(case, monkeypatch):
    """Were the account empty and a rule missing, the check would say so."""
    monkeypatch.setattr("mappers.cda.context.Document.leave", lambda *_, **__: None)
    monkeypatch.setattr("mappers.cda.context.Document.unread", lambda *_: None)
    assert any("specimen" in place or "supply" in place for place in silent(case("care-summary")))


def test_places_and_ids_are_no_part_of_the_fingerprint(case, read):
    """The check compares what is said, not where it stands."""
    assert fingerprint(read("chart")) == fingerprint(read("chart"))


def test_parts_of_the_header_that_nothing_carries_are_booked(case):
    """Recipients, informants and second signatures are in the account, each with its place."""
    signer = b"<legalAuthenticator><assignedEntity><id root='1.2' extension='a'/></assignedEntity></legalAuthenticator>"
    other = signer.replace(b"legalAuthenticator", b"authenticator").replace(b"'a'", b"'b'")
    person = b"<intendedRecipient><id root='1.2' extension='c'/></intendedRecipient>"
    whom = b"<informationRecipient>" + person + b"</informationRecipient>"
    data = case("care-plan").replace(b"<documentationOf>", signer + other + whom + b"<documentationOf>", 1)
    conversion = convert(data, Source("0" * 64, "2026-02-03T04:05:06Z"))
    booked = {one.location.rpartition("/")[2]: one.kind for one in conversion.unmapped}
    assert (booked["authenticator"], booked["informationRecipient"]) == ("left", "unknown")
