"""Walking the audit chains, a bounded stretch at a time, so that neither memory nor the WAL grows with them."""
# ruff: noqa: S608 - column names come from the record type; values are always bound

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Final

from server.domain.audit import AuditEntry
from server.store import chain
from server.store.schema import schema_of
from server.store.sqlite.ddl import columns
from server.store.sqlite.keys import KeyRing

CHAINS: Final = (
    'SELECT "participant_id" FROM "data_key" UNION SELECT "participant_id" FROM "audit_head" '
    'UNION SELECT DISTINCT "participant_id" FROM "audit" ORDER BY 1'
)
_ROWS: Final = (
    f'SELECT {columns(schema_of(AuditEntry).names)} FROM "audit" WHERE "participant_id" = ? AND "sequence" > ? '
    'ORDER BY "sequence" LIMIT ?'
)
_HEAD: Final = 'SELECT "sequence", "hash", "signature" FROM "audit_head" WHERE "participant_id" = ?'


def walk(connection: sqlite3.Connection, ring: KeyRing, participant_id: str, head: chain.Head) -> chain.Stretch:
    """Follows the next rows after `head`; at the last one compares the signed end. Rows and end are one snapshot."""
    with _snapshot(connection):
        rows = connection.execute(_ROWS, (participant_id, head.sequence, chain.STRETCH)).fetchall()
        end = connection.execute(_HEAD, (participant_id,)).fetchone()
        key = ring.load(connection, participant_id)
    reached, broken = chain.follow(head, rows)
    ended = len(rows) < chain.STRETCH
    if broken is None and ended:
        broken = chain.missing_at_end(participant_id, reached, chain.Signed(*end) if end else None, key)
    return chain.Stretch(reached, broken, ended)


@contextlib.contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")
