"""Invariants of the ACCESS guide 0.9.12 as named functions, and what this software asks beyond it (`access-facade-*`).

`RULES[key] = (holds, sentence)` judge a value; `FINDERS[key] = (places, sentence)` name each broken place inside it, as
steps of (element, index or -1), so that an issue stands where the remedy is. The rules beyond the guide say what CMS's
test environment was seen to refuse; which of them are warnings is said in the profiles.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from profiles.base_rules import Holds, has_code
from profiles.canonical import (
    IDENTIFIER_TYPE,
    MBI,
    MBI_PATTERN,
    PARTICIPANT_ID_PATTERN,
    TRACK,
    TRACK_CONDITION,
    UNALIGNMENT_REASON,
    unversioned,
)
from profiles.run import Scope

Json = dict[str, Any]
Steps = list[tuple[str, int]]
Finder = Callable[[Any, Scope], Iterator[Steps]]

_matches_mbi = re.compile(MBI_PATTERN.strip("^$"), re.ASCII).fullmatch
_matches_participant = re.compile(PARTICIPANT_ID_PATTERN.strip("^$"), re.ASCII).fullmatch


def _participant(value: Any, scope: Scope) -> bool:
    text = value.get("value") if type(value) is dict else None
    return type(text) is str and _matches_participant(text) is not None


def _parameters(value: Json, name: str) -> Iterator[Json]:
    for each in value.get("parameter", ()):
        if each.get("name") == name:
            yield each


def _unalign_condition(value: Json, scope: Scope) -> bool:
    for reason in _parameters(value, "reason"):
        if has_code(reason.get("valueCodeableConcept"), UNALIGNMENT_REASON, "no-longer-clinically-eligible"):
            return any(True for _ in _parameters(value, "condition"))
    return True


def _codes(concept: Json) -> list[str]:
    return [each["code"] for each in concept.get("coding", ()) if "code" in each]


def _track_matches(value: Json, scope: Scope) -> bool:
    """Equal code lists, as the guide's expression compares them; of several bundles the first."""
    tracks = [code for each in _parameters(value, "track") for code in _codes(each.get("valueCodeableConcept", {}))]
    for bundle in _parameters(value, "dataBundle"):
        for composition in _compositions(bundle.get("resource", {})):
            for section in composition.get("section", ())[:1]:
                codes = _codes(section.get("code", {}))
                return not codes or not tracks or codes == tracks
    return True


def _compositions(bundle: Json) -> Iterator[Json]:
    for entry in bundle.get("entry", ()):
        resource = entry.get("resource", {})
        if resource.get("resourceType") == "Composition":
            yield resource


def _one_track(value: Json, scope: Scope) -> bool:
    sections = value.get("section", ())
    return sum(has_code(each.get("code"), TRACK, *TRACK_CONDITION) for each in sections) <= 1


def _unresolved(value: Json, scope: Scope) -> Iterator[Steps]:
    """Each Reference under a Composition that finds no entry of its Bundle: a walk, 100 times cheaper than FHIRPath."""
    entries = scope.entries()
    for index, entry in enumerate(value.get("entry", ())):
        resource = entry.get("resource", {})
        if resource.get("resourceType") == "Composition" and not _surely_resolved(resource, entries):
            for steps, reference in _references(resource):
                if reference is None or reference not in entries:
                    yield [("entry", index), ("resource", -1), *steps]


def _surely_resolved(resource: Json, entries: Json) -> bool:
    """The walk of `_references` without places, three times faster: for the usual case that nothing is broken."""
    stack: list[Json] = [resource]
    while stack:
        for key, item in stack.pop().items():
            for each in item if type(item) is list else (item,):
                if type(each) is dict:
                    stack.append(each)
                    reference = each.get("reference")
                    if reference not in entries if type(reference) is str else key in _REFERENCE_ELEMENTS:
                        return False
    return True


def _references(resource: Json) -> Iterator[tuple[Steps, str | None]]:
    """Every Reference of a resource, by shape: an object with reference, or with identifier or display alone."""
    stack: list[tuple[Steps, Any]] = [([], resource)]
    while stack:
        steps, value = stack.pop()
        for key, item in value.items():
            items = enumerate(item) if type(item) is list else ((-1, item),)
            stack.extend(([*steps, (key, index)], each) for index, each in items if type(each) is dict)
        if "reference" in value and type(value["reference"]) is str:
            yield steps, value["reference"]
        elif steps and steps[-1][0] in _REFERENCE_ELEMENTS and "reference" not in value:
            yield steps, None


_REFERENCE_ELEMENTS = frozenset(
    {"subject", "encounter", "author", "party", "custodian", "focus", "entry", "detail", "targetReference"}
)


def _bad_mbis(value: Json, scope: Scope) -> Iterator[Steps]:
    for index, each in enumerate(value.get("identifier", ())):
        if each.get("system") == MBI and "value" in each and not _matches_mbi(each["value"]):
            yield [("identifier", index), ("value", -1)]


def _identified(value: Json, scope: Scope) -> bool:
    return any(
        "value" in each and (each.get("system") == MBI or has_code(each.get("type"), IDENTIFIER_TYPE, "MB"))
        for each in value.get("identifier", ())
    )


def _resources(bundle: Json) -> Iterator[tuple[int, Json]]:
    for index, entry in enumerate(bundle.get("entry", ())):
        if "resource" in entry:
            yield index, entry["resource"]


def _absent_questionnaires(value: Json, scope: Scope) -> Iterator[Steps]:
    present = {each.get("url") for _, each in _resources(value) if each["resourceType"] == "Questionnaire"}
    for index, each in _resources(value):
        named = each.get("questionnaire") if each["resourceType"] == "QuestionnaireResponse" else None
        if named is not None and unversioned(named) not in present:
            yield [("entry", index), ("resource", -1), ("questionnaire", -1)]


def _without_narrative(value: Json, scope: Scope) -> Iterator[Steps]:
    for index, each in _resources(value):
        if "text" not in each and each["resourceType"] not in ("Binary", "Bundle", "Parameters"):
            yield [("entry", index), ("resource", -1)]


def _without_claim(value: Json, scope: Scope) -> Iterator[Steps]:
    for index, each in _resources(value):
        if "profile" not in each.get("meta", {}):
            yield [("entry", index), ("resource", -1)]


def _of_another_track(value: Json, scope: Scope) -> Iterator[Steps]:
    tracks = [code for each in _parameters(value, "track") for code in _codes(each.get("valueCodeableConcept", {}))]
    wanted = {TRACK_CONDITION[track] for track in tracks if track in TRACK_CONDITION}
    for index, each in enumerate(value.get("parameter", ())):
        claimed = each.get("resource", {}).get("meta", {}).get("profile", ())
        if each.get("name") == "condition" and wanted and wanted.isdisjoint(map(unversioned, claimed)):
            yield [("parameter", index), ("resource", -1), ("meta", -1), ("profile", -1)]


RULES: dict[str, tuple[Holds, str]] = {
    "access-participant-id-pattern": (
        _participant,
        "A participant id is ACCES and exactly five digits; correct the value",
    ),
    "access-unalign-condition-required": (
        _unalign_condition,
        "The reason no-longer-clinically-eligible needs a condition; add one parameter condition for each diagnosis",
    ),
    "access-report-data-track-matches-composition-section": (
        _track_matches,
        "The first section of the Composition is the section of the parameter track; make their codes equal",
    ),
    "access-facade-patient-identified": (
        _identified,
        "The patient has an MBI, or the member number (type MB) of another payer; add the identifier",
    ),
    "access-facade-patient-birth-date": (
        lambda v, s: "birthDate" in v,
        "CMS's test environment asks for the patient's birthDate; add it",
    ),
    "access-data-reporting-composition-only-one-track-section": (
        _one_track,
        "A report has one track section; send one report for each track",
    ),
}
FINDERS: dict[str, tuple[Finder, str]] = {
    "access-data-reporting-bundle-composition-refs-in-bundle": (
        _unresolved,
        "What the Composition refers to is an entry of the same Bundle; add the entry or correct the reference",
    ),
    "access-facade-mbi-format": (
        _bad_mbis,
        "An MBI has the 11 characters of CMS's public format, upper case without dashes; correct it",
    ),
    "access-facade-questionnaire-in-bundle": (
        _absent_questionnaires,
        "A Questionnaire that is not published has to be in the Bundle; add it as an entry",
    ),
    "access-facade-entry-narrative": (_without_narrative, "CMS refuses a resource without narrative; add text"),
    "access-facade-entry-profile": (_without_claim, "CMS wants each resource to claim its profile; add meta.profile"),
    "access-facade-condition-of-track": (
        _of_another_track,
        "A condition of an alignment claims the profile of its track; add it to meta.profile",
    ),
}
