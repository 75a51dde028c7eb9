"""A stand-in CMS, a PCP's receiver and a warm parent of victims, each a process of its own."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from server.initialise import initialise

BEGIN = datetime(2026, 8, 20, 14, 0, tzinfo=UTC)
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the modules that the tests share with the victim
inputs = importlib.import_module("inputs")
STANDIN = HERE.parent / "server" / "store" / "standin.py"
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # the stand-in syncs after each statement
ENGINES = ("sqlite", "mongodb")
Json = dict[str, Any]

# What makes a round take milliseconds: answers, polls and idle workers as fast as they can be.
FASTER = {
    r'source = "http://[^"]*"': 'source = "system"',
    r"# idle_seconds = 0.25": "idle_seconds = {idle}",
    r"# lease_seconds = 60.0": "lease_seconds = {lease}",
    r"# timeout_seconds = 20.0": "timeout_seconds = {timeout}\n  posts_per_second = 100000",
    r"first_seconds = \[5, 10\]": "first_seconds = [0.01, 0.02]",
    r"every_seconds = \[10, 30\]": "every_seconds = [0.01, 0.02]",
    r"(disclosure|switch_consent)_required = true": r"\1_required = false",
    r"\[mllp\][^\n]*\nhost[^\n]*\nport[^\n]*\nparticipant[^\n]*\nclient_id[^\n]*\n": "",
}


@dataclass
class Child:
    """A program that runs beside the test and says in its first line where it is."""

    arguments: list[str]
    log: Path
    process: subprocess.Popen[str] = field(init=False)
    first_line: str = field(init=False)

    def __post_init__(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.log.parent,
            )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass
class Grounds:
    """Everything a test of crashes talks to. `secrets` by client id; `seen`: CMS's last known request."""

    config: Path
    cms: str
    pcp: str
    parent: Child
    secrets: dict[str, str]
    http: httpx2.Client
    seen: int = 0

    def start(self, do: str, **more: Any) -> int:
        """Forks a child; its pid."""
        return int(self._tell({"do": do, **more})["pid"])

    def ended(self, pid: int) -> Json:
        """Waits for a child: `code` (the signal as a negative number) and the boundaries it `passed`."""
        return self._tell({"wait": pid})

    def here(self, do: str, **more: Any) -> None:
        """The same work in the parent of all children."""
        self._tell({"do": do, "here": True, **more})

    def run(self, do: str, **more: Any) -> Json:
        """A child from its start to its end."""
        return self.ended(self.start(do, **more))

    def _tell(self, command: Json) -> Json:
        stdin, stdout = self.parent.process.stdin, self.parent.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(command) + "\n")
        stdin.flush()
        answer: Json = json.loads(stdout.readline())
        return answer

    def prepare(self, *numbers: int, more: bool = False, **where: Any) -> None:
        """Aligned patients with all their values, here and at CMS."""
        known = [inputs.beneficiary(number) for number in numbers]
        self.http.post(f"{self.cms}/sandbox/beneficiaries", json=known).raise_for_status()
        self.here("prepare", patients=numbers, subscriber=None if more else self.pcp, **where)
        self.here("finish", **where)

    def journal(self, call: str = "report-data", *, after: int = 0) -> list[Json]:
        """What CMS got, in order."""
        rows: list[Json] = self.http.get(f"{self.cms}/sandbox/journal?call={call}&after={after}").json()
        return rows

    def last(self) -> int:
        """The number of the last request that CMS got."""
        rows = self.http.get(f"{self.cms}/sandbox/journal?after={self.seen}").json()
        self.seen = int(rows[-1]["seq"]) if rows else self.seen
        return self.seen

    def alignments(self) -> dict[str, Json]:
        """CMS's own view, by MBI."""
        return {row["mbi"]: row for row in self.http.get(f"{self.cms}/sandbox/alignments").json()}

    def notices(self) -> list[Json]:
        """What the PCP holds of event notifications."""
        rows = self.http.get(f"{self.pcp}/received").json()["notifications"]
        return [row for row in rows if row["type"] == "event-notification"]

    def logs(self) -> str:
        return "".join(path.read_text() for path in self.config.parent.parent.glob("*.log"))


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each store engine in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def mongodb() -> Iterator[str]:
    """The URL of a MongoDB server: that of ACCESS_FACADE_TEST_MONGODB, else the stand-in."""
    if named := os.environ.get("ACCESS_FACADE_TEST_MONGODB"):
        yield named
        return
    folder = Path(tempfile.mkdtemp(prefix="standin-", dir=MEMORY))
    server = Child([str(STANDIN), "--data-dir", str(folder), "--port", "0"], folder / "log")
    yield f"mongodb://127.0.0.1:{server.first_line.split()[1]}/?replicaSet=standin"
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def grounds(
    tmp_path_factory: pytest.TempPathFactory, engine: str, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Grounds]]:
    """Makes an installation with its own store of the engine, its own CMS, its own PCP."""
    tmp_path = tmp_path_factory.mktemp("crash")
    base, _, options = request.getfixturevalue("mongodb").partition("?") if engine == "mongodb" else ("", "", "")
    children: list[Child] = []
    http = httpx2.Client(trust_env=False, timeout=30)

    def started(name: str, *arguments: str) -> Child:
        children.append(Child(list(arguments), tmp_path / f"{name}.log"))
        return children[-1]

    def make(*, lease: float = 60.0, latency: float = 0.01, name: str = "a") -> Grounds:
        folder = tmp_path / name
        (tmp_path / f"{name}-sandbox.toml").write_text(_sandbox(folder))
        cms_arguments = ("--port", "0", "--latency", str(latency), "--config", str(tmp_path / f"{name}-sandbox.toml"))
        cms = json.loads(started(f"{name}-cms", "-m", "sandbox", *cms_arguments).first_line)["sandbox"]
        pcp_file = str(tmp_path / f"{name}-pcp.jsonl")
        pcp = json.loads(started(f"{name}-pcp", "-m", "sandbox.pcp", "--port", "0", "--file", pcp_file).first_line)
        made = initialise(
            folder,
            demo=True,
            sandbox_port=int(cms.rpartition(":")[2]),
            store=f"{base.rstrip('/')}/crash_{uuid4().hex[:12]}?{options}" if engine == "mongodb" else None,
        )
        _hurry(made.config, lease)
        http.post(f"{cms}/sandbox/clock", json={"now": BEGIN.isoformat()}).raise_for_status()
        parent = started(f"{name}-victim", str(HERE / "victim.py"), str(made.config), BEGIN.isoformat())
        assert parent.first_line, (tmp_path / f"{name}-victim.log").read_text()
        secrets = {client.client_id: client.client_secret for client in made.clients}
        return Grounds(made.config, cms, pcp["pcp"], parent, secrets, http)

    yield make
    for child in reversed(children):
        child.stop()
    http.close()


def _sandbox(folder: Path) -> str:
    clients = [("example", "ACCES12345"), ("other", "ACCES54321")]
    return "".join(
        f'[[client]]\nclient_id = "{name}"\nentity_id = "{entity}"\n'
        f'client_secret_file = "{folder}/cms-{entity}.secret"\njwks_file = "{folder}/cms-{entity}.jwks.json"\n'
        for name, entity in clients
    )


def _hurry(config: Path, lease: float) -> None:
    text = config.read_text()
    values = {"{lease}": lease, "{timeout}": min(20.0, lease / 2), "{idle}": 0.01 if lease > 2 else 0.03}
    for pattern, replacement in FASTER.items():
        value = re.sub("{.*?}", lambda name: str(values[name[0]]), replacement)
        text, count = re.subn(pattern, value, text)
        assert count or "required" in pattern, pattern
    config.write_text(text)
