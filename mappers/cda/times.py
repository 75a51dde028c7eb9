"""CDA times (TS, IVL_TS) to FHIR dates, with the precision that they have and never with an offset from nowhere.

Source: HL7 V3 Data Types R1 ITS, TS; FHIR R4, dateTime; C-CDA on FHIR 2.0.0, Mapping Guidance (dates). A time without
an offset takes that of the header's effectiveTime, else that of the sender's configured zone, else it is cut.
"""

from typing import Any

from mappers.cda.context import Document
from mappers.cda.node import Node
from mappers.cda.paths import child, qualified
from mappers.converters import compact_time

_LOW, _HIGH, _CENTRE = qualified("low"), qualified("high"), qualified("center")
_BAD = "This is no time as CDA writes it (YYYYMMDDHHMMSS and an offset such as -0500): the element is left out."
_DECIDED = {
    "default": "A time without an offset took the offset of the document's own effectiveTime.",
    "time-zone": "A time without an offset took the offset of the sender's configured zone.",
    "cut": "A time without a usable offset, or with hours only, was cut to its date.",
}


def moment(written: str, document: Document) -> str | None:
    """A TS value as a FHIR dateTime; a bad one is a warning and None."""
    stamp = compact_time(written, document.offset, document.source.time_zone)
    if stamp is None:
        document.warn("value", _BAD)
        return None
    if stamp.zone:
        document.once(_DECIDED[stamp.zone])
    return stamp.text


def point(node: Node, document: Document) -> str | None:
    """TS (or an IVL_TS with @value) -> dateTime."""
    written = node.get("value")
    return moment(written, document) if written else None


def date_of(node: Node, document: Document) -> str | None:
    """TS -> date: the day, whatever the clock says."""
    found = point(node, document)
    return found[:10] if found else None


def instant_of(node: Node, document: Document) -> str | None:
    """TS -> instant; None when it is not known to the second with an offset."""
    found = point(node, document)
    return found if found and "T" in found else None


def bounds(node: Node, document: Document) -> dict[str, str]:
    """IVL_TS -> Period: `start` and `end`, each only when it is a time; ordered, else a warning and only the start."""
    low = high = None
    for one in node[:]:
        if one.tag == _LOW and low is None:
            low = one
        elif one.tag == _HIGH and high is None:
            high = one
    period = {}
    if low is not None and (found := point(low, document)):
        period["start"] = found
    if high is not None and (found := point(high, document)):
        period["end"] = found
    if len(period) == 2 and period["end"][:10] < period["start"][:10][: len(period["end"][:10])]:
        document.warn("value", "The interval ends before it starts: its end is left out.")
        del period["end"]
    return period


def time_of(node: Node, document: Document) -> tuple[str, Any] | None:
    """effectiveTime -> effective[x]: a single time, an instant written as an interval, or a Period."""
    written = node.get("value")
    single = (moment(written, document) if written else None) or _centre(node, document)
    if single:
        return "DateTime", single
    period = bounds(node, document)
    if not period:
        return None
    if "start" in period and period.get("end", period["start"]) == period["start"]:
        return "DateTime", period["start"]
    return "Period", period


def _centre(node: Node, document: Document) -> str | None:
    centre = child(node, _CENTRE) if len(node) else None
    return point(centre, document) if centre is not None else None


def earliest(node: Node, document: Document) -> str | None:
    """The single time or the low of an interval."""
    found = time_of(node, document)
    if found is None:
        return None
    result: str | None = found[1] if found[0] == "DateTime" else found[1].get("start")
    return result
