"""The SQL of one record type, and conditions as SQL. Written once per type; values are always bound."""
# ruff: noqa: S608 - names come from our own record types; values are always bound

from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar

from server.domain.record import Record
from server.store.base import Where
from server.store.conditions import fixed_columns, order_columns, stored_values
from server.store.crypto import DataKey
from server.store.rows import CODECS, RowCodec
from server.store.sqlite.ddl import columns, quoted

R = TypeVar("R", bound=Record)
SHORT: Final = 20  # most rows that are read in the event loop's own thread
FEW: Final = 8  # values of an IN over a unique index
_OPERATORS: Final = {"==": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


class Statements(Generic[R]):
    """`insert` binds values in column order, `replace` those that `replace_values` picks, `delete` key and revision."""

    __slots__ = (
        "codec",
        "count",
        "delete",
        "get",
        "insert",
        "replace",
        "replace_values",
        "select",
        "table",
        "unique",
    )

    def __init__(self, codec: RowCodec[R]) -> None:
        schema = codec.schema
        table, names = schema.table, schema.names
        name = quoted(table.name)
        rest = tuple(column for column in names if column not in table.key)
        by_key = " AND ".join(f"{quoted(column)} = ?" for column in table.key)
        assignments = ", ".join(f"{quoted(column)} = ?" for column in rest)
        self.codec = codec
        self.table = table
        self.insert = f"INSERT INTO {name} ({columns(names)}) VALUES ({', '.join('?' * len(names))})"
        self.replace = f"UPDATE {name} SET {assignments} WHERE {by_key} AND {quoted('revision')} = ? - 1"
        self.delete = f"DELETE FROM {name} WHERE {by_key} AND {quoted('revision')} = ?"
        self.select = f"SELECT {columns(names)} FROM {name}"
        self.get = f"{self.select} WHERE {by_key}"
        self.count = f"SELECT count(*) FROM {name}"
        positions = {column: at for at, column in enumerate(names)}
        self.replace_values = itemgetter(*(positions[column] for column in (*rest, *table.key, "revision")))
        self.unique = tuple(frozenset(index) for index in (table.key, *table.unique))


STATEMENTS: Final[dict[type[Record], Statements[Any]]] = {kind: Statements(codec) for kind, codec in CODECS.items()}


def statements_of(kind: type[R]) -> Statements[R]:
    """The SQL of a record type. Raises ValueError for a type that is not stored."""
    try:
        return STATEMENTS[kind]
    except KeyError:
        raise ValueError(f"{kind.__name__} is not among the stored record types (RECORDS)") from None


def is_point(statements: Statements[Any], where: Sequence[Where]) -> bool:
    """Whether a unique index lets one row through at most."""
    fixed = fixed_columns(where)
    return any(index <= fixed for index in statements.unique)


def is_short(statements: Statements[Any], where: Sequence[Where], order_by: str | None, limit: int | None) -> bool:
    """Whether the rows asked for are surely few: by a unique index, or neighbours in the primary key up to a limit."""
    if order_by is not None:
        return False
    few = {
        condition.column
        for condition in where
        if (condition.operator == "==" and condition.value is not None)
        or (condition.operator == "in" and len(condition.value) <= FEW)
    }
    if any(index <= few for index in statements.unique):
        return True
    if limit is None or limit > SHORT:
        return False
    fixed = fixed_columns(where)
    return len(fixed) == len(where) and fixed == set(statements.table.key[: len(fixed)])


Shape = tuple[tuple[str, str, int], ...]  # column, operator, how many values; the same shape, the same SQL


def shape_of(where: Sequence[Where]) -> Shape:
    """What of the conditions decides the SQL."""
    return tuple(
        [(name, operator, len(value) if operator == "in" else value is not None) for name, operator, value in where]
    )


@lru_cache(maxsize=2048)
def condition_text(shape: Shape) -> str:
    """` WHERE …` for conditions that `stored_values` took."""
    texts = []
    for column, operator, size in shape:
        if operator == "in":
            texts.append(f"{quoted(column)} IN ({', '.join('?' * size)})")
        else:
            compared = "IS" if operator == "==" and not size else _OPERATORS[operator]
            texts.append(f"{quoted(column)} {compared} ?")
    return " WHERE " + " AND ".join(texts) if texts else ""


def conditions(statements: Statements[Any], where: Sequence[Where], key: DataKey | None) -> tuple[str, list[Any]]:
    """` WHERE …` and the values to bind. Raises ValueError for a condition that no engine may answer."""
    values: list[Any] = []
    for (_, operator, _), value in zip(where, stored_values(statements.codec, where, key), strict=True):
        if operator == "in":
            values.extend(value)
        else:
            values.append(value)
    return condition_text(shape_of(where)), values


def order(statements: Statements[Any], order_by: str | None, *, descending: bool) -> str:
    """` ORDER BY …`: the column, then the key, all in one direction."""
    direction = " DESC" if descending else ""
    names = order_columns(statements.codec, order_by)
    return " ORDER BY " + ", ".join(quoted(name) + direction for name in names)
