"""Records as tables: the columns of every record type, derived once from its type hints. Every engine reads these.

Stored values are str, int and bytes only. An instant is fixed-width UTC text with microseconds, a date is ISO text, so
that the order of the text is the order of time in every engine.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Final, Generic, TypeVar, get_args, get_origin, get_type_hints

from server.domain.alignment import Alignment
from server.domain.audit import AuditEntry
from server.domain.care_period import CarePeriod, MilestoneReached, Report
from server.domain.coordination import (
    CareUpdate,
    CmsNotification,
    Delivery,
    SubscriptionStatus,
    WorkItem,
)
from server.domain.job import Job
from server.domain.memory import CmsToken, Remembered, SeenAssertion
from server.domain.received import Received
from server.domain.record import Record, Table
from server.domain.resource import Lookup, PatientIdentity, ResourceVersion, StoredResource
from server.domain.submission import Submission, SubmissionEvent

R = TypeVar("R", bound=Record)

RECORDS: Final[tuple[type[Record], ...]] = (
    Received,
    StoredResource,
    ResourceVersion,
    Lookup,
    PatientIdentity,
    Alignment,
    CarePeriod,
    Report,
    MilestoneReached,
    Submission,
    SubmissionEvent,
    CareUpdate,
    SubscriptionStatus,
    Delivery,
    CmsNotification,
    WorkItem,
    Job,
    Remembered,
    SeenAssertion,
    CmsToken,
    AuditEntry,
)


class Blinded(str):
    """A keyed hash that a blind column gave back. Written or asked for again, it is taken as it is."""

    __slots__ = ()


class Storage(StrEnum):
    """What a column holds on disk."""

    TEXT = "text"
    INTEGER = "integer"
    BYTES = "bytes"


Codec = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `encode` and `decode` turn a value that is not None to and from storage; None: as it is."""

    name: str
    storage: Storage
    optional: bool
    sealed: bool = False
    blind: bool = False
    encode: Codec | None = None
    decode: Codec | None = None


@dataclass(frozen=True, slots=True)
class Schema(Generic[R]):
    """One record type as a table. `columns` stand in the order of the dataclass's fields."""

    record: type[R]
    table: Table
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """The column of that name; ValueError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise ValueError(f"{self.table.name} has no column {name}")

    def position(self, name: str) -> int:
        """Where the column of that name stands."""
        return self.names.index(name)


@lru_cache(maxsize=64)  # one step writes the same instant into several rows
def instant(value: datetime) -> str:
    """`2026-11-21T22:39:51.000000Z`. Raises ValueError for an instant without a time zone."""
    if value.tzinfo is not UTC:
        if value.tzinfo is None:
            raise ValueError("an instant without a time zone can not be stored: make it aware, in UTC")
        value = value.astimezone(UTC)
    return value.isoformat(timespec="microseconds")[:26] + "Z"


def schema_of(kind: type[R]) -> Schema[R]:
    """The schema of a record type. Raises ValueError for a type that is not in RECORDS."""
    try:
        return _SCHEMAS[kind]
    except KeyError:
        raise ValueError(f"{kind.__name__} is not among the stored record types (RECORDS)") from None


def derive(kind: type[R]) -> Schema[R]:
    """Reads type hints and field metadata. Raises TypeError for a type that can not be stored."""
    hints = get_type_hints(kind)
    columns = tuple(_column(kind, f.name, hints[f.name], f.metadata) for f in fields(kind))
    return Schema(kind, kind.TABLE, columns)


def _column(kind: type[Record], name: str, hint: Any, metadata: Any) -> Column:
    base, optional = _without_none(hint)
    sealed, blind = bool(metadata.get("sealed")), bool(metadata.get("blind"))
    if sealed is not (base is bytes) or (blind and base is not str):
        raise TypeError(f"{kind.__name__}.{name}: bytes are sealed, and only str is blind")
    storage, encode, decode = _codec(kind, name, base)
    return Column(name, storage, optional, sealed, blind, encode, Blinded if blind else decode)


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) is not UnionType:
        return hint, False
    rest = [part for part in get_args(hint) if part is not NoneType]
    return (rest[0] if len(rest) == 1 else hint), True


def _codec(kind: type[Record], name: str, base: Any) -> tuple[Storage, Codec | None, Codec | None]:
    if base in _CODECS:
        return _CODECS[base]
    if isinstance(base, type) and issubclass(base, StrEnum):
        return Storage.TEXT, str, {str(member): member for member in base}.__getitem__
    raise TypeError(f"{kind.__name__}.{name}: {base} can not be stored")


_CODECS: Final[dict[Any, tuple[Storage, Codec | None, Codec | None]]] = {
    str: (Storage.TEXT, None, None),
    int: (Storage.INTEGER, None, None),
    bool: (Storage.INTEGER, int, bool),
    bytes: (Storage.BYTES, None, None),
    datetime: (Storage.TEXT, instant, datetime.fromisoformat),
    date: (Storage.TEXT, date.isoformat, date.fromisoformat),
}
_SCHEMAS: Final[dict[Any, Schema[Any]]] = {kind: derive(kind) for kind in RECORDS}
