"""Participations: Practitioner, PractitionerRole, Organization, Device, RelatedPerson, and who wrote what.

Each is made once a document, by its first id (by its name, when it has none); an entry by id alone is the person whose
full entry stands elsewhere. Source: C-CDA on FHIR 2.0.0, CF-participations; US Core 6.1.0.
"""

from collections.abc import Iterable
from typing import Any

from mappers.cda.claims import claim
from mappers.cda.compiled import Kept
from mappers.cda.context import Document, Resource, folded, keys_of, says
from mappers.cda.datatypes import concept, identifier
from mappers.cda.demographics import address, human_name, telecom
from mappers.cda.node import Node
from mappers.cda.paths import child, grouped, qualified

Children = dict[str, list[Node]]

_ROLE = qualified("assignedAuthor")
_ENTITY, _NAME = qualified("assignedEntity"), qualified("name")
_ROLE_CODES = "2.16.840.1.113883.5.111"
_NOBODY = "Of a role that names no person only the organization is mapped."
_NAMELESS = "Of a role by id alone only the id is mapped: its full entry says what the person is and where."
_DEVICE = "Of a device only its id and names are mapped."
_AGENTS = ("Practitioner", "PractitionerRole", "Organization", "Device", "RelatedPerson")


def common(parts: Children, document: Document) -> dict[str, Any]:
    """identifier, telecom and address of a role or an organization."""
    found: dict[str, Any] = {}
    for name, target, convert in _COMMON:
        if name in parts:
            values = []
            for one in parts[name]:
                value = convert(one, document)
                if value is not None:
                    values.append(value)
            if values:
                found[target] = values
    return found


_COMMON = (("id", "identifier", identifier), ("telecom", "telecom", telecom), ("addr", "address", address))


def _key(parts: Children, name: Any) -> str:
    own = keys_of(parts["id"]) if "id" in parts else None
    return own[0] if own else f"name|{name}"


def _first(parts: Children, name: str) -> Node | None:
    return parts[name][0] if name in parts else None


def organization(node: Node | None, document: Document) -> str | None:
    """An organization element -> Organization; None when it has no name."""
    if node is None:
        return None
    document.node = node
    parts = grouped(node)
    name = folded(parts["name"][0]) if "name" in parts else None
    if name is None:
        document.nothing(node)
        return None
    resource: Resource = {"resourceType": "Organization"} | common(parts, document)
    for held in ("address", "telecom"):
        for part in resource.get(held, ()):
            if part.get("use") == "home":  # org-1, org-2: an organization has no home
                del part["use"]
    resource["active"] = True  # it takes part in this document, so it is in use
    resource["name"] = name
    claim(resource, "us-core-organization")
    return document.shared(resource, node, key=_key(parts, name))


def practitioner(role: Node, person: str, *, document: Document, parts: Children | None = None) -> str | None:
    """An assigned role with a person -> Practitioner, and its PractitionerRole with an organization.

    None when the person has no name and the role no id. `person` is the name of the child that holds the person;
    `parts` are the role's children by name, where they are known.
    """
    document.node = role
    parts = grouped(role) if parts is None else parts
    names = [name for one in parts[person] for name in _names(one, document)] if person in parts else []
    shared = common(parts, document)
    if not names and "identifier" not in shared:
        return None
    resource: Resource = {"resourceType": "Practitioner"} | shared
    if names:
        resource["name"] = names
    claim(resource, "us-core-practitioner")
    own = keys_of(parts["id"]) if "id" in parts else []
    reference = document.shared(resource, role, key=own[0] if own else f"name|{names}")
    for key in own:
        document.means(key, reference)
    if names and ("representedOrganization" in parts or "code" in parts):
        _role(reference, role, parts, document=document)
    elif not names:
        _booked(parts, ("representedOrganization", "code"), document, reason=_NAMELESS)
    return reference


def _booked(parts: Children, names: tuple[str, ...], document: Document, *, reason: str) -> None:
    """Books parts of a role that no resource carries, where they say anything."""
    for one in (one for name in names for one in parts.get(name, ())):
        if says(one):
            document.leave(one, "left", reason=reason)


def _names(person: Node, document: Document) -> list[dict[str, Any]]:
    nodes = [one for one in person[:] if one.tag == _NAME]
    return [found for one in nodes if (found := human_name(one, document)) is not None]


def _role(who: str, role: Node, parts: Children, *, document: Document) -> None:
    """What a person is at an organization, or by a code (specialty)."""
    where = organization(parts["representedOrganization"][0], document) if "representedOrganization" in parts else None
    kind = concept(parts["code"][0], document.at(parts["code"][0])) if "code" in parts else None
    if where is None and kind is None:
        return
    resource: Resource = {"resourceType": "PractitionerRole", "practitioner": {"reference": who}}
    if where:
        resource["organization"] = {"reference": where}
    if kind:
        resource["specialty"] = [kind]
    resource |= common({"telecom": parts.get("telecom", [])}, document)
    claim(resource, "us-core-practitionerrole")
    key = "" if kind is None else str(kind)
    document.shared(resource, role, key=f"role|{who}|{where}|{key}")


def related(role: Node, person: str, *, document: Document) -> str | None:
    """A relative or carer of the patient -> RelatedPerson; None when there is neither name nor relationship."""
    document.node = role
    parts = grouped(role)
    names = [name for one in parts.get(person, ()) for name in _names(one, document)]
    relation = concept(parts["code"][0], document) if "code" in parts else None
    if not names and relation is None:
        return None
    resource: Resource = {"resourceType": "RelatedPerson"} | common(parts, document)
    resource |= {"active": True, "patient": document.subject}
    if relation:
        resource["relationship"] = [relation]
    if names:
        resource["name"] = names
    claim(resource, "us-core-relatedperson")
    return document.shared(resource, role, key=f"related|{_key(parts, names)}")


def author(node: Node, document: Document) -> str | None:
    """author -> the reference of who wrote: the patient, a person, a device or an organization; None: not said."""
    role = child(node, _ROLE)
    if role is None:
        return None
    parts = grouped(role)
    own = keys_of(parts["id"]) if "id" in parts else None
    if not own:
        return _author(role, parts, own=(), document=document)
    known = (own[0], "assignedPerson" in parts)
    found = document.writers.get(known)
    if found is None:
        found = _author(role, parts, own=own, document=document)
        if found is not None:
            document.writers[known] = found
    return found


def _author(role: Node, parts: Children, *, own: Iterable[str], document: Document) -> str | None:
    code = parts["code"][0] if "code" in parts else None
    if code is not None and code.get("code") == "ONESELF" or not document.patient_ids.isdisjoint(own):
        return document.subject["reference"]
    if code is not None and code.get("codeSystem") == _ROLE_CODES:
        return related(role, "assignedPerson", document=document)
    if "assignedPerson" not in parts:
        if "assignedAuthoringDevice" in parts:
            return _device(role, parts, document=document)
        linked = document.linked(role, *_AGENTS)
        found = linked[0] if linked else organization(_first(parts, "representedOrganization"), document)
        if found is not None:
            return found
    return practitioner(role, "assignedPerson", document=document, parts=parts)


def performers(kept: Kept, document: Document) -> list[dict[str, str]]:
    """References of the persons and organizations that performed a statement."""
    if "performer" not in kept:
        return []
    roles = [role for node in kept["performer"] for role in node[:] if role.tag == _ENTITY]
    found = [_performer(role, document) for role in roles]
    return [document.refer(one) for one in dict.fromkeys(one for one in found if one)]


def _performer(role: Node, document: Document) -> str | None:
    parts = grouped(role)
    if "assignedPerson" not in parts:
        linked = document.linked(role, "Practitioner")
        found = linked[0] if linked else organization(_first(parts, "representedOrganization"), document)
        if found is not None:
            if not linked:
                document.leave(role, "left", reason=_NOBODY)
            return found
    return practitioner(role, "assignedPerson", document=document, parts=parts)


def _device(role: Node, parts: Children, *, document: Document) -> str | None:
    _booked(parts, ("addr", "telecom", "representedOrganization"), document, reason=_DEVICE)
    device = grouped(parts["assignedAuthoringDevice"][0])
    nodes = [device[name][0] for name in ("softwareName", "manufacturerModelName") if name in device]
    names = [text for one in nodes if (text := folded(one) or one.get("displayName"))]
    if not names:
        return None
    resource: Resource = {"resourceType": "Device"} | common({"id": parts.get("id", [])}, document)
    resource["deviceName"] = [{"name": name, "type": "model-name"} for name in dict.fromkeys(names)]
    return document.shared(resource, role, key=_key(parts, names[0]))
