"""From a built submission to CMS's result, through everything that CMS and the network do wrong."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.clock import machine_now
from server.cms import client, transport
from server.cms import submit as submit_module
from server.cms import token as tokens
from server.domain.coordination import WorkItem
from server.domain.errors import Deferred, Temporary
from server.domain.job import Job, JobKind, NewJob
from server.domain.submission import SubmissionEvent, SubmissionState
from server.store.base import Changeset, Where
from tests.server.cms.conftest import configured, put, submission

NO_JOB = {
    "participant_id": "ACCES12345",
    "id": "none",
    "kind": JobKind.SUBMIT,
    "due_at": datetime(2026, 8, 20, tzinfo=UTC),
}


async def _asked(installation, body: bytes, name: str = "check-eligibility") -> str:
    answer = await installation.operation(name, body)
    return answer.headers["Content-Location"].rpartition("/")[2]


async def test_503_with_retry_after_is_waited_for(installation, eligibility):
    """The same bytes go out again, not before CMS's time is over."""
    installation.cms.fault("check-eligibility", "http", status=503, headers={"Retry-After": "40"})
    name = await _asked(installation, eligibility)
    await installation.work(until=timedelta(seconds=39))
    assert len(installation.cms.journal("check-eligibility")) == 1
    row = await installation.result(name)
    first, second = installation.cms.journal("check-eligibility")
    assert first["body_sha256"] == second["body_sha256"]
    assert (row.result_code, row.posts) == ("eligible", 2)


async def test_401_renews_the_token_once_and_repeats(installation, eligibility):
    """A new token, one repeat, no wait."""
    installation.cms.fault("check-eligibility", "http", status=401)
    name = await _asked(installation, eligibility)
    await installation.work()
    assert (await installation.submission()).state is SubmissionState.ACCEPTED
    assert len(installation.cms.journal("token")) == 2
    assert (await installation.result(name)).result_code == "eligible"


async def test_a_401_while_polling_renews_the_token(installation, eligibility):
    """The poll is repeated with a new token; nothing is POSTed again."""
    name = await _asked(installation, eligibility)
    await installation.work()
    installation.cms.fault("status", "http", status=401)
    assert (await installation.result(name)).result_code == "eligible"
    assert len(installation.cms.journal("check-eligibility")) == 1


async def test_a_reset_before_an_answer_makes_it_uncertain(installation, eligibility):
    """CMS may have it: UNCERTAIN, and the same bytes again."""
    installation.cms.fault("check-eligibility", "reset-before")
    name = await _asked(installation, eligibility)
    await installation.work()
    assert (await installation.submission()).state is SubmissionState.UNCERTAIN
    row = await installation.result(name)
    assert row.state is SubmissionState.APPLIED
    assert len({r["body_sha256"] for r in installation.cms.journal("check-eligibility")}) == 1


async def test_a_crash_after_the_post_makes_it_uncertain(installation, alignment, monkeypatch):
    """Killed between the POST and the commit of its answer: the next worker knows that CMS may have it."""

    async def dies(*_):
        raise KeyboardInterrupt

    name = await _asked(installation, alignment, "align")
    monkeypatch.setattr(submit_module, "_after", dies)
    with pytest.raises(KeyboardInterrupt):
        await installation.work()
    monkeypatch.undo()
    row = await installation.submission()
    assert (row.posts, row.answers) == (1, 0)
    (job,) = [j for j in await installation.context.store.find(submit_module.Job) if j.key == name]
    await installation.context.store.release(job, due_at=installation.clock.at)
    await installation.work()
    events = await installation.context.store.find(SubmissionEvent, order_by="sequence")
    assert SubmissionState.UNCERTAIN in [event.state for event in events]
    posts = installation.cms.journal("align")
    assert len(posts) == 2
    assert len({row["body_sha256"] for row in posts}) == 1


async def test_nothing_is_posted_once_the_status_url_is_stored(installation, alignment):
    """After ACCEPTED a SEND job that comes late does nothing."""
    name = await _asked(installation, alignment, "align")
    await installation.work()
    row = await installation.submission()
    assert row.state is SubmissionState.ACCEPTED
    job = submit_module.Job(
        participant_id=row.participant_id,
        id="late",
        kind=submit_module.JobKind.SEND,
        key=name,
        due_at=installation.clock.at,
    )
    assert await submit_module.send(job, installation.context) == submit_module.Changeset()
    assert len(installation.cms.journal("align")) == 1


async def test_a_foreign_status_url_gets_no_token(installation, eligibility):
    """A status URL on another origin: a person decides, and nothing is asked there."""
    installation.cms.fault("check-eligibility", "foreign-location", location="http://127.0.0.1:9/steal")
    await _asked(installation, eligibility)
    await installation.work(until=timedelta(minutes=5))
    row = await installation.submission()
    assert (row.state, row.content_location) == (SubmissionState.NEEDS_REVIEW, None)


async def test_a_202_without_a_status_url_is_uncertain(installation, eligibility):
    """A person is told; the same bytes go again."""
    installation.cms.fault("check-eligibility", "no-location")
    await _asked(installation, eligibility)
    await installation.work()
    assert (await installation.submission()).state is SubmissionState.UNCERTAIN
    assert len(await installation.context.store.find(WorkItem)) == 1


@pytest.mark.parametrize(
    "fault", [{"fault": "redirect", "location": "http://127.0.0.1:9/"}, {"fault": "http", "status": 422}]
)
async def test_what_a_person_must_decide_stops(installation, eligibility, fault):
    """A redirect is not followed, a 422 not repeated: NEEDS_REVIEW and an item in the work list."""
    installation.cms.fault("check-eligibility", **fault)
    await _asked(installation, eligibility)
    await installation.work(until=timedelta(minutes=10))
    assert (await installation.submission()).state is SubmissionState.NEEDS_REVIEW
    assert len(installation.cms.journal("check-eligibility")) == 1
    assert [item.kind for item in await installation.context.store.find(WorkItem)] == ["submission"]


@pytest.mark.parametrize("fault", [{"fault": "html"}, {"fault": "http", "status": 503}, {"fault": "truncate"}])
async def test_a_bad_answer_to_a_poll_is_asked_for_again(installation, eligibility, fault):
    """Polling goes on until CMS's answer can be read."""
    name = await _asked(installation, eligibility)
    await installation.work()
    installation.cms.fault("status", **fault)
    assert (await installation.result(name)).result_code == "eligible"


async def test_the_first_poll_waits_5_to_10_seconds(installation, eligibility):
    """IG 0.9.12, polling."""
    await _asked(installation, eligibility)
    await installation.work(until=timedelta(seconds=4.9))
    assert installation.cms.journal("status") == []
    await installation.work(until=timedelta(seconds=5.2))
    assert len(installation.cms.journal("status")) >= 1


async def test_after_five_minutes_someone_is_told_and_it_goes_on(installation, eligibility):
    """Polling never ends quietly: a work item, then the slow lane."""
    name = await _asked(installation, eligibility)
    await installation.work()
    installation.cms.http.post(
        f"{installation.cms.url}/sandbox/faults",
        json=[{"call": "status", "fault": "http", "status": 202, "times": 30}],
    )
    await installation.work(until=timedelta(seconds=400))
    row = await installation.submission()
    assert row.late
    assert [item.kind for item in await installation.context.store.find(WorkItem)] == ["late"]
    installation.cms.http.post(f"{installation.cms.url}/sandbox/faults", json=[])
    installation.clock.move(hours=2)
    assert (await installation.result(name)).state is SubmissionState.APPLIED


async def test_two_writes_of_one_patient_and_track_go_one_after_the_other(installation, alignment):
    """One write in flight per patient and track; the second waits for the first one's result."""
    name = await _asked(installation, alignment, "align")
    await installation.work()
    first = await installation.submission()
    second = replace(first, id="second", state=SubmissionState.BUILT, in_flight_key=None, replay_key=None, revision=0)
    job = NewJob(participant_id="ACCES12345", kind=JobKind.SUBMIT, key="second", due_at=installation.clock.at)
    await installation.context.store.commit(Changeset(insert=(second,), jobs=(job,)))
    with pytest.raises(Temporary, match="in flight"):
        await submit_module.submit(Job(**{**NO_JOB, "key": "second"}), installation.context)
    await installation.result(name)
    assert (await installation.result("second")).result_code == "not-aligned-already-aligned"


async def test_one_token_serves_many_calls(installation, eligibility):
    """The token is kept, encrypted, until shortly before it expires."""
    name = await _asked(installation, eligibility)
    await installation.result(name)
    assert len(installation.cms.journal("token")) == 1


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "private_key_jwt", "auto"])
async def test_every_way_of_getting_a_token(installation, method, sandbox_process):
    """All three ways, and `auto`, get a token; `auto` remembers which one it was."""
    participant = installation.context.settings.participant("ACCES12345")
    secret = Path(sandbox_process[1].config).parent / "cms-ACCES12345.secret"
    changed = replace(participant, cms=replace(participant.cms, auth_method=method, client_secret_file=secret))
    assert (await tokens.bearer(changed, installation.context)) != ""
    remembered = await installation.context.store.find(tokens.Remembered, Where("name", "==", tokens.REMEMBERED))
    assert [row.value for row in remembered] == (["client_secret_basic"] if method == "auto" else [])


async def test_credentials_refused_in_the_form_are_tried_by_http_basic(engine, sandbox_process):
    """As CMS's test environment does it: 401 to form fields, a token by Basic; the way is remembered."""
    secret = Path(sandbox_process[1].config).parent / "cms-ACCES12345.secret"
    order = ("client_secret_post", "client_secret_basic")
    configured(engine, auth_method="auto", auth_order=order, client_secret_file=secret)
    engine.cms.fault("token", "http", status=401)
    row = await engine.result(await put(engine))
    assert row.state is SubmissionState.APPLIED
    assert [call["status"] for call in engine.cms.journal("token")] == [401, 200]
    remembered = await engine.context.store.find(tokens.Remembered, Where("name", "==", tokens.REMEMBERED))
    assert [each.value for each in remembered] == ["client_secret_basic"]


async def test_refused_credentials_are_explained(installation, eligibility):
    """A 401 at the token endpoint: a work item says what to run; it is tried again in minutes."""
    installation.cms.fault("token", "http", status=401)
    name = await _asked(installation, eligibility)
    await installation.work()
    (item,) = await installation.context.store.find(WorkItem)
    assert "token check" in item.text
    assert (await installation.result(name)).result_code == "eligible"


async def test_nothing_is_posted_on_a_lease_that_may_run_out(engine):
    """P7: less time left than an exchange may take: no POST, the job goes back for a new lease."""
    name = await put(engine)
    row = await submission(engine, name)
    intent = await submit_module.submit(_job(name, "submit", engine), engine.context)
    await engine.context.store.commit(intent)
    job = _job(name, "send", engine, leased_until=machine_now() + timedelta(seconds=0.5))
    with pytest.raises(Deferred):
        await submit_module.send(job, engine.context)
    row = await submission(engine, name)
    assert (row.posts, engine.cms.journal("check-eligibility")) == (0, [])


def _job(name: str, kind: str, engine, **more) -> Job:
    due_at = engine.context.clock.now()
    return Job(participant_id="ACCES12345", id="by-hand", kind=JobKind(kind), key=name, due_at=due_at, **more)


async def test_a_worker_stopped_while_connecting_sends_nothing(engine, monkeypatch):
    """The lease ran out between the count of the POST and its first byte: not one byte leaves, CMS is not blamed."""
    name = await put(engine, "align")
    monkeypatch.setattr(transport, "machine_now", lambda: machine_now() + timedelta(minutes=2))
    await engine.work()
    row = await submission(engine, name)
    assert engine.cms.journal("align") == []
    assert (row.state, row.posts, row.answers) == (SubmissionState.SENDING, 1, 1)
    monkeypatch.undo()
    row = await engine.result(name)
    assert (row.state, len(engine.cms.journal("align"))) == (SubmissionState.APPLIED, 1)


@pytest.mark.parametrize(("setting", "query"), [(False, ""), (True, "?entityId=ACCES12345")])
async def test_entity_id_on_the_status_url_is_a_setting(engine, monkeypatch, setting, query):
    """As CMS gave it, unless the setting says otherwise (IG 0.9.12 is silent); what is stored stays as it came."""
    asked = []
    original = client.exchange

    async def noted(method, url, *given, **more):
        asked.append(url)
        return await original(method, url, *given, **more)

    monkeypatch.setattr(client, "exchange", noted)
    configured(engine, status_entity_id=setting)
    row = await engine.result(await put(engine))
    assert asked[-1] == row.content_location.decode() + query
    assert row.state is SubmissionState.APPLIED
