"""fhir.resources (R4B) agrees that our positive cases are sound."""

from pathlib import Path

import pytest
from fhir.resources.R4B import get_fhir_model_class

from profiles.fhir_json import parse
from profiles.validate import validate

CASES = Path(__file__).parent.parent / "cases" / "profiles"


@pytest.mark.parametrize("name", ["observation-bp", "patient", "pco-goal", "pco-care-plan", "align", "report"])
def test_the_models_take_what_we_take(name: str) -> None:
    """A case without findings here builds its model there."""
    body = (CASES / f"{name}.json").read_bytes()
    resource = parse(body)
    assert validate(resource) == []
    assert (
        get_fhir_model_class(resource["resourceType"]).model_validate_json(body).get_resource_type()
        == (resource["resourceType"])
    )


def test_both_refuse_two_values_of_a_choice() -> None:
    """What both know to be wrong, both refuse."""
    resource = parse((CASES / "observation-bp.json").read_bytes())
    resource["effectivePeriod"] = {"start": "2026-07-04"}
    assert validate(resource)
    with pytest.raises(ValueError, match="effective"):
        get_fhir_model_class("Observation").model_validate(resource)
