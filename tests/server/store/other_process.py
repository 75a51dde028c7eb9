"""Another process at the same store: `other_process.py URL KEY_FILE TASK COUNT`. Prints what was acknowledged."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from server.domain.audit import AuditEntry
from server.domain.memory import Remembered
from server.store.base import Changeset, Store
from server.store.opening import open_store

PARTICIPANT = "ACCES12345"
NOW = datetime(2026, 11, 21, 23, 30, tzinfo=UTC)


async def write(store: Store, count: int, prefix: str) -> None:
    """Writes rows with audit entries, 16 at a time, and prints each name once it is on disk."""

    async def some(start: int) -> None:
        for number in range(start, count, 16):
            name = f"{prefix}{number}"
            row = Remembered(participant_id=PARTICIPANT, name=name, value="x" * 200)
            entry = AuditEntry(
                participant_id=PARTICIPANT, at=NOW, action="C", subtype="t", outcome="0", agent="a", entity=name
            )
            await store.commit(Changeset(insert=(row,), audit=(entry,)))
            print(name, flush=True)

    await asyncio.gather(*(some(start) for start in range(16)))


async def claim(store: Store, count: int) -> None:
    """Claims in small bites until nothing is due, `count` loops at once; prints the ids."""

    async def worker() -> None:
        while jobs := await store.claim(
            now=NOW + timedelta(days=1), machine_now=datetime.now(UTC), lease_seconds=60, limit=5
        ):
            for job in jobs:
                print(job.id, flush=True)

    await asyncio.gather(*(worker() for _ in range(count)))


async def main() -> None:
    """Opens, says so, waits for a line on stdin, works."""
    url, key_file, task, count, *rest = sys.argv[1:]
    store = open_store(url, Path(key_file))
    print("ready", flush=True)
    sys.stdin.readline()
    if task == "write":
        await write(store, int(count), rest[0])
    else:
        await claim(store, int(count))
    await store.close()


asyncio.run(main())
