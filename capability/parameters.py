"""Operation parameters, read by the OperationDefinitions in operations/. Source: FHIR R4, Operations; Parameters."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from profiles.issue import Issue, error

Json = dict[str, Any]

# Types that are sent as value[x]; any other type that begins with a capital is a resource.
DATATYPES = frozenset({"CodeableConcept", "Coding", "Identifier", "Period", "Quantity", "Reference"})


@dataclass(frozen=True, slots=True)
class Parsed:
    """Values by parameter name, in the order sent, and what is wrong with the request."""

    values: Mapping[str, tuple[Any, ...]]
    issues: tuple[Issue, ...]


@cache
def operation_definition(name: str) -> Json:
    """The OperationDefinition of operations/{name}.json. Raises KeyError for an unknown name. Not to be changed."""
    file = files("capability").joinpath("operations", f"{name}.json")
    if not name.replace("-", "").isalpha() or not file.is_file():
        raise KeyError(name)
    definition: Json = json.loads(file.read_text(encoding="utf-8"))
    return definition


def operation_url(name: str, base_url: str) -> str:
    """The canonical of our own definition of an operation."""
    return f"{base_url}/fhir/{operation_definition(name)['url']}"


def parse(name: str, resource: Json) -> Parsed:
    """Reads a Parameters resource by the operation's definition: names, types, cardinalities.

    Each issue has a FHIRPath from the root; values are the JSON of the resource or of value[x].
    """
    if resource.get("resourceType") != "Parameters":
        text = f"${name} takes a Parameters resource: send its parameters in one."
        return Parsed({}, (error("structure", "resourceType", text),))
    known = _inputs(name)
    values: dict[str, list[Any]] = {}
    issues: list[Issue] = []
    for index, sent in enumerate(_sent(resource)):
        place = f"Parameters.parameter[{index}]"
        definition = known.get(sent.get("name", ""))
        element = _element(definition) if definition else ""
        if definition is None:
            issues.append(error("not-supported", f"{place}.name", f"${name} has no such parameter: {_offer(known)}"))
        elif element not in sent or not _fits(definition, sent[element]):
            text = f"The parameter {definition['name']} must come as {element}: it is a {definition['type']}."
            issues.append(error("value", place, text))
        else:
            values.setdefault(definition["name"], []).append(sent[element])
    issues += _cardinality(name, known.values(), values)
    return Parsed({key: tuple(found) for key, found in values.items()}, tuple(issues))


def parse_query(name: str, pairs: Iterable[tuple[str, str]]) -> Parsed:
    """Reads query parameters (primitive types only) by the operation's definition."""
    known = {key: one for key, one in _inputs(name).items() if not _is_resource(one["type"])}
    values: dict[str, list[Any]] = {}
    issues: list[Issue] = []
    for key, value in pairs:
        if key in known:
            values.setdefault(key, []).append(value)
        else:
            issues.append(error("not-supported", "http.query", f"${name} has no such parameter: {_offer(known)}"))
    issues += _cardinality(name, known.values(), values)
    return Parsed({key: tuple(found) for key, found in values.items()}, tuple(issues))


def _inputs(name: str) -> dict[str, Json]:
    return {one["name"]: one for one in operation_definition(name)["parameter"] if one["use"] == "in"}


def _sent(resource: Json) -> list[Json]:
    sent = resource.get("parameter", [])
    return [one for one in sent if isinstance(one, dict)] if isinstance(sent, list) else []


def _is_resource(type_name: str) -> bool:
    return type_name[0].isupper() and type_name not in DATATYPES


def _element(definition: Json) -> str:
    kind = definition["type"]
    return "resource" if _is_resource(kind) else f"value{kind[0].upper()}{kind[1:]}"


def _fits(definition: Json, value: Any) -> bool:
    kind = definition["type"]
    if kind == "boolean":
        return isinstance(value, bool)
    if not _is_resource(kind):
        return isinstance(value, dict if kind in DATATYPES else str)
    return isinstance(value, dict) and (kind == "Resource" or value.get("resourceType") == kind)


def _offer(known: Mapping[str, Json]) -> str:
    return f"it takes {', '.join(known) or 'none'}."


def _cardinality(name: str, known: Iterable[Json], values: Mapping[str, list[Any]]) -> Iterable[Issue]:
    for definition in known:
        wanted, place = definition["name"], f"Parameters.parameter.where(name = '{definition['name']}')"
        count = len(values.get(wanted, ()))
        if count < definition["min"]:
            text = f"${name} needs the parameter {wanted} ({definition['type']}): add it."
            yield error("required", place, text)
        elif definition["max"] != "*" and count > int(definition["max"]):
            text = f"${name} takes the parameter {wanted} at most {definition['max']} times: leave the others out."
            yield error("structure", place, text)
