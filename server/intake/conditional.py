"""Conditions in a transaction or batch, answered from the store: creates, updates and references by identifier.

Only `identifier=system|value` is taken. Source: FHIR R4, RESTful API (conditional create and update) and Bundle
(conditional references in a transaction).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from mappers.conversion import Resource
from mappers.fhir.references import nodes, objects, rewritten, text
from profiles.issue import Issue, error
from server.context import Context
from server.domain.resource import Lookup, StoredResource
from server.store.base import Where

_ONLY = "Only identifier=system|value is taken as a condition here."
_SEVERAL = "More than one resource has this identifier: name the one that is meant."
_NONE = "No resource has this identifier: send it in the same Bundle, or refer to it by its id."


@dataclass(slots=True)
class Conditions:
    """The Bundle as it reads once its conditions are answered. `existing`: entry number -> the stored resource."""

    bundle: Resource
    existing: dict[int, StoredResource] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)


async def answered_conditions(bundle: Resource, participant_id: str, context: Context) -> Conditions:
    """Looks each condition up. An entry that exists is taken out; what refers to it refers to the stored one."""
    found = Conditions(bundle)
    entries = [dict(entry) for entry in objects(bundle.get("entry"))]
    targets: dict[str, str] = {}
    for number, entry in enumerate(entries):
        place = f"Bundle.entry[{number}]"
        row = await _stored(entry, place, found, participant_id, context)
        if row is not None:
            _replace(entry, row, number=number, found=found, targets=targets)
    own = {(kind, token) for entry in entries for kind, token in _identifiers(entry.get("resource"))}
    for number, entry in enumerate(entries):
        for reference in _references(entry.get("resource")):
            place = f"Bundle.entry[{number}].resource"
            await _refer(reference, place, own, targets=targets, found=found, where=(participant_id, context))
    changed = targets or entries != objects(bundle.get("entry"))
    found.bundle = rewritten({**bundle, "entry": entries}, targets) if changed else bundle
    return found


async def _stored(
    entry: Resource, place: str, found: Conditions, participant_id: str, context: Context
) -> StoredResource | None:
    """The one stored resource that the entry's condition names."""
    request = entry.get("request", {})
    resource = entry.get("resource")
    kind, mark, query = text(request.get("url")).partition("?")
    condition = query if mark and request.get("method") == "PUT" else text(request.get("ifNoneExist"))
    if not condition or not isinstance(resource, dict):
        return None
    kind = text(resource.get("resourceType"))
    token = _token(condition)
    if token is None:
        found.issues.append(error("not-supported", f"{place}.request", _ONLY))
        return None
    rows = await by_token(kind, token, participant_id, context)
    if len(rows) > 1:
        found.issues.append(error("multiple-matches", f"{place}.request", _SEVERAL))
    return rows[0] if len(rows) == 1 else None


def _replace(entry: Resource, row: StoredResource, *, number: int, found: Conditions, targets: dict[str, str]) -> None:
    """A create that is not needed leaves its entry empty; a conditional update becomes one of that id."""
    name = f"{row.resource_type}/{row.id}"
    if entry["request"].get("method") == "PUT":
        entry["request"] = {**entry["request"], "url": name}
        entry["resource"] = {**entry["resource"], "id": row.id}
        return
    resource = entry.pop("resource")
    found.existing[number] = row
    for known in (entry.get("fullUrl"), f"{row.resource_type}/{resource['id']}" if "id" in resource else None):
        if isinstance(known, str):
            targets[known] = name


async def _refer(
    reference: str,
    place: str,
    own: set[tuple[str, str]],
    *,
    targets: dict[str, str],
    found: Conditions,
    where: tuple[str, Context],
) -> None:
    """A conditional reference to another resource than a Patient (the mapper knows those): ours, or the Bundle's."""
    kind, _, query = reference.partition("?")
    token = _token(query)
    if token is None:
        found.issues.append(error("not-supported", place, _ONLY))
    elif (kind, token) in own:
        targets[reference] = f"{kind}?identifier={token}"  # as the mapper names its own entries
    else:
        rows = await by_token(kind, token, *where)
        if len(rows) == 1:
            targets[reference] = f"{kind}/{rows[0].id}"
        else:
            found.issues.append(
                error("not-found", place, _NONE) if not rows else error("multiple-matches", place, _SEVERAL)
            )


def _references(resource: Any) -> Iterator[str]:
    for node in nodes(resource):
        reference = text(node.get("reference"))
        if "?" in reference and not reference.startswith(("Patient?", "http", "urn:", "#")):
            yield reference


def _identifiers(resource: Any) -> Iterator[tuple[str, str]]:
    if isinstance(resource, dict):
        for one in objects(resource.get("identifier")):
            if "value" in one:
                yield text(resource.get("resourceType")), f"{one.get('system', '')}|{one['value']}"


def _token(query: str) -> str | None:
    values = parse_qs(query)
    tokens = values.get("identifier", [])
    return tokens[0] if set(values) == {"identifier"} and len(tokens) == 1 and "|" in tokens[0] else None


async def by_token(kind: str, token: str, participant_id: str, context: Context) -> list[StoredResource]:
    """The participant's resources of a type with the identifier `system|value`, deleted ones left out."""
    rows = await context.store.find(
        Lookup,
        Where("participant_id", "==", participant_id),
        Where("resource_type", "==", kind),
        Where("parameter", "==", "identifier"),
        Where("value", "==", token),
    )
    found = [
        await context.store.get(StoredResource, participant_id=participant_id, resource_type=kind, id=row.resource_id)
        for row in rows
    ]
    return [row for row in found if row is not None and not row.deleted]
