"""A care update says what is known, in resources that others can take over, and is written once."""

import json
from base64 import b64decode, b64encode
from dataclasses import replace
from datetime import date
from hashlib import sha1
from typing import Any

import pytest

from mappers.cda import convert
from mappers.conversion import Source
from profiles.canonical import PCO
from profiles.fhir_json import parse
from profiles.validate import validate
from server.domain.care_period import CarePeriod
from server.domain.coordination import CareUpdate, WorkItem
from server.domain.resource import StoredResource
from server.settings import Author
from server.store.base import Changeset

MOMENTS = [("initiation", ""), ("milestone", "blood-pressure"), ("completion", ""), ("adverse-event", "")]


async def _update(world: Any, moment: str = "initiation", subject: str = "") -> CareUpdate:
    await world.happen(moment, subject)
    await world.work()
    found = await world.context.store.find(CareUpdate, order_by="composed_at")
    return next(update for update in found if update.moment == moment)


async def _document(world: Any, update: CareUpdate) -> dict[str, Any]:
    return parse((await world.stored("Bundle", update.id)).body)


def _of(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [e["resource"] for e in document["entry"] if e["resource"]["resourceType"] == kind]


def _text(document: dict[str, Any]) -> str:
    return " ".join(section["text"]["div"] for section in document["entry"][0]["resource"]["section"])


@pytest.mark.parametrize(("moment", "subject"), MOMENTS)
async def test_every_resource_is_valid(world: Any, moment: str, subject: str) -> None:
    """At each moment all that is stored passes base R4, US Core 6.1.0 and the PCO profiles that it claims."""
    await _update(world, moment, subject)
    rows = await world.context.store.find(StoredResource)
    kinds = {row.resource_type for row in rows}
    assert kinds >= {"Bundle", "CarePlan", "Goal", "ServiceRequest", "DocumentReference", "Practitioner"}
    base = "http://facade.test/fhir"
    entries = [{"fullUrl": f"{base}/{row.resource_type}/{row.id}", "resource": parse(row.body)} for row in rows]
    together = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    assert [issue for issue in validate(together) if issue.severity != "information"] == []


@pytest.mark.parametrize("track", ["eCKM", "CKM", "MSK", "BH"])
async def test_every_track_without_values(world: Any, track: str) -> None:
    """A patient without any value has a sound update too, with a goal and a plan in words."""
    period = await world.context.store.get(CarePeriod, id="period-1")
    await world.context.store.commit(Changeset(replace=(replace(period, track=track, aligned_on=date(2027, 1, 5)),)))
    document = await _document(world, await _update(world))
    assert [issue for issue in validate(document) if issue.is_error] == []
    assert len(_of(document, "Goal")) == 1


async def test_the_plan_claims_pco(world: Any) -> None:
    """CarePlan and Goal claim PCO and keep what it adds: goals, activities by reference, a start date."""
    document = await _document(world, await _update(world))
    (plan,) = _of(document, "CarePlan")
    (goal,) = _of(document, "Goal")
    assert PCO("pco-care-plan") in plan["meta"]["profile"]
    assert plan["goal"] == [{"reference": f"Goal/{goal['id']}"}]
    assert all("detail" not in activity for activity in plan["activity"])
    assert PCO("pco-goal-profile") in goal["meta"]["profile"]
    assert goal["startDate"] == "2026-08-10"
    assert goal["expressedBy"] == {"reference": "Practitioner/npi-1234567893"}
    (target,) = goal["target"]
    assert target["measure"]["coding"][0]["code"] == "8480-6"
    assert (str(target["detailQuantity"]["value"]), target["detailQuantity"]["comparator"]) == ("130", "<")


async def test_a_secondary_target_is_said_to_be_unconfirmed(world: Any) -> None:
    """A number that CMS has not confirmed is shown as the participant's own goal."""
    (goal,) = _of(await _document(world, await _update(world)), "Goal")
    assert "Example Care" in goal["note"][0]["text"]
    assert "not confirmed" in goal["note"][0]["text"]


async def test_measures_show_first_and_latest_with_their_days(world: Any) -> None:
    """The table has the first value of the period and the newest one, in the source's unit and day."""
    await world.store(world.blood_pressure("bp-0", "2026-08-01T07:00:00-07:00", 160, 99))
    await world.store(world.blood_pressure("bp-2", "2026-08-15T07:00:00-07:00", 139, 88))
    await world.store(world.blood_pressure("bp-3", "2026-08-19T07:00:00-07:00", 127, 79))
    document = await _document(world, await _update(world, "milestone", "blood-pressure"))
    text = _text(document)
    assert "148/92 mmHg, 2026-08-12" in text
    assert "127/79 mmHg, 2026-08-19" in text
    assert "160/99" not in text
    assert "reached a treatment goal: Blood pressure" in text
    assert {o["id"] for o in _of(document, "Observation")} == {"bp-1", "bp-3"}
    assert _of(document, "Goal")[0]["achievementStatus"]["coding"][0]["code"] == "achieved"


async def test_a_value_that_does_not_count_is_not_shown(world: Any) -> None:
    """Preliminary values and values from the future stay out."""
    preliminary = world.blood_pressure("bp-5", "2026-08-18T07:00:00-07:00", 111, 71) | {"status": "preliminary"}
    await world.store(preliminary)
    await world.store(world.blood_pressure("bp-6", "2027-08-18T07:00:00-07:00", 112, 72))
    text = _text(await _document(world, await _update(world)))
    assert "111/71" not in text
    assert "112/72" not in text


async def test_the_goal_goes_on_as_the_same_resource(world: Any) -> None:
    """From one update to the next, plan and goals are new versions, not new plans and goals."""
    await _update(world)
    await world.store(world.blood_pressure("bp-3", "2026-08-19T07:00:00-07:00", 127, 79))
    await _update(world, "milestone", "blood-pressure")
    rows = await world.context.store.find(StoredResource)
    assert [row.revision for row in rows if row.resource_type == "Goal"] == [2]
    assert len([row for row in rows if row.resource_type == "DocumentReference"]) == 2


async def test_the_next_update_names_the_one_before(world: Any) -> None:
    """Document and DocumentReference are appended to their predecessors."""
    first = await _update(world)
    second = await _update(world, "completion")
    reference = parse((await world.stored("DocumentReference", second.id)).body)
    assert reference["relatesTo"] == [{"code": "appends", "target": {"reference": f"DocumentReference/{first.id}"}}]


async def test_the_reference_proves_the_document(world: Any) -> None:
    """Hash and size in the DocumentReference are those of the bytes that a reader gets."""
    update = await _update(world)
    body = (await world.stored("Bundle", update.id)).body
    attachment = parse((await world.stored("DocumentReference", update.id)).body)["content"][0]["attachment"]
    assert attachment["url"] == f"http://facade.test/fhir/Bundle/{update.id}"
    assert attachment["size"] == len(body)
    assert attachment["hash"] == b64encode(sha1(body, usedforsecurity=False).digest()).decode()


@pytest.mark.parametrize(
    ("moment", "subject", "loinc"),
    [
        ("initiation", "", "52521-2"),
        ("milestone", "blood-pressure", "11506-3"),
        ("adverse-event", "", "57133-1"),
        ("completion", "", "11506-3"),
    ],
)
async def test_every_update_is_a_c_cda_document_too(world: Any, moment: str, subject: str, loinc: str) -> None:
    """The kind that the moment asks for; read back it is about the same person, with the same values and goals."""
    await world.store(world.blood_pressure("bp-3", "2026-08-19T07:00:00-07:00", 127, 79))
    update = await _update(world, moment, subject)
    document = await _document(world, update)
    reference = parse((await world.stored("DocumentReference", update.id)).body)
    data = b64decode(parse((await world.stored("Binary", update.id)).body)["data"])
    attachment = reference["content"][1]["attachment"]
    assert attachment["url"] == f"http://facade.test/fhir/Binary/{update.id}"
    assert (attachment["contentType"], attachment["size"]) == ("application/xml", len(data))
    assert attachment["hash"] == b64encode(sha1(data, usedforsecurity=False).digest()).decode()
    back = convert(data, Source("00", "2026-08-21T00:00:00Z"))
    assert back.issues == ()
    assert {one.kind for one in back.unmapped} <= {"left"}
    (own,) = [one for one in back.resources if one["resourceType"] == "DocumentReference"]
    assert own["type"]["coding"][0]["code"] == loinc
    assert back.patient is not None
    assert back.patient["identifier"][0]["value"] == "1EG4TE5MK73"
    assert _pressures(back.resources) >= _pressures(_of(document, "Observation")) > set()
    described = {one["description"]["text"] for one in back.resources if one["resourceType"] == "Goal"}
    assert described == {goal["description"]["text"] for goal in _of(document, "Goal")}


def _pressures(resources: Any) -> set[tuple[str, str]]:
    """Time and numbers of each blood pressure."""
    found = [one for one in resources if one["resourceType"] == "Observation" and "component" in one]
    return {
        (one["effectiveDateTime"], "/".join(str(part["valueQuantity"]["value"]) for part in one["component"]))
        for one in found
    }


async def test_the_c_cda_goes_along_with_the_notification(world: Any) -> None:
    """A receiver that takes no FHIR document finds the Binary among what it is told of."""
    update = await _update(world)
    assert f"Binary/{update.id}/_history/1" in update.context.split()


async def test_only_what_identifies_the_person_leaves(world: Any) -> None:
    """No social security number, no address; the Medicare number and the name do."""
    text = json.dumps(await _document(world, await _update(world)), default=str)
    assert "999-12-3456" not in text
    assert "Nowhere" not in text
    assert "1EG4TE5MK73" in text


async def test_the_day_is_the_participants(world: Any) -> None:
    """In the evening on the west coast the update bears that day, though it is tomorrow in UTC."""
    document = await _document(world, await _update(world))
    assert "care update of 2026-08-20:" in document["entry"][0]["resource"]["text"]["div"]


async def test_the_last_words_ask_for_nothing(world: Any) -> None:
    """Who reads the update knows at its end that nothing is asked."""
    document = await _document(world, await _update(world))
    assert "You do not have to do or answer anything." in document["entry"][0]["resource"]["section"][-1]["text"]["div"]


async def test_every_reference_of_the_document_resolves_in_it(world: Any) -> None:
    """Composition, plan, goals and requests refer to nothing outside of the document."""
    document = await _document(world, await _update(world))
    held = {e["fullUrl"].removeprefix("http://facade.test/fhir/") for e in document["entry"]}
    named = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("reference"), str):
                named.add(value["reference"])
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk(document)
    assert named <= held


async def test_the_patients_own_goal_makes_the_plan_person_centered(world: Any) -> None:
    """A PCO goal in the patient's words goes into the plan, and only then the plan says person-centered."""
    own = {
        "resourceType": "Goal",
        "id": "walk",
        "meta": {"profile": [PCO("pco-goal-profile")]},
        "lifecycleStatus": "active",
        "category": [
            {
                "coding": [
                    {"system": "http://hl7.org/fhir/us/pco/CodeSystem/pco-concepts-temporary", "code": "wellbeing"}
                ]
            }
        ],
        "description": {"text": "Walk my dog <again>"},
        "subject": {"reference": "Patient/pat-1"},
        "startDate": "2026-08-11",
        "expressedBy": {"reference": "Patient/pat-1"},
    }
    before = await _document(world, await _update(world))
    await world.store(own)
    after = await _document(world, await _update(world, "completion"))
    assert [len(_of(d, "CarePlan")[0]["category"]) for d in (before, after)] == [1, 2]
    assert {"reference": "Goal/walk"} in _of(after, "CarePlan")[0]["goal"]
    assert "Walk my dog &lt;again&gt;" in _text(after)
    assert [issue for issue in validate(after) if issue.is_error] == []


async def test_without_a_clinician_the_organization_speaks(world: Any) -> None:
    """A participant without a configured author still sends a sound update."""
    settings = world.context.settings
    nobody = replace(settings.participants["ACCES12345"], author=Author("", "", ""))
    world.context = replace(world.context, settings=replace(settings, participants={"ACCES12345": nobody}))
    document = await _document(world, await _update(world))
    assert document["entry"][0]["resource"]["author"] == [{"reference": "Organization/ACCES12345"}]
    assert [issue for issue in validate(document) if issue.is_error] == []


async def test_an_unknown_period_is_let_go(world: Any) -> None:
    """A job for a care period that is not there writes nothing and opens nothing."""
    await world.happen("initiation")
    period = await world.context.store.get(CarePeriod, id="period-1")
    await world.context.store.commit(Changeset(delete=(period,)))
    await world.work()
    assert await world.context.store.count(CareUpdate) == 0
    assert await world.context.store.count(WorkItem) == 0
