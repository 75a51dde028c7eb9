"""How fast the SQLite engine writes, as JSON: `python -m bench.store_speed [--seconds S] [--rounds N]`.

`ratio` compares hot-path creates with raw sqlite3 in the same run, round by round: the same bytes (unencrypted), the
same tables and indexes, the same two steps for each create, 64 creates in one transaction, one thread, no event loop.
A create is what a door does for one Observation: the raw bytes committed first; then, in a second changeset, the
resource, two look-up rows, the answer kept with the raw bytes, and one audit row.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from server.audit import record
from server.context import new_id
from server.domain.job import JobKind, NewJob
from server.domain.received import Door, Received, ReceivedState
from server.domain.resource import Lookup, StoredResource
from server.store.base import Changeset, Store
from server.store.crypto import DataKey, generate_master_key
from server.store.opening import open_store
from server.store.sqlite.changes import Prepared, prepare
from server.store.sqlite.connection import create_file, open_writer
from server.store.sqlite.migrations import migrate

PARTICIPANT = "ACCES12345"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
BODY = os.urandom(400).hex().encode()  # 800 bytes: a small Observation
GROUP = 64


class PlainKey(DataKey):
    """Seals nothing: what raw sqlite3 would write."""

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        """The bytes as they are."""
        return plain


def create() -> tuple[Changeset, Changeset]:
    """One Observation's two changesets."""
    received_id, resource_id = new_id(), new_id()
    received = Received(
        participant_id=PARTICIPANT,
        id=received_id,
        door=Door.REST,
        agent="ehr-1",
        content_type="application/fhir+json",
        sha256=received_id * 2,
        received_at=NOW,
        content_key=received_id,
        body=BODY,
    )
    answered = dataclasses.replace(received, revision=1, state=ReceivedState.ACCEPTED, answer_status=201, answer=b"{}")
    resource = StoredResource(
        participant_id=PARTICIPANT,
        resource_type="Observation",
        id=resource_id,
        last_updated=NOW,
        patient_id="p1",
        received_id=received_id,
        body=BODY,
    )
    lookups = [
        Lookup(
            participant_id=PARTICIPANT,
            resource_type="Observation",
            parameter=name,
            value=value,
            resource_id=resource_id,
        )
        for name, value in (("code", "http://loinc.org|8480-6"), ("identifier", f"urn:x|{resource_id}"))
    ]
    entry = record(
        participant_id=PARTICIPANT,
        at=NOW,
        agent="ehr-1",
        action="C",
        subtype="create",
        entity=f"Observation/{resource_id}",
        patient_id="p1",
        request_id=received_id,
    )
    return Changeset(insert=(received,)), Changeset(insert=(resource, *lookups), replace=(answered,), audit=(entry,))


async def rate(work: Callable[[], Awaitable[int]], *, tasks: int, seconds: float) -> float:
    """Units of work a second with so many tasks at once."""
    done, end = 0, time.perf_counter() + seconds

    async def one() -> None:
        nonlocal done
        while time.perf_counter() < end:
            count = await work()  # on its own line: others count while this waits
            done += count

    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(tasks)))
    return done / (time.perf_counter() - start)


def raw_rate(folder: Path, seconds: float) -> float:
    """Creates a second of raw sqlite3; the rows are encoded beforehand."""
    keys: dict[str, DataKey] = {PARTICIPANT: PlainKey(b"k" * 32, 1)}
    path = folder / f"{new_id()}.db"
    create_file(path)
    connection = open_writer(path)
    migrate(connection)
    done, spent = 0, 0.0
    while spent < seconds:
        pairs = [create() for _ in range(GROUP)]
        steps = [[prepare((pair[step],), keys) for pair in pairs] for step in (0, 1)]
        start = time.perf_counter()
        for group in steps:
            _write_raw(connection, group)
        spent += time.perf_counter() - start
        done += GROUP
    connection.close()
    return done / spent


def _write_raw(connection: sqlite3.Connection, group: list[Prepared]) -> None:
    cursor = connection.cursor()
    cursor.execute("BEGIN IMMEDIATE")
    for prepared in group:
        for batch in prepared.batches:
            for row in batch.rows:
                cursor.execute(batch.sql, row)
        for _, values, _ in prepared.audit:
            values[-3:] = [_write_raw_count(), "", ""]
            cursor.execute(_AUDIT, values)
    cursor.execute("COMMIT")


def _write_raw_count() -> int:
    global _sequence
    _sequence += 1
    return _sequence


_sequence = 0
_AUDIT = f"INSERT INTO audit VALUES ({', '.join('?' * 13)})"


async def measure(store: Store, seconds: float) -> dict[str, float]:
    """One round of the engine's figures."""

    async def changeset() -> int:
        await store.commit(create()[0])
        return 1

    async def whole_create() -> int:
        for part in create():
            await store.commit(part)
        return 1

    figures = {f"changesets_{n}": await rate(changeset, tasks=n, seconds=seconds) for n in (1, 16, 64)}
    figures |= {f"creates_{n}": await rate(whole_create, tasks=n, seconds=seconds) for n in (1, 16, 64)}
    return figures | {f"claims_{n}": await claims(store, tasks=n, seconds=seconds) for n in (1, 16)}


async def claims(store: Store, *, tasks: int, seconds: float) -> float:
    """Jobs claimed a second, one at a time, out of a queue that is long enough."""
    jobs = tuple(
        NewJob(participant_id=PARTICIPANT, kind=JobKind.POLL, key=new_id(), due_at=NOW)
        for _ in range(int(9000 * seconds))
    )
    await store.commit(Changeset(jobs=jobs))

    async def claim() -> int:
        later = NOW + timedelta(days=1)
        return len(await store.claim(now=later, machine_now=later, lease_seconds=1e9, limit=1))

    return await rate(claim, tasks=tasks, seconds=seconds)


async def run(seconds: float, rounds: int) -> dict[str, Any]:
    """All rounds; medians of each figure and of the ratio within a round."""
    figures: list[dict[str, float]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            generate_master_key(folder / "master.key")
            store = open_store(f"sqlite:///{folder}/bench.db", folder / "master.key")
            raw = raw_rate(folder, seconds)
            figure = await measure(store, seconds)
            start = time.perf_counter()
            report = await store.verify_audit()
            figure["audit_rows_verified"] = report.rows / (time.perf_counter() - start)
            await store.close()
        figures.append({**figure, "raw_creates_grouped_64": raw, "ratio": figure["creates_64"] / raw})
    medians = {name: statistics.median(figure[name] for figure in figures) for name in figures[0]}
    return {name: round(value, 3 if name == "ratio" else 0) for name, value in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(json.dumps({"bench": "store", "per_second": asyncio.run(run(given.seconds, given.rounds))}, indent=2))


if __name__ == "__main__":
    main()
