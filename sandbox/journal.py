"""The journal: one row for every request that came to the CMS side, with what became of it."""

import hashlib
from typing import Any

from sandbox.clock import machine_now
from sandbox.exchange import Answer, Exchange
from sandbox.world import World

COLUMNS = ("seq", "at", "call", "method", "path", "host", "status", "body_sha256", "submission_id", "accepted",
           "authorization", "fault", "query", "machine_at")  # fmt: skip


def write(world: World, call: str, exchange: Exchange, answer: Answer, fault: str | None) -> None:
    """Adds the row, within the transaction of what it tells. A connection that is reset has no status."""
    world.store.insert(
        "journal", at=world.clock.now().isoformat(), machine_at=machine_now().isoformat(), call=call,
        method=exchange.method, path=exchange.raw_path, query=exchange.raw_query, host=exchange.headers.get("host", ""),
        status=answer.status or None, body_sha256=hashlib.sha256(exchange.body).hexdigest(),
        submission_id=answer.submission_id, accepted=int(answer.accepted),
        authorization=_authorization(exchange.headers.get("authorization")), fault=fault,
    )  # fmt: skip


def read(world: World, *, after: int = 0, call: str | None = None) -> list[dict[str, Any]]:
    """The rows in order, from behind `after`, of one call if named."""
    sql = "SELECT * FROM journal WHERE seq > ? AND (? IS NULL OR call = ?) ORDER BY seq"
    rows = world.store.all(sql, after, call, call)
    return [{name: row[name] for name in COLUMNS} | {"accepted": bool(row["accepted"])} for row in rows]


def _authorization(header: str | None) -> str | None:
    """The scheme and a hash of the rest."""
    if not header:
        return None
    scheme, _, credentials = header.partition(" ")
    return f"{scheme} sha256:{hashlib.sha256(credentials.encode()).hexdigest()}"
