"""Puts resources into rows: versions, look-ups, references. No resource is written in any other way."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mappers.conversion import Resource
from profiles import fhir_json
from profiles.issue import error
from server.context import Context
from server.domain.errors import Refused
from server.domain.record import Record
from server.domain.resource import Lookup, ResourceVersion, StoredResource
from server.store.base import Changeset, Where

# Which elements name the patient in whose compartment a resource is, in this order.
PATIENT_ELEMENTS = ("subject", "patient", "for", "beneficiary")


@dataclass(frozen=True, slots=True)
class Put:
    """A resource as it will be stored. `change`: created, updated or unchanged."""

    stored: StoredResource
    change: str
    changes: Changeset

    @property
    def reference(self) -> str:
        """`Type/id`."""
        return f"{self.stored.resource_type}/{self.stored.id}"


async def put(
    resource: Resource,
    *,
    participant_id: str,
    patient_id: str | None,
    received_id: str | None,
    at: datetime,
    context: Context,
    fresh: bool = False,
) -> Put:
    """The rows that make `resource` (with its `id`) the current version. `fresh`: the id is surely new.

    A resource that says the same as the current version changes nothing.
    """
    kind, logical_id = resource["resourceType"], resource["id"]
    current = None
    if not fresh:
        current = await context.store.get(
            StoredResource, participant_id=participant_id, resource_type=kind, id=logical_id
        )
    if current is not None and not current.deleted and _content(fhir_json.parse(current.body)) == _content(resource):
        return Put(current, "unchanged", Changeset())
    _refuse_other_patient(current, patient_id, kind)
    version = 1 if current is None else current.revision + 1
    row = StoredResource(
        participant_id=participant_id,
        resource_type=kind,
        id=logical_id,
        last_updated=at,
        patient_id=logical_id if kind == "Patient" else patient_id,
        received_id=received_id,
        body=stamped(resource, version, at),
        revision=0 if current is None else current.revision,
    )
    lookups = tuple(_lookups(resource, participant_id))
    if current is None:
        return Put(row, "created", Changeset(insert=(row, *lookups)))
    old = await context.store.find(
        Lookup,
        Where("participant_id", "==", participant_id),
        Where("resource_type", "==", kind),
        Where("resource_id", "==", logical_id),
    )
    return Put(row, "updated", Changeset(insert=(_version(current), *lookups), replace=(row,), delete=tuple(old)))


def _refuse_other_patient(current: StoredResource | None, patient_id: str | None, kind: str) -> None:
    """A resource never moves from one patient to another by an update: that is a mistaken identity, not a version."""
    if (
        current is not None
        and kind != "Patient"
        and current.patient_id
        and patient_id not in (None, current.patient_id)
    ):
        text = (
            "This id stands for a result of another patient here: withdraw it there (entered-in-error), "
            "then send it for this patient under an id of its own."
        )
        raise Refused(409, [error("conflict", f"{kind}.subject", text)])


def _content(resource: Resource) -> Resource:
    meta = {k: v for k, v in resource.get("meta", {}).items() if k not in ("versionId", "lastUpdated")}
    rest = {k: v for k, v in resource.items() if k != "meta"}
    return rest | ({"meta": meta} if meta else {})


def stamped(resource: Resource, version: int, at: datetime) -> bytes:
    """The JSON to store: `meta.versionId` and `meta.lastUpdated` are ours."""
    meta = {**resource.get("meta", {}), "versionId": str(version), "lastUpdated": instant(at)}
    head = {"resourceType": resource["resourceType"], "id": resource["id"], "meta": meta}
    return fhir_json.dump(head | {k: v for k, v in resource.items() if k not in head})


def instant(at: datetime) -> str:
    """A FHIR instant, UTC, milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _version(current: StoredResource) -> ResourceVersion:
    return ResourceVersion(
        participant_id=current.participant_id,
        resource_type=current.resource_type,
        id=current.id,
        version_id=current.revision,
        last_updated=current.last_updated,
        patient_id=current.patient_id,
        received_id=current.received_id,
        deleted=current.deleted,
        body=current.body,
    )


def deleted(current: StoredResource, at: datetime) -> Changeset:
    """The rows that delete it: the history stays."""
    return Changeset(insert=(_version(current),), replace=(replace(current, deleted=True, last_updated=at),))


def _lookups(resource: Resource, participant_id: str) -> Iterator[Record]:
    named = {f"{i.get('system', '')}|{i['value']}": None for i in _list(resource.get("identifier")) if "value" in i}
    for text in named:
        yield Lookup(
            participant_id=participant_id,
            resource_type=resource["resourceType"],
            parameter="identifier",
            value=text,
            resource_id=resource["id"],
        )


def _list(value: Any) -> list[dict[str, Any]]:
    """`identifier` repeats on most types and does not on a few (QuestionnaireResponse, Bundle)."""
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, dict) else []


def patient_reference(resource: Resource) -> str | None:
    """The reference of the element that names the patient, or None."""
    for element in PATIENT_ELEMENTS:
        target = resource.get(element)
        reference = target.get("reference") if isinstance(target, dict) else None
        if isinstance(reference, str) and (reference.startswith("Patient/") or "/Patient/" in reference):
            return reference
    return None


def retargeted(value: Any, old: str, new: str) -> Any:
    """The same JSON with every `reference` that reads `old` now reading `new`."""
    if isinstance(value, dict):
        if value.get("reference") == old:
            value = value | {"reference": new}
        return {k: retargeted(v, old, new) if isinstance(v, dict | list) else v for k, v in value.items()}
    return [retargeted(v, old, new) if isinstance(v, dict | list) else v for v in value]
