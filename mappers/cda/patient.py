"""recordTarget -> Patient, with race, ethnicity and guardian.

Source: C-CDA on FHIR 2.0.0, CF-patient; US Core 6.1.0, us-core-patient.
"""

from typing import Any

from mappers.cda import dialect
from mappers.cda.compiled import Kept
from mappers.cda.context import Document, Resource, identifiers
from mappers.cda.datatypes import coding, concept
from mappers.cda.demographics import human_name
from mappers.cda.node import Node
from mappers.cda.paths import first, grouped
from mappers.cda.people import common, organization
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
    document.patient_ids = frozenset(identifiers(role))
    resource, kept = dialect.apply("patient", role, document=document, kind="Patient")
    if "deceasedDateTime" in resource:
        resource.pop("deceasedBoolean", None)
    groups = _race(kept, "raceCode", url=US_CORE_RACE, groups=_OMB_RACE, document=document)
    groups += _race(kept, "ethnicGroupCode", url=US_CORE_ETHNICITY, groups=_OMB_ETHNICITY, document=document)
    if groups:
        resource.setdefault("extension", []).extend(groups)
    contacts = [found for node in kept.get("patient/guardian", ()) if (found := _guardian(node, document))]
    if contacts:
        resource["contact"] = contacts
    known = next((one for one in resource.get("identifier", ()) if "system" in one), None)
    own = (known["system"], known["value"]) if known else (document.seed,)  # as the HL7 v2 and FHIR mappers make it
    resource["id"] = resource_id("Patient", *own)
    resource["meta"] = {"source": document.source_of(role)}
    document.subject = {"reference": f"Patient/{resource['id']}"}
    provider = organization(kept["providerOrganization"][0], document) if "providerOrganization" in kept else None
    if provider:
        resource["managingOrganization"] = {"reference": provider}
    return resource


def _race(kept: Kept, name: str, *, url: str, groups: set[str], document: Document) -> list[dict[str, Any]]:
    """raceCode and sdtc:raceCode -> us-core-race; ethnicGroupCode likewise. The text is all displays, joined."""
    parts: list[dict[str, Any]] = []
    displays: list[str] = []
    for node in [*kept.get(f"patient/{name}", ()), *kept.get(f"patient/sdtc:{name}", ())]:
        found = _group(node, groups, document=document)
        if found is None:
            document.nothing(node)
        elif found in parts:
            continue
        elif found["url"] == "ombCategory" and sum(one["url"] == "ombCategory" for one in parts) == _MOST[url]:
            document.leave(node, "left", reason="US Core has no room for another category: it stays in the document.")
        else:
            parts.append(found)
            coded = found["valueCoding"]
            displays.append(_UNKNOWN.get(coded["code"]) or coded.get("display") or coded["code"])
    if not parts:
        return []
    text = {"url": "text", "valueString": ", ".join(dict.fromkeys(displays))}
    return [{"url": url, "extension": [*parts, text]}]


_MOST = {US_CORE_RACE: 5, US_CORE_ETHNICITY: 1}


def _group(node: Node, groups: set[str], *, document: Document) -> dict[str, Any] | None:
    """One part of the extension: a category of OMB, a detailed code, or that it is not known."""
    found = coding(node, document.at(node))
    if found and found.get("system") == CDC_RACE and "code" in found:
        return {"url": "ombCategory" if found["code"] in groups else "detailed", "valueCoding": found}
    flavor = node.get("nullFlavor") or ""
    if flavor in _UNKNOWN:
        return {"url": "ombCategory", "valueCoding": {"system": NULL_FLAVOR, "code": flavor}}
    return None


def _guardian(node: Node, document: Document) -> dict[str, Any] | None:
    parts = grouped(node)
    found = first("guardianPerson/name")(node)
    name = human_name(found, document) if found is not None else None
    relation = concept(parts["code"][0], document) if "code" in parts else None
    contact: dict[str, Any] = {"relationship": [{"coding": [_GUARDIAN]}] + ([relation] if relation else [])}
    if name:
        contact["name"] = name
    shared = common(parts, document)
    if "telecom" in shared:
        contact["telecom"] = shared["telecom"]
    if "address" in shared:
        contact["address"] = shared["address"][0]
    return contact if contact.keys() - {"relationship"} else None
