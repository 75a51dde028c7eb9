"""Stored FHIR resources, their earlier versions, and how they are found."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from server.domain.record import Record, Table, blind, sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResource(Record):
    """The current version of one resource; `revision` is its versionId.

    `body` is the FHIR JSON with `id`, `meta.versionId` and `meta.lastUpdated`. `patient_id` is the logical id of the
    Patient in whose compartment it is. `received_id` names the raw bytes it came from.
    """

    TABLE: ClassVar[Table] = Table(
        "resource",
        key=("participant_id", "resource_type", "id"),
        indexes=(("participant_id", "patient_id", "resource_type"),),
    )
    resource_type: str
    id: str
    last_updated: datetime
    patient_id: str | None = None
    received_id: str | None = None
    deleted: bool = False
    body: bytes = sealed()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceVersion(Record):
    """An earlier version, written when a resource is replaced. `version_id` was its revision."""

    TABLE: ClassVar[Table] = Table(
        "resource_version", key=("participant_id", "resource_type", "id", "version_id"), append_only=True
    )
    resource_type: str
    id: str
    version_id: int
    last_updated: datetime
    patient_id: str | None = None
    received_id: str | None = None
    deleted: bool = False
    body: bytes = sealed()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup(Record):
    """One searchable value of one resource; `value` is `system|code` or the like, kept as a keyed hash.

    Never replaced; which rows a resource has follows from its current body, so there is no index from it to them.
    """

    TABLE: ClassVar[Table] = Table(
        "lookup",
        key=("participant_id", "resource_type", "parameter", "value", "resource_id"),
    )
    resource_type: str
    parameter: str
    value: str = blind()
    resource_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientIdentity(Record):
    """One identifier (`system|value`) of one patient: two senders can not make two patients of one person."""

    TABLE: ClassVar[Table] = Table(
        "patient_identity", key=("participant_id", "identifier"), indexes=(("participant_id", "patient_id"),)
    )
    identifier: str = blind()
    patient_id: str
