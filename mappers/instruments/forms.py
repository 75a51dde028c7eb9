"""An administration as CMS takes it, and its score as PCO has it; the source response stays as it was.

Source: ACCESS API IG 0.9.12, data reporting, QuestionnaireResponse; PCO 1.0.0, pco-prom-score-observation; US Core
6.1.0, us-core-questionnaireresponse and us-core-observation-screening-assessment.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from mappers.converters import resource_id
from mappers.instruments.answers import Administration, Answer, administration
from mappers.instruments.catalogue import Instrument, Item, Resource, objects
from profiles.canonical import (
    LOINC,
    OBSERVATION_CATEGORY,
    ORDINAL_VALUE,
    PCO,
    PCO_VERSION,
    UCUM,
    UNITY,
    US_CORE_PINNED,
)
from profiles.issue import Issue

_SDC_QUESTIONNAIRE = "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire|3.0.0"
_RESPONSE_PROFILE = US_CORE_PINNED("us-core-questionnaireresponse")
_SCORE_PROFILES = [
    f"{PCO('pco-prom-score-observation')}|{PCO_VERSION}",
    US_CORE_PINNED("us-core-observation-screening-assessment"),
]
_STATUS = {"completed": "final", "amended": "amended"}
_DAY = len("2026-01-31")


@dataclass(frozen=True, slots=True)
class CmsForm:
    """A response in CMS's shape with the bare Questionnaire that it names. With an error there is no `response`."""

    instrument: Instrument
    response: Resource | None
    questionnaire: Resource | None
    issues: tuple[Issue, ...]


def cms_response(response: Resource, *, base_url: str) -> CmsForm | None:
    """A stored QuestionnaireResponse as `$report-data` takes it; None: it is none of ACCESS's instruments.

    Shape: id, status, subject, authored, author as stored; `identifier` the source's own, else its address at
    `base_url` (the FHIR base, no slash at its end), so that CMS's copy leads back to it; `questionnaire` the source's
    if its items are CMS's already, else `<base_url>/Questionnaire/<measure>`. Items in CMS's order under CMS's linkIds:
    coded answers with `ordinalValue` inside the coding, answers without a LOINC code by words and number only, scores
    as decimals. A score that was not sent is counted where the rule is public. Applied twice it changes nothing.
    Raises: nothing.
    """
    read = administration(response)
    if read is None:
        return None
    if any(issue.is_error for issue in read.issues):
        return CmsForm(read.instrument, None, None, read.issues)
    url = _canonical(response, read, base_url)
    identifier = response.get("identifier") or {
        "system": f"{base_url}/QuestionnaireResponse",
        "value": str(response.get("id", "")),
    }
    kept = ("status", "subject", "authored", "author")
    texts = {str(item.get("linkId")): item["text"] for item in objects(response.get("item")) if "text" in item}
    shaped: Resource = {
        "resourceType": "QuestionnaireResponse",
        **({"id": response["id"]} if "id" in response else {}),
        "meta": {"profile": [_RESPONSE_PROFILE]},
        **({"identifier": identifier} if identifier.get("value") else {}),
        "questionnaire": url,
        **{name: response[name] for name in kept if name in response},
        "item": [_with_text(item, texts) for item in _items(read)],
    }
    return CmsForm(read.instrument, shaped, questionnaire(read, url), read.issues)


def _canonical(response: Resource, read: Administration, base_url: str) -> str:
    """The source's own form where its linkIds are CMS's already; ours for all others."""
    own = response.get("questionnaire")
    links = {str(item.get("linkId")) for item in objects(response.get("item"))}
    shaped = links <= {*read.answers, *(score.link for score in read.instrument.scores)}
    return (
        own
        if shaped and isinstance(own, str) and own[:1] != "#"
        else f"{base_url}/Questionnaire/{read.instrument.measure}"
    )


def _with_text(item: Resource, texts: dict[str, str]) -> Resource:
    """The words of the source stay with an item that keeps its linkId; none are added."""
    words = texts.get(item["linkId"])
    return {"linkId": item["linkId"], "text": words, "answer": item["answer"]} if words else item


def _items(read: Administration) -> list[Resource]:
    order = [item.link for item in read.instrument.items if item.link] or list(read.answers)
    items = [{"linkId": link, "answer": [_answer(read.answers[link])]} for link in order if link in read.answers]
    for score in read.instrument.scores:
        value = read.value(score)
        if value is not None and score.rule != "answer":
            items.append({"linkId": score.link, "answer": [{"valueDecimal": value}]})
    return items


def _answer(answer: Answer) -> dict[str, Any]:
    if answer.item.type != "choice" and answer.counts is not None:
        whole = answer.item.type == "integer"
        return {"valueInteger": int(answer.counts)} if whole else {"valueDecimal": answer.counts}
    coding: Resource = {}
    if answer.counts is not None:
        coding["extension"] = [{"url": ORDINAL_VALUE, "valueDecimal": answer.counts}]
    if answer.code is not None:
        coding |= {"system": LOINC, "code": answer.code}
    if answer.display is not None:
        coding["display"] = answer.display
    return {"valueCoding": coding}


def questionnaire(read: Administration, url: str) -> Resource:
    """The bare form: linkIds, LOINC codes, answer types and answer lists; its wording belongs to its owner."""
    instrument = read.instrument
    address, _, version = url.partition("|")
    form: Resource = {
        "resourceType": "Questionnaire",
        "id": instrument.measure,
        "meta": {"profile": [_SDC_QUESTIONNAIRE]},
        "url": address,
        **({"version": version} if version else {}),
        "title": instrument.title,
        "status": "active",
        "subjectType": ["Patient"],
        "code": [{"system": instrument.system, "code": instrument.code}],
    }
    answered = [(answer.link, answer.item) for answer in read.answers.values()]
    fixed = [(item.link, item) for item in instrument.items]
    items = [_question(link, item) for link, item in (answered if instrument.adaptive else fixed)]
    scores = [score for score in instrument.scores if score.rule != "answer"]
    items += [{"linkId": score.link, **_coded(score.code), "type": "decimal"} for score in scores]
    return form | {"item": items}


def _question(link: str, item: Item) -> Resource:
    made: Resource = {"linkId": link, **_coded(item.code), "type": item.type}
    return made | ({"answerValueSet": f"http://loinc.org/vs/{item.answers}"} if item.answers else {})


def _coded(code: str | None) -> Resource:
    return {"code": [{"system": LOINC, "code": code}]} if code else {}


def score_observation(response: Resource) -> tuple[Resource | None, tuple[Issue, ...]]:
    """The result of a response as a PCO PROM score, `derivedFrom` it; None: no number, no time, no subject, not final.

    Shape: the T-score or interval score where the instrument has one, else the total; the code is LOINC's of that
    score, and where LOINC has none the instrument's in ACCESSReportDataCompositionSectionCS (QuickDASH, WHODAS): no
    code is ours. The id hangs on that of the response. The response needs an `id`.
    """
    read = administration(response)
    score = read.instrument.score if read else None
    if read is None or score is None:
        return None, ()
    value = read.value(score)
    status = _STATUS.get(str(response.get("status")))
    when = response.get("authored")
    usable = value is not None and status and "subject" in response and isinstance(when, str) and len(when) >= _DAY
    if not usable or any(issue.is_error for issue in read.issues):
        return None, read.issues
    coding = {"system": LOINC, "code": score.code} if score.code else _named(read.instrument)
    made = {
        "resourceType": "Observation",
        "id": resource_id("Observation", "score", str(response["id"]), coding["code"]),
        "meta": {"profile": list(_SCORE_PROFILES)},
        "status": status,
        "category": [{"coding": [{"system": OBSERVATION_CATEGORY, "code": "survey", "display": "Survey"}]}],
        "code": {"coding": [coding]},
        "subject": response["subject"],
        "effectiveDateTime": when,
        "valueQuantity": _quantity(value),
        "derivedFrom": [{"reference": f"QuestionnaireResponse/{response['id']}"}],
    }
    return made, read.issues


def _named(instrument: Instrument) -> dict[str, str]:
    return {"system": instrument.system, "code": instrument.code, "display": instrument.title}


def _quantity(value: Decimal | None) -> Resource:
    return {"value": value, "unit": "score", "system": UCUM, "code": UNITY}
