"""A gateway's Bundle of readings to resources, over the JSON parse alone of the same bytes, interleaved. Prints JSON.

Run: `python -m bench.fhir_speed [--rounds N] [--entries N]`. Only the ratio means anything: both sides see the same
machine and moment. The ceiling is msgspec's decode with exact decimals; the standard library's json is beside it.
"""

import argparse
import gc
import hashlib
import json
import statistics
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from mappers import fhir
from mappers.conversion import Source
from mappers.fhir.measures import normalise
from profiles import fhir_json

REPEATS = 5
_ceiling = msgspec.json.Decoder(float_hook=Decimal)


def bundle(entries: int) -> bytes:
    """A transaction of blood pressures of one person, each with its own identifier and time."""
    readings = [_reading(number) for number in range(entries)]
    found = [{"resource": one, "request": {"method": "POST", "url": "Observation"}} for one in readings]
    return json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": found}).encode()


def _reading(number: int) -> dict[str, Any]:
    parts = (("8480-6", 118 + number % 40), ("8462-4", 70 + number % 25))
    return {
        "resourceType": "Observation",
        "identifier": [{"system": "urn:example:reading", "value": f"bp-{number}"}],
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}]},
        "subject": {"identifier": {"system": "http://terminology.hl7.org/NamingSystem/cmsMBI", "value": "1EG4TE5MK73"}},
        "effectiveDateTime": f"2026-08-{number % 28 + 1:02d}T07:{number % 60:02d}:00-04:00",
        "component": [
            {
                "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
                "valueQuantity": {
                    "value": value + 0.5,
                    "unit": "mmHg",
                    "system": "http://unitsofmeasure.org",
                    "code": "mm[Hg]",
                },
            }
            for code, value in parts
        ],
    }


def _convert(data: bytes) -> None:
    source = Source(hashlib.sha256(data).hexdigest(), "2026-08-20T00:00:00Z")
    fhir.convert(fhir_json.parse(data), source)


def _normalise(data: bytes) -> None:
    for entry in fhir_json.parse(data)["entry"]:
        normalise(entry["resource"])


def _seconds(work: Callable[[bytes], object], data: bytes) -> float:
    start = time.perf_counter()
    for _ in range(REPEATS):
        work(data)
    return (time.perf_counter() - start) / REPEATS


def measure(rounds: int, entries: int) -> dict[str, object]:
    """Medians over interleaved rounds: resources a second, and ours over the parse alone."""
    data = bundle(entries)
    works: dict[str, Callable[[bytes], object]] = {
        "convert": _convert,
        "normalise": _normalise,
        "ceiling": _ceiling.decode,
        "stdlib": json.loads,
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    gc.collect()
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(_seconds(work, data))
    middle = {name: statistics.median(found) for name, found in taken.items()}
    return {
        "name": "fhir_speed",
        "what": "a Bundle of readings to resources, over msgspec's parse alone of the same bytes",
        "entries": entries,
        "kb": round(len(data) / 1024, 1),
        "resources_per_second": round(entries / middle["convert"]),
        "ratio": round(middle["ceiling"] / middle["convert"], 3),
        "ratio_to_json_loads": round(middle["stdlib"] / middle["convert"], 3),
        "normalise_ratio": round(middle["ceiling"] / middle["normalise"], 3),
        "rounds": rounds,
    }


def main() -> None:
    """Prints the result as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--entries", type=int, default=100)
    given = arguments.parse_args()
    print(json.dumps(measure(given.rounds, given.entries), indent=1))


if __name__ == "__main__":
    main()
