"""The sandbox's clock: the machine's plus an offset that can be set and is stored. It ticks on."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from sandbox import tables
from sandbox.store import Store

ZONE = ZoneInfo(tables.program()["time_zone"])


def machine_now() -> datetime:
    """The machine's own clock, aware, UTC."""
    return datetime.now(UTC)


def day_of(moment: datetime) -> date:
    """The calendar day at CMS."""
    return moment.astimezone(ZONE).date()


class Clock:
    """What time it is at this CMS."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.read()

    def read(self) -> None:
        """Takes the stored offset."""
        self._offset = timedelta(microseconds=self._store.setting("clock_offset") or 0)

    def now(self) -> datetime:
        """Aware, UTC."""
        return machine_now() + self._offset

    def today(self) -> date:
        """The calendar day at CMS."""
        return day_of(self.now())

    def set(self, now: datetime) -> None:
        """From here on it is `now`, and ticks on. Stored in the transaction under way."""
        self._offset = now - machine_now()
        self._store.set("clock_offset", round(self._offset / timedelta(microseconds=1)))
