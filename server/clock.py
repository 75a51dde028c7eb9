"""What time it is. Business time may be the sandbox's in a demo; leases and tokens always use the machine's own."""

import asyncio
import contextlib
import json
import time
import urllib.request
from datetime import UTC, date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo


class Clock(Protocol):
    """Business time: what deadlines, windows and due times are counted by."""

    def now(self) -> datetime:
        """Aware, UTC."""
        ...


def machine_now() -> datetime:
    """The machine's own clock, aware, UTC: leases, tokens, assertions."""
    return datetime.now(UTC)


def today(clock: Clock, zone: str) -> date:
    """The calendar date in a zone, by business time."""
    return clock.now().astimezone(ZoneInfo(zone)).date()


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Aware, UTC."""
        return machine_now()


class SandboxClock:
    """The stand-in CMS's clock, followed by asking it several times a second. For demos and tests only."""

    def __init__(self, url: str, every_seconds: float = 0.1) -> None:
        self._url = url
        self._every = every_seconds
        self._offset = timedelta(0)
        self._read()

    def now(self) -> datetime:
        """Aware, UTC."""
        return machine_now() + self._offset

    async def follow(self) -> None:
        """Keeps asking, until cancelled. A sandbox that does not answer leaves the offset as it is."""
        while True:
            await asyncio.sleep(self._every)
            await asyncio.to_thread(self._read)

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            before = time.monotonic()
            with urllib.request.urlopen(self._url, timeout=2) as answer:  # noqa: S310 - loopback by settings
                now = datetime.fromisoformat(json.load(answer)["now"])
            if time.monotonic() - before < 1.0:
                self._offset = now.astimezone(UTC) - machine_now()
