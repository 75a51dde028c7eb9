"""Conditions, allergies and medications of a care update as C-CDA entries.

Source: C-CDA R2.1, 4.132, 4.3, 4.4, 4.6, 4.30, 4.7, 4.16; C-CDA on FHIR 2.0.0, FHIR to CDA.
"""

from mappers.cda.context import codes
from mappers.cda.markup import (
    LOINC_OID,
    SNOMED_OID,
    Resource,
    code,
    coded,
    element,
    identifiers,
    leading,
    nodes,
    quantity,
    span,
    template,
    templates,
    unique,
)
from mappers.cda.node import Node
from mappers.cda.update import Line, Update, anchor, aside, authored, key_of, label, pointing, told

_ACTS = "2.16.840.1.113883.5.6"


def _conditions(update: Update, *, act: str, dated: str, concern: tuple[str, str], loinc: str, kind: str) -> list[Line]:
    lines = []
    for one in update.kind("Condition"):
        key = key_of(one)
        inner = _problem(update, one, loinc=loinc, key=key)
        active = _clinical(one) in ("active", "recurrence", "relapse")
        entry = element(
            "act", *templates(act, dated), element("id", root=unique(update.base, "concern", str(one.get("id")))),
            code("code", *concern), element("statusCode", code="active" if active else "completed"),
            span("effectiveTime", one.get("onsetDateTime"), one.get("abatementDateTime"), ended=not active),
            element("entryRelationship", inner, typeCode=kind), classCode="ACT", moodCode="EVN",
        )  # fmt: skip
        lines.append(Line(key, (label(one.get("code")), _clinical(one), str(one.get("onsetDateTime", ""))), entry))
    return lines


def _clinical(one: Resource) -> str:
    return next((part.get("code", "") for part in one.get("clinicalStatus", {}).get("coding", ())), "")


def _problem(update: Update, one: Resource, *, loinc: str, key: str) -> Node:
    status = {fhir: snomed for snomed, fhir in codes()["problem-status"].items()}.get(_clinical(one))
    stated = None
    if status:
        value = code("value", status, SNOMED_OID, type_="CD")
        observation = element(
            "observation", template("4.6"), code("code", "33999-4", LOINC_OID),
            element("statusCode", code="completed"), value, classCode="OBS", moodCode="EVN",
        )  # fmt: skip
        stated = element("entryRelationship", observation, typeCode="REFR")
    refuted = any(part.get("code") == "refuted" for part in one.get("verificationStatus", {}).get("coding", ()))
    return element(
        "observation", *templates("4.4", "2015-08-01"), *identifiers(one, update.base),
        code("code", "55607006", SNOMED_OID, "Problem"), told(loinc, key), element("statusCode", code="completed"),
        span("effectiveTime", one.get("onsetDateTime"), one.get("abatementDateTime")),
        coded("value", one.get("code"), type_="CD"), stated,
        classCode="OBS", moodCode="EVN", negationInd="true" if refuted else None,
    )  # fmt: skip


def concerns(update: Update) -> list[Line]:
    """Health concerns section: acts 4.132 around the problem."""
    concern = ("75310-3", LOINC_OID)
    return _conditions(update, act="4.132", dated="2015-08-01", concern=concern, loinc="75310-3", kind="REFR")


def problems(update: Update) -> list[Line]:
    """Problem section: concern acts 4.3 around the problem."""
    concern = ("CONC", _ACTS)
    return _conditions(update, act="4.3", dated="2015-08-01", concern=concern, loinc="11450-4", kind="SUBJ")


def allergies(update: Update) -> list[Line]:
    """Allergies section: concern acts 4.30."""
    lines = []
    for one in update.kind("AllergyIntolerance"):
        key = key_of(one)
        entity = element("playingEntity", coded("code", one.get("code")), classCode="MMAT")
        substance = element("participant", element("participantRole", entity, classCode="MANU"), typeCode="CSM")
        active = _clinical(one) in ("active", "")
        inner = element(
            "observation", *templates("4.7", "2014-06-09"), *identifiers(one, update.base),
            code("code", "ASSERTION", "2.16.840.1.113883.5.4"), told("48765-2", key),
            element("statusCode", code="completed"), span("effectiveTime", one.get("onsetDateTime")),
            code("value", "419199007", SNOMED_OID, "Allergy to substance", type_="CD"), substance,
            classCode="OBS", moodCode="EVN",
        )  # fmt: skip
        entry = element(
            "act", *templates("4.30", "2015-08-01"),
            element("id", root=unique(update.base, "concern", str(one.get("id")))), code("code", "CONC", _ACTS),
            element("statusCode", code="active" if active else "completed"),
            span("effectiveTime", one.get("onsetDateTime"), ended=not active),
            element("entryRelationship", inner, typeCode="SUBJ"), classCode="ACT", moodCode="EVN",
        )  # fmt: skip
        lines.append(Line(key, (label(one.get("code")), _clinical(one), str(one.get("onsetDateTime", ""))), entry))
    return lines


def medications(update: Update) -> list[Line]:
    """Medications section: medication activities 4.16, which a proposal is not."""
    states = {fhir: cda for cda, fhir in reversed(codes()["medication-status"].items())}
    lines = []
    for one in update.kind("MedicationRequest"):
        if one.get("intent") == "proposal":
            continue
        key = key_of(one)
        what = one.get("medicationCodeableConcept")
        dosage = leading(one.get("dosageInstruction"))
        material = element("manufacturedMaterial", coded("code", what))
        kinds = templates("4.23", "2014-06-09")
        product = element("manufacturedProduct", *kinds, material, classCode="MANU")
        period = dosage.get("timing", {}).get("repeat", {}).get("boundsPeriod", {})
        words = (dosage["text"],) if dosage.get("text") else ()
        sig = element("entryRelationship", _sig(anchor("10160-0", key)), typeCode="COMP") if words else None
        entry = element(
            "substanceAdministration", *templates("4.16", "2014-06-09"), *identifiers(one, update.base),
            told("10160-0", key), element("statusCode", code=states.get(one.get("status", ""), "active")),
            span("effectiveTime", period.get("start"), period.get("end"), type_="IVL_TS"), *_dose(dosage),
            element("consumable", product), authored(update, one.get("requester"), one.get("authoredOn")), sig,
            classCode="SBADM", moodCode="EVN" if one.get("reportedBoolean") else "INT",
        )  # fmt: skip
        lines.append(Line(key, (label(what), str(one.get("status", "")), str(one.get("authoredOn", ""))), entry, words))
    return lines


def _sig(row: str) -> Node:
    """The dosage in words, 4.147: the first aside of the medication's row."""
    return element(
        "substanceAdministration", template("4.147"), code("code", "76662-6", LOINC_OID), pointing(aside(row, 1)),
        element("consumable", element("manufacturedProduct", element("manufacturedLabeledDrug", nullFlavor="NA"))),
        classCode="SBADM", moodCode="INT",
    )  # fmt: skip


def _dose(dosage: Resource) -> list[Node]:
    """routeCode and doseQuantity; the template wants a dose, if only to say that it is not known."""
    rates = leading(dosage.get("doseAndRate"))
    route = coded("routeCode", dosage["route"]) if "route" in dosage else None
    return nodes(route, quantity("doseQuantity", rates.get("doseQuantity", {})))
