"""The /sandbox addresses, as the contract has them."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from sandbox.clock import machine_now

KEYS = {"seq", "at", "call", "method", "path", "host", "status", "body_sha256", "submission_id", "accepted",
        "authorization", "fault"}  # fmt: skip


async def test_journal(cms: Any) -> None:
    """Every request to CMS's own addresses has a row, in order, with its call and what became of it."""
    taken = await cms.post("align", cms.made.align())
    await cms.poll(taken.headers["content-location"])
    await cms.client.get("/nowhere")
    rows = await cms.get("/sandbox/journal")
    assert all(set(row) >= KEYS for row in rows)
    submission_id = taken.headers["content-location"].rsplit("/", 1)[1]
    assert [(r["seq"], r["call"], r["status"], r["submission_id"], r["accepted"]) for r in rows] == [
        (1, "token", 200, None, False),
        (2, "align", 202, submission_id, True),
        (3, "status", 200, submission_id, False),
        (4, "unknown", 404, None, False),
    ]
    assert (rows[1]["path"], rows[1]["query"]) == ("/fhir/access/Patient/$align", "entityId=ACCES12345")
    assert rows[1]["host"] == "cms.test"


async def test_journal_keeps_no_secret(cms: Any) -> None:
    """The journal names the scheme and a hash, never the token, and holds nothing of the patient."""
    token = await cms.token()
    await cms.post("align", cms.made.align())
    text = (await cms.client.get("/sandbox/journal")).text
    rows = await cms.get("/sandbox/journal")
    assert rows[1]["authorization"].startswith("Bearer sha256:")
    assert not [word for word in (token, "secret", "1EG4TE5MK73", "Doe") if word in text]


async def test_journal_filters(cms: Any) -> None:
    """`after` and `call` narrow the journal."""
    await cms.post("align", cms.made.align())
    await cms.post("unalign", cms.made.unalign())
    assert [row["call"] for row in await cms.get("/sandbox/journal?after=1")] == ["align", "unalign"]
    assert [row["seq"] for row in await cms.get("/sandbox/journal?call=unalign")] == [3]
    assert (await cms.client.get("/sandbox/journal?after=x")).status_code == 400


async def test_clock(cms: Any) -> None:
    """The clock is the machine's until set; then it ticks on from there."""
    before = datetime.fromisoformat((await cms.get("/sandbox/clock"))["now"])
    assert abs(before - machine_now()) < timedelta(seconds=5)
    await cms.client.post("/sandbox/clock", json={"now": "2031-01-02T03:04:05Z"})
    first = datetime.fromisoformat((await cms.get("/sandbox/clock"))["now"])
    second = datetime.fromisoformat((await cms.get("/sandbox/clock"))["now"])
    assert timedelta(0) <= first - datetime.fromisoformat("2031-01-02T03:04:05Z") < timedelta(seconds=5)
    assert second > first


@pytest.mark.parametrize("body", [b"{}", b"x", b'{"now": "yesterday"}', b'{"now": "2031-01-02T03:04:05"}'])
async def test_bad_clock(cms: Any, body: bytes) -> None:
    """What is not a moment with an offset is a 400."""
    assert (await cms.client.post("/sandbox/clock", content=body)).status_code == 400


async def test_beneficiaries(cms: Any) -> None:
    """There are 20 or more people; the guide's John Doe is one, and each result code has its own."""
    people = {row["mbi"]: row for row in await cms.get("/sandbox/beneficiaries")}
    doe = people["1EG4TE5MK73"]
    assert len(people) >= 20
    assert (doe["family"], doe["given"], doe["birthDate"], doe["gender"]) == ("Doe", "John", "1950-01-01", "male")
    assert sum(row["control_group"] for row in people.values()) >= 1


async def test_add_a_beneficiary(cms: Any) -> None:
    """One's own test patient can be added, and is then known to CMS."""
    person = {"mbi": "9AA9AA9AA99", "family": "Test", "given": "Tess", "birthDate": "1949-09-09"}
    stored = await cms.client.post("/sandbox/beneficiaries", json={**person, "control_group": False})
    assert (stored.status_code, stored.json()[0]["control_group"]) == (201, False)
    body = cms.made.align(patient=cms.made.patient("9AA9AA9AA99", "Test", "Tess", "1949-09-09"))
    assert await cms.result("align", body) == "aligned"


async def test_control_group_is_drawn(cms: Any) -> None:
    """About one in ten of those added is drawn into the control group, always the same ones."""
    people = [
        {"mbi": f"1AA{n // 100}AA{n // 10 % 10}AA{n % 10}0", "family": "T", "given": "T", "birthDate": "1949-09-09"}
        for n in range(400)
    ]
    drawn = [row["control_group"] for row in (await cms.client.post("/sandbox/beneficiaries", json=people)).json()]
    again = [row["control_group"] for row in (await cms.client.post("/sandbox/beneficiaries", json=people)).json()]
    assert 20 <= sum(drawn) <= 60
    assert drawn == again


@pytest.mark.parametrize("change", [{"mbi": "1"}, {"family": None}, {"unknown": 1}, {"alignments": [{"track": "CKM"}]}])
async def test_bad_beneficiary(cms: Any, change: dict[str, Any]) -> None:
    """A record that cannot be used is a 400 with the reason."""
    person = {"mbi": "9AA9AA9AA99", "family": "Test", "given": "Tess", "birthDate": "1949-09-09"}
    answer = await cms.client.post("/sandbox/beneficiaries", json=person | change)
    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_elsewhere_follows_the_clock(cms: Any) -> None:
    """What people have elsewhere is counted from the day the clock is set to, while nothing was submitted."""
    await cms.client.post("/sandbox/clock", json={"now": "2027-03-31T12:00:00Z"})
    rows = {row["mbi"]: row for row in await cms.get("/sandbox/alignments")}
    assert rows["2AC4DE5FG66"]["aligned_on"] == "2027-03-01"


async def test_reset(cms: Any) -> None:
    """Back to the start: no journal, no alignment but the seeded, the machine's clock, numbering from 1."""
    await cms.aligned()
    await cms.client.post("/sandbox/faults", json=[{"call": "align", "fault": "http"}])
    await cms.client.post("/sandbox/reset")
    now = datetime.fromisoformat((await cms.get("/sandbox/clock"))["now"])
    assert (
        await cms.get("/sandbox/journal") == await cms.get("/sandbox/faults") == await cms.get("/sandbox/outbox") == []
    )
    assert all(row["seeded"] for row in await cms.get("/sandbox/alignments"))
    assert abs(now - machine_now()) < timedelta(seconds=5)
    await cms.token()
    assert [row["seq"] for row in await cms.get("/sandbox/journal")] == [1]
