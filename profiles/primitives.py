"""The primitive types of FHIR R4: one predicate each, true for a well-formed JSON value.

A float is refused: it has already lost digits, so a clinical number must be read with `profiles.fhir_json`.
Source: FHIR R4 4.0.1, Data Types.
"""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

from profiles import narrative

Predicate = Callable[[Any], bool]

_YEAR = r"(?!0000)\d{4}"
_DAY = r"(?:0[1-9]|[12]\d|3[01])"
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?"
_ZONE = r"(?:Z|[+-](?:(?:0\d|1[0-3]):[0-5]\d|14:00))"
_MONTH = r"(?:0[1-9]|1[0-2])"

_is_date = re.compile(rf"{_YEAR}(?:-{_MONTH}(?:-{_DAY})?)?", re.ASCII).fullmatch
_is_date_time = re.compile(rf"{_YEAR}(?:-{_MONTH}(?:-{_DAY}(?:T{_TIME}{_ZONE})?)?)?", re.ASCII).fullmatch
_is_instant = re.compile(rf"{_YEAR}-{_MONTH}-{_DAY}T{_TIME}{_ZONE}", re.ASCII).fullmatch
_is_time = re.compile(_TIME, re.ASCII).fullmatch
_is_id = re.compile(r"[A-Za-z0-9\-.]{1,64}", re.ASCII).fullmatch
_is_oid = re.compile(r"urn:oid:[0-2](?:\.(?:0|[1-9]\d*))+", re.ASCII).fullmatch
_is_uuid = re.compile(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII).fullmatch
_has_control = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]").search
_WHITE = re.compile(r"\s+")
_INT_MAX = 2147483647
_MAX_EXPONENT = 400


def is_string(value: Any) -> bool:
    """Not empty, not only white space, no control character but tab, line feed and carriage return."""
    if type(value) is not str or not value or value.isspace():
        return False
    return value.isprintable() or not _has_control(value)


def is_code(value: Any) -> bool:
    """No white space at the ends, and only single spaces within."""
    if type(value) is not str or not value:
        return False
    return value.isprintable() and (" " not in value or " ".join(value.split()) == value)


def is_uri(value: Any) -> bool:
    """No white space."""
    return type(value) is str and value != "" and value.isprintable() and " " not in value


def is_boolean(value: Any) -> bool:
    """A JSON true or false."""
    return value is True or value is False


def is_decimal(value: Any) -> bool:
    """A JSON number, read exactly."""
    kind = type(value)
    if kind is Decimal:
        return bool(value.is_finite() and -_MAX_EXPONENT < value.adjusted() < _MAX_EXPONENT)
    return kind is int


def is_integer(value: Any) -> bool:
    """A whole number of 32 bits."""
    return type(value) is int and -_INT_MAX - 1 <= value <= _INT_MAX


def is_unsigned_int(value: Any) -> bool:
    """0 to 2,147,483,647."""
    return type(value) is int and 0 <= value <= _INT_MAX


def is_positive_int(value: Any) -> bool:
    """1 to 2,147,483,647."""
    return type(value) is int and 0 < value <= _INT_MAX


def _day_exists(value: str) -> bool:
    if len(value) < 10 or value[8] < "2" or value[8:10] < "29":  # every month has its first 28 days
        return True
    try:
        date.fromisoformat(value[:10])
    except ValueError:
        return False
    return True


def is_date(value: Any) -> bool:
    """A year, a month or a day that exists."""
    return type(value) is str and _is_date(value) is not None and _day_exists(value)


def is_date_time(value: Any) -> bool:
    """A date, or a day with time to the second and zone."""
    return type(value) is str and _is_date_time(value) is not None and _day_exists(value)


def is_instant(value: Any) -> bool:
    """A day with time to the second and zone."""
    return type(value) is str and _is_instant(value) is not None and _day_exists(value)


def is_base64(value: Any) -> bool:
    """Base64 with padding; white space may stand within."""
    if type(value) is not str or not value or not value.isascii():
        return False
    try:
        a2b_base64(value if value.isalnum() else _WHITE.sub("", value), strict_mode=True)
    except Base64Error:
        return False
    return True


def _matching(match: Callable[[str], Any]) -> Predicate:
    return lambda value: type(value) is str and match(value) is not None


PRIMITIVES: dict[str, tuple[Predicate, str]] = {  # name -> predicate, what a value has to be
    "base64Binary": (is_base64, "base64 text"),
    "boolean": (is_boolean, "a JSON true or false"),
    "canonical": (is_uri, "a URL without white space"),
    "code": (is_code, "a code without white space at its ends"),
    "date": (is_date, "a date that exists, YYYY, YYYY-MM or YYYY-MM-DD"),
    "dateTime": (is_date_time, "a date that exists, with a time only if seconds and zone are given"),
    "decimal": (is_decimal, "a JSON number, read as an exact decimal"),
    "id": (_matching(_is_id), "1 to 64 letters, digits, hyphens or dots"),
    "instant": (is_instant, "a date and time that exist, with seconds and zone"),
    "integer": (is_integer, "a JSON whole number of 32 bits"),
    "markdown": (is_string, "text that is not empty"),
    "oid": (_matching(_is_oid), "urn:oid: and an object identifier"),
    "positiveInt": (is_positive_int, "a JSON whole number from 1 on"),
    "string": (is_string, "text that is not empty and has no control characters"),
    "time": (_matching(_is_time), "a time of day, hh:mm:ss"),
    "unsignedInt": (is_unsigned_int, "a JSON whole number from 0 on"),
    "uri": (is_uri, "a URI without white space"),
    "url": (is_uri, "a URL without white space"),
    "uuid": (_matching(_is_uuid), "urn:uuid: and a lower-case UUID"),
    "xhtml": (narrative.is_safe, "one XHTML div with formatting only: no script, event, style sheet or outside link"),
}
