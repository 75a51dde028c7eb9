"""The sandbox's state in one SQLite file, or in memory. What is committed survives SIGKILL (synchronous FULL)."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox import tables

Row = sqlite3.Row
TABLES = (
    "token",
    "assertion",
    "beneficiary",
    "submission",
    "alignment",
    "report",
    "control",
    "mail",
    "fault",
    "journal",
)


class Store:
    """One connection, used by one thread at a time."""

    def __init__(self, path: Path | None = None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(tables.text("schema.sql"))

    def close(self) -> None:
        """Ends the connection."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; on disk when it ends. Never awaits inside."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def run(self, sql: str, *values: Any) -> int:
        """Writes; returns how many rows changed."""
        return self._db.execute(sql, values).rowcount

    def insert(self, name: str, **columns: Any) -> int:
        """Adds a row if its key is new; returns how many were added."""
        names = ", ".join(f'"{column}"' for column in columns)
        marks = ", ".join("?" * len(columns))
        # The names are this package's own; the values are bound.
        return self.run(f"INSERT OR IGNORE INTO {name} ({names}) VALUES ({marks})", *columns.values())  # noqa: S608

    def one(self, sql: str, *values: Any) -> Row | None:
        """The first row, or None."""
        row: Row | None = self._db.execute(sql, values).fetchone()
        return row

    def all(self, sql: str, *values: Any) -> list[Row]:
        """Every row."""
        return self._db.execute(sql, values).fetchall()

    def setting(self, name: str) -> Any:
        """A stored JSON value, or None."""
        row = self.one("SELECT value FROM setting WHERE name = ?", name)
        return None if row is None else json.loads(row["value"])

    def set(self, name: str, value: Any) -> None:
        """Stores a JSON value."""
        self.run("INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)", name, json.dumps(value))

    def clear(self) -> None:
        """Empties everything, numbering included."""
        for name in TABLES:
            self.run(f"DELETE FROM {name}")  # noqa: S608
        self.run("DELETE FROM setting")
        self.run("DELETE FROM sqlite_sequence")
