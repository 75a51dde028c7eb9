"""Who a care update is about and who speaks in it, by what identifies them and nothing more. Pure.

Source: US Core 6.1.0, Patient, Practitioner, Organization; CMS ACCESS API IG 0.9.12 for the participant's identifier.
"""

from collections.abc import Iterator
from typing import Any

from profiles import canonical
from server.settings import Participant

Resource = dict[str, Any]

_NOT_SENT = frozenset({canonical.SSN, "urn:oid:2.16.840.1.113883.4.1"})  # nobody needs it for a care update
_PATIENT = ("name", "gender", "birthDate")


def patient(stored: Resource) -> Resource:
    """The Patient by what identifies the person to a clinician; it claims US Core if it can."""
    identifiers = [each for each in stored.get("identifier", ()) if each.get("system") not in _NOT_SENT]
    kept = {name: stored[name] for name in _PATIENT if name in stored}
    complete = identifiers and all("system" in each and "value" in each for each in identifiers)
    claims = bool(complete and "name" in kept and "gender" in kept)
    return {
        "resourceType": "Patient",
        "id": stored["id"],
        **({"meta": {"profile": [canonical.US_CORE_PINNED("us-core-patient")]}} if claims else {}),
        **({"identifier": identifiers} if identifiers else {}),
        **kept,
    }


def agents(participant: Participant) -> Iterator[Resource]:
    """The organization, and the clinician who answers for its updates if one is configured."""
    yield {
        "resourceType": "Organization",
        "id": participant.entity_id,
        "meta": {"profile": [canonical.US_CORE_PINNED("us-core-organization")]},
        "identifier": [{"system": canonical.PARTICIPANT_ID, "value": participant.entity_id}],
        "active": True,
        "name": participant.name,
    }
    clinician = participant.author
    if clinician.npi and clinician.family:
        name = {"family": clinician.family} | ({"given": [clinician.given]} if clinician.given else {})
        yield {
            "resourceType": "Practitioner",
            "id": f"npi-{clinician.npi}",
            "meta": {"profile": [canonical.US_CORE_PINNED("us-core-practitioner")]},
            "identifier": [{"system": canonical.NPI, "value": clinician.npi}],
            "name": [name],
        }


def author(participant: Participant) -> Resource:
    """A reference to the clinician; to the organization if none is configured."""
    last = [*agents(participant)][-1]
    return {"reference": f"{last['resourceType']}/{last['id']}"}


def organization_reference(participant: Participant) -> Resource:
    """A reference to the organization."""
    return {"reference": f"Organization/{participant.entity_id}"}
