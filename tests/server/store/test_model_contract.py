"""Any order of writes equals a dictionary's (Hypothesis; reliability 2.4, P)."""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from server.domain.errors import Conflict, UniqueViolation
from server.domain.submission import Operation, Submission
from server.store.base import Changeset, Where

IDS = st.sampled_from(["s1", "s2", "s3"])
KEYS = st.sampled_from([None, "p1|CKM", "p2|CKM"])


class StoreModel(RuleBasedStateMachine):
    """Submissions by id, whose `in_flight_key` is unique unless it is None."""

    engine: ClassVar[Any]
    samples: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.at = self.engine(Path(self.folder.name))
        self.store = self.at.open()
        self.rows: dict[str, Submission] = {}

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()
        self.folder.cleanup()

    def commit(self, changeset: Changeset, *, error: type[Exception] | None) -> None:
        if error is None:
            self.runner.run(self.store.commit(changeset))
        else:
            with pytest.raises(error):
                self.runner.run(self.store.commit(changeset))

    def taken(self, key: str | None, besides: str) -> bool:
        return key is not None and any(row.in_flight_key == key for row in self.rows.values() if row.id != besides)

    @rule(id=IDS, key=KEYS, body=st.binary(max_size=40))
    def insert(self, id: str, key: str | None, body: bytes) -> None:
        """A new row, barred by its id or its key."""
        row = Submission(
            participant_id=self.samples.participant,
            id=id,
            operation=Operation.ALIGN,
            patient_id="p",
            track="CKM",
            agent="a",
            created_at=self.samples.now,
            request_sha256="0",
            in_flight_key=key,
            request=body,
        )
        barred = id in self.rows or self.taken(key, id)
        self.commit(Changeset(insert=(row,)), error=UniqueViolation if barred else None)
        if not barred:
            self.rows[id] = replace(row, revision=1)

    @rule(id=IDS, key=KEYS, body=st.binary(max_size=40), stale=st.booleans())
    def replace_row(self, id: str, key: str | None, body: bytes, stale: bool) -> None:
        """A replacement, right or stale."""
        if id not in self.rows:
            return
        row = replace(self.rows[id], in_flight_key=key, request=body)
        written = replace(row, revision=row.revision - 1) if stale else row
        error = Conflict if stale else UniqueViolation if self.taken(key, id) else None
        self.commit(Changeset(replace=(written,)), error=error)
        if error is None:
            self.rows[id] = replace(row, revision=row.revision + 1)

    @rule(id=IDS)
    def delete(self, id: str) -> None:
        """A row goes."""
        row = self.rows.pop(id, None)
        if row is not None:
            self.commit(Changeset(delete=(row,)), error=None)

    @rule()
    def reopen(self) -> None:
        """The process ends and starts again."""
        self.runner.run(self.store.close())
        self.store = self.at.open()

    @invariant()
    def same_rows(self) -> None:
        """The store holds what the dictionary holds."""
        assert {row.id: row for row in self.runner.run(self.store.find(Submission))} == self.rows
        for id in ("s1", "s2", "s3"):
            assert self.runner.run(self.store.get(Submission, id=id)) == self.rows.get(id)
        flying = Where("in_flight_key", "==", "p1|CKM")
        expected = [row for row in self.rows.values() if row.in_flight_key == "p1|CKM"]
        assert self.runner.run(self.store.find(Submission, flying)) == expected


def test_any_order_of_writes_equals_a_dictionary(engine: Any, samples: Any) -> None:
    """Inserts, replacements, deletions and restarts in any order leave what a dictionary would hold."""
    StoreModel.engine, StoreModel.samples = type(engine), samples
    examples = 12 if hasattr(engine, "path") else 5  # a server answers more slowly than a file
    checks = list(HealthCheck)
    few = settings(
        max_examples=examples, stateful_step_count=20, deadline=None, suppress_health_check=checks, database=None
    )
    run_state_machine_as_test(StoreModel, settings=few)
