"""Records as tables: all of them are known, and each can be stored."""

import importlib
import pkgutil
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

import server.domain
from server.domain.record import Record, Table
from server.store.rows import codec_of
from server.store.schema import RECORDS, derive, schema_of


def subclasses() -> set[type[Record]]:
    """Every record type that the domain defines."""
    found = set()
    for info in pkgutil.iter_modules(server.domain.__path__):
        module = importlib.import_module(f"server.domain.{info.name}")
        found |= {kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Record)}
    return found - {Record}


def test_every_record_of_the_domain_is_stored() -> None:
    """RECORDS names each record type once, and each its own table."""
    assert set(RECORDS) == subclasses()
    assert len({kind.TABLE.name for kind in RECORDS}) == len(RECORDS)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.TABLE.name)
def test_keys_and_indexes_name_columns(kind: type[Record]) -> None:
    """Keys and indexes name columns that are there and not sealed; no part of a key is optional."""
    schema = schema_of(kind)
    for name in {*kind.TABLE.key, *(n for index in (*kind.TABLE.unique, *kind.TABLE.indexes) for n in index)}:
        assert not schema.column(name).sealed
    assert not any(schema.column(name).optional for name in kind.TABLE.key)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.TABLE.name)
def test_a_blind_key_stands_beside_its_participant(kind: type[Record]) -> None:
    """A key or unique index with a blind column has the participant too: each has its own hashes."""
    schema = schema_of(kind)
    for index in (kind.TABLE.key, *kind.TABLE.unique):
        if any(schema.column(name).blind for name in index):
            assert "participant_id" in index


@pytest.mark.parametrize("hint", [float, list[str], str | int, bytes])
def test_what_can_not_be_stored_is_refused(hint: Any) -> None:
    """A column of another type, or plain bytes, is noticed when the schema is derived."""

    @dataclass(frozen=True, kw_only=True)
    class Odd(Record):
        TABLE: ClassVar[Table] = Table("odd", key=("id",))
        id: str
        column: Any = field(default=None)

    Odd.__annotations__["column"] = hint
    with pytest.raises(TypeError, match=r"Odd\.column"):
        derive(Odd)


def test_an_unknown_record_type_is_refused() -> None:
    """A type that is not in RECORDS is the program's fault."""
    with pytest.raises(ValueError, match="RECORDS"):
        codec_of(Record)
