"""Whatever happens to a document on its way, `convert` gives Issues, never an exception, and valid resources."""

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mappers.cda import convert
from mappers.conversion import Source
from profiles import fhir_json
from profiles.validate import validate

SOURCE = Source("ab" * 32, "2026-02-03T04:05:06Z", "America/New_York")
QUIET = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALUES = st.sampled_from(
    [
        "",
        " ",
        "-1",
        "1e400",
        "NaN",
        "1" * 60,
        "2026",
        "99999999",
        "20260230",
        "UNK",
        "true",
        "#p1",
        "urn:oid:1",
        "é\u2028",
        "a  b",
    ]
)


def _check(data: bytes) -> None:
    conversion = convert(data, SOURCE)
    for resource in conversion.resources:
        errors = [issue for issue in validate(fhir_json.parse(fhir_json.dump(resource))) if issue.is_error]
        assert errors == []


@QUIET
@given(st.data())
def test_changed_attributes_still_give_valid_resources(case, data):
    """Any attribute value may be anything; what is mapped stays valid FHIR of the profiles that it claims."""
    text = case(data.draw(st.sampled_from(["clinic-vitals", "care-summary"]))).decode()
    places = [match.span(1) for match in re.finditer(r'(?<!xmlns)(?<!:sdtc)(?<!:xsi)="([^"<>]*)"', text[300:])]
    for start, end in sorted(
        data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=12, unique=True)), reverse=True
    ):
        text = text[: start + 300] + data.draw(VALUES) + text[end + 300 :]
    _check(text.encode())


@QUIET
@given(st.data())
def test_removed_elements_still_give_valid_resources(case, data):
    """Any empty element may be missing."""
    text = case(data.draw(st.sampled_from(["clinic-vitals", "care-summary"]))).decode()
    places = [match.span() for match in re.finditer(r"<[A-Za-z:]+ [^<>]*/>", text)]
    for start, end in sorted(
        data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=25, unique=True)), reverse=True
    ):
        text = text[:start] + text[end:]
    _check(text.encode())


@QUIET
@given(st.data())
def test_exchanged_names_still_give_valid_resources(case, data):
    """Elements where others are expected are booked or ignored, not trusted."""
    text = case("care-summary").decode()
    names = [
        "observation",
        "act",
        "organizer",
        "entryRelationship",
        "value",
        "effectiveTime",
        "code",
        "section",
        "entry",
    ]
    one, other = data.draw(st.permutations(names))[:2]
    swapped = re.sub(rf"(</?){one}(?=[ >/])", r"\1_", text)
    swapped = re.sub(rf"(</?){other}(?=[ >/])", rf"\1{one}", swapped)
    _check(re.sub(r"(</?)_(?=[ >/])", rf"\1{other}", swapped).encode())


@QUIET
@given(st.data())
def test_broken_bytes_never_raise(case, data):
    """Cut, flipped and inserted bytes end in an Issue or in resources."""
    raw = bytearray(case("clinic-vitals"))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    conversion = convert(bytes(raw), SOURCE)
    assert conversion.patient is not None or conversion.issues


@QUIET
@given(st.binary(max_size=200))
def test_any_bytes_never_raise(data):
    """Any bytes at all."""
    assert convert(data, SOURCE).issues
