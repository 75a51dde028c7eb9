"""Finding rows: conditions, order and limits mean the same in every engine."""

from datetime import timedelta
from typing import Any

import pytest

from server.domain.memory import Remembered, SeenAssertion
from server.domain.received import Received
from server.domain.resource import Lookup
from server.store.base import Changeset, Store, Where


async def test_find_by_each_operator(store: Store, samples: Any) -> None:
    """`==`, `<`, `<=`, `>`, `>=` and `in` mean what they say, for instants too."""
    rows = [
        SeenAssertion(participant_id="", issuer="i", jti=str(n), expires_at=samples.now + timedelta(seconds=n))
        for n in range(5)
    ]
    await store.commit(Changeset(insert=tuple(rows)))
    at = samples.now + timedelta(seconds=2)

    async def found(*where: Where) -> str:
        return "".join(row.jti for row in await store.find(SeenAssertion, *where))

    assert await found(Where("expires_at", "==", at)) == "2"
    assert await found(Where("expires_at", "<", at)) == "01"
    assert await found(Where("expires_at", "<=", at)) == "012"
    assert await found(Where("expires_at", ">", at)) == "34"
    assert await found(Where("expires_at", ">=", at)) == "234"
    assert await found(Where("jti", "in", ("1", "4", "9"))) == "14"
    assert await found(Where("jti", "in", ())) == ""
    assert await found(Where("expires_at", ">", at), Where("jti", "==", "4")) == "4"


async def test_find_orders_and_cuts(store: Store, samples: Any) -> None:
    """Rows come by the column, then by key, all backwards if asked; `limit` cuts afterwards."""
    rows = [Remembered(participant_id="p", name=name, value=value) for name, value in ("ax", "by", "cx", "dy")]
    await store.commit(Changeset(insert=tuple(rows)))

    async def names(**options: Any) -> str:
        return "".join(row.name for row in await store.find(Remembered, **options))

    assert await names() == "abcd"
    assert await names(order_by="value") == "acbd"
    assert await names(order_by="value", descending=True) == "dbca"
    assert await names(order_by="value", limit=3) == "acb"
    assert await names(descending=True, limit=1) == "d"


async def test_blind_columns_are_found_by_equality_only(store: Store, samples: Any) -> None:
    """A hash has no order, and is made with a participant's key: the question must name both."""
    await store.commit(Changeset(insert=(samples.lookup("http://loinc.org|8480-6"),)))
    mine = Where("participant_id", "==", samples.participant)
    assert len(await store.find(Lookup, mine, Where("value", "==", "http://loinc.org|8480-6"))) == 1
    assert not await store.find(Lookup, mine, Where("value", "==", "http://loinc.org|8462-4"))
    with pytest.raises(ValueError, match="blind"):
        await store.find(Lookup, mine, Where("value", ">", "h"))
    with pytest.raises(ValueError, match="participant_id"):
        await store.find(Lookup, Where("value", "==", "http://loinc.org|8480-6"))


async def test_asking_for_a_participant_without_rows_finds_nothing(store: Store, samples: Any) -> None:
    """A question alone makes no data key."""
    where = (Where("participant_id", "==", "ACCES00000"), Where("value", "==", "x"))
    assert not await store.find(Lookup, *where)
    assert await store.count(Lookup, *where) == 0


async def test_sealed_columns_are_not_searched(store: Store, samples: Any) -> None:
    """A sealed column is neither a condition nor an order."""
    with pytest.raises(ValueError, match="sealed"):
        await store.find(Received, Where("body", "==", b""))
    with pytest.raises(ValueError, match="sealed"):
        await store.find(Received, order_by="body")


async def test_unknown_columns_are_refused(store: Store) -> None:
    """A column that is not there is the program's fault, said with its name."""
    with pytest.raises(ValueError, match="no column shoe_size"):
        await store.find(Received, Where("shoe_size", "==", 1))


async def test_hashes_differ_between_participants(store: Store, samples: Any) -> None:
    """Nobody sees from the hashes that two participants know the same person."""
    await store.commit(Changeset(insert=(samples.lookup("x"), samples.lookup("x", participant_id=samples.other))))
    first, second = await store.find(Lookup)
    assert first.value != second.value


async def test_a_few_neighbours_by_key(store: Store, samples: Any) -> None:
    """The first rows of a key's beginning come in key order, and no others."""
    values = ["a", "b", "c"]
    rows = [samples.lookup(value, f"o{n}") for n in range(5) for value in values]
    await store.commit(Changeset(insert=tuple(rows)))
    where = (
        Where("participant_id", "==", samples.participant),
        Where("resource_type", "==", "Observation"),
        Where("parameter", "==", "code"),
        Where("value", "==", "b"),
    )
    assert [row.resource_id for row in await store.find(Lookup, *where, limit=2)] == ["o0", "o1"]
    assert [row.resource_id for row in await store.find(Lookup, *where, limit=2, descending=True)] == ["o4", "o3"]
    assert len(await store.find(Lookup, *where[:3], limit=20)) == 15


async def test_several_rows_by_key(store: Store, samples: Any) -> None:
    """`in` over a key finds each row that is there, in key order."""
    await store.commit(Changeset(insert=tuple(samples.received(f"r{n}") for n in range(12))))
    few = await store.find(Received, Where("id", "in", ("r3", "r1", "nobody")))
    many = await store.find(Received, Where("id", "in", tuple(f"r{n}" for n in range(20))))
    assert [row.id for row in few] == ["r1", "r3"]
    assert len(many) == 12
