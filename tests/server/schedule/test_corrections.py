"""A value that CMS has in a report changes afterwards; and values that no device took."""

from datetime import timedelta
from typing import Any

import pytest

from server.domain.care_period import ReportState
from server.domain.coordination import WorkItem
from server.domain.resource import ResourceVersion, StoredResource
from server.store.base import Changeset


@pytest.fixture
async def reported(year: Any) -> Any:
    """A year whose baseline CMS took; `weight` is the id of the weight in it."""
    await year.align()
    await year.everything()
    report = await year.report()
    assert report.state is ReportState.SUBMITTED
    await year.answer(report)
    return year


async def weight(year: Any) -> StoredResource:
    from profiles import fhir_json

    rows = await year.all(StoredResource)
    return next(row for row in rows if b"29463-7" in row.body and fhir_json.parse(row.body)["status"])


async def replaced(year: Any, row: StoredResource, **changes: Any) -> None:
    """The lab or the EHR sends a new version, as a door stores it."""
    from profiles import fhir_json

    old = ResourceVersion(
        participant_id=row.participant_id,
        resource_type=row.resource_type,
        id=row.id,
        version_id=row.revision,
        last_updated=row.last_updated,
        patient_id=row.patient_id,
        body=row.body,
    )
    await year.commit(Changeset(insert=(old,)))
    await year.put(fhir_json.parse(row.body) | changes)


async def test_a_corrected_value_is_told(reported: Any) -> None:
    """It names report, submission and value, and says that CMS has no way to correct a report over the API."""
    row = await weight(reported)
    value = {"value": 91, "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"}
    await replaced(reported, row, status="corrected", valueQuantity=value)
    (text,) = [text for text in await reported.texts("report") if "afterwards" in text]
    assert "baseline report of CKM" in text
    assert f"weight that was corrected afterwards (Observation/{row.id})" in text


async def test_a_withdrawn_value_is_told(reported: Any) -> None:
    """entered-in-error after it was reported."""
    await replaced(reported, await weight(reported), status="entered-in-error")
    assert any("was withdrawn afterwards" in text for text in await reported.texts("report"))


async def test_a_new_version_that_says_the_same_is_not(reported: Any) -> None:
    """Another note, the same value."""
    await replaced(reported, await weight(reported), note=[{"text": "measured twice"}])
    assert [text for text in await reported.texts("report") if "afterwards" in text] == []


async def test_it_is_told_once(reported: Any) -> None:
    """Also after the person has closed the item."""
    await replaced(reported, await weight(reported), status="entered-in-error")
    items = [item for item in await reported.all(WorkItem) if "afterwards" in item.text]
    from dataclasses import replace

    now = reported.clock.now()
    await reported.commit(Changeset(replace=tuple(replace(one, open_key=None, closed_at=now) for one in items)))
    await reported.assess()
    assert len([item for item in await reported.all(WorkItem) if "afterwards" in item.text]) == 1


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, True),
        ({"device": {"display": "Upper-arm cuff"}, "performer": [{"reference": "Patient/patient-1"}]}, True),
        ({"performer": [{"reference": "Practitioner/d1"}]}, True),
        ({"performer": [{"reference": "Patient/patient-1"}]}, False),
        ({"performer": [{"reference": "https://ehr.example/fhir/RelatedPerson/r1"}]}, False),
        ({"performer": [{"type": "Patient", "display": "self"}]}, False),
    ],
    ids=str,
)
async def test_a_blood_pressure_typed_in_by_hand_goes_into_no_report(year: Any, changes: Any, taken: bool) -> None:
    """Left out only where it is sure: the patient's or a relative's own word, and no device named."""
    await year.align()
    for minutes in (3, 2, 1):
        at = year.clock.now() - timedelta(minutes=minutes)
        await year._observed("85354-9", {"component": _pressure()}, at, changes)
    missing = (await year.report()).missing.split(",")
    assert ("blood-pressure" not in missing) is taken
    told = [text for text in await year.texts("report") if "typed in by hand" in text]
    assert len(told) == (0 if taken else 1)


def _pressure() -> list[dict[str, Any]]:
    return [
        {
            "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
            "valueQuantity": {
                "value": value,
                "unit": "mmHg",
                "system": "http://unitsofmeasure.org",
                "code": "mm[Hg]",
            },
        }
        for code, value in (("8480-6", 138), ("8462-4", 82))
    ]
