"""What CMS checks in a report before its 202: the document Bundle and its Composition. Its identifier comes later.

Source: ACCESS API IG 0.9.12, access-data-reporting-bundle and -composition with their invariants; FHIR R4 bdl-9, -10,
-11; narrative everywhere and resolvable questionnaires as its test environment wants. Table: data/sections.toml.
"""

from collections.abc import Iterator
from typing import Any

from sandbox import section_checks, tables
from sandbox.exchange import Issue
from sandbox.fhirjson import claims, codings, filled, obj, rows

REFERENCES = frozenset(
    {"subject", "author", "custodian", "encounter", "entry", "focus", "party", "detail", "targetReference"}
)  # fmt: skip
REQUIRED = {
    "Composition": ("status", "type", "date", "author", "title", "custodian", "section"),
    "Practitioner": ("identifier", "name"),
    "Organization": ("active", "name"),
}
PROFILES = {
    "Composition": ("access-data-reporting-composition",),
    "Practitioner": ("us-core-practitioner",),
    "PractitionerRole": ("us-core-practitionerrole",),
    "Organization": ("us-core-organization",),
}


class Document:
    """A report's entries, and how its references resolve (R4, resolving references in Bundles)."""

    def __init__(self, bundle: dict[str, Any]) -> None:
        self.entries = rows(bundle.get("entry"))
        self.resources = [obj(entry.get("resource")) for entry in self.entries]
        self._by_url = {str(entry.get("fullUrl")): obj(entry.get("resource")) for entry in self.entries}
        self._base = self._service_base()

    def of(self, resource_type: str) -> list[dict[str, Any]]:
        """The resources of one type."""
        return [resource for resource in self.resources if resource.get("resourceType") == resource_type]

    def resolve(self, reference: Any) -> dict[str, Any] | None:
        """The resource of a literal reference as the Composition holds it, or None."""
        literal = str(obj(reference).get("reference", ""))
        if not literal or literal.isspace():
            return None
        return self._by_url.get(literal) if ":" in literal else self._by_url.get(f"{self._base}{literal}")

    def _service_base(self) -> str | None:
        """What relative references of the first entry are relative to; None under urn: fullUrls."""
        if not self.entries:
            return None
        url = str(self.entries[0].get("fullUrl", ""))
        own = f"{self.resources[0].get('resourceType')}/{self.resources[0].get('id')}"
        return url.removesuffix(own) if url.endswith(own) else None


def check(bundle: Any, where: str, *, track: str, entity_id: str | None) -> Iterator[Issue]:
    """Every reason to refuse one report."""
    if obj(bundle).get("resourceType") != "Bundle":
        yield Issue("invalid", "Parameter dataBundle must be a Bundle", where)
        return
    document = Document(bundle)
    yield from _envelope(bundle, where)
    yield from _entries(document, where)
    composition = document.resources[0] if document.resources else {}
    if composition.get("resourceType") == "Composition":
        yield from _composition(document, composition, track)
        yield from _custodian(document, composition, entity_id)
    yield from section_checks.questionnaires(document.resources, where)


def _envelope(bundle: dict[str, Any], where: str) -> Iterator[Issue]:
    identifier = obj(bundle.get("identifier"))
    if not claims(bundle, "access-data-reporting-bundle"):
        url = tables.ig("StructureDefinition", "access-data-reporting-bundle")
        yield Issue("invalid", f"Bundle.meta.profile must contain {url}", f"{where}.meta.profile")
    if bundle.get("type") != "document":
        yield Issue("invalid", "Bundle.type must be document", f"{where}.type")
    if not (filled(identifier.get("system")) and filled(identifier.get("value"))):
        text = "Bundle.identifier must have system and value (bdl-9)"
        yield Issue("required", text, f"{where}.identifier", late=True)
    if not filled(bundle.get("timestamp")):
        yield Issue("required", "A document must have Bundle.timestamp (bdl-10)", f"{where}.timestamp")


def _entries(document: Document, where: str) -> Iterator[Issue]:
    types = [str(resource.get("resourceType")) for resource in document.resources]
    if not types or types[0] != "Composition":
        yield Issue("invalid", "The first entry of a document must be the Composition (bdl-11)", f"{where}.entry[0]")
    for name in ("Composition", "Patient"):
        if types.count(name) != 1:
            yield Issue("invalid", f"The bundle must have exactly one {name}", f"{where}.entry")
    for index, (entry, resource) in enumerate(zip(document.entries, document.resources, strict=True)):
        place = f"{where}.entry[{index}]"
        if not filled(entry.get("fullUrl")):
            yield Issue("required", "Each entry of a document must have a fullUrl", f"{place}.fullUrl")
        yield from _resource(resource, f"{place}.resource")


def _resource(resource: dict[str, Any], where: str) -> Iterator[Issue]:
    name = str(resource.get("resourceType"))
    if not has_narrative(resource):
        yield Issue("required", f"{name} has no narrative: text.status and text.div are required", f"{where}.text")
    for element in REQUIRED.get(name, ()):
        if element not in resource:
            yield Issue("required", f"Missing required element: {name}.{element}", f"{where}.{element}")
    if name in PROFILES and not claims(resource, *PROFILES[name]):
        yield Issue("invalid", f"{name}.meta.profile must contain {PROFILES[name][0]}", f"{where}.meta.profile")


def has_narrative(element: dict[str, Any]) -> bool:
    """Whether text has a status and a div."""
    narrative = obj(element.get("text"))
    return filled(narrative.get("status")) and str(narrative.get("div", "")).startswith("<div")


def _composition(document: Document, composition: dict[str, Any], track: str) -> Iterator[Issue]:
    where = "Bundle.entry[0].resource"
    for reference, place in _references(composition, where):
        if document.resolve(reference) is None:
            text = "Reference does not resolve in the bundle (access-data-reporting-bundle-composition-refs-in-bundle)"
            yield Issue("invalid", text, place)
    sections = rows(composition.get("section"))
    for index, section in enumerate(sections):
        if not has_narrative(section):
            text = "Composition.section has no narrative: text.status and text.div are required"
            yield Issue("required", text, f"{where}.section[{index}].text")
    yield from _track(sections, track, where)
    if sections:
        yield from section_checks.sections(document.resolve, sections[0], track, f"{where}.section[0]")


def _references(value: Any, where: str, name: str = "") -> Iterator[tuple[Any, str]]:
    """Each Reference below a Composition, with its place."""
    if isinstance(value, list):
        for index, child in enumerate(value):
            yield from _references(child, f"{where}[{index}]", name)
    elif isinstance(value, dict) and (name in REFERENCES or "reference" in value):
        yield value, where
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _references(child, f"{where}.{key}", key)


def _track(sections: list[dict[str, Any]], track: str, where: str) -> Iterator[Issue]:
    system = tables.ig("CodeSystem", "ACCESSTrackCS")
    if sum(bool(codings(section.get("code"), system)) for section in sections) > 1:
        text = "Only one track section is allowed (access-data-reporting-composition-only-one-track-section)"
        yield Issue("invalid", text, f"{where}.section")
    first = codings(sections[0].get("code")) if sections else []
    if [coding.get("code") for coding in first] != [track] or first[0].get("system") != system:
        text = (
            "The first Composition section must be the section of parameter track, with one equal coding "
            "(access-report-data-track-matches-composition-section)"
        )
        yield Issue("invalid", text, f"{where}.section[0].code")


def _custodian(document: Document, composition: dict[str, Any], entity_id: str | None) -> Iterator[Issue]:
    custodian = document.resolve(composition.get("custodian")) or {}
    stated = {i.get("value") for i in rows(custodian.get("identifier")) if i.get("system") == tables.PARTICIPANT_SYSTEM}
    if stated and stated != {entity_id}:
        yield Issue("invalid", "The custodian's participant id differs from parameter participantID")
    for author in rows(composition.get("author")):
        found = document.resolve(author) or {}
        if found and found.get("resourceType") not in ("Practitioner", "PractitionerRole"):
            yield Issue("invalid", "Composition.author must be a Practitioner or PractitionerRole")
