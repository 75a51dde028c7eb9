"""The demo's own view of the facade's store: read only, to wait for things and to count them at the end."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from server import settings
from server.context import Context
from server.domain.record import Record
from server.store.base import Where
from server.wiring import wired

R = TypeVar("R", bound=Record)
T = TypeVar("T")


class Ledger:
    """Rows of the store, asked for from a plain thread."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._wired: AbstractAsyncContextManager[Context] | None = None
        self._context: Context | None = None

    def __enter__(self) -> "Ledger":
        self._thread.start()
        self._wired = wired(settings.load(self._config))
        self._context = self._do(self._wired.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wired is not None:
            self._do(self._wired.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def rows(self, kind: type[R], *where: Where, order_by: str | None = None) -> list[R]:
        """All rows that meet the conditions."""
        return list(self.ask(lambda context: context.store.find(kind, *where, order_by=order_by)))

    def ask(self, question: Callable[[Context], Awaitable[T]]) -> T:
        """Anything else of the store."""

        async def answer() -> T:
            if self._context is None:
                raise RuntimeError("the ledger is not open")
            return await question(self._context)

        return self._do(answer())

    def _do(self, work: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result(20)
