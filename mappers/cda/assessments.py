"""Assessment scales, wherever they are nested: answers -> QuestionnaireResponse, total -> score Observation.

Source: C-CDA R2.1 Assessment Scale Observation (4.69, 4.86); HL7 C-CDA-Examples, PHQ-9; PCO 1.0.0,
pco-prom-score-observation; US Core 6.1.0, us-core-questionnaireresponse. No map is published.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from mappers import engine
from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.context import Document, Resource, account
from mappers.cda.datatypes import coding, number, value
from mappers.cda.observations import base, loinc, plain
from mappers.cda.parse import Node
from mappers.cda.paths import each, first, has_template, inside
from mappers.cda.people import author
from mappers.converters import decimal
from profiles.canonical import LOINC, ORDINAL_VALUE, UCUM, UNITY

_SCALE = "2.16.840.1.113883.10.20.22.4.69"
_LOINC_FORM = "http://loinc.org/q/"  # the canonical of a LOINC panel as a Questionnaire
_LOINC_CODE = re.compile(r"\d{1,7}-\d", re.ASCII)
_ANSWERS = ("Integer", "Quantity", "String", "Boolean", "DateTime")
_HANDLED = frozenset({"value", "author", "entryRelationship/observation"})


@dataclass(frozen=True, slots=True)
class Instrument:
    """One row of tables/instruments.toml. `items` count in the total, `beside` do not."""

    name: str
    panel: str
    total: str
    total_display: str
    items: tuple[str, ...]
    beside: tuple[str, ...]


@cache
def _instruments() -> dict[str, Instrument]:
    rows = engine.load("mappers.cda", "tables/instruments.toml")["instrument"]
    made = (Instrument(**(row | {name: tuple(row[name]) for name in ("items", "beside")})) for row in rows)
    return {one.panel: one for one in made}


@cache
def _ordinals() -> dict[str, int]:
    found: dict[str, int] = engine.load("mappers.cda", "tables/instruments.toml")["ordinals"]
    return found


def _code(node: Node) -> str:
    return (first("code/@code")(node) or "").strip()


def scales(root: Node) -> list[Node]:
    """All assessment scales of a document that state a fact, outermost only, in document order."""
    found: list[Node] = []
    known: set[Node] = set()
    for node in inside(root, "observation"):
        fact = node.get("moodCode") in (None, "EVN") and node.get("negationInd") != "true"
        if fact and (has_template(node, _SCALE) or _code(node) in _instruments()):
            if known.isdisjoint(node.iterancestors()):
                found.append(node)
            known.add(node)
    return found


def assessment(node: Node, document: Document) -> None:
    """One scale: the response when it has answers, the score when it has a total."""
    instrument = _instruments().get(_code(node))
    document.at(node)
    parts = each("entryRelationship/observation")(node)
    totals = [one for one in parts if instrument and _code(one) == instrument.total]
    answers = [one for one in parts if one not in totals and first("value")(one) is not None]
    response = _response(node, answers, document=document) if answers else None
    if instrument is None:
        _generic(node, response, document=document)
    else:
        _score(node, totals, instrument=instrument, response=response, document=document)
        _check(node, totals, answers=answers, kind=instrument, document=document)
    account(node, document, read=dialect.reads("observation"), handled=_HANDLED)


def _generic(node: Node, response: str | None, *, document: Document) -> None:
    """A scale that this reader does not know: its value as a screening observation."""
    reference = plain(node, document, kind="survey")
    if reference and response:
        document.resources[-1]["derivedFrom"] = [{"reference": response}]


def _response(node: Node, answers: list[Node], *, document: Document) -> str | None:
    panel = dialect.apply("observation", node, document=document, kind="QuestionnaireResponse")
    code = loinc(panel)
    resource: Resource = {"resourceType": "QuestionnaireResponse"}
    if panel.get("identifier"):
        resource["identifier"] = panel["identifier"][0]
    if code and _LOINC_CODE.fullmatch(code):
        resource["questionnaire"] = f"{_LOINC_FORM}{code}"
    resource["status"] = "completed" if panel.get("status") == "final" else "in-progress"
    resource["subject"] = {"reference": document.patient_reference}
    when = panel.get("effectiveDateTime") or _latest(answers, document)
    if when:
        resource["authored"] = when
    writer = first("author")(node)
    who = author(writer, document) if writer is not None else None
    if who and who.partition("/")[0] in ("Practitioner", "Patient", "Organization"):
        resource["author"] = {"reference": who}
    resource["item"] = [found for one in answers if (found := _item(one, document))]
    claim(resource, "us-core-questionnaireresponse")
    return document.add(resource, node) if resource["item"] else None


def _latest(answers: list[Node], document: Document) -> str | None:
    times = [dialect.apply("report", one, document=document, kind="").get("effectiveDateTime") for one in answers]
    return max((str(one) for one in times if one), default=None)


def _item(node: Node, document: Document) -> dict[str, Any] | None:
    code = _code(node)
    if not code:
        document.leave(node, "bad", reason="The answer has no code that says to which question.")
        return None
    item: dict[str, Any] = {"linkId": f"/{code}"}
    if display := " ".join((first("code/@displayName")(node) or "").split()):
        item["text"] = display
    answer = _answer(node, document)
    return item | ({"answer": [answer]} if answer else {})


def _answer(node: Node, document: Document) -> dict[str, Any] | None:
    """The coded answer with its score inside (ordinalValue), else the plain value."""
    document.at(node)
    codes = [coding(one, document) for one in each("value")(node) if one.get("code")]
    coded = next((one for one in codes if one), None)
    score = _stated(node, document)
    if coded is not None:
        ordinal = {"extension": [{"url": ORDINAL_VALUE, "valueDecimal": score}]} if score is not None else {}
        return {"valueCoding": ordinal | coded}
    made = next((found for one in each("value")(node) if (found := value(one, document))), None)
    return {f"value{made[0]}": made[1]} if made is not None and made[0] in _ANSWERS else None


def _stated(node: Node, document: Document) -> Decimal | None:
    """The number of an observation: of an INT, REAL or PQ value, or of a text that is nothing but a number."""
    for one in each("value")(node):
        if one.get("code") is None:
            found = number(one.get("value"), document) if one.get("value") else decimal("".join(one.itertext()))
            if found is not None:
                return found
    return None


def _score(node: Node, totals: list[Node], *, instrument: Instrument, response: str | None, document: Document) -> None:
    """The total as a PCO score, from its own observation, else from the panel's value."""
    holder = totals[0] if totals else node
    total = _stated(holder, document.at(holder))
    if total is None and totals:
        holder, total = node, _stated(node, document.at(node))
    if total is None:
        document.at(node).inform("The scale states no total: no score is made of its answers.")
        return
    resource = base(holder, document, kind="survey")
    whole = base(node, document, kind="survey")
    if resource is None or whole is None:
        return
    for name in [name for name in resource if name.startswith("value") or name == "dataAbsentReason"]:
        del resource[name]
    resource["code"] = {"coding": [{"system": LOINC, "code": instrument.total, "display": instrument.total_display}]}
    resource["valueQuantity"] = {"value": total, "unit": "score", "system": UCUM, "code": UNITY}
    _inherit(resource, whole)
    if response:
        resource["derivedFrom"] = [{"reference": response}]
    claim(resource, "pco-prom-score-observation", "us-core-observation-screening-assessment")
    document.add(resource, holder)


def _inherit(resource: Resource, panel: Resource) -> None:
    """What the total does not say for itself, its panel says."""
    timed = any(name.startswith("effective") for name in resource)
    names = ("interpretation", "referenceRange", *(() if timed else ("effectiveDateTime", "effectivePeriod")))
    resource |= {name: panel[name] for name in names if name in panel and name not in resource}


def _check(node: Node, totals: list[Node], *, answers: list[Node], kind: Instrument, document: Document) -> None:
    """The stated totals against each other and against the sum of the answers; both are kept as stated."""
    stated = [found for one in (*totals, node) if (found := _stated(one, document)) is not None]
    if len(set(stated)) > 1:
        document.at(node).warn("conflict", f"The {kind.name} states two different totals: the total's own is used.")
    scores = list(_scores(answers, kind, document=document))
    if len(scores) == len(kind.items) and stated and sum(scores) != stated[0]:
        document.at(node).warn("conflict", f"The {kind.name} total is not the sum of its answers: both are kept.")


def _scores(answers: list[Node], kind: Instrument, *, document: Document) -> Iterator[Decimal]:
    for one in answers:
        if _code(one) in kind.items:
            found = _stated(one, document)
            codes = [_ordinals().get(part.get("code") or "") for part in each("value")(one)]
            known = [Decimal(part) for part in codes if part is not None]
            yield from [found] if found is not None else known[:1]
