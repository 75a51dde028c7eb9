"""Tables become one pass over the children, which is the loss account as well."""

import pytest

from mappers.cda.compiled import compile_table
from mappers.cda.context import Document
from mappers.cda.datatypes import CONVERTERS
from mappers.cda.parse import read
from mappers.conversion import Source

ROOT = (
    '<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    "<observation>{}</observation></ClinicalDocument>"
)
CODE = {"from": "code", "to": "code", "datatype": "CD[CodeableConcept]"}


def _apply(rows, inner, keep=()):
    root, _ = read(ROOT.format(inner).encode())
    document = Document(root, Source("0" * 64, "2026-01-01T00:00:00Z"))
    resource = {}
    kept = compile_table(rows, CONVERTERS, keep=keep).apply(root[0], resource, document)
    return resource, kept, [(one.kind, one.location.rpartition("/")[2]) for one in document.unmapped]


def test_what_no_row_reaches_is_booked_in_the_same_pass():
    """A child with a value is `unknown`; one that is only a nullFlavor says nothing."""
    inner = '<code code="1-8"/><specimen><id root="1.2"/></specimen><methodCode nullFlavor="UNK"/>'
    resource, _, booked = _apply([CODE], inner)
    assert resource == {"code": {"coding": [{"code": "1-8"}]}}
    assert booked == [("unknown", "specimen")]


def test_the_first_is_taken_and_the_second_is_booked():
    """A target with room for one value never loses the other in silence; one with room for all takes all."""
    resource, _, booked = _apply([CODE], '<code code="1-8"/><code code="2-6"/>')
    assert resource["code"]["coding"][0]["code"] == "1-8"
    assert booked == [("left", "code[2]")]
    many = [{"from": "id", "to": "identifier[]", "datatype": "II[Identifier]"}]
    resource, _, booked = _apply(many, '<id root="1.2" extension="a"/><id root="1.2" extension="b"/>')
    assert ([one["value"] for one in resource["identifier"]], booked) == (["a", "b"], [])


def test_a_value_of_which_nothing_can_be_made_is_booked():
    """An element that says something but not what the row wants is `bad`."""
    rows = [{"from": "effectiveTime", "to": "effective[x]", "datatype": "IVL_TS[effective]"}]
    assert _apply(rows, '<effectiveTime value="soon"/>')[2] == [("bad", "effectiveTime")]
    assert _apply(rows, '<effectiveTime nullFlavor="UNK"/>')[2] == []


def test_a_row_left_on_purpose_is_booked_with_its_reason():
    """`left` in a table is `left` in the account."""
    assert _apply([{"from": "code", "left": "because"}], '<code code="1-8"/>')[2] == [("left", "code")]


def test_kept_children_come_back_by_their_path():
    """What a reader handles itself is neither written nor booked."""
    inner = (
        '<author><time value="20260101"/></author><entryRelationship typeCode="RSON"><act><id root="1.2"/></act>'
        '</entryRelationship><entryRelationship typeCode="REFR"><act><id root="1.3"/></act></entryRelationship>'
    )
    _, kept, booked = _apply([], inner, keep=("author", "entryRelationship[@typeCode='RSON']"))
    assert [len(one) for one in kept.values()] == [1, 1]
    assert booked == [("unknown", "act")]


@pytest.mark.parametrize(("code", "found"), [("33999-4", "active"), ("48767-8", None)])
def test_a_relation_is_found_by_the_code_inside(code, found):
    """`entryRelationship/observation[code/@code='..']`: the code decides, whatever the relation's type."""
    rows = [{"from": "entryRelationship/observation[code/@code='33999-4']/value/@code", "to": "status"}]
    inner = f'<entryRelationship typeCode="REFR"><observation><code code="{code}"/><value code="active"/></observation>'
    resource, _, booked = _apply(rows, inner + "</entryRelationship>")
    assert resource.get("status") == found
    assert bool(booked) is (found is None)


def test_conditions_constants_and_further_values_work_as_in_the_engine():
    """Rows of a user may hold what docs/mapping.md says: `when`, `value`, `with`."""
    rows = [
        {"from": "code/@code", "to": "status", "value": "final", "when": {"statusCode/@code": ["completed"]}},
        {"from": "statusCode", "left": "read by the condition"},
        {"from": "code", "left": "read by the other row"},
    ]
    assert _apply(rows, '<code code="1-8"/><statusCode code="completed"/>')[0] == {"status": "final"}
    assert _apply(rows, '<code code="1-8"/><statusCode code="active"/>')[0] == {}


@pytest.mark.parametrize(
    "row", [{"from": "a[1]/b", "to": "x"}, {"from": "a", "to": "x", "datatype": "none"}, {"from": "a", "too": "x"}]
)
def test_a_wrong_row_fails_when_it_is_compiled(row):
    """Not with a patient's document."""
    with pytest.raises((ValueError, KeyError)):
        compile_table([row], CONVERTERS)


@pytest.mark.parametrize("late", [{}, {"when": {"statusCode/@code": ["completed"]}}])
def test_what_is_written_into_is_the_resources_own(late):
    """A code is one object for all resources that have it: a row that writes inside it changes no other document."""
    inside = {"from": "title/@code", "to": "code.text", **late}
    inner = '<code code="1-8"/><statusCode code="completed"/><title code="ours"/>'
    changed, _, _ = _apply([CODE, inside], inner)
    other, _, _ = _apply([CODE], inner)
    assert changed["code"] == {"coding": [{"code": "1-8"}], "text": "ours"}
    assert other["code"] == {"coding": [{"code": "1-8"}]}


def test_a_list_of_a_converter_stays_as_it_was():
    """Values are added to a list of the resource's own."""
    given = [{"a": 1}]
    rows = [{"from": name, "to": "note[]", "datatype": "list"} for name in ("code", "value")]
    root, _ = read(ROOT.format('<code code="1"/><value value="2"/>').encode())
    document = Document(root, Source("0" * 64, "2026-01-01T00:00:00Z"))
    resource = {}
    compile_table(rows, {"list": lambda *_: given}).apply(root[0], resource, document)
    assert (resource["note"], given) == ([{"a": 1}, {"a": 1}], [{"a": 1}])
