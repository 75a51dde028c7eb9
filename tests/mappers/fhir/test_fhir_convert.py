"""Posted resources are kept as they were posted; only ids and references are made literal."""

import copy
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappers.conversion import Source
from mappers.fhir import convert
from profiles import fhir_json
from profiles.validate import validate

CASE = Path(__file__).parents[2] / "cases" / "fhir" / "home-blood-pressure.json"
SOURCE = Source("ab" * 32, "2026-02-03T04:05:06Z")
MBI = "http://terminology.hl7.org/NamingSystem/cmsMBI"
TOKEN = {"system": MBI, "value": "1EG4TE5MK73"}


@pytest.fixture
def bundle():
    """Two home pressures, their device and their patient, linked by urn:uuid."""
    return fhir_json.parse(CASE.read_bytes())


def _observation(subject=None, **more):
    made = {"resourceType": "Observation", "status": "final", "code": {"text": "steps"}, "valueInteger": 7000}
    return made | ({"subject": subject} if subject else {}) | more


def _bundle(*resources):
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in resources]}


def test_values_times_and_units_are_not_touched(bundle):
    """Digits, fractions of seconds and unit texts are the sender's."""
    posted = bundle["entry"][0]["resource"]
    kept = next(one for one in convert(bundle, SOURCE).resources if "identifier" in one and "component" in one)
    assert kept["component"] == posted["component"]
    assert str(kept["component"][0]["valueQuantity"]["value"]) == "138.0"
    assert kept["effectiveDateTime"] == "2026-01-16T07:31:04.250-05:00"


def test_the_input_is_not_changed(bundle):
    """What was parsed is what is stored as received."""
    before = copy.deepcopy(bundle)
    convert(bundle, SOURCE)
    assert bundle == before


def test_urn_uuid_references_become_literal(bundle):
    """Every reference reads Type/id of a resource of the Conversion."""
    conversion = convert(bundle, SOURCE)
    kinds = [one["resourceType"] for one in conversion.resources]
    assert kinds == ["Observation", "Observation", "Device", "Provenance"]
    first, second, device, provenance = conversion.resources
    assert first["device"]["reference"] == f"Device/{device['id']}"
    assert second["derivedFrom"][0]["reference"] == f"Observation/{first['id']}"
    assert {one["subject"]["reference"] for one in (first, second)} == {f"Patient/{conversion.patient['id']}"}
    assert len(provenance["target"]) == 4
    assert conversion.control_id == "https://gateway.example/batch|b-17"


def test_what_is_made_passes_base_r4(bundle):
    """Resources and Provenance have no error."""
    conversion = convert(bundle, SOURCE)
    for resource in [conversion.patient, *conversion.resources]:
        assert [issue for issue in validate(resource) if issue.is_error] == []


def test_new_temporary_urns_give_the_same_ids(bundle):
    """A gateway makes new urn:uuid each time it sends: the ids follow from identifiers and content."""
    again = fhir_json.parse(CASE.read_bytes().replace(b"3f1c0c8e", b"99999999"))
    first, second = convert(bundle, SOURCE), convert(again, SOURCE)
    assert [one["id"] for one in first.resources] == [one["id"] for one in second.resources]


def test_equal_readings_of_two_people_have_different_ids(bundle):
    """The patient is part of what makes an id: nobody's reading replaces another's."""
    other = fhir_json.parse(CASE.read_bytes().replace(b"1EG4TE5MK73", b"1EG4TE5MK72"))
    ids = [{one["id"] for one in convert(part, SOURCE).resources[:2]} for part in (bundle, other)]
    assert ids[0].isdisjoint(ids[1])


def test_a_posted_id_is_kept():
    """The source's own id stays."""
    conversion = convert(_observation({"reference": "Patient/p"}, id="mine-1"), SOURCE)
    assert conversion.resources[0]["id"] == "mine-1"


def test_equal_resources_in_one_bundle_stay_two():
    """Content that occurs twice is counted, not merged."""
    conversion = convert(
        _bundle(_observation({"reference": "Patient/p"}), _observation({"reference": "Patient/p"})), SOURCE
    )
    assert len({one["id"] for one in conversion.resources}) == 3


def test_a_literal_reference_alone_is_left_to_the_caller():
    """No Patient was sent: the reference is told, nothing is made up."""
    conversion = convert(_observation({"reference": "Patient/p-7"}), SOURCE)
    assert conversion.patient is None
    assert conversion.meta == {"patient": "Patient/p-7"}


def test_a_subject_by_identifier_gives_a_patient_with_only_that():
    """The skeleton holds the identifier; the subject becomes literal and keeps it."""
    conversion = convert(_observation({"identifier": TOKEN}), SOURCE)
    patient = conversion.patient
    assert patient == {"resourceType": "Patient", "id": patient["id"], "identifier": [TOKEN]}
    assert conversion.resources[0]["subject"] == {"reference": f"Patient/{patient['id']}", "identifier": TOKEN}


@pytest.mark.parametrize(
    "subject",
    [
        {"identifier": TOKEN},
        {"reference": f"Patient?identifier={MBI}|1EG4TE5MK73"},
        {"reference": "https://ehr.example/fhir/Patient/9", "identifier": TOKEN},
    ],
)
def test_an_identifier_means_the_patient_of_the_bundle_that_has_it(subject):
    """Logical and conditional references find the posted Patient."""
    patient = {"resourceType": "Patient", "id": "p", "identifier": [TOKEN]}
    conversion = convert(_bundle(_observation(subject), patient), SOURCE)
    assert conversion.patient["id"] == "p"
    assert conversion.resources[0]["subject"]["reference"] == "Patient/p"


def test_a_contained_patient_is_lifted_out():
    """The contained Patient becomes the Patient; it is not left unreferenced inside."""
    contained = {"resourceType": "Patient", "id": "x", "identifier": [TOKEN]}
    conversion = convert(_observation({"reference": "#x"}, contained=[contained]), SOURCE)
    assert conversion.patient["identifier"] == [TOKEN]
    assert conversion.resources[0]["subject"]["reference"] == f"Patient/{conversion.patient['id']}"
    assert "contained" not in conversion.resources[0]


def test_several_patients_in_one_bundle_are_refused_in_plain_words():
    """One Bundle, one patient: the Issue says so."""
    conversion = convert(
        _bundle(_observation({"reference": "Patient/1"}), _observation({"reference": "Patient/2"})), SOURCE
    )
    assert conversion.resources == ()
    assert "several patients are not taken" in conversion.issues[0].text


@pytest.mark.parametrize("subject", [None, {"reference": "https://other.example/Patient/1"}, {"display": "somebody"}])
def test_a_subject_that_nobody_can_find_is_refused(subject):
    """No subject, another server's, or a name alone."""
    conversion = convert(_observation(subject), SOURCE)
    assert conversion.resources == ()
    assert conversion.issues[0].location == "Observation.subject"


def test_an_unknown_urn_is_said_and_kept():
    """A dangling temporary reference is a warning, not a loss."""
    posted = _observation({"reference": "Patient/p"}, performer=[{"reference": "urn:uuid:0"}])
    conversion = convert(posted, SOURCE)
    assert [issue.code for issue in conversion.issues] == ["not-found"]
    assert conversion.resources[0]["performer"] == [{"reference": "urn:uuid:0"}]


def test_entries_without_a_resource_to_keep_are_booked():
    """Deletions, outcomes and nested Bundles are in the account."""
    posted = _bundle(_observation({"reference": "Patient/p"}), {"resourceType": "OperationOutcome"})
    posted["entry"].append({"request": {"method": "DELETE", "url": "Observation/1"}})
    assert [one.kind for one in convert(posted, SOURCE).unmapped] == ["left", "bad"]


def test_provenance_and_meta_source_name_the_bytes(bundle):
    """The URN of the bytes, and the place of each resource in them; a source of its own is kept."""
    bundle["entry"][1]["resource"]["meta"] = {"source": "urn:device:5"}
    conversion = convert(bundle, SOURCE)
    sources = sorted(one["meta"]["source"] for one in conversion.resources if one["resourceType"] == "Observation")
    assert sources == ["urn:device:5", f"urn:sha256:{'ab' * 32}#Bundle.entry[0].resource"]


JSON = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-9, 9),
        st.just(Decimal("1.5")),
        st.sampled_from(["Patient/1", "urn:uuid:1", "#x", ""]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["resourceType", "entry", "resource", "subject", "reference", "identifier", "contained", "meta", "id"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["entry", "subject", "identifier", "contained", "meta", "id", "fullUrl"]), JSON))
def test_any_json_never_raises(posted):
    """Whatever shape the JSON has, the answer is a Conversion."""
    for kind in ("Bundle", "Observation", "Patient", "Device"):
        conversion = convert(posted | {"resourceType": kind}, SOURCE)
        assert conversion.resources or conversion.issues


def _report(**more):
    inside = [
        {"resourceType": "Specimen", "id": "s", "type": {"text": "Blood"}},
        _observation(id="a", specimen={"reference": "#s"}),
        _observation(id="b", derivedFrom=[{"reference": "#a"}], subject={"reference": "Patient/p"}),
    ]
    report = {"resourceType": "DiagnosticReport", "id": "r", "contained": inside, "status": "final"}
    report |= {"code": {"text": "Steps"}, "subject": {"identifier": TOKEN}, "result": [{"reference": "#a"}]}
    return report | more


def _inside(**more):
    report = _report(subject={"reference": "Patient/p"}, **more)
    return [one for one in convert(report, SOURCE).resources if one["resourceType"] == "Observation"]


def test_what_a_report_contains_is_kept_beside_it():
    """Each Observation inside has an address, the report's subject and literal references; the report stays whole."""
    report, first, second, provenance = convert(_report(subject={"reference": "Patient/p"}), SOURCE).resources
    assert report["contained"][1]["id"] == "a"
    assert first["subject"] == {"reference": "Patient/p"}
    assert first["specimen"] == {"type": "Specimen", "display": "Specimen s, contained in DiagnosticReport/r"}
    assert second["derivedFrom"] == [{"reference": f"Observation/{first['id']}"}]
    assert len(provenance["target"]) == 3
    assert [issue for one in (first, second) for issue in validate(one) if issue.is_error] == []


def test_a_report_entered_in_error_takes_its_values_along():
    """What is inside is no result any more."""
    assert {one["status"] for one in _inside(status="entered-in-error")} == {"entered-in-error"}


def test_a_report_is_opened_in_proportion():
    """Many values that share one contained resource do not each carry it."""
    inside = [{"resourceType": "Organization", "id": "o", "name": "x" * 5000}]
    inside += [_observation(id=f"n{n}", performer=[{"reference": "#o"}]) for n in range(300)]
    made = _inside(contained=inside)
    assert len(made) == 300
    assert sum(len(fhir_json.dump(one)) for one in made) < 6 * len(fhir_json.dump({"all": inside}))


@pytest.mark.parametrize("code", [5, "x", {"coding": "x"}, {"coding": [{"system": "http://loinc.org", "code": ["x"]}]}])
def test_a_code_of_any_shape_is_kept_as_sent(code):
    """What is no CodeableConcept is the validator's to refuse, not the mapper's to fall over."""
    made = convert(_bundle(_observation({"identifier": TOKEN}, code=code)), SOURCE)
    assert made.resources[0]["code"] == code
