"""Questionnaire items that arrive one OBX each: one QuestionnaireResponse an instrument, and its score.

Which questions belong together, what answers count and how a score is made is told by mappers/instruments. An item is
named by its LOINC code, or by CMS's linkId where it has none (`odi-1`). The guide has no map for this: ours. A total
that does not fit its items is reported and never repaired.
Source: LOINC panels; ACCESS API IG 0.9.12, data reporting; US Core 6.1.0, us-core-questionnaireresponse.
"""

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Any

from mappers.conversion import Resource
from mappers.converters import reference
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.identity import identify
from mappers.hl7v2.observations import Finding, Group
from mappers.instruments import Instrument, administration, catalogue, recognise, score_observation
from mappers.instruments.catalogue import CODE, Item, answer_list
from profiles import canonical
from profiles.issue import Severity

_PROFILE = canonical.US_CORE_PINNED("us-core-questionnaireresponse")
_LOINC_FORM = "http://loinc.org/q/"  # the canonical of a LOINC panel as a Questionnaire
_WRONG = "The {} total is not the sum of its items. Both were kept as sent; ask the sender."
_NO_PLACE = (6, 7, 8, 16, 17, 20, 21, 23)
_STATUS = {
    "F": "completed",
    "C": "amended",
    "A": "amended",
    "P": "in-progress",
    "D": "entered-in-error",
    "W": "entered-in-error",
}


def respond(group: Group, context: MessageContext) -> list[Resource]:
    """The responses and scores of a group's answers; answers of no instrument become findings again.

    PROMIS forms and adaptive tests share their items: a few of them are no instrument, but single Observations.
    """
    made: list[Resource] = []
    here = context.name, context.number
    named = next((one for one in catalogue().values() if _is_named(group, one)), None)
    for one in [named] if named else []:
        made += _taken(group, one, "", context)
    panel = "" if named else group.panel.partition("^")[0]
    for one in catalogue().values():
        if group.answers:
            made += _taken(group, one, panel, context)
    group.findings = sorted((*group.findings, *group.answers), key=lambda finding: finding.number)
    group.answers = []
    context.enter(*here)
    return made


@cache
def _questions(measure: str) -> Mapping[str, Item]:
    """The items of an instrument by each of their names."""
    return {name: item for item in catalogue()[measure].items for name in item.names}


def _is_named(group: Group, instrument: Instrument) -> bool:
    """Whether OBR-4 is the code of the instrument, first or as an alternate."""
    return instrument.code in group.panel.split("^")


def _taken(group: Group, instrument: Instrument, panel: str, context: MessageContext) -> list[Resource]:
    """The response of the group's answers to one instrument, with its score; nothing where they are not its."""
    whole = _is_named(group, instrument)
    items = _questions(instrument.measure)
    beside = instrument.beside | ({item.code for item in instrument.items if not item.scored} - {None})
    answers = [each for each in group.answers if each.kind.item in items or whole and each.kind.item in beside]
    scores = [each for each in group.findings if any(_name(each) in score.names for score in instrument.scores)]
    if whole and instrument.adaptive:  # a test whose items vary: every coded answer is one
        more = [each for each in _without(group.findings, scores) if "valueCodeableConcept" in each.resource]
        answers = sorted((*answers, *more), key=lambda finding: finding.number)
    if not answers or not whole and _recognised(answers, scores, panel) is not instrument:
        return []
    response = _response(group, answers, scores, instrument, context)
    alone = instrument.score is not None and instrument.score.rule == "answer"  # the answer is the score
    kept = [each for each in answers if alone or "note" in each.resource]
    group.answers = _without(group.answers, answers)
    group.findings = [*_without(group.findings, answers), *kept]
    for each in (*scores, *kept):
        each.resource["derivedFrom"] = [reference("QuestionnaireResponse", response["id"])]
    for each in _without(answers, kept):
        _leave(each, answers[0], context)
    _check(response, instrument, scores or answers[:1], context)
    return [response, *_score(response, instrument, answers if alone else scores)]


def _without(findings: list[Finding], taken: list[Finding]) -> list[Finding]:
    numbers = {each.number for each in taken}
    return [each for each in findings if each.number not in numbers]


def _leave(answer: Finding, first: Finding, context: MessageContext) -> None:
    """What an answer has no place for, for the account; the first one's status and time are the response's."""
    context.enter("OBX", answer.number)
    other = [index for index in (11, 14) if answer.fields[index] != first.fields[index]]
    for index in (*_NO_PLACE, *other):
        if answer.fields[index]:
            context.leave(f"OBX-{index}", "an answer of a questionnaire has no place for it")


def _recognised(answers: list[Finding], scores: list[Finding], panel: str) -> Instrument | None:
    """Which instrument answers without a name are of, as `recognise` tells it for FHIR: by their codes."""
    names = [each.kind.loinc or each.kind.item for each in (*answers, *scores)]
    form = {"questionnaire": f"{_LOINC_FORM}{panel}"} if CODE.fullmatch(panel) else {}
    return recognise(form | {"item": [{"linkId": name} for name in names]})


def _name(finding: Finding) -> str:
    return finding.kind.loinc or finding.fields[3].partition("^")[0]


def _response(
    group: Group, answers: list[Finding], scores: list[Finding], instrument: Instrument, context: MessageContext
) -> Resource:
    first = answers[0]
    when = first.resource.get("effectiveDateTime", "")
    parts = {"order": group.order, "instrument": instrument.measure, "effective": when}
    questions = _questions(instrument.measure)
    made: Resource = {
        "resourceType": "QuestionnaireResponse",
        "id": identify("QuestionnaireResponse", parts, context),
        "meta": {"source": context.urn + ",".join(f"OBX/{each.number}" for each in answers)},
    }
    if instrument.system == canonical.LOINC:
        made["questionnaire"] = f"{_LOINC_FORM}{instrument.code}"
    made |= {
        "status": _STATUS.get(first.fields[11], "completed"),
        "subject": context.subject,
        "item": [_item(each, questions.get(each.kind.item or "")) for each in (*answers, *scores)],
    }
    if when:
        made["authored"] = when
    if when and "questionnaire" in made:
        made["meta"]["profile"] = [_PROFILE]
    return made


def _item(finding: Finding, question: Item | None) -> dict[str, Any]:
    """One item; the linkId is that of LOINC's own form, a slash and the code, else the code as it was sent."""
    loinc = finding.kind.loinc
    made: dict[str, Any] = {"linkId": f"/{loinc}" if loinc else _name(finding)}
    code = finding.resource["code"]
    words = code.get("text") or next((each["display"] for each in code["coding"] if "display" in each), None)
    if words and words != loinc:
        made["text"] = words
    answer = _answer(finding.resource, question)
    return {**made, "answer": [answer]} if answer else made


def _answer(resource: Resource, question: Item | None) -> dict[str, Any] | None:
    """The answer of an item, with what its code counts."""
    if "valueQuantity" in resource:
        found = resource["valueQuantity"]
        return None if "comparator" in found else {"valueDecimal": found["value"]}
    if "valueString" in resource:
        return {"valueString": resource["valueString"]}
    concept = resource.get("valueCodeableConcept")
    if not concept:
        return None
    if "coding" not in concept:
        return {"valueString": concept["text"]}
    coding = dict(concept["coding"][0])
    counts = _counts(coding, question)
    if counts is not None:
        coding = {"extension": [{"url": canonical.ORDINAL_VALUE, "valueDecimal": counts}], **coding}
    return {"valueCoding": coding}


def _counts(coding: dict[str, Any], question: Item | None) -> Decimal | None:
    if question is None or question.answers is None or not question.scored or coding.get("system") != canonical.LOINC:
        return None
    answers = answer_list(question.answers)
    return answers.ordinals.get(answers.equivalents.get(coding["code"], coding["code"]))


def _check(response: Resource, instrument: Instrument, where: list[Finding], context: MessageContext) -> None:
    """What mappers/instruments finds wrong with the answers or the total: said, and nothing is changed."""
    read = administration(response, instrument)
    context.enter("OBX", where[0].number)
    for issue in read.issues if read else ():
        if issue.code == "business-rule":
            context.warn("business-rule", _WRONG.format(instrument.measure), path="OBX-5")
        elif issue.severity is not Severity.INFORMATION:
            context.report(issue.severity, issue.code, issue.text, path="OBX-5")


def _score(response: Resource, instrument: Instrument, scores: list[Finding]) -> list[Resource]:
    """The PCO score that nobody sent under its LOINC code."""
    code = instrument.score.code if instrument.score else None
    if any(each.kind.loinc == code for each in scores if code):
        return []
    made, _ = score_observation(response)
    return [made | {"meta": made["meta"] | {"source": response["meta"]["source"]}}] if made else []
