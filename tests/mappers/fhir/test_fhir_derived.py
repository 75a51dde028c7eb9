"""A BMI from height and weight: exact, of one day, of one patient, with its sources."""

from decimal import Decimal

import pytest

from mappers.fhir.derived import derived_bmi
from mappers.fhir.measures import normalise
from profiles.validate import validate

RECORDED = "2026-08-20T09:00:00Z"
UCUM = "http://unitsofmeasure.org"


def _measured(code: str, value: str, unit: str, when: str = "2026-08-19T08:00:00-04:00", **more):
    return {
        "resourceType": "Observation",
        "id": f"o-{code}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": "Patient/p"},
        "effectiveDateTime": when,
        "valueQuantity": {"value": Decimal(value), "unit": unit, "system": UCUM, "code": unit},
        **more,
    }


def _weight(value: str = "81.6", unit: str = "kg", **more):
    return _measured("29463-7", value, unit, **more)


def _height(value: str = "172", unit: str = "cm", **more):
    return _measured("8302-2", value, unit, **more)


@pytest.mark.parametrize(
    ("height", "weight", "bmi"),
    [
        (_height("172", "cm"), _weight("81.6", "kg"), "27.6"),
        (_height("1.72", "m"), _weight("81600", "g"), "27.6"),
        (_height("67.7", "[in_i]"), _weight("180", "[lb_av]"), "27.6"),
        (_height("5.6", "[ft_i]"), _weight("12", "[stone_av]"), "26.2"),
    ],
)
def test_the_value_is_exact_whatever_the_units(height, weight, bmi):
    """Rounded once, half up, to one decimal."""
    made = derived_bmi(height, weight, recorded=RECORDED)
    assert made.observation["valueQuantity"]["value"] == Decimal(bmi)


def test_it_names_its_sources_and_is_valid():
    """derivedFrom and Provenance; the weight's time; it can be reported."""
    made = derived_bmi(_height(), _weight(), recorded=RECORDED)
    assert [one["reference"] for one in made.observation["derivedFrom"]] == [
        "Observation/o-8302-2",
        "Observation/o-29463-7",
    ]
    assert made.provenance["target"] == [{"reference": f"Observation/{made.observation['id']}"}]
    for resource in (made.observation, made.provenance):
        assert [issue for issue in validate(resource) if issue.is_error] == []
    assert normalise(made.observation)[0] is not None
    assert derived_bmi(_height(), _weight(), recorded=RECORDED) == made


@pytest.mark.parametrize(
    ("height", "weight"),
    [
        (_height(when="2026-08-18T23:00:00-04:00"), _weight()),
        (_height(subject={"reference": "Patient/q"}), _weight()),
        (_height(status="preliminary"), _weight()),
        (_height("172", "furlong"), _weight()),
        (_height("1.72", "cm"), _weight()),
        (_height(), _weight("816", "kg")),
        (_weight(), _height()),
    ],
)
def test_doubtful_values_make_no_bmi(height, weight):
    """Another day, another person, another status, a wrong unit, the two swapped: an Issue, no number."""
    made = derived_bmi(height, weight, recorded=RECORDED)
    assert made.observation is made.provenance is None
    assert made.issues
    assert all(issue.is_error for issue in made.issues)
