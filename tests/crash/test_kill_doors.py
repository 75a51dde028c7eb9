"""SIGKILL of the doors while they take a request: who got an answer is served, who got none asks again (P1, D1)."""

import contextlib
import hashlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from inputs import beneficiary, mbi, patient_id

from server.demo import messages
from server.demo.ledger import Ledger
from server.demo.processes import free_ports
from server.demo.story import VISITS
from server.domain.received import Received, ReceivedState
from server.domain.resource import StoredResource
from server.domain.submission import Submission, SubmissionState
from server.store.base import Where

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "20"))
LONGEST_DELAY = 0.004
FEWER = {"sqlite": 1, "mongodb": 10}  # a tenth of the kills on the second engine
ALIGN = "/fhir/access/Patient/$align?entityId=ACCES12345"
OURS = Where("participant_id", "==", "ACCES12345")
Json = dict[str, Any]


@dataclass
class Doors:
    """`access-facade serve` under fire, and a caller that repeats what got no answer, byte for byte."""

    made: Any
    port: int
    http: httpx2.Client
    pid: int = 0
    token: str = ""
    answers: dict[bytes, list[httpx2.Response]] = field(default_factory=dict)

    def open(self, trap: Json | None = None) -> None:
        """Starts them; ready when this returns."""
        self.shut()
        more = {} if trap is None else {"trap": {"patient_id": "", **trap}}
        self.pid = self.made.start("serve", port=self.port, **more)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                if self.http.get(f"http://127.0.0.1:{self.port}/healthz").status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.005)
        raise AssertionError(self.made.logs()[-3000:])

    def shut(self) -> int | None:
        """Kills them, unless they have ended already; how they ended."""
        if not self.pid:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        ended: Json = self.made.ended(self.pid)
        self.pid = 0
        return int(ended["code"])

    def post(self, path: str, body: bytes, content_type: str) -> bool:
        """One try; whether there was an answer."""
        self.answers.setdefault(body, [])
        try:
            if not self.token:
                self.token = self._new_token()
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
            answer = self.http.post(f"http://127.0.0.1:{self.port}{path}", content=body, headers=headers)
        except httpx2.TransportError:
            return False
        assert answer.status_code in (200, 202), answer.text
        self.answers[body].append(answer)
        return True

    def _new_token(self) -> str:
        answer = self.http.post(
            f"http://127.0.0.1:{self.port}/auth/token",
            data={"grant_type": "client_credentials"},
            auth=("ehr-1", self.made.secrets["ehr-1"]),
        )
        return str(answer.json()["access_token"])

    def under_fire(self, path: str, bodies: list[bytes], content_type: str, boundary: str) -> int:
        """Each body is sent while the doors die at the boundary; the next ones get it again. How many had no answer."""
        chance = random.Random(f"{path} {boundary}")
        waiting: list[bytes] = []
        unanswered = 0
        for number, body in enumerate(bodies):
            delay = chance.choice((0.0, chance.uniform(0.0, LONGEST_DELAY))) if number else 0.0
            digest = hashlib.sha256(body).hexdigest()
            self.open({"body_sha256": digest, "boundary": boundary, "delay": delay} if boundary != "answered" else None)
            while waiting:
                assert self.post(path, waiting.pop(), content_type)
            if not self.post(path, body, content_type):
                waiting.append(body)
                unanswered += 1
            if boundary == "answered":
                time.sleep(delay)
            assert self.shut() == -signal.SIGKILL
        self.open()
        while waiting:
            assert self.post(path, waiting.pop(), content_type)
        self.shut()
        return unanswered


@pytest.fixture(scope="module")
def doors(grounds: Callable[..., Any]) -> Iterator[Doors]:
    """The doors of one installation, on one port."""
    with httpx2.Client(trust_env=False, timeout=20) as http:
        yield Doors(grounds(name="doors"), free_ports(1)[0], http)


def _fresh(number: int, body: bytes) -> bytes:
    """The same of another patient."""
    own = body.replace(messages.PATIENT_MBI.encode(), mbi(number).encode())
    return own.replace(b"MRN-20731", f"MRN-{number}".encode())


@pytest.mark.parametrize("boundary", ["message stored", "request taken", "answered"])
def test_killed_doors_lose_and_double_no_request_for_cms(doors: Doors, boundary: str, engine: str) -> None:
    """Each request that was made becomes one submission, and one alignment at CMS."""
    first = 900_000 + 1000 * len(boundary)
    numbers = range(first, first + max(1, ROUNDS // FEWER[engine]))
    known = [beneficiary(number) | {"alignments": []} for number in numbers]
    doors.http.post(f"{doors.made.cms}/sandbox/beneficiaries", json=known).raise_for_status()
    bodies = [_fresh(number, messages.operation("align", "CKM")) for number in numbers]
    unanswered = doors.under_fire(ALIGN, bodies, "application/json", boundary)
    assert (unanswered == 0) is (boundary == "answered")
    assert doors.made.run("finish", later=True)["code"] == 0
    sent = [row["body_sha256"] for row in doors.made.journal("align")]
    taken = doors.made.alignments()
    with Ledger(doors.made.config) as ledger:
        rows = {row.request_sha256: row for row in ledger.rows(Submission, OURS)}
        assert len(rows) == len(ledger.rows(Submission, OURS))
    for number, body in zip(numbers, bodies, strict=True):
        row = rows[hashlib.sha256(body).hexdigest()]
        assert (row.state, row.result_code) == (SubmissionState.APPLIED, "aligned")
        assert sent.count(row.request_sha256) == 1
        assert taken[mbi(number)]["state"] == "aligned"
        assert {answer.headers["Content-Location"].rpartition("/")[2] for answer in doors.answers[body]} == {row.id}


@pytest.mark.parametrize("boundary", ["message stored", "answered"])
def test_killed_doors_lose_and_double_no_message(doors: Doors, boundary: str, engine: str) -> None:
    """An HL7 v2 message that was acknowledged is stored; sent again, it is the same one, with the same values."""
    patient = 999_900 + len(boundary)
    doors.made.prepare(patient, more=True)
    at = messages.datetime.fromisoformat("2026-08-20T14:00:00+00:00")
    count = max(1, ROUNDS // FEWER[engine])
    labs = [_fresh(patient, messages.labs(VISITS[0][1], at, f"{boundary[0]}{number:04}")) for number in range(count)]
    doors.under_fire("/hl7v2", labs, "application/hl7-v2", boundary)
    with Ledger(doors.made.config) as ledger:
        states = {row.sha256: row.state for row in ledger.rows(Received, OURS)}
        hashes = [row.sha256 for row in ledger.rows(Received, OURS)]
        about = (OURS, Where("patient_id", "==", patient_id(patient)))
        found = [row for row in ledger.rows(StoredResource, *about) if row.resource_type == "Observation"]
    for message in labs:
        digest = hashlib.sha256(message).hexdigest()
        assert (hashes.count(digest), states[digest]) == (1, ReceivedState.ACCEPTED)
        assert {b"MSA|AA" in answer.content for answer in doors.answers[message]} == {True}
    assert len(found) == len({row.id for row in found})
