"""What every engine makes of conditions before it writes them in its own language: checked, and with stored values."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, Literal, NamedTuple

from server.store.base import Where
from server.store.crypto import DataKey
from server.store.rows import RowCodec, blinded
from server.store.schema import Blinded, Codec

Operator = Literal["==", "<", "<=", ">", ">=", "in"]
_OPERATORS: Final = frozenset({"==", "<", "<=", ">", ">=", "in"})


class Stored(NamedTuple):
    """A condition on stored values. `value` is a tuple for `in`; None with `==` asks for empty columns."""

    column: str
    operator: Operator
    value: Any


def stored_conditions(codec: RowCodec[Any], where: Sequence[Where], key: DataKey | None) -> list[Stored]:
    """The conditions on stored values. Raises ValueError for one that no engine may answer."""
    values = stored_values(codec, where, key)
    return [Stored(each.column, each.operator, value) for each, value in zip(where, values, strict=True)]


def stored_values(codec: RowCodec[Any], where: Sequence[Where], key: DataKey | None) -> list[Any]:
    """The stored value of each condition. Raises ValueError for a condition that no engine may answer."""
    found: list[Any] = []
    for column_name, operator, value in where:
        encode, place = _conversion(codec, column_name, operator)
        if value is None:
            found.append(None)
        elif operator == "in":
            found.append(tuple(value) if encode is None else tuple(map(encode, value)))
        elif place is not None and key is not None:
            found.append(blinded(value, key, place))
        else:
            found.append(value if encode is None else encode(value))
    return found


@cache
def _conversion(codec: RowCodec[Any], column_name: str, operator: Operator) -> tuple[Codec | None, bytes | None]:
    """How a column's value is stored, and what its hash is bound to if it is blind. Raises ValueError."""
    column = codec.schema.column(column_name)
    place = f"{codec.schema.table.name}.{column.name}"
    if operator not in _OPERATORS:
        raise ValueError(f"{place}: {operator!r} is no operator")
    if column.sealed:
        raise ValueError(f"{place} is sealed: it can not be searched")
    if column.blind and operator != "==":
        raise ValueError(f"{place} is blind: it can only be compared by ==")
    return column.encode, codec.blind_place(column.name) if column.blind else None


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
        condition.column in codec.blind and condition.value is not None and not isinstance(condition.value, Blinded)
        for condition in where
    )


def participant_of(where: Sequence[Where]) -> str:
    """The one participant whose rows are asked for. Raises ValueError if the conditions do not say."""
    for condition in where:
        if condition.column == "participant_id" and condition.operator == "==":
            return str(condition.value)
    raise ValueError("a blind column is asked for with participant_id == …: each participant has its own hashes")
