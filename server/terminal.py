"""What all commands share: options, one way to say that something is wrong, and the wiring around one piece of work."""

import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer
import uvloop
from rich.console import Console

from server import logs, settings
from server.context import Context
from server.domain.errors import FacadeError, Refused
from server.settings import Settings
from server.wiring import wired

Config = Annotated[Path | None, typer.Option("--config", help="The configuration file (or ACCESS_FACADE_CONFIG).")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
T = TypeVar("T")
console = Console(soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Says what is wrong on stderr; exit 1."""
    print(message, file=sys.stderr)
    raise typer.Exit(1)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """What the program knows to be wrong is said in a sentence, not in a traceback."""
    try:
        yield
    except Refused as refused:
        fail(" ".join(issue.text for issue in refused.issues) or str(refused))
    except FacadeError as failure:
        fail(str(failure))


def loaded(config: Path | None) -> Settings:
    """The settings, with the logs set up."""
    logs.configure()
    return settings.load(config or settings.default_path())


def with_context(config: Path | None, work: Callable[[Context], Awaitable[T]]) -> T:
    """Does one piece of work with a store and a clock."""

    async def run() -> T:
        async with wired(loaded(config)) as context:
            return await work(context)

    with plain_errors():
        return uvloop.run(run())
