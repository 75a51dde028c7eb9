"""`store copy` and `store verify`: one store's stored rows in another, of either engine, byte for byte.

Rows are copied as they are stored: sealed values stay sealed (they are bound to table, key, column and revision, not to
an engine), hashes and audit chains stay what they are, and wrapped data keys move with them. So both stores need the
same master key. Each run brings the target to where the source is: rows that the source has no more or has otherwise
go, missing ones come. Killed half-way, it is simply run again. Run it while the source works, stop the source, run it
again (what changed meanwhile is little), verify, start on the target.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from server.domain.errors import StoreDamaged, UniqueViolation
from server.store.base import ChainReport, Store
from server.store.schema import RECORDS, schema_of

BATCH: Final = 1000  # rows that are written at once
_BATCH_BYTES: Final = 8 * 1024 * 1024  # of rows that are written at once
UNFINISHED: Final = "copy_unfinished"  # the mark's name
UNFINISHED_TEXT: Final = (
    "the store is a copy that was not finished: run `access-facade store copy` again, with the source stopped"
)
Row = tuple[Any, ...]
Progress = Callable[[str, int, int], None]  # table, rows looked at, rows in the source


@dataclass(frozen=True, slots=True)
class RawTable:
    """One table or collection as it is stored. `whole`: rows may come back under an old key, compare all of a row."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    append_only: bool = False
    whole: bool = True

    def key_of(self, row: Row) -> Row:
        """The stored values of the key."""
        return tuple(row[self.columns.index(name)] for name in self.key)


class RawRows(Protocol):
    """What an engine does for a copy. Keys are stored values."""

    def raw_rows(self, table: RawTable) -> AsyncIterator[Row]:
        """All rows in the order of the key, however many there are."""
        ...

    async def raw_count(self, table: RawTable) -> int:
        """How many rows."""
        ...

    async def raw_write(self, table: RawTable, rows: Sequence[Row]) -> None:
        """Adds rows that are not there. Raises UniqueViolation."""
        ...

    async def raw_remove(self, table: RawTable, keys: Sequence[Row]) -> None:
        """Removes rows."""
        ...

    async def raw_mark(self, *, unfinished: bool) -> None:
        """Bars the store from use, until a copy is finished."""
        ...


class CopyableStore(Store, RawRows, Protocol):
    """An engine that can be copied."""


# Large rows whose content never changes under one key and revision.
_BY_REVISION: Final = frozenset({"received", "resource", "resource_version"})
KEYS: Final = RawTable("data_key", ("participant_id", "key_id", "wrapped"), ("participant_id", "key_id"))
HEADS: Final = RawTable("audit_head", ("participant_id", "sequence", "hash", "signature"), ("participant_id",))
TABLES: Final[tuple[RawTable, ...]] = (
    KEYS,
    *(
        RawTable(
            schema.table.name,
            schema.names,
            schema.table.key,
            schema.table.append_only,
            schema.table.name not in _BY_REVISION,
        )
        for schema in map(schema_of, RECORDS)
    ),
    HEADS,
)


@dataclass(frozen=True, slots=True)
class Copied:
    """What one run did. `left`: rows whose unique value another row still holds, as happens if the source is at work.

    `comparison` was made at the end. Only if it is `same` may the target be used.
    """

    written: int
    removed: int
    left: int
    comparison: "Comparison"


@dataclass(frozen=True, slots=True)
class TableDigest:
    """One table in both stores. The digest is SHA-256 over its rows in the order of the key."""

    name: str
    rows: tuple[int, int]
    digests: tuple[str, str]

    @property
    def same(self) -> bool:
        """Whether both hold the same rows."""
        return self.rows[0] == self.rows[1] and self.digests[0] == self.digests[1]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two stores: every table, and the audit chains of each."""

    tables: tuple[TableDigest, ...]
    chains: tuple[ChainReport, ChainReport]

    @property
    def same(self) -> bool:
        """Whether all rows are the same and every chain holds."""
        return all(table.same for table in self.tables) and all(chain.broken_at is None for chain in self.chains)


async def copy(source: CopyableStore, target: CopyableStore, progress: Progress | None = None) -> Copied:
    """Brings the target to where the source is, and compares the two. Until they are the same, only a copy can open it.

    Raises StoreDamaged if the target holds another store's rows.
    """
    await _check_target(source, target)
    await target.raw_mark(unfinished=True)
    done = [await _copy_table(source, target, table, progress) for table in TABLES]
    written, removed, left = (sum(part) for part in zip(*done, strict=True))
    comparison = await compare(source, target)
    if comparison.same:
        await target.raw_mark(unfinished=False)
    return Copied(written, removed, left, comparison)


async def compare(a: CopyableStore, b: CopyableStore, progress: Progress | None = None) -> Comparison:
    """Reads both whole. Neither may be at work meanwhile, or they differ by what was written."""
    tables = []
    for table in TABLES:
        (rows_a, digest_a), (rows_b, digest_b) = await asyncio.gather(_digest(a, table), _digest(b, table))
        tables.append(TableDigest(table.name, (rows_a, rows_b), (digest_a, digest_b)))
        if progress is not None:
            progress(table.name, rows_a, max(rows_a, rows_b))
    return Comparison(tuple(tables), (await a.verify_audit(), await b.verify_audit()))


async def _check_target(source: RawRows, target: RawRows) -> None:
    """A store that has keys of its own is no copy of this one: what it holds could never be read again."""
    known = {KEYS.key_of(row): row async for row in source.raw_rows(KEYS)}
    async for row in target.raw_rows(KEYS):
        if known.get(KEYS.key_of(row)) != row:
            raise StoreDamaged(f"the target holds rows of its own (participant {row[0]!r}): name an empty one")


async def _copy_table(
    source: RawRows, target: RawRows, table: RawTable, progress: Progress | None
) -> tuple[int, int, int]:
    """First what must go, then what must come: so a unique value may have changed hands."""
    total = await source.raw_count(table)
    removed = 0
    if await target.raw_count(table):
        removed = await _remove(source, target, table)
    written = left = looked_at = 0
    batch: list[Row] = []
    async for row, there in _pairs(source, target, table):
        looked_at += 1
        batch += [] if there else [row]
        if _is_full(batch):
            left += await _write(target, table, batch)
            written, batch = written + len(batch), []
        if progress is not None and looked_at % BATCH == 0:
            progress(table.name, looked_at, total)
    left += await _write(target, table, batch)
    if progress is not None:
        progress(table.name, looked_at, max(total, looked_at))
    return written + len(batch) - left, removed, left


async def _remove(source: RawRows, target: RawRows, table: RawTable) -> int:
    """Rows of the target that the source has no more, or has otherwise."""
    stale = [table.key_of(row) async for row, same in _pairs(target, source, table) if not same]
    if stale and table.append_only:
        raise StoreDamaged(f"the target has rows in {table.name} that the source never had: it is no copy of it")
    for start in range(0, len(stale), BATCH):
        await target.raw_remove(table, stale[start : start + BATCH])
    return len(stale)


async def _write(target: RawRows, table: RawTable, rows: Sequence[Row]) -> int:
    """How many could not be written, for now."""
    if not rows:
        return 0
    try:
        await target.raw_write(table, rows)
    except UniqueViolation:
        if len(rows) == 1:
            return 1
        half = len(rows) // 2
        return await _write(target, table, rows[:half]) + await _write(target, table, rows[half:])
    return 0


def _is_full(batch: Sequence[Row]) -> bool:
    return len(batch) >= BATCH or sum(len(v) for row in batch for v in row if isinstance(v, bytes)) > _BATCH_BYTES


async def _pairs(a: RawRows, b: RawRows, table: RawTable) -> AsyncIterator[tuple[Row, bool]]:
    """Each row of `a`, and whether `b` has it; both are read once, in the order of the key."""
    others = b.raw_rows(table)
    other = await anext(others, None)
    revision = table.columns.index("revision") if not table.whole else None
    async for row in a.raw_rows(table):
        key = table.key_of(row)
        while other is not None and table.key_of(other) < key:
            other = await anext(others, None)
        if other is None or table.key_of(other) != key:
            yield row, False
        else:
            yield row, (row == other if revision is None else row[revision] == other[revision])


async def _digest(store: RawRows, table: RawTable) -> tuple[int, str]:
    digest, rows = hashlib.sha256(), 0
    encoder = msgspec.msgpack.Encoder()
    async for row in store.raw_rows(table):
        rows += 1
        digest.update(encoder.encode(row))
    return rows, digest.hexdigest()
