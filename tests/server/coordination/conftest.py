"""One installation with a real SQLite store, a frozen clock off UTC, and a receiver on a real loopback socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import pytest

from server.clock import machine_now
from server.context import Context
from server.coordination.deliver import deliver, handshake
from server.coordination.update import care_update
from server.domain.care_period import CarePeriod
from server.domain.coordination import Delivery, SubscriptionStatus
from server.domain.errors import Temporary
from server.domain.job import JobKind, NewJob
from server.domain.resource import StoredResource
from server.intake.resources import put
from server.intake.subscription import CONTENT, FILTER, prepare, topics
from server.settings import Author, Client, CmsEndpoint, Participant, Settings
from server.store.base import Changeset, Where
from server.store.crypto import generate_master_key
from server.store.opening import open_store

ENTITY = "ACCES12345"
BASE = "http://facade.test"
STEPS = {JobKind.CARE_UPDATE: care_update, JobKind.HANDSHAKE: handshake, JobKind.DELIVER: deliver}


class FrozenClock:
    """Stands still until it is moved; starts off UTC on purpose."""

    def __init__(self) -> None:
        self.at = datetime(2026, 8, 20, 18, 30, tzinfo=timezone(timedelta(hours=-7))).astimezone(UTC)

    def now(self) -> datetime:
        return self.at


@dataclass
class Receiver:
    """A subscriber's endpoint: takes what comes, answers as told; every request is kept."""

    port: int = 0
    status: int = 200
    extra: str = ""
    silent: bool = False
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?for=us"

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            await self.server.wait_closed()
            self.server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append((headers | {":line": head[0]}, body))
        if not self.silent:
            text = f"HTTP/1.1 {self.status} X\r\n{self.extra}X-Request-Id: r-1\r\nContent-Length: 2\r\n\r\nok"
            writer.write(text.encode())
            await writer.drain()
        writer.close()

    @property
    def notifications(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]

    @property
    def event_numbers(self) -> list[str]:
        found = []
        for bundle in self.notifications:
            for parameter in bundle["entry"][0]["resource"]["parameter"]:
                if parameter["name"] == "notification-event":
                    found.append(parameter["part"][0]["valueString"])
        return found


@dataclass
class World:
    """The context and short ways to do what the doors and the worker do."""

    context: Context
    clock: FrozenClock
    subscription: ClassVar[Callable[..., dict[str, Any]]]
    filtered: ClassVar[Callable[..., dict[str, Any]]]
    blood_pressure: ClassVar[Callable[..., dict[str, Any]]]

    async def subscribe(
        self, resource: dict[str, Any], *, client: str = "pcp-1", subscription_id: str = "sub-1"
    ) -> None:
        """As the REST door does it: what prepare returns and the resource, in one transaction."""
        shown, rows = await prepare(resource, client, ENTITY, subscription_id, self.context)
        stored = await put(
            shown | {"id": subscription_id},
            participant_id=ENTITY,
            patient_id=None,
            received_id=None,
            at=self.clock.now(),
            context=self.context,
        )
        await self.context.store.commit(stored.changes + rows)

    async def store(self, resource: dict[str, Any], *, patient_id: str = "pat-1") -> None:
        stored = await put(
            resource,
            participant_id=ENTITY,
            patient_id=patient_id,
            received_id=None,
            at=self.clock.now(),
            context=self.context,
        )
        await self.context.store.commit(stored.changes)

    async def happen(self, moment: str, subject: str = "") -> None:
        """A moment of care is due to be told."""
        key = f"period-1|{moment}|{subject}"
        job = NewJob(participant_id=ENTITY, kind=JobKind.CARE_UPDATE, key=key, due_at=self.clock.now())
        await self.context.store.commit(Changeset(jobs=(job,)))

    async def work(self, *, limit: int = 200) -> int:
        """Runs what is due now, as the worker does, until nothing is; returns how many steps ran."""
        ran = 0
        while ran < limit:
            jobs = await self.context.store.claim(
                now=self.clock.now(), machine_now=machine_now(), lease_seconds=60.0, limit=1
            )
            if not jobs:
                break
            ran += 1
            try:
                changes = await STEPS[jobs[0].kind](jobs[0], self.context)
            except Temporary as later:
                due = self.clock.now() + timedelta(seconds=later.retry_after_seconds or 1.0)
                await self.context.store.release(jobs[0], due_at=due)
            else:
                await self.context.store.commit(replace(changes, finish=jobs[0]))
        return ran

    async def pass_time(self, whole: timedelta) -> None:
        """The clock goes on; everything that becomes due on the way is done in its order."""
        end = self.clock.at + whole
        while (due := await self.context.store.next_due()) is not None and due <= end:
            self.clock.at = max(self.clock.at, due)
            await self.work()
        self.clock.at = end

    async def status(self, subscription_id: str = "sub-1") -> SubscriptionStatus:
        found = await self.context.store.get(SubscriptionStatus, participant_id=ENTITY, subscription_id=subscription_id)
        assert found is not None
        return found

    async def deliveries(self, subscription_id: str = "sub-1") -> list[Delivery]:
        return list(
            await self.context.store.find(
                Delivery,
                Where("participant_id", "==", ENTITY),
                Where("subscription_id", "==", subscription_id),
                order_by="event_number",
            )
        )

    async def stored(self, kind: str, logical_id: str) -> StoredResource:
        found = await self.context.store.get(StoredResource, participant_id=ENTITY, resource_type=kind, id=logical_id)
        assert found is not None
        return found


def subscription(endpoint: str, *, content: str = "id-only", **changes: Any) -> dict[str, Any]:
    """A Subscription as a PCP's system sends it."""
    channel = {
        "type": "rest-hook",
        "endpoint": endpoint,
        "payload": "application/fhir+json",
        "_payload": {"extension": [{"url": CONTENT, "valueCode": content}]},
        "header": ["Authorization: Bearer very-secret-1"],
    }
    return {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "Care updates for our patients",
        "criteria": topics(BASE)[0],
        "channel": channel,
    } | changes


def filtered(resource: dict[str, Any], *values: str) -> dict[str, Any]:
    """The same with filters."""
    return resource | {"_criteria": {"extension": [{"url": FILTER, "valueString": value} for value in values]}}


def blood_pressure(logical_id: str, when: str, systolic: int, diastolic: int) -> dict[str, Any]:
    """A home reading."""

    def part(code: str, value: int) -> dict[str, Any]:
        quantity = {
            "value": Decimal(value), "unit": "mm[Hg]", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"
        }  # fmt: skip
        return {"code": {"coding": [{"system": "http://loinc.org", "code": code}]}, "valueQuantity": quantity}

    return {
        "resourceType": "Observation",
        "id": logical_id,
        "meta": {"profile": ["http://hl7.org/fhir/us/core/StructureDefinition/us-core-blood-pressure|6.1.0"]},
        "status": "final",
        "category": [
            {
                "coding": [
                    {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}
                ]
            }
        ],
        "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}]},
        "subject": {"reference": "Patient/pat-1"},
        "effectiveDateTime": when,
        "component": [part("8480-6", systolic), part("8462-4", diastolic)],
    }


PATIENT = {
    "resourceType": "Patient",
    "id": "pat-1",
    "meta": {"profile": ["http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient|6.1.0"]},
    "identifier": [
        {"system": "http://terminology.hl7.org/NamingSystem/cmsMBI", "value": "1EG4TE5MK73"},
        {"system": "http://hl7.org/fhir/sid/us-ssn", "value": "999-12-3456"},
    ],
    "name": [{"family": "Quillfeather", "given": ["Ottoline"]}],
    "gender": "female",
    "birthDate": "1951-02-03",
    "address": [{"city": "Nowhere"}],
}


def settings(path: Path, **changes: Any) -> Settings:
    """One participant; a PCP and an HIE that may read, a device gateway that may not."""
    cms = CmsEndpoint(base_url="http://127.0.0.1:1/fhir", token_url="http://127.0.0.1:1/token", client_id="x")
    participant = Participant(
        entity_id=ENTITY,
        name="Example Care",
        payer_id="00831",
        cms=cms,
        author=Author("1234567893", "Marlow", "Ines"),
        time_zone="America/Los_Angeles",
    )
    clients = [
        Client("pcp-1", ENTITY, "pcp", "system/*.rs system/Subscription.cruds"),
        Client("hie-1", ENTITY, "hie", "system/*.cruds"),
        Client("gateway", ENTITY, "ehr", "system/Observation.c system/Subscription.cruds"),
        Client("boss", ENTITY, "operator", "system/*.cruds"),
        Client("stranger", "ACCES99999", "pcp", "system/*.rs system/Subscription.cruds"),
    ]
    other = replace(participant, entity_id="ACCES99999")
    made = Settings(
        path=path / "access-facade.toml",
        base_url=BASE,
        store_url=f"sqlite:///{path / 'access.db'}",
        key_file=path / "master.key",
        participants={ENTITY: participant, "ACCES99999": other},
        clients={client.client_id: client for client in clients},
        subscriber_hosts=("127.0.0.1",),
    )
    return replace(made, **changes)


World.subscription = staticmethod(subscription)
World.filtered = staticmethod(filtered)
World.blood_pressure = staticmethod(blood_pressure)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """An installation with one aligned patient who has a first blood pressure."""
    made = settings(tmp_path)
    generate_master_key(made.key_file)
    store, clock = open_store(made.store_url, made.key_file), FrozenClock()
    async with httpx2.AsyncClient(trust_env=False) as http:
        found = World(Context(settings=made, store=store, clock=clock, http=http), clock)
        period = CarePeriod(
            participant_id=ENTITY,
            id="period-1",
            patient_id="pat-1",
            track="CKM",
            aligned_on=date(2026, 8, 10),
            align_submission_id="sub",
        )
        await store.commit(Changeset(insert=(period,)))
        await found.store(PATIENT)
        await found.store(blood_pressure("bp-1", "2026-08-12T07:15:00-07:00", 148, 92))
        yield found
    await store.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A PCP's endpoint that is up."""
    made = Receiver()
    await made.start()
    yield made
    await made.stop()
