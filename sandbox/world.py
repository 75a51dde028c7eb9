"""All that a request can touch, in one value."""

import hashlib
import json
import sqlite3
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from sandbox import tables
from sandbox.clock import Clock
from sandbox.codes import FOLDER, Codes
from sandbox.settings import BadSettings, Settings
from sandbox.store import Store


@dataclass(slots=True)
class World:
    """Settings, state, clock and code lists of one sandbox.

    `jwks`: what jwks_url gave. `swept_on`: the day whose effects are in the state already; None to look again.
    """

    settings: Settings
    store: Store
    clock: Clock
    codes: Codes
    jwks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    swept_on: date | None = None

    def beneficiary(self, mbi: str) -> dict[str, Any] | None:
        """A person's record, or None."""
        row = self.store.one("SELECT record FROM beneficiary WHERE mbi = ?", mbi)
        return None if row is None else json.loads(row["record"])

    def put_beneficiary(self, record: dict[str, Any]) -> dict[str, Any]:
        """Stores a person; whether the draw put it into the control group is settled here unless given."""
        record = {"control_group": self._drawn(record["mbi"]), **record}
        self.store.run("DELETE FROM alignment WHERE mbi = ? AND seeded = 1", record["mbi"])
        self.store.run("INSERT OR REPLACE INTO beneficiary VALUES (?, ?)", record["mbi"], json.dumps(record))
        for place in record.get("alignments", []):
            self._align_elsewhere(record, place)
        return record

    def reset(self) -> None:
        """Back to the start: the synthetic people, no journal, the machine's clock."""
        self.store.clear()
        self.swept_on = None
        self.clock.read()
        self.seed()

    def seed(self) -> None:
        """Puts the synthetic people in, with what they have elsewhere counted from today."""
        for record in tables.people():
            self.put_beneficiary(record)
        self.store.set("seeded", True)

    def reseed_if_unused(self) -> None:
        """While nothing was submitted, days elsewhere follow the clock when it is set."""
        if self.store.one("SELECT 1 FROM submission LIMIT 1") is None:
            for row in self.store.all("SELECT record FROM beneficiary"):
                self.put_beneficiary(json.loads(row["record"]))

    def _drawn(self, mbi: str) -> bool:
        digest = hashlib.sha256(f"{self.settings.seed}|{mbi}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % int(tables.program()["control"]["one_in"]) == 0

    def _align_elsewhere(self, record: dict[str, Any], place: dict[str, Any]) -> None:
        aligned_on = self.clock.today() - timedelta(days=place["days_ago"])
        self.store.insert(
            "alignment", id=f"seed-{record['mbi']}-{place['track']}", mbi=record["mbi"], track=place["track"],
            entity_id=place["entity_id"], aligned_on=aligned_on.isoformat(), state="aligned",
            diagnoses=json.dumps(record.get("diagnoses", [])), seeded=1,
        )  # fmt: skip


def open_world(settings: Settings) -> World:
    """Opens or makes the state. Raises BadSettings if the file cannot hold it."""
    try:
        store = Store(settings.data)
    except sqlite3.Error as bad:
        raise BadSettings(f"{settings.data} cannot keep the sandbox's state: {bad}") from None
    world = World(settings, store, Clock(store), Codes(settings.definitions or FOLDER))
    if not store.setting("seeded"):
        with store.transaction():
            world.seed()
    return world
