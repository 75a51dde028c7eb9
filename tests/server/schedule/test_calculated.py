"""Requirement: a BMI that nobody sent is made of height and weight, with Provenance (mappers, FHIR in)."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from profiles import fhir_json
from profiles.validate import validate
from server import schedule
from server.domain.care_period import ReportState
from server.domain.measures import load_evidence
from server.domain.resource import ResourceVersion, StoredResource
from server.domain.submission import Operation
from tests.server.schedule.conftest import CODES, quantity

if TYPE_CHECKING:
    from tests.server.schedule.conftest import Year


async def _height(year: Year, value: str = "172", unit: str = "cm", **changes: Any) -> str:
    return await year._observed("8302-2", {"valueQuantity": quantity(value, unit)}, None, {"id": "height"} | changes)


async def _weight(year: Year, value: str = "81.6", unit: str = "kg", **changes: Any) -> str:
    return await year._observed("29463-7", {"valueQuantity": quantity(value, unit)}, None, {"id": "weight"} | changes)


async def _baseline(year: Year) -> None:
    """All that a CKM baseline needs but weight and BMI."""
    for minutes in (5, 4, 3):
        await year.pressure(138, at=year.clock.now() - timedelta(minutes=minutes))
    for number, measure in enumerate(name for name in CODES if name not in ("weight", "BMI")):
        await year.measured(measure, str(20 + number))


async def _derived(year: Year) -> list[dict[str, Any]]:
    rows = [fhir_json.parse(row.body) for row in await year.all(StoredResource)]
    return [one for one in rows if "derivedFrom" in one]


async def test_a_report_takes_the_bmi_of_height_and_weight(year: Year) -> None:
    """Nobody sent one: it is calculated, stored, named in the evidence, and the report goes out with it."""
    await year.align()
    await _baseline(year)
    assert (await year.report()).missing == "weight,BMI"
    await _height(year)
    await _weight(year)
    report = await year.report()
    assert report.state is ReportState.SUBMITTED
    (bmi,) = await _derived(year)
    assert bmi["valueQuantity"]["value"] == Decimal("27.6")
    (used,) = load_evidence(report.evidence)["BMI"]
    assert used.reference == f"Observation/{bmi['id']}/1"
    assert await year.context.store.get(
        StoredResource, participant_id="ACCES12345", resource_type="Observation", id=bmi["id"]
    )


async def test_it_is_stored_with_its_provenance(year: Year) -> None:
    """The Provenance names the Observation and both sources; both resources meet their profiles."""
    await year.align()
    await _height(year)
    await _weight(year, "180", "[lb_av]")
    (bmi,) = await _derived(year)
    stored = [fhir_json.parse(row.body) for row in await year.all(StoredResource)]
    (provenance,) = [one for one in stored if one["resourceType"] == "Provenance"]
    assert provenance["target"] == [{"reference": f"Observation/{bmi['id']}"}]
    sources = [one["what"]["reference"] for one in provenance["entity"]]
    assert sources == ["Observation/height", "Observation/weight"]
    assert [issue for one in (bmi, provenance) for issue in validate(one) if issue.is_error] == []


async def test_it_is_made_once(year: Year) -> None:
    """Looking again writes no further version."""
    await year.align()
    await _height(year)
    await _weight(year)
    await year.assess()
    await year.assess()
    assert len(await _derived(year)) == 1
    assert await year.all(ResourceVersion) == []


async def test_a_bmi_that_was_sent_is_enough(year: Year) -> None:
    """None is calculated beside it."""
    await year.align()
    await year.measured("BMI", "28")
    await _height(year)
    await _weight(year)
    assert await _derived(year) == []


async def test_a_bmi_that_comes_later_goes_before_ours(year: Year) -> None:
    """Of one day the report takes the one that was sent, whatever the hour."""
    await year.align()
    await _height(year)
    await _weight(year)
    assert len(await _derived(year)) == 1
    sent = await year.measured("BMI", "28", at=year.moment(0, 8))
    await _baseline(year)
    (used,) = load_evidence((await year.report()).evidence)["BMI"]
    assert used.reference == f"Observation/{sent}/1"


async def test_a_track_without_a_bmi_gets_none(year: Year) -> None:
    """Height and weight of a patient in behavioural health stay what they are."""
    submission = year.submission(Operation.ALIGN, track="BH")

    await year.commit(await schedule.alignment_result(submission, "aligned", year.context))
    await year.work()
    await _height(year)
    await _weight(year)
    assert await _derived(year) == []


async def test_it_follows_a_corrected_weight(year: Year) -> None:
    """A new version with the new number, and a person is told of the report that had the old one."""
    await year.align()
    await _baseline(year)
    await _height(year)
    await _weight(year)
    await _weight(year, "91.6", status="corrected")
    (bmi,) = await _derived(year)
    assert (bmi["meta"]["versionId"], bmi["valueQuantity"]["value"]) == ("2", Decimal("31.0"))
    assert any(f"Observation/{bmi['id']}" in text for text in await year.texts("report"))


async def test_it_is_withdrawn_with_its_source(year: Year) -> None:
    """A weight that was entered in error leaves no BMI of it."""
    await year.align()
    await _height(year)
    await _weight(year)
    await _weight(year, status="entered-in-error")
    (bmi,) = await _derived(year)
    assert bmi["status"] == "entered-in-error"
