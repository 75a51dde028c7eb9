"""Schema versions. A new file is made at the present version; an older one takes the missing steps, in one transaction.

To change a table: change the record, add the step that brings an older file there, and regenerate
`tests/cases/store/` as its test says. A step is SQL; released steps are never edited.
"""

import contextlib
import sqlite3
from typing import Final

from server.domain.errors import BadConfiguration, StoreDamaged
from server.store.schema import RECORDS, schema_of
from server.store.sqlite.ddl import create_all, quoted

APPLICATION_ID: Final = 0x41434653  # "ACFS": tells a store from any other SQLite file
# Step n brings a file of version n to version n + 1; version 1 is what the first release creates.
STEPS: list[tuple[str, ...]] = []


def latest() -> int:
    """The version that this release writes."""
    return 1 + len(STEPS)


def migrate(connection: sqlite3.Connection) -> None:
    """Brings the file to the present version. Several processes may do so at once: one does, the others wait.

    Raises BadConfiguration for a file of a newer release or of another program, StoreDamaged for one whose tables are
    not those of its version.
    """
    if _number(connection, "user_version") != latest():
        connection.execute("BEGIN IMMEDIATE")
        try:
            _upgrade(connection)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
    _check_tables(connection)


def _upgrade(connection: sqlite3.Connection) -> None:
    version = _number(connection, "user_version")
    if version > latest():
        raise BadConfiguration(
            f"the store has schema version {version}, this release knows {latest()}: run the newer release"
        )
    for statement in _statements(connection, version):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {latest()}")


def _statements(connection: sqlite3.Connection, version: int) -> list[str]:
    if version:
        return [statement for step in STEPS[version - 1 :] for statement in step]
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise BadConfiguration("the file is a database of another program: name another file in [store] url")
    return list(create_all())


def _check_tables(connection: sqlite3.Connection) -> None:
    """A file whose tables differ from the records would fail later, half-way: refuse it now."""
    if _number(connection, "application_id") != APPLICATION_ID:
        raise BadConfiguration("the file is a database of another program: name another file in [store] url")
    for kind in RECORDS:
        schema = schema_of(kind)
        found = {row[1] for row in connection.execute(f"PRAGMA table_info({quoted(schema.table.name)})")}
        if found != set(schema.names):
            differing = ", ".join(sorted(found ^ set(schema.names)))
            raise StoreDamaged(
                f"the store's table {schema.table.name} differs from this release's in: {differing}; "
                "it was made by a development version: start with a new file"
            )


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
