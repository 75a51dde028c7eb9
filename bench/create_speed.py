"""B1: durable creates of single Observations (auth, checks, audit, encryption on) against a bare Starlette echo of the
same bodies, interleaved in one run. Both servers are single processes on one core, the load comes from the other.

Two kinds of body: one measured value (0.7 KB; the goal is about it) and a blood pressure panel (1 KB), which has two
results to check in place of one.
"""

import asyncio
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import uvloop

from bench.load import Load, run
from profiles.canonical import UCUM
from server.demo.processes import free_ports
from server.initialise import initialise

CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
ROUNDS, SECONDS, CONNECTIONS = 5, 2.0, 64
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/"
ECHO = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
async def echo(request):
    return Response(await request.body(), media_type="application/fhir+json")
app = Starlette(routes=[Route("/fhir/Observation", echo, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
"""


Body = Callable[[int, int, str], bytes]


def reading(connection: int, number: int, patient: str) -> bytes:
    """One body weight; no two are alike."""
    value = {"value": 60 + number % 400 / 10, "unit": "kg", "system": UCUM, "code": "kg"}
    return _observation(connection, number, patient, ("us-core-body-weight", "29463-7"), {"valueQuantity": value})


def panel(connection: int, number: int, patient: str) -> bytes:
    """One blood pressure; no two are alike."""
    components = [
        {
            "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
            "valueQuantity": {"value": value, "unit": "mmHg", "system": UCUM, "code": "mm[Hg]"},
        }
        for code, value in (("8480-6", 110 + number % 40), ("8462-4", 70 + number % 20))
    ]
    return _observation(connection, number, patient, ("us-core-blood-pressure", "85354-9"), {"component": components})


def _observation(connection: int, number: int, patient: str, kind: tuple[str, str], values: dict) -> bytes:
    profile, code = kind
    when = f"2026-08-{1 + number % 28:02d}T{number // 28 % 24:02d}:{number // 672 % 60:02d}:{connection % 60:02d}-04:00"
    return json.dumps(
        {
            "resourceType": "Observation",
            "meta": {"profile": [f"{US_CORE}{profile}|6.1.0"]},
            "identifier": [{"system": "urn:example:reading", "value": f"{connection}-{number}"}],
            "status": "final",
            "category": [{"coding": [{"system": CATEGORY, "code": "vital-signs"}]}],
            "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
            "subject": {"reference": f"Patient/{patient}"},
            "effectiveDateTime": when,
            "device": {"display": "Home device"},
            **values,
        }
    ).encode()  # fmt: skip


def requests(connection: int, patient: str, token: str, start: int, body: Body = panel) -> Iterator[bytes]:
    """POSTs with keep-alive."""
    number = start
    while True:
        content = body(connection, number, patient)
        head = (
            f"POST /fhir/Observation HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/fhir+json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        yield head.encode() + content
        number += 1


def _call(url: str, data: bytes, headers: dict[str, str]) -> dict:
    with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers), timeout=10) as answer:
        return json.load(answer)


def _pinned(core: int, *arguments: str, cwd: Path) -> subprocess.Popen[bytes]:
    def pin() -> None:
        os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})

    return subprocess.Popen([sys.executable, *arguments], cwd=cwd, preexec_fn=pin, stderr=subprocess.DEVNULL)


def _wait(url: str) -> None:
    import time

    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{url} does not answer")


def _patient_and_token(facade: str, secret: str) -> tuple[str, str]:
    basic = base64.b64encode(f"ehr-1:{secret}".encode()).decode()
    form = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
    token = _call(f"{facade}/auth/token", b"grant_type=client_credentials", form)["access_token"]
    patient = {
        "resourceType": "Patient",
        "identifier": [{"system": "http://terminology.hl7.org/NamingSystem/cmsMBI", "value": "1EG4TE5MK72"}],
        "name": [{"family": "Delgado"}],
        "gender": "female",
        "birthDate": "1952-03-14",
    }
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/fhir+json"}
    return _call(f"{facade}/fhir/Patient", json.dumps(patient).encode(), headers)["id"], token


Pair = tuple[Load, Load]  # echo, facade


async def measure(echo_port: int, facade_port: int, patient: str, token: str) -> dict[Body, list[Pair]]:
    """Interleaved rounds; the first of each is a warm-up and not counted."""
    found: dict[Body, list[Pair]] = {reading: [], panel: []}
    for turn in range(ROUNDS + 1):
        for number, (body, pairs) in enumerate(found.items()):
            start = (2 * turn + number) * 1_000_000
            make = lambda n, s=start, b=body: requests(n, patient, token, s, b)  # noqa: E731
            echo = await run(echo_port, make, connections=CONNECTIONS, seconds=SECONDS)
            pairs.append((echo, await run(facade_port, make, connections=CONNECTIONS, seconds=SECONDS)))
    return {body: pairs[1:] for body, pairs in found.items()}


def _figures(pairs: list[Pair]) -> dict:
    ratios = [ours.per_second / theirs.per_second for theirs, ours in pairs]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
        "echo_per_second": round(statistics.median(echo.per_second for echo, _ in pairs)),
        "creates_per_second": round(statistics.median(facade.per_second for _, facade in pairs)),
        "p50_ms": round(statistics.median(facade.percentile(0.5) for _, facade in pairs), 1),
        "p99_ms": round(statistics.median(facade.percentile(0.99) for _, facade in pairs), 1),
        "statuses": pairs[-1][1].statuses,
    }


def main() -> dict:
    """Runs it; the result is one JSON object."""
    os.sched_setaffinity(0, {1 % (os.cpu_count() or 1)})
    echo_port, facade_port, sandbox_port, mllp_port = free_ports(4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "facade"
        made = initialise(folder, demo=True, facade_port=facade_port, sandbox_port=sandbox_port, mllp_port=mllp_port)
        config = Path(made.config)
        config.write_text(
            config.read_text()
            .replace(f'source = "http://127.0.0.1:{sandbox_port}/sandbox/clock"', 'source = "system"')
            .replace("# token_seconds = 300", "token_seconds = 3000")
        )
        servers = [
            _pinned(0, "-c", ECHO, str(echo_port), cwd=folder),
            _pinned(0, "-m", "server.cli", "serve", "--no-worker", "--config", str(config), cwd=folder),
        ]
        try:
            _wait(f"http://127.0.0.1:{echo_port}/")
            _wait(f"http://127.0.0.1:{facade_port}/readyz")
            secret = next(c.client_secret for c in made.clients if c.client_id == "ehr-1")
            patient, token = _patient_and_token(f"http://127.0.0.1:{facade_port}", secret)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found = runner.run(measure(echo_port, facade_port, patient, token))
        finally:
            for server in servers:
                server.terminate()
                server.wait()
    return {
        "benchmark": "B1 durable create / bare echo",
        "goal": 0.15,
        **_figures(found[reading]),
        "panel": _figures(found[panel]),
    }


if __name__ == "__main__":
    print(json.dumps(main()))
