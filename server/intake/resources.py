"""Puts resources into rows: versions, look-ups, references. No resource is written in any other way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from mappers.conversion import Resource
from profiles import fhir_json
from profiles.issue import error
from server.context import Context
from server.domain.errors import Refused
from server.domain.resource import Lookup, ResourceVersion, StoredResource
from server.store.base import Changeset, Where
from server.store.schema import instant as stored_instant

READ_TOGETHER = 8  # resources looked up in one statement, which the engine still answers by index

# Which elements name the patient in whose compartment a resource is, in this order.
PATIENT_ELEMENTS = ("subject", "patient", "for", "beneficiary")
# Named in messages about many patients, and in no patient's compartment.
SHARED = frozenset({"HealthcareService", "Location", "Medication", "Organization", "Practitioner", "PractitionerRole"})


@dataclass(frozen=True, slots=True)
class Put:
    """A resource as it will be stored. `change`: created, updated or unchanged.

    `stored.revision` is the one that was read (0: none), which the write compares; `version` is what it becomes.
    """

    stored: StoredResource
    change: str
    changes: Changeset

    @property
    def version(self) -> int:
        """The versionId once it is written."""
        return self.stored.revision + (self.change != "unchanged")

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
    current = None
    if not fresh:
        kind, logical_id = resource["resourceType"], resource["id"]
        current = await context.store.get(
            StoredResource, participant_id=participant_id, resource_type=kind, id=logical_id
        )
    origin = Origin(participant_id, patient_id, received_id, at)
    return put_at(standing(resource, current), origin)


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose the resources of one message are, and which message it is."""

    participant_id: str
    patient_id: str | None
    received_id: str | None
    at: datetime


class Standing(NamedTuple):
    """A resource, and what is stored under its id. `same`: it says nothing that the stored version does not."""

    resource: Resource
    current: StoredResource | None
    before: Resource | None  # what `current` holds
    same: bool


def standing(resource: Resource, current: StoredResource | None) -> Standing:
    """The resource beside the row that was read."""
    if current is None:
        return Standing(resource, None, None, same=False)
    before = fhir_json.parse(current.body)
    return Standing(resource, current, before, not current.deleted and _content(before) == _content(resource))


async def standing_all(
    resources: Sequence[Resource], participant_id: str, context: Context, *, read: StoredResource | None = None
) -> list[Standing]:
    """All resources of one message, each beside what is stored, with few reads. They need not be checked before.

    `read`: a row that was read already.
    """
    current = {} if read is None else {(read.resource_type, read.id): read}
    names = [(str(each.get("resourceType")), str(each.get("id"))) for each in resources]
    wanted = sorted(set(names).difference(current))  # like beside like: fewer keys to try
    for start in range(0, len(wanted), READ_TOGETHER):
        part = wanted[start : start + READ_TOGETHER]
        rows = await context.store.find(
            StoredResource,
            Where("participant_id", "==", participant_id),
            Where("resource_type", "in", tuple({kind for kind, _ in part})),
            Where("id", "in", tuple([name for _, name in part])),
        )
        current |= {(row.resource_type, row.id): row for row in rows}
    return [standing(each, current.get(name)) for each, name in zip(resources, names, strict=True)]


async def put_all(resources: Sequence[Resource], origin: Origin, context: Context) -> Changeset:
    """The rows that make all of them current versions: checked resources that are stored beside what came."""
    places = await standing_all(resources, origin.participant_id, context)
    return joined([put_at(place, origin) for place in places])


def joined(puts: Sequence[Put]) -> Changeset:
    """The rows of all of them."""
    return Changeset(
        insert=tuple(row for done in puts for row in done.changes.insert),
        replace=tuple(row for done in puts for row in done.changes.replace),
        delete=tuple(row for done in puts for row in done.changes.delete),
    )


def put_at(place: Standing, origin: Origin) -> Put:
    """As `put`, for what was read already."""
    resource, current, before, same = place
    kind, logical_id = resource["resourceType"], resource["id"]
    patient_id = None if kind in SHARED else logical_id if kind == "Patient" else origin.patient_id
    if current is not None and same:
        return Put(current, "unchanged", _NOTHING)
    if kind not in SHARED:
        _refuse_other_patient(current, patient_id, kind)
    version = 1 if current is None else current.revision + 1
    row = StoredResource(
        participant_id=origin.participant_id,
        resource_type=kind,
        id=logical_id,
        last_updated=origin.at,
        patient_id=patient_id,
        received_id=origin.received_id,
        body=stamped(resource, version, origin.at),
        revision=0 if current is None else current.revision,
    )
    lookups = _lookups(resource, origin.participant_id)
    if current is None or before is None:
        return Put(row, "created", Changeset(insert=(row, *lookups)))
    old = _lookups(before, origin.participant_id)
    gone = tuple(lookup for lookup in old if lookup not in lookups)
    come = tuple(lookup for lookup in lookups if lookup not in old)
    return Put(row, "updated", Changeset(insert=(_version(current), *come), replace=(row,), delete=gone))


_NOTHING = Changeset()


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
    """What makes a version: neither our own meta nor the message that said it (a doctor is named in every one)."""
    said = resource.get("meta", {})
    if not isinstance(said, dict):
        return resource  # no FHIR: nothing that is stored is like it
    meta = {k: v for k, v in said.items() if k not in ("versionId", "lastUpdated")}
    if str(meta.get("source", "")).startswith("urn:sha256:"):
        del meta["source"]
    rest = {k: v for k, v in resource.items() if k != "meta"}
    return rest | ({"meta": meta} if meta else {})


def stamped(resource: Resource, version: int, at: datetime) -> bytes:
    """The JSON to store: `meta.versionId` and `meta.lastUpdated` are ours."""
    meta = {**resource.get("meta", {}), "versionId": str(version), "lastUpdated": instant(at)}
    head = {"resourceType": resource["resourceType"], "id": resource["id"], "meta": meta}
    return fhir_json.dump({**head, **resource, "meta": meta})


def instant(at: datetime) -> str:
    """A FHIR instant, UTC, milliseconds."""
    return stored_instant(at)[:23] + "Z"


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


def new_version(current: StoredResource, body: Resource, *, at: datetime, patient_id: str | None) -> Changeset:
    """The rows that make `body` the next version, in that patient's compartment; its identifiers are the same."""
    content = stamped(body, current.revision + 1, at)
    row = replace(current, patient_id=patient_id, last_updated=at, body=content)
    return Changeset(insert=(_version(current),), replace=(row,))


def deleted(current: StoredResource, at: datetime) -> Changeset:
    """The rows that delete it: the history stays."""
    return Changeset(insert=(_version(current),), replace=(replace(current, deleted=True, last_updated=at),))


def _lookups(resource: Resource, participant_id: str) -> list[Lookup]:
    """The rows by which it is found, each once, as they stand in the store."""
    if "identifier" not in resource:
        return []
    named = {f"{i.get('system', '')}|{i['value']}": None for i in _list(resource.get("identifier")) if "value" in i}
    return [
        Lookup(
            participant_id=participant_id,
            revision=1,
            resource_type=resource["resourceType"],
            parameter="identifier",
            value=text,
            resource_id=resource["id"],
        )
        for text in named
    ]


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
    """The same JSON with every `reference` that reads `old` now reading `new`; what holds none is not copied."""
    made = value
    for key, part in value.items() if value.__class__ is dict else enumerate(value):
        kind = part.__class__
        if kind is dict or kind is list:
            turned = retargeted(part, old, new)
        elif kind is str and part == old and key == "reference":
            turned = new
        else:
            continue
        if turned is not part:
            made = value.copy() if made is value else made
            made[key] = turned
    return made
