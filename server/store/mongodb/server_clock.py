"""Leases are counted by the database's clock, which all machines share; a machine's own may be minutes off.

Each look at the server says how far the two are apart. What differs by less than a second is the way to the server and
back, and counts as nothing.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from server import clock

_NOTHING: Final = timedelta(seconds=1)


class ServerClock:
    """The server's time, in terms of this machine's."""

    def __init__(self) -> None:
        self._ahead: timedelta | None = None

    @property
    def is_known(self) -> bool:
        """Whether the server was asked once."""
        return self._ahead is not None

    def read(self, hello: Mapping[str, Any], asked_at: datetime) -> None:
        """From the server's `hello`, asked for at `asked_at` by this machine's clock."""
        said: datetime = hello["localTime"].replace(tzinfo=UTC)
        answered_at = clock.machine_now()
        ahead = said - (asked_at + (answered_at - asked_at) / 2)
        self._ahead = ahead if abs(ahead) > _NOTHING else timedelta(0)

    def of(self, machine_time: datetime) -> datetime:
        """What the server's clock shows when this machine's shows that."""
        return machine_time + (self._ahead or timedelta(0))
