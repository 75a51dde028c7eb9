"""One care update as FHIR resources: what a PCP or referring clinician is told at a moment of care. Pure.

Shape: a document Bundle for people and records, and beside it the CarePlan, Goals and ServiceRequests that it holds, so
that an EHR can take them over. Ids depend on the care update's id and, for what goes on from one update to the next,
on the care period's: a goal that is reached is a new version of the same Goal.
Source: PCO 1.0.0 (pco-care-plan, pco-goal-profile); US Core 6.1.0; FHIR R4, Documents.
"""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from hashlib import sha1, sha256
from typing import Any
from zoneinfo import ZoneInfo

from mappers.cda.write import write
from mappers.narrative import generated
from profiles import canonical
from server.coordination import people, readable
from server.coordination.readable import Progress
from server.domain.care_period import CarePeriod
from server.domain.coordination import Moment
from server.intake.resources import instant
from server.settings import Participant

Resource = dict[str, Any]

CATEGORY = "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category"
CCDA_TYPE = "application/xml"
CCDA_FORMAT = {"system": "urn:oid:1.3.6.1.4.1.19376.1.2.3", "code": "urn:hl7-org:sdwg:ccda-structuredBody:2.1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """Everything that one update says. `at` is aware; `ends` is the last day of the care period.

    `own_goals` are the patient's stored Goals, from any source; `medications` are stored active MedicationRequests.
    `previous` is the id of the update before this one, in the same care period.
    """

    update_id: str
    moment: Moment
    subject: str
    at: datetime
    fhir_base: str
    period: CarePeriod
    ends: date
    participant: Participant
    patient: Resource
    progress: tuple[Progress, ...] = ()
    own_goals: tuple[Resource, ...] = ()
    medications: tuple[Resource, ...] = ()
    previous: str | None = None

    @property
    def today(self) -> str:
        """The calendar day of the update where the participant is."""
        return self.at.astimezone(ZoneInfo(self.participant.time_zone)).date().isoformat()

    @property
    def plan_id(self) -> str:
        """The id of the care period's CarePlan; those of its Goals and ServiceRequests begin with it."""
        return sha256(f"CarePlan {self.period.id}".encode()).hexdigest()[:32]

    @property
    def over(self) -> bool:
        """Whether the care period has ended."""
        return self.moment is Moment.COMPLETION


@dataclass(frozen=True, slots=True)
class Update:
    """The document and the resources that also stand alone."""

    document: Resource
    care_plan: Resource
    goals: tuple[Resource, ...]
    requests: tuple[Resource, ...]
    agents: tuple[Resource, ...]  # who wrote it: Organization, Practitioner

    @property
    def resources(self) -> tuple[Resource, ...]:
        """All that the update itself brings: the document first."""
        return (self.document, self.care_plan, *self.goals, *self.requests)


def compose(occasion: Occasion) -> Update:
    """The update. Every resource claims its profiles; nothing is said that the inputs do not hold."""
    agents = tuple(people.agents(occasion.participant))
    goals = tuple(_goals(occasion))
    requests = tuple(_requests(occasion))
    plan = _care_plan(occasion, goals, requests)
    held = (people.patient(occasion.patient), *agents, plan, *goals, *requests, *_evidence(occasion))
    others = (*occasion.own_goals, *occasion.medications)
    document = _document(occasion, (_composition(occasion, goals, requests), *held, *others))
    return Update(document, plan, goals, requests, agents)


def ccda(occasion: Occasion, document: Resource) -> bytes:
    """The update as the C-CDA document that its moment asks for: for those who take no FHIR."""
    return write(document, readable.words().moment(occasion.moment).ccda)


def binary(occasion: Occasion, document: bytes) -> Resource:
    """What holds the C-CDA document."""
    return {
        "resourceType": "Binary",
        "id": occasion.update_id,
        "contentType": CCDA_TYPE,
        "securityContext": _subject(occasion),
        "data": b64encode(document).decode(),
    }


def document_reference(occasion: Occasion, *, document: bytes, as_ccda: bytes) -> Resource:
    """The focus of the notification: where the stored document and its C-CDA are, with the hash and size of each."""
    words = readable.words().moment(occasion.moment)
    fhir = _attachment(occasion, document, content_type="application/fhir+json", kind="Bundle")
    cda = _attachment(occasion, as_ccda, content_type=CCDA_TYPE, kind="Binary")
    earlier = {"code": "appends", "target": {"reference": f"DocumentReference/{occasion.previous}"}}
    return {
        "resourceType": "DocumentReference",
        "id": occasion.update_id,
        "meta": {"profile": [canonical.US_CORE_PINNED("us-core-documentreference")]},
        "identifier": [_identifier(occasion, occasion.update_id)],
        "status": "current",
        "docStatus": "final",
        "type": _concept(canonical.LOINC, words.code, words.display),
        "category": [_concept(CATEGORY, "clinical-note", "Clinical Note")],
        "subject": _subject(occasion),
        "date": instant(occasion.at),
        "author": [people.author(occasion.participant)],
        "custodian": people.organization_reference(occasion.participant),
        **({"relatesTo": [earlier]} if occasion.previous else {}),
        "description": words.title,
        "content": [{"attachment": fhir}, {"attachment": cda, "format": CCDA_FORMAT}],
        "context": {"period": {"start": occasion.period.aligned_on.isoformat()}},
    }


def _attachment(occasion: Occasion, data: bytes, *, content_type: str, kind: str) -> Resource:
    return {
        "contentType": content_type,
        "url": f"{occasion.fhir_base}/{kind}/{occasion.update_id}",
        "size": len(data),
        "hash": b64encode(sha1(data, usedforsecurity=False).digest()).decode(),  # FHIR R4: Attachment.hash is SHA-1
        "title": readable.words().moment(occasion.moment).title,
        "creation": instant(occasion.at),
    }


def _document(occasion: Occasion, resources: tuple[Resource, ...]) -> Resource:
    unique = {f"{each['resourceType']}/{each['id']}": each for each in resources}
    return {
        "resourceType": "Bundle",
        "id": occasion.update_id,
        "identifier": _identifier(occasion, occasion.update_id),
        "type": "document",
        "timestamp": instant(occasion.at),
        "entry": [{"fullUrl": f"{occasion.fhir_base}/{path}", "resource": each} for path, each in unique.items()],
    }


def _composition(occasion: Occasion, goals: tuple[Resource, ...], requests: tuple[Resource, ...]) -> Resource:
    words = readable.words().moment(occasion.moment)
    earlier = {"code": "appends", "targetIdentifier": _identifier(occasion, occasion.previous or "")}
    return {
        "resourceType": "Composition",
        "id": occasion.update_id,
        "text": generated(f"ACCESS care update of {occasion.today}: {words.title}."),
        "status": "final",
        "type": _concept(canonical.LOINC, words.code, words.display),
        "subject": _subject(occasion),
        "date": instant(occasion.at),
        "author": [people.author(occasion.participant)],
        "title": f"ACCESS care update: {words.title}",
        "custodian": people.organization_reference(occasion.participant),
        **({"relatesTo": [earlier]} if occasion.previous else {}),
        "section": list(_sections(occasion, goals, requests)),
    }


def _sections(occasion: Occasion, goals: tuple[Resource, ...], requests: tuple[Resource, ...]) -> Iterator[Resource]:
    """In the order in which a clinician reads: why, how the patient does, what is aimed at and done, who to ask."""
    texts = readable.Texts(
        track=occasion.period.track, name=occasion.participant.name, moment=occasion.moment, subject=occasion.subject
    )
    yield _section("Why you receive this", None, readable.paragraphs(texts.why()))
    measures = readable.measures_table(occasion.progress)
    yield _section("Measures", "30954-2", measures, _evidence(occasion))
    aims = readable.goals_list((*goals, *occasion.own_goals))
    yield _section("Goals", "61146-7", aims, (*goals, *occasion.own_goals))
    plan = readable.plan_list(requests, over=occasion.over)
    yield _section("Plan", "18776-5", plan, ({"resourceType": "CarePlan", "id": occasion.plan_id}, *requests))
    if occasion.medications:
        known = readable.medications_list(occasion.medications)
        yield _section("Medications known to us", "10160-0", known, occasion.medications)
    yield _section(
        "Contact", None, readable.contact(occasion.participant, texts.closing()), people.agents(occasion.participant)
    )


def _section(
    title: str, code: str | None, div: str, entries: tuple[Resource, ...] | Iterator[Resource] = ()
) -> Resource:
    section: Resource = {"title": title}
    if code:
        section["code"] = _concept(canonical.LOINC, code)
    section["text"] = {"status": "generated", "div": div}
    references = [_refer(each) for each in entries]
    return section | ({"entry": references} if references else {})


def _evidence(occasion: Occasion) -> tuple[Resource, ...]:
    """The values that the update shows: of each measure the first and the latest, as they are stored."""
    shown = [value for each in occasion.progress for value in (each.baseline.stored, each.latest.stored)]
    return tuple({_path(value): value for value in shown}.values())


def _goals(occasion: Occasion) -> Iterator[Resource]:
    """One goal for each target of the track that the patient has values for; one in plain words if there is none."""
    aimed = [each for each in occasion.progress if each.target is not None]
    for each in aimed:
        yield _goal(occasion, each)
    if not aimed:
        track = readable.words().track[occasion.period.track]
        text = f"Improve or control the conditions treated in the {track} track"
        yield _goal_frame(occasion, "general", text)


def _goal(occasion: Occasion, progress: Progress) -> Resource:
    goal = _goal_frame(occasion, progress.measure.name, readable.goal_text(progress))
    achieved = progress.achieved
    status = ("achieved", "Achieved") if achieved else ("in-progress", "In Progress")
    if occasion.over and not achieved:
        status = ("not-achieved", "Not Achieved")
    goal["achievementStatus"] = _concept(canonical.GOAL_ACHIEVEMENT, *status)
    goal["target"] = [_target(occasion, progress)]
    goal["outcomeReference"] = [_refer(progress.latest.stored)]
    if progress.target is not None and not progress.target.mark.is_verified:
        text = f"A treatment goal of {occasion.participant.name}; not confirmed to be Medicare's own number."
        goal["note"] = [{"text": text}]
    return goal


def _goal_frame(occasion: Occasion, name: str, text: str) -> Resource:
    author = people.author(occasion.participant)
    spoken = {"expressedBy": author} if author["reference"].startswith("Practitioner/") else {}
    return {
        "resourceType": "Goal",
        "id": f"{occasion.plan_id}-{name}",
        "meta": {"profile": [canonical.PCO("pco-goal-profile"), canonical.US_CORE_PINNED("us-core-goal")]},
        "text": generated(f"{text}."),
        "lifecycleStatus": "completed" if occasion.over else "active",
        "category": [_concept(canonical.PCO_GOAL_DOMAINS, "managing-conditions")],
        "description": {"text": text},
        "subject": _subject(occasion),
        "startDate": occasion.period.aligned_on.isoformat(),
        **({"statusDate": occasion.ends.isoformat()} if occasion.over else {}),
        **spoken,
    }


def _target(occasion: Occasion, progress: Progress) -> Resource:
    target: Resource = {"measure": _measured(progress)}
    limit = progress.limit
    if limit is not None:
        comparator, value = limit
        target["detailQuantity"] = {"value": value, "comparator": comparator} | _unit(progress)
    return target | {"dueDate": occasion.ends.isoformat()}


def _measured(progress: Progress) -> Resource:
    """What the target is about: the component or total that is compared, else the measure as its section names it."""
    code = readable.words().target.get(progress.measure.name) or progress.component
    if code is None and progress.section.system == canonical.LOINC:
        code = progress.section.code
    text = {"text": readable.compared_name(progress)}
    return text if code is None else _concept(canonical.LOINC, code) | text


def _unit(progress: Progress) -> Resource:
    unit = progress.target.unit if progress.target else ""
    if unit in canonical.MEASURE_UNIT.values():
        return {"unit": unit, "system": canonical.UCUM, "code": unit}
    return {"unit": unit, "system": canonical.UCUM, "code": canonical.UNITY}  # a score, as in PCO's example


def _requests(occasion: Occasion) -> Iterator[Resource]:
    """What is done: the measures that are followed. PCO forbids activities in words, so each is a ServiceRequest."""
    followed = [(each.measure.name, each.section.title, _section_code(each)) for each in occasion.progress]
    if not followed:
        track = readable.words().track[occasion.period.track]
        followed = [("general", f"Care in the {track} track of the ACCESS Model", {})]
    for name, title, code in followed:
        text = f"Follow-up: {title}"
        yield {
            "resourceType": "ServiceRequest",
            "id": f"{occasion.plan_id}-{name}",
            "meta": {"profile": [canonical.US_CORE_PINNED("us-core-servicerequest")]},
            "text": generated(f"{text}."),
            "status": "completed" if occasion.over else "active",
            "intent": "plan",
            "category": [_concept(canonical.SNOMED, "386053000", "Evaluation procedure")],
            "code": code | {"text": text},
            "subject": _subject(occasion),
            "occurrencePeriod": _span(occasion),
            "authoredOn": occasion.period.aligned_on.isoformat(),
            "requester": people.author(occasion.participant),
            "performer": [people.organization_reference(occasion.participant)],
        }


def _section_code(progress: Progress) -> Resource:
    section = progress.section
    return _concept(canonical.LOINC, section.code) if section.system == canonical.LOINC else {}


def _care_plan(occasion: Occasion, goals: tuple[Resource, ...], requests: tuple[Resource, ...]) -> Resource:
    categories = [_concept(canonical.CARE_PLAN_CATEGORY, "assess-plan")]
    if any(_by_patient(goal) for goal in occasion.own_goals):  # only then is it the person's own plan
        categories.append(_concept(canonical.PCO_CONCEPTS, "person-centered"))
    title = f"ACCESS care plan, {readable.words().track[occasion.period.track]} track"
    return {
        "resourceType": "CarePlan",
        "id": occasion.plan_id,
        "meta": {"profile": [canonical.PCO("pco-care-plan"), canonical.US_CORE_PINNED("us-core-careplan")]},
        "text": generated(f"{title}.", *(f"{goal['description']['text']}." for goal in goals)),
        "status": "completed" if occasion.over else "active",
        "intent": "plan",
        "category": categories,
        "title": title,
        "subject": _subject(occasion),
        "period": _span(occasion),
        "created": occasion.period.aligned_on.isoformat(),
        "author": people.author(occasion.participant),
        "contributor": [people.organization_reference(occasion.participant)],
        "goal": [_refer(goal) for goal in (*goals, *occasion.own_goals)],
        "activity": [{"reference": _refer(request)} for request in requests],
    }


def _by_patient(goal: Resource) -> bool:
    return str(goal.get("expressedBy", {}).get("reference", "")).startswith("Patient/")


def _span(occasion: Occasion) -> Resource:
    return {"start": occasion.period.aligned_on.isoformat(), "end": occasion.ends.isoformat()}


def _identifier(occasion: Occasion, update_id: str) -> Resource:
    return {"system": f"{occasion.fhir_base}/care-update", "value": update_id}


def _subject(occasion: Occasion) -> Resource:
    return {"reference": f"Patient/{occasion.patient['id']}"}


def _concept(system: str, code: str, display: str | None = None) -> Resource:
    return {"coding": [{"system": system, "code": code} | ({"display": display} if display else {})]}


def _path(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def _refer(resource: Resource) -> Resource:
    return {"reference": _path(resource)}
