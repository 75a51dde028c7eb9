"""The audit chain: gapless, and whoever changes it at rest is found out (45 CFR 164.312(b))."""

import asyncio
import hashlib
import json
from datetime import datetime
from typing import Any

import pytest

from server.domain.audit import AuditEntry
from server.domain.errors import StoreDamaged
from server.store import chain
from server.store.base import ChainReport, Changeset, Store, Where
from server.store.crypto import MasterKey
from server.store.schema import schema_of


async def fill(store: Store, samples: Any, count: int = 10) -> list[AuditEntry]:
    """Two chains of `count` rows, written together."""
    entries = [
        samples.audit(str(n), participant_id=participant)
        for n in range(count)
        for participant in (samples.participant, samples.other)
    ]
    await asyncio.gather(*(store.commit(Changeset(audit=(entry,))) for entry in entries))
    mine = Where("participant_id", "==", samples.participant)
    return list(await store.find(AuditEntry, mine))


async def test_a_chain_counts_from_one_and_links(store: Store, samples: Any) -> None:
    """Each participant's rows are numbered without a gap, and each names the hash before it."""
    rows = await fill(store, samples)
    assert [row.sequence for row in rows] == list(range(1, 11))
    assert rows[0].previous_hash == chain.GENESIS
    assert all(row.previous_hash == before.hash for before, row in zip(rows, rows[1:], strict=False))
    assert await store.verify_audit() == ChainReport(20)


async def test_entries_of_one_changeset_keep_their_order(store: Store, samples: Any) -> None:
    """Entries are chained in the order given."""
    await store.commit(Changeset(audit=tuple(samples.audit(str(n)) for n in range(5))))
    assert [row.entity for row in await store.find(AuditEntry)] == list("01234")


async def test_two_stores_share_a_chain(engine: Any, store: Store, samples: Any) -> None:
    """Two openings of one store extend the same chain in turn."""
    second = engine.open()
    for n in range(6):
        await (store, second)[n % 2].commit(Changeset(audit=(samples.audit(str(n)),)))
    await second.close()
    assert await store.verify_audit() == ChainReport(6)


async def test_anyone_can_recompute_a_hash(store: Store, samples: Any) -> None:
    """A row's hash is SHA-256 of the previous one and plain canonical JSON, as an auditor's own program makes it."""
    row = (await fill(store, samples, 1))[0]
    columns = {
        name: getattr(row, name) for name in schema_of(AuditEntry).names if name not in ("hash", "previous_hash")
    }
    columns["at"] = "2026-11-21T23:30:15.250000Z"
    text = json.dumps(columns, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256((row.previous_hash + text).encode()).hexdigest() == row.hash


@pytest.mark.parametrize("sequence", [1, 5, 10])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", "2020-01-01T00:00:00.000000Z"),
        ("action", "R"),
        ("subtype", "read"),
        ("outcome", "8"),
        ("agent", "nobody"),
        ("entity", "Observation/other"),
        ("patient_id", "p"),
        ("request_id", "q"),
        ("previous_hash", "f" * 64),
        ("hash", "f" * 64),
        ("revision", 2),
    ],
)
async def test_an_edited_row_is_named(
    engine: Any, store: Store, samples: Any, sequence: int, column: str, value: Any
) -> None:
    """A change of any column of any row breaks the chain there."""
    await fill(store, samples)
    engine.edit_audit(sequence, column, value)
    assert (await store.verify_audit()).broken_at == (samples.participant, sequence)


@pytest.mark.parametrize("sequence", [1, 5, 10])
async def test_a_deleted_row_is_named(engine: Any, store: Store, samples: Any, sequence: int) -> None:
    """A row that was taken out, the last one too, is missed."""
    await fill(store, samples)
    engine.delete_audit(sequence)
    assert (await store.verify_audit()).broken_at == (samples.participant, sequence)


@pytest.mark.parametrize("sequence", [1, 2, 9])
async def test_a_cut_tail_is_named(engine: Any, store: Store, samples: Any, sequence: int) -> None:
    """If rows are cut off from one on, that one is named."""
    await fill(store, samples)
    engine.cut_audit(sequence)
    assert (await store.verify_audit()).broken_at == (samples.participant, sequence)


async def test_a_cut_tail_with_a_rewritten_end_is_found(engine: Any, store: Store, samples: Any) -> None:
    """Who cuts the tail off and rewrites the end of the chain lacks the key that signs it."""
    rows = await fill(store, samples)
    engine.cut_audit(6, rows[4].hash)
    assert (await store.verify_audit()).broken_at is not None


async def test_a_chain_hashed_anew_is_found(engine: Any, store: Store, samples: Any) -> None:
    """Who edits the last row and computes its hash again lacks the key that signs the end."""
    await fill(store, samples)
    rows = engine.audit_rows()
    names = schema_of(AuditEntry).names
    last = rows[-1]
    last[names.index("agent")] = "nobody"
    fresh = chain.row_hash(last[names.index("previous_hash")], last)
    engine.edit_audit(10, "agent", "nobody")
    engine.edit_audit(10, "hash", fresh)
    assert (await store.verify_audit()).broken_at == (samples.participant, 10)


async def test_a_removed_chain_is_found(engine: Any, store: Store, samples: Any) -> None:
    """A participant with a data key and without a chain has lost it."""
    await fill(store, samples)
    engine.remove_audit_chain()
    assert (await store.verify_audit()).broken_at == (samples.participant, 1)


async def test_a_long_chain_is_walked_in_stretches(store: Store, samples: Any, monkeypatch: Any) -> None:
    """The walk goes on over the end of a stretch, and finds what is bad behind it."""
    monkeypatch.setattr(chain, "STRETCH", 4)
    await fill(store, samples, 12)
    assert await store.verify_audit() == ChainReport(24)


async def test_an_empty_store_verifies(store: Store) -> None:
    """Nothing recorded is nothing broken."""
    assert await store.verify_audit() == ChainReport(0)


def test_a_head_is_signed_with_the_participants_key(samples: Any) -> None:
    """Another key, another end: signatures can not be carried over."""
    master = MasterKey(b"k" * 32)
    keys = [master.unwrap(master.new_wrapped(p, 1), p, 1) for p in (samples.participant, samples.other)]
    head = chain.Head(3, "a" * 64)
    assert chain.signature("p", head, keys[0]) != chain.signature("p", head, keys[1])
    assert chain.signature("p", head, keys[0]) != chain.signature("q", head, keys[0])


@pytest.mark.parametrize("text", ["plain", 'quote " and \\', "tab\tnew\nline", "é 漢 🙂", "\x00\x1f\x7f\u2028"])
def test_canonical_json_is_the_standard_librarys(text: str) -> None:
    """Canonical JSON is what any library writes with sorted keys, no spaces and no escapes beyond the needed."""
    columns = {"b": text, "a": 1, "c": None}
    expected = json.dumps(columns, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert chain.canonical(columns) == expected


def test_times_are_stored_as_they_sort() -> None:
    """The text of an instant has one width, so that text order is time order."""
    from server.store.schema import instant

    texts = [instant(datetime.fromisoformat(t)) for t in ("0999-01-01T00:00:00Z", "2026-11-21T19:00:00.5-05:00")]
    assert texts == ["0999-01-01T00:00:00.000000Z", "2026-11-22T00:00:00.500000Z"]


async def test_a_chain_whose_end_was_turned_back_takes_no_more(engine: Any, store: Store, samples: Any) -> None:
    """Where rows already stand behind the end, the next entry is refused as damage; no row is overwritten."""
    await fill(store, samples)
    engine.turn_back_audit(5)
    with pytest.raises(StoreDamaged, match="audit verify"):
        await store.commit(Changeset(audit=(samples.audit(),)))
    assert await store.count(AuditEntry) == 20
    assert (await store.verify_audit()).broken_at is not None
