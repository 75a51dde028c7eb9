"""The tables of a store file, written out from the record types."""

from collections.abc import Iterator
from typing import Any, Final

from server.store.schema import RECORDS, Column, Schema, Storage, schema_of

# Beside the records' tables: data keys by participant, the signed ends of the audit chains, and facts about the file.
OWN_TABLES: Final = (
    'CREATE TABLE "store_meta" ("name" TEXT NOT NULL PRIMARY KEY, "value" BLOB NOT NULL) STRICT, WITHOUT ROWID',
    'CREATE TABLE "data_key" ("participant_id" TEXT NOT NULL, "key_id" INTEGER NOT NULL, "wrapped" BLOB NOT NULL, '
    'PRIMARY KEY ("participant_id", "key_id")) STRICT, WITHOUT ROWID',
    'CREATE TABLE "audit_head" ("participant_id" TEXT NOT NULL PRIMARY KEY, "sequence" INTEGER NOT NULL, '
    '"hash" TEXT NOT NULL, "signature" BLOB NOT NULL) STRICT, WITHOUT ROWID',
)
_TYPES: Final = {Storage.TEXT: "TEXT", Storage.INTEGER: "INTEGER", Storage.BYTES: "BLOB"}


def create_all() -> Iterator[str]:
    """Every statement that makes an empty file a store of the present version."""
    yield from OWN_TABLES
    for kind in RECORDS:
        yield from create_table(schema_of(kind))


def create_table(schema: Schema[Any]) -> Iterator[str]:
    """One record type's table, its indexes and, if it is append-only, what bars changes."""
    table = schema.table
    body = ", ".join([*map(_column, schema.columns), f"PRIMARY KEY ({columns(table.key)})"])
    # Rows with sealed bodies are large, and a b-tree by key would carry them in its inner pages.
    form = "STRICT" if any(column.sealed for column in schema.columns) else "STRICT, WITHOUT ROWID"
    yield f"CREATE TABLE {quoted(table.name)} ({body}) {form}"
    for names in table.unique:
        yield _index(table.name, names, unique=True) + _where_all_count(schema, names)
    for names in table.indexes:
        yield _index(table.name, names, unique=False)
    if table.append_only:
        for event in ("UPDATE", "DELETE"):
            yield (
                f"CREATE TRIGGER {quoted(f'{table.name}_no_{event.lower()}')} BEFORE {event} ON {quoted(table.name)} "
                f"BEGIN SELECT RAISE(ABORT, '{table.name} is append-only'); END"
            )


def quoted(name: str) -> str:
    """A name as SQL takes it."""
    return f'"{name}"'


def columns(names: tuple[str, ...]) -> str:
    """Names, quoted and joined by commas."""
    return ", ".join(map(quoted, names))


def _column(column: Column) -> str:
    return f"{quoted(column.name)} {_TYPES[column.storage]}{'' if column.optional else ' NOT NULL'}"


def _where_all_count(schema: Schema[Any], names: tuple[str, ...]) -> str:
    """A unique index leaves out the rows that it ignores."""
    empty = [f"{quoted(name)} IS NOT NULL" for name in names if schema.column(name).optional]
    return f" WHERE {' AND '.join(empty)}" if empty else ""


def _index(table: str, names: tuple[str, ...], *, unique: bool) -> str:
    name = "_".join((table, *names))
    return f"CREATE {'UNIQUE ' if unique else ''}INDEX {quoted(name)} ON {quoted(table)} ({columns(names)})"
