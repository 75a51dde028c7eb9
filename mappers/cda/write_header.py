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
    templates,
    unique,
)
from mappers.cda.node import Node
from mappers.cda.parse import HL7
from mappers.cda.update import Update, author, identified, patient_ids, person, unknown
from profiles.canonical import US_CORE_ETHNICITY, US_CORE_RACE

_GENDER = {"male": ("M", "Male"), "female": ("F", "Female"), "other": ("UN", "Undifferentiated")}
_GENDER_OID, _RACE_OID = "2.16.840.1.113883.5.1", "2.16.840.1.113883.6.238"
_PROGRESS_NOTE, _REFERRAL_NOTE = "11506-3", "57133-1"
_PROGRESS_EVENT = "2.16.840.1.113883.10.20.21.3.1"  # serviceEvent of a Progress Note; others may have it
_RELATIONS = {"replaces": "RPLC", "appends": "APND", "transforms": "XFRM"}


def head(update: Update, *, loinc: str, title: str, kinds: Iterable[tuple[str, str]]) -> Node:
    """ClinicalDocument with everything but its component."""
    composition = update.composition
    root: Node = etree.Element(f"{{{HL7}}}ClinicalDocument", nsmap=NAMESPACES)  # type: ignore[arg-type,assignment]
    for part in nodes(
        element("realmCode", code="US"),
        element("typeId", root="2.16.840.1.113883.1.3", extension="POCD_HD000040"),
        [made for one in kinds for made in templates(*one)],
        element("id", root=document_id(update.identifier)),
        code("code", loinc, LOINC_OID, title),
        element("title", composition.get("title") or title),
        moment("effectiveTime", composition.get("date") or update.timestamp),
        code("confidentialityCode", "N", "2.16.840.1.113883.5.25"),
        element("languageCode", code=composition.get("language") or "en-US"),
        _record_target(update),
        _author(update),
        _custodian(update),
        _recipients(update, exactly_one=loinc == _REFERRAL_NOTE),
        _service(update),
        _related(composition),
        _encounter(update) if loinc == _PROGRESS_NOTE else None,
    ):
        root.append(part)
    return root


def document_id(value: Resource) -> str:
    """The UUID of a care update by its identifier, so that a later one can name an earlier one."""
    return unique(str(value.get("system", "")), str(value.get("value", "")))


def _record_target(update: Update) -> Node:
    patient = update.patient
    gender = _GENDER.get(patient.get("gender", ""))
    about = element("patient", *[name(_parted(one)) for one in patient.get("name") or [{}]])
    for part in nodes(
        code("administrativeGenderCode", gender[0], _GENDER_OID, gender[1])
        if gender
        else element("administrativeGenderCode", nullFlavor="UNK"),
        moment("birthTime", patient.get("birthDate")),
        _races(patient, US_CORE_RACE, "raceCode"),
        _races(patient, US_CORE_ETHNICITY, "ethnicGroupCode"),
    ):
        about.append(part)
    role = element("patientRole", *patient_ids(update), *addresses(patient), *telecoms(patient), about)
    return element("recordTarget", role)


def _parted(value: Resource) -> Resource:
    """A patient's name has parts (others may be words alone): words without parts are told as the family name."""
    bare = not any(value.get(part) for part in ("prefix", "given", "family", "suffix"))
    return value | {"family": value["text"]} if bare and value.get("text") else value


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


def _doctors(update: Update) -> list[Resource]:
    """The general practitioners, as far as the update knows them."""
    found = [update.find(one.get("reference", "")) for one in update.patient.get("generalPractitioner", ())]
    return [who for who in found if who is not None and who["resourceType"] == "Practitioner"]


def _recipients(update: Update, *, exactly_one: bool) -> list[Node]:
    """informationRecipient: the general practitioners. A Referral Note has one: the first, or that none is known."""
    known = _doctors(update)
    found = (known or [{}])[:1] if exactly_one else known
    made = []
    for who in found:
        ids = identified(who, update) if who else unknown()
        recipient = element("intendedRecipient", *ids, person("informationRecipient", who))
        made.append(element("informationRecipient", recipient))
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
    """documentationOf: the care period, with the general practitioners as performers, or that none is known."""
    plan = next(iter(update.kind("CarePlan")), {})
    period = plan.get("period", {})
    time = span("effectiveTime", period.get("start"), period.get("end"), ended=True)
    performers = [_performer(who, update) for who in _doctors(update) or [{}]]
    return element(
        "documentationOf", element("serviceEvent", template(_PROGRESS_EVENT), time, *performers, classCode="PCPR")
    )


def _performer(who: Resource, update: Update) -> Node:
    known = bool(who)
    function = code("functionCode", "PCP", "2.16.840.1.113883.5.88", "Primary care provider") if known else None
    ids = identified(who, update) if known else unknown()
    entity = element("assignedEntity", *ids, person("assignedPerson", who))
    return element("performer", function, entity, typeCode="PRF")


def _encounter(update: Update) -> Node:
    """A Progress Note needs an encounter with a time; a care update has none, and says so with its own time."""
    place = element("location", element("healthCareFacility", element("id", nullFlavor="NA")))
    times = element("effectiveTime", moment("low", update.composition.get("date") or update.timestamp))
    encounter = element("encompassingEncounter", element("id", nullFlavor="NA"), times, place, nullFlavor="NA")
    return element("componentOf", encounter)
