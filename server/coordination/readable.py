"""The words and values of a care update, as a clinician reads them. Pure; all that goes into XHTML is escaped."""

import operator
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from mappers.cda.write import Kind
from mappers.report import Section
from profiles.canonical import SYSTOLIC
from server.domain.coordination import Moment
from server.domain.measures import value_of
from server.domain.rules import Measure, Target
from server.settings import Participant

Resource = dict[str, Any]

XHTML = "http://www.w3.org/1999/xhtml"


@dataclass(frozen=True, slots=True)
class MomentWords:
    """One row of words.toml: how a moment is called, the document's LOINC type, and its kind as C-CDA."""

    title: str
    why: str
    code: str
    ccda: Kind
    display: str


@dataclass(frozen=True, slots=True)
class Words:
    """All of words.toml."""

    closing: str
    moments: Mapping[str, MomentWords]
    track: Mapping[str, str]
    unit: Mapping[str, str]
    target: Mapping[str, str]

    def moment(self, moment: Moment) -> MomentWords:
        """The words of one moment."""
        return self.moments[moment]


@cache
def words() -> Words:
    """The words, read once."""
    data = tomllib.loads(files("server.coordination").joinpath("words.toml").read_text("utf-8"))
    moments = {name: MomentWords(**(row | {"ccda": Kind(row["ccda"])})) for name, row in data["moment"].items()}
    return Words(data["closing"], moments, data["track"], data["unit"], data["target"])


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a measure: as it is stored, and in the unit in which values are compared."""

    stored: Resource
    comparable: Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One measure of a care period: its first and its latest value, which may be the same one."""

    measure: Measure
    section: Section
    baseline: Value
    latest: Value
    target: Target | None = None

    @property
    def component(self) -> str | None:
        """The LOINC code of the component that is compared with a target, if one is."""
        return self.measure.value if self.measure.value and "component" in self.latest.comparable else None

    @property
    def limit(self) -> tuple[str, Decimal] | None:
        """The goal as comparator and value: control if the rules know it, else the improvement from the first value."""
        if self.target is None or self.target.below is not None:
            return ("<", self.target.below) if self.target and self.target.below is not None else None
        start = value_of(self.baseline.comparable, self.measure)
        if start is None or self.target.change is None:
            return None
        return ("<=" if self.target.change < 0 else ">="), start + self.target.change

    @property
    def achieved(self) -> bool:
        """Whether the latest value is at the goal."""
        now = value_of(self.latest.comparable, self.measure)
        return now is not None and self.limit is not None and _COMPARE[self.limit[0]](now, self.limit[1])


_COMPARE: dict[str, Callable[[Decimal, Decimal], bool]] = {"<": operator.lt, "<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The sentences of one update."""

    track: str
    name: str
    moment: Moment
    subject: str  # a measure's title for a milestone

    def why(self) -> str:
        """Why the update is sent."""
        row = words()
        return row.moments[self.moment].why.format(name=self.name, track=row.track[self.track], measure=self.subject)

    def closing(self) -> str:
        """The last sentence of every update."""
        return words().closing


def value_text(progress: Progress, value: Value) -> str:
    """A value with its unit, such as `128/79 mmHg`."""
    resource = value.stored
    if resource["resourceType"] == "QuestionnaireResponse":
        score = value_of(value.comparable, progress.measure)
        return (
            "no score" if score is None else f"{score} {_unit_text(progress.target.unit if progress.target else '1')}"
        )
    parts = [c["valueQuantity"] for c in resource.get("component", ()) if "valueQuantity" in c]
    quantities = parts or [resource.get("valueQuantity", {})]
    units = {_unit_of(quantity) for quantity in quantities}
    if len(units) == 1:
        return "/".join(_plain(quantity) for quantity in quantities) + f" {units.pop()}"
    return ", ".join(f"{_plain(quantity)} {_unit_of(quantity)}" for quantity in quantities)


def day(resource: Resource) -> str:
    """The calendar day of a value, as its source states it."""
    period = resource.get("effectivePeriod", {})
    found = resource.get("effectiveDateTime") or resource.get("effectiveInstant") or resource.get("authored")
    return str(found or period.get("end") or period.get("start") or "")[:10]


def compared_name(progress: Progress) -> str:
    """What is compared with a target, by name."""
    title = progress.section.title
    return f"{title}, systolic" if progress.component == SYSTOLIC else title


def goal_text(progress: Progress) -> str:
    """A goal in words."""
    name, target = compared_name(progress), progress.target
    if target is None:
        return name
    unit = _unit_text(target.unit)
    if target.below is not None:
        return f"{name}: below {target.below} {unit}"
    change = target.change or Decimal(0)
    return f"{name}: at least {abs(change)} {unit} {'lower' if change < 0 else 'higher'} than at the start"


def paragraphs(*texts: str) -> str:
    """XHTML paragraphs."""
    return _div("".join(f"<p>{escape(text)}</p>" for text in texts))


def measures_table(progress: Sequence[Progress]) -> str:
    """First and latest value of each measure, with their days."""
    if not progress:
        return paragraphs("No values have been measured yet.")
    rows = "".join(_row(each) for each in progress)
    head = "<tr><th>Measure</th><th>At the start</th><th>Latest</th><th>Goal</th></tr>"
    return _div(f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>")


def goals_list(goals: Sequence[Resource]) -> str:
    """The goals, each with where it stands."""
    return _div(_items([_goal_item(goal) for goal in goals]))


def plan_list(requests: Sequence[Resource], *, over: bool) -> str:
    """What is done, or was done."""
    start = "The care period is over. These were followed:" if over else "We go on to follow these, and act on them:"
    return _div(f"<p>{start}</p>" + _items([str(request["code"]["text"]) for request in requests]))


def medications_list(medications: Sequence[Resource]) -> str:
    """The names of medications, as their sources give them."""
    return _div(_items([_name(each.get("medicationCodeableConcept", {})) for each in medications]))


def contact(participant: Participant, closing: str) -> str:
    """Who to ask, and that nothing is asked for."""
    author = participant.author
    who = f"{author.given} {author.family}".strip()
    clinician = f" The clinician responsible is {who} (NPI {author.npi})." if who else ""
    return paragraphs(f"{participant.name}, ACCESS participant {participant.entity_id}.{clinician}", closing)


def _row(progress: Progress) -> str:
    cells = [
        progress.section.title,
        f"{value_text(progress, progress.baseline)}, {day(progress.baseline.stored)}",
        f"{value_text(progress, progress.latest)}, {day(progress.latest.stored)}",
        "none set" if progress.target is None else "reached" if progress.achieved else "not reached yet",
    ]
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _goal_item(goal: Resource) -> str:
    status = _name(goal.get("achievementStatus", {}))
    text = _name(goal.get("description", {}))
    return f"{text} ({status.lower()})" if status else text


def _items(texts: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def _div(content: str) -> str:
    return f'<div xmlns="{XHTML}">{content}</div>'


def _name(concept: Resource) -> str:
    coding = (concept.get("coding") or [{}])[0]
    return str(concept.get("text") or coding.get("display") or coding.get("code") or "")


def _plain(quantity: Resource) -> str:
    return f"{quantity.get('comparator', '')}{quantity.get('value', 'no value')}"


def _unit_of(quantity: Resource) -> str:
    return _unit_text(str(quantity.get("code") or quantity.get("unit") or ""))


def _unit_text(unit: str) -> str:
    return words().unit.get(unit, unit)
