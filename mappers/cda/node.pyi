"""lxml's element with what its stubs leave out: a slice is its children, in one call of C; texts are always `str`."""

from collections.abc import Iterator
from typing import overload

from lxml import etree

class Node(etree._Element):
    @overload
    def __getitem__(self, __x: int) -> Node: ...
    @overload
    def __getitem__(self, __x: slice) -> list[Node]: ...
    def __iter__(self) -> Iterator[Node]: ...  # type: ignore[override]
    def iter(self, *tags: str) -> Iterator[Node]: ...  # type: ignore[override]
    def iterancestors(self, *tags: str) -> Iterator[Node]: ...  # type: ignore[override]
    def itertext(self) -> Iterator[str]: ...  # type: ignore[override]
    def getparent(self) -> Node | None: ...
