"""Assessment scales, wherever they are nested: answers -> QuestionnaireResponse, total -> score Observation.

Source: C-CDA R2.1 Assessment Scale Observation (4.69, 4.86); HL7 C-CDA-Examples, PHQ-9; PCO 1.0.0,
pco-prom-score-observation; US Core 6.1.0, us-core-questionnaireresponse. No map is published.
"""

import re
from decimal import Decimal
from functools import cache
from typing import Any

from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.compiled import Kept
from mappers.cda.context import Document, Resource, says
from mappers.cda.datatypes import coding, number, value
from mappers.cda.node import Node
from mappers.cda.observations import PERFORMERS, as_score, category, is_score, loinc, writers
from mappers.cda.paths import child, children, first, has_template, qualified
from mappers.cda.times import earliest
from mappers.converters import decimal
from mappers.instruments import Instrument, administration, catalogue, recognise, score_observation
from profiles.canonical import DATA_ABSENT_REASON, LOINC, ORDINAL_VALUE, UCUM, UNITY
from profiles.issue import Severity

_SCALE = "2.16.840.1.113883.10.20.22.4.69"
_SCALE_BYTES = _SCALE.encode()
_LOINC_FORM = "http://loinc.org/q/"  # the canonical of a LOINC panel as a Questionnaire
_LOINC_CODE = re.compile(r"\d{1,7}-\d", re.ASCII)
_OBSERVATION, _TEMPLATE, _CODED = qualified("observation"), qualified("templateId"), qualified("code")
_VALUE, _TIME = qualified("value"), qualified("effectiveTime")
_CODE, _DISPLAY = first("code/@code"), first("code/@displayName")
_ANSWERS = ("Integer", "Quantity", "String", "Boolean", "DateTime")
_WRONG = "The {} total is not the sum of its answers, or not what its rule makes of them: both are kept as stated."
_PARTS = "entryRelationship/observation"
_RESPONDERS = ("Practitioner", "PractitionerRole", "Patient", "RelatedPerson", "Organization", "Device")


@cache
def _instruments() -> dict[str, Instrument]:
    """The instruments of ACCESS by the LOINC code of their panel."""
    return {one.code: one for one in catalogue().values() if one.system == LOINC and one.code}


@cache
def _totals() -> dict[str, dict[str, Any]]:
    """The Coding of each panel's score, by the panel's code."""
    codes = {panel: one.score.code for panel, one in _instruments().items() if one.score and one.score.code}
    return {panel: {"system": LOINC, "code": code} for panel, code in codes.items() if code}


def _code(node: Node) -> str:
    return (_CODE(node) or "").strip()


def may_hold(data: bytes) -> bool:
    """Whether the bytes mention the template of a scale: most do not, and need no search of the tree.

    A scale that only its panel's code shows is told where its statement is read (`panels`).
    """
    return _SCALE_BYTES in data or b"urn:hl7-org:v3" not in data


def panels() -> frozenset[str]:
    """The LOINC codes of the instruments' panels."""
    return frozenset(_instruments())


def scales(statement: Node, known: set[Node]) -> list[Node]:
    """The assessment scales of a statement that state a fact, outermost only, in document order; `known` grows."""
    found: list[Node] = []
    for node in statement.iter(_OBSERVATION):
        if _is_scale(node) and node not in known:
            if known.isdisjoint(node.iterancestors()):
                found.append(node)
            known.add(node)
    return found


def _is_scale(node: Node) -> bool:
    """Whether an observation is a scale, by its template or by its first code."""
    coded = False
    for one in node[:]:
        tag = one.tag
        if tag == _TEMPLATE:
            if one.get("root") == _SCALE:
                break
        elif tag == _CODED and not coded:
            if (one.get("code") or "").strip() in _instruments():
                break
            coded = True
    else:
        return False
    return node.get("moodCode") in (None, "EVN") and node.get("negationInd") != "true"


def assessment(node: Node, document: Document) -> None:
    """One scale: the response when it has answers, the score when it has a total."""
    before = len(document.entry_targets)
    panel, kept = dialect.apply("scale", node, document=document, kind="Observation")
    if "code" not in panel:
        document.leave(node, "bad", reason="The scale has no code: nobody can tell what was asked.")
        return
    instrument = _instruments().get(_code(node))
    known = {score.code for score in instrument.scores} - {None} if instrument else set()
    totals: list[Node] = []
    answers: list[Node] = []
    for one in kept.get(_PARTS, ()):
        if _code(one) in known:
            totals.append(one)
        elif child(one, _VALUE) is not None:
            answers.append(one)
        else:
            document.unread(one)
    if instrument is not None and _is_answer(instrument) and has_template(node, _SCALE):
        answers = [one for one in (*totals, node) if child(one, _VALUE) is not None][:1]
    response = _response(panel, kept, node=node, answers=answers, document=document) if answers else None
    _whole(panel, kept, document=document)
    if instrument is None or _code(node) not in _totals():
        _generic(panel, kept, node=node, response=response, document=document)
    else:
        _score(panel, node, totals=totals, response=response, document=document)
    document.stated[node] = document.entry_targets[before:]
    if response:
        _check(document.made[response], node=node, document=document)


def _is_answer(instrument: Instrument) -> bool:
    """Whether the one answer is the score: a rating."""
    return instrument.score is not None and instrument.score.rule == "answer"


def _whole(panel: Resource, kept: Kept, *, document: Document) -> None:
    """What every Observation of a scale has."""
    panel.setdefault("status", "unknown")
    panel["category"] = [category("survey")]
    panel["subject"] = document.subject
    people = [{"reference": one} for one in writers(kept, document) if one.partition("/")[0] in PERFORMERS]
    if people:
        panel["performer"] = people


def _generic(panel: Resource, kept: Kept, *, node: Node, response: str | None, document: Document) -> None:
    """A scale that this reader does not know: its value as a screening observation."""
    found = [made for one in kept.get("value", ()) if (made := value(one, document.at(one))) is not None]
    if response:
        total = _stated(node, document.at(node))
        _counted(response, node=node, stated=total, document=document)
        panel["derivedFrom"] = [{"reference": response}]
    if found:
        panel[f"value{found[0][0]}"] = found[0][1]
    elif response is None:
        panel["dataAbsentReason"] = {"coding": [{"system": DATA_ABSENT_REASON, "code": "unknown"}]}
    else:
        return  # all that it says are its answers
    as_score(panel)
    claim(panel, *_wanted(panel), "us-core-observation-screening-assessment", "us-core-simple-observation")
    document.add(panel, node)


def _counted(response: str, *, node: Node, stated: Decimal | None, document: Document) -> bool:
    """The score of a response that has none under a LOINC code: as stated, else as a public rule gives it."""
    held = document.made[response]
    instrument = recognise(held)
    score = instrument.score if instrument else None
    if score is not None and stated is not None:
        held["item"].append({"linkId": score.link, "answer": [{"valueDecimal": stated}]})
    made, _ = score_observation(held)
    if made is not None:
        made.pop("id")
        document.add(made, node)
    return made is not None


def _wanted(panel: Resource) -> list[str]:
    return ["pco-prom-score-observation"] if is_score(panel) else []


def _response(panel: Resource, kept: Kept, *, node: Node, answers: list[Node], document: Document) -> str | None:
    code = loinc(panel)
    resource: Resource = {"resourceType": "QuestionnaireResponse"}
    if panel.get("identifier"):
        resource["identifier"] = panel["identifier"][0]
    if code and _LOINC_CODE.fullmatch(code):
        resource["questionnaire"] = f"{_LOINC_FORM}{code}"
    resource["status"] = "completed" if panel.get("status") == "final" else "in-progress"
    resource["subject"] = document.subject
    when = panel.get("effectiveDateTime") or _latest(answers, document)
    if when:
        resource["authored"] = when
    who = next((one for one in writers(kept, document) if one.partition("/")[0] in _RESPONDERS), None)
    if who:
        resource["author"] = {"reference": who}
    items = [found for one in answers if (found := _item(one, node, document))]
    if not items:
        return None
    resource["item"] = items
    claim(resource, "us-core-questionnaireresponse")
    return document.add(resource, node)


def _latest(answers: list[Node], document: Document) -> str | None:
    times = (child(one, _TIME) for one in answers)
    found = (earliest(one, document.at(one)) for one in times if one is not None)
    return max((one for one in found if one), default=None)


def _item(node: Node, scale: Node, document: Document) -> dict[str, Any] | None:
    code = _code(node)
    if not code:
        document.leave(node, "bad", reason="The answer has no code that says to which question.")
        return None
    time = child(node, _TIME)
    if node is not scale and time is not None and says(time):
        document.leave(time, "left", reason="A QuestionnaireResponse has one time for all of its answers.")
    item: dict[str, Any] = {"linkId": f"/{code}" if _LOINC_CODE.fullmatch(code) else code}
    if display := " ".join((_DISPLAY(node) or "").split()):
        item["text"] = display
    answer = _answer(node, document)
    if answer:
        item["answer"] = [answer]
    return item


def _answer(node: Node, document: Document) -> dict[str, Any] | None:
    """The coded answer with its score inside (ordinalValue), else the plain value."""
    document.at(node)
    values = children(node, _VALUE)
    codes = [coding(one, document) for one in values if one.get("code")]
    coded = next((one for one in codes if one), None)
    score = _number(values, document)
    if coded is not None:
        ordinal = {"extension": [{"url": ORDINAL_VALUE, "valueDecimal": score}]} if score is not None else {}
        return {"valueCoding": ordinal | coded}
    made = next((found for one in values if (found := value(one, document))), None)
    return {f"value{made[0]}": made[1]} if made is not None and made[0] in _ANSWERS else None


def _stated(node: Node, document: Document) -> Decimal | None:
    """The number of an observation: of an INT, REAL or PQ value, or of a text that is nothing but a number."""
    return _number(children(node, _VALUE), document)


def _number(values: list[Node], document: Document) -> Decimal | None:
    for one in values:
        if one.get("code") is None:
            written = one.get("value")
            found = number(written, document) if written else decimal("".join(one.itertext()))
            if found is not None:
                return found
    return None


def _score(panel: Resource, node: Node, *, totals: list[Node], response: str | None, document: Document) -> None:
    """The total as a PCO score, from its own observation, else from the panel's value."""
    coding_ = _totals()[_code(node)]
    own = [one for one in totals if _code(one) == coding_["code"]]
    holder = own[0] if own else node
    total = _stated(holder, document.at(holder))
    if total is None and own:
        holder, total = node, _stated(node, document.at(node))
    if total is None:
        if response is None or not _counted(response, node=node, stated=None, document=document):
            document.at(node).inform("The scale states no total: no score is made of its answers.")
        return
    others = {found for one in (*totals, node) if (found := _stated(one, document.at(one))) is not None}
    if len(own) and _stated(node, document.at(node)) not in (None, total) or len(own) > 1 and len(others) > 1:
        document.at(node).warn("conflict", "The scale states two different totals: the total's own is used.")
    resource = panel
    if holder is not node:
        resource, kept = dialect.apply("scale", holder, document=document, kind="Observation")
        _whole(resource, kept, document=document)
        _inherit(resource, panel)
    resource["code"] = {"coding": [dict(coding_)]}
    resource["valueQuantity"] = {"value": total, "unit": "score", "system": UCUM, "code": UNITY}
    if response:
        resource["derivedFrom"] = [{"reference": response}]
    if response and not _is_answer(_instruments()[_code(node)]):
        _state(total, document.made[response], code=coding_["code"])
    claim(resource, "pco-prom-score-observation", "us-core-observation-screening-assessment")
    document.add(resource, holder)


def _state(total: Decimal, response: Resource, *, code: str) -> None:
    """The total as the last item of its response, so that nobody has to count it again, and perhaps otherwise."""
    response["item"].append({"linkId": f"/{code}", "answer": [{"valueDecimal": total}]})


def _inherit(resource: Resource, panel: Resource) -> None:
    """What the total does not say for itself, its panel says."""
    timed = any(name.startswith("effective") for name in resource)
    names = ("interpretation", "referenceRange", *(() if timed else ("effectiveDateTime", "effectivePeriod")))
    resource |= {name: panel[name] for name in names if name in panel and name not in resource}


def _check(response: Resource, *, node: Node, document: Document) -> None:
    """What mappers/instruments finds wrong with the answers or the total: said, and nothing is changed."""
    read = administration(response)
    for issue in read.issues if read else ():
        if issue.severity is not Severity.INFORMATION:
            text = _WRONG.format(read.instrument.measure) if read and issue.code == "business-rule" else issue.text
            document.at(node).report(issue.severity, issue.code, text)
