"""Walking the audit chains, a bounded stretch at a time, so that neither memory nor the WAL grows with them."""
# ruff: noqa: S608 - column names come from the record type; values are always bound

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from server.domain.audit import AuditEntry
from server.store import chain
from server.store.schema import schema_of
from server.store.sqlite.ddl import columns
from server.store.sqlite.keys import KeyRing

STRETCH: Final = 5000
CHAINS: Final = (
    'SELECT "participant_id" FROM "data_key" UNION SELECT "participant_id" FROM "audit_head" '
    'UNION SELECT DISTINCT "participant_id" FROM "audit" ORDER BY 1'
)
_ROWS: Final = (
    f'SELECT {columns(schema_of(AuditEntry).names)} FROM "audit" WHERE "participant_id" = ? AND "sequence" > ? '
    'ORDER BY "sequence" LIMIT ?'
)
_HEAD: Final = 'SELECT "sequence", "hash", "signature" FROM "audit_head" WHERE "participant_id" = ?'


class Stretch(NamedTuple):
    """How far a chain is right, and the first sequence that is not; `ended`: there are no more rows."""

    head: chain.Head
    broken: int | None
    ended: bool


def walk(connection: sqlite3.Connection, ring: KeyRing, participant_id: str, head: chain.Head) -> Stretch:
    """Follows the next rows after `head`; at the last one compares the signed end. Rows and end are one snapshot."""
    with _snapshot(connection):
        rows = connection.execute(_ROWS, (participant_id, head.sequence, STRETCH)).fetchall()
        signed = connection.execute(_HEAD, (participant_id,)).fetchone()
        key = ring.load(connection, participant_id)
    reached, broken = chain.follow(head, rows)
    ended = len(rows) < STRETCH
    if broken is None and ended and not _is_end(participant_id, reached, signed, key):
        broken = _first_missing(reached, signed)
    return Stretch(reached, broken, ended)


def _is_end(participant_id: str, head: chain.Head, signed: Any, key: Any) -> bool:
    if signed is None or key is None:
        return False
    return bool(signed[:2] == head and signed[2] == chain.signature(participant_id, head, key))


def _first_missing(reached: chain.Head, signed: Any) -> int:
    """Rows were cut off after the last one, or the last one is not what was signed."""
    if signed is not None and signed[0] == reached.sequence:
        return max(reached.sequence, 1)
    return min(reached.sequence, signed[0] if signed else 0) + 1


@contextlib.contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")
