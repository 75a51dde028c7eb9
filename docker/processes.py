"""The processes of docker-compose.yml without a container engine: `python docker/processes.py [--mongodb URL]`.

Reads the same file: commands, mounted configurations, published ports, secrets, restarts. Hosts become loopback,
secrets run/compose, volumes run/data. MongoDB is `mongod` if that is installed, started without authentication on
loopback; else name a replica set with --mongodb, or take the tests' stand-in with --standin (not for data that
matters). Ctrl-C ends it.
"""

import argparse
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SANDBOX = "sandbox"
FACADE = "access-facade"
MONGODB_PORT = 27017
STANDIN = ROOT / "tests" / "server" / "store" / "standin.py"


@dataclass
class Process:
    """One service as a process. `ready`: a URL that answers once it is up."""

    name: str
    command: list[str]
    ready: str | None = None
    again: bool = True
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, logs: Path) -> None:
        """Starts it; its output goes to a file."""
        with (logs / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - the commands of our own file
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )


def plan(compose: dict[str, Any], run: Path, mongodb: str) -> list[Process]:
    """The facade's and the sandbox's processes. Writes their configurations, with this machine's paths and ports."""
    (run / "data").mkdir(parents=True, exist_ok=True)
    found = []
    for name, service in compose["services"].items():
        if not service["image"].startswith(f"{FACADE}:"):
            continue
        ports = _published(service)
        targets = {
            each["target"]: _configuration(compose, name, each, run, mongodb, ports) for each in service["configs"]
        }
        arguments = [str(targets.get(each, ports.get(each, each))) for each in service["command"]]
        arguments = ["127.0.0.1" if each == "0.0.0.0" else each for each in arguments]  # noqa: S104 - taken away
        found.append(
            Process(name, [sys.executable, "-m", "server.cli", *arguments], _ready(service, ports), _restarts(service))
        )
    return sorted(found, key=lambda process: process.name != SANDBOX)


def _published(service: dict[str, Any]) -> dict[str, str]:
    """Host ports by container port."""
    pairs = [str(each).split(":")[1:] for each in service.get("ports", [])]
    return {container: host for host, container in pairs}


def _configuration(
    compose: dict[str, Any], name: str, mounted: dict[str, str], run: Path, mongodb: str, ports: dict[str, str]
) -> Path:
    text = (ROOT / compose["configs"][mounted["source"]]["file"]).read_text("utf-8")
    text = text.replace("/run/secrets/", f"{run / 'compose'}/").replace("/data/", f"{run / 'data'}/")
    text = re.sub(r'"mongodb://[^"]*"', f'"{mongodb}"', text)
    text = text.replace('"0.0.0.0"', '"127.0.0.1"').replace(f"http://{SANDBOX}:", "http://127.0.0.1:")
    for container, host in ports.items():
        text = re.sub(rf"(?m)^port = {container}\b", f"port = {host}", text)
    path = run / f"{name}-{mounted['source']}"
    path.write_text(text, "utf-8")
    return path


def _ready(service: dict[str, Any], ports: dict[str, str]) -> str | None:
    asked = re.search(r"http://127\.0\.0\.1:(\d+)/\w+(?:/\w+)?", " ".join(service["healthcheck"]["test"]))
    return asked.group().replace(f":{asked.group(1)}/", f":{ports[asked.group(1)]}/") if asked else None


def _restarts(service: dict[str, Any]) -> bool:
    return service.get("restart", "no") != "no"


def database(run: Path, *, standin: bool) -> tuple[Process, str]:
    """MongoDB on this machine, and its URL."""
    folder = run / "data" / "mongodb"
    folder.mkdir(parents=True, exist_ok=True)
    if standin:
        command = [sys.executable, str(STANDIN), "--data-dir", str(folder), "--port", str(MONGODB_PORT)]
        return Process("mongodb", command), f"mongodb://127.0.0.1:{MONGODB_PORT}/access_facade?replicaSet=standin"
    mongod = shutil.which("mongod")
    if mongod is None:
        sys.exit("mongod is not installed: name a replica set with --mongodb URL, or try it with --standin")
    command = [mongod, "--replSet=rs0", "--bind_ip=127.0.0.1", f"--port={MONGODB_PORT}", f"--dbpath={folder}"]
    command.append("--setParameter=transactionLifetimeLimitSeconds=10")
    return Process("mongodb", command), f"mongodb://127.0.0.1:{MONGODB_PORT}/access_facade?replicaSet=rs0"


def make_replica_set() -> None:
    """Of one member, if it is none yet."""
    from pymongo import MongoClient
    from pymongo.errors import OperationFailure

    with MongoClient[dict[str, Any]](port=MONGODB_PORT, directConnection=True) as client:
        members = [{"_id": 0, "host": f"127.0.0.1:{MONGODB_PORT}"}]
        try:
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
        except OperationFailure as failure:
            if failure.code != 23:  # AlreadyInitialized
                raise


def answers(url: str, seconds: float = 60.0) -> bool:
    """Whether it does within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - loopback
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    return False


def supervise(processes: list[Process], logs: Path, ended: threading.Event) -> None:
    """Until it is ended; what dies is started again, as the file has it."""
    while not ended.wait(0.5):
        for process in processes:
            if process.again and process.process is not None and process.process.poll() is not None:
                process.start(logs)


def stop(processes: list[Process]) -> None:
    """The last started first."""
    for process in reversed(processes):
        if process.process is not None and process.process.poll() is None:
            process.process.terminate()
            try:
                process.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.process.kill()


def main() -> int:
    """Starts everything and waits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "run")
    parser.add_argument("--mongodb", help="the URL of a replica set that is there")
    parser.add_argument("--standin", action="store_true", help="take the tests' stand-in for MongoDB")
    given = parser.parse_args()
    run = given.run.resolve()
    if not (run / "compose" / "master.key").exists():
        sys.exit(f"{run / 'compose'} holds no keys: run `access-facade init --demo {run / 'compose'}` first")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    processes: list[Process] = []
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    try:
        url = given.mongodb
        if url is None:
            process, url = database(run, standin=given.standin)
            processes.append(process)
            process.start(run)
            time.sleep(2)
            if not given.standin:
                make_replica_set()
        for process in plan(compose, run, url):
            processes.append(process)
            process.start(run)
        for process in processes:
            print(f"{process.name:10} {'ready' if not process.ready or answers(process.ready) else 'NOT ready'}")
        print(f"Running; logs in {run}. Ctrl-C ends it.", flush=True)
        supervise(processes, run, ended)
    finally:
        stop(processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
