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
    "assignedAuthor": "id code addr telecom assignedPerson assignedAuthoringDevice representedOrganization",
    "assignedAuthoringDevice": "manufacturerModelName softwareName",
    "assignedEntity": "id addr telecom assignedPerson",
    "author": "time assignedAuthor",
    "intendedRecipient": "id addr telecom informationRecipient",
    "manufacturedProduct": "templateId manufacturedMaterial manufacturedLabeledDrug",
    "observationRange": "text value",
    "performer": "functionCode assignedEntity",
    "representedCustodianOrganization": "id name telecom addr",
    "section": "templateId code title text entry",
    "observation": "templateId id code text statusCode effectiveTime value interpretationCode author participant "
    "entryRelationship referenceRange",
    "act": "templateId id code text statusCode effectiveTime author entryRelationship",
    "organizer": "templateId id code statusCode effectiveTime component",
    "substanceAdministration": "templateId id code text statusCode effectiveTime routeCode doseQuantity consumable "
    "author entryRelationship",
    "serviceEvent": "templateId effectiveTime performer",
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


def _with(*changed, without=()):
    """The update with these resources in the place of those of the same type and id, and without some types."""
    places = {(one["resourceType"], one["id"]): one for one in [*HELD, *changed]}
    kept = [one for one in places.values() if one["resourceType"] not in without]
    return BUNDLE | {"entry": [{"resource": one} for one in kept]}


def _held(kind):
    return copy.deepcopy(next(one for one in HELD if one["resourceType"] == kind))


def _root(bundle, kind):
    return etree.fromstring(write(bundle, kind))


def _all(root, path):
    return root.xpath(path, namespaces=NAMES)


def _entries(root, template):
    return _all(root, f"//c:templateId[@root='2.16.840.1.113883.10.20.22.{template}']/..")


UNDATED = (
    "1.1", "1.9", "2.1.1", "2.3.1", "2.4.1", "2.5.1", "2.6.1", "2.10", "4.1", "4.2", "4.3", "4.4", "4.16", "4.23",
    "4.26", "4.27", "4.39",
)  # fmt: skip


@pytest.mark.parametrize("kind", Kind)
def test_templates_that_r11_had_stand_undated_as_well(kind):
    """C-CDA R2.1, compatibility: a dated template of R1.1's has its undated one beside it."""
    for node in _root(BUNDLE, kind).iter(f"{V3}*"):
        found = node.findall(f"{V3}templateId")
        dated = {one.get("root") for one in found if one.get("extension")}
        undated = {one.get("root") for one in found if not one.get("extension")}
        older = {f"2.16.840.1.113883.10.20.22.{one}" for one in UNDATED} | {"1.3.6.1.4.1.19376.1.5.3.1.3.1"}
        assert dated & older <= undated


def test_a_result_organizer_has_both_ends_of_its_time():
    """CONF:1198-32488 and -32489: low and high, of one moment the same."""
    times = _entries(_root(BUNDLE, Kind.REFERRAL_NOTE), "4.1")[0].find(f"{V3}effectiveTime")
    assert [one.get("value") for one in times] == ["20260801080000-0400"] * 2


def test_a_medication_says_its_interval_its_dose_and_its_words():
    """CONF:1098-7508 (IVL_TS by xsi:type), -7516 (a dose, if not known), 81-32755 (words by reference)."""
    root = _root(BUNDLE, Kind.REFERRAL_NOTE)
    activity = _entries(root, "4.16")[0]
    assert activity.find(f"{V3}effectiveTime").get("{http://www.w3.org/2001/XMLSchema-instance}type") == "IVL_TS"
    assert activity.find(f"{V3}doseQuantity").get("nullFlavor") == "UNK"
    named = _entries(root, "4.147")[0].find(f"{V3}text/{V3}reference").get("value").removeprefix("#")
    assert _all(root, f"//c:content[@ID='{named}']")[0].text == "One a day"


def test_a_proposed_medication_is_no_medication_activity():
    """C-CDA R2.1, 4.16: the mood is EVN or INT."""
    proposed = _held("MedicationRequest") | {"intent": "proposal"}
    assert _entries(_root(_with(proposed), Kind.REFERRAL_NOTE), "4.16") == []


@pytest.mark.parametrize(
    ("author", "wanted"), [("Organization/o", "assignedAuthoringDevice"), ("Device/none", "assignedPerson")]
)
def test_an_author_that_is_no_person_is_whole_all_the_same(author, wanted):
    """CONF:1198-5428, -5452, -16790: addr, telecom, and a person or a device."""
    composition = _held("Composition") | {"author": [{"reference": author}]}
    role = _root(_with(composition), Kind.CARE_PLAN).find(f"{V3}author/{V3}assignedAuthor")
    parts = {child.tag.removeprefix(V3) for child in role}
    assert {"id", "addr", "telecom", wanted} <= parts
    assert len({"assignedPerson", "assignedAuthoringDevice"} & parts) == 1


@pytest.mark.parametrize("known", [0, 1, 2])
def test_a_referral_note_has_one_recipient(known):
    """CONF:1198-31589 to -31594: exactly one, with a name and a telecom; the first practitioner, or nobody known."""
    doctors = [_held("Practitioner") | {"id": f"d{index}"} for index in range(known)]
    patient = _held("Patient") | {
        "generalPractitioner": [{"reference": f"Practitioner/d{one}"} for one in range(known)]
    }
    found = _all(_root(_with(patient, *doctors), Kind.REFERRAL_NOTE), "/c:ClinicalDocument/c:informationRecipient")
    assert len(found) == 1
    assert _all(found[0], "c:intendedRecipient[c:telecom]/c:informationRecipient/c:name")
    assert (
        len(_all(_root(_with(patient, *doctors), Kind.CARE_PLAN), "/c:ClinicalDocument/c:informationRecipient"))
        == known
    )


@pytest.mark.parametrize("kind", Kind)
def test_the_service_has_a_performer_and_both_ends(kind):
    """CONF:1198-31905 and -10066: a person who performs it, if not known, and a high, if not known."""
    event = _root(_with(without=("CarePlan",)), kind).find(f"{V3}documentationOf/{V3}serviceEvent")
    assert _all(event, "c:templateId[@root='2.16.840.1.113883.10.20.21.3.1']")
    assert _all(event, "c:performer/c:assignedEntity/c:assignedPerson/c:name")
    assert [one.get("nullFlavor") for one in event.find(f"{V3}effectiveTime")] == ["UNK", "UNK"]


def test_a_progress_note_has_a_time_of_its_encounter():
    """CONF:1198-7598: at least a day; the encounter itself is not applicable."""
    encounter = _root(BUNDLE, Kind.PROGRESS_NOTE).find(f"{V3}componentOf/{V3}encompassingEncounter")
    assert encounter.get("nullFlavor") == "NA"
    assert encounter.find(f"{V3}effectiveTime/{V3}low").get("value") == "20260820183000-0400"


@pytest.mark.parametrize("kind", [Kind.CARE_PLAN, Kind.PROGRESS_NOTE])
def test_only_what_is_active_is_a_planned_act(kind):
    """CONF:1098-32019: a planned act is active; a request that is not stands in the narrative alone."""
    root = _root(_with(_held("ServiceRequest") | {"status": "completed"}), kind)
    assert _entries(root, "4.39") == []
    assert "completed" in [cell.text for cell in root.iter(f"{V3}td")]


def test_an_intervention_names_its_goal_or_is_the_plan_alone():
    """CONF:1198-32673: a planned intervention act points at a goal; without one the planned act stands by itself."""
    section = _all(_root(_with(without=("Goal",)), Kind.CARE_PLAN), "//c:section[c:code/@code='62387-6']")[0]
    assert _all(section, "c:entry/c:act/c:templateId/@root")[0].endswith("4.39")
    assert _entries(_root(BUNDLE, Kind.CARE_PLAN), "4.146")


@pytest.mark.parametrize(
    "value",
    [
        {"valueQuantity": {"value": Decimal("69"), "unit": "inches"}},
        {"valueQuantity": _quantity("200", "mm[Hg]", comparator=">")},
        {"valueQuantity": _quantity("2", "1")},
        {"valueString": "refused"},
        {"dataAbsentReason": {"text": "refused"}},
    ],
)
def test_a_vital_sign_that_is_no_quantity_is_told_as_a_result(value):
    """CONF:1098-7305 and -31579: a vital sign is a PQ with a UCUM unit; anything else keeps its value as a result."""
    root = _root(_with(_observation("bp", "vital-signs", "8302-2", "2026-08-19", **value)), Kind.REFERRAL_NOTE)
    assert _entries(root, "4.27") == []
    assert "8302-2" in {one.find(f"{V3}code").get("code") for one in _entries(root, "4.2")}


def test_every_observation_has_a_value():
    """CONF:1198-7143: that there is none is said."""
    bare = _observation("a1c", "laboratory", "4548-4", "2026-08-01")
    value = _entries(_root(_with(bare), Kind.REFERRAL_NOTE), "4.2")[0].find(f"{V3}value")
    assert value.get("nullFlavor") == "NI"


def test_a_concern_that_is_over_has_an_end():
    """CONF:1198-10085: high of a completed concern, if not known."""
    over = _held("Condition") | {
        "clinicalStatus": _concept("http://terminology.hl7.org/CodeSystem/condition-clinical", "resolved")
    }
    times = _entries(_root(_with(over), Kind.REFERRAL_NOTE), "4.3")[0].find(f"{V3}effectiveTime")
    assert [one.get("value") or one.get("nullFlavor") for one in times] == ["20240105", "UNK"]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ([], [{"name": "UNK"}]),
        ([{"text": "Ada Quill"}], [{"given": "UNK", "family": "Ada Quill"}]),
        ([{"family": "Quill"}], [{"given": "UNK", "family": "Quill"}]),
        ([{"given": ["Ada"]}], [{"given": "Ada", "family": "UNK"}]),
    ],
)
def test_a_patients_name_has_its_parts(names, wanted):
    """CONF:1198-5284, 81-7157 and -7159: a given and a family name, told as unknown where the record has none."""
    found = _all(_root(_with(_held("Patient") | {"name": names}), Kind.CARE_PLAN), "//c:patient/c:name")
    told = [
        {one.tag.removeprefix(V3): one.text or one.get("nullFlavor") for one in (list(name) or [name])}
        for name in found
    ]
    assert told == wanted


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ({"city": "Yuma"}, ["UNK", "Yuma", "UNK", "UNK"]),
        ({"text": "1 Elm St, Yuma"}, ["1 Elm St, Yuma", "UNK", "UNK", "UNK"]),
        ({"line": ["1 Elm St"], "city": "Hull", "country": "GBR"}, ["1 Elm St", "Hull", "GBR"]),
        ({"line": list("abcde"), "city": "Yuma", "state": "AZ"}, ["a", "b", "c", "d, e", "Yuma", "AZ", "UNK"]),
    ],
)  # fmt: skip
def test_an_address_is_whole(address, wanted):
    """CONF:81-7291, -7292, -10024, -10025: one to four lines, city, and in the USA state and postal code."""
    root = _root(_with(_held("Patient") | {"address": [address]}), Kind.CARE_PLAN)
    found = _all(root, "//c:patientRole/c:addr/*")
    assert [one.text or one.get("nullFlavor") for one in found] == wanted
