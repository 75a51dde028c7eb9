"""The HL7 v2 datatypes: named functions that table rows call, and the datatype tables made of rows.

Each converter takes the raw text of one repetition and the context, and gives FHIR JSON or None. What it can not read
it reports and leaves out. Coded fields, units and times are memoised by their raw text; names, addresses, identifiers
and prose never are.
Source: HL7 v2-to-FHIR 1.0.0, datatype maps; HL7 v2.9 chapter 2A.
"""

from functools import lru_cache
from typing import Any

from mappers.codesystems import code_map, system_of_name
from mappers.converters import integer
from mappers.engine import Converter
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.dialect import components, repetitions
from mappers.hl7v2.parse import has_unknown_escape, unescape
from profiles import canonical
from profiles.issue import Severity

_MEMO_LIMIT = 300  # characters; a longer coded field is prose and is not kept in memory
OMB_RACES = frozenset({"1002-5", "2028-9", "2054-5", "2076-8", "2106-3"})
OMB_ETHNICITIES = frozenset({"2135-2", "2186-5"})
_RACE_SYSTEMS = frozenset({"", "CDCREC", "HL70005", "HL70189", canonical.CDC_RACE})


def text(value: str, context: MessageContext) -> str | None:
    """A leaf as text: unescaped, without blanks around."""
    if "\\" in value:
        if has_unknown_escape(value):
            context.warn("value", "An escape sequence is not known and was kept as text. Use those of HL7 chapter 2.7.")
        value = unescape(value)
    return value.strip() or None


def lines(value: str, context: MessageContext) -> str | None:
    """A field of text whose repetitions are lines."""
    return text("\n".join(repetitions(value)), context)


def street(value: str, context: MessageContext) -> str | None:
    """SAD as one line: the address as written, else the street's number and name."""
    if "&" not in value:
        return text(value, context)
    written, name, number = ([*value.split("&"), "", ""])[:3]
    return text(written or f"{number} {name}", context)


def code(value: str, _context: MessageContext) -> str | None:
    """The first component as a code, blanks folded."""
    return value if value.isalnum() else " ".join(unescape(value.partition("^")[0]).split()) or None


def boolean(value: str, context: MessageContext) -> bool | None:
    """Y or N."""
    found = {"Y": True, "N": False}.get(value.strip())
    if found is None:
        context.warn("value", "The field is neither Y nor N and was left out. Send a code of table 0136.")
    return found


def whole_number(value: str, context: MessageContext) -> int | None:
    """A positive whole number."""
    found = integer(value)
    if found is None or found < 1:
        context.warn("value", "The field is no positive whole number and was left out.")
        return None
    return found


# --- times ---------------------------------------------------------------------------------------------------------
def date_time(value: str, context: MessageContext) -> str | None:
    """DTM or TS as dateTime, in the precision of the source."""
    known = context.times.get(value)
    if known is not None:
        return known
    stamp = context.time(value.partition("^")[0])
    if stamp is None:
        return None
    context.times[value] = stamp.text
    return stamp.text


def date_only(value: str, context: MessageContext) -> str | None:
    """DTM as date: the day as the sender wrote it, whatever the offset."""
    stamp = context.time(value.partition("^")[0].strip()[:8])
    return stamp.text if stamp else None


def instant(value: str, context: MessageContext) -> str | None:
    """DTM as instant; without seconds or offset there is none."""
    written = value.partition("^")[0].strip()
    stamp = context.time(written)
    if stamp and stamp.is_instant and len(written) >= 14:
        return stamp.text
    if stamp:
        words = "The time has no seconds or no offset, which its FHIR element demands; it was left out. Send both."
        context.report(Severity.INFORMATION, "value", words)
    return None


def long_date_time(value: str, context: MessageContext) -> str | None:
    """A birth time: only what is longer than a date."""
    return date_time(value, context) if len(value.partition("^")[0].strip()) > 8 else None


def time_of_day(value: str, context: MessageContext) -> str | None:
    """TM as time; the offset and the fraction are dropped, since FHIR's time has none."""
    stamp = context.time("20000101" + value.strip().partition("+")[0].partition("-")[0].partition(".")[0] + "Z")
    return stamp.text[11:19] if stamp and len(stamp.text) > 10 else None


# --- codes ---------------------------------------------------------------------------------------------------------
Coded = tuple[tuple[dict[str, str], ...], str, bool]  # codings (shared: never changed), text, is a system unknown


def _read_coded(raw: str) -> Coded:
    parts = components(raw)
    codings = []
    odd = False
    for start, version in ((0, 6), (3, 7), (9, 12)):
        value = " ".join(unescape(parts[start]).split())
        if not value:
            continue
        name = parts[start + 2].strip()
        system = system_of_name(name) if name else None
        odd |= bool(name) and system is None and name != "L" and not name.startswith("99")
        codings.append(_coding(system, value, unescape(parts[start + 1]).strip(), unescape(parts[version]).strip()))
    words = unescape(parts[8]).strip() or ("" if codings else unescape(parts[1]).strip())
    return tuple(codings), words, odd


_coded_memo = lru_cache(8192)(_read_coded)


def coded(raw: str) -> Coded:
    """The codings of a CE, CWE or CNE, its text, and whether a code system's name is unknown."""
    return _coded_memo(raw) if len(raw) <= _MEMO_LIMIT else _read_coded(raw)


def codeable_concept(value: str, context: MessageContext) -> dict[str, Any] | None:
    """CE, CWE, CNE as CodeableConcept: triplets 1, 4 and 10 are codings, CWE.9 the text."""
    codings, words, odd = coded(value)
    if odd:
        context.warn(
            "code-invalid", "The coding system's name is not known; the code was kept without system. Use table 0396."
        )
    made: dict[str, Any] = {}
    if codings:
        made["coding"] = list(codings)
    if words:
        made["text"] = words
    return made or None


@lru_cache(8192)
def _whole(raw: str) -> tuple[dict[str, Any] | None, bool]:
    codings, words, odd = _read_coded(raw)
    made: dict[str, Any] = {"coding": list(codings)} if codings else {}
    if words:
        made["text"] = words
    return made or None, odd


def shared_concept(value: str, context: MessageContext) -> dict[str, Any] | None:
    """As `codeable_concept`, one object for all that say the same: for elements that no other row writes into."""
    if len(value) <= _MEMO_LIMIT:
        known, odd = _whole(value)
        if not odd:
            return known
    return codeable_concept(value, context)


def coding(value: str, context: MessageContext) -> dict[str, Any] | None:
    """The first coding alone."""
    made = codeable_concept(value, context)
    return made["coding"][0] if made and "coding" in made else None


def _coding(system: str | None, value: str, display: str, version: str) -> dict[str, str]:
    made = {"code": value} if system is None else {"system": system, "code": value}
    if version and system is not None:
        made["version"] = version
    if display:
        made["display"] = display
    return made


_FLAGS = code_map("v2-0078")


@lru_cache(1024)
def _flag(value: str) -> dict[str, Any] | None:
    known = _FLAGS.coding(value) or _FLAGS.coding(value.partition("^")[0].strip())
    return None if known is None else {"coding": [known]}


def interpretation(value: str, context: MessageContext) -> dict[str, Any] | None:
    """Table 0078 as v3-ObservationInterpretation; another code is kept as text."""
    known = _flag(value) if len(value) <= _MEMO_LIMIT else None
    if known is not None:
        return known
    written = value.partition("^")[0].strip()
    made = codeable_concept(value, context)
    context.warn("code-invalid", "The abnormal flag is not in the concept map v2-0078 and was kept as it is.")
    return made if "^" in value else {"text": written} if written else None


def coded_by(name: str) -> Converter:
    """A converter for a coded field whose codes a ConceptMap translates; other codes stay with their own system."""
    codes = code_map(name)

    def convert(value: str, context: MessageContext) -> dict[str, Any] | None:
        known = codes.coding(value.partition("^")[0].strip())
        if known is not None:
            return {"coding": [known]}
        words = text(value, context)
        return codeable_concept(value, context) if "^" in value else {"text": words} if words else None

    return convert


def coded_only(name: str) -> Converter:
    """A converter for a field that FHIR binds to what a ConceptMap gives: no other code gets in."""
    codes = code_map(name)

    def convert(value: str, context: MessageContext) -> dict[str, Any] | None:
        known = codes.coding(value.partition("^")[0].strip())
        if known is None:
            words = f"The code is not in the concept map {name} and was left out. Add it there, or correct it."
            context.warn("code-invalid", words)
        return {"coding": [known]} if known else None

    return convert


def class_coding(value: str, context: MessageContext) -> dict[str, Any] | None:
    """PV1-2 as Encounter.class."""
    known = code_map("v2-0004").coding(value.partition("^")[0].strip())
    return known or coding(value, context)


def in_table(system: str) -> Converter:
    """A converter for an ID or IS field: its code, in the HL7 table's own system when the sender names none."""

    def convert(value: str, context: MessageContext) -> dict[str, Any] | None:
        made = codeable_concept(value, context)
        if made and "coding" in made and not value.partition("^")[2].strip("^"):
            made["coding"] = [{"system": system, **made["coding"][0]}]
        return made

    return convert


def lenient(name: str) -> Converter:
    """A converter by ConceptMap without a warning: the field also holds codes that FHIR says elsewhere, or never."""
    targets = code_map(name).targets
    return lambda value, _context: targets.get(value.strip())


def demographic(url: str, top: frozenset[str]) -> Converter:
    """PID-10 and PID-22 with all repetitions as us-core-race and us-core-ethnicity; other codings give text alone."""

    @lru_cache(1024)
    def read(value: str) -> dict[str, Any] | None:
        parts: list[dict[str, Any]] = []
        words: list[str] = []
        for repetition in repetitions(value):
            own, display, name = (unescape(part).strip() for part in components(repetition)[:3])
            words.append(display or own)
            if own and name in _RACE_SYSTEMS and _is_cdc(own):
                made = {"system": canonical.CDC_RACE, "code": own, **({"display": display} if display else {})}
                parts.append({"url": "ombCategory" if own in top else "detailed", "valueCoding": made})
        named = ", ".join(filter(None, words))
        return {"url": url, "extension": [*parts, {"url": "text", "valueString": named}]} if named else None

    return lambda value, _context: read(value) if len(value) <= _MEMO_LIMIT else read.__wrapped__(value)


def _is_cdc(value: str) -> bool:
    return len(value) == 6 and value[4] == "-" and value[:4].isdecimal() and value[5].isdecimal()


# --- values[x] -----------------------------------------------------------------------------------------------------
def unsupported(_value: str, context: MessageContext) -> None:
    """A value type that has no place in FHIR R4."""
    context.warn("not-supported", "The value type in OBX-2 has no FHIR value; no value was taken.")


def choice(suffix: str, convert: Converter) -> Converter:
    """A converter for `value[x]`: the suffix beside what `convert` gives."""

    def run(value: str, context: MessageContext) -> tuple[str, Any] | None:
        made = convert(value, context)
        return None if made is None else (suffix, made)

    return run


def period(value: str, context: MessageContext) -> dict[str, Any] | None:
    """DR as Period."""
    start, end = components(value)[:2]
    made = {name: date_time(part, context) for name, part in (("start", start), ("end", end)) if part}
    return {name: part for name, part in made.items() if part} or None
