"""One participant in Denver, a real SQLite store, a frozen clock, and a worker that runs the clock's own steps."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import httpx2
import pytest

from profiles import fhir_json
from server import schedule
from server.context import Context, new_id
from server.domain.care_period import CarePeriod, Report
from server.domain.coordination import WorkItem
from server.domain.job import Job, JobKind, JobState
from server.domain.record import Record
from server.domain.resource import StoredResource
from server.domain.submission import Operation, Submission, SubmissionState
from server.settings import Author, CmsEndpoint, Participant, Settings
from server.store.base import Changeset, Where
from server.store.crypto import generate_master_key
from server.store.opening import open_store

R = TypeVar("R", bound=Record)
ZONE = ZoneInfo("America/Denver")
ENTITY = "ACCES12345"
PATIENT_ID = "patient-1"
START = date(2026, 9, 1)
STEPS = {
    JobKind.ASSESS: schedule.assess,
    JobKind.OPEN_WINDOW: schedule.open_window,
    JobKind.REMIND: schedule.remind,
    JobKind.CLOSE_WINDOW: schedule.close_window,
}
CODES = {
    "weight": ("29463-7", "kg"),
    "BMI": ("39156-5", "kg/m2"),
    "waist": ("8280-0", "cm"),
    "HbA1c": ("4548-4", "%"),
    "eGFR": ("98979-8", "mL/min/{1.73_m2}"),
    "uACR": ("14959-1", "mg/g"),
    "lipids": ("18262-6", "mg/dL"),
}
PATIENT = {
    "resourceType": "Patient",
    "id": PATIENT_ID,
    "identifier": [{"system": "http://terminology.hl7.org/NamingSystem/cmsMBI", "value": "1EG4TE5MK73"}],
    "name": [{"family": "Quillfeather", "given": ["Ida"]}],
    "gender": "female",
    "birthDate": "1951-02-03",
}


@dataclass
class FrozenClock:
    """Stands still until it is moved."""

    at: datetime

    def now(self) -> datetime:
        """Aware, UTC."""
        return self.at


@dataclass
class Year:
    """A patient's year: puts values in, moves the calendar, plays CMS."""

    context: Context
    clock: FrozenClock
    start: date = START
    entity_id: str = ENTITY
    ran: list[JobKind] = field(default_factory=list)

    def moment(self, days: int, hour: int = 10) -> datetime:
        """A local time so many days after the alignment, in UTC."""
        return datetime.combine(START + timedelta(days=days), time(hour), ZONE).astimezone(UTC)

    async def go(self, days: int, hour: int = 10) -> None:
        """Moves the clock, then runs all that is due."""
        self.clock.at = self.moment(days, hour)
        await self.work()

    async def work(self) -> None:
        """Runs due jobs of the clock until there are none; what other stages do stays in the table."""
        while jobs := await self.context.store.claim(
            now=self.clock.now(), machine_now=datetime.now(UTC), lease_seconds=60, limit=20, kinds=tuple(STEPS)
        ):
            for job in jobs:
                changes = await STEPS[job.kind](job, self.context)
                await self.context.store.commit(replace(changes, finish=job))
                self.ran.append(job.kind)

    async def align(self, code: str = "aligned") -> CarePeriod:
        """CMS aligns the patient now."""
        submission = self.submission(Operation.ALIGN)
        await self.commit(await schedule.alignment_result(submission, code, self.context))
        await self.work()
        return next(one for one in await self.all(CarePeriod) if one.align_submission_id == submission.id)

    def submission(self, operation: Operation, **columns: Any) -> Submission:
        """A submission that CMS took now."""
        values: dict[str, Any] = {
            "participant_id": ENTITY,
            "id": new_id(),
            "operation": operation,
            "patient_id": PATIENT_ID,
            "track": "CKM",
            "agent": "ehr-1",
            "created_at": self.clock.now(),
            "accepted_at": self.clock.now(),
            "posts": 1,
            "request_sha256": "",
            "request": b"{}",
            "content_location": b"https://cms.example/fhir/access/Patient/$submission-status/sub-42",
            "state": SubmissionState.RESULT,
        }
        return Submission(**{**values, **columns})

    async def answer(self, report: Report, code: str = "success") -> None:
        """CMS answers the submission of a report."""
        row = await self.report(report.report_type, report.number)
        submission = await self.context.store.get(Submission, id=row.submission_id)
        assert submission is not None
        taken = replace(submission, accepted_at=self.clock.now(), posts=1, state=SubmissionState.RESULT)
        await self.commit(await schedule.report_result(taken, code, self.context))
        await self.work()

    async def report(self, kind: str = "baseline", number: int = 1) -> Report:
        """One report row."""
        found = await self.context.store.find(
            Report, Where("report_type", "==", kind), Where("number", "==", number), order_by="opens"
        )
        return found[-1]

    async def put(self, resource: dict[str, Any], *, assess: bool = True) -> None:
        """Stores a resource as a door does, and has the patient's periods assessed."""
        kind, logical_id = resource["resourceType"], resource["id"]
        key = {"participant_id": ENTITY, "resource_type": kind, "id": logical_id}
        current = await self.context.store.get(StoredResource, **key)
        row = StoredResource(**key, last_updated=self.clock.now(), patient_id=PATIENT_ID, body=fhir_json.dump(resource))
        if current is None:
            await self.commit(Changeset(insert=(row,)))
        else:
            await self.commit(Changeset(replace=(replace(row, revision=current.revision),)))
        if assess:
            await self.assess()

    async def measured(self, measure: str, value: str, *, at: datetime | None = None, **changes: Any) -> str:
        """Stores one laboratory value or vital sign, an hour old unless said otherwise."""
        code, unit = CODES[measure]
        return await self._observed(code, {"valueQuantity": quantity(value, unit)}, at, changes)

    async def pressure(self, systolic: int, diastolic: int = 80, *, at: datetime | None = None) -> str:
        """Stores one blood pressure."""
        parts = [
            {"code": coded(code), "valueQuantity": quantity(str(value), "mm[Hg]")}
            for code, value in (("8480-6", systolic), ("8462-4", diastolic))
        ]
        return await self._observed("85354-9", {"component": parts}, at, {})

    async def _observed(self, code: str, value: dict[str, Any], at: datetime | None, changes: dict[str, Any]) -> str:
        logical_id = str(changes.get("id", new_id()))
        resource = {
            "resourceType": "Observation",
            "id": logical_id,
            "status": "final",
            "code": coded(code),
            "subject": {"reference": f"Patient/{PATIENT_ID}"},
            "effectiveDateTime": (at or self.clock.now() - timedelta(hours=1)).isoformat(),
            **value,
        }
        await self.put(resource | changes)
        return logical_id

    async def everything(self, *, systolic: int = 138) -> None:
        """All that a CKM baseline needs."""
        for minutes in (5, 4, 3):
            await self.pressure(systolic, at=self.clock.now() - timedelta(minutes=minutes))
        for number, measure in enumerate(CODES):
            await self.measured(measure, str(20 + number))

    async def assess(self) -> None:
        """What a door does when it has stored something of an aligned patient."""
        for period in await self.all(CarePeriod):
            if period.active_key:
                await self.run(schedule.assess, period.id)
        await self.work()

    async def run(self, step: Callable[[Job, Context], Awaitable[Changeset]], key: str) -> None:
        """One step, outside the worker."""
        job = Job(participant_id=ENTITY, id=new_id(), kind=JobKind.ASSESS, key=key, due_at=self.clock.now())
        await self.commit(await step(job, self.context))

    async def commit(self, changes: Changeset) -> None:
        """One transaction."""
        await self.context.store.commit(changes)

    def day(self, days: int) -> date:
        """The calendar day so many days after the alignment."""
        return self.start + timedelta(days=days)

    async def all(self, kind: type[R]) -> list[R]:
        """All rows."""
        return list(await self.context.store.find(kind, Where("participant_id", "==", ENTITY)))

    async def states(self) -> dict[str, str]:
        """The state of each report."""
        return {f"{one.report_type} {one.number}": one.state.value for one in await self.all(Report)}

    async def waiting(self, kind: JobKind) -> dict[str, date]:
        """Waiting jobs of a kind: key without the care period's id, and local day."""
        return {
            job.key.partition("|")[2] or job.key: job.due_at.astimezone(ZONE).date()
            for job in await self.all(Job)
            if job.kind is kind and job.state is JobState.WAITING
        }

    async def texts(self, kind: str | None = None) -> list[str]:
        """What is open in the work list."""
        items = [item for item in await self.all(WorkItem) if item.closed_at is None]
        return [item.text for item in items if kind in (None, item.kind)]


def coded(code: str) -> dict[str, Any]:
    """A LOINC CodeableConcept."""
    return {"coding": [{"system": "http://loinc.org", "code": code}]}


def quantity(value: str, unit: str) -> dict[str, Any]:
    """A UCUM Quantity."""
    number = fhir_json.parse(f'{{"value":{value}}}'.encode())["value"]
    return {"value": number, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}


def settings(folder: Path, reporting: str) -> Settings:
    """One participant."""
    participant = Participant(
        entity_id=ENTITY,
        name="Example Care",
        payer_id="00831",
        cms=CmsEndpoint(base_url="https://cms.example/fhir", token_url="https://cms.example/token", client_id="c"),
        author=Author("1234567893", "Rivera", "Ana"),
        reporting=reporting,
        time_zone=ZONE.key,
    )
    return Settings(
        path=folder / "access-facade.toml",
        base_url="https://facade.example",
        store_url=f"sqlite:///{folder / 'access.db'}",
        key_file=folder / "master.key",
        participants={ENTITY: participant},
        clients={},
    )


@pytest.fixture
def reporting() -> str:
    """`automatic`; a test of the other mode says so."""
    return "automatic"


@pytest.fixture
async def year(tmp_path: Path, reporting: str) -> AsyncIterator[Year]:
    """A store with the patient in it, on the morning of the first day."""
    made = settings(tmp_path, reporting)
    generate_master_key(made.key_file)
    store = open_store(made.store_url, made.key_file)
    clock = FrozenClock(datetime.combine(START, time(9), ZONE).astimezone(UTC))
    async with httpx2.AsyncClient() as http:
        found = Year(Context(settings=made, store=store, clock=clock, http=http), clock)
        await found.put(PATIENT, assess=False)
        yield found
    await store.close()
