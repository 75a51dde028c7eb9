"""A care update as the C-CDA writer sees it: its resources by reference, its lines, and how a person reads them."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from mappers.cda.markup import (
    Resource,
    addresses,
    code,
    element,
    identifiers,
    moment,
    name,
    number,
    telecoms,
)
from mappers.cda.node import Node


@dataclass(frozen=True, slots=True)
class Line:
    """One statement: what a person reads in the section's table, and the entry beside it. `key` is unique in it.

    `entry` is None for what C-CDA has no entry for. `asides` are texts that the entry refers to, in order.
    """

    key: str
    cells: tuple[str, str, str]
    entry: Node | None
    asides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Update:
    """A document Bundle, by reference."""

    composition: Resource
    patient: Resource
    resources: dict[str, Resource]  # "Goal/x" -> resource
    identifier: Resource
    timestamp: str
    base: str  # what ids of resources are made unique with

    @classmethod
    def of(cls, document: Resource) -> "Update":
        """Raises ValueError for a Bundle without a Composition or its Patient."""
        held = [one["resource"] for one in document.get("entry", ()) if "resource" in one]
        known = {f"{one['resourceType']}/{one.get('id')}": one for one in held}
        composition = next((one for one in held if one["resourceType"] == "Composition"), None)
        patient = next((one for one in held if one["resourceType"] == "Patient"), None)
        if composition is None or patient is None:
            raise ValueError("The Bundle has no Composition or no Patient: write a document Bundle.")
        identity = document.get("identifier") or {"value": str(document.get("id", ""))}
        written = str(document.get("timestamp", ""))
        return cls(composition, patient, known, identity, written, identity.get("system", ""))

    def kind(self, *kinds: str) -> list[Resource]:
        """All resources of these types, in order."""
        return [one for one in self.resources.values() if one["resourceType"] in kinds]

    def find(self, reference: str) -> Resource | None:
        """The resource that a reference names, whatever stands before `Type/id`."""
        return self.resources.get("/".join(reference.split("/")[-2:]))

    def in_category(self, *wanted: str) -> list[Resource]:
        """Observations of these categories."""
        return [one for one in self.kind("Observation") if not categories(one).isdisjoint(wanted)]


Builder = Callable[[Update], list[Line]]


def anchor(loinc: str, key: str) -> str:
    """The ID of a line's row: `s8716-3-<key>`."""
    return f"s{loinc}-{key}"


def aside(row: str, number: int) -> str:
    """The ID of a text beside a row, counted from 1."""
    return f"{row}.aside{number}"


def categories(resource: Resource) -> set[str]:
    """The codes of a resource's categories."""
    return {one.get("code", "") for held in resource.get("category", ()) for one in held.get("coding", ())}


def label(concept: Resource | None) -> str:
    """A concept as a person reads it."""
    concept = concept or {}
    displays = (one["display"] for one in concept.get("coding", ()) if one.get("display"))
    listed = (one["code"] for one in concept.get("coding", ()) if one.get("code"))
    return str(concept.get("text") or next(displays, None) or next(listed, ""))


def told(loinc: str, key: str) -> Node:
    """The reference of an entry to its row in the narrative."""
    return pointing(anchor(loinc, key))


def pointing(name: str) -> Node:
    """text that refers to what stands in the narrative under this ID."""
    return element("text", element("reference", value=f"#{name}"))


def key_of(resource: Resource) -> str:
    """The id of a resource as a part of an XML ID."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", str(resource.get("id")))


def spoken(holder: Resource, stem: str = "value") -> str:
    """A value as a person reads it."""
    for kind in ("Quantity", "Range"):
        found = holder.get(f"{stem}{kind}")
        if found is not None:
            parts = [found] if kind == "Quantity" else [found[name] for name in ("low", "high") if name in found]
            return " to ".join(_amount(one) for one in parts)
    concept = holder.get(f"{stem}CodeableConcept")
    if concept is not None:
        return label(concept)
    plain = (holder.get(f"{stem}{kind}") for kind in ("Integer", "String", "Boolean", "DateTime"))
    return str(next((one for one in plain if one is not None), ""))


def _amount(value: Resource) -> str:
    unit = value.get("unit") or value.get("code") or ""
    written = number(value["value"]) if "value" in value else ""
    return f"{value.get('comparator', '')}{written} {unit}".strip()


def when(resource: Resource) -> str:
    """The time of an Observation as a person reads it."""
    period = resource.get("effectivePeriod", {})
    return str(resource.get("effectiveDateTime") or period.get("start") or "")


def author(update: Update, reference: str, when: str | None) -> Node:
    """author: the patient, a person or an organization, by reference; that it is not known, for any other."""
    who = update.find(reference)
    if who is not None and who["resourceType"] == "Patient":
        oneself = code("code", "ONESELF", "2.16.840.1.113883.5.111")
        parts = [*patient_ids(update), oneself, *addresses(who), *telecoms(who), person("assignedPerson", who)]
    elif who is not None and who["resourceType"] == "Practitioner":
        parts = [*identified(who, update), person("assignedPerson", who)]
    elif who is not None:
        named = element("name", who.get("name", ""))
        represented = element("representedOrganization", *identifiers(who, update.base), named)
        parts = [*identified(who, update), _software(), represented]
    else:
        parts = [*unknown(), person("assignedPerson", {})]
    return element("author", moment("time", when), element("assignedAuthor", *parts))


def person(tag: str, who: Resource) -> Node:
    """A person by name; that it is not known, for one without."""
    return element(tag, *([name(one) for one in who.get("name", ())] or [element("name", nullFlavor="UNK")]))


def unknown() -> list[Node]:
    """id, addr and telecom of a role that nobody is known to have."""
    return [element("id", nullFlavor="UNK"), *addresses({}), *telecoms({})]


def _software() -> Node:
    """What writes for an organization: C-CDA wants a person or a device as author."""
    names = [element(tag, "access-facade") for tag in ("manufacturerModelName", "softwareName")]
    return element("assignedAuthoringDevice", *names)


def patient_ids(update: Update) -> list[Node]:
    """The patient's identifiers, or one by address."""
    return identifiers(update.patient, update.base)


def identified(who: Resource, update: Update) -> list[Node]:
    """id, addr and telecom of a role."""
    return [*identifiers(who, update.base), *addresses(who), *telecoms(who)]


def authored(update: Update, reference: Resource | None, time: str | None) -> Node | None:
    """author of an entry, by a FHIR Reference."""
    return author(update, reference["reference"], time) if reference and reference.get("reference") else None
