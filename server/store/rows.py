"""Records to stored values and back, sealing and blinding on the way. The same for every engine."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from server.domain.errors import StoreDamaged
from server.domain.record import Record
from server.store.crypto import DataKey
from server.store.schema import RECORDS, Blinded, Schema, Storage, schema_of

R = TypeVar("R", bound=Record)


class RowCodec(Generic[R]):
    """Encodes and decodes one record type; everything that can be known beforehand is computed once.

    `encode(record, key, revision)` gives the stored values in column order. Raises ValueError for a value that can not
    be stored. It is written out and compiled for each type: every write of every row passes through it.
    """

    __slots__ = ("_decoded", "_key", "_revision", "_sealed", "blind", "encode", "schema")

    def __init__(self, schema: Schema[R]) -> None:
        self.schema = schema
        columns = list(enumerate(schema.columns))
        self._revision = schema.position("revision")
        self._key = tuple(schema.position(name) for name in schema.table.key)
        self._decoded = tuple((at, column.decode) for at, column in columns if column.decode is not None)
        self._sealed = tuple((at, self._place(column.name)) for at, column in columns if column.sealed)
        self.blind = frozenset(column.name for column in schema.columns if column.blind)
        self.encode: Callable[[R, DataKey, int], list[Any]] = _compiled(schema, self._place)

    def locate(self, record: R, key: DataKey) -> list[Any]:
        """The stored values of the primary key, then the revision."""
        values: list[Any] = []
        for name in self.schema.table.key:
            column, value = self.schema.column(name), getattr(record, name)
            stored = value if column.encode is None or value is None else column.encode(value)
            values.append(blinded(stored, key, self._place(name)) if column.blind else stored)
        return [*values, record.revision]

    def decode(self, stored: Sequence[Any], key: DataKey | None) -> R:
        """The record. Raises StoreDamaged if it is not what was written; `key` may be None if nothing is sealed."""
        values = list(stored)
        try:
            if self._sealed:
                self._unseal(values, key)
            for at, decode in self._decoded:
                if values[at] is not None:
                    values[at] = decode(values[at])
        except (StoreDamaged, ValueError, KeyError) as bad:
            reason = bad if isinstance(bad, StoreDamaged) else "a value is of no known form"
            raise StoreDamaged(f"{self.schema.table.name} {self._named(stored)}: {reason}") from None
        return self.schema.record(**dict(zip(self.schema.names, values, strict=True)))

    def blind_place(self, column: str) -> bytes:
        """What a hash of that column is bound to."""
        return self._place(column)

    def _unseal(self, values: list[Any], key: DataKey | None) -> None:
        if key is None:
            raise StoreDamaged("the participant's data key is missing")
        row = self._row(values, values[self._revision])
        for at, place in self._sealed:
            if values[at] is not None:
                values[at] = key.unseal(values[at], place + row)

    def _place(self, column: str) -> bytes:
        return f"{self.schema.table.name}|{column}|".encode()

    def _row(self, values: Sequence[Any], revision: int) -> bytes:
        """The row's key and revision. Lengths stand before the parts, so that no two keys read alike."""
        parts = [str(values[at]) for at in self._key]
        return "|".join([f"{len(part)}:{part}" for part in parts] + [str(revision)]).encode()

    def _named(self, stored: Sequence[Any]) -> str:
        return "/".join(str(stored[at]) for at in self._key)


def _compiled(schema: Schema[Any], place_of: Callable[[str], bytes]) -> Callable[[Any, DataKey, int], list[Any]]:
    """The function that `RowCodec.encode` is. Its source holds names of columns only."""
    known: dict[str, Any] = {"blinded": blinded}
    fetched, made = [], []
    for at, column in enumerate(schema.columns):
        value, known[f"place{at}"], known[f"encode{at}"] = f"v{at}", place_of(column.name), column.encode
        text = value if column.encode is None else f"encode{at}({value})"
        if column.name == "revision":
            text = "revision"
        if column.blind:
            text = f"blinded({text}, key, place{at})"
        if column.sealed:
            text = f"key.seal({text}, place{at} + row)"
        fetched.append(f"    {value} = record.{column.name}")
        made.append(f"None if {value} is None else {text}" if column.optional and text != value else text)
    if any(column.sealed for column in schema.columns):
        fetched.append(f"    row = {_row_source(schema)}")
    source = "\n".join(["def encode(record, key, revision):", *fetched, f"    return [{', '.join(made)}]"])
    exec(compile(source, f"<{schema.table.name}>", "exec"), known)  # noqa: S102 - written here, from our own types
    encode: Callable[[Any, DataKey, int], list[Any]] = known["encode"]
    return encode


def _row_source(schema: Schema[Any]) -> str:
    """What `RowCodec._row` computes, written out. The key of a type with sealed columns is plain text or a number."""
    parts = []
    for name in schema.table.key:
        value = f"v{schema.position(name)}"
        if schema.column(name).storage is not Storage.TEXT:
            value = f"str({value})"
        parts.append(f"{{len({value})}}:{{{value}}}|")
    return f'f"{"".join(parts)}{{revision}}".encode()'


def blinded(value: str, key: DataKey, place: bytes) -> str:
    """The hash to store or to look for; what is a hash already stays."""
    return str(value) if value.__class__ is Blinded else key.blind(value, place)


CODECS: Final[dict[type[Record], RowCodec[Any]]] = {kind: RowCodec(schema_of(kind)) for kind in RECORDS}


def codec_of(kind: type[R]) -> RowCodec[R]:
    """The codec of a record type. Raises ValueError for a type that is not stored."""
    schema_of(kind)
    return CODECS[kind]
