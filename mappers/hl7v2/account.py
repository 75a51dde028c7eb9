"""The loss account: each field with a value that no resource carries, and why.

Shape: kind `left` (a table row or the message rule says why), `bad` (read, but nothing could be made of it: see the
issues), `unknown` (no table mentions it). Fields that only hold separators say nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import compress

from mappers.conversion import Unmapped
from mappers.engine import Table
from mappers.hl7v2.assemble import Assembly
from mappers.hl7v2.compiled import TABLES
from mappers.hl7v2.parse import Segment
from mappers.hl7v2.rules import Rule, left_segments, rules

_UNKNOWN = "no row of the mapping tables mentions this field"
_BAD = "the value could not be read; see the issues"
_REPEATED = "the target takes one value; further repetitions were not used"
_TABLES: Mapping[str, tuple[str, ...]] = {
    "patient": ("PID",),
    "patient_more": ("PD1",),
    "encounter": ("PV1",),
    "visit": ("PV1",),
    "report": ("OBR",),
    "result": ("OBX", "value"),
    "note": ("NTE",),
    "diagnosis": ("DG1",),
    "document": ("TXA",),
    "content": ("content",),
    "referral": ("RF1",),
    "provider": ("PRD",),
    "allergy": ("AL1",),
    "procedure": ("PR1",),
    "role": ("ROL",),
    "participation": ("PRT",),
    "replaced": ("MRG",),
}
_BLANK = "^~& "
_WIDEST = 200  # fields; what a longer segment holds is not kept in memory
_NONE: frozenset[int] = frozenset()
_EXTRA_READS: Mapping[str, tuple[int, ...]] = {"order": (2, 3)}


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What the rule says of one segment: fields that reach a resource, fields left with reason, and all the others."""

    read: frozenset[int]  # fields that reach a resource; 0, the name, is none
    single: frozenset[int]  # of them, those of which only the first repetition does
    left: Mapping[int, str]
    otherwise: tuple[str, str]  # kind, reason

    @classmethod
    def of(
        cls,
        read: frozenset[int],
        repeating: frozenset[int],
        left: Mapping[int, str],
        otherwise: tuple[str, str],
    ) -> "Plan":
        """A plan for a segment of which the fields in `read` reach a resource."""
        return cls(read | {0}, read - repeating, left, otherwise)


@cache
def _plans(name: str) -> Mapping[str, Plan]:
    rule: Rule = rules()[name]
    made = {segment: _plan(segment, step) for segment, step in rule.use.items()}
    for segment, reason in left_segments().items():
        made.setdefault(segment, Plan.of(_NONE, _NONE, {}, ("left", reason)))
    return made


def _plan(segment: str, step: str) -> Plan:
    tables = [TABLES[table] for table in _TABLES.get(step, ())]
    read = frozenset(_index(path) for table in tables for path in table.reads) | set(_EXTRA_READS.get(step, ()))
    left = {_index(path): reason for table in tables for path, reason in table.left.items()}
    otherwise = ("unknown", _UNKNOWN) if tables else ("left", left_segments()[segment])
    return Plan.of(read, _repeating(tables), left, otherwise)


def _repeating(tables: list[Table]) -> frozenset[int]:
    paths = {
        path for table in tables for path in (*table.appended, *(path for path in table.reads if path.endswith("*")))
    }
    return frozenset(_index(path) for path in paths)


def _index(path: str) -> int:
    return int(path.partition("-")[2].partition(".")[0].rstrip("*"))


_NO_PLAN = Plan.of(_NONE, _NONE, {}, ("unknown", "no rule of this message mentions this segment"))


def account(assembly: Assembly) -> tuple[Unmapped, ...]:
    """What of a converted message did not reach a resource; the header, which steers the reading, apart."""
    plans, unused = _plans(assembly.rule.name), assembly.unused
    left = assembly.context.left
    found = [Unmapped(location, "left", reason) for location, reason in left.items()]
    found += [Unmapped(location, "bad", _BAD) for location in assembly.context.lost if location not in left]
    counts: dict[str, int] = {}
    segments = iter(enumerate(assembly.context.message.segments))
    next(segments)  # MSH
    for position, fields in segments:
        name = fields[0]
        counts[name] = number = counts.get(name, 0) + 1
        if position in unused:
            found.extend(_all(fields, number, "left", unused[position]))
        else:
            found.extend(_of(fields, number, plans.get(name, _NO_PLAN)))
    return tuple(found)


def _of(fields: Segment, number: int, plan: Plan) -> tuple[Unmapped, ...]:
    sent = fields.sent
    unread, entries = (_unread, _entries) if sent <= _WIDEST else (_unread.__wrapped__, _entries.__wrapped__)
    found = unread(plan, tuple(compress(range(sent), fields)))
    for index in found:
        if fields[index][:1] in _BLANK:  # a field that may hold separators alone, which say nothing
            found = tuple(place for place in found if fields[place].strip("^~& "))
            break
    repeated = tuple(index for index in fields.whole if index in plan.single) if fields.whole else ()
    return entries(plan, fields[0], number, found, repeated) if found or repeated else ()


@lru_cache(4096)
def _unread(plan: Plan, held: tuple[int, ...]) -> tuple[int, ...]:
    """Memoised: most segments of a name hold the same fields."""
    return tuple(index for index in held if index not in plan.read)


@lru_cache(4096)
def _entries(
    plan: Plan, segment: str, number: int, found: tuple[int, ...], repeated: tuple[int, ...]
) -> tuple[Unmapped, ...]:
    """Memoised: most segments of a name leave the same fields, and an entry holds no value."""
    made = []
    for index in found:
        kind, reason = ("left", plan.left[index]) if index in plan.left else plan.otherwise
        made.append(Unmapped(f"{segment}[{number}]-{index}", kind, reason))
    made.extend(Unmapped(f"{segment}[{number}]-{index}", "left", _REPEATED) for index in repeated)
    return tuple(made)


def _all(fields: Segment, number: int, kind: str, reason: str) -> list[Unmapped]:
    held = compress(range(fields.sent), fields)
    return [_entry(fields[0], number, index, kind, reason) for index in held if index and fields[index].strip("^~& ")]


@lru_cache(4096)
def _entry(segment: str, number: int, index: int, kind: str, reason: str) -> Unmapped:
    return Unmapped(f"{segment}[{number}]-{index}", kind, reason)


def whole(segments: list[Segment], reason: str) -> tuple[Unmapped, ...]:
    """Every field of a message of which nothing was made."""
    counts: dict[str, int] = {}
    found: list[Unmapped] = []
    for fields in segments[1:]:
        counts[fields[0]] = number = counts.get(fields[0], 0) + 1
        found.extend(_all(fields, number, "bad", reason))
    return tuple(found)
