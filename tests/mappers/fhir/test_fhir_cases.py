"""An EHR's chart as one Bundle: every kind is kept, linked, and read for the report as was checked by hand."""

from pathlib import Path
from typing import Any

from mappers.conversion import Source
from mappers.fhir import convert
from mappers.fhir.measures import measure_of, normalise
from profiles import fhir_json
from profiles.validate import validate

CASES = Path(__file__).parents[2] / "cases" / "fhir"
SOURCE = Source("ab" * 32, "2026-08-20T00:00:00Z")
LINKS = ("subject", "addresses", "goal", "outcomeReference", "result", "derivedFrom")


def _chart() -> list[dict[str, Any]]:
    conversion = convert(fhir_json.parse((CASES / "ehr-chart.json").read_bytes()), SOURCE)
    assert [issue for issue in conversion.issues if issue.severity != "information"] == []
    assert conversion.patient is not None
    return [conversion.patient, *conversion.resources]


def _line(resource: dict[str, Any]) -> str:
    parts = [resource["resourceType"]]
    parts += [one["code"] for one in resource.get("code", {}).get("coding", ())]
    for name in LINKS:
        found = resource.get(name, ())
        for one in [found] if isinstance(found, dict) else found:
            parts.append(f"{name} {one['reference'].partition('/')[0]}")
    if resource["resourceType"] == "Observation" and (measure := measure_of(resource)):
        taken, _ = normalise(resource)
        assert taken is not None
        value = taken["valueQuantity"]
        parts.append(f"report {measure} {taken['code']['coding'][0]['code']} {value['value']} {value['unit']}")
    parts += [f"target {len(resource['target'])}"] if resource["resourceType"] == "Provenance" else []
    return " | ".join(parts)


def test_a_chart_gives_what_was_checked() -> None:
    """A line a resource: its code, where its references lead, and what CMS's report would take of it."""
    assert "\n".join(map(_line, _chart())) + "\n" == (CASES / "ehr-chart.expected.txt").read_text("utf-8")


def test_all_of_it_is_valid_and_every_reference_is_literal() -> None:
    """Base R4 and what each claims; no urn is left."""
    chart = _chart()
    names = {f"{one['resourceType']}/{one['id']}" for one in chart}
    assert [issue for one in chart for issue in validate(one) if issue.is_error] == []
    assert b"urn:uuid:0a1b" not in b"".join(map(fhir_json.dump, chart))
    assert {one["reference"] for one in chart[-1]["target"]} <= names
