"""C-CDA in: a ClinicalDocument becomes US Core and PCO resources, with an account of what it did not become.

Source: C-CDA R2.1 and R1.1; C-CDA on FHIR 2.0.0 (STU 2); US Core 6.1.0; PCO 1.0.0.
"""

from mappers.cda import parse, plans
from mappers.cda.assessments import may_hold
from mappers.cda.claims import claim
from mappers.cda.context import Document, Resource
from mappers.cda.header import account, authors, complete, custodian, document_reference, participants
from mappers.cda.paths import location
from mappers.cda.patient import patient
from mappers.cda.sections import Body
from mappers.conversion import Conversion, Source
from mappers.converters import resource_id
from profiles.canonical import PROVENANCE_PARTICIPANT, US_CORE_PINNED, US_CORE_PROVENANCE_PARTICIPANT, UUID_SYSTEM
from profiles.issue import Issue, Severity

__all__ = ["convert"]

# One object for all Provenances, not to be changed.
_AUTHOR = {"coding": [{"system": PROVENANCE_PARTICIPANT, "code": "author"}]}
_TRANSMITTER = {"coding": [{"system": US_CORE_PROVENANCE_PARTICIPANT, "code": "transmitter"}]}


def convert(document: bytes, source: Source) -> Conversion:
    """One C-CDA document as FHIR resources.

    Shape: `patient` is the recordTarget; `resources` hold the DocumentReference with a Binary of the exact bytes, what
    the sections state, the people and organizations, and a Provenance for each author. `meta.source` of each resource
    is `urn:sha256:<of the bytes>#<XPath>`; prefixes of urn:hl7-org:v3 are left out. `control_id` is
    ClinicalDocument/id as `root|extension`.
    Units and times: the document's; see mappers/cda/times.py for times without an offset.
    Raises: nothing. What is no readable C-CDA, or names no patient, gives one fatal Issue and no resources.
    """
    root, issues = parse.read(document)
    if root is None:
        return Conversion(issues=tuple(issues))
    reading = Document(root, source, size=len(document))
    person = patient(reading)
    if person is None or not (person.get("identifier") or person.get("name")):
        text = "The document names no patient (recordTarget/patientRole with an id or a name): send one that does."
        return Conversion(issues=(Issue(Severity.FATAL, "required", location(root), text),), control_id=reading.control)
    return _read(reading, person, data=document)


def _read(reading: Document, person: Resource, *, data: bytes) -> Conversion:
    head = reading.head
    writers, keeper = authors(head, reading), custodian(head, reading)
    participants(head, person, reading)
    claim(person, "us-core-patient")
    about = document_reference(data, head, writers=writers, keeper=keeper, document=reading)
    account(head, reading)
    header = [reading.subject["reference"], *reading.entry_targets]
    body = Body(reading, writers, scaled=may_hold(data))
    body.read()
    reading.entry_targets = []
    plans.care_plan(reading)
    body.written.setdefault((writers or [""])[0], []).extend([*header, *reading.entry_targets])
    reading.done()
    complete(about, data)
    provenance = [
        _provenance(who, made, about=about.reference, reading=reading, keeper=keeper)
        for who, made in body.written.items()
        if made
    ]
    return Conversion(
        patient=person,
        resources=(*reading.resources, *provenance),
        unmapped=tuple(reading.unmapped),
        issues=tuple(dict.fromkeys(reading.issues)),
        control_id=reading.control,
    )


def _provenance(who: str, made: list[str], *, about: str, reading: Document, keeper: str | None) -> Resource:
    """Who wrote what, and the bytes that it was read from."""
    targets = [reading.refer(one) for one in dict.fromkeys(made)]
    urn = f"urn:sha256:{reading.source.sha256}"
    resource: Resource = {"resourceType": "Provenance", "id": resource_id("Provenance", urn, who)}
    person = who.partition("/")[0] in ("Practitioner", "Device")
    agents: list[Resource] = []
    if who:
        agents.append({"type": _AUTHOR, "who": reading.refer(who)})
        if keeper and person:  # provenance-1: acts on behalf of an organization
            agents[0]["onBehalfOf"] = reading.refer(keeper)
    if keeper:
        agents.append({"type": _TRANSMITTER, "who": reading.refer(keeper)})
    if agents and (keeper or not person):
        resource["meta"] = {"profile": [US_CORE_PINNED("us-core-provenance")]}
    what = {"reference": about, "identifier": {"system": UUID_SYSTEM, "value": urn}}
    resource["target"] = targets
    resource["recorded"] = reading.source.received_at
    resource["agent"] = agents or [{"who": {"display": "The document names neither author nor custodian"}}]
    resource["entity"] = [{"role": "source", "what": what}]
    return resource
