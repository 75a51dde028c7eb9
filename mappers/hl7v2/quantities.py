"""Numbers, units and ranges: NM, SN, NR, OBX-6 and OBX-7 as Quantity, Range and Ratio.

A number keeps the digits of the source. A unit is UCUM only where it is right; nothing is converted here.
Source: HL7 v2-to-FHIR 1.0.0, NM, SN, NR and OBX maps; UCUM 2.1.
"""

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from mappers.codesystems import system_of_name, ucum
from mappers.converters import decimal
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.datatypes import choice, lines, text
from mappers.hl7v2.dialect import components
from mappers.hl7v2.parse import unescape
from profiles import canonical


@lru_cache(4096)
def unit(raw: str) -> Mapping[str, str]:
    """The unit part of a Quantity from OBX-6: unit, and system and code if it is UCUM. Shared: copy, never change.

    A sender's own claim of UCUM is believed unless the code is a known misspelling or can not be UCUM; a bare unit is
    UCUM if we know it. Anything else is text.
    """
    parts = components(raw)
    own, display, name = (unescape(part).strip() for part in parts[:3])
    words = display or own
    found = ucum(own) if name in ("", "UCUM") or system_of_name(name) == canonical.UCUM else None
    if found is None and own and name and system_of_name(name) == canonical.UCUM and own.isascii() and " " not in own:
        found = own
    if found is None:
        return {"unit": words} if words else {}
    return {"unit": words, "system": canonical.UCUM, "code": found}


def quantity(number: Decimal, raw_unit: str, comparator: str = "") -> dict[str, Any]:
    """A Quantity with the source's number and unit."""
    units = unit(raw_unit) if raw_unit else {}
    return {"value": number, "comparator": comparator, **units} if comparator else {"value": number, **units}


_SHORT = 300  # characters; a longer range is prose and is not kept in memory
_COMPARATORS = ("<=", ">=", "<", ">")


def _warn_unit(context: MessageContext) -> None:
    context.warn("code-invalid", "The unit is not UCUM as we know it and was kept as text. Send UCUM.", path="OBX-6")


def nm(value: str, context: MessageContext, raw_unit: str) -> tuple[str, Any] | None:
    """NM as Quantity. `<15`, which NM does not allow, keeps its comparator, with a warning; other text is no number."""
    number = decimal(value)
    units = unit(raw_unit) if raw_unit else {}
    if raw_unit and "code" not in units:
        _warn_unit(context)
    if number is not None:
        return "Quantity", {"value": number, **units}
    stripped = unescape(value).strip()
    for comparator in _COMPARATORS:
        if stripped.startswith(comparator):
            number = decimal(stripped[len(comparator) :])
            if number is not None:
                context.warn("value", "A number of type NM carries a comparator. It was kept; send it as SN.")
                return "Quantity", quantity(number, raw_unit, comparator)
    context.error("value", "The value is of type NM but is no number; no value was taken. Send a number, or type ST.")
    return None


def sn(value: str, context: MessageContext, raw_unit: str) -> tuple[str, Any] | None:
    """SN as Quantity, Range, Ratio or string."""
    comparator, first, separator, second = (unescape(part).strip() for part in components(value)[:4])
    low, high = decimal(first), decimal(second)
    if raw_unit and "code" not in unit(raw_unit):
        _warn_unit(context)
    if separator in (":", "/") and low is not None and high is not None:
        return "Ratio", {"numerator": {"value": low}, "denominator": {"value": high}}
    if separator == "-" and low is not None and high is not None:
        return "Range", {"low": quantity(low, raw_unit), "high": quantity(high, raw_unit)}
    if separator in ("+", "-", ":", "/") or comparator not in ("", "=", *_COMPARATORS):
        return ("String", f"{comparator}{first}{separator}{second}") if first or second else None
    if low is None:
        context.error(
            "value", "The value is of type SN but SN.2 is no number; no value was taken. Send a number there."
        )
        return None
    if second:
        context.warn("value", "SN.4 has no meaning beside this separator and was not used. Use `-`, `:` or `/`.")
    return "Quantity", quantity(low, raw_unit, comparator.replace("=", "") if comparator == "=" else comparator)


def numeric_range(value: str, context: MessageContext, raw_unit: str) -> tuple[str, Any] | None:
    """NR as Range."""
    ends = dict(zip(("low", "high"), map(decimal, components(value)[:2]), strict=True))
    made = {name: quantity(number, raw_unit) for name, number in ends.items() if number is not None}
    if not made:
        context.error("value", "The value is of type NR but holds no number; no value was taken.")
    return ("Range", made) if made else None


def untyped(value: str, context: MessageContext, raw_unit: str) -> tuple[str, Any] | None:
    """A value without OBX-2: a number if it is one, else a string, and an Issue."""
    context.warn("required", "OBX-2 is empty, so the type of the value was guessed. Send the type.")
    number = decimal(value)
    return ("Quantity", quantity(number, raw_unit)) if number is not None else choice("String", lines)(value, context)


@lru_cache(4096)
def _range(written: str, raw_unit: str) -> dict[str, Any] | None:
    """The range, one object for all that say the same; None if it holds brackets and blanks only."""
    if not any(map(str.isalnum, written)):
        return None
    words = written.strip()
    for separator in (" to ", " - ", "-", "\u2013"):
        low, found, high = words.partition(separator)
        ends = (decimal(low), decimal(high)) if found else (None, None)
        if ends[0] is not None and ends[1] is not None and ends[0] <= ends[1]:
            return {"low": quantity(ends[0], raw_unit), "high": quantity(ends[1], raw_unit), "text": words}
    return {"text": words}


def reference_range(value: str, context: MessageContext, raw_unit: str) -> dict[str, Any] | None:
    """OBX-7: always the text; low and high for two numbers only: FHIR's limits are inclusive and `<130` is not."""
    words = text(value, context) if "\\" in value else value
    if not words:
        return None
    return _range(words, raw_unit) if len(words) + len(raw_unit) <= _SHORT else _range.__wrapped__(words, raw_unit)
