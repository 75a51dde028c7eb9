"""`make run`: the demo's set-up, left running for hands-on use, with what to type."""

import signal
import threading
from pathlib import Path

from rich.console import Console

from server.demo import messages
from server.demo.world import World, made, opened, start_cms, start_facade
from server.initialise import CONFIG

PORTS = (8080, 8090, 2575)
DEFAULT = Path("run")

console = Console(highlight=False, soft_wrap=True)


def run(directory: Path | None) -> None:
    """Starts everything in `directory` (default ./run, made if missing, else gone on with) until Ctrl-C."""
    folder = (directory or DEFAULT).resolve()
    config = folder / CONFIG
    world = opened(config) if config.exists() else made(folder, PORTS)
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    try:
        start_cms(world)
        start_facade(world)
        (folder / "check-eligibility.json").write_bytes(messages.operation("check-eligibility", "CKM"))
        _tell(world)
        ended.wait()
    finally:
        world.supervisor.stop()
        world.http.close()


def _tell(world: World) -> None:
    secret = world.secrets["ehr-1"]
    parse = """python3 -c 'import json,sys; print(json.load(sys.stdin)["access_token"])'"""
    bearer = '-H "Authorization: Bearer $TOKEN"'
    operation = f"'{world.facade}/fhir/access/Patient/$check-eligibility?entityId=ACCES12345'"
    console.print(
        f"""
[bold]Running.[/] Ctrl-C ends it. Files and logs: {world.folder}

  facade       {world.facade}/fhir/metadata
  stand-in CMS {world.sandbox}/sandbox/journal   {world.sandbox}/sandbox/beneficiaries
  MLLP         127.0.0.1:{world.mllp_port}
  PCP          {world.pcp}/received

A token (300 s):

  TOKEN=$(curl -s -u ehr-1:{secret} -d grant_type=client_credentials {world.facade}/auth/token | {parse})

Three things to try:

  curl -s {world.facade}/fhir/metadata | head -c 400
  curl -si {bearer} -H 'Content-Type: application/json' -d @{world.folder}/check-eligibility.json {operation}
  curl -s {bearer} {world.facade}/fhir/Patient
"""
    )
