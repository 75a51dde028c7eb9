"""The rows of the base type tables, parsed: what both the acceptor and the structure check are made from."""

import re
from dataclasses import dataclass
from functools import cache

from profiles import library
from profiles.primitives import PRIMITIVES

_ROW = re.compile(r"(\d+)\.\.(\d+|\*) ([^!]+?)(?: ! (\S+))?")
_KIND = re.compile(r"(@?[A-Za-z0-9.]+)(?:\(([^)]*)\))?")


@dataclass(frozen=True, slots=True)
class Kind:
    """One type that an element may have, under one JSON key."""

    key: str  # `valueQuantity`
    step: str  # in FHIRPath, `value.ofType(Quantity)`
    code: str  # `Quantity`, or the path of a backbone
    targets: frozenset[str]  # of a Reference; empty: any

    @property
    def is_primitive(self) -> bool:
        """Whether values are strings, numbers or booleans, with a `_key` companion."""
        return self.code in PRIMITIVES


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a type. `path` is where its own invariants stand, None for a backbone, which has its own."""

    name: str
    required: bool
    many: bool
    kinds: tuple[Kind, ...]
    value_set: str | None
    path: str | None

    @property
    def is_choice(self) -> bool:
        """Whether it is an `x[x]`, of which one type may have a value."""
        return self.name.endswith("[x]")

    @property
    def keys(self) -> frozenset[str]:
        """Every JSON key, companions included."""
        return frozenset(key for kind in self.kinds for key in (kind.key, f"_{kind.key}")[: 1 + kind.is_primitive])


@cache
def elements_of(owner: str) -> tuple[Element, ...]:
    """The elements of a resource type, datatype or backbone."""
    return tuple(_element(owner, name, row) for name, row in library.types()[owner]["elements"].items())


def _element(owner: str, name: str, row: str) -> Element:
    parsed = _ROW.fullmatch(row)
    assert parsed is not None, row
    minimum, maximum, written, value_set = parsed.groups()
    stem = name.removesuffix("[x]")
    kinds = tuple(_kind(stem, name.endswith("[x]"), each[1], each[2]) for each in _KIND.finditer(written))
    path = None if written.startswith("@") else f"{owner}.{stem}"
    return Element(name, minimum != "0", maximum != "1", kinds, value_set, path)


def _kind(stem: str, is_choice: bool, code: str, targets: str | None) -> Kind:
    listed = frozenset(targets.split(",")) if targets else frozenset()
    if not is_choice:
        return Kind(stem, stem, code.lstrip("@"), listed)
    return Kind(stem + code[0].upper() + code[1:], f"{stem}.ofType({code})", code, listed)
