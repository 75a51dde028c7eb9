"""The PCP's receiver and the mailbox: both keep what they take before they answer."""

import json
import signal
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from sandbox.mailbox import deliver
from sandbox.pcp import create_app


def notification(kind: str, number: int = 1) -> dict[str, Any]:
    """A Backport notification in R4 form."""
    event = {"name": "notification-event", "part": [{"name": "event-number", "valueString": str(number)}]}
    parameters = [
        {"name": "subscription", "valueReference": {"reference": "Subscription/s"}},
        {"name": "type", "valueCode": kind},
        *([event] if kind == "event-notification" else []),
    ]
    status = {"resourceType": "Parameters", "parameter": parameters}
    return {"resourceType": "Bundle", "id": f"b{number}", "type": "history", "entry": [{"resource": status}]}


def at(path: Path, **options: Any) -> httpx2.AsyncClient:
    """A client at a receiver in process."""
    transport = httpx2.ASGITransport(app=create_app(path, **options))
    return httpx2.AsyncClient(transport=transport, base_url="http://pcp.test")


async def test_received(tmp_path: Path) -> None:
    """Handshake and notifications are answered 200 and listed by type with their ids and event numbers."""
    client = at(tmp_path / "pcp.jsonl")
    for body in (notification("handshake", 0), notification("event-notification", 1)):
        assert (await client.post("/hook/1", json=body)).status_code == 200
    shown = (await client.get("/received")).json()
    assert (shown["count"], shown["by_type"]) == (2, {"handshake": 1, "event-notification": 1})
    row = shown["notifications"][1]
    assert (row["id"], row["events"], row["path"], row["subscription"]) == ("b1", ["1"], "/hook/1", "Subscription/s")
    assert "body" not in row
    assert (await client.get("/received?full=1")).json()["notifications"][1]["body"]["id"] == "b1"


async def test_kept(tmp_path: Path) -> None:
    """A new receiver on the same file knows what the old one took; a line cut off by a crash is dropped."""
    path = tmp_path / "pcp.jsonl"
    await at(path).post("/hook", json=notification("heartbeat"))
    with path.open("ab") as file:
        file.write(b'{"half')
    client = at(path)
    await client.post("/hook", json=notification("event-notification", 2))
    assert (await client.get("/received")).json()["count"] == 2
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["b1", "b2"]


async def test_fails_first(tmp_path: Path) -> None:
    """The first N are answered 503 and not kept."""
    client = at(tmp_path / "pcp.jsonl", fail_first=2)
    codes = [(await client.post("/hook", json=notification("heartbeat"))).status_code for _ in range(3)]
    assert (codes, (await client.get("/received")).json()["count"]) == ([503, 503, 200], 1)


async def test_bad_notification(tmp_path: Path) -> None:
    """What is not JSON is a 400; an empty body, as R4 sends without a payload, is kept."""
    client = at(tmp_path / "pcp.jsonl")
    codes = [(await client.post("/hook", content=body)).status_code for body in (b"<xml/>", b"")]
    assert (codes, (await client.get("/received")).json()["by_type"]) == ([400, 200], {"other": 1})


def test_deliver(tmp_path: Path) -> None:
    """A mail ends up whole in new/, and nothing is left in tmp/."""
    delivered = deliver(tmp_path, b"Subject: x\r\n\r\nbody\r\n")
    assert delivered.parent == tmp_path / "new"
    assert (delivered.read_bytes(), list((tmp_path / "tmp").iterdir())) == (b"Subject: x\r\n\r\nbody\r\n", [])


@contextmanager
def process(module: str, *options: str) -> Iterator[dict[str, Any]]:
    """Runs a module; gives the line that it prints when it listens."""
    started = subprocess.Popen(
        [sys.executable, "-m", module, "--port", "0", *options], stdout=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        yield json.loads(started.stdout.readline())
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(10)
        if started.stdout is not None:
            started.stdout.close()


def test_mailbox_process(tmp_path: Path) -> None:
    """`python -m sandbox.mailbox` takes a mail by SMTP and puts it into the maildir."""
    with process("sandbox.mailbox", "--maildir", str(tmp_path / "inbox")) as line:
        host, port = line["smtp"].split(":")
        with smtplib.SMTP(host, int(port), timeout=10) as client:
            client.sendmail("a@x.example", ["b@y.example"], "Subject: hello\r\n\r\nthere\r\n")
        (delivered,) = (tmp_path / "inbox" / "new").iterdir()
        assert b"Subject: hello" in delivered.read_bytes()


def test_pcp_process(tmp_path: Path) -> None:
    """`python -m sandbox.pcp` takes a notification and keeps it in its file."""
    with process("sandbox.pcp", "--file", str(tmp_path / "pcp.jsonl")) as line:
        assert httpx2.post(f"{line['pcp']}/hook", json=notification("handshake")).status_code == 200
        assert (tmp_path / "pcp.jsonl").read_text().count("\n") == 1
