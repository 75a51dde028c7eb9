"""Group commit: what is queued for a participant while its last transaction is under way shares the next one.

A participant's audit chain has one end, so its transactions can only follow each other; two at once would conflict and
be repeated. Within a process each participant has a lane, and lanes run side by side. If a group fails for what one of
its changesets asked, each is written alone, so that the bad one fails alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from server.domain.errors import StoreUnavailable
from server.store.mongodb.changes import Commands

GROUP: Final = 32  # changesets in a transaction
ROWS: Final = 500  # rows in a transaction: a large one holds the lane, and MongoDB's oplog, for long
SIDE_BY_SIDE: Final = 16  # lanes that write at once, in one process

Write = Callable[[Sequence[Commands]], Awaitable[None]]


class _Work(NamedTuple):
    commands: Commands
    future: "asyncio.Future[None]"


class Lanes:
    """Used from one event loop."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._queues: dict[str, deque[_Work]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(SIDE_BY_SIDE)
        self._closed = False

    async def submit(self, lane: str, commands: Commands) -> None:
        """Returns when it is durable. Raises what writing it raises, StoreUnavailable."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._queues.get(lane)
        if queue is None:
            queue = self._queues[lane] = deque()
            task = asyncio.create_task(self._drain(lane, queue))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        queue.append(_Work(commands, future))
        await future

    async def close(self) -> None:
        """Takes no more, and waits for what is queued."""
        self._closed = True
        while self._running:
            await asyncio.wait(self._running)

    async def _drain(self, lane: str, queue: deque[_Work]) -> None:
        while queue:
            async with self._room:
                await self._write_group(_taken(queue))
        del self._queues[lane]

    async def _write_group(self, group: Sequence[_Work]) -> None:
        try:
            await self._write([work.commands for work in group])
        except StoreUnavailable as error:
            _failed(group, error)
        except Exception as error:  # handed to whoever awaits the work, whatever it is
            if len(group) == 1:
                _failed(group, error)
                return
            for work in group:
                await self._write_group([work])
        else:
            for work in group:
                if not work.future.done():  # else whoever waited was cancelled
                    work.future.set_result(None)


def _taken(queue: deque[_Work]) -> list[_Work]:
    group: list[_Work] = []
    rows = 0
    while queue and len(group) < GROUP and rows < ROWS:
        group.append(queue.popleft())
        rows += group[-1].commands.rows
    return group


def _failed(group: Sequence[_Work], error: Exception) -> None:
    for work in group:
        if not work.future.done():
            work.future.set_exception(error)
