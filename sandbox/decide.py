"""What CMS decides, and when: takes submissions whose time has come and stores their answers.

Each is decided in the state of the moment it becomes ready, with the day it was received as its date.
"""

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sandbox import alignment, notices, reporting, tables
from sandbox.clock import day_of
from sandbox.exchange import Issue, outcome
from sandbox.store import Row
from sandbox.world import World

Decision = tuple[str, list[Issue]]
DECIDERS: dict[str, Callable[[World, "alignment.Case"], Decision]] = {
    "check-eligibility": lambda world, case: (alignment.eligibility(world, case), []),
    "align": lambda world, case: (alignment.align(world, case), []),
    "unalign": lambda world, case: (alignment.unalign(world, case), []),
    "report-data": lambda world, case: reporting.report(world, case),
}


def settle(world: World) -> None:
    """Decides every submission that is ready, in the order they became so. Call it within a transaction."""
    ready = world.store.all(
        "SELECT * FROM submission WHERE answer IS NULL AND ready_at <= ? ORDER BY ready_at, rowid", time.time()
    )
    for row in ready:
        _decide(world, row)
        world.swept_on = None


def advance(world: World) -> None:
    """Settles, then lets the day take its effect, once a day and after each decision: unalignments due, and notices."""
    settle(world)
    today = world.clock.today()
    if world.swept_on != today:
        alignment.lapse(world, today)
        notices.due(world, today)
        world.swept_on = today


def _decide(world: World, row: Row) -> None:
    day = day_of(datetime.fromisoformat(row["received_at"]))
    case = alignment.Case(row["id"], row["entity_id"], day, json.loads(row["facts"]))
    alignment.lapse(world, day, of=case)
    if "late" in case.facts:
        world.store.run("UPDATE submission SET answer = ? WHERE id = ?", json.dumps(case.facts["late"]), row["id"])
        return
    code, issues = DECIDERS[row["call"]](world, case)
    answer = json.dumps(_answer(world, row["call"], code, issues))
    world.store.run("UPDATE submission SET code = ?, answer = ? WHERE id = ?", code, answer, row["id"])


def _answer(world: World, call: str, code: str, issues: list[Issue]) -> dict[str, Any]:
    """The polled Parameters. With `issues` the status profile, since the operation's own would refuse them."""
    operation = tables.table("requests")["operations"][call]
    system = tables.ig("CodeSystem", operation["results"])
    display = world.codes.display(system, code)
    coding = {"system": system, "code": code} | ({"display": display} if display else {})
    concept = {"coding": [coding], "text": tables.table("results")[call][code]}
    parameters: list[dict[str, Any]] = [{"name": "result", "valueCodeableConcept": concept}]
    if issues:
        parameters.append({"name": "issues", "resource": outcome(*issues)})
    profile = tables.ig("StructureDefinition", "access-submission-status-out" if issues else operation["out"])
    return {"resourceType": "Parameters", "meta": {"profile": [profile]}, "parameter": parameters}
