"""A care update as C-CDA: read back it says the same, and it is built as its templates ask."""

import copy
import hashlib
from decimal import Decimal

import pytest
from lxml import etree

from mappers.cda import convert
from mappers.cda.write import Kind, write
from mappers.conversion import Source
from profiles.canonical import LOINC, MBI, NPI, OBSERVATION_CATEGORY, UCUM
from profiles.validate import validate

V3 = "{urn:hl7-org:v3}"
NAMES = {"c": "urn:hl7-org:v3"}
SUBJECT = {"reference": "Patient/p1"}
SYSTEM = "http://facade.test/care-update"
# The order of children in CDA R2's schema, as far as the writer uses it.
ORDER = {
    "ClinicalDocument": "realmCode typeId templateId id code title effectiveTime confidentialityCode languageCode "
    "recordTarget author custodian informationRecipient documentationOf relatedDocument componentOf component",
    "patientRole": "id addr telecom patient",
    "patient": "name administrativeGenderCode birthTime raceCode ethnicGroupCode",
    "assignedAuthor": "id code addr telecom assignedPerson representedOrganization",
    "representedCustodianOrganization": "id name telecom addr",
    "section": "templateId code title text entry",
    "observation": "templateId id code text statusCode effectiveTime value interpretationCode author participant "
    "entryRelationship referenceRange",
    "act": "templateId id code text statusCode effectiveTime author entryRelationship",
    "organizer": "templateId id code statusCode effectiveTime component",
    "substanceAdministration": "templateId id code text statusCode effectiveTime routeCode doseQuantity consumable "
    "author entryRelationship",
    "serviceEvent": "effectiveTime performer",
    "encompassingEncounter": "id effectiveTime location",
}
NEEDED = {  # sections that each document template requires (C-CDA R2.1)
    Kind.CARE_PLAN: {"2.58", "2.60"},
    Kind.PROGRESS_NOTE: {"2.8", "2.10"},
    Kind.REFERRAL_NOTE: {"2.5.1", "2.6.1", "2.1.1", "2.8", "2.10"},
}


def _concept(system, code, display=None):
    return {"coding": [{"system": system, "code": code} | ({"display": display} if display else {})]}


def _quantity(value, code, **more):
    return {"value": Decimal(value), "unit": code, "system": UCUM, "code": code} | more


def _observation(name, category, code, when, **more):
    return {
        "resourceType": "Observation",
        "id": name,
        "status": "final",
        "category": [_concept(OBSERVATION_CATEGORY, category)],
        "code": _concept(LOINC, code),
        "subject": SUBJECT,
        "effectiveDateTime": when,
    } | more


PRESSURE = _observation(
    "bp",
    "vital-signs",
    "85354-9",
    "2026-08-19T09:30:00-04:00",
    component=[
        {"code": _concept(LOINC, "8480-6", "Systolic"), "valueQuantity": _quantity("128", "mm[Hg]")},
        {"code": _concept(LOINC, "8462-4", "Diastolic"), "valueQuantity": _quantity("78", "mm[Hg]")},
    ],
)
GOAL = {
    "resourceType": "Goal",
    "id": "plan-bp",
    "lifecycleStatus": "active",
    "description": {"text": "Systolic below 130"},
    "subject": SUBJECT,
    "startDate": "2026-02-01",
    "expressedBy": {"reference": "Practitioner/n"},
    "target": [
        {
            "measure": _concept(LOINC, "8480-6", "Systolic"),
            "detailQuantity": _quantity("130", "mm[Hg]", comparator="<"),
            "dueDate": "2027-01-31",
        }
    ],
    "achievementStatus": _concept("http://terminology.hl7.org/CodeSystem/goal-achievement", "achieved"),
    "outcomeReference": [{"reference": "Observation/bp"}],
    "note": [{"text": "Agreed at the visit"}],
}
HELD = [
    {
        "resourceType": "Composition",
        "id": "u1",
        "status": "final",
        "date": "2026-08-20T18:30:00-04:00",
        "author": [{"reference": "Practitioner/n"}],
        "title": "ACCESS care update",
        "custodian": {"reference": "Organization/o"},
        "relatesTo": [{"code": "appends", "targetIdentifier": {"system": SYSTEM, "value": "u0"}}],
        "section": [
            {"title": "Why", "text": {"div": '<div xmlns="http://www.w3.org/1999/xhtml"><p>A &amp; B</p></div>'}},
        ],
    },
    {
        "resourceType": "Patient",
        "id": "p1",
        "identifier": [{"system": MBI, "value": "1EG4TE5MK73"}],
        "name": [{"family": "Quill", "given": ["Ada"]}],
        "gender": "female",
        "birthDate": "1952-03-04",
    },
    {"resourceType": "Organization", "id": "o", "active": True, "name": "Elm <Clinic>"},
    {
        "resourceType": "Practitioner",
        "id": "n",
        "identifier": [{"system": NPI, "value": "1234567893"}],
        "name": [{"family": "Reyes", "given": ["Uma"]}],
    },
    {"resourceType": "CarePlan", "id": "plan", "period": {"start": "2026-02-01", "end": "2027-01-31"}},
    GOAL,
    {
        "resourceType": "ServiceRequest",
        "id": "plan-bp",
        "status": "active",
        "intent": "plan",
        "code": {"text": "Follow-up: Blood pressure"},
        "subject": SUBJECT,
        "occurrencePeriod": {"start": "2026-02-01", "end": "2027-01-31"},
        "authoredOn": "2026-02-01",
        "requester": {"reference": "Practitioner/n"},
    },
    PRESSURE,
    _observation(
        "phq",
        "survey",
        "44261-6",
        "2026-08-19",
        valueQuantity={"value": Decimal(7), "unit": "score", "system": UCUM, "code": "1"},
    ),
    _observation(
        "a1c", "laboratory", "4548-4", "2026-08-01T08:00:00-04:00", valueQuantity=_quantity("6.80", "%"),
        referenceRange=[{"high": _quantity("7.0", "%")}],
    ),
    {
        "resourceType": "MedicationRequest",
        "id": "m",
        "status": "active",
        "intent": "plan",
        "reportedBoolean": True,
        "medicationCodeableConcept": {"text": "Lisinopril 10 mg"},
        "subject": SUBJECT,
        "dosageInstruction": [{"text": "One a day"}],
    },
    {
        "resourceType": "Condition",
        "id": "c",
        "clinicalStatus": _concept("http://terminology.hl7.org/CodeSystem/condition-clinical", "active"),
        "code": _concept("http://hl7.org/fhir/sid/icd-10-cm", "I10", "Hypertension"),
        "subject": SUBJECT,
        "onsetDateTime": "2024-01-05",
    },
]  # fmt: skip
BUNDLE = {
    "resourceType": "Bundle",
    "id": "u1",
    "type": "document",
    "identifier": {"system": SYSTEM, "value": "u1"},
    "timestamp": "2026-08-20T18:30:00-04:00",
    "entry": [{"resource": one} for one in HELD],
}


def _read(kind):
    data = write(BUNDLE, kind)
    return convert(data, Source(hashlib.sha256(data).hexdigest(), "2026-08-21T00:00:00Z"))


def _of(conversion, kind):
    return [one for one in conversion.resources if one["resourceType"] == kind]


def _codes(resource):
    return [one["code"] for one in resource["code"].get("coding", ())]


@pytest.mark.parametrize("kind", Kind)
def test_values_units_and_times_come_back(kind):
    """Our own reader finds every measurement with its digits, unit, comparator-free value and offset."""
    found = {code: one for one in _of(_read(kind), "Observation") for code in _codes(one)[:1]}
    pressure = found["85354-9"]
    assert [part["valueQuantity"]["value"] for part in pressure["component"]] == [128, 78]
    assert pressure["effectiveDateTime"] == PRESSURE["effectiveDateTime"]
    sugar = found["4548-4"]
    assert str(sugar["valueQuantity"]["value"]) == "6.80"
    assert sugar["referenceRange"][0]["high"]["value"] == Decimal("7.0")
    mood = found["44261-6"]
    assert mood["valueQuantity"] == {"value": 7, "unit": "score", "system": UCUM, "code": "1"}
    assert mood["effectiveDateTime"] == "2026-08-19"


@pytest.mark.parametrize("kind", Kind)
def test_the_goal_comes_back_whole(kind):
    """Start, due date, words, measure, comparator and who expressed it."""
    goal = _of(_read(kind), "Goal")[0]
    assert (goal["startDate"], goal["description"]["text"]) == ("2026-02-01", "Systolic below 130")
    target = goal["target"][0]
    assert target["detailQuantity"] == GOAL["target"][0]["detailQuantity"]
    assert (target["dueDate"], goal["lifecycleStatus"]) == ("2027-01-31", "active")
    assert goal["expressedBy"]["reference"].startswith("Practitioner/")
    assert goal["note"] == [{"text": "Agreed at the visit"}]


def test_a_care_plan_links_goal_intervention_and_outcome():
    """The outcome is the reading that the target measures; it evaluates the goal, which is achieved."""
    conversion = _read(Kind.CARE_PLAN)
    goal, request = _of(conversion, "Goal")[0], _of(conversion, "ServiceRequest")[0]
    assert goal["achievementStatus"]["coding"][0]["code"] == "achieved"
    outcome = next(one for one in _of(conversion, "Observation") if "focus" in one)
    assert (_codes(outcome), outcome["valueQuantity"]["value"]) == (["8480-6"], 128)
    assert request["supportingInfo"] == [{"reference": f"Goal/{goal['id']}"}]
    assert (request["code"]["text"], request["occurrencePeriod"]) == (
        "Follow-up: Blood pressure",
        {"start": "2026-02-01", "end": "2027-01-31"},
    )
    assert _of(conversion, "CarePlan")[0]["period"] == {"start": "2026-02-01", "end": "2027-01-31"}


@pytest.mark.parametrize("kind", Kind)
def test_all_that_is_read_back_is_valid_and_nothing_is_unknown(kind):
    """Base R4 and the claimed profiles; the account holds only what is left on purpose."""
    conversion = _read(kind)
    for resource in (conversion.patient, *conversion.resources):
        assert [issue for issue in validate(resource) if issue.is_error] == []
    assert {one.kind for one in conversion.unmapped} <= {"left"}
    assert conversion.issues == ()
    assert conversion.patient["identifier"] == [{"system": MBI, "value": "1EG4TE5MK73"}]


@pytest.mark.parametrize("kind", Kind)
def test_the_document_is_built_as_its_templates_ask(kind):
    """US Realm header, document template, the sections that it needs, narrative in each, every reference resolved."""
    root = etree.fromstring(write(BUNDLE, kind))
    prefix = "2.16.840.1.113883.10.20.22."
    roots = {one.get("root").removeprefix(prefix) for one in root.iterchildren(f"{V3}templateId")}
    assert {"1.1"} < roots
    for path in ("realmCode", "typeId", "id", "title", "effectiveTime/@value", "confidentialityCode", "languageCode"):
        assert root.xpath("/".join(f"c:{one}" if one[0] != "@" else one for one in path.split("/")), namespaces=NAMES)
    assert root.find(f"{V3}code").get("code") == kind
    sections = root.findall(f".//{V3}section")
    found = {one.get("root").removeprefix(prefix) for section in sections for one in section.findall(f"{V3}templateId")}
    assert NEEDED[kind] <= found
    assert all("".join(section.find(f"{V3}text").itertext()).strip() for section in sections)
    anchors = {node.get("ID") for node in root.iter() if node.get("ID")}
    references = {node.get("value") for node in root.iter(f"{V3}reference")}
    assert {one.removeprefix("#") for one in references} <= anchors


@pytest.mark.parametrize("kind", Kind)
def test_children_stand_in_the_order_of_the_schema(kind):
    """CDA's schema is a sequence: a receiver that validates refuses any other order."""
    for node in etree.fromstring(write(BUNDLE, kind)).iter(f"{V3}*"):
        order = ORDER.get(node.tag.removeprefix(V3), "").split()
        places = [order.index(child.tag.removeprefix(V3)) for child in node if order and child.tag.startswith(V3)]
        assert places == sorted(places), node.tag


@pytest.mark.parametrize("kind", Kind)
def test_the_same_update_gives_the_same_bytes(kind):
    """No clock and no chance: ids follow from the update's own."""
    assert write(BUNDLE, kind) == write(BUNDLE, kind)
    other = BUNDLE | {"identifier": {"system": SYSTEM, "value": "u2"}}
    assert write(BUNDLE, kind) != write(other, kind)


def test_a_later_update_names_the_earlier_by_the_id_that_it_had():
    """relatedDocument of one is the id of the other."""
    earlier = write(BUNDLE | {"identifier": {"system": SYSTEM, "value": "u0"}}, Kind.CARE_PLAN)
    own = etree.fromstring(earlier).find(f"{V3}id").get("root")
    later = etree.fromstring(write(BUNDLE, Kind.CARE_PLAN))
    assert later.find(f"{V3}relatedDocument/{V3}parentDocument/{V3}id").get("root") == own


def test_needed_sections_without_data_say_so():
    """nullFlavor NI and a line in words, never an invented entry."""
    kept = ("Composition", "Patient")
    bare = BUNDLE | {"entry": [one for one in BUNDLE["entry"] if one["resource"]["resourceType"] in kept]}
    for kind in Kind:
        root = etree.fromstring(write(bare, kind))
        assert [one for one in root.iter(f"{V3}section") if one.get("nullFlavor") == "NI"]
        assert not root.findall(f".//{V3}entry")


def _places(value, path=()):
    """The path of each element under a resource."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from _places(part, (*path, key))


@pytest.mark.parametrize("kind", Kind)
def test_any_element_may_be_missing(kind):
    """What is stored came from anywhere: an update without one of its optional elements is written all the same."""
    for path in list(_places(HELD)):
        if len(path) > 1 and path[1] != "resourceType":
            held = copy.deepcopy(HELD)
            holder = held
            for step in path[:-1]:
                holder = holder[step]
            del holder[path[-1]]
            assert write(BUNDLE | {"entry": [{"resource": one} for one in held]}, kind)


def test_a_bundle_without_patient_is_refused():
    """Nothing can be written about nobody."""
    with pytest.raises(ValueError, match="no Composition or no Patient"):
        write({"resourceType": "Bundle", "entry": []}, Kind.CARE_PLAN)
