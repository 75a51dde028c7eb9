"""Two web and two worker processes on one MongoDB store, killed every few seconds, the store too.

`fleet.py --submissions 2000 [--mongodb URL] [--seconds-between 10]` does it by hand. N patients are aligned through the
front doors; who gets no answer sends the same bytes again, to the other web process. The stand-in CMS is the witness:
its alignments say what took effect, its journal which bytes came.
"""

import argparse
import asyncio
import base64
import json
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from profiles import fhir_json
from server import settings
from server.demo import messages
from server.demo.processes import free_ports
from server.domain.submission import Submission, SubmissionState
from server.initialise import initialise
from server.store.base import Where
from server.store.opening import open_store

STANDIN = Path(__file__).resolve().parents[1] / "server" / "store" / "standin.py"
QUICK = {
    r"(?m)^source = .*$": 'source = "system"',
    r"# idle_seconds = 0.25": "idle_seconds = 0.2",
    r"# lease_seconds = 60.0": "lease_seconds = {lease}",
    r"# timeout_seconds = 20.0": "timeout_seconds = 4.0\n  posts_per_second = 1000",
    r"first_seconds = \[5, 10\]": "first_seconds = [0.5, 1.0]",
    r"every_seconds = \[10, 30\]": "every_seconds = [0.5, 1.0]",
    r"(?ms)^\[mllp\].*?(?=^\[)": "",
}
FINISHED = (SubmissionState.APPLIED, SubmissionState.NEEDS_REVIEW)


@dataclass
class Member:
    """One process, started again whenever it is found dead."""

    name: str
    command: list[str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def start(self) -> None:
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder)
        self.starts += 1

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(how)

    def watch(self) -> None:
        if self.process is None or self.process.poll() is not None:
            self.start()


@dataclass
class Fleet:
    """All of it. `members` are killed; the stand-in CMS is not."""

    folder: Path
    cms: str
    webs: list[str]
    members: dict[str, Member]
    config: Path
    secret: str
    http: httpx2.Client
    kills: Counter[str] = field(default_factory=Counter)

    def watch(self) -> None:
        for member in self.members.values():
            member.watch()

    def kill(self, name: str) -> None:
        self.members[name].kill()
        self.kills[name] += 1

    def journal(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.http.get(f"{self.cms}/sandbox/journal?call=align").json()
        return rows

    def alignments(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.http.get(f"{self.cms}/sandbox/alignments").json()
        return rows


@contextmanager
def fleet(folder: Path, mongodb: str | None = None, *, lease: float = 6.0, members: int = 2) -> Iterator[Fleet]:
    """Everything started, so many web processes and workers; ended with the block."""
    webs = workers = members
    cms, database, *ports = free_ports(2 + webs)
    made = initialise(folder / "facade", demo=True, facade_port=ports[0], sandbox_port=cms)
    team: dict[str, Member] = {}
    if mongodb is None:
        (folder / "database").mkdir()
        command = [sys.executable, str(STANDIN), "--data-dir", str(folder / "database"), "--port", str(database)]
        team["database"] = Member("database", command, folder)
        mongodb = f"mongodb://127.0.0.1:{database}/fleet?replicaSet=standin"
    config = Path(made.config)
    hurry(config, mongodb, lease)
    facade = [sys.executable, "-m", "server.cli"]
    for number, port in enumerate(ports):
        command = [*facade, "serve", "--no-worker", "--port", str(port), "--config", str(config)]
        team[f"web{number}"] = Member(f"web{number}", command, folder)
    for number in range(workers):
        command = [*facade, "worker", "--config", str(config)]
        team[f"worker{number}"] = Member(f"worker{number}", command, folder)
    sandbox = config.with_name("sandbox.toml")
    sandbox.write_text(re.sub(r"(?ms)^\[smtp\].*?(?=^\[|\Z)", "", sandbox.read_text()))
    command = [sys.executable, "-m", "sandbox", "--config", str(sandbox), "--latency", "0.2", "--port", str(cms)]
    witness = Member("cms", command, folder)
    secret = next(client.client_secret for client in made.clients if client.client_id == "ehr-1")
    http = httpx2.Client(timeout=30, trust_env=False)
    started = Fleet(
        folder,
        f"http://127.0.0.1:{cms}",
        [f"http://127.0.0.1:{port}" for port in ports],
        team,
        config,
        secret,
        http,
    )
    try:
        witness.start()
        for name, member in team.items():
            member.start()
            if name == "database":
                reachable(database)
        for url in (f"{started.cms}/sandbox/clock", *(f"{web}/readyz" for web in started.webs)):
            answers(http, url, started)
        yield started
    finally:
        for member in [*team.values(), witness]:
            member.kill()
        for member in [*team.values(), witness]:
            if member.process is not None:
                member.process.wait()
        http.close()


def hurry(config: Path, mongodb: str, lease: float) -> None:
    """Short waits, and the store on MongoDB."""
    text = re.sub(r'(?m)^url = "sqlite[^"]*"', f'url = "{mongodb}"', config.read_text())
    for pattern, replacement in QUICK.items():
        text = re.sub(pattern, replacement.replace("{lease}", str(lease)), text)
    config.write_text(text)


def reachable(port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nothing listens on {port}")


def answers(http: httpx2.Client, url: str, fleet: Fleet) -> None:
    """Until it does; a member that dies meanwhile is started again."""
    end = time.monotonic() + 40
    while time.monotonic() < end:
        try:
            if http.get(url).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        fleet.watch()
        time.sleep(0.1)
    raise TimeoutError(f"{url}: no answer; the logs are in {fleet.folder}")


def mbi(number: int) -> str:
    """An MBI of the right format that is nobody's."""
    letters = "ACDEFGHJKM"
    d = f"{number:06}"
    return (
        f"9{letters[int(d[0])]}{letters[int(d[1])]}{d[2]}{letters[int(d[3])]}{letters[int(d[4])]}{d[5]}QT{d[4]}{d[5]}"
    )


def beneficiary(number: int) -> dict[str, Any]:
    return {
        "mbi": mbi(number), "family": "Delgado", "given": "Rosa", "birthDate": "1952-03-14", "gender": "female",
        "diagnoses": ["E11.22", "I10"], "control_group": False,
    }  # fmt: skip


def request(number: int) -> bytes:
    """The EHR's $align for that patient: always the same bytes."""
    content = fhir_json.parse(messages.operation("align", "CKM"))
    patient = next(each["resource"] for each in content["parameter"] if each["name"] == "patient")
    patient["identifier"][0]["value"] = mbi(number)
    patient["id"] = f"patient-{number}"
    return fhir_json.dump(content)


class Sender:
    """One client that sends until it has an answer that is not 503; turn by turn to each web process."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.token, self.turn = fleet, "", 0
        self.http = httpx2.AsyncClient(timeout=10, trust_env=False)
        self.unavailable = 0

    async def align(self, number: int) -> str:
        body = request(number)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            self.turn += 1
            web = self.fleet.webs[self.turn % len(self.fleet.webs)]
            try:
                answer = await self._post(web, body)
            except httpx2.HTTPError:
                answer = None
            if answer is not None and answer.status_code == 202:
                return str(answer.headers["Content-Location"]).rpartition("/")[2]
            if answer is not None and answer.status_code not in (401, 503):
                raise AssertionError(f"patient {number}: {answer.status_code} {answer.text[:500]}")
            self.unavailable += answer is not None and answer.status_code == 503
            await asyncio.sleep(random.uniform(0.05, 0.3))
        raise AssertionError(f"patient {number}: no answer in 120 s")

    async def _post(self, web: str, body: bytes) -> httpx2.Response | None:
        if not self.token:
            pair = base64.b64encode(f"ehr-1:{self.fleet.secret}".encode()).decode()
            form = {"grant_type": "client_credentials"}
            answer = await self.http.post(f"{web}/auth/token", data=form, headers={"Authorization": f"Basic {pair}"})
            if answer.status_code != 200:
                return None
            self.token = answer.json()["access_token"]
        url = f"{web}/fhir/access/Patient/$align?entityId=ACCES12345"
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        answer = await self.http.post(url, content=body, headers=headers)
        if answer.status_code == 401:
            self.token = ""
        return answer


async def send_all(fleet: Fleet, count: int, *, senders: int = 8) -> tuple[dict[int, str], int]:
    """The acknowledged submission id of each patient, and how often a door said 503."""
    queue = list(range(count))
    acknowledged: dict[int, str] = {}
    refused = 0

    async def one() -> None:
        nonlocal refused
        sender = Sender(fleet)
        while queue:
            number = queue.pop()
            acknowledged[number] = await sender.align(number)
        refused += sender.unavailable
        await sender.http.aclose()

    await asyncio.gather(*(one() for _ in range(senders)))
    return acknowledged, refused


async def disturb(fleet: Fleet, stop: asyncio.Event, *, between: float, store_every: int = 3) -> None:
    """Kills one after the other; every third time the store. What is dead is started again after a moment."""
    names = [name for name in fleet.members if name != "database"]
    turn = 0
    while not stop.is_set():
        with_store = "database" in fleet.members and turn % store_every == store_every - 1
        fleet.kill("database" if with_store else random.choice(names))
        turn += 1
        await asyncio.sleep(random.uniform(0.1, 0.6))
        fleet.watch()
        try:
            await asyncio.wait_for(stop.wait(), random.uniform(0.5, 1.5) * between)
        except TimeoutError:
            continue
    fleet.watch()


async def all_finished(fleet: Fleet, count: int, *, seconds: float) -> list[Submission]:
    """Waits until every submission is at its end."""
    loaded = settings.load(fleet.config)
    store = open_store(loaded.store_url, loaded.key_file)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            if await store.count(Submission, Where("state", "in", FINISHED)) >= count:
                report = await store.verify_audit()
                assert report.broken_at is None, report
                return list(await store.find(Submission))
            fleet.watch()
            await asyncio.sleep(1.0)
        states = Counter(str(row.state) for row in await store.find(Submission))
    finally:
        await store.close()
    raise AssertionError(f"after {seconds} s: {dict(states)}; the logs are in {fleet.folder}")


@dataclass(frozen=True)
class Outcome:
    """What the stand-in CMS says of it."""

    submissions: int
    lost: int  # acknowledged, but without effect at CMS
    duplicates: int  # effects beyond one for each patient
    repeated: int  # POSTs of the same bytes again, after nobody knew whether the first had arrived
    altered: int  # POSTs for one patient with other bytes than before
    states: dict[str, int]
    refused: int  # 503s that the doors gave
    kills: dict[str, int]
    seconds: float


async def run(fleet: Fleet, count: int, *, between: float, seconds: float) -> Outcome:
    """Sends, disturbs, waits, counts."""
    fleet.http.post(
        f"{fleet.cms}/sandbox/beneficiaries", json=[beneficiary(n) for n in range(count)]
    ).raise_for_status()
    started, stop = time.monotonic(), asyncio.Event()
    disturbing = asyncio.create_task(disturb(fleet, stop, between=between))
    try:
        acknowledged, refused = await send_all(fleet, count)
        await asyncio.sleep(2 * between)  # workers go on being killed while they work through it
    finally:
        stop.set()
        await disturbing
    rows = await all_finished(fleet, count, seconds=seconds)
    assert {row.id for row in rows} == set(acknowledged.values())
    aligned = Counter(row["mbi"] for row in fleet.alignments() if row.get("entity_id", "ACCES12345") == "ACCES12345")
    wanted = {mbi(number) for number in range(count)}
    taken = Counter(row["body_sha256"] for row in fleet.journal() if row["accepted"])
    return Outcome(
        submissions=len(rows),
        lost=len(wanted - set(aligned)),
        duplicates=sum(aligned[each] - 1 for each in wanted & set(aligned)) + len(rows) - len(wanted),
        repeated=sum(taken.values()) - len(taken),
        altered=len(taken) - len(wanted),
        states=dict(Counter(str(row.state) for row in rows)),
        refused=refused,
        kills=dict(fleet.kills),
        seconds=round(time.monotonic() - started, 1),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submissions", type=int, default=2000)
    parser.add_argument("--mongodb")
    parser.add_argument("--seconds-between", type=float, default=10.0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fleet-"))
    with fleet(folder, given.mongodb, lease=20.0) as started:
        outcome = asyncio.run(run(started, given.submissions, between=given.seconds_between, seconds=1800))
    print(json.dumps(outcome.__dict__, indent=2))
    good = outcome.lost == outcome.duplicates == outcome.altered == 0
    if good:
        shutil.rmtree(folder)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
