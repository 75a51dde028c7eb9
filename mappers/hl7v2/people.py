"""Practitioners and organizations that segments name: one resource for each identifier, however often it is named."""

from collections.abc import Callable
from typing import Any

from mappers.conversion import Resource
from mappers.converters import concept, is_npi
from mappers.engine import Converter
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.dialect import components, subcomponents
from mappers.hl7v2.identity import identify
from profiles import canonical

_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_PRACTITIONER = canonical.US_CORE_PINNED("us-core-practitioner")
REMEMBERED, LONGEST = 2048, 300  # clinicians and laboratories, and characters of a field that names one
# `finish` makes a resource of a body, which is one object for all messages that say it: it is never changed.
Finish = Callable[[dict[str, Any], MessageContext], Resource | None]


def referring(datatype: str, build: Converter, finish: Finish) -> Converter:
    """A converter from XCN or XON to a reference; the resource is kept in the context, once.

    What a field says of somebody is read once for many messages, unless reading it was worth an Issue.
    """
    bodies: dict[str, dict[str, Any]] = {}

    def body_of(value: str, context: MessageContext) -> dict[str, Any] | None:
        known = bodies.get(value)
        if known is not None:
            return known
        issues = len(context.issues)
        body: dict[str, Any] | None = build(value, context)
        if body and len(context.issues) == issues and len(value) <= LONGEST:
            if len(bodies) >= REMEMBERED:
                bodies.clear()
            bodies[value] = body
        return body

    def convert(value: str, context: MessageContext) -> dict[str, Any] | None:
        key = (datatype, value)
        if key not in context.people:
            body = body_of(value, context)
            resource = finish(body, context) if body else None
            context.people[key] = context.add(resource) if resource else None
        return context.people[key]

    return convert


def practitioner(body: dict[str, Any], context: MessageContext) -> Resource | None:
    """A Practitioner with id, and US Core's claim where its rules hold. Neither name nor identifier: none."""
    identifiers = [each for each in body.get("identifier", ()) if each.get("value")]
    if not identifiers and not body.get("name"):
        return None
    if not identifiers:
        body = _without_identifier(body)
    first = identifiers[0] if identifiers else {}
    made: Resource = {
        "resourceType": "Practitioner",
        "id": _id("Practitioner", first, body, context),
        "meta": {"source": context.place()},
        **body,
    }
    if _meets_us_core(identifiers, body):
        made["meta"]["profile"] = [_PRACTITIONER]
    return made


def _without_identifier(body: dict[str, Any]) -> dict[str, Any]:
    return {key: part for key, part in body.items() if key != "identifier"}


def _meets_us_core(identifiers: list[dict[str, Any]], body: dict[str, Any]) -> bool:
    if not identifiers or not body.get("name"):
        return False
    for each in identifiers:
        if "system" not in each or (each["system"] == canonical.NPI and not is_npi(each["value"])):
            return False
    return all("family" in name for name in body["name"])


def organization(body: dict[str, Any], context: MessageContext) -> Resource:
    """An Organization with id. US Core wants `active`, which the message does not say: no claim."""
    identifiers = [each for each in body.get("identifier", ()) if each.get("value")]
    if not identifiers:
        body = _without_identifier(body)
    first = identifiers[0] if identifiers else {}
    logical_id = _id("Organization", first, body, context)
    return {"resourceType": "Organization", "id": logical_id, "meta": {"source": context.place()}, **body}


def _id(resource_type: str, identifier: dict[str, Any], body: dict[str, Any], context: MessageContext) -> str:
    system, value = identifier.get("system", ""), identifier.get("value", "")
    name = "" if system else repr(body.get("name"))
    return identify(resource_type, {"system": system, "value": value, "name": name}, context)


def participant(role: str, refer: Converter) -> Converter:
    """A converter from XCN to Encounter.participant in a role."""

    def convert(value: str, context: MessageContext) -> dict[str, Any] | None:
        found = refer(value, context)
        return {"type": [concept(_PARTICIPATION, role)], "individual": found} if found else None

    return convert


def acting(refer: Converter) -> Converter:
    """A converter from XCN to Procedure.performer."""

    def convert(value: str, context: MessageContext) -> dict[str, Any] | None:
        found = refer(value, context)
        return {"actor": found} if found else None

    return convert


def interpreter(refer: Converter) -> Converter:
    """A converter from NDL, whose first component holds a person as subcomponents, to a reference."""

    def convert(value: str, context: MessageContext) -> dict[str, Any] | None:
        name = components(value).full(0)
        person = "^".join(subcomponents(name)).rstrip("^") if "&" in name else value
        found: dict[str, Any] | None = refer(person, context)
        return found

    return convert


def provider_identifier(system_of: Converter, type_of: Converter) -> Converter:
    """A converter from PLN (number, type) to Identifier."""

    def convert(value: str, context: MessageContext) -> dict[str, Any] | None:
        number, kind = (part.strip() for part in components(value)[:2])
        if not number:
            return None
        system = system_of(number, context, "", kind)
        made = {"type": type_of(kind, context)} if kind else {}
        return {**made, **({"system": system} if system else {}), "value": number}

    return convert
