"""Whether a report is taken: alignment, window, duplicate, required measures.

Source: ACCESS API IG 0.9.12, data reporting page and ACCESSReportTypeCS; numbers in data/program.toml
and data/measures.toml.
"""

import json
from datetime import date, timedelta
from typing import Any

from sandbox import alignment, tables
from sandbox.exchange import Issue
from sandbox.store import Row
from sandbox.world import World

OPEN, DUPLICATE, CLOSED = "open", "duplicate", "reporting-period-closed"


def report(world: World, case: alignment.Case) -> tuple[str, list[Issue]]:
    """The result code of $report-data and what is missing; keeps the report if it is a success."""
    if alignment.known(world, case) is None:
        return "patient-not-aligned", []
    held = alignment.held(world, case)
    if held is None:
        return ("incorrect-track" if _elsewhere(world, case) else "patient-not-aligned"), []
    window = _window(world, case, held)
    if window != OPEN:
        return window, []
    issues = missing(case.facts, json.loads(held["diagnoses"]))
    if issues:
        return "incomplete-data", issues
    world.store.insert(
        "report", submission_id=case.submission_id, alignment_id=held["id"], report_type=case.facts["report_type"],
        received_on=case.day.isoformat(), digest=case.facts["digest"],
    )  # fmt: skip
    return "success", []


def missing(facts: dict[str, Any], diagnoses: list[str]) -> list[Issue]:
    """One issue for each required measure that the report does not carry, shaped as the guide's example."""
    due = [measure for measure in tables.table("measures")["measure"] if _is_due(measure, facts, diagnoses)]
    return [_issue(m, facts["track"]) for m in due if not set(m["any"]) & set(facts["sections"])]


def _is_due(measure: dict[str, Any], facts: dict[str, Any], diagnoses: list[str]) -> bool:
    if facts["track"] not in measure["tracks"] or facts["report_type"] not in measure["reports"]:
        return False
    roots = measure.get("diagnoses")
    return roots is None or any(code.startswith(tuple(roots)) for code in diagnoses)


def _issue(measure: dict[str, Any], track: str) -> Issue:
    code = measure["any"][0]
    where = (
        f"Bundle.entry[0].resource.section.where(code.coding.code='{track}').section.where(code.coding.code='{code}')"
    )
    wanted = " or ".join(measure["any"])
    return Issue("required", f"{measure['name']} is required in this report: section {wanted}", where, "warning")


def _elsewhere(world: World, case: alignment.Case) -> bool:
    sql = "SELECT 1 FROM alignment WHERE mbi = ? AND entity_id = ? AND ended_on IS NULL"
    return world.store.one(sql, case.facts["mbi"], case.entity_id) is not None


def _window(world: World, case: alignment.Case, held: Row) -> str:
    taken = world.store.all("SELECT * FROM report WHERE alignment_id = ? ORDER BY received_on, rowid", held["id"])
    if any(row["digest"] == case.facts["digest"] for row in taken):
        return DUPLICATE
    report_type = case.facts["report_type"]
    if report_type == "quarterly":
        return _quarterly(case.day, taken)
    if any(row["report_type"] == report_type for row in taken):
        return DUPLICATE
    first, last = _once_a_period(report_type, held)
    return OPEN if first <= case.day <= last else CLOSED


def _once_a_period(report_type: str, held: Row) -> tuple[date, date]:
    aligned_on = date.fromisoformat(held["aligned_on"])
    program = tables.program()
    if report_type == "baseline":
        return aligned_on, aligned_on + timedelta(days=program["alignment"]["baseline_days"])
    early = program["report"]["early_days"][held["track"]]
    return aligned_on + timedelta(days=early), aligned_on + timedelta(days=program["alignment"]["last_day"])


def _quarterly(day: date, taken: list[Row]) -> str:
    """Open 70 to 110 days after the submission before it; a second one in a window already used is a duplicate."""
    if not taken or any(row["report_type"] == "end-of-period" for row in taken):
        return CLOSED
    if _within(day, taken[-1]):
        return OPEN
    used = len(taken) > 1 and _within(day, taken[-2])
    return DUPLICATE if used else CLOSED


def _within(day: date, before: Row) -> bool:
    first, last = tables.program()["report"]["quarterly_days"]
    days = (day - date.fromisoformat(before["received_on"])).days
    return int(first) <= days <= int(last)
