"""C-CDA out: a care update (FHIR document Bundle) as a Care Plan, Progress Note or Referral Note, C-CDA R2.1.

The Bundle is that of server/coordination/compose.py, or any document Bundle with a Composition and a Patient. Pure and
deterministic: the same Bundle gives the same bytes; ids that have no OID are UUIDs of the resource's own address.
Source: C-CDA R2.1 (templates 2015-08-01); C-CDA on FHIR 2.0.0, FHIR to CDA; HL7 C-CDA-Examples, Care Plan.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lxml import etree

from mappers.cda.markup import LOINC_OID, Resource, clean, code, element, templates
from mappers.cda.node import Node
from mappers.cda.parse import plain_lines
from mappers.cda.update import Builder, Line, Update, anchor, aside
from mappers.cda.write_concerns import allergies, concerns, medications, problems
from mappers.cda.write_header import head
from mappers.cda.write_observations import outcomes, results, scales, vital_signs
from mappers.cda.write_plans import goals, interventions, plan

__all__ = ["Kind", "write"]

_ROOT_TEMPLATE = ("1.1", "2015-08-01")
_NOTHING = "No information."


class Kind(StrEnum):
    """The document to write, by its LOINC code."""

    CARE_PLAN = "52521-2"  # the plan: concerns, goals, interventions, outcomes
    PROGRESS_NOTE = "11506-3"  # how the patient does
    REFERRAL_NOTE = "57133-1"  # why another clinician is asked


@dataclass(frozen=True, slots=True)
class Form:
    """A kind's title, template below 2.16.840.1.113883.10.20.22., and the LOINC codes of its sections, in order."""

    title: str
    template: str
    sections: tuple[str, ...]


_DATA = ("8716-3", "30954-2", "10190-7")  # vital signs, results, scales
_FORMS = {
    Kind.CARE_PLAN: Form(
        "Care Plan", "1.15", ("75310-3", "61146-7", "62387-6", *_DATA, "48765-2", "10160-0", "11383-7")
    ),
    Kind.PROGRESS_NOTE: Form(
        "Progress Note", "1.9", ("51848-0", "11450-4", "48765-2", "10160-0", *_DATA, "61146-7", "18776-5")
    ),
    Kind.REFERRAL_NOTE: Form(
        "Referral Note", "1.14", ("42349-1", "11450-4", "48765-2", "10160-0", *_DATA, "51848-0", "61146-7", "18776-5")
    ),
}


@dataclass(frozen=True, slots=True)
class Part:
    """One section template. `needed`: the document must have it, if only to say that nothing is known."""

    title: str
    template: str
    extension: str | None
    build: Builder | None
    needed: frozenset[Kind] = field(default_factory=frozenset)


_BOTH = frozenset({Kind.PROGRESS_NOTE, Kind.REFERRAL_NOTE})
_REASON = "1.3.6.1.4.1.19376.1.5.3.1.3.1"
_PARTS: dict[str, Part] = {
    "75310-3": Part("Health concerns", "2.58", "2015-08-01", concerns, frozenset({Kind.CARE_PLAN})),
    "61146-7": Part("Goals", "2.60", None, goals, frozenset({Kind.CARE_PLAN})),
    "62387-6": Part("Interventions", "2.16.840.1.113883.10.20.21.2.3", "2015-08-01", interventions),
    "11383-7": Part("Health status evaluations and outcomes", "2.61", None, outcomes),
    "11450-4": Part("Problems", "2.5.1", "2015-08-01", problems, frozenset({Kind.REFERRAL_NOTE})),
    "48765-2": Part("Allergies and intolerances", "2.6.1", "2015-08-01", allergies, frozenset({Kind.REFERRAL_NOTE})),
    "10160-0": Part("Medications", "2.1.1", "2014-06-09", medications, frozenset({Kind.REFERRAL_NOTE})),
    "8716-3": Part("Vital signs", "2.4.1", "2015-08-01", vital_signs),
    "30954-2": Part("Results", "2.3.1", "2015-08-01", results),
    "10190-7": Part("Patient-reported outcomes and status", "2.56", "2015-08-01", scales),
    "18776-5": Part("Plan of treatment", "2.10", "2014-06-09", plan, _BOTH),
    "51848-0": Part("Assessment", "2.8", None, None, _BOTH),
    "42349-1": Part("Reason for referral", _REASON, "2014-06-09", None, frozenset({Kind.REFERRAL_NOTE})),
}
_TOLD = {"51848-0", "42349-1"}  # narrative of the Composition's own sections that hold no data


def write(document: Resource, kind: Kind) -> bytes:
    """The Bundle as one C-CDA document, UTF-8.

    Shape: `document` is a Bundle of type document: a Composition first, its Patient inside. What of it C-CDA has no
    place for in this kind is left out (Provenance, Binary); nothing is added.
    Raises: ValueError for a Bundle without Composition or Patient.
    """
    update = Update.of(document)
    form = _FORMS[kind]
    root = head(update, loinc=kind, title=form.title, kinds=(_ROOT_TEMPLATE, (form.template, "2015-08-01")))
    body = element("structuredBody")
    for loinc in form.sections:
        made = _section(loinc, update, kind)
        if made is not None:
            body.append(element("component", made))
    root.append(element("component", body))
    etree.cleanup_namespaces(root, keep_ns_prefixes=["sdtc", "xsi"])
    etree.indent(root)
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True) + b"\n"


def _section(loinc: str, update: Update, kind: Kind) -> Node | None:
    """A section with narrative and entries; one that is needed and has none says so (nullFlavor NI)."""
    part = _PARTS[loinc]
    lines = part.build(update) if part.build else []
    told = _words(update) if loinc in _TOLD else []
    if not lines and not told and kind not in part.needed:
        return None
    known = bool(lines or told)
    section = element("section", nullFlavor=None if known or part.build is None else "NI")
    section.extend(templates(part.template, part.extension))
    section.append(code("code", loinc, LOINC_OID, part.title))
    section.append(element("title", part.title))
    section.append(_narrative(loinc, lines, told or ([] if lines else [_NOTHING])))
    for line in lines:
        if line.entry is not None:
            section.append(element("entry", line.entry, typeCode="DRIV"))
    return section


def _narrative(loinc: str, lines: list[Line], told: list[str]) -> Node:
    """section/text: a row an entry, each with the ID that its entry refers to."""
    text = element("text", *[element("paragraph", one) for one in told])
    if lines:
        head = element("tr", *[element("th", name) for name in ("What", "Value or text", "When")])
        rows = [_row(loinc, line) for line in lines]
        text.append(element("table", element("thead", head), element("tbody", *rows), border="1"))
    return text


def _row(loinc: str, line: Line) -> Node:
    """A line's cells; what its entry says beside (dosage, notes) stands under the value, each with its own ID."""
    cells = [element("td", cell) for cell in line.cells]
    for number, words in enumerate(line.asides, start=1):
        cells[1].extend([element("br"), element("content", words, ID=aside(anchor(loinc, line.key), number))])
    return element("tr", *cells, ID=anchor(loinc, line.key))


def _words(update: Update) -> list[str]:
    """What the Composition's sections without entries say, line by line."""
    found: list[str] = []
    for section in update.composition.get("section", ()):
        div: Any = section.get("text", {}).get("div")
        if not section.get("entry") and isinstance(div, str):
            found += [clean(line) for line in plain_lines(div)]
    return found
