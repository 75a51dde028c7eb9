"""Bundles of EHRs, laboratories and gateways: what is kept, linked and taken for the report, as checked by hand.

A line a resource: its type and code, where its references lead, what CMS's report takes of it or why it does not, what
of it is not valid. Then what was derived, what was not kept, and every issue.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mappers.conversion import Conversion, Source
from mappers.fhir import convert
from mappers.fhir.derived import derived_bmi, is_height
from mappers.fhir.measures import measure_of, normalise
from mappers.instruments import cms_response
from profiles import fhir_json
from profiles.validate import validate

CASES = Path(__file__).parents[2] / "cases" / "fhir"
SOURCE = Source("ab" * 32, "2026-08-30T00:00:00Z")
LINKS = ("subject", "addresses", "focus", "goal", "outcomeReference", "result", "hasMember", "derivedFrom", "device")
NAMES = sorted(one.name.removesuffix(".expected.txt") for one in CASES.glob("*.expected.txt"))
_MADE = re.compile(r"[0-9a-f]{32}")  # an id that we gave

Resource = dict[str, Any]


def _converted(name: str) -> Conversion:
    return convert(fhir_json.parse((CASES / f"{name}.json").read_bytes()), SOURCE)


def _all(conversion: Conversion) -> list[Resource]:
    return ([conversion.patient] if conversion.patient else []) + list(conversion.resources)


def _line(resource: Resource) -> str:
    parts = [resource["resourceType"]]
    parts += [] if _MADE.fullmatch(resource["id"]) else [resource["id"]]
    parts += [one["code"] for one in resource.get("code", {}).get("coding", ())]
    for name in LINKS:
        found = resource.get(name, ())
        for one in [found] if isinstance(found, dict) else found:
            parts.append(f"{name} {_target(one)}")
    if resource["resourceType"] == "Observation":
        parts += _report(resource)
    if resource["resourceType"] == "QuestionnaireResponse":
        parts += _form(resource)
    parts += [f"target {len(resource['target'])}"] if resource["resourceType"] == "Provenance" else []
    parts += [f"invalid {one.location}" for one in validate(resource) if one.is_error]
    return " | ".join(parts)


def _target(reference: Resource) -> str:
    """The type that a reference leads to; what it says where it leads nowhere."""
    literal = reference.get("reference", "")
    return literal if literal.startswith(("#", "urn:")) else literal.partition("/")[0] or str(reference.get("display"))


def _report(resource: Resource) -> Iterator[str]:
    """The value, time and remarks of CMS's report; the score of an instrument."""
    if (measure := measure_of(resource)) is None:
        if "pco-prom-score-observation" in "".join(resource.get("meta", {}).get("profile", ())):
            yield f"score {resource['valueQuantity']['value']}"
        return
    taken, issues = normalise(resource)
    if taken is None:
        yield from (f"not reported: {one.text}" for one in issues if one.is_error)
        return
    values = [taken] if "valueQuantity" in taken else taken["component"]
    told = ", ".join(_amount(one["valueQuantity"]) for one in values)
    yield f"report {measure} {taken['code']['coding'][0]['code']} {told} {values[0]['valueQuantity']['code']}"
    yield from (f"({one.text})" for one in issues)


def _amount(quantity: Resource) -> str:
    return f"{quantity.get('comparator', '')}{quantity['value']}"


def _form(resource: Resource) -> Iterator[str]:
    form = cms_response(resource, base_url="https://facade.example/fhir")
    if form is None:
        return
    issues = [f"({one.text})" for one in form.issues]
    if form.response is None:
        yield from (f"not reported: {one.text}" for one in form.issues if one.is_error)
        return
    links = [one["linkId"] for one in form.response["item"]]
    last = form.response["item"][-1]["answer"][0]
    yield f"CMS {form.instrument.measure} {links[0]}..{links[-1]} {last.get('valueDecimal', '')}".rstrip()
    yield from issues


def _derived(conversion: Conversion) -> Iterator[str]:
    """What a height and a weight of this Bundle, next to each other, give."""
    found = [one for one in conversion.resources if one["resourceType"] == "Observation"]
    for height, weight in zip(found, found[1:], strict=False):
        if is_height(height) and measure_of(weight) == "weight":
            made = derived_bmi(height, weight, recorded=SOURCE.received_at)
            if made.observation is None or made.provenance is None:
                yield f"no BMI of {height['id']} and {weight['id']}: " + " ".join(one.text for one in made.issues)
                continue
            value, sources = made.observation["valueQuantity"], made.provenance["entity"]
            yield f"BMI {value['value']} {value['code']} at {made.observation['effectiveDateTime']} of " + ", ".join(
                one["what"]["reference"] for one in sources
            )


def _told(name: str) -> str:
    conversion = _converted(name)
    lines = [_line(one) for one in _all(conversion)]
    lines += _derived(conversion)
    lines += [f"unmapped {one.location} {one.kind}" for one in conversion.unmapped]
    lines += [f"{one.severity} {one.location}: {one.text}" for one in conversion.issues]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_gives_what_was_checked(name: str) -> None:
    """Line by line, as it was read against the guides."""
    assert _told(name) == (CASES / f"{name}.expected.txt").read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_made_and_derived_is_valid(name: str) -> None:
    """Provenance, scores and calculated values pass base R4 and what they claim; their references are literal."""
    conversion = _converted(name)
    made = [one for one in _all(conversion) if one["resourceType"] == "Provenance"]
    names = {f"{one['resourceType']}/{one['id']}" for one in _all(conversion)}
    assert [issue for one in made for issue in validate(one) if issue.is_error] == []
    assert {one["reference"] for each in made for one in each["target"]} <= names


def test_an_ehrs_chart_is_valid_and_every_reference_is_literal() -> None:
    """Base R4 and what each resource claims; no urn is left."""
    chart = _all(_converted("ehr-chart"))
    assert [issue for one in chart for issue in validate(one) if issue.is_error] == []
    assert b"urn:uuid:0a1b" not in b"".join(map(fhir_json.dump, chart))
