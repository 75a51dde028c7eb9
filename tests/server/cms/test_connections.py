"""What keeps a connection to CMS from coming about, at the token, the POST and the poll: part of the fault matrix.

Requirement: fault matrix N1 (connection refused, name server, TLS). In each cell no byte of a request leaves, so CMS
surely has nothing: the state stays, it is tried again later, and CMS being well again, it comes to its end.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from sandbox.settings import load as sandbox_settings
from server.cms.client import connections
from server.domain.submission import SubmissionState
from server.store.base import Changeset
from tests.server.cms.conftest import PARTICIPANT, configured, put, submission
from tests.server.cms.wrong_doors import NAMES, NOBODY, Doors, doors

STATUS = "/fhir/access/Patient/$submission-status/"


@pytest.fixture(scope="module")
def wrong(sandbox_process, tmp_path_factory) -> Iterator[Doors]:
    """All wrong doors and the honest one."""
    beside = Path(sandbox_process[1].config).parent / "sandbox.toml"
    settings = replace(sandbox_settings(beside, latency=0.02), smtp=None, data=None)
    with doors(tmp_path_factory.mktemp("tls"), settings) as made:
        yield made


@pytest.fixture(autouse=True)
def resolver(monkeypatch) -> None:
    """A name server that answers for nobody, at once."""
    real = asyncio.BaseEventLoop.getaddrinfo

    async def answer(loop, host, port, **more):
        if host in NOBODY:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await real(loop, host, port, **more)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", answer)


@contextlib.asynccontextmanager
async def leading(engine, wrong: Doors, monkeypatch, **urls: str) -> AsyncIterator[None]:
    """For a while CMS is thought to be elsewhere; the authority of the test is trusted, as the system's are."""
    monkeypatch.setenv("SSL_CERT_FILE", str(wrong.authority))
    before = engine.context
    configured(engine, **urls)
    async with connections(engine.context.settings) as to_cms:
        engine.context = replace(engine.context, cms=to_cms)
        try:
            yield
        finally:
            engine.context = before


async def moved(engine, name: str, origin: str) -> None:
    """The status URL as if CMS had named it at that origin."""
    row = await submission(engine, name)
    last = row.content_location.decode().rpartition("/")[2]
    there = replace(row, content_location=f"{origin}{STATUS}{last}".encode())
    await engine.context.store.commit(Changeset(replace=(there,)))


@pytest.mark.parametrize("what", NAMES)
@pytest.mark.parametrize("place", ["token", "post", "poll"])
async def test_no_connection(engine, wrong, monkeypatch, place, what):
    """Nothing leaves; tried again; in the end applied with one POST."""
    origin, home = wrong.origins[what], engine.context.settings.participant(PARTICIPANT).cms.base_url
    urls = {"token_url": f"{origin}/oauth2/token"} if place == "token" else {"base_url": f"{origin}/fhir"}
    name = await put(engine)
    if place == "poll":
        await engine.work()
        await moved(engine, name, origin)
    async with leading(engine, wrong, monkeypatch, **urls):
        await engine.work(until=timedelta(seconds=10.5 if place == "poll" else 0))
        row = await submission(engine, name)
    assert row.state is (SubmissionState.ACCEPTED if place == "poll" else SubmissionState.SENDING)
    assert row.posts == row.answers == {"token": 0, "post": 1, "poll": 1}[place]
    assert wrong.seen == []
    if place == "poll":
        await moved(engine, name, home.removesuffix("/fhir"))
    await engine.work(until=timedelta(minutes=10))
    assert (await engine.result(name)).state is SubmissionState.APPLIED
    assert len(engine.cms.journal("check-eligibility")) == 1


async def test_the_right_certificate_and_tls_1_3_lead_to_cms(engine, wrong, monkeypatch):
    """The same authority, another certificate: so the cells above fail for the reason that they name."""
    urls = {"token_url": f"{wrong.honest}/oauth2/token", "base_url": f"{wrong.honest}/fhir"}
    async with leading(engine, wrong, monkeypatch, **urls):
        row = await engine.result(await put(engine))
    assert (row.state, row.posts) == (SubmissionState.APPLIED, 1)
    assert row.content_location.startswith(wrong.honest.encode())


def test_the_stand_in_speaks_nothing_older_than_tls_1_3(wrong):
    """As CMS: a client that offers TLS 1.2 is turned away."""
    old = ssl.create_default_context(cafile=wrong.authority)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    port = int(wrong.honest.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname="127.0.0.1")
