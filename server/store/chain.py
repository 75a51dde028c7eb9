"""The audit chain: each row's hash covers the row before it. Pure: no I/O.

hash = SHA-256( previous_hash as text + canonical JSON of the row's other columns ), in hex; the first row's
`previous_hash` is 64 zeros. Canonical JSON: keys sorted, no spaces, UTF-8, values as stored (RFC 8785 for texts and
integers). The head of a chain (its last sequence and hash) is signed with the participant's key: whoever can write the
file but has not the key can neither cut the tail off nor hash the chain anew.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from server.domain.audit import AuditEntry
from server.store.crypto import DataKey
from server.store.schema import schema_of

GENESIS: Final = "0" * 64
_NAMES: Final = schema_of(AuditEntry).names
_SEQUENCE: Final = _NAMES.index("sequence")
_PREVIOUS: Final = _NAMES.index("previous_hash")
_HASH: Final = _NAMES.index("hash")
_COVERED: Final = tuple((at, name) for at, name in enumerate(_NAMES) if at not in (_PREVIOUS, _HASH))
_encoder: Final = msgspec.json.Encoder(order="sorted")


class Head(NamedTuple):
    """The end of a chain: how many rows it has, and the last one's hash."""

    sequence: int
    hash: str


class Signed(NamedTuple):
    """The stored end of a chain."""

    sequence: int
    hash: str
    signature: bytes


class Stretch(NamedTuple):
    """How far a chain is right, and the first sequence that is not; `ended`: there are no more rows."""

    head: Head
    broken: int | None
    ended: bool


EMPTY: Final = Head(0, GENESIS)
STRETCH: Final = 5000  # rows that are walked at once, so that memory does not grow with the chain


def canonical(columns: Mapping[str, str | int | None]) -> bytes:
    """Canonical JSON of stored values."""
    return _encoder.encode(columns)


def row_hash(previous_hash: str, values: Sequence[Any]) -> str:
    """The hash that a row must have. `values` are stored values in column order."""
    covered = canonical({name: values[at] for at, name in _COVERED})
    return hashlib.sha256(previous_hash.encode() + covered).hexdigest()


def link(head: Head, values: list[Any]) -> Head:
    """Sets a row's sequence and hashes to follow `head`; returns the new head."""
    values[_SEQUENCE] = head.sequence + 1
    values[_PREVIOUS] = head.hash
    values[_HASH] = row_hash(head.hash, values)
    return Head(head.sequence + 1, values[_HASH])


def follow(head: Head, rows: Iterable[Sequence[Any]]) -> tuple[Head, int | None]:
    """Walks rows that must follow `head`. Returns how far they are right, and the sequence of the first that is not."""
    for values in rows:
        expected = head.sequence + 1
        right = values[_SEQUENCE] == expected and values[_PREVIOUS] == head.hash
        if not right or values[_HASH] != row_hash(head.hash, values):
            return head, expected
        head = Head(expected, values[_HASH])
    return head, None


def signature(participant_id: str, head: Head, key: DataKey) -> bytes:
    """The signature of a head."""
    return key.sign(f"audit|{participant_id}|{head.sequence}|{head.hash}".encode())


def missing_at_end(participant_id: str, reached: Head, signed: Signed | None, key: DataKey | None) -> int | None:
    """The first sequence that is missing or wrong, if the chain's rows do not reach the end that was signed."""
    if signed is not None and key is not None:
        right = reached == (signed.sequence, signed.hash)
        if right and signed.signature == signature(participant_id, reached, key):
            return None
    if signed is not None and signed.sequence == reached.sequence:
        return max(reached.sequence, 1)
    return min(reached.sequence, signed.sequence if signed else 0) + 1
