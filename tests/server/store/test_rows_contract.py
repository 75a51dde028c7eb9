"""Rows: written, read, found, compared and barred alike by every engine."""

import asyncio
from dataclasses import replace
from datetime import UTC, date, timedelta
from typing import Any

import pytest

from server.domain.care_period import Report, ReportState
from server.domain.errors import Conflict, StoreDamaged, StoreUnavailable, UniqueViolation
from server.domain.received import Received, ReceivedState
from server.domain.resource import Lookup, ResourceVersion, StoredResource
from server.domain.submission import Operation, Submission
from server.store.base import Changeset, Store, Where
from server.store.schema import Blinded


async def test_what_was_written_is_read(store: Store, samples: Any) -> None:
    """A row comes back as it was written, at revision 1, its blind columns as hashes."""
    row = samples.received(content_key="k", answer_status=201, answer=b"\x00\xff", state=ReceivedState.ACCEPTED)
    await store.commit(Changeset(insert=(row,)))
    found = await store.get(Received, id="r1")
    assert found is not None
    assert isinstance(found.content_key, Blinded)
    assert found.content_key != "k"
    assert replace(found, content_key="k") == replace(row, revision=1)


async def test_every_column_type_survives(store: Store, samples: Any) -> None:
    """Dates, instants to the microsecond, truth values, numbers, states and None come back as they were."""
    report = Report(
        id="p",
        participant_id=samples.participant,
        care_period_id="c",
        patient_id="x",
        track="CKM",
        report_type="quarterly",
        number=3,
        opens=date(2028, 2, 29),
        closes=date(2028, 4, 9),
        state=ReportState.READY,
        submitted_at=samples.now.astimezone(UTC) + timedelta(microseconds=1),
        evidence=b"",
    )
    sent = Submission(
        id="s",
        participant_id=samples.participant,
        operation=Operation.ALIGN,
        patient_id="x",
        track="CKM",
        agent="a",
        created_at=samples.now,
        request_sha256="0",
        late=True,
        request=b"{}",
    )
    await store.commit(Changeset(insert=(report, sent)))
    assert await store.get(Report, id="p") == replace(report, revision=1)
    assert await store.get(Submission, id="s") == replace(sent, revision=1)


async def test_a_missing_row_is_none(store: Store) -> None:
    """What was not written is None."""
    assert await store.get(Received, id="nobody") is None


async def test_a_key_must_be_whole(store: Store) -> None:
    """Half a key is the program's fault."""
    with pytest.raises(ValueError, match="participant_id"):
        await store.get(StoredResource, id="o1")


async def test_an_instant_needs_a_zone(store: Store, samples: Any) -> None:
    """A time without a zone is not stored."""
    naive = samples.now.replace(tzinfo=None)
    with pytest.raises(ValueError, match="time zone"):
        await store.commit(Changeset(insert=(samples.received(received_at=naive),)))


async def test_replace_raises_the_revision(store: Store, samples: Any) -> None:
    """A replacement that names the revision it was read at is written as the next one."""
    await store.commit(Changeset(insert=(samples.resource(),)))
    read = await store.get(StoredResource, participant_id=samples.participant, resource_type="Observation", id="o1")
    assert read is not None
    await store.commit(Changeset(replace=(replace(read, body=b"2"),)))
    again = await store.get(StoredResource, participant_id=samples.participant, resource_type="Observation", id="o1")
    assert again == replace(read, body=b"2", revision=2)


async def test_replace_of_a_stale_row_is_a_conflict(store: Store, samples: Any) -> None:
    """Of two writers that read the same revision, one wins."""
    await store.commit(Changeset(insert=(samples.resource(),)))
    read = replace(samples.resource(), revision=1)
    results = await asyncio.gather(
        *(store.commit(Changeset(replace=(replace(read, body=bytes([n])),))) for n in range(8)), return_exceptions=True
    )
    assert [type(result) for result in results].count(Conflict) == 7
    assert results.count(None) == 1


async def test_replace_keeps_a_hash_that_was_read(store: Store, samples: Any) -> None:
    """A blind column that was read and written back is still found by its clear text."""
    await store.commit(Changeset(insert=(samples.received(content_key="same bytes"),)))
    read = await store.get(Received, id="r1")
    assert read is not None
    await store.commit(Changeset(replace=(replace(read, state=ReceivedState.ACCEPTED),)))
    by_key = Where("content_key", "==", "same bytes")
    found = await store.find(Received, Where("participant_id", "==", samples.participant), by_key)
    assert [row.state for row in found] == [ReceivedState.ACCEPTED]


async def test_replace_of_nothing_is_a_conflict(store: Store, samples: Any) -> None:
    """A row that is gone can not be replaced."""
    with pytest.raises(Conflict):
        await store.commit(Changeset(replace=(replace(samples.received(), revision=1),)))


async def test_delete_compares_too(store: Store, samples: Any) -> None:
    """A row is deleted at the revision it was read at, or not at all."""
    await store.commit(Changeset(insert=(samples.lookup("a"),)))
    with pytest.raises(Conflict):
        await store.commit(Changeset(delete=(replace(samples.lookup("a"), revision=2),)))
    await store.commit(Changeset(delete=(replace(samples.lookup("a"), revision=1),)))
    assert await store.count(Lookup) == 0


async def test_a_second_key_is_barred(store: Store, samples: Any) -> None:
    """The same primary key twice names the table and the key's columns."""
    await store.commit(Changeset(insert=(samples.resource(),)))
    with pytest.raises(UniqueViolation) as barred:
        await store.commit(Changeset(insert=(samples.resource(),)))
    assert (barred.value.table, barred.value.index) == ("resource", ("participant_id", "resource_type", "id"))


async def test_a_unique_index_bars(store: Store, samples: Any) -> None:
    """The same blind value twice is one, within a participant."""
    await store.commit(Changeset(insert=(samples.received("r1", content_key="k"),)))
    with pytest.raises(UniqueViolation) as barred:
        await store.commit(Changeset(insert=(samples.received("r2", content_key="k"),)))
    assert barred.value.index == ("participant_id", "content_key")
    await store.commit(Changeset(insert=(samples.received("r3", content_key="k", participant_id=samples.other),)))


async def test_a_unique_index_ignores_none(store: Store, samples: Any) -> None:
    """Any number of rows may have None in a unique index."""
    rows = tuple(samples.received(f"r{number}") for number in range(3))
    await store.commit(Changeset(insert=rows))
    assert await store.count(Received, Where("content_key", "==", None)) == 3


async def test_a_unique_value_changes_hands_in_one_changeset(store: Store, samples: Any) -> None:
    """Rows leave before rows come: the key that one gives up another may take."""
    await store.commit(Changeset(insert=(samples.received("r1", content_key="k"),)))
    given_up = replace(samples.received("r1"), revision=1)
    await store.commit(Changeset(insert=(samples.received("r2", content_key="k"),), replace=(given_up,)))
    assert await store.count(Received) == 2


async def test_a_changeset_is_all_or_nothing(store: Store, samples: Any) -> None:
    """If one row is barred, none of the changeset is written: no row, no job, no audit entry."""
    await store.commit(Changeset(insert=(samples.received("r1"),)))
    with pytest.raises(UniqueViolation):
        await store.commit(
            Changeset(
                insert=(samples.resource(), samples.received("r1")), jobs=(samples.job(),), audit=(samples.audit(),)
            )
        )
    assert await store.count(StoredResource) == 0
    assert await store.next_due() is None
    assert (await store.verify_audit()).rows == 0


async def test_a_bad_changeset_spoils_no_other(store: Store, samples: Any) -> None:
    """In a burst of 100 that share transactions, one fails and 99 are written."""
    await store.commit(Changeset(insert=(samples.resource("taken"),)))
    names = [f"o{number}" for number in range(99)]
    names.insert(50, "taken")
    changesets = [Changeset(insert=(samples.resource(name),), audit=(samples.audit(name),)) for name in names]
    results = await asyncio.gather(*map(store.commit, changesets), return_exceptions=True)
    assert [name for name, result in zip(names, results, strict=True) if result is not None] == ["taken"]
    assert isinstance(results[50], UniqueViolation)
    assert await store.count(StoredResource) == 100
    assert (await store.verify_audit()).rows == 99


async def test_append_only_rows_stay(store: Store, samples: Any) -> None:
    """What is append-only is neither replaced nor deleted."""
    row = ResourceVersion(
        participant_id=samples.participant,
        resource_type="Observation",
        id="o1",
        version_id=1,
        last_updated=samples.now,
        body=b"{}",
    )
    await store.commit(Changeset(insert=(row,)))
    for changeset in (Changeset(replace=(replace(row, revision=1),)), Changeset(delete=(replace(row, revision=1),))):
        with pytest.raises(ValueError, match="append-only"):
            await store.commit(changeset)


async def test_audit_entries_are_not_rows_to_insert(store: Store, samples: Any) -> None:
    """An audit entry can not slip in beside the chain."""
    with pytest.raises(ValueError, match=r"Changeset\.audit"):
        await store.commit(Changeset(insert=(samples.audit(),)))


async def test_sealed_and_blind_values_are_not_on_disk(engine: Any, store: Store, samples: Any) -> None:
    """Marked bytes and look-up values are nowhere in the store's files, before and after closing."""
    canary = b"canary-1EG4TE5MK73"
    await store.commit(
        Changeset(
            insert=(
                samples.received(body=canary, answer=canary, content_key=canary.decode()),
                samples.lookup("mbi|" + canary.decode()),
            )
        )
    )
    assert canary not in engine.bytes_on_disk()
    await store.close()
    assert canary not in engine.bytes_on_disk()


async def test_a_sealed_value_moved_to_another_row_is_not_opened(engine: Any, store: Store, samples: Any) -> None:
    """What was sealed for one row is no good in another."""
    await store.commit(Changeset(insert=(samples.received("r1", body=b"mine"), samples.received("r2", body=b"thine"))))
    engine.move_sealed("received", "body", source="r1", target="r2")
    with pytest.raises(StoreDamaged, match="received r2"):
        await store.get(Received, id="r2")


async def test_an_older_sealed_value_put_back_is_not_opened(engine: Any, store: Store, samples: Any) -> None:
    """What was sealed at one revision is no good at a later one."""
    await store.commit(Changeset(insert=(samples.received(body=b"before"),)))
    put_back = engine.put_back("received", "body")
    await store.commit(Changeset(replace=(replace(samples.received(body=b"after"), revision=1),)))
    put_back()
    with pytest.raises(StoreDamaged):
        await store.get(Received, id="r1")


async def test_rows_survive_reopening(engine: Any, samples: Any) -> None:
    """What was written is there when the store is opened again."""
    first = engine.open()
    await first.commit(Changeset(insert=(samples.received(body=b"kept", content_key="k"),)))
    await first.close()
    second = engine.open()
    mine = Where("participant_id", "==", samples.participant)
    rows = await second.find(Received, mine, Where("content_key", "==", "k"))
    await second.close()
    assert [row.body for row in rows] == [b"kept"]


async def test_changed_moves_with_every_write(engine: Any, store: Store, samples: Any) -> None:
    """The number moves when this or another process has written, and only then."""
    before = await store.changed()
    assert await store.changed() == before
    await store.commit(Changeset(insert=(samples.received("r1"),)))
    after = await store.changed()
    assert after != before
    other = engine.open()
    await other.commit(Changeset(insert=(samples.received("r2"),)))
    await other.close()
    assert await store.changed() != after


async def test_an_empty_changeset_writes_nothing(store: Store) -> None:
    """Nothing to write is no write."""
    before = await store.changed()
    await store.commit(Changeset())
    assert await store.changed() == before


async def test_closing_finishes_what_is_queued(engine: Any, samples: Any) -> None:
    """Commits under way when the store is closed are on disk; later ones are refused."""
    first = engine.open()
    await first.commit(Changeset(insert=(samples.received("first"),)))
    commits = [asyncio.create_task(first.commit(Changeset(insert=(samples.received(f"r{n}"),)))) for n in range(100)]
    await asyncio.sleep(0)
    await first.close()
    assert await asyncio.gather(*commits) == [None] * 100
    with pytest.raises(StoreUnavailable):
        await first.commit(Changeset(insert=(samples.received("late"),)))
    with pytest.raises(StoreUnavailable):
        await first.count(Received)
    await first.close()
    assert engine.rows("received") == 101


async def test_a_cancelled_commit_disturbs_no_other(store: Store, samples: Any) -> None:
    """Whoever stops waiting leaves the rest of the group as it is."""
    commits = [asyncio.create_task(store.commit(Changeset(insert=(samples.received(f"r{n}"),)))) for n in range(40)]
    await asyncio.sleep(0.001)
    commits[3].cancel()
    results = await asyncio.gather(*commits, return_exceptions=True)
    assert [result for n, result in enumerate(results) if n != 3] == [None] * 39
    assert await store.count(Received) >= 39
