"""FHIR JSON is read exactly, and refused where two readers could understand it differently."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles import fhir_json
from profiles.fhir_json import MAX_DEPTH, BadJson, dump, parse


def nested(levels: int) -> bytes:
    """An object of so many levels."""
    return b'{"a":' + b"[" * (levels - 1) + b"1" + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize("number", ["1.50", "0.10", "5.40", "1E+2", "-0.0", "123456789012345678.90", "7.000"])
def test_decimals_keep_their_digits(number: str) -> None:
    """A decimal comes out with the digits it went in with, beyond a double too."""
    body = f'{{"value":{number}}}'.encode()
    assert parse(body)["value"] == Decimal(number)
    assert dump(parse(body)) == body


def test_whole_numbers_stay_whole() -> None:
    """A number without a point is an int, at any length."""
    assert parse(b'{"value":12345678901234567890123}')["value"] == 12345678901234567890123


REFUSED = {
    "repeated key": (b'{"resourceType":"Patient","name":[{"family":"a","family":"b"}]}', "Patient.name[0].family"),
    "repeated key in a dropped value": (b'{"a":{"b":1,"b":2},"a":{"b":1}}', "a"),
    "repeated key in escapes": (b'{"ab":1,"a\\u0062":2}', "ab"),
    "repeated key hidden by an escaped colon": (b'{"a":1,"a":"\\u003a"}', "a"),
    "repeated key hidden by two escaped colons": (b'{"x":"\\u003A\\u003A","a":1,"a":2,"b":3,"b":4}', "a"),
    "null": (b'{"resourceType":"Patient","active":null}', "Patient.active"),
    "null without a companion": (b'{"given":["a",null]}', "given[1]"),
    "null in an extension": (b'{"_given":[{"id":null}]}', "_given[0].id"),
    "empty array": (b'{"name":[{"given":[]}]}', "name[0].given"),
    "empty object": (b'{"name":[{}]}', "name[0]"),
    "nothing in it": (b"{}", ""),
    "array": (b"[]", ""),
    "text": (b'"x"', ""),
    "byte order mark": (b'\xef\xbb\xbf{"a":1}', ""),
    "Latin-1": ('{"a":"ü"}'.encode("latin-1"), ""),
    "encoded surrogate": (b'{"a":"\xed\xa0\x80"}', ""),
    "lone surrogate": (b'{"a":"\\ud800x"}', ""),
    "NaN": (b'{"a":NaN}', ""),
    "infinity": (b'{"a":-Infinity}', ""),
    "trailing comma": (b'{"a":1,}', ""),
    "two values": (b'{"a":1}{"a":1}', ""),
    "empty": (b"", ""),
    "cut off": (b'{"a":"b', ""),
    "vast exponent": (b'{"a":1e999999999}', ""),
    "unreadable exponent": (b'{"a":1e99999999999999999999}', ""),
    "endless whole number": (b'{"a":' + b"9" * 5000 + b"}", ""),
    "one level too deep": (nested(MAX_DEPTH + 1), ""),
    "far too deep": (nested(100_000), ""),
    "depth hidden by brackets in texts": (b'{"a":' + b'["]",' * 200 + b"1" + b',"["]' * 200 + b"}", ""),
    "depth hidden by escaped quotes": (b'{"a":' + b'["\\"]",' * 200 + b"1" + b',"[\\""]' * 200 + b"}", ""),
    "depth hidden by escaped backslashes": (b'{"a":' + b'["\\\\]",' * 200 + b"1" + b',"[\\\\"]' * 200 + b"}", ""),
    "control character": (b'{"a":"\x01"}', ""),
    "a key that is no name": (b'{"Ada Example":1,"Ada Example":2}', "%unnamed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_has_a_place(name: str) -> None:
    """Each defect is a BadJson whose issue names the place and says a whole sentence."""
    body, location = REFUSED[name]
    with pytest.raises(BadJson) as caught:
        parse(body)
    assert caught.value.issue.location == location
    assert caught.value.issue.text.endswith(".")
    assert caught.value.issue.is_error
    assert caught.value.__cause__ is None


ACCEPTED = {
    "null beside a companion": b'{"given":["a",null],"_given":[null,{"id":"1"}]}',
    "words of the grammar in a text": b'{"text":"null [] {} \\": :"}',
    "escaped colon": b'{"a":"\\u003a"}',
    "the deepest": nested(MAX_DEPTH),
    "a pair of surrogates": b'{"a":"\\ud83d\\ude00"}',
    "brackets in texts": b'{"a":"' + b"[" * 500 + b'"}',
    "brackets in many texts": b'{"a":[' + b'"]","mm[Hg]","{","{}",' * 80 + b'["x"]]}',
    "many values side by side": b'{"a":[' + b'{"b":["\\"","c"]},' * 200 + b"1]}",
    "escaped quotes": b'{"a":"\\"[]\\" \\\\"}',
    "white space": b' { "a" : 1 } ',
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_only_looks_bad_is_read(name: str) -> None:
    """The cheap tests fire on these, and the exact walk lets them pass."""
    assert parse(ACCEPTED[name])


KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
LEAVES = st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, min_size=1, max_size=4) | st.dictionaries(KEYS, inner, min_size=1, max_size=4)
)


@settings(max_examples=150)
@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=5))
def test_what_is_written_is_read_back(value: dict[str, object]) -> None:
    """dump and parse are inverse on every value that FHIR JSON can hold."""
    assert parse(dump(value)) == value


@settings(max_examples=150)
@given(st.binary(max_size=60))
def test_bytes_give_a_value_or_a_reason(body: bytes) -> None:
    """Whatever bytes come, there is an object or a BadJson."""
    try:
        assert isinstance(parse(body), dict)
    except BadJson:
        return


@pytest.mark.parametrize("name", ACCEPTED)
def test_long_and_short_texts_are_read_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read when it is short is read when it is long."""
    monkeypatch.setattr(fhir_json, "_SHORT", 0)
    assert parse(ACCEPTED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_long_and_short_texts_are_refused_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused when it is short is refused when it is long, with the same place."""
    monkeypatch.setattr(fhir_json, "_SHORT", 0)
    with pytest.raises(BadJson) as caught:
        parse(REFUSED[name][0])
    assert caught.value.issue.location == REFUSED[name][1]


def test_a_long_text_is_too_deep_by_one_level() -> None:
    """The limit is the same in a text of 200 KB, brackets in its strings or not."""
    wide = b",".join([b'{"a":["]}\\"["]}'] * 15_000)
    inner = (MAX_DEPTH - 3, MAX_DEPTH - 2)
    fits, deep = (b'{"a":' + b"[" * n + wide + b"]" * n + b"}" for n in inner)
    assert parse(fits)
    with pytest.raises(BadJson, match="nested too deeply"):
        parse(deep)
