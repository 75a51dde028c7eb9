"""All exceptions, in one tree. Bad clinical data is no exception: checks and mappers return Issues.

FacadeError
├── Temporary               the worker retries; a door answers 503 with Retry-After
│   ├── StoreUnavailable    locked, full or gone
│   └── PeerUnavailable     CMS, a subscriber or a key server did not answer as agreed
├── Conflict                somebody else wrote first: read again
│   ├── UniqueViolation     `index` names the columns
│   └── LeaseLost           the job is not ours any more: write nothing
└── Final                   trying again does not help
    ├── Refused             the caller may not, or the request is wrong: `status`, `issues`
    ├── BadConfiguration    the settings are wrong: said in plain words
    └── StoreDamaged        a wrong key, a torn row, a broken audit chain
"""

from collections.abc import Sequence

from profiles.issue import Issue


class FacadeError(Exception):
    """The root. Messages hold ids only, never PHI."""


class Temporary(FacadeError):
    """Trying again later may help. `retry_after_seconds` is the other side's wish, if it has one."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StoreUnavailable(Temporary):
    """The store can not take writes now."""


class PeerUnavailable(Temporary):
    """A peer did not answer as agreed."""


class Deferred(Temporary):
    """It is not time yet: the job is due again in exactly `retry_after_seconds`, and nobody need hear of it."""


class Conflict(FacadeError):
    """A row was changed by somebody else since it was read."""


class UniqueViolation(Conflict):
    """A unique index bars the row. `table` and `index` say which."""

    def __init__(self, table: str, index: tuple[str, ...]) -> None:
        super().__init__(f"{table}: unique index on {', '.join(index)}")
        self.table = table
        self.index = index


class LeaseLost(Conflict):
    """The job was taken over: nothing of the changeset was written."""


class Final(FacadeError):
    """Trying again does not help."""


class Refused(Final):
    """The request is refused with an HTTP status and the reasons."""

    def __init__(self, status: int, issues: Sequence[Issue], *, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"refused with {status}")
        self.status = status
        self.issues = tuple(issues)
        self.headers = headers or {}


class BadConfiguration(Final):
    """The settings are wrong."""


class StoreDamaged(Final):
    """The store can not be read as it was written."""
