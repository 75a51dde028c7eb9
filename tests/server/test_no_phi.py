"""PHI stays out of logs, errors, metrics and addresses, whatever happens."""

import io
import logging
from collections.abc import Iterator
from datetime import timedelta

import pytest
import structlog

from profiles import fhir_json
from server import logs
from server.demo import messages
from server.demo.story import VISITS

ALIGN = "/fhir/access/Patient/$align?entityId=ACCES12345"
MARKS = (b"Zyxwfamily", b"Qqgiven", b"1EG4TE5MK72", b"19471231", b"1947-12-31", b"MRN-20731")


def _marked(body: bytes) -> bytes:
    for old, new in (
        (b"Delgado", MARKS[0]), (b"Rosa", MARKS[1]), (b"19520314", b"19471231"), (b"1952-03-14", b"1947-12-31"),
    ):  # fmt: skip
        body = body.replace(old, new)
    return body


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All log lines of the test, at the lowest level."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("DEBUG", stream=stream)
    yield stream
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def _broken(body: bytes) -> list[bytes]:
    """The message itself, and what may go wrong with it."""
    return [
        body,
        body[: len(body) // 2],
        body.replace(b"|", b"?"),
        body.replace(b'"', b"'"),
        body.replace(b"<", b"&lt"),
    ]


async def test_marked_values_are_in_no_log_answer_header_or_metric(installation, log):
    """Names, dates and numbers go through every door, whole and broken, and are looked for everywhere."""
    visit, now = VISITS[0][1], installation.clock.at
    sent = [
        ("hie-1", "/hl7v2", messages.labs(visit, now, "LAB0001"), "x-application/hl7-v2+er7"),
        ("hie-1", "/cda", messages.clinic(visit, now, "NOTE0001"), "application/cda+xml"),
        ("hie-1", "/fhir", messages.pressures(visit, now), "application/json"),
        ("ehr-1", "/fhir/Patient", fhir_json.dump(messages.patient()), "application/json"),
        ("ehr-1", ALIGN, messages.operation("align", "CKM"), "application/json"),
    ]  # fmt: skip
    said = []
    for client, path, body, kind in sent:
        for variant in _broken(_marked(body)):
            answer = await installation.call(client, "POST", path, variant, Content_Type=kind)
            if answer.status_code >= 400:
                said.append(answer.content)
            said.append(str(answer.headers).encode())
    await installation.work(until=timedelta(minutes=1))
    said.append((await installation.http.get("/metrics")).content)
    said.append(log.getvalue().encode())
    text = b"\n".join(said)
    assert [mark for mark in MARKS if mark in text] == []


async def test_the_store_file_holds_no_marked_value(installation, tmp_path):
    """Bodies are encrypted and look-ups hashed: neither file nor log of the database shows a name or a number."""
    visit, now = VISITS[0][1], installation.clock.at
    labs = _marked(messages.labs(visit, now, "LAB0001"))
    await installation.call("hie-1", "POST", "/hl7v2", labs, Content_Type="x-application/hl7-v2+er7")
    found = [(path.name, mark) for path in tmp_path.glob("facade.db*") for mark in MARKS if mark in path.read_bytes()]
    assert found == []
