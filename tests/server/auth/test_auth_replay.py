"""The real store between two processes: a used assertion is used up for all of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from server.auth import Authority
from server.domain.audit import AuditEntry
from server.store.base import Store, Where
from server.store.crypto import generate_master_key
from server.store.opening import open_store

World = Any


async def _ask(authority: Authority, assertion: str) -> int:
    app = Starlette(routes=[Route("/auth/token", authority.token, methods=["POST"])])
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": assertion,
    }
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://facade.test") as http:
        return (await http.post("/auth/token", data=form)).status_code


@pytest.fixture
def open_one(tmp_path: Path) -> Any:
    """Opens the same file again and again, as processes do."""
    generate_master_key(tmp_path / "master.key")
    return lambda: open_store(f"sqlite:///{tmp_path / 'access.db'}", tmp_path / "master.key")


async def test_a_replay_is_refused_by_another_process_and_after_a_restart(world: World, open_one: Any) -> None:
    """Two open stores on one file, then a third once both are closed."""
    assertion = world.assertion()
    first: Store = open_one()
    second: Store = open_one()
    assert await _ask(Authority(world.settings, first, world.http), assertion) == 200
    assert await _ask(Authority(world.settings, second, world.http), assertion) == 401
    await first.close()
    await second.close()
    third: Store = open_one()
    assert await _ask(Authority(world.settings, third, world.http), assertion) == 401
    await third.close()


async def test_log_ins_are_audited_in_the_chain(world: World, open_one: Any) -> None:
    """A token granted, and one refused, are rows of the participant's chain, and the chain holds."""
    store: Store = open_one()
    authority = Authority(world.settings, store, world.http)
    await _ask(authority, world.assertion())
    await _ask(authority, world.assertion(sub="hie-1"))
    await _ask(authority, "nonsense")
    rows = await store.find(AuditEntry, Where("participant_id", "==", "ACCES12345"), order_by="sequence")
    assert [(row.subtype, row.agent, row.outcome) for row in rows] == [("login", "ehr-1", "0"), ("login", "ehr-1", "4")]
    assert rows[1].entity == "token/sub"
    unknown = await store.find(AuditEntry, Where("participant_id", "==", ""))
    assert [(row.agent, row.entity) for row in unknown] == [("unknown", "token/not-a-jws")]
    assert (await store.verify_audit()).broken_at is None
    await store.close()


async def test_expired_assertions_leave_the_real_store(world: World, open_one: Any) -> None:
    """The clean-up deletes what has expired, and only that."""
    from datetime import timedelta

    from server.domain.memory import SeenAssertion
    from server.store.base import Changeset

    store: Store = open_one()
    authority = Authority(world.settings, store, world.http)
    await _ask(authority, world.assertion(jti="now"))
    (row,) = await store.find(SeenAssertion)
    old = replace(row, jti="old", expires_at=row.expires_at - timedelta(hours=1), revision=0)
    await store.commit(Changeset(insert=(old,)))
    authority._forgot_at -= timedelta(hours=1)
    await _ask(authority, world.assertion(jti="next"))
    assert {row.jti for row in await store.find(SeenAssertion)} == {"now", "next"}
    await store.close()
