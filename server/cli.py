"""The command `access-facade`. Every command: exit 0 done, 1 the input or the state is bad, 2 usage; logs to stderr."""

import asyncio
import json
import os
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from profiles import fhir_json, library
from server import cli_records, cli_store, logs
from server.context import Context
from server.terminal import Config, Json, console
from server.terminal import fail as _fail
from server.terminal import loaded as _settings
from server.terminal import plain_errors as _plain_errors
from server.terminal import with_context as _with_context

app = typer.Typer(
    name="access-facade", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="The FHIR facade for organizations in Medicare's ACCESS Model.",
)  # fmt: skip
token_app = typer.Typer(no_args_is_help=True, help="CMS credentials.")
audit_app = typer.Typer(no_args_is_help=True, help="The audit trail.")
app.add_typer(token_app, name="token")
app.add_typer(audit_app, name="audit")
cli_records.register(app)
cli_store.register(app)


def main() -> None:
    """Entry point."""
    app()


def _print_json(value: Any) -> None:
    sys.stdout.write(fhir_json.dump(value).decode() + "\n")


@app.command()
def init(
    directory: Path,
    demo: Annotated[bool, typer.Option("--demo", help="With the sandbox's participants and five clients.")] = False,
    facade_port: int = 8080,
    sandbox_port: int = 8090,
    mllp_port: int = 2575,
    json_: Json = False,
) -> None:
    """Writes an annotated configuration and generates keys; with --demo prints the clients' secrets, once."""
    from server.initialise import initialise

    with _plain_errors():
        made = initialise(directory, demo=demo, facade_port=facade_port, sandbox_port=sandbox_port, mllp_port=mllp_port)
    if json_:
        sys.stdout.write(json.dumps(made.as_json()) + "\n")
        return
    console.print(f"Wrote {made.config}")
    if made.clients:
        table = Table("role", "client id", "secret (shown once)")
        for client in made.clients:
            table.add_row(client.role, client.client_id, client.client_secret)
        console.print(table)
    console.print(f"Next: access-facade serve --config {made.config}")


@app.command()
def serve(
    config: Config = None,
    host: Annotated[str | None, typer.Option()] = None,
    port: Annotated[int | None, typer.Option()] = None,
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Run a worker in this process.")] = True,
) -> None:
    """The HTTP doors, the MLLP listener if configured, and a worker."""
    import uvicorn

    from server.app import create_app

    with _plain_errors():
        loaded = _settings(config)
        application = create_app(loaded, work=worker)
        uvicorn.run(application, host=host or loaded.host, port=port or loaded.port, **logs.uvicorn_options())


@app.command()
def worker(config: Config = None) -> None:
    """The worker alone; several may run against one store."""
    import signal

    signal.signal(signal.SIGTERM, _leave)  # until the worker is there to finish what it holds
    from server.worker import Worker

    async def work(context: Context) -> None:
        running = Worker(context)
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, running.stop)
        await running.run()

    _with_context(config, work)


def _leave(*_: object) -> None:
    raise SystemExit(0)


@app.command()
def mllp(
    config: Config = None,
    host: Annotated[str | None, typer.Option()] = None,
    port: Annotated[int | None, typer.Option()] = None,
) -> None:
    """The HL7 v2 MLLP listener alone."""
    from server.intake.mllp import listen

    async def work(context: Context) -> None:
        if context.settings.mllp is None:
            _fail("[mllp] is not configured: add it to the configuration file.")
        listener = await listen(context, context.settings.mllp, host=host, port=port)
        await listener.serve_forever()

    _with_context(config, work)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def sandbox(context: typer.Context) -> None:
    """The stand-in CMS: [--host --port --latency SECONDS --data FILE --config FILE]. A program of its own."""
    os.execv(sys.executable, [sys.executable, "-m", "sandbox", *context.args])  # noqa: S606 - our own module


@app.command()
def demo(
    track: Annotated[str, typer.Option(help="CKM for now.")] = "CKM",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the folder and the processes for a look.")] = False,
    json_: Json = False,
    svg: Annotated[Path | None, typer.Option("--svg", help="Draw the timeline into this file.")] = None,
    store: Annotated[str | None, typer.Option(metavar="URL", help="An empty store, instead of SQLite.")] = None,
) -> None:
    """A whole care year through real processes and real sockets on a simulated clock."""
    from server.demo import story

    with _plain_errors():
        raise typer.Exit(story.play(track=track, keep=keep, json_output=json_, svg=svg, store=store))


@app.command()
def run(directory: Annotated[Path | None, typer.Argument()] = None) -> None:
    """The sandbox, the facade and a worker in one terminal, with the demo configuration, until Ctrl-C."""
    from server.demo import hands_on

    with _plain_errors():
        hands_on.run(directory)


@app.command()
def convert(files: list[Path], json_: Json = False, zone: Annotated[str | None, typer.Option()] = None) -> None:
    """HL7 v2, C-CDA or FHIR in, one FHIR Bundle a message out, with what was not used. Stores nothing."""
    from server.intake.convert import converted

    results: list[dict[str, Any]] = [
        {"file": str(path), "messages": converted(_bytes(path), time_zone=zone)} for path in files
    ]
    if json_:
        _print_json({"files": results})
    else:
        for result in results:
            _show_conversion(result)
    errors = [i for r in results for m in r["messages"] for i in m["issues"] if i["severity"] in ("error", "fatal")]
    raise typer.Exit(1 if errors else 0)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        _fail(f"{path}: {failure.strerror}")


def _show_conversion(result: dict[str, Any]) -> None:
    for number, message in enumerate(result["messages"], 1):
        entries = message["bundle"]["entry"] if message["bundle"] else []
        ack = f", ack {message['ack']}" if message["ack"] else ""
        console.print(f"[bold]{result['file']}[/] message {number}: {len(entries)} resources{ack}")
        for entry in entries:
            resource = entry["resource"]
            codes = resource.get("code", {}).get("coding", [{}]) if isinstance(resource.get("code"), dict) else [{}]
            console.print(f"  {resource['resourceType']:24} {codes[0].get('code', '')} {codes[0].get('display', '')}")
        for issue in message["issues"]:
            console.print(f"  [yellow]{issue['severity']}[/] {issue['location']}: {issue['text']}", highlight=False)
        if message["unmapped"]:
            console.print(f"  not used: {', '.join(item['location'] for item in message['unmapped'])}", highlight=False)


@app.command()
def validate(
    files: list[Path],
    profile: Annotated[list[str] | None, typer.Option()] = None,
    guide: Annotated[str, typer.Option(help="The version of CMS's guide.")] = library.ACCESS_VERSION,
    json_: Json = False,
) -> None:
    """Checks resources against base R4, the profiles they claim, and those named. Exit 1 on any error."""
    from server.intake.validation import checked
    from server.outcomes import outcome

    if guide not in library.access_versions():
        _fail(f"The guide {guide} is not packaged here; there are {', '.join(library.access_versions())}.")
    found = {path: checked(_bytes(path), *(profile or []), guide=guide) for path in files}
    if json_:
        _print_json({"files": [{"file": str(path), "outcome": outcome(issues)} for path, issues in found.items()]})
    else:
        for path, issues in found.items():
            console.print(f"[bold]{path}[/]: {'no problem was found' if not issues else ''}")
            for issue in issues:
                console.print(f"  [yellow]{issue.severity}[/] {issue.location}: {issue.text}", highlight=False)
    raise typer.Exit(1 if any(issue.is_error for issues in found.values() for issue in issues) else 0)


@app.command()
def due(
    config: Config = None,
    on: Annotated[str | None, typer.Option(help="A date, YYYY-MM-DD.")] = None,
    json_: Json = False,
) -> None:
    """The work list: patient, track, report, window, days left, what is missing."""
    from server.schedule import due as due_work

    rows = _with_context(config, lambda context: due_work(context, on=date.fromisoformat(on) if on else None))
    if json_:
        sys.stdout.write(json.dumps({"due": [asdict(row) for row in rows]}, default=str) + "\n")
        return
    table = Table("patient", "track", "report", "state", "opens", "closes", "days left", "missing")
    for row in rows:
        columns = (row.patient_id, row.track, row.report_type, row.state, row.opens, row.closes, row.days_left)
        table.add_row(*map(str, columns), ", ".join(row.missing))
    console.print(table)


@app.command()
def submit(report: str, config: Config = None) -> None:
    """Sends one report to CMS, by hand."""
    from server.schedule import submit_report

    async def work(context: Context) -> None:
        await context.store.commit(await submit_report(report, context))

    _with_context(config, work)
    console.print(f"Report {report} is on its way; a worker sends it.")


@app.command()
def resend(ids: list[str], config: Config = None) -> None:
    """Sends stopped submissions again, by hand: the same bytes."""
    from server.cms.resend import resent

    async def work(context: Context) -> None:
        for submission_id in ids:
            await context.store.commit(await resent(submission_id, context))

    _with_context(config, work)
    console.print(f"{len(ids)} on their way; a worker sends them.")


@token_app.command("check")
def token_check(
    entity_id: Annotated[str | None, typer.Argument()] = None, config: Config = None, json_: Json = False
) -> None:
    """Gets a CMS token and explains the assertion, the answer and the refusal."""
    from server.cms.token_check import checked

    report = _with_context(config, lambda context: checked(entity_id, context))
    if json_:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        for line in report["lines"]:
            console.print(line, highlight=False)
    raise typer.Exit(0 if report["ok"] else 1)


@audit_app.command("verify")
def audit_verify(config: Config = None, json_: Json = False) -> None:
    """Walks the hash chains; exit 1 and the first bad row if one is broken."""
    report = _with_context(config, lambda context: context.store.verify_audit())
    if json_:
        sys.stdout.write(json.dumps({"rows": report.rows, "broken_at": report.broken_at}) + "\n")
    elif report.broken_at is None:
        console.print(f"{report.rows} rows, every chain holds.")
    else:
        participant, sequence = report.broken_at
        console.print(f"The chain of {participant or 'the installation'} is broken at row {sequence}.")
    raise typer.Exit(0 if report.broken_at is None else 1)


if __name__ == "__main__":
    main()
