"""Records to stored values and back, sealing and blinding on the way. The same for every engine."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

from server.domain.errors import StoreDamaged
from server.domain.record import Record
from server.store.crypto import DataKey
from server.store.schema import RECORDS, Blinded, Schema, schema_of

R = TypeVar("R", bound=Record)


class RowCodec(Generic[R]):
    """Encodes and decodes one record type; everything that can be known beforehand is computed once."""

    __slots__ = ("_blind", "_coded", "_decoded", "_fetch", "_key", "_revision", "_sealed", "schema")

    def __init__(self, schema: Schema[R]) -> None:
        self.schema = schema
        columns = list(enumerate(schema.columns))
        self._fetch = attrgetter(*schema.names)
        self._revision = schema.position("revision")
        self._key = tuple(schema.position(name) for name in schema.table.key)
        self._coded = tuple((at, column.encode) for at, column in columns if column.encode is not None)
        self._decoded = tuple((at, column.decode) for at, column in columns if column.decode is not None)
        self._blind = tuple((at, self._place(column.name)) for at, column in columns if column.blind)
        self._sealed = tuple((at, self._place(column.name)) for at, column in columns if column.sealed)

    def encode(self, record: R, key: DataKey, revision: int) -> list[Any]:
        """The stored values in column order. Raises ValueError for a value that can not be stored."""
        values = list(self._fetch(record))
        values[self._revision] = revision
        for at, encode in self._coded:
            if values[at] is not None:
                values[at] = encode(values[at])
        for at, place in self._blind:
            if values[at] is not None:
                values[at] = blinded(values[at], key, place)
        if self._sealed:
            row = self._row(values, revision)
            for at, place in self._sealed:
                if values[at] is not None:
                    values[at] = key.seal(values[at], place + row)
        return values

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


def blinded(value: str, key: DataKey, place: bytes) -> str:
    """The hash to store or to look for; what is a hash already stays."""
    return str(value) if isinstance(value, Blinded) else key.blind(value, place)


CODECS: Final[dict[type[Record], RowCodec[Any]]] = {kind: RowCodec(schema_of(kind)) for kind in RECORDS}


def codec_of(kind: type[R]) -> RowCodec[R]:
    """The codec of a record type. Raises ValueError for a type that is not stored."""
    schema_of(kind)
    return CODECS[kind]
