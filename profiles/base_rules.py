"""Base R4 invariants as named functions: `RULES[key] = (holds, sentence)`; `PATH:key` where a key has two meanings.

Each takes a value of sound structure. Source: FHIR R4 4.0.1, the invariants of the types named in the keys.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

from profiles import library
from profiles.canonical import CONDITION_CLINICAL, CONDITION_VERIFICATION, PROBLEM_LIST_ITEM, UCUM
from profiles.primitives import PRIMITIVES
from profiles.run import Scope

Json = dict[str, Any]
Holds = Callable[[Any, Scope], bool]

_ALLERGY_VERIFICATION = "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification"
_EMPTY: Json = {}


def has(value: Json, stem: str) -> bool:
    """Whether a choice element such as `value` or `effective` has a value of any type."""
    return not _choice_keys(stem).isdisjoint(value)


@cache
def _choice_keys(stem: str) -> frozenset[str]:
    complex_types = [name for name, entry in library.types().items() if entry["kind"] == "complex-type"]
    return frozenset(stem + code[0].upper() + code[1:] for code in (*PRIMITIVES, *complex_types))


def has_code(concept: Any, system: str, *codes: str) -> bool:
    """Whether a CodeableConcept holds one of the codes."""
    codings = concept.get("coding", ()) if concept else ()
    return any(each.get("system") == system and each.get("code") in codes for each in codings)


def _any(*names: str) -> Holds:
    wanted = frozenset(names)
    return lambda value, scope: not wanted.isdisjoint(value)


def _not_both(first: str, second: str) -> Holds:
    return lambda value, scope: not (first in value and second in value)


def _needs(name: str, needed: str) -> Holds:
    return lambda value, scope: name not in value or needed in value


# --- Observation, Condition, AllergyIntolerance ---------------------------------------------------------------------


def _obs_6(value: Json, scope: Scope) -> bool:
    return "dataAbsentReason" not in value or not has(value, "value")


def _codings(concept: Json) -> Iterator[tuple[Any, Any, Any]]:
    for each in concept.get("coding", ()):
        yield each.get("system"), each.get("code"), each.get("version")


def _obs_7(value: Json, scope: Scope) -> bool:
    if "component" not in value or not has(value, "value"):
        return True
    own = set(_codings(value["code"]))
    return not any(own.intersection(_codings(each["code"])) for each in value["component"])


def _entered_in_error(value: Json) -> bool:
    return has_code(value.get("verificationStatus"), CONDITION_VERIFICATION, "entered-in-error")


def _con_3(value: Json, scope: Scope) -> bool:
    if "clinicalStatus" in value or _entered_in_error(value):
        return True
    return not any(
        each.get("code") == PROBLEM_LIST_ITEM
        for concept in value.get("category", ())
        for each in concept.get("coding", ())
    )


def _con_4(value: Json, scope: Scope) -> bool:
    ended = ("resolved", "remission", "inactive")
    return not has(value, "abatement") or has_code(value.get("clinicalStatus"), CONDITION_CLINICAL, *ended)


def _con_5(value: Json, scope: Scope) -> bool:
    return not _entered_in_error(value) or "clinicalStatus" not in value


def _allergy_in_error(value: Json) -> bool:
    return has_code(value.get("verificationStatus"), _ALLERGY_VERIFICATION, "entered-in-error")


# --- Bundle ---------------------------------------------------------------------------------------------------------


def _bundle_of(*types: str) -> Callable[[Json], bool]:
    return lambda value: value.get("type") in types


def _bdl_3(value: Json, scope: Scope) -> bool:
    wanted = value.get("type") in ("batch", "transaction", "history")
    return all(("request" in entry) == wanted for entry in value.get("entry", ()))


def _bdl_4(value: Json, scope: Scope) -> bool:
    wanted = value.get("type") in ("batch-response", "transaction-response", "history")
    return all(("response" in entry) == wanted for entry in value.get("entry", ()))


def _bdl_7(value: Json, scope: Scope) -> bool:
    if value.get("type") == "history":
        return True
    keys = []
    for entry in value.get("entry", ()):
        if "fullUrl" in entry:
            meta = entry.get("resource", _EMPTY).get("meta", _EMPTY)
            keys.append((entry["fullUrl"], meta.get("versionId")))
    return len(keys) == len(set(keys))


def _starts_with(resource_type: str) -> Callable[[Json], bool]:
    def holds(value: Json) -> bool:
        entries = value.get("entry") or [_EMPTY]
        return bool(entries[0].get("resource", _EMPTY).get("resourceType") == resource_type)

    return holds


def _if_bundle(kind: str, then: Callable[[Json], bool]) -> Holds:
    return lambda value, scope: value.get("type") != kind or then(value)


def _identified(value: Json) -> bool:
    identifier = value.get("identifier", _EMPTY)
    return "system" in identifier and "value" in identifier


# --- Datatypes ------------------------------------------------------------------------------------------------------


def _instant(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if "T" in text else None
    except ValueError:  # a leap second
        return None


def not_after(start: str, end: str) -> bool:
    """Whether one date or time is not after another; true when their precision leaves it open."""
    first, second = _instant(start), _instant(end)
    if first and second:
        return first <= second
    size = min(len(start), len(end), 10)
    return start[:size] <= end[:size]


def _per_1(value: Json, scope: Scope) -> bool:
    return "start" not in value or "end" not in value or not_after(value["start"], value["end"])


def _ucum_only(value: Json) -> bool:
    return ("code" in value or "value" not in value) and value.get("system", UCUM) == UCUM


def _rng_2(value: Json, scope: Scope) -> bool:
    low, high = value.get("low", _EMPTY), value.get("high", _EMPTY)
    same_unit = low.get("code") == high.get("code") and low.get("unit") == high.get("unit")
    if "value" not in low or "value" not in high or not same_unit:
        return True
    return bool(low["value"] <= high["value"])


def _rat_1(value: Json, scope: Scope) -> bool:
    both = ("numerator" in value) == ("denominator" in value)
    return both and ("numerator" in value or "extension" in value)


def _ref_1(value: Json, scope: Scope) -> bool:
    text = value.get("reference", "")
    return not text.startswith("#") or scope.resolve(text) is not None


def _tim_9(value: Json, scope: Scope) -> bool:
    when = value.get("when", ())
    return "offset" not in value or bool(when) and not {"C", "CM", "CD", "CV"}.intersection(when)


def _not_negative(name: str) -> Holds:
    return lambda value, scope: value.get(name, Decimal(0)) >= 0


def _no_home(value: Json, scope: Scope) -> bool:
    return value.get("use") != "home"


def extension_is_sound(value: Json, scope: Scope) -> bool:
    """ext-1: either a value or extensions."""
    return ("extension" in value) != any(key.startswith(("value", "_value")) for key in value)


# --- Questionnaire, Parameters, List --------------------------------------------------------------------------------


def _que_1(value: Json, scope: Scope) -> bool:
    kind = value.get("type")
    return (kind != "group" or "item" in value) and (kind != "display" or "item" not in value)


def _que_2(value: Json, scope: Scope) -> bool:
    stack, seen = list(value.get("item", ())), set()
    while stack:
        item = stack.pop()
        if item.get("linkId") in seen:
            return False
        seen.add(item.get("linkId"))
        stack.extend(item.get("item", ()))
    return True


_OPTIONS = frozenset(["choice", "open-choice", "decimal", "integer", "date", "dateTime", "time", "string", "quantity"])
_LENGTHS = frozenset(["boolean", "decimal", "integer", "string", "text", "url", "open-choice"])


def _que_5(value: Json, scope: Scope) -> bool:
    return value.get("type") in _OPTIONS or not ("answerOption" in value or "answerValueSet" in value)


def _only_if_type(types: frozenset[str], *names: str) -> Holds:
    return lambda value, scope: value.get("type") in types or not any(name in value for name in names)


def _not_if_type(types: frozenset[str], *names: str) -> Holds:
    return lambda value, scope: value.get("type") not in types or not any(name in value for name in names)


def _que_12(value: Json, scope: Scope) -> bool:
    return len(value.get("enableWhen", ())) <= 2 or "enableBehavior" in value


def _que_13(value: Json, scope: Scope) -> bool:
    return value.get("repeats") is True or len(value.get("initial", ())) <= 1


def _que_7(value: Json, scope: Scope) -> bool:
    return value.get("operator") != "exists" or "answerBoolean" in value


def _parameter(value: Json, scope: Scope) -> bool:
    has_value, has_resource = has(value, "value"), "resource" in value
    return not (has_value or has_resource) if "part" in value else has_value != has_resource


def _lst_2(value: Json, scope: Scope) -> bool:
    return value.get("mode") == "changes" or not any("deleted" in entry for entry in value.get("entry", ()))


def _lst_3(value: Json, scope: Scope) -> bool:
    return value.get("mode") == "working" or not any("date" in entry for entry in value.get("entry", ()))


def _gol_1(value: Json, scope: Scope) -> bool:
    return not has(value, "detail") or "measure" in value


def _mdd_1(value: Json, scope: Scope) -> bool:
    handed, prepared = value.get("whenHandedOver"), value.get("whenPrepared")
    return not (handed and prepared) or not_after(prepared, handed)


_DISPLAY = frozenset({"display"})
RULES: dict[str, tuple[Holds, str]] = {
    "ait-1": (
        lambda v, s: _allergy_in_error(v) or "clinicalStatus" in v,
        "An allergy not entered in error needs clinicalStatus; add it",
    ),
    "ait-2": (
        lambda v, s: not _allergy_in_error(v) or "clinicalStatus" not in v,
        "An allergy entered in error has no clinicalStatus; remove it",
    ),
    "att-1": (_needs("data", "contentType"), "An attachment with data needs contentType; add it"),
    "bdl-1": (
        lambda v, s: "total" not in v or v.get("type") in ("searchset", "history"),
        "Only a searchset or history has a total; remove it",
    ),
    "bdl-2": (
        lambda v, s: v.get("type") == "searchset" or not any("search" in e for e in v.get("entry", ())),
        "Only a searchset's entries have search; remove it",
    ),
    "bdl-3": (
        _bdl_3,
        "Each entry of a batch, transaction or history has a request, and no other Bundle's has; correct it",
    ),
    "bdl-4": (_bdl_4, "Each entry of a response or history has a response, and no other Bundle's has; correct it"),
    "bdl-5": (_any("resource", "request", "response"), "An entry has a resource, a request or a response; add one"),
    "bdl-7": (_bdl_7, "Each fullUrl stands once in a Bundle; make them distinct"),
    "bdl-8": (lambda v, s: "/_history/" not in v.get("fullUrl", ""), "fullUrl names no version; remove /_history/"),
    "bdl-9": (_if_bundle("document", _identified), "A document Bundle has an identifier with system and value; add it"),
    "bdl-10": (_if_bundle("document", lambda v: "timestamp" in v), "A document Bundle has a timestamp; add it"),
    "bdl-11": (
        _if_bundle("document", _starts_with("Composition")),
        "A document Bundle starts with its Composition; put it first",
    ),
    "bdl-12": (
        _if_bundle("message", _starts_with("MessageHeader")),
        "A message Bundle starts with its MessageHeader; put it first",
    ),
    "cmp-1": (_any("text", "entry", "section"), "A section has text, entries or sections; add one"),
    "cmp-2": (_not_both("emptyReason", "entry"), "A section with entries has no emptyReason; remove it"),
    "con-1": (_any("summary", "assessment"), "A stage has a summary or an assessment; add one"),
    "con-2": (_any("code", "detail"), "Evidence has a code or a detail; add one"),
    "con-3": (_con_3, "A problem list item should have clinicalStatus; add it"),
    "con-4": (_con_4, "A condition that abated is inactive, resolved or in remission; correct clinicalStatus"),
    "con-5": (_con_5, "A condition entered in error has no clinicalStatus; remove it"),
    "cpl-3": (_not_both("detail", "reference"), "An activity has detail or reference, not both; keep one"),
    "cpt-2": (_needs("value", "system"), "A contact point with a value needs its system; add it"),
    "cnt-3": (lambda v, s: _ucum_only(v) and v.get("code", "1") == "1", "A Count has UCUM code 1; correct it"),
    "dis-1": (lambda v, s: _ucum_only(v), "A Distance has a UCUM unit; add its code"),
    "drt-1": (
        lambda v, s: "code" not in v or (v.get("system") == UCUM and "value" in v),
        "A Duration has a value and a UCUM unit; add them",
    ),
    "age-1": (
        lambda v, s: _ucum_only(v) and v.get("value", 1) > 0,
        "An Age is positive and has a UCUM unit; correct it",
    ),
    "exp-1": (_any("expression", "reference"), "An Expression has an expression or a reference; add one"),
    "gol-1": (_gol_1, "A target with a detail names its measure; add it"),
    "imm-1": (_any("documentType", "reference"), "Education names its document type or reference; add one"),
    "Parameters.parameter:inv-1": (_parameter, "A parameter has one of value, resource or part; keep exactly one"),
    "Task:inv-1": (
        lambda v, s: "lastModified" not in v or "authoredOn" not in v or not_after(v["authoredOn"], v["lastModified"]),
        "A Task is not modified before it was written; correct the dates",
    ),
    "lst-1": (_not_both("emptyReason", "entry"), "A List with entries has no emptyReason; remove it"),
    "lst-2": (_lst_2, "Only a list of changes marks entries deleted; remove the mark"),
    "lst-3": (_lst_3, "Only a working list dates its entries; remove the date"),
    "mad-1": (lambda v, s: "dose" in v or has(v, "rate"), "A dosage has a dose or a rate; add one"),
    "mdd-1": (_mdd_1, "A medication is not handed over before it is prepared; correct the dates"),
    "obs-3": (_any("low", "high", "text"), "A reference range has low, high or text; add one"),
    "obs-6": (_obs_6, "An Observation with a value has no dataAbsentReason; keep one of the two"),
    "obs-7": (_obs_7, "An Observation with a value has no component of its own code; remove one"),
    "org-1": (_any("identifier", "name"), "An Organization has an identifier or a name; add one"),
    "org-2": (_no_home, "An Organization has no home address; change its use"),
    "org-3": (_no_home, "An Organization has no home telephone; change its use"),
    "pat-1": (
        _any("name", "telecom", "address", "organization"),
        "A contact says who or where; add a name, telecom, address or organization",
    ),
    "per-1": (_per_1, "A Period does not end before it starts; correct the dates"),
    "prr-1": (_needs("orderDetail", "code"), "Order details need a code; add it"),
    "qrs-1": (_not_both("answer", "item"), "An item has answers or items, not both; move the items under the answer"),
    "qty-3": (_needs("code", "system"), "A Quantity with a coded unit needs the unit's system; add it"),
    "que-1": (_que_1, "A group has items and a display has none; correct it"),
    "que-2": (_que_2, "Each linkId stands once in a Questionnaire; make them distinct"),
    "que-3": (_not_if_type(_DISPLAY, "code"), "A display item has no code; remove it"),
    "que-4": (_not_both("answerOption", "answerValueSet"), "Answers are listed or bound, not both; keep one"),
    "que-5": (_que_5, "Only questions with choices list answers; remove them"),
    "que-6": (
        _not_if_type(_DISPLAY, "required", "repeats"),
        "A display item is neither required nor repeated; remove the flag",
    ),
    "que-7": (_que_7, "The operator exists compares with a boolean; use answerBoolean"),
    "que-8": (
        _not_if_type(frozenset({"group", "display"}), "initial"),
        "A group or display has no initial value; remove it",
    ),
    "que-9": (_not_if_type(_DISPLAY, "readOnly"), "A display item is not marked read-only; remove the flag"),
    "que-10": (_only_if_type(_LENGTHS, "maxLength"), "Only simple questions have a maximum length; remove it"),
    "que-11": (_not_both("answerOption", "initial"), "Listed answers mark their own initial value; remove initial"),
    "que-12": (_que_12, "Several conditions need enableBehavior; add it"),
    "que-13": (_que_13, "Only a repeating item has several initial values; keep one"),
    "rat-1": (_rat_1, "A Ratio has numerator and denominator; add the missing one"),
    "ref-1": (_ref_1, "A local reference names a contained resource; contain it or correct the id"),
    "rng-2": (_rng_2, "A Range does not end below its start; correct it"),
    "sev-1": (_not_both("name", "query"), "An entity has a name or a query, not both; keep one"),
    "tim-1": (_needs("duration", "durationUnit"), "A duration needs its unit; add it"),
    "tim-2": (_needs("period", "periodUnit"), "A period needs its unit; add it"),
    "tim-4": (_not_negative("duration"), "A duration is not negative; correct it"),
    "tim-5": (_not_negative("period"), "A period is not negative; correct it"),
    "tim-6": (_needs("periodMax", "period"), "A longest period needs a period; add it"),
    "tim-7": (_needs("durationMax", "duration"), "A longest duration needs a duration; add it"),
    "tim-8": (_needs("countMax", "count"), "A highest count needs a count; add it"),
    "tim-9": (_tim_9, "An offset needs an event that is no meal; correct it"),
    "tim-10": (_not_both("timeOfDay", "when"), "A repeat has times of day or events, not both; keep one"),
}
