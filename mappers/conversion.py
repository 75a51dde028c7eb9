"""What a mapper gives back: resources, what it did not use, and what it found."""

from dataclasses import dataclass, field
from typing import Any

from profiles.issue import Issue

Resource = dict[str, Any]  # plain FHIR JSON; decimals are Decimal


@dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes come from. `sha256` (hex) names them; `time_zone` is the sender's, if it was configured."""

    sha256: str
    received_at: str  # RFC 3339, for Provenance.recorded
    time_zone: str | None = None


@dataclass(frozen=True, slots=True)
class Unmapped:
    """One field or entry with a value that no resource carries. `kind`: left (on purpose), unknown, bad."""

    location: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Conversion:
    """The resources of one message or document.

    `entries` (FHIR in): for each entry of the posted Bundle, in its order, `Type/id` of the resource that it became,
    None where nothing is kept; a single resource is one entry.

    `patient` is the Patient as the source states it; every reference to it in `resources` reads `Patient/<its id>`.
    `resources` holds all the others, Provenance included. They are read, not changed in place: parts that are the same
    in many of them are one object. Ids depend on content and position only, never on the clock: the same bytes give the
    same ids, and a corrected result gives the id of the result that it corrects.
    """

    patient: Resource | None = None
    resources: tuple[Resource, ...] = ()
    unmapped: tuple[Unmapped, ...] = ()
    issues: tuple[Issue, ...] = ()
    control_id: str | None = None  # HL7 v2: MSH-3 and MSH-10, joined by "|"; CDA: ClinicalDocument/id
    meta: dict[str, str] = field(default_factory=dict)
    entries: tuple[str | None, ...] = ()
