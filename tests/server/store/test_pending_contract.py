"""Rows that are handed over first: kept whatever becomes of what follows from them."""

from dataclasses import replace
from typing import Any

import pytest

from server.domain.errors import Conflict
from server.domain.received import Received, ReceivedState
from server.domain.resource import StoredResource
from server.store.base import Changeset, Store


async def test_both_parts_are_there(store: Store, samples: Any) -> None:
    """What was begun and what was added are both stored when the commit returns."""
    pending = await store.begin(Changeset(insert=(samples.received(),)))
    await pending.commit(Changeset(insert=(samples.resource(),)))
    assert len(await store.find(Received)) == len(await store.find(StoredResource)) == 1


async def test_the_second_part_may_change_the_first(store: Store, samples: Any) -> None:
    """A row that was begun can be replaced by what follows."""
    row = replace(samples.received(), revision=1)
    pending = await store.begin(Changeset(insert=(row,)))
    await pending.commit(Changeset(replace=(replace(row, state=ReceivedState.QUARANTINED),)))
    assert [(each.state, each.revision) for each in await store.find(Received)] == [(ReceivedState.QUARANTINED, 2)]


async def test_the_first_part_is_kept_alone(store: Store, samples: Any) -> None:
    """If the second part can not be written, the error is raised and the first part is stored."""
    await store.commit(Changeset(insert=(samples.resource(),)))
    pending = await store.begin(Changeset(insert=(samples.received(),)))
    with pytest.raises(Conflict):
        await pending.commit(Changeset(insert=(samples.resource(),)))
    assert len(await store.find(Received)) == 1


async def test_nothing_need_follow(store: Store, samples: Any) -> None:
    """Rows that were begun and then forgotten are stored all the same."""
    await store.begin(Changeset(insert=(samples.received(),)))
    await store.commit(Changeset(insert=(samples.resource(),)))
    assert len(await store.find(Received)) == 1


async def test_the_first_part_can_be_waited_for(store: Store, samples: Any) -> None:
    """Nothing more to write: the first part is stored when the commit returns."""
    pending = await store.begin(Changeset(insert=(samples.received(),)))
    await pending.commit(Changeset())
    assert len(await store.find(Received)) == 1
