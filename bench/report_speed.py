"""Reports per second: build the document Bundle, check all of it, write its bytes. Goal: 500 a second on one core.

The ceiling in the same interleaved run is the bare parse of the same bytes. Prints one JSON object.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from mappers.fhir.measures import normalise
from mappers.report import ReportRequest, build_report
from profiles import fhir_json
from profiles.validate import validate

GOAL_PER_SECOND = 500
ROUNDS = 7
REPORTS_A_ROUND = 100
UCUM = "http://unitsofmeasure.org"
CODES = {
    "weight": ("29463-7", "81.60", "kg"),
    "BMI": ("39156-5", "27.1", "kg/m2"),
    "waist": ("8280-0", "98", "cm"),
    "HbA1c": ("4548-4", "7.1", "%"),
    "eGFR": ("98979-8", "61", "mL/min/{1.73_m2}"),
    "uACR": ("14959-1", "22", "mg/g"),
    "lipids": ("18262-6", "101", "mg/dL"),
}


def quantity(value: str, unit: str) -> str:
    return f'{{"value":{value},"unit":"{unit}","system":"{UCUM}","code":"{unit}"}}'


def observation(code: str, rest: str, logical_id: str) -> dict[str, Any]:
    raw = (
        f'{{"resourceType":"Observation","id":"{logical_id}","status":"final","effectiveDateTime":"2026-09-01T08:30:00Z",'
        f'"subject":{{"reference":"Patient/p1"}},"code":{{"coding":[{{"system":"http://loinc.org","code":"{code}"}}]}},{rest}}}'
    )
    normalised, _ = normalise(fhir_json.parse(raw.encode()))
    if normalised is None:
        raise ValueError(code)
    return normalised


def component(code: str, value: str) -> str:
    coding = f'{{"coding":[{{"system":"http://loinc.org","code":"{code}"}}]}}'
    return f'{{"code":{coding},"valueQuantity":{quantity(value, "mm[Hg]")}}}'


def pressure(number: int) -> dict[str, Any]:
    parts = f"{component('8480-6', '138')},{component('8462-4', '88')}"
    return observation("85354-9", f'"component":[{parts}]', f"bp-{number}")


def request() -> ReportRequest:
    """A CKM baseline: eight measures, ten values."""
    values = {
        name: [observation(code, f'"valueQuantity":{quantity(value, unit)}', name)]
        for name, (code, value, unit) in CODES.items()
    }
    return ReportRequest(
        base_url="https://facade.example/fhir",
        report_id="f" * 32,
        revision=1,
        participant_id="ACCES12345",
        participant_name="Example Care",
        payer_id="00831",
        author_npi="1234567893",
        author_family="Rivera",
        author_given="Ana",
        patient={
            "resourceType": "Patient",
            "id": "p1",
            "identifier": [{"system": "http://terminology.hl7.org/NamingSystem/cmsMBI", "value": "1EG4TE5MK73"}],
            "name": [{"family": "Example", "given": ["Ida"]}],
            "gender": "female",
            "birthDate": "1951-02-03",
        },
        track="CKM",
        report_type="baseline",
        at=datetime(2026, 9, 2, 12, tzinfo=UTC),
        values={"blood-pressure": [pressure(number) for number in range(3)], **values},
    )


def whole(made: ReportRequest, revision: int) -> bytes:
    parameters = build_report(replace(made, revision=revision))
    if any(issue.is_error for issue in validate(parameters)):
        raise ValueError("the report is not valid")
    return fhir_json.dump(parameters)


def seconds_each(work: Callable[[int], object]) -> float:
    begun = time.perf_counter()
    for number in range(REPORTS_A_ROUND):
        work(number)
    return (time.perf_counter() - begun) / REPORTS_A_ROUND


def main() -> None:
    made = request()
    body = whole(made, 0)
    report, parse = [], []
    for _ in range(ROUNDS):
        report.append(seconds_each(lambda number: whole(made, number)))
        parse.append(seconds_each(lambda _: fhir_json.parse(body)))
    per_second = 1 / statistics.median(report)
    result = {
        "name": "report build and full local check",
        "bytes": len(body),
        "per_second": round(per_second),
        "goal_per_second": GOAL_PER_SECOND,
        "met": per_second >= GOAL_PER_SECOND,
        "ratio_to_bare_parse": round(statistics.median(parse) / statistics.median(report), 4),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
