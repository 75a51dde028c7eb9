"""What may be put right in a request to CMS without changing its clinical meaning. Each repair is written down.

Nothing to repair: the request goes to CMS byte for byte as it came.
"""

from collections.abc import Iterator
from typing import Any

from mappers.conversion import Resource
from profiles.canonical import ACCESS, MBI
from profiles.issue import Issue, Severity
from server.domain.submission import Operation
from server.intake.identity import mbi


def repaired(parameters: Resource, operation: Operation) -> tuple[Resource, list[Issue]]:
    """The request as CMS takes it, and what was put right. The input is not changed."""
    notes: list[Issue] = []
    parameters = _claimed(parameters, operation, notes)
    return {
        **parameters,
        "parameter": [_parameter(p, n, notes) for n, p in enumerate(parameters.get("parameter", []))],
    }, notes


def _claimed(parameters: Resource, operation: Operation, notes: list[Issue]) -> Resource:
    profile = ACCESS(f"access-{operation}-in")
    claimed = parameters.get("meta", {}).get("profile", [])
    if any(isinstance(url, str) and url.partition("|")[0] == profile for url in claimed):
        return parameters
    notes.append(_note("Parameters.meta.profile", "The operation's profile was added, which CMS demands since 0.9.11."))
    return {**parameters, "meta": {**parameters.get("meta", {}), "profile": [profile, *claimed]}}


def _parameter(parameter: Any, number: int, notes: list[Issue]) -> Any:
    resource = parameter.get("resource") if isinstance(parameter, dict) else None
    if not isinstance(resource, dict):
        return parameter
    place = f"Parameters.parameter[{number}].resource"
    if resource.get("resourceType") == "Patient":
        return {**parameter, "resource": _patient(resource, place, notes)}
    if resource.get("resourceType") == "Bundle":
        entries = [_entry(entry, f"{place}.entry[{n}]", notes) for n, entry in enumerate(resource.get("entry", []))]
        return {**parameter, "resource": {**resource, "entry": entries}}
    return parameter


def _entry(entry: Any, place: str, notes: list[Issue]) -> Any:
    resource = entry.get("resource") if isinstance(entry, dict) else None
    if isinstance(resource, dict) and resource.get("resourceType") == "Patient":
        return {**entry, "resource": _patient(resource, f"{place}.resource", notes)}
    return entry


def _patient(patient: Resource, place: str, notes: list[Issue]) -> Resource:
    identifiers = list(_identifiers(patient, place, notes))
    return {**patient, "identifier": identifiers} if identifiers else patient


def _identifiers(patient: Resource, place: str, notes: list[Issue]) -> Iterator[Any]:
    for number, identifier in enumerate(patient.get("identifier", [])):
        value = identifier.get("value") if isinstance(identifier, dict) else None
        if isinstance(value, str) and identifier.get("system") == MBI and mbi(value) != value:
            text = "The MBI was written in CMS's form: upper case, without dashes and blanks."
            notes.append(_note(f"{place}.identifier[{number}].value", text))
            yield {**identifier, "value": mbi(value)}
        else:
            yield identifier


def _note(location: str, text: str) -> Issue:
    return Issue(Severity.INFORMATION, "informational", location, text)
