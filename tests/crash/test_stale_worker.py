"""Several workers on one store, one of them stopped beyond its lease and continued (reliability C3, promises P2 to P4).

What was on the wire when a worker stopped can not be called back, and CMS can not check a lease. On one machine
(SQLite) the others see that its process lives and leave it be: CMS gets nothing twice. Several machines (MongoDB) can
not tell a stopped worker from a dead one: there the same bytes may reach CMS twice, from UNCERTAIN and written down
before. Nowhere may there be a second effect, a POST that nobody counted, or a write of the stale worker.
`CRASH_ROUNDS` sets how often a worker is stopped.
"""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from inputs import mbi, store_named

from server import settings as settings_module
from server.demo.ledger import Ledger
from server.domain.care_period import Report, ReportState
from server.domain.coordination import Delivery, DeliveryState
from server.domain.submission import Submission, SubmissionEvent, SubmissionState
from server.store.base import Where
from server.store.holds import Hold
from server.store.opening import open_holds

ROUNDS = max(1, int(os.environ.get("CRASH_ROUNDS", "20")) // 3)
# Installations side by side, by workers: most of a round is waiting for a lease to run out. One on MongoDB: a stopped
# worker may be within a transaction, and the stand-in lets nobody else in meanwhile.
STORES = {2: 8, 4: 4}
AT_ONCE = 3  # reports of one installation and round
LEASE = 1.0
OURS = Where("participant_id", "==", "ACCES12345")


@pytest.mark.parametrize("workers", [2, 4])
def test_a_worker_stopped_beyond_its_lease_changes_nothing(
    grounds: Callable[..., Any], workers: int, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each report takes effect once at CMS and here, however late a stopped worker goes on."""
    made = grounds(lease=LEASE, name=f"stale-{workers}")
    chance = random.Random(workers)
    run = uuid4().hex[:8]
    stores = [f"stale-{run}-{number}" for number in range(STORES[workers] if engine == "sqlite" else 1)]
    numbers = {
        name: [10_000 * place + number for number in range(ROUNDS * AT_ONCE)] for place, name in enumerate(stores)
    }
    for name in stores:
        made.prepare(*numbers[name], stores=[name])
    pids = {name: [made.start("work", stores=[name], long=True) for _ in range(workers)] for name in stores}
    on_the_wire = 0
    for turn in range(ROUNDS):
        stopped = []
        for name in stores:
            made.here("due", stores=[name], patients=numbers[name][turn * AT_ONCE : (turn + 1) * AT_ONCE])
            stopped.append(chance.choice(pids[name]))
            time.sleep(chance.uniform(0.0, 0.06))
            os.kill(stopped[-1], signal.SIGSTOP)
        time.sleep(LEASE + 0.1)
        on_the_wire += sum(len(_held(made, name)) for name in stores)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    for name in stores:
        assert made.run("finish", stores=[name])["code"] == 0, made.logs()[-3000:]
    for pid in [pid for name in stores for pid in pids[name]]:
        os.kill(pid, signal.SIGTERM)
        assert made.ended(pid)["code"] == 0
    again = sum(_check(made, name, numbers[name]) for name in stores)
    refused = made.logs().count('"lease lost"')
    with capsys.disabled():
        print(
            f" [{workers} workers, {ROUNDS * len(stores)} stops, {on_the_wire} with a report in hand: "
            f"{refused} stale writes refused, {again} sent again] ",
            end="",
        )
    assert refused > 0, "no worker was stopped long enough to lose a job"
    assert again == 0 or engine != "sqlite"


def _check(made: Any, store: str, numbers: list[int]) -> int:
    """The oracle for one installation; how many reports CMS got twice."""
    sent = [row["body_sha256"] for row in made.journal() if row["accepted"]]
    taken = made.alignments()
    with Ledger(_config_of(made, store)) as ledger:
        submissions = {row.patient_id: row for row in ledger.rows(Submission, OURS)}
        uncertain = {e.submission_id for e in ledger.rows(SubmissionEvent) if e.state is SubmissionState.UNCERTAIN}
        reports = {row.patient_id: row.state for row in ledger.rows(Report, OURS) if row.report_type == "baseline"}
        delivered = [row.patient_id for row in ledger.rows(Delivery, OURS) if row.state is DeliveryState.DELIVERED]
        assert len(submissions) == len(ledger.rows(Submission, OURS)) == len(numbers)
        chain = ledger.ask(lambda context: context.store.verify_audit())
    assert chain.broken_at is None
    for number in numbers:
        row = submissions[f"patient-{number}"]
        assert row.state is SubmissionState.APPLIED
        assert 1 <= sent.count(row.request_sha256) <= row.posts
        assert sent.count(row.request_sha256) == 1 or row.id in uncertain
        assert [report["report_type"] for report in taken[mbi(number)]["reports"]] == ["baseline"]
        assert reports[row.patient_id] is ReportState.ACCEPTED
        assert delivered.count(row.patient_id) == 1
    return sum(sent.count(row.request_sha256) > 1 for row in submissions.values())


def _held(made: Any, store: str) -> list[Hold]:
    """What living processes have in hand, all others having waited for longer than a lease."""
    return open_holds(settings_module.load(_config_of(made, store)).store_url).held()


def _config_of(made: Any, store: str) -> Path:
    config = made.config.parent / f"{store}.toml"
    text = made.config.read_text()
    url = re.search(r'(?m)^url = "([^"]*)"', text)
    assert url is not None
    config.write_text(text.replace(url[1], store_named(url[1], store)))
    return Path(config)
