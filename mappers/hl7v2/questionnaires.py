"""Questionnaire items that arrive one OBX each: one QuestionnaireResponse, from which the score is derived.

Source: LOINC panels and their answer lists (tables/instruments.toml); US Core 6.1.0 us-core-questionnaireresponse. The
guide has no map for this: ours. A total that does not fit its items is reported and never repaired.
"""

from decimal import Decimal
from typing import Any

from mappers.conversion import Resource
from mappers.converters import reference
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.identity import identify
from mappers.hl7v2.kinds import Instrument, instruments, ordinals
from mappers.hl7v2.observations import Finding, Group
from profiles import canonical

_PROFILE = canonical.US_CORE_PINNED("us-core-questionnaireresponse")
_ORDINAL = "http://hl7.org/fhir/StructureDefinition/ordinalValue"
_STATUS = {
    "F": "completed",
    "C": "amended",
    "A": "amended",
    "P": "in-progress",
    "D": "entered-in-error",
    "W": "entered-in-error",
}


def respond(group: Group, context: MessageContext) -> Resource | None:
    """The QuestionnaireResponse of a group with items; its score, if it came, is linked and checked."""
    instrument = instrument_of(group)
    if instrument is None:
        return None
    score = next((each for each in group.findings if each.kind.loinc == instrument.total), None)
    first = group.answers[0]
    when = first.resource.get("effectiveDateTime", "")
    parts = {"order": group.order, "instrument": instrument.name, "effective": when}
    made: Resource = {
        "resourceType": "QuestionnaireResponse",
        "id": identify("QuestionnaireResponse", parts, context),
        "meta": {"source": context.urn + ",".join(f"OBX/{each.number}" for each in group.answers)},
        "questionnaire": instrument.questionnaire,
        "status": _STATUS.get(first.fields[11], "completed"),
        "subject": context.subject,
        "item": _items(group, score, instrument),
    }
    if when:
        made["authored"] = when
        made["meta"]["profile"] = [_PROFILE]
    if score is not None:
        score.resource["derivedFrom"] = [reference("QuestionnaireResponse", made["id"])]
        _check_total(instrument, group, score, context)
    return made


def instrument_of(group: Group) -> Instrument | None:
    """By the panel's code, else by an item that only one instrument has, else by all items of one; None: not told.

    PROMIS forms and adaptive tests share their items: a few of them are no instrument, but single Observations.
    """
    known = instruments().values()
    for each in known:
        if f"{each.panel}^" in group.panel:
            return each
    codes = {finding.kind.loinc for finding in group.answers}
    summed = next((each for each in known if each.summed and codes & set(each.items)), None)
    whole = [each for each in known if not each.summed and codes >= set(each.items)]
    return summed or max(whole, key=lambda each: len(each.items), default=None)


def _items(group: Group, score: Finding | None, instrument: Instrument) -> list[dict[str, Any]]:
    return [_item(finding, instrument) for finding in (*group.answers, *([score] if score else []))]


def _item(finding: Finding, instrument: Instrument) -> dict[str, Any]:
    """One item; the linkId is that of LOINC's own form: a slash and the code."""
    made: dict[str, Any] = {"linkId": f"/{finding.kind.loinc}"}
    code = finding.resource["code"]
    words = code.get("text") or next((each["display"] for each in code["coding"] if "display" in each), None)
    if words and words != finding.kind.loinc:
        made["text"] = words
    answer = _answer(finding.resource, counted=instrument.summed)
    return {**made, "answer": [answer]} if answer else made


def _answer(resource: Resource, *, counted: bool = True) -> dict[str, Any] | None:
    """The answer of an item; `counted`: with what its code counts."""
    if "valueQuantity" in resource:
        return (
            {"valueDecimal": resource["valueQuantity"]["value"]}
            if "comparator" not in resource["valueQuantity"]
            else None
        )
    if "valueString" in resource:
        return {"valueString": resource["valueString"]}
    concept = resource.get("valueCodeableConcept")
    if not concept:
        return None
    if "coding" not in concept:
        return {"valueString": concept["text"]}
    coding = dict(concept["coding"][0])
    ordinal = ordinals().get(coding["code"]) if counted and coding.get("system") == canonical.LOINC else None
    if ordinal is not None:
        coding = {"extension": [{"url": _ORDINAL, "valueDecimal": Decimal(ordinal)}], **coding}
    return {"valueCoding": coding}


def _check_total(instrument: Instrument, group: Group, score: Finding, context: MessageContext) -> None:
    counted = [_points(each.resource) for each in group.answers if each.kind.loinc in instrument.items]
    total = score.resource.get("valueQuantity", {}).get("value") if instrument.summed else None
    if total is None or len(counted) != len(instrument.items) or None in counted:
        return
    if total != sum(points for points in counted if points is not None):
        context.enter("OBX", score.number)
        text = f"The {instrument.name} total is not the sum of its items. Both were kept as sent; ask the sender."
        context.warn("business-rule", text, path="OBX-5")


def _points(resource: Resource) -> Decimal | None:
    answer = _answer(resource) or {}
    if "valueDecimal" in answer:
        return Decimal(answer["valueDecimal"])
    extensions = answer.get("valueCoding", {}).get("extension")
    return extensions[0]["valueDecimal"] if extensions else None
