"""Instruments: known in every form, read, checked, shaped for CMS, scored for PCO (issue 4, instruments)."""

import copy
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappers import cda, hl7v2
from mappers.conversion import Source
from mappers.fhir import convert
from mappers.instruments import administration, catalogue, cms_response, recognise, score_observation
from mappers.report import sections
from profiles import canonical, fhir_json
from profiles.validate import validate

CASES = Path(__file__).parents[1] / "cases" / "instruments"
SOURCE = Source("ab" * 32, "2026-08-20T00:00:00Z")
BASE = "https://facade.example/fhir"
ORDINAL = canonical.ORDINAL_VALUE
# case: measure, linkId of the result, the result, the code of its Observation
EXPECTED = {
    "pco-phq9": ("PHQ-9", "total-score", "5", "44261-6"),
    "pco-gad7": ("GAD-7", "total-score", "3", "70274-6"),
    "whodas": ("WHODAS", "total-score", "24", "WHODAS"),
    "promis-pf-6b": ("PROMIS-PF", "tscore", "36.8", "77866-2"),
    "promis-pf-cat": ("PROMIS-PF-CAT", "tscore", "38.2", "91721-1"),
    "promis-pi-6a": ("PROMIS-PI", "tscore", "58.6", "77865-4"),
    "odi": ("ODI", "score", "38", "97909-6"),
    "quickdash": ("QuickDASH", "score", "31.818", "QuickDASH"),
    "koos-jr": ("KOOS-JR", "total-interval-score", "50.012", "82332-8"),
    "promis-nrs": ("PROMIS-NRS", "nrs-1", "6", "72514-3"),
}


def _case(name: str, **more: Any) -> dict[str, Any]:
    return {"id": f"r-{name}", **fhir_json.parse((CASES / f"{name}.json").read_bytes()), **more}


def _answers(response: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["linkId"]: item["answer"][0] for item in response["item"]}


def _phq9(
    *ordinals: int, total: int | None = None, canonical_url: str = "http://loinc.org/q/44249-1"
) -> dict[str, Any]:
    """Answers as numbers under LOINC's linkIds, as a device or an OBX group has them."""
    codes = [item.code for item in catalogue()["PHQ-9"].scored]
    items = [
        {"linkId": f"/{code}", "answer": [{"valueDecimal": value}]}
        for code, value in zip(codes, ordinals, strict=False)
    ]
    items += [] if total is None else [{"linkId": "/44261-6", "answer": [{"valueDecimal": total}]}]
    return {"resourceType": "QuestionnaireResponse", "id": "q", "questionnaire": canonical_url, "status": "completed",
            "subject": {"reference": "Patient/p"}, "authored": "2026-08-19", "item": items}  # fmt: skip


def _texts(response: dict[str, Any]) -> list[str]:
    read = administration(response)
    assert read is not None
    return [issue.text for issue in read.issues if issue.severity != "information"]


@pytest.mark.parametrize("name", EXPECTED)
def test_each_case_is_known_shaped_and_scored(name: str) -> None:
    """Measure, CMS's linkIds, the result's number and code; response, form and score are valid."""
    measure, link, value, code = EXPECTED[name]
    form = cms_response(_case(name), base_url=BASE)
    assert form.instrument.measure == measure
    answers = _answers(form.response)
    assert list(answers)[0] in {item.link for item in form.instrument.items} or form.instrument.adaptive
    assert answers[link].get("valueDecimal", answers[link].get("valueInteger")) == Decimal(value)
    score, _ = score_observation(_case(name, subject={"reference": "Patient/p"}))
    assert score["code"]["coding"][0]["code"] == code
    assert score["valueQuantity"]["value"] == Decimal(value)
    for resource in (form.response, form.questionnaire, score):
        assert [issue for issue in validate(resource) if issue.is_error] == []


@pytest.mark.parametrize("name", [*EXPECTED, "pgic"])
def test_shaping_twice_changes_nothing_and_the_source_stays(name: str) -> None:
    """The report shapes what the schedule shaped already; the stored response is not touched."""
    response = _case(name)
    before = copy.deepcopy(response)
    once = cms_response(response, base_url=BASE).response
    assert response == before
    assert cms_response(once, base_url=BASE).response == once


def test_each_instrument_has_a_section_of_its_code() -> None:
    """The catalogue and the report's table name the same things by the same codes."""
    rows = {row.measure: (row.system, row.code) for track in ("MSK", "BH") for row in sections(track)}
    assert rows == {one.measure: (one.system, one.code) for one in catalogue().values()}


def test_the_second_question_of_gad_7_has_an_answer_code_of_its_own() -> None:
    """LA18938-3 counts 2; CMS's list has LA6570-1 for it."""
    answer = _answers(cms_response(_case("pco-gad7"), base_url=BASE).response)["gad7-2"]["valueCoding"]
    assert (answer["code"], answer["extension"][0]["valueDecimal"]) == ("LA6570-1", 2)


def test_the_same_answer_code_counts_by_its_list() -> None:
    """LA6568-5 is 0 in PHQ-9, 5 in "limits" of PROMIS, 1 in pain interference."""
    lists = [catalogue()[name].items[-1].answers for name in ("GAD-7", "PROMIS-PF", "PROMIS-PI")]
    assert lists == ["LL358-3", "LL1021-6", "LL1017-4"]
    from mappers.instruments.catalogue import answer_list

    assert [answer_list(one).ordinals["LA6568-5"] for one in lists] == [0, 5, 1]


def test_the_difficulty_of_phq_9_counts_for_nothing() -> None:
    """Item 10 is carried, its number only where it is known."""
    read = administration(_case("pco-phq9"))
    assert (read.answers["phq9-10"].code, read.answers["phq9-10"].counts) == ("LA6575-0", None)
    assert read.counted["total-score"] == 5
    assert [issue for issue in read.issues if issue.severity == "warning"] == []


def test_numbers_become_the_answers_of_a_whole_list() -> None:
    """A 2 in PHQ-9 is LA6570-1: the list has one answer that counts so."""
    answers = _answers(cms_response(_phq9(0, 1, 2, 3, 0, 0, 0, 0, 0), base_url=BASE).response)
    assert [answers[f"phq9-{n}"]["valueCoding"]["code"] for n in (1, 2, 3, 4)] == [
        "LA6568-5", "LA6569-3", "LA6570-1", "LA6571-9",
    ]  # fmt: skip


def test_a_total_that_is_not_the_sum_is_told_and_kept() -> None:
    """Never corrected in silence: CMS and PCO get what the source stated."""
    response = _phq9(1, 1, 1, 0, 0, 0, 0, 0, 0, total=9)
    assert any("is not that of its answers" in text for text in _texts(response))
    assert _answers(cms_response(response, base_url=BASE).response)["total-score"] == {"valueDecimal": 9}
    assert score_observation(response)[0]["valueQuantity"]["value"] == 9


def test_a_missing_total_is_counted_only_of_all_answers() -> None:
    """Nine answers give a sum; eight give none, and an Issue."""
    assert administration(_phq9(*[1] * 9)).counted == {"total-score": 9}
    short = _phq9(*[1] * 8)
    assert administration(short).counted == {}
    assert any("lacks 1 of 9" in text for text in _texts(short))
    assert score_observation(short)[0] is None


def test_quickdash_allows_one_missing_answer() -> None:
    """(sum / n - 1) x 25 of ten answers; of nine none."""
    response = _case("quickdash")
    response["item"] = response["item"][:10]
    assert administration(response).counted["score"] == Decimal("30")
    response["item"] = response["item"][:9]
    assert administration(response).counted == {}


def test_a_score_of_an_owners_table_is_never_made() -> None:
    """Without the T-score there is a warning and no number."""
    response = _case("promis-pi-6a")
    response["item"] = response["item"][:-1]
    assert "tscore" not in _answers(cms_response(response, base_url=BASE).response)
    assert any("tscore" in text for text in _texts(response))
    assert score_observation(response)[0] is None


@pytest.mark.parametrize("value", [4, -1, Decimal("1.5")])
def test_a_number_outside_the_instrument_can_not_be_reported(value: Any) -> None:
    """An error: nothing is shaped."""
    form = cms_response(_phq9(value, 1, 1, 1, 1, 1, 1, 1, 1), base_url=BASE)
    assert form.response is form.questionnaire is None
    assert [issue.location for issue in form.issues if issue.is_error] == ["QuestionnaireResponse.item[0].answer"]


def test_two_answers_to_one_question_can_not_be_reported() -> None:
    """Neither is chosen."""
    response = _phq9(*[1] * 9)
    response["item"].append({"linkId": "44250-9", "answer": [{"valueInteger": 2}]})
    assert cms_response(response, base_url=BASE).response is None


def test_items_in_groups_and_a_contained_form_are_read() -> None:
    """The codes of a contained Questionnaire name its items, however deep they stand."""
    codes = [item.code for item in catalogue()["GAD-7"].items]
    form = {"resourceType": "Questionnaire", "id": "f", "status": "active", "item": [
        {"linkId": f"x{n}", "type": "choice", "code": [{"system": "http://loinc.org", "code": code}]}
        for n, code in enumerate(codes)
    ]}  # fmt: skip
    items = [{"linkId": f"x{n}", "answer": [{"valueInteger": 1}]} for n in range(7)]
    response = {"resourceType": "QuestionnaireResponse", "id": "g", "contained": [form], "questionnaire": "#f",
                "item": [{"linkId": "all", "item": items}]}  # fmt: skip
    assert administration(response).counted == {"total-score": 7}


@pytest.mark.parametrize(
    "response",
    [
        {"questionnaire": "http://loinc.org/q/55758-7", "item": [{"linkId": "/44250-9"}, {"linkId": "/44255-8"}]},
        {"item": [{"linkId": "/44250-9"}, {"linkId": "/44255-8"}]},
        {"item": [{"linkId": "61597-1"}, {"linkId": "61607-8"}]},
        {"item": [{"linkId": "1"}, {"linkId": "total-score"}]},
        {"item": "x", "questionnaire": 5},
        {},
    ],
)
def test_what_can_not_be_told_is_nothing(response: dict[str, Any]) -> None:
    """PHQ-2, a few PROMIS items, somebody's numbered form: none of ours."""
    assert recognise(response) is None


def test_hl7v2_and_cda_are_read_as_fhir_is() -> None:
    """The linkIds that our mappers write, the totals that their senders stated."""
    phq9 = hl7v2.convert((CASES / "oru-phq9.hl7").read_bytes(), SOURCE)
    gad7 = cda.convert((CASES / "gad7.xml").read_bytes(), SOURCE)
    found = {}
    for conversion in (phq9, gad7):
        response = next(one for one in conversion.resources if one["resourceType"] == "QuestionnaireResponse")
        found[recognise(response).measure] = _answers(cms_response(response, base_url=BASE).response)
    assert {name: answers["total-score"] for name, answers in found.items()} == {
        "PHQ-9": {"valueDecimal": 10}, "GAD-7": {"valueDecimal": 10},
    }  # fmt: skip


def test_promis_items_in_obx_rows_become_the_form_that_obr_4_names() -> None:
    """The answers count by their own lists; the T-score is the sender's."""
    message = (CASES / "oru-promis.hl7").read_bytes()
    conversion = hl7v2.convert(message, SOURCE)
    response = next(one for one in conversion.resources if one["resourceType"] == "QuestionnaireResponse")
    answers = _answers(cms_response(response, base_url=BASE).response)
    assert answers["pf6b-3"]["valueCoding"]["extension"][0]["valueDecimal"] == 5
    assert (answers["raw_score"], answers["tscore"]) == ({"valueDecimal": 17}, {"valueDecimal": Decimal("36.8")})
    score = next(one for one in conversion.resources if one["resourceType"] == "Observation")
    assert score["derivedFrom"] == [{"reference": f"QuestionnaireResponse/{response['id']}"}]


def test_a_few_promis_items_without_a_form_stay_observations() -> None:
    """Four items of a bank are no instrument: each stays an Observation, none is lost."""
    rows = (CASES / "oru-promis.hl7").read_bytes().split(b"\r")
    rows[2] = rows[2].replace(b"76804-4^PROMIS short form physical function 6b^LN", b"X1^Questions^L")
    conversion = hl7v2.convert(b"\r".join([*rows[:7], b""]), SOURCE)
    kinds = [one["resourceType"] for one in conversion.resources]
    assert (kinds.count("Observation"), kinds.count("QuestionnaireResponse")) == (4, 0)


def test_a_total_that_a_document_states_wrongly_reaches_cms_as_stated() -> None:
    """The answers make 10, the document says 11: told at the door, and not counted again for CMS."""
    wrong = (CASES / "gad7.xml").read_bytes().replace(b'"INT" value="10"', b'"INT" value="11"')
    conversion = cda.convert(wrong, SOURCE)
    response = next(one for one in conversion.resources if one["resourceType"] == "QuestionnaireResponse")
    assert any("not the sum" in issue.text for issue in conversion.issues)
    assert _answers(cms_response(response, base_url=BASE).response)["total-score"] == {"valueDecimal": 11}


def test_the_copy_for_cms_leads_back_to_the_stored_response() -> None:
    """The source's identifier, or its address here."""
    named = cms_response(_case("odi"), base_url=BASE).response
    assert named["identifier"] == {"system": "urn:example:app:response", "value": "odi"}
    bare = cms_response(_phq9(*[1] * 9), base_url=BASE).response
    assert bare["identifier"] == {"system": f"{BASE}/QuestionnaireResponse", "value": "q"}


def test_no_wording_ships_with_the_instruments() -> None:
    """linkIds, codes and numbers: the questions belong to their owners."""
    form = cms_response(_case("promis-pf-6b"), base_url=BASE)
    assert all("text" not in item for item in (*form.questionnaire["item"], *form.response["item"]))


def test_a_score_that_came_along_is_not_made_twice() -> None:
    """The EHR's own total Observation stands; without it one is derived."""
    response = _case("pco-phq9")
    observation = {"resourceType": "Observation", "status": "final", "subject": response["subject"],
                   "code": {"coding": [{"system": "http://loinc.org", "code": "44261-6"}]},
                   "effectiveDateTime": response["authored"], "valueInteger": 5}  # fmt: skip
    kinds = []
    for extra in ([], [observation]):
        entries = [{"resource": one} for one in (response, *extra)]
        made = convert({"resourceType": "Bundle", "type": "collection", "entry": entries}, SOURCE)
        kinds.append([one["resourceType"] for one in made.resources])
    assert kinds == [["QuestionnaireResponse", "Observation", "Provenance"]] * 2


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 99), st.sampled_from(["phq9-1", "/44250-9", "x", "LA6568-5"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["linkId", "item", "answer", "valueCoding", "valueDecimal", "extension", "code", "url"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=15,
)


@settings(max_examples=200, deadline=None)
@given(JSON, JSON)
def test_any_shape_never_raises(item: Any, contained: Any) -> None:
    """What was stored may be of any shape."""
    for form in ("http://loinc.org/q/44249-1", "http://loinc.org/q/91722-9", "#f"):
        response = {"resourceType": "QuestionnaireResponse", "id": "r", "questionnaire": form, "item": item}
        response["contained"] = contained
        assert score_observation(response)[0] is None or recognise(response)
        assert cms_response(response, base_url=BASE) is None or recognise(response)
