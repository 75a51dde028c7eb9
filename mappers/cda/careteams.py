"""Care teams: an organizer with a member an act -> CareTeam.

Source: C-CDA R2.1 Companion Guide, Care Team Organizer 4.500 and Care Team Member Act 4.500.1; US Core 6.1.0,
us-core-careteam. No map is published.
"""

from typing import Any

from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.context import Document, Resource
from mappers.cda.datatypes import concept
from mappers.cda.node import Node
from mappers.cda.paths import grouped
from mappers.cda.people import performers
from mappers.cda.times import bounds

_FRAME = frozenset({"templateId", "id", "code", "statusCode", "text"})  # say only that the act is one of a member
_TAKEN = frozenset({"performer", "effectiveTime"})


def care_team(node: Node, document: Document) -> str:
    """Care Team Organizer -> CareTeam; a member whom nobody names is booked."""
    resource, kept = dialect.apply("careteam", node, document=document, kind="CareTeam")
    resource["subject"] = document.subject
    if "effectiveTime" in kept and (period := bounds(kept["effectiveTime"][0], document)):
        resource["period"] = period
    members = [
        made for component in kept.get("component", ()) for act in component[:] for made in _member(act, document)
    ]
    if members:
        resource["participant"] = members
    claim(resource, "us-core-careteam")
    return document.add(resource, node)


def _member(act: Node, document: Document) -> list[dict[str, Any]]:
    """The persons of one act, in its role and time."""
    parts = grouped(act)
    for name in parts.keys() - _FRAME - _TAKEN:
        for one in parts[name]:
            document.unread(one)
    period = bounds(parts["effectiveTime"][0], document) if "effectiveTime" in parts else {}
    found = []
    for performer in parts.get("performer", ()):
        people = performers({"performer": [performer]}, document.at(performer))
        if not people:
            document.nothing(performer)
        found += [_participant(one, performer, period, document=document) for one in people]
    return found


def _participant(member: Resource, performer: Node, period: Resource, *, document: Document) -> dict[str, Any]:
    parts = grouped(performer)
    coded = [*parts.get("sdtc:functionCode", ()), *parts.get("functionCode", ())]
    roles = [role for one in coded[:1] if (role := concept(one, document)) is not None]
    made: dict[str, Any] = {"role": roles} if roles else {}
    return made | {"member": member} | ({"period": period} if period else {})
