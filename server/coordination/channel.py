"""What every channel takes and gives back. A channel is one module with one `send`; `deliver.py` has their table."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from server.context import Context


class Verdict(StrEnum):
    """What one attempt means for the delivery."""

    DELIVERED = "delivered"  # the receiver confirmed
    AGAIN = "again"  # it may work later
    REFUSED = "refused"  # the receiver, or our own guard, will not have it: trying again hardly helps
    GONE = "gone"  # the receiver says that it will never come back


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One notification on its way. `headers` are secrets: never logged, never stored with the proof."""

    endpoint: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    content_type: str
    body: bytes = field(repr=False)
    timeout_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. `problem` is ours, in plain words, when nothing came back."""

    verdict: Verdict
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""  # the first bytes only
    problem: str = ""
    retry_after_seconds: float = 0.0


Sender = Callable[[Outgoing, Context], Awaitable[Answer]]
