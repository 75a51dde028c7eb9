"""Medications -> MedicationRequest, immunizations -> Immunization.

What a patient takes (mood EVN) is a MedicationRequest with intent `plan` that is reported: US Core's medication list is
made of MedicationRequests, and C-CDA on FHIR's map of moods says `plan`; its page says that no consensus was reached.
Source: C-CDA on FHIR 2.0.0, CF-medications, CF-immunizations; US Core 6.1.0.
"""

from typing import Any

from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.compiled import Kept
from mappers.cda.context import Document, Resource, codes
from mappers.cda.datatypes import concept, interval, named, quantity, text
from mappers.cda.node import Node
from mappers.cda.paths import child, children, first, qualified
from mappers.cda.people import author, performers
from mappers.cda.times import bounds, point
from profiles.canonical import UCUM

_PERIODS = {"s": "s", "min": "min", "h": "h", "d": "d", "wk": "wk", "mo": "mo", "a": "a"}
_XSI_TYPE = qualified("xsi:type")
_MATERIAL = first("manufacturedProduct/manufacturedMaterial")
_CODE, _NAME, _PRODUCT = qualified("code"), qualified("name"), qualified("manufacturedProduct")
_OF_PRODUCT = (qualified("id"), qualified("manufacturerOrganization"))
_UNSURE = "The way in which the times of this medication repeat is not mapped: it stays in the document."


def medication(node: Node, document: Document) -> str | None:
    """substanceAdministration -> MedicationRequest; None when it does not say of what."""
    resource, kept = dialect.apply("medication", node, document=document, kind="MedicationRequest")
    what = _product(kept, document)
    if what is None:
        document.leave(node, "bad", reason="The medication has neither code nor name.")
        return None
    mood = node.get("moodCode") or "EVN"
    resource.setdefault("status", "unknown")
    resource["intent"] = codes()["medication-intent"].get(mood, "plan")
    if node.get("negationInd") == "true":
        resource["doNotPerform"] = True
    if mood == "EVN":
        resource["reportedBoolean"] = True
    resource["medicationCodeableConcept"] = what
    resource["subject"] = document.subject
    who = author(kept["author"][0], document) if "author" in kept else None
    if who:
        resource["requester"] = {"reference": who}
    _dosage(resource, kept, document=document)
    _unused(kept, document)
    claim(resource, "us-core-medicationrequest")
    return document.add(resource, node)


def _product(kept: Kept, document: Document) -> dict[str, Any] | None:
    """consumable/manufacturedProduct/manufacturedMaterial: its code, else its name."""
    for node in kept.get("consumable", ()):
        material = _MATERIAL(node)
        if material is None:
            continue
        coded = child(material, _CODE)
        found = concept(coded, document.at(coded)) if coded is not None else None
        found = named(found, child(material, _NAME), document)
        if found is not None:
            return found
    return None


def _unused(kept: Kept, document: Document) -> None:
    """Books what of a product and of a condition for taking it has no place in the resource."""
    for node in kept.get("consumable", ()):
        products = [one[:] for one in children(node, _PRODUCT)]
        for tag in _OF_PRODUCT:
            for part in (part for product in products for part in product if part.tag == tag):
                document.leave(part, "left", reason="It would need a Medication resource of its own.")
    for node in kept.get("precondition", ()):
        if first("criterion/value")(node) is not None:
            document.leave(node, "left", reason="Taken as needed is mapped; for what, is not.")


def _dosage(resource: Resource, kept: Kept, *, document: Document) -> None:
    """One dosageInstruction: the sig, the times, the route and the dose."""
    dosage: dict[str, Any] = resource.pop("dosageInstruction", [{}])[0]
    if (timing := _timing(kept, document)) is not None:
        dosage["timing"] = timing
    if "precondition" in kept:
        dosage["asNeededBoolean"] = True
    route = concept(kept["routeCode"][0], document) if "routeCode" in kept else None
    if route:
        dosage["route"] = route
    rates: dict[str, Any] = {}
    for name in ("dose", "rate"):
        for node in kept.get(f"{name}Quantity", ())[:1]:
            rates |= _amount(name, node, document=document)
    if rates:
        dosage["doseAndRate"] = [rates]
    if dosage:
        resource["dosageInstruction"] = [dosage]


def _amount(name: str, node: Node, *, document: Document) -> dict[str, Any]:
    """doseQuantity or rateQuantity; an interval is a Range."""
    found = interval(node, document.at(node)) if len(node) else None
    if found is not None and found[0] == "Range":
        return {f"{name}Range": found[1]}
    plain = quantity(node, document.at(node))
    return {f"{name}Quantity": plain} if plain else {}


def _timing(kept: Kept, document: Document) -> dict[str, Any] | None:
    """effectiveTime: the first is when it is taken, one with a period how often."""
    events: list[str] = []
    repeat: dict[str, Any] = {}
    for node in kept.get("effectiveTime", ()):
        document.at(node)
        kind = (node.get(_XSI_TYPE) or "").rpartition(":")[2]
        if kind == "PIVL_TS":
            repeat |= _period(node, document)
        elif kind == "EIVL_TS":
            document.leave(node, "left", reason=_UNSURE)
        elif period := bounds(node, document):
            repeat["boundsPeriod"] = period
        elif (single := point(node, document)) is not None:
            events.append(single)
    timing = ({"event": events} if events else {}) | ({"repeat": repeat} if repeat else {})
    return timing or None


def _period(node: Node, document: Document) -> dict[str, Any]:
    """PIVL_TS/period -> once in each period. A unit that FHIR has no code for stays in the document."""
    found = first("period")(node)
    amount = quantity(found, document) if found is not None else None
    unit = _PERIODS.get(amount.get("code", "")) if amount and amount.get("system") == UCUM else None
    if amount is None or unit is None or amount["value"] <= 0:
        document.leave(node, "left", reason=_UNSURE)
        return {}
    return {"frequency": 1, "period": amount["value"], "periodUnit": unit}


def immunization(node: Node, document: Document) -> str | None:
    """substanceAdministration 4.52 -> Immunization; a refused one is not-done."""
    if node.get("moodCode") not in (None, "EVN"):
        document.leave(node, "left", reason="An immunization that is planned is none that was given.")
        return None
    resource, kept = dialect.apply("immunization", node, document=document, kind="Immunization")
    vaccine = _product(kept, document)
    if vaccine is None or "occurrenceDateTime" not in resource:
        document.leave(node, "bad", reason="The immunization does not say of what, or when.")
        return None
    if node.get("negationInd") == "true":
        resource["status"] = "not-done"
    if "status" not in resource:
        document.at(node).warn("required", "The immunization has no status code that is known: taken as completed.")
        resource["status"] = "completed"
    if resource["status"] != "not-done":
        resource.pop("statusReason", None)
    resource["vaccineCode"] = vaccine
    resource["patient"] = document.subject
    lot = first("manufacturedProduct/manufacturedMaterial/lotNumberText")(kept["consumable"][0])
    if lot is not None and (number := text(lot, document)):
        resource["lotNumber"] = number
    _unused(kept, document)
    people = performers(kept, document)
    if people:
        resource["performer"] = [{"actor": one} for one in people]
    claim(resource, "us-core-immunization")
    return document.add(resource, node)
