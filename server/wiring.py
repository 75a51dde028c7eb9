"""Puts the parts together: settings in, Context out. Nothing else creates a store, a clock or an HTTP client."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from mappers import overrides
from mappers.recompile import install
from profiles import library
from profiles.packages import loaded_in
from profiles.validate import prepare
from server.clock import Clock, SandboxClock, SystemClock
from server.cms.client import connections
from server.context import Context
from server.domain.errors import BadConfiguration
from server.settings import Settings
from server.store.opening import open_store


@contextlib.asynccontextmanager
async def wired(settings: Settings) -> AsyncIterator[Context]:
    """The context of one process; closed in order when the block ends."""
    _own_definitions(settings)
    guides = {participant.guide: None for participant in settings.participants.values()}
    prepare(*guides)  # compiles the checks, so that the first request does not wait for it
    _settle_memory()
    store = open_store(settings.store_url, settings.key_file)
    clock: Clock = SystemClock() if settings.clock_url is None else SandboxClock(settings.clock_url)
    following = asyncio.create_task(clock.follow()) if isinstance(clock, SandboxClock) else None
    try:
        async with (
            connections(settings) as cms,
            httpx2.AsyncClient(
                limits=httpx2.Limits(max_connections=200, max_keepalive_connections=100),
                follow_redirects=False,
                trust_env=False,  # no proxies of the environment
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # nobody's cookies are kept
                headers={"User-Agent": "access-facade"},
            ) as http,
        ):
            yield Context(settings, store, clock, http, cms)
    finally:
        if following is not None:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
        await store.close()


def _settle_memory() -> None:
    """Takes what was made at start (compiled checks, tables: some 100,000 objects) out of the collector's rounds.

    They live as long as the process; walking them again and again cost a third of the processor and long pauses.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _own_definitions(settings: Settings) -> None:
    """A user's mapping rows and loaded packages, if there are any. Raises BadConfiguration in plain words."""
    try:
        if settings.mappings_folder is not None:
            install(overrides.load(settings.mappings_folder))
        if settings.profiles_folder is not None:
            library.select(loaded=loaded_in(settings.profiles_folder))
    except (overrides.OverrideError, library.UnknownGuide) as bad:
        raise BadConfiguration(str(bad)) from None
