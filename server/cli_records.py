"""Commands about submissions, alignments and keys: what stands, in plain words, and what a person puts right."""

import getpass
import json
import sys
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any

import typer
from rich.table import Table

from server.context import Context
from server.terminal import Config, Json, console, fail, loaded, plain_errors, with_context

alignment_app = typer.Typer(no_args_is_help=True, help="How patients stand to the model, and corrections.")
keys_app = typer.Typer(no_args_is_help=True, help="The keys that CMS knows.")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(submissions)
    app.add_typer(alignment_app, name="alignment")
    app.add_typer(keys_app, name="keys")


def submissions(
    submission_id: Annotated[str | None, typer.Argument(metavar="[ID]")] = None,
    config: Config = None,
    open_only: Annotated[bool, typer.Option("--open", help="Without those that are done.")] = False,
    json_: Json = False,
) -> None:
    """Submissions to CMS: where each stands, what it means, what to do next, and who does it."""
    from server.cms import explained

    async def work(context: Context) -> list[explained.Explained]:
        if submission_id is None:
            return await explained.listed(context, open_only=open_only)
        found = await explained.one(submission_id, context)
        return [found] if found else []

    rows = with_context(config, work)
    if submission_id is not None and not rows:
        fail(f"There is no submission {submission_id}.")
    if json_:
        _print({"submissions": [asdict(row) for row in rows]})
        return
    for row in rows:
        _show_submission(row)


def _show_submission(row: Any) -> None:
    what = f"${row.operation} {row.track} {row.report_type or ''}".rstrip()
    console.print(f"[bold]{row.id}[/] {what}, patient {row.patient_id}: {row.code or row.state}", highlight=False)
    console.print(f"  {row.text}", highlight=False)
    console.print(f"  Next ({row.who}): {row.next}" + (f" Again: {row.again}." if row.again else ""), highlight=False)
    if row.state == "needs-review":
        console.print(f"  Why it stopped: {row.detail}", highlight=False)
    for at, state, detail in row.history:
        console.print(f"    {at:%Y-%m-%d %H:%M:%S} {state}: {detail}", highlight=False)


@alignment_app.command("list")
def alignment_list(config: Config = None, json_: Json = False) -> None:
    """Patient, track, state, and its dates."""
    from server.domain.alignment import Alignment

    async def work(context: Context) -> list[Alignment]:
        return list(await context.store.find(Alignment, order_by="patient_id"))

    rows = with_context(config, work)
    if json_:
        _print({"alignments": [asdict(row) for row in rows]})
        return
    table = Table("patient", "track", "state", "aligned on", "lock-in until", "control until", "CMS last said")
    for row in rows:
        dates = (row.aligned_on, row.lock_in_until, row.control_until)
        cells = [str(each or "") for each in dates]
        table.add_row(row.patient_id, row.track, str(row.state), *cells, row.last_code or "")
    console.print(table)


@alignment_app.command("set-date")
def alignment_set_date(
    patient: str,
    track: str,
    field: Annotated[str, typer.Argument(help="aligned-on, lock-in-until or control-until")],
    day: Annotated[str, typer.Argument(help="YYYY-MM-DD")],
    config: Config = None,
) -> None:
    """Corrects a date that CMS told in another way; the windows of reports follow the first day. Audited."""
    from server.schedule import corrected

    when = _date(day)

    async def work(context: Context) -> None:
        agent = f"cli:{getpass.getuser()}"
        changes = await corrected(patient, track, field=field, day=when, context=context, agent=agent)
        await context.store.commit(changes)

    with_context(config, work)
    console.print(f"{field} of {patient} on {track} is {when} now.")


@alignment_app.command("end")
def alignment_end(
    patient: str,
    track: str,
    state: Annotated[str, typer.Option("--as", help="unaligned, or switched to another participant")] = "unaligned",
    on: Annotated[str | None, typer.Option(help="The last day, YYYY-MM-DD; today if not given.")] = None,
    config: Config = None,
) -> None:
    """Ends an alignment that CMS has ended without a request of ours. Audited."""
    from server.schedule import finished

    async def work(context: Context) -> None:
        day = _date(on) if on else context.clock.now().date()
        agent = f"cli:{getpass.getuser()}"
        await context.store.commit(await finished(patient, track, state=state, day=day, context=context, agent=agent))

    with_context(config, work)
    console.print(f"The alignment of {patient} on {track} is {state} now.")


@keys_app.command("rotate")
def keys_rotate(
    entity_id: str,
    config: Config = None,
    retire: Annotated[bool, typer.Option("--retire", help="End the rotation: the new key signs.")] = False,
    json_: Json = False,
) -> None:
    """A new CMS key beside the old one, both in the JWKS; --retire when CMS knows the new one."""
    from server.auth import rotation

    with plain_errors():
        settings = loaded(config)
        today = date.today()
        done = rotation.retire(settings, entity_id) if retire else rotation.rotate(settings, entity_id, on=today)
    if json_:
        _print(asdict(done))
        return
    console.print(f"Keys of {entity_id}, the signing one first: {', '.join(done.live)}", highlight=False)
    console.print(done.next, highlight=False)


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        fail(f"{text} is not a date: write YYYY-MM-DD.")


def _print(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, default=str) + "\n")
