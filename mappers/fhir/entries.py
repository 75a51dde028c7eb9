"""The entries of what was posted: which resource, under which names the others know it, whose id it keeps.

Source: FHIR R4, Bundle (resolving references) and RESTful API (transaction, batch: ids of POST and PUT).
"""

import re
from dataclasses import dataclass
from typing import Any

from mappers.conversion import Unmapped
from mappers.fhir.references import objects, text

Resource = dict[str, Any]

_LEFT = {
    "Bundle": "A Bundle inside a Bundle is not opened: send its resources themselves.",
    "OperationOutcome": "An OperationOutcome is a report about an exchange and nothing to keep.",
    "MessageHeader": "The MessageHeader routes a message; what it carries is kept.",
    "Parameters": "Parameters belong to an operation; here resources are taken.",
}
_NOTHING = "The entry holds no resource (a deletion or a search result without one): nothing is done."
_ID = r"[A-Za-z0-9\-.]{1,64}"
_ADDRESS = re.compile(rf"([A-Z][A-Za-z]{{0,63}})/({_ID})")
_FULL = re.compile(rf"https?://\S+/([A-Z][A-Za-z]{{0,63}}/{_ID})")


@dataclass(frozen=True, slots=True)
class Entry:
    """One resource to keep. `number` is its place in the Bundle (None: lifted out of another).

    `names` are the references by which other entries mean it. `keeps_id`: its posted id is its id; a POST of a
    transaction or batch gives that up, because the id is ours to assign.
    """

    number: int | None
    place: str
    resource: Resource
    names: tuple[str, ...]
    keeps_id: bool

    @property
    def kind(self) -> str:
        """The resource type."""
        return str(self.resource["resourceType"])


def entries_of(posted: Resource) -> tuple[list[Entry], list[Unmapped], int]:
    """What is to be kept, what is not, and how many entries there are. A single resource is one entry."""
    if posted["resourceType"] != "Bundle":
        whole = [(posted["resourceType"], {"resource": posted})]
    else:
        found = objects(posted.get("entry"))
        whole = [(f"Bundle.entry[{number}].resource", one) for number, one in enumerate(found)]
    kept: list[Entry] = []
    unmapped: list[Unmapped] = []
    for number, (place, entry) in enumerate(whole):
        resource = entry.get("resource")
        if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
            unmapped.append(Unmapped(place, "bad", _NOTHING))
        elif resource["resourceType"] in _LEFT:
            unmapped.append(Unmapped(place, "left", _LEFT[resource["resourceType"]]))
        else:
            kept.append(_entry(number, place, entry, resource))
    return kept, unmapped, len(whole)


def _entry(number: int, place: str, entry: Resource, resource: Resource) -> Entry:
    request = entry.get("request")
    request = request if isinstance(request, dict) else {}
    named = _ADDRESS.fullmatch(text(request.get("url")))
    if request.get("method") == "PUT" and named and named[1] == resource["resourceType"]:
        resource = {"resourceType": named[1], "id": named[2]} | {k: v for k, v in resource.items() if k != "id"}
    return Entry(number, place, resource, tuple(_names(entry, resource)), request.get("method") != "POST")


def _names(entry: Resource, resource: Resource) -> list[str]:
    """The fullUrl; what is relative to it (`Observation/1` of `http://x/fhir/Observation/1`); the posted id; its
    identifiers as conditional references have them (`Observation?identifier=system|value`)."""
    kind = resource["resourceType"]
    url = text(entry.get("fullUrl"))
    full = _FULL.fullmatch(url)
    own = f"{kind}/{resource['id']}" if isinstance(resource.get("id"), str) else ""
    known = [one for one in objects(resource.get("identifier")) if text(one.get("system")) and text(one.get("value"))]
    tokens = (f"{kind}?identifier={one['system']}|{one['value']}" for one in known)
    return list(dict.fromkeys(name for name in (url, full[1] if full else "", own, *tokens) if name))
