"""The rules of the model as data: one TOML file a range of care periods, every row with its source and how sure it is.

CMS's numbers stand in `rules/*.toml` only. A care period keeps the rules of the day on which it began.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, Generic, TypeVar

from server.domain.errors import BadConfiguration

T = TypeVar("T")


class Mark(StrEnum):
    """How sure a rule is."""

    CONFIRMED = "CONFIRMED"  # CMS's own guide says it
    SECONDARY = "SECONDARY"  # a third party that cites a paper of CMS says it
    UNCONFIRMED = "UNCONFIRMED"  # our assumption
    OURS = "OURS"  # not CMS's business

    @property
    def is_verified(self) -> bool:
        """Whether a person may be shown the rule as CMS's."""
        return self in (Mark.CONFIRMED, Mark.OURS)


@dataclass(frozen=True, slots=True)
class Rule(Generic[T]):
    """One value, how sure it is, and where it is from."""

    value: T
    mark: Mark
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One section of a report. `valid` in days before the submission; `send`, `wished` in readings.

    `value` names what is compared with a target: "" valueQuantity, a component's LOINC code, or an item's linkId.
    """

    name: str
    valid: int
    send: int
    wished: int
    value: str
    mark: Mark
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One requirement: met when all measures of one alternative are there. `name` is what a person reads as missing."""

    name: str
    any_of: tuple[tuple[str, ...], ...]
    mark: Mark
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What one report of one track needs, and which measures may go along."""

    needs: tuple[Need, ...]
    measures: tuple[str, ...]  # every measure that the report takes, in the order of the rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A goal of one measure. `below`: control under this value; `change`: improvement from the baseline, signed."""

    measure: str
    tracks: tuple[str, ...]
    unit: str
    below: Decimal | None = None
    change: Decimal | None = None
    mark: Mark
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All rules for care periods that begin from `first` to `last`, both included. Lengths are whole days."""

    name: str
    first: date
    last: date
    baseline_last_day: Rule[int]
    baseline_missed: Rule[str]
    quarterly_min_days: Rule[int]
    quarterly_max_days: Rule[int]
    quarterly_after_missed: Rule[str]
    quarterly_at_end: Rule[str]
    quarterly_trim_min_days: Rule[int]
    period_days: Rule[int]
    end_last_day: Rule[int]
    early_success_days: Rule[dict[str, int]]
    lock_in_days: Rule[int]
    control_group_months: Rule[int]
    unalign_after_lock_in: Rule[list[str]]
    unalign_on_file: Rule[dict[str, str]]
    bp_manual_allowed: Rule[bool]
    edge_margin_days: Rule[int]
    remind_days: Rule[list[int]]
    patience_days: Rule[int]
    initiation_days: Rule[int]
    escalation_days: Rule[int]
    completion_days: Rule[int]
    care_update_lead_days: Rule[int]
    measures: Mapping[str, Measure]
    requirements: Mapping[tuple[str, str], Requirement]
    targets: tuple[Target, ...]

    def requirement(self, track: str, report_type: str) -> Requirement:
        """What that report needs; BadConfiguration if the file has no row for it."""
        try:
            return self.requirements[track, report_type]
        except KeyError:
            raise BadConfiguration(f"{self.name}: no [[need]] for the {report_type} report of {track}") from None

    def targets_of(self, track: str) -> tuple[Target, ...]:
        """The goals of one track."""
        return tuple(target for target in self.targets if track in target.tracks)


CHOICES = {
    "baseline_missed": ("unalign", "keep"),
    "quarterly_after_missed": ("opens", "closes"),
    "quarterly_at_end": ("trim", "keep", "drop"),
}
_ROWS = frozenset({"name", "first", "last", "measures", "requirements", "targets"})


def rules_for(begins: date) -> Rules:
    """The rules of care periods that begin on that day. Raises BadConfiguration if no file covers it."""
    for rules in all_rules():
        if rules.first <= begins <= rules.last:
            return rules
    raise BadConfiguration(
        f"no file in server/domain/rules covers a care period that begins on {begins}: add one with CMS's rules for it"
    )


@cache
def all_rules() -> tuple[Rules, ...]:
    """Every packaged file, by the day from which it holds. Raises BadConfiguration for a bad or overlapping one."""
    folder = files("server.domain") / "rules"
    texts = [entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.endswith(".toml")]
    found = sorted((load(text) for text in texts), key=lambda rules: rules.first)
    for earlier, later in zip(found, found[1:], strict=False):
        if later.first <= earlier.last:
            raise BadConfiguration(f"the rules {earlier.name} and {later.name} cover the same days")
    return tuple(found)


def load(text: str) -> Rules:
    """One file. Raises BadConfiguration that names the row."""
    try:
        data = tomllib.loads(text)
        rules = _rules(data)
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, ArithmeticError) as bad:
        raise BadConfiguration(f"a rule file is wrong: {type(bad).__name__}: {bad}") from None
    _check(rules)
    return rules


def _rules(data: dict[str, Any]) -> Rules:
    wanted = {field.name for field in fields(Rules)} - _ROWS
    if wanted != set(data["rule"]):
        raise KeyError(f"[rule.*] missing or unknown: {sorted(wanted ^ set(data['rule']))}")
    return Rules(
        name=data["name"],
        first=data["effective"]["from"],
        last=data["effective"]["to"],
        measures=_measures(data["measure"]),
        requirements=_requirements(data["need"], data["option"]),
        targets=tuple(_target(row) for row in data["target"]),
        **_single(data["rule"]),
    )


def _single(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: Rule(row["value"], Mark(row["mark"]), row["source"]) for name, row in rows.items()}


def _marked(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "mark": Mark(row["mark"])}


def _measures(rows: Sequence[dict[str, Any]]) -> dict[str, Measure]:
    measures = [Measure(**_marked(row)) for row in rows]
    return {measure.name: measure for measure in measures}


def _target(row: dict[str, Any]) -> Target:
    numbers: dict[str, Decimal] = {name: Decimal(row[name]) for name in ("below", "change") if name in row}
    return Target(**{**_marked(row), **numbers, "tracks": tuple(row["tracks"])})


def _requirements(
    needs: Sequence[dict[str, Any]], options: Sequence[dict[str, Any]]
) -> dict[tuple[str, str], Requirement]:
    """One requirement for each track and report that a [[need]] names; options add measures to it."""
    found: dict[tuple[str, str], Requirement] = {}
    for track, report in [(track, report) for row in needs for track in row["tracks"] for report in row["reports"]]:
        found[track, report] = _requirement(track, report, needs, options)
    return found


def _requirement(
    track: str, report: str, needs: Sequence[dict[str, Any]], options: Sequence[dict[str, Any]]
) -> Requirement:
    needed = [row for row in needs if track in row["tracks"] and report in row["reports"]]
    extra = [row for row in options if track in row["tracks"] and report in row["reports"]]
    names = [name for row in needed for alternative in row["any_of"] for name in alternative]
    names += [name for row in extra for name in row["measures"]]
    return Requirement(needs=tuple(_need(row) for row in needed), measures=tuple(dict.fromkeys(names)))


def _need(row: dict[str, Any]) -> Need:
    alternatives = tuple(tuple(alternative) for alternative in row["any_of"])
    return Need(name=row["name"], any_of=alternatives, mark=Mark(row["mark"]), source=row["source"])


def _check(rules: Rules) -> None:
    for name, allowed in CHOICES.items():
        value = getattr(rules, name).value
        if value not in allowed:
            raise BadConfiguration(f"{rules.name}: [rule.{name}] is {value!r}: it must be one of {', '.join(allowed)}")
    used = {name for requirement in rules.requirements.values() for name in requirement.measures}
    used |= {target.measure for target in rules.targets}
    if unknown := used - set(rules.measures):
        raise BadConfiguration(f"{rules.name}: no [[measure]] for {', '.join(sorted(unknown))}")
