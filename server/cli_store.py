"""Commands about what lies under the doors: stores, definitions, and the list of what waits for a person."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from server.context import Context
from server.domain.coordination import WorkItem
from server.domain.errors import FacadeError
from server.store.base import Changeset, Where
from server.terminal import Config, Json, console, fail, loaded, plain_errors, with_context

store_app = typer.Typer(no_args_is_help=True, help="Moving between store engines.")
profiles_app = typer.Typer(no_args_is_help=True, help="What resources are checked against.")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(work)
    app.add_typer(store_app, name="store")
    app.add_typer(profiles_app, name="profiles")


def work(
    config: Config = None,
    close: Annotated[str | None, typer.Option("--close", metavar="ID", help="This one is done.")] = None,
    json_: Json = False,
) -> None:
    """What waits for a person: each matter in plain words, oldest first; with --close, marks one as done."""

    async def listed(context: Context) -> list[WorkItem]:
        if close is not None:
            await _close(close, context)
        return list(await context.store.find(WorkItem, Where("closed_at", "==", None), order_by="opened_at"))

    items = with_context(config, listed)
    if json_:
        sys.stdout.write(json.dumps({"work": [asdict(item) for item in items]}, default=str) + "\n")
        return
    table = Table("id", "since", "kind", "about", "what to do")
    for item in items:
        table.add_row(item.id, f"{item.opened_at:%Y-%m-%d}", item.kind, item.subject, item.text)
    console.print(table if items else "Nothing waits for a person.")


async def _close(item_id: str, context: Context) -> None:
    found = await context.store.find(WorkItem, Where("id", "==", item_id), limit=1)
    if not found or found[0].closed_at is not None:
        raise FacadeError(f"There is no open matter {item_id}.")
    done = replace(found[0], open_key=None, closed_at=context.clock.now())
    await context.store.commit(Changeset(replace=(done,)))


@store_app.command("copy")
def store_copy(source: str, target: str, config: Config = None, json_: Json = False) -> None:
    """Copies all rows from one store URL to another, or goes on with a copy that was cut off; then compares both."""
    from server.store.command import copy_store

    with plain_errors():
        done = copy_store(source, target, loaded(config).key_file)
    if json_:
        sys.stdout.write(json.dumps(asdict(done), default=str) + "\n")
    else:
        console.print(f"{done.written} rows written, {done.removed} removed, {done.left} left for the next run.")
    if not done.comparison.same:
        fail("The two stores are not the same yet: stop what writes to the source, and run this again.")


@store_app.command("verify")
def store_verify(a: str, b: str, config: Config = None, json_: Json = False) -> None:
    """Compares two stores: counts, hashes, audit chains; exit 1 if they differ."""
    from server.store.command import verify_stores

    with plain_errors():
        found = verify_stores(a, b, loaded(config).key_file)
    if json_:
        sys.stdout.write(json.dumps(asdict(found), default=str) + "\n")
    else:
        table = Table("table", "rows", "rows", "same")
        for each in found.tables:
            table.add_row(each.name, *map(str, each.rows), "yes" if each.same else "NO")
        console.print(table)
    if not found.same:
        fail("The two stores differ.")


@profiles_app.command("load")
def profiles_load(package: Path, config: Config = None) -> None:
    """Uses an official FHIR package's definitions instead of the built-in ones, from the next start on."""
    from profiles.archive import PackageRefused
    from profiles.packages import load_package

    with plain_errors():
        folder = loaded(config).profiles_folder
    if folder is None:
        fail('Say where loaded definitions are kept: [profiles] folder = "definitions" in the configuration.')
    try:
        done = load_package(package, folder)
    except (PackageRefused, OSError) as refused:
        fail(f"{package}: {refused}")
    console.print(
        f"{done.name} {done.version}: {done.profiles} profiles, {done.value_sets} value sets, in {done.folder}"
    )
