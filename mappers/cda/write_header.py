"""The header of a C-CDA document from a care update: who, about whom, for whom, when, instead of what.

Source: C-CDA R2.1, US Realm Header (2.16.840.1.113883.10.20.22.1.1:2015-08-01).
"""

from collections.abc import Iterable

from lxml import etree

from mappers.cda.markup import (
    LOINC_OID,
    NAMESPACES,
    Resource,
    addresses,
    code,
    element,
    identifiers,
    moment,
    name,
    nodes,
    root_of,
    span,
    telecoms,
    template,
    unique,
)
from mappers.cda.parse import HL7, Node
from mappers.cda.update import Update, author, identified, patient_ids
from profiles.canonical import US_CORE_ETHNICITY, US_CORE_RACE

_GENDER = {"male": ("M", "Male"), "female": ("F", "Female"), "other": ("UN", "Undifferentiated")}
_GENDER_OID, _RACE_OID = "2.16.840.1.113883.5.1", "2.16.840.1.113883.6.238"
_RELATIONS = {"replaces": "RPLC", "appends": "APND", "transforms": "XFRM"}


def head(update: Update, *, loinc: str, title: str, templates: Iterable[tuple[str, str]]) -> Node:
    """ClinicalDocument with everything but its component."""
    composition = update.composition
    root: Node = etree.Element(f"{{{HL7}}}ClinicalDocument", nsmap=NAMESPACES)  # type: ignore[arg-type]
    for part in nodes(
        element("realmCode", code="US"),
        element("typeId", root="2.16.840.1.113883.1.3", extension="POCD_HD000040"),
        [template(*one) for one in templates],
        element("id", root=document_id(update.identifier)),
        code("code", loinc, LOINC_OID, title),
        element("title", composition.get("title") or title),
        moment("effectiveTime", composition.get("date") or update.timestamp),
        code("confidentialityCode", "N", "2.16.840.1.113883.5.25"),
        element("languageCode", code=composition.get("language") or "en-US"),
        _record_target(update),
        _author(update),
        _custodian(update),
        _recipients(update),
        _service(update),
        _related(composition),
        _encounter() if loinc == "11506-3" else None,
    ):
        root.append(part)
    return root


def document_id(value: Resource) -> str:
    """The UUID of a care update by its identifier, so that a later one can name an earlier one."""
    return unique(str(value.get("system", "")), str(value.get("value", "")))


def _record_target(update: Update) -> Node:
    patient = update.patient
    gender = _GENDER.get(patient.get("gender", ""))
    person = element("patient", *[name(one) for one in patient.get("name", ())])
    for part in nodes(
        code("administrativeGenderCode", gender[0], _GENDER_OID, gender[1])
        if gender
        else element("administrativeGenderCode", nullFlavor="UNK"),
        moment("birthTime", patient.get("birthDate")),
        _races(patient, US_CORE_RACE, "raceCode"),
        _races(patient, US_CORE_ETHNICITY, "ethnicGroupCode"),
    ):
        person.append(part)
    role = element("patientRole", *patient_ids(update), *addresses(patient), *telecoms(patient), person)
    return element("recordTarget", role)


def _races(patient: Resource, url: str, tag: str) -> list[Node]:
    """The first code as itself, the others in sdtc; that it is not known, where nobody says it."""
    groups = [one for one in patient.get("extension", ()) if one.get("url") == url]
    found = [part["valueCoding"] for group in groups for part in group["extension"] if "valueCoding" in part]
    known = [one for one in found if root_of(one.get("system")) == _RACE_OID]
    made = [
        code(tag if index == 0 else f"sdtc_{tag}", one["code"], _RACE_OID, one.get("display"))
        for index, one in enumerate(known)
    ]
    return made or [element(tag, nullFlavor="UNK")]


def _author(update: Update) -> list[Node]:
    composition = update.composition
    when = composition.get("date") or update.timestamp
    references = [one.get("reference", "") for one in composition.get("author", ())]
    return [author(update, one, when) for one in references] or [author(update, "", when)]


def _custodian(update: Update) -> Node:
    reference = update.composition.get("custodian", {}).get("reference", "")
    who = update.find(reference) or next(iter(update.kind("Organization")), {"resourceType": "Organization"})
    parts = [*identifiers(who, update.base), element("name", who.get("name", "")), telecoms(who)[0], addresses(who)[0]]
    kept = element("representedCustodianOrganization", *parts)
    return element("custodian", element("assignedCustodian", kept))


def _recipients(update: Update) -> list[Node]:
    """informationRecipient: the general practitioners, as far as the update knows them."""
    found = [update.find(one.get("reference", "")) for one in update.patient.get("generalPractitioner", ())]
    made = []
    for who in (one for one in found if one is not None and one["resourceType"] == "Practitioner"):
        person = element("informationRecipient", *[name(one) for one in who.get("name", ())])
        made.append(
            element("informationRecipient", element("intendedRecipient", *identifiers(who, update.base), person))
        )
    return made


def _related(composition: Resource) -> list[Node]:
    """relatedDocument: the update before this one."""
    made = []
    for one in composition.get("relatesTo", ()):
        kind, target = _RELATIONS.get(one.get("code", "")), one.get("targetIdentifier")
        if kind and target and target.get("value"):
            parent = element("parentDocument", element("id", root=document_id(target)))
            made.append(element("relatedDocument", parent, typeCode=kind))
    return made


def _service(update: Update) -> Node:
    """documentationOf: the care period, with the general practitioner as performer."""
    plan = next(iter(update.kind("CarePlan")), {})
    period = plan.get("period", {})
    event = element("serviceEvent", span("effectiveTime", period.get("start"), period.get("end")), classCode="PCPR")
    for reference in (one.get("reference", "") for one in update.patient.get("generalPractitioner", ())):
        who = update.find(reference)
        if who is not None and who["resourceType"] == "Practitioner":
            person = element("assignedPerson", *[name(one) for one in who.get("name", ())])
            entity = element("assignedEntity", *identified(who, update), person)
            function = code("functionCode", "PCP", "2.16.840.1.113883.5.88", "Primary care provider")
            event.append(element("performer", function, entity, typeCode="PRF"))
    return element("documentationOf", event)


def _encounter() -> Node:
    """A Progress Note needs an encounter; a care update has none, and says so."""
    place = element("location", element("healthCareFacility", element("id", nullFlavor="NA")))
    times = element("effectiveTime", element("low", nullFlavor="NA"))
    encounter = element("encompassingEncounter", element("id", nullFlavor="NA"), times, place, nullFlavor="NA")
    return element("componentOf", encounter)
