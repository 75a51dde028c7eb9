"""When a report is taken and when not: each result code of $report-data."""

import asyncio
from typing import Any

import pytest

SUCCESS, CLOSED, DUPLICATE = "success", "reporting-period-closed", "duplicate"


async def send(cms: Any, day: int, kind: str, **options: Any) -> str:
    """Reports on that day, with content of its own; the result code."""
    await cms.day(day)
    body = cms.made.report(kind, **{"number": f"{kind}-{day}", **options})
    return str(await cms.result("report-data", body))


async def decided(cms: Any, taken: Any) -> str:
    """The result code, once it is there."""
    for _ in range(100):
        answer = await cms.poll(taken.headers["content-location"])
        if answer.status_code == 200:
            return str(answer.json()["parameter"][0]["valueCodeableConcept"]["coding"][0]["code"])
        await asyncio.sleep(0.02)
    raise AssertionError("no answer in two seconds")


async def test_not_aligned(cms: Any) -> None:
    """A report for a patient who is not aligned is no error but a result."""
    assert await cms.result("report-data", cms.made.report()) == "patient-not-aligned"


async def test_aligned_elsewhere(cms: Any) -> None:
    """Another participant's report for an aligned patient: not aligned to it."""
    await cms.aligned()
    body = cms.made.report(entity="ACCES54321")
    assert await cms.result("report-data", body, entity="ACCES54321") == "patient-not-aligned"


async def test_incorrect_track(cms: Any) -> None:
    """Aligned to this participant, but on another track."""
    await cms.aligned()
    measures = {"85354-9": cms.made.pressure()}
    assert await cms.result("report-data", cms.made.report(track="eCKM", measures=measures)) == "incorrect-track"


@pytest.mark.parametrize("day", [0, 60])
async def test_baseline(cms: Any, day: int) -> None:
    """The baseline window is day 0 to day 60."""
    await cms.aligned()
    assert await send(cms, day, "baseline") == SUCCESS


async def test_baseline_on_day_61(cms: Any) -> None:
    """On day 61 the patient is unaligned already."""
    await cms.aligned()
    assert await send(cms, 61, "baseline") == "patient-not-aligned"


async def test_second_baseline(cms: Any) -> None:
    """A second baseline is a duplicate, though its content is another."""
    await cms.aligned()
    assert await send(cms, 1, "baseline") == SUCCESS
    assert await send(cms, 2, "baseline") == DUPLICATE


async def test_two_at_once(open_cms: Any) -> None:
    """Two reports taken before either was decided: one success, one duplicate."""
    cms = open_cms(latency=0.1)
    await decided(cms, await cms.post("align", cms.made.align()))
    first = await cms.post("report-data", cms.made.report())
    second = await cms.post("report-data", cms.made.report(number="2"))
    assert (await cms.poll(second.headers["content-location"])).status_code == 202
    assert [await decided(cms, first), await decided(cms, second)] == [SUCCESS, DUPLICATE]


@pytest.mark.parametrize(("day", "expected"), [(69, CLOSED), (70, SUCCESS), (110, SUCCESS), (111, CLOSED)])
async def test_quarterly(cms: Any, day: int, expected: str) -> None:
    """A quarterly report is due 70 to 110 days after the submission before it."""
    await cms.aligned()
    await send(cms, 10, "baseline")
    assert await send(cms, 10 + day, "quarterly") == expected


async def test_quarterly_moves_the_next(cms: Any) -> None:
    """The next window hangs on the last submission; a second one in a window already used is a duplicate."""
    await cms.aligned()
    await send(cms, 0, "baseline")
    days = {100: SUCCESS, 105: DUPLICATE, 169: CLOSED, 170: SUCCESS}
    assert {day: await send(cms, day, "quarterly") for day in days} == days


async def test_quarterly_without_baseline(cms: Any) -> None:
    """Before the baseline there is no quarterly window."""
    await cms.aligned()
    assert await send(cms, 30, "quarterly") == CLOSED


@pytest.mark.parametrize(
    ("track", "diagnosis", "day", "expected"),
    [
        ("CKM", "E11.9", 274, CLOSED),
        ("CKM", "E11.9", 275, SUCCESS),
        ("CKM", "E11.9", 425, SUCCESS),
        ("CKM", "E11.9", 426, "patient-not-aligned"),
        ("MSK", "M54.50", 184, CLOSED),
        ("MSK", "M54.50", 185, SUCCESS),
    ],
)
async def test_end_of_period(cms: Any, track: str, diagnosis: str, day: int, expected: str) -> None:
    """The last report: until day 425, early from day 275 (eCKM, CKM) or 185 (MSK, BH)."""
    await cms.day(0)
    await cms.result("align", cms.made.align(diagnosis, track=track))
    options = {"track": track}
    if track == "MSK":
        url = "https://example-care.example/Questionnaire/any"
        names = ("76804-4", "90973-9", "72514-3", "PGIC")
        options["measures"] = {name: cms.made.response(url) for name in names}
        options["extra"] = ({"resourceType": "Questionnaire", "url": url, "text": cms.made.patient()["text"]},)
    await send(cms, 0, "baseline", **options)
    assert await send(cms, day, "end-of-period", **options) == expected


async def test_nothing_after_the_last(cms: Any) -> None:
    """After the end-of-period report another is a duplicate, and no quarterly is taken."""
    await cms.aligned()
    await send(cms, 0, "baseline")
    assert await send(cms, 290, "end-of-period") == SUCCESS
    assert await send(cms, 300, "end-of-period") == DUPLICATE
    assert await send(cms, 365, "quarterly") == CLOSED


async def test_same_content(cms: Any) -> None:
    """The very same bundle in a later window is a duplicate."""
    await cms.aligned()
    await send(cms, 0, "baseline", number="same")
    assert await send(cms, 80, "quarterly", number="same") == DUPLICATE


async def test_incomplete(cms: Any) -> None:
    """A missing required measure is a result with issues that name it; complete, it is taken."""
    await cms.aligned()
    measures = cms.made.measures()
    del measures["4548-4"]
    answer = await cms.answer("report-data", cms.made.report(measures=measures))
    assert answer["result"]["valueCodeableConcept"]["coding"][0]["code"] == "incomplete-data"
    (issue,) = answer["issues"]["resource"]["issue"]
    assert (issue["severity"], issue["code"]) == ("warning", "required")
    assert issue["details"]["text"] == "HbA1c is required in this report: section 4548-4"
    assert issue["expression"][0].endswith(
        "section.where(code.coding.code='CKM').section.where(code.coding.code='4548-4')"
    )
    assert await cms.result("report-data", cms.made.report()) == SUCCESS


async def test_profile_with_issues(cms: Any) -> None:
    """An answer with issues claims the status profile: the operation's own has no room for them."""
    await cms.aligned()
    taken = await cms.post("report-data", cms.made.report(measures={}))
    done = (await cms.poll(taken.headers["content-location"])).json()
    assert done["meta"]["profile"][0].endswith("/access-submission-status-out")


async def test_measures_by_diagnosis(cms: Any) -> None:
    """eGFR and uACR are due for diabetes or kidney disease, and at the baseline only."""
    patient = cms.made.person(cms.app, "3HK7MN8PQ12")
    await cms.day(0)
    await cms.result("align", cms.made.align("I25.10", patient=patient))
    measures = cms.made.measures()
    del measures["98979-8"], measures["14959-1"]
    assert await send(cms, 0, "baseline", measures=measures, patient=patient) == SUCCESS


async def test_decided_by_the_day_received(open_cms: Any) -> None:
    """A report received on its last day is taken, though it is decided a day later."""
    cms = open_cms(latency=0.1)
    await cms.day(0)
    await decided(cms, await cms.post("align", cms.made.align()))
    await cms.day(60)
    taken = await cms.post("report-data", cms.made.report())
    await cms.day(61)
    assert await decided(cms, taken) == SUCCESS
