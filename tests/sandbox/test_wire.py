"""The sandbox as a process on a real socket: faults that break the connection, and what survives SIGKILL."""

import base64
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

URL = "/fhir/access/Patient/$align?entityId=ACCES12345"
BASIC = {"Authorization": "Basic " + base64.b64encode(b"any:secret").decode()}


@contextmanager
def running(*options: str) -> Iterator[httpx2.Client]:
    """A sandbox process and a client at it; killed at the end."""
    command = [sys.executable, "-m", "sandbox", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        base = json.loads(process.stdout.readline())["sandbox"]
        with httpx2.Client(base_url=base) as client:
            yield client
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[httpx2.Client]:
    """One process for all tests that reset it."""
    with running("--latency", "0") as client:
        yield client


@pytest.fixture
def client(shared: httpx2.Client) -> httpx2.Client:
    """The process, back at its start, with a token in the client's headers."""
    shared.post("/sandbox/reset")
    return signed_in(shared)


def signed_in(client: httpx2.Client) -> httpx2.Client:
    """Gives the client a fresh token."""
    answer = client.post("/oauth2/token", data={"grant_type": "client_credentials"}, headers=BASIC)
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return client


def plan(client: httpx2.Client, fault: str, **more: Any) -> None:
    """Plans one fault for $align."""
    assert client.post("/sandbox/faults", json=[{"call": "align", "fault": fault, **more}]).status_code == 200


def last(client: httpx2.Client) -> dict[str, Any]:
    """The last row of the journal."""
    row: dict[str, Any] = client.get("/sandbox/journal").json()[-1]
    return row


def test_location_as_called(client: httpx2.Client, made: Any) -> None:
    """Content-Location names the host as it was called, and leads to the answer."""
    host = f"localhost:{client.base_url.port}"
    taken = client.post(URL, json=made.align(), headers={"Host": host})
    location = taken.headers["content-location"]
    assert location.startswith(f"http://{host}/fhir/access/Patient/$submission-status/")
    assert (taken.status_code, taken.content, taken.headers["content-length"]) == (202, b"", "0")
    assert client.get(location.removeprefix(f"http://{host}")).status_code == 200


@pytest.mark.parametrize(("fault", "accepted"), [("reset-before", False), ("reset-after", True)])
def test_reset(client: httpx2.Client, made: Any, fault: str, accepted: bool) -> None:
    """The connection is reset; before, nothing was taken, after, the submission was. The journal knows."""
    plan(client, fault)
    with pytest.raises(httpx2.ReadError):
        client.post(URL, json=made.align())
    row = last(client)
    assert (row["fault"], row["accepted"], row["status"]) == (fault, accepted, None)
    assert (row["submission_id"] is not None) is accepted
    aligned = [one for one in client.get("/sandbox/alignments").json() if not one["seeded"]]
    assert aligned == [] or accepted
    assert client.post(URL, json=made.align()).status_code == 202


def test_truncate(client: httpx2.Client, made: Any) -> None:
    """The answer ends before its announced length; the submission was taken."""
    plan(client, "truncate")
    with pytest.raises(httpx2.RemoteProtocolError):
        client.post(URL, json=made.align())
    assert (last(client)["fault"], last(client)["accepted"]) == ("truncate", True)


def test_http(client: httpx2.Client, made: Any) -> None:
    """A planned status with headers, as often as planned, with nothing taken."""
    plan(client, "http", status=503, headers={"Retry-After": "2"}, times=2)
    answers = [client.post(URL, json=made.align()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 202]
    assert answers[0].headers["retry-after"] == "2"
    assert answers[0].json()["issue"][0]["code"] == "transient"
    rows = [row for row in client.get("/sandbox/journal").json() if row["call"] == "align"]
    assert [(row["fault"], row["accepted"]) for row in rows] == [("http", False), ("http", False), (None, True)]


def test_unauthorized(client: httpx2.Client, made: Any) -> None:
    """A planned 401 looks as CMS's own."""
    plan(client, "http", status=401)
    answer = client.post(URL, json=made.align())
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')


def test_html(client: httpx2.Client, made: Any) -> None:
    """A gateway's page in place of CMS's answer."""
    plan(client, "html", status=200)
    answer = client.post(URL, json=made.align())
    assert answer.headers["content-type"].startswith("text/html")
    assert (answer.status_code, last(client)["accepted"]) == (200, False)


def test_redirect(client: httpx2.Client, made: Any) -> None:
    """A redirect to another host, with nothing taken."""
    plan(client, "redirect", status=307, location="http://other.example/")
    answer = client.post(URL, json=made.align())
    assert (answer.status_code, answer.headers["location"]) == (307, "http://other.example/")
    assert last(client)["accepted"] is False


def test_slow(client: httpx2.Client, made: Any) -> None:
    """A late answer: a client that gives up before it has still been heard."""
    plan(client, "slow", seconds=0.4)
    with pytest.raises(httpx2.ReadTimeout):
        client.post(URL, json=made.align(), timeout=0.1)
    assert (last(client)["fault"], last(client)["accepted"]) == ("slow", True)
    plan(client, "slow", seconds=0.2)
    before = time.monotonic()
    assert client.post(URL, json=made.align()).status_code == 202
    assert time.monotonic() - before >= 0.2


def test_no_location(client: httpx2.Client, made: Any) -> None:
    """A 202 that does not say where to poll."""
    plan(client, "no-location")
    answer = client.post(URL, json=made.align())
    assert answer.status_code == 202
    assert "content-location" not in answer.headers
    assert last(client)["accepted"] is True


def test_foreign_location(client: httpx2.Client, made: Any) -> None:
    """A 202 that points to another host."""
    plan(client, "foreign-location", location="https://attacker.example/x")
    plan(client, "foreign-location")
    first, second = (client.post(URL, json=made.align()).headers["content-location"] for _ in range(2))
    assert first == "https://attacker.example/x"
    assert httpx2.URL(second).host != client.base_url.host


def test_plan_order(client: httpx2.Client, made: Any) -> None:
    """Faults are applied to the calls they are planned for, in their order; [] empties the plan."""
    rows = [
        {"call": "status", "fault": "http", "status": 500},
        {"call": "align", "fault": "http", "status": 502},
        {"call": "align", "fault": "http", "status": 504},
        {"call": "align", "fault": "http", "status": 500},
    ]
    client.post("/sandbox/faults", json=rows)
    assert [client.post(URL, json=made.align()).status_code for _ in range(2)] == [502, 504]
    assert [row["call"] for row in client.get("/sandbox/faults").json()] == ["status", "align"]
    assert client.post("/sandbox/faults", json=[]).json() == []
    assert client.post(URL, json=made.align()).status_code == 202


@pytest.mark.parametrize(
    "row",
    [
        {"call": "renew", "fault": "http"},
        {"call": "align", "fault": "fire"},
        {"call": "align", "fault": "http", "x": 1},
    ],
)
def test_bad_plan(client: httpx2.Client, row: dict[str, Any]) -> None:
    """A plan that cannot be used is a 400 and changes nothing."""
    assert client.post("/sandbox/faults", json=[{"call": "align", "fault": "http"}, row]).status_code == 400
    assert client.get("/sandbox/faults").json() == []


def test_token_fault(client: httpx2.Client) -> None:
    """The token endpoint fails in OAuth's shape."""
    client.post("/sandbox/faults", json=[{"call": "token", "fault": "http", "status": 401}])
    answer = client.post("/oauth2/token", data={"grant_type": "client_credentials"}, headers=BASIC)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_survives_sigkill(tmp_path: Path, made: Any) -> None:
    """Killed and started again: journal, clock, plan, token and the submission under way are all there."""
    options = ("--data", str(tmp_path / "sandbox.db"), "--latency", "0.5")
    with running(*options) as client:
        client.post("/sandbox/clock", json={"now": "2030-01-01T12:00:00Z"})
        signed_in(client)
        taken = client.post(URL, json=made.align())
        assert client.get(taken.headers["content-location"]).status_code == 202
        plan(client, "http")
        journal = client.get("/sandbox/journal").json()
        authorization = client.headers["Authorization"]
        path = httpx2.URL(taken.headers["content-location"]).path
    with running(*options) as client:
        client.headers["Authorization"] = authorization
        assert client.get("/sandbox/journal").json() == journal
        assert client.get("/sandbox/clock").json()["now"].startswith("2030-01-01T12:00")
        assert len(client.get("/sandbox/faults").json()) == 1
        answer = wait_for(client, path)
        assert answer["parameter"][0]["valueCodeableConcept"]["coding"][0]["code"] == "aligned"
        assert client.get("/sandbox/journal").json()[: len(journal)] == journal


def wait_for(client: httpx2.Client, path: str) -> dict[str, Any]:
    """Polls until there is a result."""
    for _ in range(100):
        answer = client.get(path)
        if answer.status_code == 200:
            body: dict[str, Any] = answer.json()
            return body
        time.sleep(0.02)
    raise AssertionError("no answer in two seconds")


def test_bad_configuration(tmp_path: Path) -> None:
    """A configuration that cannot be used ends the command with 1 and the reason."""
    (tmp_path / "sandbox.toml").write_text('[sandbox]\nauth_methods = ["none"]\n')
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--config", str(tmp_path / "sandbox.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 1
    assert "client_secret_basic" in ended.stderr


def test_bad_data_file(tmp_path: Path) -> None:
    """A data file that is no database ends the command with 1 and the reason."""
    (tmp_path / "sandbox.db").write_text("not a database, but long enough to be looked at" * 50)
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--data", str(tmp_path / "sandbox.db")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (ended.returncode, "sandbox.db" in ended.stderr, "Traceback" in ended.stderr) == (1, True, False)


def test_answered_is_kept(tmp_path: Path, made: Any) -> None:
    """What was answered before SIGKILL is in the journal afterwards, once."""
    options = ("--data", str(tmp_path / "sandbox.db"))
    with running(*options) as client:
        signed_in(client)
        answered = [
            client.post(URL, json=made.align()).headers["content-location"].rsplit("/", 1)[1] for _ in range(20)
        ]
    with running(*options) as client:
        rows = client.get("/sandbox/journal").json()
    assert [row["submission_id"] for row in rows if row["accepted"]] == answered


def test_reset_during(client: httpx2.Client, made: Any) -> None:
    """The connection is reset before the request's body is read: nothing was taken."""
    plan(client, "reset-during")
    with pytest.raises(httpx2.TransportError):
        client.post(URL, json=made.align())
    assert (last(client)["fault"], last(client)["accepted"], last(client)["status"]) == ("reset-during", False, None)


def test_wrong_length(client: httpx2.Client, made: Any) -> None:
    """More bytes come than the head of the answer promised."""
    plan(client, "wrong-length")
    answer = client.post(URL, json=made.align())
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (202, "0", b"")


def test_slow_bytes(client: httpx2.Client, made: Any) -> None:
    """One byte after the other: the head alone takes longer than a reader may wait."""
    plan(client, "slow-bytes", seconds=0.002)
    began = time.monotonic()
    assert client.post(URL, json=made.align()).status_code == 202
    assert time.monotonic() - began > 0.2


@pytest.mark.parametrize("fault", ["gzip-bomb", "huge"])
def test_large_answers(client: httpx2.Client, made: Any, fault: str) -> None:
    """The planned number of bytes, packed or not."""
    plan(client, fault, bytes=3_000_000)
    assert len(client.post(URL, json=made.align()).content) == 3_000_000


def test_malformed(client: httpx2.Client, made: Any) -> None:
    """JSON that never ends, under the planned status; nothing was taken."""
    plan(client, "malformed", status=400)
    answer = client.post(URL, json=made.align())
    assert (answer.status_code, last(client)["accepted"]) == (400, False)
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_relative_location(client: httpx2.Client, made: Any) -> None:
    """A status URL without scheme and host."""
    plan(client, "relative-location")
    assert client.post(URL, json=made.align()).headers["content-location"].startswith("/fhir/access/Patient/$sub")


def test_duplicate_headers(client: httpx2.Client, made: Any) -> None:
    """All headers twice; the second Content-Location may be another."""
    plan(client, "duplicate-headers", location="http://elsewhere.invalid/")
    given = client.post(URL, json=made.align()).headers.get_list("content-location")
    assert (len(given), given[1]) == (2, "http://elsewhere.invalid/")


def test_no_content(client: httpx2.Client, made: Any) -> None:
    """A planned 204 has no body."""
    plan(client, "http", status=204)
    answer = client.post(URL, json=made.align())
    assert (answer.status_code, answer.content) == (204, b"")
