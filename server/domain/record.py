"""What a stored row is: a frozen dataclass with a table description. No I/O here; the engines read these descriptions.

A column is plain unless its field says otherwise:
`sealed()`  bytes, encrypted with the participant's data key; never searchable;
`blind()`   text that is only ever looked up: the store keeps its keyed hash, and returns that hash.
Plain columns never hold PHI: opaque ids, states, codes, instants.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Table:
    """Name, primary key and indexes of one kind of row.

    A `unique` index ignores rows in which one of its columns is None, in every engine.
    `append_only` rows may be inserted, never replaced or deleted.
    """

    name: str
    key: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...] = ()
    indexes: tuple[tuple[str, ...], ...] = ()
    append_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A row. `revision` counts writes from 1; a replacement names the revision it was read at (compare-and-set).

    Column types: str, int, bool, datetime (aware, UTC), date, a StrEnum, bytes (sealed only), each or None.
    """

    TABLE: ClassVar[Table]
    participant_id: str  # `ACCES12345`; "" for rows that belong to the installation
    revision: int = 0  # 0: not stored yet


def sealed(**options: Any) -> Any:
    """A bytes column that is encrypted at rest."""
    return field(metadata={"sealed": True}, **options)


def blind(**options: Any) -> Any:
    """A text column of which only a keyed hash is stored."""
    return field(metadata={"blind": True}, **options)
