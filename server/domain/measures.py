"""Which values go into a report, what is still missing, and which goals are reached. Pure.

A report takes new values only: measured after the newest value of that measure which was already reported in the care
period, still valid on the day of the report, and final.
Source: ACCESS API IG 0.9.12, guidance on data reporting; validity and requirements are data (`rules/*.toml`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from server.domain.rules import Measure, Need, Requirement, Rules, Target

Resource = dict[str, Any]

REPORTABLE = {
    "Observation": frozenset({"final", "amended", "corrected"}),
    "QuestionnaireResponse": frozenset({"completed", "amended"}),
}
_TIMES = ("effectiveDateTime", "effectiveInstant", "authored")
_DAY = len("2026-07-05")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One value of one measure. `resource` is in the form that the report takes.

    `reference` is `Type/id/version` of the stored resource; `effective` is aware, UTC; `day` is its calendar day in
    the participant's zone, or the source's own where it gives no time of day.
    """

    measure: str
    resource: Resource
    reference: str
    effective: datetime
    day: date

    @property
    def name(self) -> str:
        """`Type/id`, whatever the version."""
        return self.reference.rpartition("/")[0]

    @property
    def is_reportable(self) -> bool:
        """Whether its status lets it into a report: preliminary values change, others are none."""
        return self.resource.get("status") in REPORTABLE.get(self.resource["resourceType"], ())


@dataclass(frozen=True, slots=True)
class Used:
    """One value that a report used: the evidence."""

    reference: str
    effective: datetime


Evidence = Mapping[str, tuple[Used, ...]]  # by measure


@dataclass(frozen=True, slots=True)
class Selection:
    """What one report would carry now. `missing` names unmet needs, `thin` measures with fewer readings than wished."""

    chosen: Mapping[str, tuple[Reading, ...]]
    missing: tuple[str, ...]
    thin: tuple[str, ...]

    @property
    def evidence(self) -> Evidence:
        """The same as it is written down with the report."""
        return {
            measure: tuple(Used(reading.reference, reading.effective) for reading in readings)
            for measure, readings in self.chosen.items()
        }


def reading(measure: str, resource: Resource, *, reference: str, zone: ZoneInfo) -> Reading | None:
    """A Reading of a resource with a day at least; None if it says no usable time."""
    stated = next((resource[name] for name in _TIMES if name in resource), None)
    stated = stated or _period_time(resource.get("effectivePeriod", {}))
    when = _instant(stated, zone) if isinstance(stated, str) else None
    if when is None:
        return None
    effective, day = when
    return Reading(measure=measure, resource=resource, reference=reference, effective=effective, day=day)


def select(
    readings: Iterable[Reading],
    requirement: Requirement,
    rules: Rules,
    *,
    reported: Mapping[str, datetime],
    at: datetime,
    on: date,
) -> Selection:
    """What goes into a report that is sent at `at`, which is the day `on` in the participant's zone.

    `reported` holds, by measure, the time of the newest value that this care period already reported.
    """
    fresh = _fresh(readings, rules, reported=reported, at=at, on=on)
    chosen = {name: fresh[name][-rules.measures[name].send :] for name in requirement.measures if name in fresh}
    missing = tuple(need.name for need in requirement.needs if not _met(need, chosen))
    thin = tuple(name for name, found in chosen.items() if len(found) < rules.measures[name].wished)
    return Selection(chosen, missing, thin)


def newest_reported(evidences: Iterable[Evidence]) -> dict[str, datetime]:
    """By measure, the time of the newest value in these reports."""
    newest: dict[str, datetime] = {}
    for evidence in evidences:
        for measure, used in evidence.items():
            newest[measure] = max(
                [one.effective for one in used] + [newest.get(measure, datetime.min.replace(tzinfo=UTC))]
            )
    return newest


def dump_evidence(evidence: Evidence) -> bytes:
    """JSON: measure -> list of reference and effective time (RFC 3339, UTC)."""
    data = {
        measure: [{"reference": one.reference, "effective": one.effective.isoformat()} for one in used]
        for measure, used in evidence.items()
    }
    return json.dumps(data, sort_keys=True).encode()


def load_evidence(data: bytes | None) -> Evidence:
    """The inverse; nothing gives no evidence."""
    rows = json.loads(data) if data else {}
    return {
        measure: tuple(Used(one["reference"], datetime.fromisoformat(one["effective"])) for one in used)
        for measure, used in rows.items()
    }


def milestones(
    readings: Sequence[Reading], targets: Sequence[Target], rules: Rules, *, baseline: Evidence, at: datetime
) -> dict[str, Reading]:
    """The measures whose newest value after the baseline reached its goal, each with that value.

    The goal is control where the target has one and the baseline was not controlled already; else the improvement.
    """
    reached: dict[str, Reading] = {}
    for target in targets:
        before = _baseline_value(readings, target, rules, baseline)
        after = _newest_after(readings, target.measure, baseline, at)
        if before is None or after is None:
            continue
        value = value_of(after.resource, rules.measures[target.measure])
        if value is not None and _reached(target, before, value):
            reached[target.measure] = after
    return reached


def value_of(resource: Resource, measure: Measure) -> Decimal | None:
    """The number that a target speaks of; None if the resource has none."""
    if resource["resourceType"] == "QuestionnaireResponse":
        return _answer(resource, measure.value)
    holder = resource
    if measure.value:
        holder = next((part for part in resource.get("component", ()) if _coded(part, measure.value)), {})
    quantity = holder.get("valueQuantity", {})
    return None if "comparator" in quantity else _number(quantity.get("value"))


def _fresh(
    readings: Iterable[Reading], rules: Rules, *, reported: Mapping[str, datetime], at: datetime, on: date
) -> dict[str, tuple[Reading, ...]]:
    """By measure, the values that may be reported, oldest first; of several at one time the last reference."""
    found: dict[str, dict[datetime, Reading]] = {}
    for one in sorted(readings, key=lambda one: (one.effective, one.reference)):
        row = rules.measures.get(one.measure)
        if row is None or not one.is_reportable or one.effective > at or one.day > on:
            continue
        since = reported.get(one.measure)
        if one.day >= on - timedelta(days=row.valid) and (since is None or one.effective > since):
            found.setdefault(one.measure, {})[one.effective] = one
    return {measure: tuple(by_time.values()) for measure, by_time in found.items()}


def _met(need: Need, chosen: Mapping[str, Sequence[Reading]]) -> bool:
    return any(all(name in chosen for name in alternative) for alternative in need.any_of)


def _period_time(period: Mapping[str, str]) -> str | None:
    return period.get("end") or period.get("start")


def _instant(stated: str, zone: ZoneInfo) -> tuple[datetime, date] | None:
    """A FHIR dateTime as an instant and its day. A date without a time counts from its first instant in `zone`."""
    try:
        if len(stated) == _DAY:
            day = date.fromisoformat(stated)
            return datetime.combine(day, time.min, zone).astimezone(UTC), day
        instant = datetime.fromisoformat(stated)
    except ValueError:
        return None
    if instant.tzinfo is None or len(stated) < _DAY:
        return None
    return instant.astimezone(UTC), instant.astimezone(zone).date()


def _baseline_value(readings: Sequence[Reading], target: Target, rules: Rules, baseline: Evidence) -> Decimal | None:
    """The value that the baseline reported last."""
    used = baseline.get(target.measure, ())
    if not used:
        return None
    wanted = max(used, key=lambda one: (one.effective, one.reference)).reference.rpartition("/")[0]
    resource = next((one.resource for one in readings if one.name == wanted), None)
    return value_of(resource, rules.measures[target.measure]) if resource else None


def _newest_after(readings: Sequence[Reading], measure: str, baseline: Evidence, at: datetime) -> Reading | None:
    last = max((one.effective for one in baseline.get(measure, ())), default=None)
    if last is None:
        return None
    later = [one for one in readings if one.measure == measure and one.is_reportable and last < one.effective <= at]
    return max(later, key=lambda one: (one.effective, one.reference), default=None)


def _reached(target: Target, before: Decimal, value: Decimal) -> bool:
    if target.below is not None:
        return value < target.below <= before
    if target.change is None:
        return False
    moved = value - before
    return moved >= target.change if target.change > 0 else moved <= target.change


def _answer(response: Resource, link_id: str) -> Decimal | None:
    """The number answered to one item, or the ordinal of its coded answer."""
    item: Resource = next((one for one in response.get("item", ()) if one.get("linkId") == link_id), {})
    answer: Resource = next(iter(item.get("answer", ())), {})
    number = answer.get("valueDecimal", answer.get("valueInteger"))
    if number is None:
        extensions = answer.get("valueCoding", {}).get("extension", ())
        number = next((one["valueDecimal"] for one in extensions if "valueDecimal" in one), None)
    return _number(number)


def _coded(part: Resource, code: str) -> bool:
    return any(coding.get("code") == code for coding in part.get("code", {}).get("coding", ()))


def _number(value: object) -> Decimal | None:
    return Decimal(value) if isinstance(value, (int, Decimal)) else None
