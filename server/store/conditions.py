"""What every engine makes of conditions before it writes them in its own language: checked, and with stored values."""

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from server.store.base import Where
from server.store.crypto import DataKey
from server.store.rows import RowCodec, blinded
from server.store.schema import Blinded, Column

_OPERATORS: Final = frozenset({"==", "<", "<=", ">", ">=", "in"})


class Stored(NamedTuple):
    """A condition on stored values. `value` is a tuple for `in`; None with `==` asks for empty columns."""

    column: str
    operator: Literal["==", "<", "<=", ">", ">=", "in"]
    value: Any


def stored_conditions(codec: RowCodec[Any], where: Sequence[Where], key: DataKey | None) -> list[Stored]:
    """The conditions on stored values. Raises ValueError for one that no engine may answer."""
    found: list[Stored] = []
    for condition in where:
        column = codec.schema.column(condition.column)
        _check(codec, column, condition)
        if condition.operator == "in":
            value: Any = tuple(_stored(column, each) for each in condition.value)
        else:
            value = _hashed(codec, column, condition.value, key)
        found.append(Stored(column.name, condition.operator, value))
    return found


def fixed_columns(where: Sequence[Where]) -> frozenset[str]:
    """The columns that must equal one value that is not None."""
    return frozenset(each.column for each in where if each.operator == "==" and each.value is not None)


def order_columns(codec: RowCodec[Any], order_by: str | None) -> tuple[str, ...]:
    """The column, then the key. Raises ValueError for a sealed column."""
    key = codec.schema.table.key
    if order_by is None:
        return key
    if codec.schema.column(order_by).sealed:
        raise ValueError(f"{codec.schema.table.name}.{order_by} is sealed: rows have no order by it")
    return (order_by, *(name for name in key if name != order_by))


def has_blind(codec: RowCodec[Any], where: Sequence[Where]) -> bool:
    """Whether a condition gives clear text for a blind column, which takes the participant's key."""
    return any(
        codec.schema.column(condition.column).blind
        and condition.value is not None
        and not isinstance(condition.value, Blinded)
        for condition in where
    )


def participant_of(where: Sequence[Where]) -> str:
    """The one participant whose rows are asked for. Raises ValueError if the conditions do not say."""
    for condition in where:
        if condition.column == "participant_id" and condition.operator == "==":
            return str(condition.value)
    raise ValueError("a blind column is asked for with participant_id == …: each participant has its own hashes")


def _check(codec: RowCodec[Any], column: Column, condition: Where) -> None:
    place = f"{codec.schema.table.name}.{column.name}"
    if condition.operator not in _OPERATORS:
        raise ValueError(f"{place}: {condition.operator!r} is no operator")
    if column.sealed:
        raise ValueError(f"{place} is sealed: it can not be searched")
    if column.blind and condition.operator != "==":
        raise ValueError(f"{place} is blind: it can only be compared by ==")


def _hashed(codec: RowCodec[Any], column: Column, value: Any, key: DataKey | None) -> Any:
    if column.blind and value is not None and key is not None:
        return blinded(value, key, codec.blind_place(column.name))
    return _stored(column, value)


def _stored(column: Column, value: Any) -> Any:
    return value if value is None or column.encode is None else column.encode(value)
