"""The body: which reader takes which entry, and an account of those that none takes.

Order: assessment scales anywhere, goals by mood, plans by mood, then the statement's template, then its section.
Tables: tables/sections.toml. Source: C-CDA R2.1; C-CDA on FHIR 2.0.0.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from mappers import engine
from mappers.cda.assessments import assessment, scales
from mappers.cda.context import Document
from mappers.cda.encounters import encounter
from mappers.cda.goals import goal, link
from mappers.cda.observations import Pressure, finish, plain, results, vitals
from mappers.cda.parse import Node
from mappers.cda.paths import each, first, inside
from mappers.cda.people import author
from mappers.cda.plans import PLANNED_MOODS, outcome, planned
from mappers.cda.problems import problem

_ROOT = "2.16.840.1.113883.10.20.22."
_FACTS = {"observation", "organizer", "act", "encounter", "procedure"}


@cache
def _rules() -> dict[str, Any]:
    return engine.load("mappers.cda", "tables/sections.toml")


class Body:
    """One reading of all sections. Kept between entries: pressures without their other half, goals and outcomes."""

    def __init__(self, document: Document, writers: list[str]) -> None:
        self.document = document
        self.writers = writers
        self.scales = {node: node for node in scales(document.root)}
        self.pressures: list[Pressure] = []
        self.goals: list[tuple[Node, str]] = []
        self.outcomes: list[tuple[Node, str]] = []
        self.written: dict[str, list[str]] = {}  # author's reference -> resources that rest on the author
        self.readers: dict[str, Callable[[Node, str], None]] = {
            "problem": self._problem,
            "encounter": self._encounter,
            "vitals": self._vitals,
            "results": self._results,
            "goal": self._goal,
            "planned": self._planned,
            "observation": self._observation,
        }

    def read(self) -> None:
        """Reads every section, then links what points across sections."""
        for section in inside(self.document.root, "section"):
            self._section(section)
        self.document.entry_targets = []
        finish(self.pressures, self.document)
        self._book(self.writers)
        known = {f"{one['resourceType']}/{one['id']}": one for one in self.document.resources}
        for node, reference in self.goals:
            link(node, known[reference], document=self.document)
        for node, reference in self.outcomes:
            outcome(node, reference, document=self.document)

    def _section(self, section: Node) -> None:
        code = first("code/@code")(section) or ""
        rule = _rules()["section"].get(code, {})
        entries = each("entry")(section)
        if section.get("nullFlavor") and not entries:
            self.document.leave(section, "left", reason="The section says that it has no information (nullFlavor).")
        elif not entries and not each("component/section")(section):
            self.document.leave(
                section, "left", reason="The section has narrative only: it is kept in the document itself."
            )
        writers = self._authors(section) or self.writers
        for entry in entries:
            self.document.entry_targets = []
            for statement in entry.iterchildren("{urn:hl7-org:v3}*"):
                self._statement(statement, rule)
                self._book(self._authors(statement) or writers)
            self.document.made_in.setdefault(section, []).extend(self.document.entry_targets)

    def _authors(self, node: Node) -> list[str]:
        found = [author(one, self.document) for one in each("author")(node)]
        return list(dict.fromkeys(one for one in found if one))

    def _book(self, writers: list[str]) -> None:
        for one in writers[:1] or [""]:
            self.written.setdefault(one, []).extend(self.document.entry_targets)

    def _statement(self, node: Node, rule: dict[str, str]) -> None:
        """Gives one statement to its reader, or books it."""
        nested = [one for one in inside(node, "observation") if one in self.scales]
        for one in nested:
            assessment(self.scales.pop(one), self.document)
        if node in nested:
            return
        name = self._reader(node, rule)
        if name is None:
            reason = rule.get("left", "No rule maps this kind of entry; it is kept in the document itself.")
            self.document.leave(node, "left" if "left" in rule else "unknown", reason=reason)
            return
        self.document.at(node)
        self.readers[name](node, rule.get("category", ""))

    def _reader(self, node: Node, rule: dict[str, str]) -> str | None:
        mood = node.get("moodCode")
        if mood == "GOL":
            return "goal"
        for template in node.iterchildren("{urn:hl7-org:v3}templateId"):
            found: str | None = _rules()["templates"].get((template.get("root") or "").removeprefix(_ROOT))
            if found:
                return found
        if "left" in rule:
            return None
        if mood in PLANNED_MOODS:
            return "planned"
        return rule.get("reader") if node.tag.rpartition("}")[2] in _FACTS else None

    def _problem(self, node: Node, category: str) -> None:
        kinds = ("problem-list-item", "health-concern", "encounter-diagnosis")
        problem(node, self.document, kind=category if category in kinds else "problem-list-item")

    def _encounter(self, node: Node, _category: str) -> None:
        if node.tag.endswith("}encounter"):
            encounter(node, self.document)
        else:
            self.document.leave(node, "unknown", reason="An entry of the encounters section that is no encounter.")

    def _vitals(self, node: Node, _category: str) -> None:
        if node.tag.rpartition("}")[2] in ("organizer", "observation"):
            self.pressures += vitals(node, self.document)
        else:
            self.document.leave(node, "unknown", reason="An entry of the vital signs section that is no observation.")

    def _results(self, node: Node, _category: str) -> None:
        if node.tag.rpartition("}")[2] in ("organizer", "observation"):
            results(node, self.document)
        else:
            self.document.leave(node, "unknown", reason="An entry of the results section that is no observation.")

    def _goal(self, node: Node, _category: str) -> None:
        reference = goal(node, self.document)
        if reference:
            self.goals.append((node, reference))

    def _planned(self, node: Node, _category: str) -> None:
        planned(node, self.document)

    def _observation(self, node: Node, category: str) -> None:
        nodes = each("component/observation")(node) if node.tag.endswith("}organizer") else [node]
        for one in nodes:
            if not one.tag.endswith("}observation"):
                self.document.leave(
                    one, "unknown", reason="No rule maps this kind of entry; it is kept in the document itself."
                )
                continue
            reference = plain(one, self.document, kind=category or "survey")
            if reference:
                self.outcomes.append((one, reference))
