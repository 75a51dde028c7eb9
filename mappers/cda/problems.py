"""Problems and health concerns -> Condition, one per problem observation.

Source: C-CDA on FHIR 2.0.0, CF-problems; US Core 6.1.0, us-core-condition-problems-health-concerns.
"""

from functools import cache
from typing import Any

from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.compiled import Kept
from mappers.cda.context import Document, Resource, codes, identifiers, says
from mappers.cda.node import Node
from mappers.cda.paths import children, each, first, has_template, qualified
from mappers.cda.people import author
from mappers.cda.times import point
from profiles.canonical import CONDITION_CATEGORY, CONDITION_CLINICAL

_HEALTH_CONCERN = "http://hl7.org/fhir/us/core/CodeSystem/condition-category"
_RECORDERS = ("Practitioner", "PractitionerRole", "Patient", "RelatedPerson")
_OBSERVATION = "2.16.840.1.113883.10.20.22.4.4"
_AUTHOR = qualified("author")
_TAG, _RELATION = qualified("observation"), qualified("entryRelationship")
_ENDED = {"inactive", "resolved", "remission"}
_ANY_PROBLEM = {"55607006", "404684003", "64572001"}  # problem, finding, disease: "no problem" when negated


def problem(node: Node, document: Document, *, kind: str) -> list[str]:
    """A concern act, or a problem observation standing alone -> Conditions; `kind` is the category code."""
    if node.tag == _TAG:
        found = _condition(node, None, document=document, kind=kind)
        return [found] if found else []
    document.around(node)
    made: list[str] = []
    inner = [one for relation in node[:] if relation.tag == _RELATION for one in relation[:]]
    stating = [one for one in inner if one.tag == _TAG and _states(one)]
    own = identifiers(node) if stating else []
    for one in stating:
        found = _condition(one, node, document=document, kind=kind)
        if found is not None:
            made.append(found)
            for key in own:
                document.means(key, found)
    for one in inner:
        if one not in stating and not _points(one):
            document.unread(one)
    if not stating:
        document.leave(node, "bad", reason="The concern holds no problem observation: there is nothing to map.")
    elif not made:
        document.at(node).inform("The concern names no problem that is present.")
    return made


def _states(node: Node) -> bool:
    """Whether an observation under a concern is a problem observation, by template or by a coded value."""
    if has_template(node, _OBSERVATION):
        return True
    return node.get("classCode") == "OBS" and first("value/@code")(node) is not None and not each("templateId")(node)


def _points(node: Node) -> bool:
    """Whether an act says nothing but the id of another entry (4.122)."""
    return node.tag != _TAG and has_template(node, "2.16.840.1.113883.10.20.22.4.122")


def _condition(node: Node, act: Node | None, *, document: Document, kind: str) -> str | None:
    if node.get("negationInd") == "true" and first("value/@code")(node) in _ANY_PROBLEM:
        document.leave(node, "left", reason="It states that no problem is known; no Condition is made of it.")
        return None
    resource, kept = dialect.apply("condition", node, document=document, kind="Condition")
    if "code" not in resource:
        document.leave(node, "bad", reason="The problem has neither code nor text.")
        return None
    if "onsetDateTime" in resource:
        resource.pop("onsetAge", None)
    _status(resource, node, act=act, document=document)
    resource["category"] = _category(kind)
    resource["subject"] = document.subject
    record(resource, kept, act=act, document=document)
    evidence = _evidence(node, document)
    if evidence:
        resource["evidence"] = [{"detail": evidence}]
    diagnosis = kind == "encounter-diagnosis"
    claim(
        resource, "us-core-condition-encounter-diagnosis" if diagnosis else "us-core-condition-problems-health-concerns"
    )
    return document.add(resource, node)


@cache
def _category(kind: str) -> list[Resource]:
    """One list for all Conditions, not to be changed."""
    system = _HEALTH_CONCERN if kind == "health-concern" else CONDITION_CATEGORY
    return [{"coding": [{"system": system, "code": kind}]}]


def _evidence(node: Node, document: Document) -> list[dict[str, Any]]:
    """What the assessment scales became that support the problem."""
    if not document.stated:
        return []
    relations = [one for one in node[:] if one.tag == _RELATION and one.get("typeCode") == "SPRT"]
    return [{"reference": made} for one in relations for scale in one[:] for made in document.stated.get(scale, ())]


def record(resource: Resource, kept: Kept, *, act: Node | None, document: Document) -> None:
    """recorder, from the statement's first author; recorder and recordedDate from its act's, where it has none."""
    outer = children(act, _AUTHOR) if act is not None else []
    writers = kept.get("author") or outer
    if not writers:
        return
    who = author(writers[0], document)
    if who and who.partition("/")[0] in _RECORDERS:
        resource["recorder"] = {"reference": who}
    for node in outer:
        time = first("time")(node)
        if time is not None and "author" not in kept and "recordedDate" not in resource:
            when = point(time, document.at(time))
            resource |= {"recordedDate": when} if when else {}
        elif time is not None and says(time):
            document.leave(time, "left", reason="The statement inside says itself when it was written down.")


def _status(resource: Resource, node: Node, *, act: Node | None, document: Document) -> None:
    """clinicalStatus: the Problem Status, else an end in time, else the concern's status. An end rules out `active`.

    A `high` of nullFlavor UNK should mean an end at an unknown time, but vendors write it on active problems too
    (Greenway and Kareo samples), so it decides nothing: a problem is not called resolved on such evidence.
    """
    ended = "abatementDateTime" in resource
    if "verificationStatus" in resource:
        resource.pop("clinicalStatus", None)  # what is refuted is neither active nor resolved
        return
    if "clinicalStatus" not in resource:
        code = "resolved" if ended else _of_act(act)
        if code:
            resource["clinicalStatus"] = _clinical(code)
        return
    stated = resource["clinicalStatus"]["coding"][0]["code"]
    if ended and stated not in _ENDED:
        document.at(node).warn("conflict", "The problem has an end but its status says that it goes on: set resolved.")
        resource["clinicalStatus"] = _clinical("resolved")


def _of_act(act: Node | None) -> str | None:
    return codes()["concern-status"].get(first("statusCode/@code")(act) or "") if act is not None else None


@cache
def _clinical(code: str) -> dict[str, Any]:
    return {"coding": [{"system": CONDITION_CLINICAL, "code": code}]}
