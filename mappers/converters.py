"""The few named functions that mapping tables and mappers share: ids, decimals, times, references.

Each is pure, total and small. Numbers are Decimal and keep the digits of the source; times keep its precision.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from profiles import canonical

SEPARATOR = "\x1f"  # can not occur in a part: mappers strip control characters
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)")
_STAMP = re.compile(
    r"(?P<year>\d{4})(?:(?P<month>\d\d)(?:(?P<day>\d\d)(?:(?P<hour>\d\d)(?:(?P<minute>\d\d)(?:(?P<second>\d\d)"
    r"(?P<fraction>\.\d{1,9})?)?)?)?)?)?(?P<offset>[+-]\d{4}|Z)?",
    re.ASCII,
)
_MBI = re.compile(canonical.MBI_PATTERN)


def resource_id(*parts: str) -> str:
    """A FHIR id (32 hex characters) from the parts of an identity: the same parts always give the same id.

    Put the resource type first, so that no two types share an id.
    """
    return sha256(SEPARATOR.join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def reference(resource_type: str, logical_id: str) -> dict[str, str]:
    """A relative reference: `{"reference": "Patient/123"}`."""
    return {"reference": f"{resource_type}/{logical_id}"}


def decimal(text: str) -> Decimal | None:
    """A number as written, or None if it is not one. `+69.50` is 69.50, `0065.88` is 65.88, blanks around are dropped.

    Never more than 40 characters: a longer "number" is no measurement, and no decimal that FHIR JSON readers keep.
    """
    text = text.strip()
    if len(text) > 40 or not _DECIMAL.fullmatch(text):
        return None
    return Decimal(text)


def integer(text: str) -> int | None:
    """A whole number of at most nine digits, or None."""
    text = text.strip()
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,9}", text) else None


def concept(system: str, code: str, display: str | None = None) -> dict[str, Any]:
    """A CodeableConcept with one coding."""
    coding = {"system": system, "code": code}
    if display:
        coding["display"] = display
    return {"coding": [coding]}


def is_mbi(value: str) -> bool:
    """Whether the value fits CMS's public MBI format (11 characters, no dashes)."""
    return _MBI.fullmatch(value) is not None


@lru_cache(4096)
def is_npi(value: str) -> bool:
    """Whether the value is ten digits with a right check digit (Luhn over 80840 and the number)."""
    if not re.fullmatch(r"[0-9]{10}", value):
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in value[-2::-2])
    plain = (int(digit) for digit in value[-1::-2])
    return (24 + sum(doubled) + sum(plain)) % 10 == 0


def without_empty(values: Iterable[Any]) -> list[Any]:
    """The values that are there."""
    return [value for value in values if value not in (None, "", [], {})]


@dataclass(frozen=True, slots=True)
class Stamp:
    """A time as FHIR writes it. `zone` says where the offset came from."""

    text: str  # date, or dateTime with offset; the precision of the source
    zone: str  # "" (date only, or the source's own offset), "default", "time-zone", "cut" (time dropped)

    @property
    def is_instant(self) -> bool:
        """Whether it has seconds and an offset, as `instant` wants."""
        return len(self.text) > 19


@lru_cache(8192)
def compact_time(written: str, default_offset: str | None, time_zone: str | None) -> Stamp | None:
    """`YYYY[MM[DD[HHMM[SS[.S]]]]][+/-ZZZZ]` (HL7 v2 DTM, CDA TS) as a FHIR date or dateTime; None if it is no time.

    A time without offset takes `default_offset` (`-0400`), else that of the IANA `time_zone` on that day, else it is
    cut to its date; hours without minutes are cut as well, since FHIR has no such precision and none is invented.
    Source: HL7 v2.9 chapter 2A DTM; FHIR R4 dateTime.
    """
    match = _STAMP.fullmatch(written.strip())
    if match is None or not _is_date(match):
        return None
    day = "-".join(part for part in match.group("year", "month", "day") if part)
    if match["hour"] is None:
        return Stamp(day, "")
    clock = f"{match['hour']}:{match['minute'] or '00'}:{match['second'] or '00'}"
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)", clock):
        return None
    if match["minute"] is None:
        return Stamp(day, "cut")
    offset, zone = _offset(match, default_offset, time_zone)
    if zone == "bad":
        return None
    return Stamp(f"{day}T{clock}{match['fraction'] or ''}{offset}", zone) if offset else Stamp(day, "cut")


def _is_date(match: re.Match[str]) -> bool:
    try:
        date(int(match["year"]), int(match["month"] or 1), int(match["day"] or 1))
    except ValueError:
        return False
    return True


def _offset(match: re.Match[str], default_offset: str | None, time_zone: str | None) -> tuple[str | None, str]:
    own = match["offset"]
    if own:
        written = written_offset(own)
        return written, "" if written else "bad"
    if default_offset:
        return written_offset(default_offset), "default"
    return _zone_offset(match, time_zone), "time-zone"


def written_offset(compact: str) -> str | None:
    """`-0400` as `-04:00`, `Z` as it is; None if no place on earth has it."""
    if compact == "Z":
        return compact
    hours, minutes = int(compact[1:3]), int(compact[3:5])
    return f"{compact[:3]}:{compact[3:]}" if hours < 14 and minutes < 60 or (hours, minutes) == (14, 0) else None


def _zone_offset(match: re.Match[str], time_zone: str | None) -> str | None:
    """The zone's offset at that local time; None if unknown, or if that hour occurs twice or not at all (DST)."""
    zone = _zone(time_zone) if time_zone else None
    if zone is None:
        return None
    local = datetime(*(int(part or 0) for part in match.group("year", "month", "day", "hour", "minute")))  # type: ignore[arg-type]
    offsets = {local.replace(tzinfo=zone, fold=fold).strftime("%z") for fold in (0, 1)}
    return written_offset(offsets.pop()[:5]) if len(offsets) == 1 else None


@cache
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
