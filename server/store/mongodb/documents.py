"""Rows as documents: a field for each column that is not None, and `_id`, the whole primary key as one text.

`_id` keeps the order of the key: parts are joined by U+0001, control characters within a part are escaped, numbers have
a fixed width. So one index serves the key, its beginnings, and the order of rows. A missing field is None; explicit
nulls are never written, so that a partial unique index passes over them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from server.domain.record import Record
from server.store.base import Where
from server.store.conditions import Stored, fixed_columns, order_columns, stored_conditions
from server.store.crypto import DataKey
from server.store.rows import CODECS, RowCodec

R = TypeVar("R", bound=Record)
Document = dict[str, Any]
_JOINT: Final = "\x01"
_AFTER_JOINT: Final = "\x02"
_ESCAPED: Final = {code: f"\x02{chr(code + 0x40)}" for code in range(0x20)}
_WIDTH: Final = 19  # digits of the largest number that a column holds
_OPERATORS: Final = {"<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte", "in": "$in"}


class Documents(Generic[R]):
    """One record type's documents."""

    __slots__ = ("_indexed", "_names", "_positions", "codec", "key", "name")

    def __init__(self, codec: RowCodec[R]) -> None:
        table = codec.schema.table
        self.codec, self.name, self.key = codec, table.name, table.key
        self._names = codec.schema.names
        self._positions = [self._names.index(name) for name in table.key]
        self._indexed = [frozenset(index[:2]) for index in (*table.unique, *table.indexes) if len(index) > 1]

    def document(self, values: Sequence[Any]) -> Document:
        """From stored values in column order."""
        fields = {name: value for name, value in zip(self._names, values, strict=True) if value is not None}
        return {"_id": key_text([values[at] for at in self._positions]), **fields}

    def values(self, document: Mapping[str, Any]) -> list[Any]:
        """Stored values in column order."""
        return [document.get(name) for name in self._names]

    def filter(self, where: Sequence[Where], key: DataKey | None) -> Document:
        """The conditions as a query."""
        clauses = [_clause(condition) for condition in stored_conditions(self.codec, where, key)]
        by_key = self._by_key({name: value for clause in clauses for name, value in clause.items()}, where)
        clauses += [by_key] if by_key else []
        together = {name: value for clause in clauses for name, value in clause.items()}
        return together if len(together) == len(clauses) else {"$and": clauses}

    def is_point(self, where: Sequence[Where]) -> bool:
        """Whether the key or a unique index lets one row through at most."""
        fixed = fixed_columns(where)
        return any(set(index) <= fixed for index in (self.key, *self.codec.schema.table.unique))

    def sort(self, order_by: str | None, *, descending: bool) -> list[tuple[str, int]]:
        """By the column, then by key; ValueError for a sealed column."""
        direction = -1 if descending else 1
        columns = order_columns(self.codec, order_by)
        if order_by is None or (len(self.key) == 1 and order_by == self.key[0]):
            return [("_id", direction)]
        return [(columns[0], direction), ("_id", direction)]

    def _by_key(self, clauses: Document, where: Sequence[Where]) -> Document | None:
        """The key, or its beginning if no index of its own serves the question better."""
        fixed = fixed_columns(where)
        start: list[Any] = []
        for name in self.key:
            if name not in fixed:
                break
            start.append(clauses[name])
        if len(start) == len(self.key):
            return {"_id": key_text(start)}
        if not start or any(index <= fixed for index in self._indexed):
            return None
        text = key_text(start)
        return {"_id": {"$gte": text + _JOINT, "$lt": text + _AFTER_JOINT}}


def key_text(parts: Sequence[str | int]) -> str:
    """The `_id` of a key. Raises ValueError for a number below zero."""
    return _JOINT.join(_part(part) for part in parts)


def _part(part: str | int) -> str:
    if isinstance(part, str):
        return part if part.isprintable() else part.translate(_ESCAPED)
    if part < 0:
        raise ValueError("a key's number can not be below zero")
    return f"{part:0{_WIDTH}}"


def _clause(condition: Stored) -> Document:
    if condition.operator == "in":
        return {condition.column: {"$in": list(condition.value)}}
    if condition.operator == "==":
        return {condition.column: {"$exists": False} if condition.value is None else condition.value}
    if condition.value is None:  # nothing is before or after None
        return {condition.column: {"$in": []}}
    return {condition.column: {_OPERATORS[condition.operator]: condition.value}}


DOCUMENTS: Final[dict[type[Record], Documents[Any]]] = {kind: Documents(codec) for kind, codec in CODECS.items()}


def documents_of(kind: type[R]) -> Documents[R]:
    """The documents of a record type. Raises ValueError for a type that is not stored."""
    try:
        return DOCUMENTS[kind]
    except KeyError:
        raise ValueError(f"{kind.__name__} is not among the stored record types (RECORDS)") from None
