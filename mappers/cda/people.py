"""Participations: Patient, Practitioner, Organization, Device, and who wrote what.

Source: C-CDA on FHIR 2.0.0, CF-patient and CF-participations; US Core 6.1.0.
"""

from typing import Any

from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.context import Document, Resource, folded, identifiers
from mappers.cda.datatypes import address, coding, concept, human_name, identifier, telecom
from mappers.cda.parse import Node
from mappers.cda.paths import each, first
from mappers.converters import resource_id
from profiles.canonical import CDC_RACE, NULL_FLAVOR, US_CORE_ETHNICITY, US_CORE_RACE

_OMB_RACE = {"1002-5", "2028-9", "2054-5", "2076-8", "2106-3"}  # US Core 6.1.0, omb-race-category
_OMB_ETHNICITY = {"2135-2", "2186-5"}
_UNKNOWN = {"UNK": "Unknown", "ASKU": "Asked but no answer"}
_GUARDIAN = {"system": "http://terminology.hl7.org/CodeSystem/v3-RoleCode", "code": "GUARD"}


def patient(document: Document) -> Resource | None:
    """recordTarget/patientRole -> Patient, or None when the document names nobody."""
    role = first("recordTarget/patientRole")(document.root)
    if role is None:
        return None
    resource = dialect.apply("patient", role, document=document, kind="Patient")
    person = first("patient")(role)
    if person is not None:
        groups = _race(person, "raceCode", url=US_CORE_RACE, groups=_OMB_RACE, document=document)
        groups += _race(person, "ethnicGroupCode", url=US_CORE_ETHNICITY, groups=_OMB_ETHNICITY, document=document)
        if groups:
            resource.setdefault("extension", []).extend(groups)
        contacts = [found for node in each("guardian")(person) if (found := _guardian(node, document))]
        if contacts:
            resource["contact"] = contacts
    document.add(resource, role)
    document.resources.remove(resource)
    known = [one for one in resource.get("identifier", ()) if "system" in one]
    if known:  # as the HL7 v2 and FHIR mappers make it
        resource["id"] = resource_id("Patient", known[0]["system"], known[0]["value"])
    return resource


def _race(person: Node, name: str, *, url: str, groups: set[str], document: Document) -> list[dict[str, Any]]:
    """raceCode and sdtc:raceCode -> us-core-race; ethnicGroupCode likewise. The text is all displays, joined."""
    parts: list[dict[str, Any]] = []
    displays: list[str] = []
    for node in each(name)(person) + each(f"sdtc:{name}")(person):
        unknown = _UNKNOWN.get(node.get("nullFlavor") or "")
        found = coding(node, document.at(node))
        if found and found.get("system") == CDC_RACE:
            parts.append({"url": "ombCategory" if found["code"] in groups else "detailed", "valueCoding": found})
            displays.append(found.get("display") or found["code"])
        elif unknown:
            value = {"system": NULL_FLAVOR, "code": node.get("nullFlavor")}
            parts.append({"url": "ombCategory", "valueCoding": value})
            displays.append(unknown)
    if not parts:
        return []
    text = {"url": "text", "valueString": ", ".join(dict.fromkeys(displays))}
    return [{"url": url, "extension": [*_once(parts), text]}]


def _once(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for index, part in enumerate(parts) if part not in parts[:index]]


def _guardian(node: Node, document: Document) -> dict[str, Any] | None:
    found = first("guardianPerson/name")(node)
    name = human_name(found, document) if found is not None else None
    code = first("code")(node)
    relation = concept(code, document) if code is not None else None
    contact: dict[str, Any] = {"relationship": [{"coding": [_GUARDIAN]}] + ([relation] if relation else [])}
    if name:
        contact["name"] = name
    telecoms = [value for one in each("telecom")(node) if (value := telecom(one, document))]
    if telecoms:
        contact["telecom"] = telecoms
    addresses = [value for one in each("addr")(node) if (value := address(one, document))]
    if addresses:
        contact["address"] = addresses[0]
    return contact if contact.keys() - {"relationship"} else None


def _common(node: Node, document: Document) -> dict[str, Any]:
    """identifier, telecom and address of a role or an organization."""
    found = {
        "identifier": [value for one in each("id")(node) if (value := identifier(one, document))],
        "telecom": [value for one in each("telecom")(node) if (value := telecom(one, document))],
        "address": [value for one in each("addr")(node) if (value := address(one, document))],
    }
    return {name: values for name, values in found.items() if values}


def _key(node: Node, name: str) -> str:
    return next(iter(identifiers(node)), "") or f"name|{name}"


def organization(node: Node | None, document: Document) -> str | None:
    """An organization element -> Organization; None when it has no name."""
    if node is None:
        return None
    document.at(node)
    found = first("name")(node)
    name = folded(found) if found is not None else None
    if name is None:
        return None
    resource: Resource = {"resourceType": "Organization"} | _common(node, document)
    for part in (*resource.get("address", ()), *resource.get("telecom", ())):
        if part.get("use") == "home":  # org-1, org-2: an organization has no home
            del part["use"]
    resource |= {"active": True, "name": name}  # it takes part in this document, so it is in use
    claim(resource, "us-core-organization")
    return document.shared(resource, node, key=_key(node, name))


def practitioner(role: Node, person: str, *, document: Document) -> str | None:
    """An assigned role with a person -> Practitioner; None when the person has no name and the role no id."""
    document.at(role)
    names = [value for one in each(f"{person}/name")(role) if (value := human_name(one, document))]
    common = _common(role, document)
    if not names and "identifier" not in common:
        return None
    resource: Resource = {"resourceType": "Practitioner"} | common | ({"name": names} if names else {})
    claim(resource, "us-core-practitioner")
    return document.shared(resource, role, key=_key(role, str(names)))


def author(node: Node, document: Document) -> str | None:
    """author -> the reference of who wrote: the patient, a person, a device or an organization; None: not said."""
    role = first("assignedAuthor")(node)
    if role is None:
        return None
    if _is_patient(role, document):
        return document.patient_reference
    device = first("assignedAuthoringDevice")(role)
    if device is not None and first("assignedPerson")(role) is None:
        return _device(role, device, document=document)
    if first("assignedPerson")(role) is None:
        known = document.linked(role, "Practitioner", "Organization", "Device")
        found = known[0] if known else organization(first("representedOrganization")(role), document)
        if found is not None:
            return found
    reference = practitioner(role, "assignedPerson", document=document)
    if reference is not None:
        for key in identifiers(role):
            document.by_id.setdefault(key, []).append(reference)
    return reference


def _is_patient(role: Node, document: Document) -> bool:
    """Whether the author is the patient: the code ONESELF, or one of the patient's own ids."""
    if first("code/@code")(role) == "ONESELF":
        return True
    target = first("recordTarget/patientRole")(document.root)
    return target is not None and not set(identifiers(target)).isdisjoint(identifiers(role))


def _device(role: Node, device: Node, *, document: Document) -> str | None:
    names = [text for name in ("softwareName", "manufacturerModelName") if (text := _text(device, name))]
    if not names:
        return None
    resource: Resource = {"resourceType": "Device"}
    identities = [value for one in each("id")(role) if (value := identifier(one, document))]
    if identities:
        resource["identifier"] = identities
    resource["deviceName"] = [{"name": name, "type": "model-name"} for name in dict.fromkeys(names)]
    return document.shared(resource, role, key=_key(role, names[0]))


def _text(node: Node, name: str) -> str | None:
    found = first(name)(node)
    return (folded(found) or found.get("displayName")) if found is not None else None
