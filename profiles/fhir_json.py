"""FHIR JSON in and out: exact decimals, and nothing that two readers could understand differently.

`parse` reads with msgspec and then checks, at C speed, what msgspec lets pass. Each check is a cheap test that can not
miss the defect; when it fires, a slower exact walk decides and finds the place:

- a repeated key: msgspec keeps the last. Compact input without one is equal to the re-encoding of its value. Else the
  re-encoding holds fewer colons than the input (colons inside strings are equal on both sides, unless one is written as
  an escape, which sends us to the walk);
- null: its spelling occurs in the re-encoding;
- {} and []: their brackets are neighbours in the re-encoding, and stay so when all but brackets, quotes and what units
  such as `mm[Hg]` have between brackets is taken out of it;
- depth: few brackets, or no line that is indented further than the limit; in a long text, the innermost pairs of
  brackets are taken out, level by level, as often as the limit allows.

Source: FHIR R4 4.0.1, JSON Representation of Resources; RFC 8259.
"""

import json
import re
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

import msgspec

from profiles.issue import Issue, error

MAX_DEPTH = 64
_MAX_EXPONENT = 400
_BOM = b"\xef\xbb\xbf"
_AS_ONE = bytes.maketrans(b"{}[]", b"()()")  # in well-formed JSON, what opens is closed by its own kind
_NOT_MARKS = bytes(set(range(256)) - set(b'{}[]"_ABCDEFGHIJKLMNOPQRSTUVWXYZ'))
_TOO_FAR_IN = b"\n" + b" " * (MAX_DEPTH + 1)  # a text holds no line feed, only its escape
_TOO_MANY = b"(" * (MAX_DEPTH + 1)
_SHORT = 65_536  # bytes
_NOT_BRACKETS = bytes(set(range(256)) - set(b'{}[]"'))
_remove_texts = partial(re.compile(rb'"[^"]*"').sub, b"")
_ELEMENT_NAME = re.compile(r"_?[A-Za-z][A-Za-z0-9]{0,63}")


class BadJson(Exception):
    """The bytes are no FHIR JSON; `issue` says where and why, without any value of the input."""

    def __init__(self, issue: Issue) -> None:
        super().__init__(issue.text)
        self.issue = issue


class _NumberTooLarge(ValueError):
    """A number whose exponent is beyond any clinical value."""


def _number(text: str) -> Decimal:
    value = Decimal(text)
    if not -_MAX_EXPONENT < value.adjusted() < _MAX_EXPONENT:
        raise _NumberTooLarge
    return value


_decode = msgspec.json.Decoder(float_hook=_number).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode


def parse(data: bytes) -> dict[str, Any]:
    """One JSON object, its decimals exact (`Decimal`, trailing zeros kept), its whole numbers `int`.

    Raises: BadJson (code `structure` or `too-long`): not UTF-8, byte order mark, malformed, NaN, lone surrogate,
    number beyond 10^400, not an object, repeated key, null outside a primitive's array, empty array or object,
    nested deeper than 64.
    """
    value = _decoded(data)
    if type(value) is not dict:
        raise _bad("", "A FHIR resource is one JSON object; send { ... } and nothing around it.")
    compact = _encode(value)
    if compact != data and not _as_many_colons(compact, data):
        _refuse_repeated_keys(data)
    marks = compact.translate(_AS_ONE, _NOT_MARKS)
    # rfind, because CPython finds a short needle from the right in half the time
    if compact.rfind(b"null") >= 0 or (marks.rfind(b"()") >= 0 and (b"[]" in compact or b"{}" in compact)):
        _refuse_empty(value)
    if marks.count(b"(") > MAX_DEPTH and _is_too_deep(compact):
        raise _bad("", f"The JSON is nested too deeply; {MAX_DEPTH} levels are the limit.", "too-long")
    return value


def _is_too_deep(compact: bytes) -> bool:
    """A short text is looked at indented; a long one not, as the copy of one that is deep would be immense."""
    if len(compact) < _SHORT:
        return _TOO_FAR_IN in msgspec.json.format(compact, indent=1)
    if b"\\" in compact:
        compact = compact.replace(b"\\\\", b"").replace(b'\\"', b"")
    levels = _remove_texts(compact.translate(_AS_ONE, _NOT_BRACKETS))
    for _ in range(MAX_DEPTH):
        levels = levels.replace(b"()", b"")
        if not levels or _TOO_MANY in levels:
            break
    return bool(levels)


def _as_many_colons(compact: bytes, data: bytes) -> bool:
    hides_colons = b"\\" in data and b"\\u003a" in data.lower()
    return compact.count(b":") == data.count(b":") and not hides_colons


def dump(value: Any) -> bytes:
    """Compact JSON of plain FHIR data; decimals are written with the digits they hold."""
    return _encode(value)


def _decoded(data: bytes) -> Any:
    try:
        return _decode(data)
    except UnicodeDecodeError:
        reason = "The body is not valid UTF-8; encode JSON as UTF-8."
    except RecursionError:
        reason = f"The JSON is nested too deeply; {MAX_DEPTH} levels are the limit."
    except (_NumberTooLarge, InvalidOperation, msgspec.ValidationError):
        reason = "A number is out of range; a FHIR decimal has at most 18 digits."
    except msgspec.DecodeError as caught:
        reason = _malformed(data, str(caught))
    raise _bad("", reason) from None  # the cause may hold the input


def _malformed(data: bytes, message: str) -> str:
    if data.startswith(_BOM):
        return "The body starts with a byte order mark; send JSON as UTF-8 without one."
    if not data.strip():
        return "The body is empty; send one FHIR resource as JSON."
    if "surrogate" in message:
        return "A string holds half of a surrogate pair; send each character whole."
    position = re.search(r"byte (\d+)", message)
    at = f" at byte {position[1]}" if position else " near its end"
    return f"The body is not well-formed JSON{at}; correct the syntax (NaN and Infinity are no JSON)."


def _bad(location: str, text: str, code: str = "structure") -> BadJson:
    return BadJson(error(code, location, text))


# --- Exact walks, reached only when a cheap test fired --------------------------------------------------------------


class _Repeated(dict[str, Any]):
    """An object of the input that has `key` twice."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    seen: set[str] = set()
    repeated = _Repeated(value)
    repeated.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return repeated


def _refuse_repeated_keys(data: bytes) -> None:
    try:
        value = json.loads(data, object_pairs_hook=_object, parse_float=str, parse_int=str)
    except RecursionError:
        raise _bad("", f"The JSON is nested too deeply; {MAX_DEPTH} levels are the limit.") from None
    for path, item, _ in _walk(value):
        if isinstance(item, _Repeated):
            raise _bad(_child(path, item.key), "A property occurs twice in one object; keep one of them.")


def _refuse_empty(value: dict[str, Any]) -> None:
    for path, item, null_allowed in _walk(value):
        if item is None and not null_allowed:
            raise _bad(path, "null is no value in FHIR; leave the property out.")
        if item in ([], {}) and isinstance(item, (list, dict)):
            raise _bad(path, "An empty array or object is no value in FHIR; leave the property out.")


def _walk(root: Any) -> Any:
    """Yields (location, value, null allowed here) in document order, without recursion."""
    name = root.get("resourceType") if isinstance(root, dict) else None
    stack: list[tuple[str, Any, bool]] = [(_child("", name) if isinstance(name, str) else "", root, False)]
    while stack:
        path, value, null_allowed = stack.pop()
        yield path, value, null_allowed
        children: list[tuple[str, Any, bool]] = []
        if isinstance(value, dict):
            children = [(_child(path, key), item, False) for key, item in value.items() if not _primitive_array(item)]
            children += _primitive_items(path, value)
        elif isinstance(value, list):
            children = [(f"{path}[{index}]", item, False) for index, item in enumerate(value)]
        stack.extend(reversed(children))


def _primitive_array(value: Any) -> bool:
    return isinstance(value, list) and None in value


def _primitive_items(path: str, value: dict[str, Any]) -> list[tuple[str, Any, bool]]:
    """Items of the arrays that hold null: legal when the array has its `_name` companion, or is one."""
    found = []
    for key, item in value.items():
        if _primitive_array(item):
            allowed = key.startswith("_") or f"_{key}" in value
            found += [(f"{_child(path, key)}[{index}]", each, allowed) for index, each in enumerate(item)]
    return found


def _child(path: str, key: str) -> str:
    name = key if _ELEMENT_NAME.fullmatch(key) else "%unnamed"  # a key that is no element name may hold anything
    return f"{path}.{name}" if path else name
