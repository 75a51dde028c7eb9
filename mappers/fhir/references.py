"""Ids and references of posted resources: every entry gets a literal `Type/id`, every reference to it reads so.

Source: FHIR R4, Bundle (resolving references in bundles), References.
"""

import re
from collections.abc import Iterator
from typing import Any

from mappers.converters import resource_id
from profiles import fhir_json

Resource = dict[str, Any]

_ABOUT = ("subject", "patient", "beneficiary", "for")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list, or the one object; nothing for anything else: what was posted may be of any shape."""
    if isinstance(value, dict):
        return [value]
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def text(value: Any) -> str:
    """The string, or an empty one for anything else."""
    return value if isinstance(value, str) else ""


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a value, outermost first; depth as FHIR JSON allows it (64)."""
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from nodes(part)
    elif isinstance(value, list):
        for part in value:
            yield from nodes(part)


def referred(value: Any) -> list[str]:
    """Every `reference` inside a value, in no order."""
    found: list[str] = []
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            reference = node.get("reference")
            if isinstance(reference, str):
                found.append(reference)
            waiting += [part for part in node.values() if isinstance(part, (dict, list))]
        elif isinstance(node, list):
            waiting += node
    return found


def rewritten(value: Any, targets: dict[str, str]) -> Any:
    """The value with each `reference` that `targets` knows replaced: a copy, or itself where none is."""
    if not targets or targets.keys().isdisjoint(referred(value)):
        return value
    return _rewritten(value, targets)


def _rewritten(value: Any, targets: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: _reference(part, targets) if key == "reference" else _rewritten(part, targets)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [_rewritten(part, targets) for part in value]
    return value


def _reference(part: Any, targets: dict[str, str]) -> Any:
    return targets.get(part, part) if isinstance(part, str) else _rewritten(part, targets)


def identifier_of(resource: Resource) -> tuple[str, str] | None:
    """System and value of the first identifier that has both."""
    for one in objects(resource.get("identifier")):
        if text(one.get("system")) and text(one.get("value")):
            return one["system"], one["value"]
    return None


def literal(resource: Resource) -> str:
    """`Type/id`."""
    return f"{resource['resourceType']}/{resource['id']}"


def patient_id(system: str, value: str) -> str:
    """The id of a Patient that the sender gave none; the HL7 v2 and CDA mappers make the same."""
    return resource_id("Patient", system, value)


def _with_id(resource: Resource, made: str) -> Resource:
    rest = {name: part for name, part in resource.items() if name != "id"}
    return {"resourceType": resource["resourceType"], "id": made} | rest


class Ids:
    """Gives ids to the resources of one Bundle: the posted one, else by patient and identifier, else by content.

    Content is taken without the Bundle's own temporary references (a sender makes new urn:uuid each time it sends),
    but with the patient's own: equal readings of two people never share an id. Give the Patients theirs first. Two
    resources of equal identity, patients apart, are told apart by their count.
    """

    def __init__(self, temporary: dict[str, str], occurrence: int = 1) -> None:
        self._temporary = temporary  # fullUrl -> type: what it stands for until its id is known
        self._first = occurrence
        self._seen: dict[str, int] = {}

    def settle(self, url: str, reference: str) -> None:
        """From now on a temporary reference stands for this one."""
        if url:
            self._temporary[url] = reference

    def give(self, resource: Resource, *, keep: bool = True) -> Resource:
        """The resource with an `id`; `keep`: the posted one, if it is one."""
        posted = resource.get("id")
        if keep and isinstance(posted, str) and _ID.fullmatch(posted):
            return resource
        resource = {name: part for name, part in resource.items() if name != "id"}
        kind = resource["resourceType"]
        named = identifier_of(resource)
        if kind == "Patient" and named:  # as a subject that names the same identifier
            return _with_id(resource, patient_id(*named))
        whole = rewritten(resource, self._temporary)
        about = [fhir_json.dump(whole[name]).decode("utf-8") for name in _ABOUT if name in whole]
        key = "".join([*about, *(named or [fhir_json.dump(whole).decode("utf-8")])])
        count = self._seen[kind + key] = self._seen.get(kind + key, self._first - 1) + 1
        return _with_id(resource, resource_id(kind, key, *([str(count)] if count > 1 else [])))
