"""The body: which reader takes which entry, and an account of those that none takes.

Order: assessment scales anywhere, goals by mood, the statement's template, plans by mood, then its section.
Tables: tables/sections.toml. Source: C-CDA R2.1; C-CDA on FHIR 2.0.0.
"""

from collections.abc import Callable
from functools import cache
from itertools import islice
from typing import Any

from mappers import engine
from mappers.cda.allergies import allergy
from mappers.cda.assessments import assessment, panels, scales
from mappers.cda.careteams import care_team
from mappers.cda.compiled import Kept
from mappers.cda.context import Document, identifiers
from mappers.cda.dialect import apply
from mappers.cda.encounters import encounter
from mappers.cda.goals import Aim, goal, link
from mappers.cda.medications import immunization, medication
from mappers.cda.node import Node
from mappers.cda.notes import note
from mappers.cda.observations import inherit_time, kind_of, plain
from mappers.cda.paths import children, grouped, qualified
from mappers.cda.people import author
from mappers.cda.plans import PLANNED_MOODS, Pointer, outcome, planned, point
from mappers.cda.problems import problem
from mappers.cda.procedures import procedure
from mappers.cda.results import results, unheld
from mappers.cda.vitals import Reading, finish, vitals

_ROOT = "2.16.840.1.113883.10.20.22."
_V3 = "{urn:hl7-org:v3}"
_AUTHOR, _TEMPLATE, _RELATION = qualified("author"), qualified("templateId"), qualified("entryRelationship")
_OBSERVATION, _ORGANIZER, _ACT = qualified("observation"), qualified("organizer"), qualified("act")
_ADMINISTRATION = qualified("substanceAdministration")
_STATEMENTS = frozenset(qualified(name) for name in ("observation", "organizer", "act", "encounter", "procedure"))
_MEASURED = frozenset({_OBSERVATION, _ORGANIZER})
_TAGS: dict[str, frozenset[str]] = {  # the statements that a reader takes; the others take any
    "observation": _MEASURED,
    "vitals": _MEASURED,
    "results": _MEASURED,
    "problem": frozenset({_OBSERVATION, _ACT}),
    "allergy": frozenset({_OBSERVATION, _ACT}),
    "medication": frozenset({_ADMINISTRATION, _ACT}),
    "immunization": frozenset({_ADMINISTRATION}),
    "encounter": frozenset({qualified("encounter")}),
    "procedure": frozenset({qualified("procedure"), _ACT}),
    "note": frozenset({_ACT}),
    "careteam": frozenset({_ORGANIZER}),
    "planned": _STATEMENTS | {_ADMINISTRATION, qualified("supply")},
}
_FACTS = frozenset(
    ("vitals", "results", "problem", "observation", "encounter", "procedure", "allergy", "immunization", "medication")
)
_CONDITIONS = ("problem-list-item", "health-concern", "encounter-diagnosis")
_HELD = 500  # elements of one entry
_NARRATIVE = "The section has narrative only: it is kept in the document itself."
_EMPTY = "The section says that it has no information (nullFlavor)."
_UNKNOWN = "No rule maps this kind of entry; it is kept in the document itself."


@cache
def _rules() -> dict[str, Any]:
    return engine.load("mappers.cda", "tables/sections.toml")


@cache
def _templates() -> dict[str, str]:
    """Readers by the whole root of a template."""
    short: dict[str, str] = _rules()["templates"]
    return short | {f"{_ROOT}{name}": reader for name, reader in short.items()}


class Body:
    """One reading of all sections. Kept between entries: pressures without their other half, goals and outcomes."""

    def __init__(self, document: Document, writers: list[str], *, scaled: bool) -> None:
        self.document = document
        self.writers = writers
        self.scales: set[Node] | None = set() if scaled else None  # those found so far
        document.panels, document.scale = panels(), assessment
        self.pressures: list[Reading] = []
        self.aims: list[Aim] = []
        self.outcomes: list[tuple[str, Kept]] = []
        self.pointers: list[Pointer] = []
        self.written: dict[str, list[str]] = {}  # author's reference -> resources that rest on the author

    def read(self) -> None:
        """Reads every section, then links what points across sections."""
        for section in self.document.sections:
            self._section(section)
        self.document.entry_targets = []
        finish(self.pressures, self.document)
        self._book(self.writers)
        for aim in self.aims:
            link(aim, self.document)
        for reference, kept in self.outcomes:
            outcome(reference, kept, document=self.document)
        for pointer in self.pointers:
            point(pointer, self.document)

    def _section(self, section: Node) -> None:
        document, parts = self.document, grouped(section)
        entries = parts.get("entry", [])
        codes = [one.get("code") for one in parts.get("code", ())]
        document.narratives[section] = next((one for one in codes if one is not None), None), parts.get("text", [])
        if not entries:
            if not any("section" in grouped(one) for one in parts.get("component", ())):
                reason = _EMPTY if section.get("nullFlavor") else _NARRATIVE
                document.leave(section, "left", reason=reason)
            return
        rule = _rules()["section"].get((codes[0] if codes else None) or "", {})
        writers = self._authors(parts.get("author", [])) or self.writers
        made: list[str] = []
        places = document.places
        place = f"{places.of(section)}/entry"
        for number, entry in enumerate(entries, 1):
            held = list(islice(entry.iter(), _HELD))  # lxml makes an element anew each time nobody holds it
            places.enter(entry, f"{place}[{number}]" if len(entries) > 1 else place)
            document.entry_targets = []
            for statement in entry[:]:
                if statement.tag != _TEMPLATE:
                    self._statement(statement, rule)
                    self._book(self._authors(children(statement, _AUTHOR)) or writers)
            made += document.entry_targets
            del held
        places.leave()
        document.made_in[section] = made

    def _authors(self, nodes: Any) -> list[str]:
        found = dict.fromkeys([author(one, self.document) for one in nodes])
        return [one for one in found if one]

    def _book(self, writers: list[str]) -> None:
        targets = self.document.entry_targets
        if targets:
            self.written.setdefault(writers[0] if writers else "", []).extend(targets)

    def _statement(self, node: Node, rule: dict[str, str]) -> None:
        """Gives one statement to its reader, or books it."""
        if self.scales is not None:
            nested = scales(node, self.scales)
            for one in nested:
                self.document.taken.add(one)
                assessment(one, self.document)
            if node in nested:
                return
        name = self._reader(node, rule)
        if name is None:
            reason = rule.get("left", _UNKNOWN)
            self.document.leave(node, "left" if "left" in rule else "unknown", reason=reason)
            return
        self.document.at(node)
        _READERS[name](self, node, rule.get("category", ""))

    def _reader(self, node: Node, rule: dict[str, str]) -> str | None:
        mood = node.get("moodCode")
        if mood == "GOL":
            return "goal"
        templates = _templates()
        for template in node[:]:
            if template.tag != _TEMPLATE:
                continue
            found = templates.get(template.get("root") or "")
            if found and node.tag in _TAGS.get(found, (node.tag,)):
                return "planned" if mood in PLANNED_MOODS and found in _FACTS else found
        if "left" in rule:
            return None
        if mood in PLANNED_MOODS:
            return "planned"
        reader = rule.get("reader")
        return reader if reader and node.tag in _TAGS.get(reader, _STATEMENTS) else None

    # --- readers: one entry's statement and its section's category --------------------------------------------------
    def _problem(self, node: Node, category: str) -> None:
        problem(node, self.document, kind=category if category in _CONDITIONS else "problem-list-item")

    def _allergy(self, node: Node, _category: str) -> None:
        allergy(node, self.document)

    def _medication(self, node: Node, _category: str) -> None:
        """An admission or discharge medication act holds the medication."""
        if node.tag != _ACT:
            medication(node, self.document)
            return
        self.document.around(node)
        inner = [one for relation in children(node, _RELATION) for one in relation[:]]
        for one in inner:
            if one.tag.endswith("}substanceAdministration"):
                self._under(medication(one, self.document), node)
            else:
                self.document.unread(one)

    def _under(self, reference: str | None, act: Node) -> None:
        """An act around one statement: its id means the statement."""
        for key in identifiers(act) if reference else ():
            self.document.means(key, reference or "")

    def _immunization(self, node: Node, _category: str) -> None:
        immunization(node, self.document)

    def _procedure(self, node: Node, _category: str) -> None:
        procedure(node, self.document)

    def _note(self, node: Node, _category: str) -> None:
        note(node, self.document)

    def _encounter(self, node: Node, _category: str) -> None:
        encounter(node, self.document)

    def _vitals(self, node: Node, _category: str) -> None:
        self.pressures += vitals(node, self.document)

    def _results(self, node: Node, _category: str) -> None:
        results(node, self.document)

    def _goal(self, node: Node, _category: str) -> None:
        aim = goal(node, self.document)
        if aim is not None:
            self.aims.append(aim)

    def _planned(self, node: Node, _category: str) -> None:
        self.pointers += planned(node, self.document)

    def _careteam(self, node: Node, _category: str) -> None:
        care_team(node, self.document)

    def _observation(self, node: Node, category: str) -> None:
        if node.tag == _ORGANIZER:
            self._members(node, category)
            return
        kept: Kept = {}
        reference = plain(node, self.document, kind=kind_of(category), wanted=kept)
        if reference:
            self.outcomes.append((reference, kept))

    def _members(self, node: Node, category: str) -> None:
        """An organizer of functional or mental status: its observations, with its time where they have none."""
        panel, kept = apply("panel", node, document=self.document, kind="Observation")
        members = []
        for component in kept.get("component", ()):
            for inner in component[:]:
                if inner.tag != _OBSERVATION:
                    self.document.unread(inner)
                    continue
                found: Kept = {}
                reference = plain(inner, self.document, kind=kind_of(category), wanted=found)
                if reference:
                    self.outcomes.append((reference, found))
                    members.append(reference)
                    inherit_time(self.document.made[reference], panel, inner)
        unheld(panel, node, members=members, document=self.document)


_READERS: dict[str, Callable[[Body, Node, str], None]] = {
    "problem": Body._problem,
    "allergy": Body._allergy,
    "medication": Body._medication,
    "immunization": Body._immunization,
    "procedure": Body._procedure,
    "note": Body._note,
    "encounter": Body._encounter,
    "vitals": Body._vitals,
    "results": Body._results,
    "goal": Body._goal,
    "planned": Body._planned,
    "careteam": Body._careteam,
    "observation": Body._observation,
}
