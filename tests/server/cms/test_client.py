"""Addresses: what is sent as it is, what is written anew, and what is never asked."""

from dataclasses import replace

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.cms.client import PLAIN, status, status_url
from server.cms.transport import Answer, NoAnswer
from server.domain.submission import Operation
from tests.server.cms.conftest import PARTICIPANT


@given(st.from_regex(PLAIN, fullmatch=True))
@settings(max_examples=300, deadline=None)
def test_what_is_plain_is_what_a_general_client_would_write(target: str) -> None:
    """The short way changes no byte of a request line."""
    assert httpx2.URL(f"http://cms.example{target}").raw_path.decode() == target


@pytest.mark.parametrize("target", ["/a b", "/ä", "/a/../b", "/./a", "/a%20b", "/a#b", '/"', "", "a"])
def test_what_is_not_plain_takes_the_long_way(target: str) -> None:
    """Characters that do not belong there, dots that mean another place, fragments."""
    assert PLAIN.fullmatch(target) is None


class Line:
    """Takes what is asked of CMS and answers nothing."""

    def __init__(self) -> None:
        self.targets: list[str] = []

    async def exchange(self, _: str, target: str, *__: object, **___: object) -> NoAnswer:
        self.targets.append(target)
        return NoAnswer(False, "nobody")


@pytest.mark.parametrize(
    ("given", "sent"),
    [("/s?a=1&b=$", "/s?a=1&b=$"), ("/a/../s", "/s"), ("/%C3%A4", "/%C3%A4"), ("/ä#f", "/%C3%A4"), ("/\x00", None)],
)
async def test_how_a_status_url_is_asked(engine, given: str, sent: str | None) -> None:
    """As it was given, escaped where a request line needs it; one that is no URL is not asked."""
    participant, line = engine.context.settings.participant(PARTICIPANT), Line()
    origin = participant.cms.base_url.removesuffix("/fhir")
    answer = await status(participant, origin + given, "token", replace(engine.context, cms={origin: line}))
    assert isinstance(answer, NoAnswer)
    assert line.targets == ([sent] if sent else [])


def test_two_status_urls_are_none(engine) -> None:
    """Which of them counts can not be known; the same one twice is one."""
    participant = engine.context.settings.participant(PARTICIPANT)

    def told(*urls: bytes) -> str | None:
        headers = [(b"content-location", url) for url in urls]
        return status_url(participant, Operation.ALIGN, Answer(202, headers, b""))

    assert told() is None
    assert told(b" https://cms.example/1 ", b"https://cms.example/1") == "https://cms.example/1"
    assert told(b"https://cms.example/1", b"https://cms.example/2") == "https://cms.example/1 https://cms.example/2"
