"""One OBX to one Observation, and what belongs together under one OBR: blood pressures, the report, its text.

Source: HL7 v2-to-FHIR 1.0.0, OBX[Observation] and the ORU_R01 message map; US Core 6.1.0 for claims and pairing.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from mappers.conversion import Resource
from mappers.converters import concept
from mappers.hl7v2.compiled import TABLES
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.datatypes import lines
from mappers.hl7v2.dialect import repetitions
from mappers.hl7v2.identity import identify
from mappers.hl7v2.kinds import LABORATORY, VALUES, Kind, claim, kind_of
from mappers.hl7v2.parse import Segment
from profiles import canonical

_OBX, _VALUE = TABLES["OBX"], TABLES["value"]
_OF_VALUE, _OF_CODE = (2, 6), (2, 6, 7, 8, 11, 14, 16, 17, 20, 21, 23)  # fields that say nothing without OBX-5, OBX-3
_TEXT_TYPES = frozenset({"TX", "FT", "ST"})
_HALF_OF = {"systolic": ("8480-6", "Systolic blood pressure"), "diastolic": ("8462-4", "Diastolic blood pressure")}
_PRESSURE = canonical.US_CORE_PINNED("us-core-blood-pressure")
_PER_HALF = frozenset({"dataAbsentReason", "interpretation", "referenceRange"})
_BODIES = VALUES | {"component", "extension"}
_CAUTION = ("entered-in-error", "cancelled", "unknown", "registered", "preliminary", "corrected", "amended", "final")
_ABSENT = {"N": "not-asked", "I": "temp-unknown", "O": "temp-unknown", "S": "temp-unknown", "P": "temp-unknown"}


@dataclass(slots=True)
class Finding:
    """An Observation on its way: the segment's fields, its number, and what its code means."""

    resource: Resource
    kind: Kind
    fields: Segment
    number: int
    result: bool = True  # whether the report refers to it


@dataclass(slots=True)
class Group:
    """What one OBR holds together; without OBR, what the message does."""

    report: Resource | None = None
    number: int = 0  # of the OBR
    order: str = ""  # OBR-3, else OBR-2
    panel: str = ""  # OBR-4 as sent
    effective: dict[str, Any] = field(default_factory=dict)
    laboratory: bool = False
    findings: list[Finding] = field(default_factory=list)
    answers: list[Finding] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def observe(fields: Segment, group: Group, context: MessageContext) -> Resource | None:
    """Takes one OBX into its group. Gives the resource that a following NTE is a note of, if there is one."""
    if not fields[3]:
        _without_code(fields, group, context)
        return None
    kind = kind_of(fields[3])
    if kind.panel and not fields[5]:
        return None
    resource: Resource = {
        "resourceType": "Observation",
        "id": "",
        "meta": {"source": f"{context.urn}OBX/{context.number}"},
    }
    _OBX.run(fields, resource, context)
    if "code" not in resource:
        context.error(
            "required", "OBX-3 holds no code, so the value can not be read. Send the observation's code.", path="OBX-3"
        )
        return None
    resource["subject"] = context.subject
    if not fields[14]:  # a time that is there but can not be read is not replaced by another
        resource.update(group.effective)
    if "status" not in resource:
        resource["status"] = _status(fields, group, context)
    _value(fields, resource, context)
    finding = Finding(resource, kind, fields, context.number)
    if kind.item is not None:
        group.answers.append(finding)
        return resource
    group.findings.append(finding)
    return resource


def _without_code(fields: Segment, group: Group, context: MessageContext) -> None:
    """Text without a code is a line of the report; a value without a code is nothing: nobody may guess its meaning."""
    _leave(fields, _OF_CODE, "there is no observation to say it of: OBX-3 is empty", context)
    if fields[2] in _TEXT_TYPES and group.report is not None:
        group.texts.append(lines(fields.full(5), context) or "" if fields[5] else "")
        if fields[5]:
            context.warn(
                "required", "OBX-3 is empty; the text was kept as a line of the report. Send a code.", path="OBX-3"
            )
        return
    context.error("required", "OBX-3 is empty, so the value was not taken. Send the observation's code.", path="OBX-3")
    if fields[5]:
        context.lose("OBX-5")


def _leave(fields: Segment, indexes: tuple[int, ...], reason: str, context: MessageContext) -> None:
    for index in indexes:
        if fields[index]:
            context.leave(f"OBX-{index}", reason)


def _status(fields: Segment, group: Group, context: MessageContext) -> str:
    if fields[11]:
        return "unknown"  # not in the map: said there
    found = str(group.report["status"]) if group.report else "unknown"
    context.warn("required", "OBX-11 is empty; the status of the report (OBR-25) was taken. Send it.", path="OBX-11")
    return found if found in _CAUTION else "preliminary" if found == "partial" else "unknown"


def _value(fields: Segment, resource: Resource, context: MessageContext) -> None:
    written = fields[5]
    if written:
        if 5 in fields.whole and fields[2] not in _TEXT_TYPES and len(repetitions(fields.whole[5])) > 1:
            _components(fields, resource, context)
        else:
            _VALUE.run(fields, resource, context)
    else:
        _leave(fields, _OF_VALUE, "there is no value to say it of: OBX-5 is empty", context)
    if "valueQuantity" in resource or not _BODIES.isdisjoint(resource):
        return
    reason = "error" if written else _ABSENT.get(fields[11], "unknown")
    resource["dataAbsentReason"] = concept(canonical.DATA_ABSENT_REASON, reason)


def _components(fields: Segment, resource: Resource, context: MessageContext) -> None:
    """A repeated OBX-5: one component for each value, under the same code."""
    made: list[dict[str, Any]] = []
    for value in repetitions(fields.whole[5]):
        part: dict[str, Any] = {"code": resource["code"]}
        _VALUE.run(fields.replaced(5, value), part, context)
        if len(part) > 1:
            made.append(part)
    if made:
        resource["component"] = made


def finish(group: Group, context: MessageContext) -> list[Finding]:
    """Pairs, names and profiles the observations of a group. The order is that of the message."""
    halves = [each for each in group.findings if each.kind.half]
    findings = _paired(group, context) if halves else group.findings
    for finding in findings:
        resource, kind = finding.resource, finding.kind
        if kind.category is None and group.laboratory:
            finding.kind = kind = Kind(kind.key, kind.loinc, "laboratory", LABORATORY)
        if kind.category is not None:
            resource["category"] = _category(kind.category)
        resource["id"] = _identity(finding, group, context)
        profile = claim(resource, kind)
        if profile is not None:
            resource["meta"]["profile"] = _claimed(profile)
    return findings


@cache
def _category(code: str) -> list[dict[str, Any]]:
    return [concept(canonical.OBSERVATION_CATEGORY, code)]


@cache
def _claimed(profile: str) -> list[str]:
    return [profile]


def _identity(finding: Finding, group: Group, context: MessageContext) -> str:
    """By sender, patient, order, code, sub-id and time; see tables/identity.toml."""
    resource = finding.resource
    when = resource.get("effectiveDateTime") or str(resource.get("effectivePeriod", ""))
    parts = {"order": group.order, "OBX-3": finding.kind.key, "OBX-4": finding.fields[4], "effective": when}
    return identify("Observation", parts, context)


def _paired(group: Group, context: MessageContext) -> list[Finding]:
    """Systolic and diastolic of the same sub-id (else of the same time) as one blood pressure."""
    waiting: dict[tuple[str, str], list[Finding]] = {}
    pairs: list[tuple[Finding, Finding | None]] = []
    for finding in group.findings:
        if not _is_half(finding):
            pairs.append((finding, None))
            continue
        mark = finding.fields[4] or finding.resource.get("effectiveDateTime", "")
        other = "diastolic" if finding.kind.half == "systolic" else "systolic"
        partners = waiting.get((mark, other))
        if partners:
            _join(pairs, partners.pop(0), finding)
            continue
        waiting.setdefault((mark, finding.kind.half or ""), []).append(finding)
        pairs.append((finding, None))
    return [_pressure(one, two, context) if _is_half(one) else one for one, two in pairs]


def _is_half(finding: Finding) -> bool:
    return finding.kind.half is not None and "component" not in finding.resource


def _join(pairs: list[tuple[Finding, Finding | None]], first: Finding, second: Finding) -> None:
    position = next(index for index, (one, _) in enumerate(pairs) if one is first)
    pairs[position] = (first, second)


def _pressure(one: Finding, two: Finding | None, context: MessageContext) -> Finding:
    halves = {each.kind.half: each for each in (one, two) if each is not None}
    if two is None:
        context.enter("OBX", one.number)
        context.warn(
            "incomplete", "Half a blood pressure came without the other; it is marked as absent.", path="OBX-3"
        )
    elif one.resource.get("effectiveDateTime") != two.resource.get("effectiveDateTime"):
        context.enter("OBX", two.number)
        context.warn(
            "value", "The halves of a blood pressure differ in time; the first one's was taken.", path="OBX-14"
        )
    resource = {key: value for key, value in one.resource.items() if not _per_half(key)}
    resource["code"] = concept(canonical.LOINC, "85354-9", "Blood pressure panel with all children optional")
    resource["component"] = [_half(name, halves.get(name)) for name in _HALF_OF]
    if two is not None:
        _merge(resource, two.resource)
        resource["meta"] = {"source": f"{one.resource['meta']['source']},OBX/{two.number}"}
    exact = all(_measured(part) for part in resource["component"])
    kind = Kind("85354-9", "85354-9", "vital-signs", _PRESSURE if exact else None)
    return Finding(resource, kind, one.fields, one.number)


def _per_half(key: str) -> bool:
    return key in _PER_HALF or key.startswith("value")


def _half(name: str, finding: Finding | None) -> dict[str, Any]:
    code, display = _HALF_OF[name]
    if finding is None:
        absent = concept(canonical.DATA_ABSENT_REASON, "unknown")
        return {"code": concept(canonical.LOINC, code, display), "dataAbsentReason": absent}
    found = {key: value for key, value in finding.resource.items() if _per_half(key)}
    return {"code": finding.resource["code"], **found}


def _measured(part: dict[str, Any]) -> bool:
    """Whether the component is as the profile wants it: mm[Hg] with unit, or said to be absent."""
    value = part.get("valueQuantity")
    if value is None:
        return "dataAbsentReason" in part
    return bool(value.get("code") == "mm[Hg]" and value.get("system") == canonical.UCUM)


def _merge(resource: Resource, second: Resource) -> None:
    for key in ("note", "performer", "identifier"):
        added = [each for each in second.get(key, ()) if each not in resource.get(key, ())]
        if added:
            resource[key] = [*resource.get(key, ()), *added]
    resource["status"] = min((resource["status"], second["status"]), key=_CAUTION.index)
