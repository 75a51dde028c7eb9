"""Each own case against its checked expectation, and the loss account of each: no value is lost in silence."""

import re
import sys
from pathlib import Path

import pytest

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
