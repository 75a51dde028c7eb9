"""Instruments: known in every form, read, checked, shaped for CMS, scored for PCO."""

import copy
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappers import cda, hl7v2
from mappers.conversion import Conversion, Source
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


# --- each instrument, from each kind of source -----------------------------------------------------------------------
OBX_HEAD = (
    "MSH|^~\\&|PROMS|CLINIC|FACADE|CARE|20260819091500-0400||ORU^R01^ORU_R01|M1|P|2.5.1",
    "PID|1||1EG4TE5MK73^^^CMS&2.16.840.1.113883.4.927&ISO^MC||Doe^John^^^^^L||19500101|M",
)
TSCORE = "45.5"
MEASURES = tuple(catalogue())


def _questions(measure: str) -> list[tuple[str, str | None, int]]:
    """Each item's linkId of CMS, its LOINC code if it has one, and a number that it may count."""
    one = catalogue()[measure]
    links = [item.link or f"{one.adaptive}{number}" for number, item in enumerate(one.items, start=1)]
    return [(link, item.code, int(item.low) + 1) for link, item in zip(links, one.items, strict=True)]


def _owners(measure: str) -> list[tuple[str, str | None]]:
    """linkId and code of the scores that only an owner's table gives: they have to be sent."""
    return [(score.link, score.code) for score in catalogue()[measure].scores if score.rule == "table"]


def _group(measure: str) -> Conversion:
    """OBR with the instrument's code, an OBX for each item and each owner's score."""
    one = catalogue()[measure]
    system = "LN" if one.system == canonical.LOINC else "L"
    rows = [
        *OBX_HEAD,
        f"OBR|1||P-1^PROMS|{one.code}^^{system}|||20260819090000-0400|||||||||||||||20260819090500-0400|||F",
    ]
    told = [(code or link, "LN" if code else "L", number) for link, code, number in _questions(measure)]
    told += [(code or link, "LN" if code else "L", TSCORE) for link, code in _owners(measure)]
    rows += [f"OBX|{n}|NM|{code}^^{kind}||{value}||||||F" for n, (code, kind, value) in enumerate(told, start=1)]
    return hl7v2.convert("\r".join([*rows, ""]).encode(), SOURCE)


def _scale(measure: str) -> Conversion:
    """The GAD-7 document with this instrument's scale in the place of its own."""
    one = catalogue()[measure]
    whole = (CASES / "gad7.xml").read_text("utf-8")
    start, end = whole.index('<observation classCode="OBS"'), whole.rindex("</observation>") + len("</observation>")
    told = [(link, code, str(number)) for link, code, number in _questions(measure)]
    told += [(link, code, TSCORE) for link, code in _owners(measure)]
    parts = "".join(
        f'<entryRelationship typeCode="COMP">{_observation(code, link, value, n)}</entryRelationship>'
        for n, (link, code, value) in enumerate(told)
    )
    panel = one.code if one.system == canonical.LOINC else None
    scale = _observation(panel, one.code, None, 99, '<templateId root="2.16.840.1.113883.10.20.22.4.69"/>', parts)
    return cda.convert((whole[:start] + scale + whole[end:]).encode(), SOURCE)


def _observation(code: str | None, link: str, value: str | None, number: int, head: str = "", parts: str = "") -> str:
    system = "2.16.840.1.113883.6.1" if code else "2.16.840.1.113883.3.9999.1"
    stated = f'<value xsi:type="REAL" value="{value}"/>' if value else ""
    return (
        f'<observation classCode="OBS" moodCode="EVN">{head}<id root="2.25.77" extension="{number}"/>'
        f'<code code="{code or link}" codeSystem="{system}"/><statusCode code="completed"/>'
        f'<effectiveTime value="20260818103000-0400"/>{stated}{parts}</observation>'
    )


def _posted(measure: str) -> Conversion:
    """A QuestionnaireResponse under CMS's linkIds."""
    items = [{"linkId": link, "answer": [{"valueInteger": number}]} for link, _, number in _questions(measure)]
    items += [{"linkId": link, "answer": [{"valueDecimal": Decimal(TSCORE)}]} for link, _ in _owners(measure)]
    if catalogue()[measure].adaptive:
        answers = [item for item in items if item["linkId"] != "tscore"]
        for item in answers:
            item["answer"] = [{"valueCoding": {"extension": [{"url": ORDINAL, "valueDecimal": 2}], "display": "x"}}]
    response = {"resourceType": "QuestionnaireResponse", "id": "q", "status": "completed", "authored": "2026-08-19"}
    response |= {"questionnaire": "https://forms.example/1", "subject": {"reference": "Patient/p"}, "item": items}
    return convert(response, SOURCE)


@pytest.mark.parametrize("source", [_posted, _group, _scale])
@pytest.mark.parametrize("measure", MEASURES)
def test_each_instrument_of_each_source_reaches_cms_and_is_scored(measure: str, source: Any) -> None:
    """All items under CMS's linkIds with a number, its form beside it, and the score derived from the response."""
    conversion = source(measure)
    response = next(one for one in conversion.resources if one["resourceType"] == "QuestionnaireResponse")
    form = cms_response(response, base_url=BASE)
    assert form.instrument.measure == measure
    links = [link for link, _, _ in _questions(measure)]
    assert list(_answers(form.response))[: len(links)] == links
    assert [item["linkId"] for item in form.questionnaire["item"]][: len(links)] == links
    scored = [one for one in conversion.resources if "derivedFrom" in one]
    scored = [one for one in scored if "pco-prom-score-observation" in one["meta"]["profile"][0]]
    assert len(scored) == (0 if measure == "PGIC" else 1)
    assert {one["derivedFrom"][0]["reference"] for one in scored} <= {f"QuestionnaireResponse/{response['id']}"}
    for resource in (*conversion.resources, form.response, form.questionnaire):
        assert [issue for issue in validate(resource) if issue.is_error] == []
    assert [issue for issue in conversion.issues if issue.is_error] == []


def _rows(panel: str, *rows: str) -> Conversion:
    obr = f"OBR|1||P-1^PROMS|{panel}|||20260819090000-0400|||||||||||||||20260819090500-0400|||F"
    return hl7v2.convert("\r".join([*OBX_HEAD, obr, *rows, ""]).encode(), SOURCE)


def _numbered(measure: str, *, start: int = 1) -> list[str]:
    told = enumerate(_questions(measure), start=start)
    return [f"OBX|{n}|NM|{code or link}^^{'LN' if code else 'L'}||{value}||||||F" for n, (link, code, value) in told]


def _kinds(conversion: Conversion) -> list[str]:
    return [one["resourceType"] for one in conversion.resources]


def test_two_instruments_under_one_order_are_two_responses() -> None:
    """A battery: each answer goes to its own instrument, whatever OBR-4 says; each has its score."""
    rows = [*_numbered("PHQ-9"), *_numbered("GAD-7", start=11)]
    for panel in ("X1^Intake^L", "44249-1^PHQ-9^LN"):
        found = _rows(panel, *rows).resources
        measures = [recognise(one).measure for one in found if one["resourceType"] == "QuestionnaireResponse"]
        assert sorted(measures) == ["GAD-7", "PHQ-9"]
        codes = [one["code"]["coding"][0]["code"] for one in found if one["resourceType"] == "Observation"]
        assert sorted(codes) == ["44261-6", "70274-6"]


def test_two_questions_of_phq_9_are_no_phq_9() -> None:
    """PHQ-2 has a panel of its own and is none of ACCESS's: its answers stay Observations."""
    rows = [row for row in _numbered("PHQ-9") if "44250-9" in row or "44255-8" in row]
    for panel in ("55758-7^PHQ-2^LN", "X1^Questions^L"):
        assert "QuestionnaireResponse" not in _kinds(_rows(panel, *rows))
        assert _kinds(_rows(panel, *rows)).count("Observation") == 2


def test_a_note_on_an_answer_is_kept_with_the_answer() -> None:
    """A response has no place for it: the answer is an Observation as well, derived from the response."""
    first, *rest = _numbered("GAD-7")
    found = _rows("69737-5^^LN", first, "NTE|1||Asked twice", *rest).resources
    noted = [one for one in found if "note" in one]
    assert [one["note"] for one in noted] == [[{"text": "Asked twice"}]]
    assert noted[0]["derivedFrom"][0]["reference"].startswith("QuestionnaireResponse/")


def test_what_an_answer_has_no_place_for_is_in_the_account() -> None:
    """Flags, observers and another time than the response's are told."""
    first, second, *rest = _numbered("GAD-7")
    other = second.replace("||||||F", "|||H|||F|||20260818090000-0400")
    told = {one.location for one in _rows("69737-5^^LN", first, other, *rest).unmapped if one.kind == "left"}
    assert {"OBX[2]-8", "OBX[2]-14"} <= told


def test_an_adaptive_test_keeps_every_answer() -> None:
    """Its questions vary from patient to patient: those that no table lists are answers, too."""
    rows = ("OBX|1|CWE|61600-1^^LN||LA13918-0^^LN||||||F", "OBX|2|CWE|61597-1^^LN||LA13920-6^^LN||||||F")
    conversion = _rows("91722-9^^LN", *rows, "OBX|3|NM|91721-1^^LN||38.2||||||F")
    response = next(one for one in conversion.resources if one["resourceType"] == "QuestionnaireResponse")
    assert [item["linkId"] for item in response["item"]] == ["/61600-1", "/61597-1", "/91721-1"]


@pytest.mark.parametrize("measure", ["WHODAS", "ODI"])
def test_a_total_without_a_loinc_code_is_checked_as_well(measure: str) -> None:
    """It is kept as sent, reaches CMS as sent, and a person is told."""
    score = catalogue()[measure].score
    row = f"OBX|99|NM|{score.code or score.link}^^{'LN' if score.code else 'L'}||3||||||F"
    conversion = _rows(f"{catalogue()[measure].code}^^L", *_numbered(measure), row)
    assert [issue.code for issue in conversion.issues if issue.severity == "warning"] == ["business-rule"]
    response = next(one for one in conversion.resources if one["resourceType"] == "QuestionnaireResponse")
    assert _answers(cms_response(response, base_url=BASE).response)[score.link] == {"valueDecimal": 3}
