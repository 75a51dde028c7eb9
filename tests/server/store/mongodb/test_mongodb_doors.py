"""The doors on the MongoDB engine: closed politely while the database is away; no PHI in it (P1, C4)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bson
import httpx2
import pytest
from pymongo import MongoClient

from profiles import fhir_json
from server import settings as settings_module
from server.app import create_app
from server.context import Context
from server.demo import messages
from server.demo.story import BEGIN, VISITS
from server.domain.received import Received
from server.domain.resource import StoredResource
from server.initialise import initialise
from server.intake.mllp import listen
from server.store.base import Where
from server.store.mongodb import transactions

LABS = messages.labs(VISITS[0][1], BEGIN, "LAB0001")
ER7 = "x-application/hl7-v2+er7"
PHI = (b"Delgado", b"Rosa", b"1EG4TE5MK73", b"1952-03-14", b"19520314", b"MRN-20731")
ALIGN = "/fhir/access/Patient/$align?entityId=ACCES12345"


@dataclass
class House:
    """The doors in process, and a client with a token."""

    context: Context
    http: httpx2.AsyncClient
    tokens: dict[str, str]

    async def post(self, client: str, path: str, body: bytes, content_type: str) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.tokens[client]}", "Content-Type": content_type}
        return await self.http.post(path, content=body, headers=headers)

    async def mllp(self, message: bytes) -> bytes:
        """What comes back until the connection ends or a frame is whole."""
        assert self.context.settings.mllp is not None
        listener = await listen(self.context, self.context.settings.mllp, port=0)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(b"\x0b" + message + b"\x1c\x0d")
            answer = b""
            while not answer.endswith(b"\x1c\x0d") and (part := await reader.read(65536)):
                answer += part
            writer.close()
            return answer
        finally:
            listener.close()
            await listener.wait_closed()


@pytest.fixture
async def house(server: Any, url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A facade on a database of its own; after a second without a server it gives up."""
    made = initialise(tmp_path / "demo", demo=True, store=f"{url}&serverSelectionTimeoutMS=300")
    settings = settings_module.load(made.config)
    assert settings.mllp is not None
    unbound = replace(settings.mllp, port=0)
    app = create_app(replace(settings, clock_url=None, mllp=None), work=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=settings.base_url) as http,
    ):
        tokens = {}
        for client in made.clients:
            form = {"grant_type": "client_credentials"}
            answer = await http.post("/auth/token", data=form, auth=(client.client_id, client.client_secret))
            tokens[client.client_id] = answer.json()["access_token"]
        context: Context = app.state.context
        yield House(replace(context, settings=replace(settings, mllp=unbound)), http, tokens)


async def test_no_door_promises_what_is_not_stored(server: Any, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is killed: readiness goes down, doors say 503 with Retry-After, MLLP gives no ACK. It comes back:
    all go on by themselves, and what nobody acknowledged was not stored."""
    assert (await house.http.get("/readyz")).status_code == 200
    server.kill()
    monkeypatch.setattr(transactions, "SECONDS", 0.5)
    refused = [
        await house.http.get("/readyz"),
        await house.post("hie-1", "/hl7v2", LABS, ER7),
        await house.post("ehr-1", "/fhir/Patient", fhir_json.dump(messages.patient()), "application/json"),
        await house.post("ehr-1", ALIGN, messages.operation("align", "CKM"), "application/json"),
    ]
    assert [answer.status_code for answer in refused] == [503] * 4
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert not await house.mllp(LABS)
    server.start()
    monkeypatch.setattr(transactions, "SECONDS", 15.0)
    async with asyncio.timeout(20):
        while (await house.http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)
    assert await house.context.store.count(Received) == 0
    assert b"MSA|AA" in (await house.post("hie-1", "/hl7v2", LABS, ER7)).content
    assert b"MSA|AA" in await house.mllp(LABS.replace(b"LAB0001", b"LAB0002"))
    assert await house.context.store.count(Received) == 2


async def test_the_database_holds_no_readable_phi(server: Any, house: House, url: str) -> None:
    """A message, a document, a Patient and a request for CMS: no name, number or date of birth stands in a document
    or an index key, and look-ups by them work."""
    note = messages.clinic(VISITS[0][1], BEGIN, "NOTE0001")
    taken = [
        await house.post("hie-1", "/hl7v2", LABS, ER7),
        await house.post("hie-1", "/cda", note, "application/cda+xml"),
        await house.post("ehr-1", "/fhir/Patient", fhir_json.dump(messages.patient()), "application/json"),
        await house.post("ehr-1", ALIGN, messages.operation("align", "CKM"), "application/json"),
    ]
    assert [answer.status_code for answer in taken] == [200, 200, 200, 202]
    assert all(any(mark in body for mark in PHI) for body in (LABS, note))
    assert await house.context.store.find(StoredResource, Where("resource_type", "==", "Patient"))
    with MongoClient[dict[str, Any]](server.base, directConnection=True) as client:
        database = client[url.rpartition("/")[2].partition("?")[0]]
        stored = b"".join(
            bson.encode(row) for name in database.list_collection_names() for row in database[name].find()
        )
    assert len(stored) > 10_000
    assert [mark for mark in PHI if mark in stored] == []
