"""Microseconds per check: base R4 and profile on a blood pressure, and the whole of a report. Prints JSON.

Ratios are taken against `fhir_json.parse` of the same bytes in the same interleaved run, so that they mean the same on
another machine.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from profiles.fhir_json import dump, parse
from profiles.validate import validate

_CASES = Path(__file__).parent.parent / "tests" / "cases" / "profiles"
_ROUNDS = 15
_GOALS = {  # microseconds
    "observation_parse": 13.0,
    "observation_base": 25.0,
    "small_observation_profile": 25.0,
    "report_full": 500.0,
}
_SMALL = ("id", "meta", "status", "category", "code", "subject", "effectiveDateTime")


def _small(observation: dict[str, Any]) -> dict[str, Any]:
    """A blood pressure as a device gateway sends it: no narrative, two components with a code and a value."""
    components = [{key: each[key] for key in ("code", "valueQuantity")} for each in observation["component"]]
    kept = {key: observation[key] for key in _SMALL}
    return {"resourceType": "Observation", **kept, "component": components}


def _bodies() -> dict[str, dict[str, Any]]:
    observation = parse((_CASES / "observation-bp.json").read_bytes())
    report = parse((_CASES / "report.json").read_bytes())
    return {"observation": observation, "small_observation": _small(observation), "report": report}


def _loads() -> dict[str, tuple[Callable[[], Any], int]]:
    """Name -> (what to time, how often a round)."""
    observation, small, report = _bodies().values()
    plain = observation | {"meta": {key: each for key, each in observation["meta"].items() if key != "profile"}}
    observation_bytes, report_bytes = dump(observation), dump(report)
    return {
        "observation_parse": (lambda: parse(observation_bytes), 400),
        "observation_base": (lambda: validate(plain), 400),
        "observation_profile": (lambda: validate(observation), 400),
        "small_observation_profile": (lambda: validate(small), 400),
        "report_parse": (lambda: parse(report_bytes), 60),
        "report_full": (lambda: validate(report), 20),
    }


def _measure() -> dict[str, float]:
    """The best round of each, in microseconds a call; the loads take turns."""
    loads = _loads()
    best = dict.fromkeys(loads, float("inf"))
    for _ in range(_ROUNDS):
        for name, (call, times) in loads.items():
            started = time.perf_counter()
            for _ in range(times):
                call()
            best[name] = min(best[name], (time.perf_counter() - started) / times * 1e6)
    return best


def run() -> dict[str, Any]:
    """Figures, sizes in bytes, ratios to parsing, and whether the goals are met."""
    best = _measure()
    sizes = {name: len(dump(body)) for name, body in _bodies().items()}
    return {
        "microseconds": {name: round(value, 1) for name, value in best.items()},
        "bytes": sizes,
        "ratio_to_parse": {
            "observation_base": round(best["observation_base"] / best["observation_parse"], 2),
            "report_full": round(best["report_full"] / best["report_parse"], 2),
        },
        "reports_per_second": round(1e6 / best["report_full"]),
        "goals": {name: {"at_most": goal, "met": best[name] <= goal} for name, goal in _GOALS.items()},
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
