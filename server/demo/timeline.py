"""What the demo prints: a line for each thing that happens, on the simulated date, and a table at the end."""

import sys
import time
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console
from rich.table import Table

from server.demo.messages import ZONE

COLOURS = {"EHR": "cyan", "lab": "magenta", "device": "magenta", "clinic": "magenta", "facade": "green", "CMS": "blue",
           "PCP": "yellow", "fault": "red", "clock": "white"}  # fmt: skip


@dataclass
class Timeline:
    """Lines of (simulated time, who, what); `failed` collects what did not end as it must."""

    console: Console = field(default_factory=lambda: Console(file=sys.stdout, highlight=False, soft_wrap=True))
    started: float = field(default_factory=time.monotonic)
    lines: list[dict[str, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def say(self, at: datetime, who: str, what: str) -> None:
        """One line."""
        when = at.astimezone(ZONE).strftime("%Y-%m-%d %H:%M")
        self.lines.append({"at": when, "who": who, "what": what})
        colour = COLOURS.get(who, "white")
        self.console.print(f"[dim]{self.seconds:5.1f} s[/]  {when}  [{colour}]{who:>7}[/]  {what}")

    def title(self, text: str) -> None:
        """A part of the year begins."""
        self.console.print(f"\n[bold]{text}[/]")

    def check(self, good: bool, what: str) -> None:
        """Notes what did not end as it must."""
        if not good:
            self.failed.append(what)
            self.console.print(f"         [bold red]NOT AS IT MUST BE[/]  {what}")

    @property
    def seconds(self) -> float:
        """Real time since the start."""
        return time.monotonic() - self.started

    def summary(self, rows: list[tuple[str, str, bool]]) -> None:
        """The closing table: what, how much, and whether it is as it must be."""
        table = Table(title="The year, counted", title_justify="left")
        table.add_column("what")
        table.add_column("result", justify="right")
        table.add_column("")
        for what, result, good in rows:
            table.add_row(what, result, "[green]ok[/]" if good else "[bold red]no[/]")
        self.console.print()
        self.console.print(table)
