"""What a step or a door works with. Made once in the wiring, handed to everything below it."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from server.clock import Clock
from server.domain.job import Job
from server.settings import Settings
from server.store.base import Changeset, Store
from server.store.crypto import random_nonce


@dataclass(frozen=True, slots=True)
class Context:
    """Settings, store, clock, the connections to CMS, and the one pooled HTTP client for everybody else.

    `locks`, by name, are for single flight in one process; `memory`, by name, holds what that process has read lately
    and may forget at any time.
    """

    settings: Settings
    store: Store
    clock: Clock
    http: httpx2.AsyncClient
    cms: Mapping[str, Any] = field(default_factory=dict)  # by origin: what server/cms/transport.py makes
    locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    memory: dict[str, Any] = field(default_factory=dict)
    seen_patients: set[tuple[str, str]] = field(default_factory=set)  # participant and id; a Patient is never deleted


# A step does one job and says what to write; the worker commits it together with the end of the job.
# Raise Temporary to be run again later.
Step = Callable[[Job, Context], Awaitable[Changeset]]


def new_id() -> str:
    """A logical id, 32 hex digits: 48 bits of time, then 80 of chance (UUIDv7's layout). New rows stay together."""
    return f"{time.time_ns() // 1_000_000:012x}{random_nonce()[:10].hex()}"
