"""The demo's set-up: a folder with the configuration of `init --demo`, and the programs that use it."""

import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from server import settings
from server.demo.processes import Child, Supervisor, free_ports
from server.domain.errors import FacadeError
from server.initialise import SMTP_OFFSET, initialise

PCP_OFFSET = 4
PATIENCE = 20.0  # seconds that a question is asked again while a program is down


def patiently(once: Callable[[], Any], what: str) -> Any:
    """Repeats until there is something, for a while. Raises FacadeError."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            found = once()
        except (httpx2.HTTPError, OSError):
            found = None
        if found is not None:
            return found
        if time.monotonic() > end:
            raise FacadeError(f"{what}: no answer within {PATIENCE:.0f} s")
        time.sleep(0.1)


@dataclass(frozen=True)
class World:
    """Where everything is."""

    folder: Path
    config: Path
    facade: str
    sandbox: str
    mllp_port: int
    pcp: str
    secrets: dict[str, str]
    supervisor: Supervisor
    http: httpx2.Client

    def now(self) -> datetime:
        """The simulated time."""
        return datetime.fromisoformat(self._asked("GET", f"{self.sandbox}/sandbox/clock")["now"])

    def set_clock(self, now: datetime) -> None:
        """Moves the simulated time."""
        self._asked("POST", f"{self.sandbox}/sandbox/clock", {"now": now.isoformat()})

    def journal(self) -> list[dict[str, Any]]:
        """Every request that the stand-in CMS received."""
        content = self._asked("GET", f"{self.sandbox}/sandbox/journal")
        return content if isinstance(content, list) else content["journal"]

    def plan_faults(self, *faults: dict[str, Any]) -> None:
        """What the stand-in CMS shall get wrong next; once more than planned if it is killed as it takes the plan."""
        self._asked("POST", f"{self.sandbox}/sandbox/faults", list(faults))

    def delivered(self) -> list[dict[str, Any]]:
        """Every notification that the PCP's receiver got."""
        rows: list[dict[str, Any]] = self._asked("GET", f"{self.pcp}/received?full=1")["notifications"]
        return rows

    def _asked(self, method: str, url: str, content: Any = None) -> Any:
        """The JSON of an answer: programs may be killed at any moment, this one's questions are then asked again."""
        return patiently(lambda: self.http.request(method, url, json=content).raise_for_status().json(), url)


def made(folder: Path, ports: tuple[int, int, int] | None = None, store: str | None = None) -> World:
    """Writes the configuration; nothing runs yet. `ports`: facade, sandbox, MLLP. `store`: the store's URL."""
    facade, sandbox, mllp = ports or _ports()
    result = initialise(folder, demo=True, facade_port=facade, sandbox_port=sandbox, mllp_port=mllp, store=store)
    return opened(Path(result.config))


def opened(config: Path) -> World:
    """The world of a configuration that `init --demo` wrote; nothing runs yet. The secrets are in their files."""
    loaded = settings.load(config)
    cms = urlsplit(next(iter(loaded.participants.values())).cms.base_url)
    secrets = {
        c.client_id: c.client_secret_file.read_text().strip() for c in loaded.clients.values() if c.client_secret_file
    }
    folder = config.parent
    return World(
        folder=folder,
        config=config,
        facade=loaded.base_url,
        sandbox=f"http://{cms.netloc}",
        mllp_port=loaded.mllp.port if loaded.mllp else 0,
        pcp=f"http://127.0.0.1:{(cms.port or 0) + PCP_OFFSET}",
        secrets=secrets,
        supervisor=Supervisor(folder),
        http=httpx2.Client(
            transport=httpx2.HTTPTransport(retries=20), timeout=10, trust_env=False, follow_redirects=False
        ),
    )


def _ports() -> tuple[int, int, int]:
    """Free ports; the mailbox listens two above the sandbox, as `init --demo` writes it, the PCP four."""
    while True:
        facade, sandbox, mllp = free_ports(3)
        if not {sandbox + SMTP_OFFSET, sandbox + PCP_OFFSET} & {facade, mllp} and sandbox < 65000:
            return facade, sandbox, mllp


def start_cms(world: World) -> None:
    """The stand-in CMS, the mailbox that gets its e-mails, the PCP's receiver."""
    port = int(world.sandbox.rpartition(":")[2])
    mail_port = int(tomllib.loads((world.folder / "sandbox.toml").read_text())["smtp"]["port"])
    pcp_port = world.pcp.rpartition(":")[2]
    start = world.supervisor.start
    start(
        Child(
            "mailbox",
            ["sandbox.mailbox", "--port", str(mail_port), "--maildir", "mail"],
            f"tcp://127.0.0.1:{mail_port}",
        )
    )
    start(Child("pcp", ["sandbox.pcp", "--port", pcp_port, "--file", "pcp.jsonl"], f"{world.pcp}/received"))
    start(
        Child(
            "sandbox",
            ["sandbox", "--config", "sandbox.toml", "--latency", "0.5", "--port", str(port)],
            f"{world.sandbox}/sandbox/clock",
        )
    )


def start_facade(world: World) -> None:
    """The doors and a worker, as two processes: each can be killed alone."""
    config = ["--config", str(world.config)]
    start = world.supervisor.start
    start(Child("facade", ["server.cli", "serve", "--no-worker", *config], f"{world.facade}/readyz"))
    start(Child("worker", ["server.cli", "worker", *config], ""))
    world.supervisor.watch()
