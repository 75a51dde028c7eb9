"""What `access-facade store copy FROM TO` and `store verify A B` do: progress on stderr, then the result."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from server.store import copy as copying
from server.store.copy import Comparison, Copied, CopyableStore
from server.store.opening import open_copyable

T = TypeVar("T")
_COLUMNS = (TextColumn("{task.description:>20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
Work = Callable[[CopyableStore, CopyableStore, copying.Progress], Awaitable[T]]


def copy_store(source: str, target: str, key_file: Path) -> Copied:
    """Both stores by URL, both under the same master key. Raises as opening and writing do."""
    return asyncio.run(_shown(source, target, key_file, copying.copy))


def verify_stores(a: str, b: str, key_file: Path) -> Comparison:
    """Counts, hashes and audit chains of both."""
    return asyncio.run(_shown(a, b, key_file, copying.compare))


async def _shown(a: str, b: str, key_file: Path, work: Work[T]) -> T:
    first = open_copyable(a, key_file)
    try:
        second = open_copyable(b, key_file)
        try:
            with Progress(*_COLUMNS, console=Console(stderr=True)) as display:
                return await work(first, second, _Bars(display).advance)
        finally:
            await second.close()
    finally:
        await first.close()


class _Bars:
    """A bar for each table."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._bars: dict[str, TaskID] = {}

    def advance(self, table: str, done: int, total: int) -> None:
        """Moves one."""
        if table not in self._bars:
            self._bars[table] = self._display.add_task(table, total=total)
        self._display.update(self._bars[table], completed=done, total=total)
