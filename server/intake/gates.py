"""What has to be true before a request goes to CMS, beyond the guide's profiles: who sends, what is known.

`findings` looks at the request alone; `standing` at what is known of its patient. Both give every reason at once.
Source: ACCESS API IG 0.9.12, guidance (tracks, lock-in, switching, unalignment reasons); RFA as cited (disclosure).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo

from mappers.conversion import Resource
from profiles import fhir_json
from profiles.canonical import PARTICIPANT_ID, REFERRAL_CATEGORY, REFERRAL_TYPE, SNOMED, TRACK
from profiles.issue import Issue, Severity, error, warning
from server.clock import today
from server.context import Context
from server.domain.alignment import EXCLUSIVE, Alignment, locked, stands
from server.domain.errors import BadConfiguration
from server.domain.resource import StoredResource
from server.domain.rules import Rules, all_rules, rules_for
from server.domain.submission import Operation
from server.intake.repair_steps import rows
from server.settings import Participant
from server.store.base import Where

# Our own codes of Consent.category: what a stored Consent says that the patient was told or agreed to.
CONSENT_CATEGORY = "urn:access-facade:consent-category"
DISCLOSURE = "cms-disclosure"  # CMS's standard disclosure was given, before the first question to CMS
SWITCH = "switch-participants"  # the patient agrees to move to this participant
# The categories of a ServiceRequest by which a provider refers the patient to us: what a REF message says (RF1-3 and
# RF1-5), and SNOMED CT's "patient referral". An order, or a document's plan to send the patient elsewhere, has none.
REFERRAL_SYSTEMS = frozenset({REFERRAL_TYPE, REFERRAL_CATEGORY})
REFERRAL_CODE = (SNOMED, "3457005")
QUERIES = frozenset({Operation.CHECK_ELIGIBILITY, Operation.ALIGN})


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a request's patient. `consents` are the categories of the Consents in force.

    `referral`: the ServiceRequest by which a provider referred the patient here, as Type/id; empty if none is stored.
    """

    operation: Operation
    track: str
    parameters: Resource
    participant: Participant
    rules: Rules
    day: date
    alignments: dict[str, Alignment]  # by track
    consents: dict[str, str]  # category -> Consent/id
    referral: str

    @property
    def own(self) -> Alignment | None:
        """The patient's record on the request's own track."""
        return self.alignments.get(self.track)

    @property
    def reason(self) -> str:
        """The reason of an unalignment; empty for another operation."""
        concept = value_of(self.parameters, "reason", "valueCodeableConcept")
        codings = rows(concept.get("coding")) if isinstance(concept, dict) else []
        return str(codings[0].get("code", "")) if codings else ""


def value_of(parameters: Resource, name: str, element: str) -> object:
    """A parameter's value, whatever it is; None if there is no such parameter."""
    return next((p.get(element) for p in rows(parameters.get("parameter")) if p.get("name") == name), None)


# --- The request alone ----------------------------------------------------------------------------------------------


def findings(parameters: Resource, operation: Operation, participant: Participant, track: str) -> list[Issue]:
    """What CMS would refuse, or take for another participant's, and no profile says."""
    issues = [*_participant(parameters, participant.entity_id)]
    if track and track not in participant.tracks:
        text = f"The participant does not take part in this track: its tracks are {', '.join(participant.tracks)}."
        issues.append(error("business-rule", "Parameters.parameter.where(name='track')", text))
    if operation is Operation.REPORT_DATA:
        issues += _bundles(parameters, participant.entity_id)
        issues += _sections(parameters, track)
    return issues


def _participant(parameters: Resource, entity_id: str) -> Iterator[Issue]:
    identifier = value_of(parameters, "participantID", "valueIdentifier")
    value = identifier.get("value") if isinstance(identifier, dict) else None
    if value is not None and value != entity_id:
        text = "participantID must be the entityId of the address."
        yield error("value", "Parameters.parameter.where(name='participantID')", text)


def _bundles(parameters: Resource, entity_id: str) -> Iterator[Issue]:
    bundles = [
        (number, parameter["resource"])
        for number, parameter in enumerate(rows(parameters.get("parameter")))
        if parameter.get("name") == "dataBundle" and isinstance(parameter.get("resource"), dict)
    ]
    if len(bundles) > 1:
        text = "CMS compares only the first dataBundle with the track: send one dataBundle in one request."
        yield error("structure", "Parameters.parameter.where(name='dataBundle')", text)
    for number, bundle in bundles:
        for index, entry in enumerate(rows(bundle.get("entry"))):
            place = f"Parameters.parameter[{number}].resource.entry[{index}].resource.identifier"
            yield from _organization(entry.get("resource"), place, entity_id)


def _sections(parameters: Resource, track: str) -> Iterator[Issue]:
    """The guide's rule compares the first section's code with the track, and says nothing where there is none."""
    bundle = value_of(parameters, "dataBundle", "resource")
    entries = rows(bundle.get("entry")) if isinstance(bundle, dict) else []
    first = entries[0].get("resource") if entries else None
    if not isinstance(first, dict) or first.get("resourceType") != "Composition":
        return  # the profiles say so
    section = next(iter(rows(first.get("section"))), {})
    concept = section.get("code")
    codings = rows(concept.get("coding")) if isinstance(concept, dict) else []
    if not any(coding.get("system") == TRACK for coding in codings):
        place = "Parameters.parameter.where(name='dataBundle').resource.entry[0].resource.section"
        text = f"The first section of the Composition is the track's: give it the code {track or 'of the track'}."
        yield error("required", place, text)


def _organization(resource: object, place: str, entity_id: str) -> Iterator[Issue]:
    if not isinstance(resource, dict) or resource.get("resourceType") != "Organization":
        return
    ids = {i.get("value") for i in rows(resource.get("identifier")) if i.get("system") == PARTICIPANT_ID}
    if ids and ids != {entity_id}:
        text = "The Organization has another participant id than participantID: make them equal."
        yield error("value", place, text)


# --- What is known of the patient ------------------------------------------------------------------------------------


async def standing(
    parameters: Resource,
    operation: Operation,
    track: str,
    *,
    participant: Participant,
    patient_id: str,
    context: Context,
) -> Standing:
    """Reads what the gates look at."""
    zone = ZoneInfo(participant.time_zone)
    day = today(context.clock, zone.key)
    of_patient = (Where("participant_id", "==", participant.entity_id), Where("patient_id", "==", patient_id))
    found = await context.store.find(Alignment, *of_patient)
    needed = operation in QUERIES and (participant.disclosure_required or participant.switch_consent_required)
    consents = await _consents(of_patient, day, context) if needed else {}
    referral = await _referral_of(of_patient, context) if operation is Operation.ALIGN else ""
    own = next((row for row in found if row.track == track), None)
    begun = own.aligned_on if own is not None and own.aligned_on is not None else day
    by_track = {row.track: row for row in found}
    return Standing(operation, track, parameters, participant, _rules(begun), day, by_track, consents, referral)


def _rules(day: date) -> Rules:
    """The rules of that day; the newest where none cover it: a gate is no reason to turn a question away."""
    try:
        return rules_for(day)
    except BadConfiguration:
        return all_rules()[-1]


async def _consents(of_patient: tuple[Where, ...], day: date, context: Context) -> dict[str, str]:
    """Our categories of the patient's active Consents, given by that day."""
    stored = await context.store.find(StoredResource, *of_patient, Where("resource_type", "==", "Consent"))
    found: dict[str, str] = {}
    for row in stored:
        consent = {} if row.deleted else fhir_json.parse(row.body)
        if consent.get("status") != "active" or str(consent.get("dateTime", ""))[:10] > day.isoformat():
            continue
        if consent.get("provision", {}).get("type") == "deny":
            continue
        for concept in rows(consent.get("category")):
            for coding in rows(concept.get("coding")):
                if coding.get("system") == CONSENT_CATEGORY:
                    found[str(coding.get("code"))] = f"Consent/{row.id}"
    return found


async def _referral_of(of_patient: tuple[Where, ...], context: Context) -> str:
    for row in await context.store.find(StoredResource, *of_patient, Where("resource_type", "==", "ServiceRequest")):
        request = {} if row.deleted else fhir_json.parse(row.body)
        codings = [each for concept in rows(request.get("category")) for each in rows(concept.get("coding"))]
        refers = any(
            each.get("system") in REFERRAL_SYSTEMS or (each.get("system"), each.get("code")) == REFERRAL_CODE
            for each in codings
        )
        if refers and request.get("status") in ("active", "completed"):
            return f"ServiceRequest/{row.id}"
    return ""


def barred(known: Standing) -> list[Issue]:
    """Every reason why the request may not go to CMS now; warnings tell what to have on file."""
    return [issue for gate in GATES for issue in gate(known)]


def _disclosure(known: Standing) -> Iterator[Issue]:
    asks_first = known.operation in QUERIES and (known.own is None or known.own.checked_at is None)
    if known.participant.disclosure_required and asks_first and DISCLOSURE not in known.consents:
        text = (
            "Nothing on record says that the patient was given CMS's disclosure, which comes before the first question "
            f"to CMS: give it, then POST a Consent with category {CONSENT_CATEGORY}|{DISCLOSURE}, and send this again."
        )
        yield error("business-rule", "Parameters.parameter.where(name='patient')", text)


def _exclusive(known: Standing) -> Iterator[Issue]:
    other = EXCLUSIVE.get(known.track, "")
    if known.operation is Operation.ALIGN and stands(known.alignments.get(other), known.day):
        text = (
            f"The patient is aligned to you on {other}, and CMS allows eCKM and CKM never together: unalign from "
            f"{other} first ($unalign, reason no-longer-clinically-eligible with the new diagnosis), then align."
        )
        yield error("conflict", "Parameters.parameter.where(name='track')", text)


def _attestation(known: Standing) -> Iterator[Issue]:
    if known.operation is not Operation.ALIGN:
        return
    attested = value_of(known.parameters, "switchConsentAttestation", "valueBoolean") is True
    place = "Parameters.parameter.where(name='switchConsentAttestation')"
    own = known.own
    if not attested and own is not None and own.may_switch and not own.is_held:
        text = (
            "The patient is aligned to another participant and has to switch: get the patient's consent, file it, and "
            "send switchConsentAttestation = true."
        )
        yield error("required", place, text)
    if attested and known.participant.switch_consent_required and SWITCH not in known.consents:
        text = (
            "The request attests the patient's consent to switch, but none is on record: POST the Consent with "
            f"category {CONSENT_CATEGORY}|{SWITCH}, and send this again."
        )
        yield error("business-rule", place, text)


def _referral(known: Standing) -> Iterator[Issue]:
    """`isProviderReferral` is a statement to CMS: it rests on a stored referral, and may not contradict one."""
    stated = value_of(known.parameters, "isProviderReferral", "valueBoolean")
    place = "Parameters.parameter.where(name='isProviderReferral')"
    if known.operation is not Operation.ALIGN or stated is None:
        return
    if stated is False and known.referral:
        text = (
            f"The request says that no provider referred the patient, but {known.referral} is a referral to you: send "
            "isProviderReferral = true, or set its status to revoked or entered-in-error if it is none."
        )
        yield error("business-rule", place, text)
    elif stated is True and known.referral:
        yield Issue(Severity.INFORMATION, "business-rule", place, f"The referral on record is {known.referral}.")
    elif stated is True:
        yield warning("business-rule", place, "No referral is on record here: keep the proof of it on file.")


def _lock_in(known: Standing) -> Iterator[Issue]:
    own = known.own
    if known.operation is not Operation.UNALIGN or known.reason not in known.rules.unalign_after_lock_in.value:
        return
    if own is not None and locked(own, known.day):
        text = (
            f"CMS takes the reason {known.reason} only after the lock-in, which lasts until {own.lock_in_until}: send "
            "it after that day. If that date is wrong, an operator corrects it: access-facade alignment set-date."
        )
        yield error("business-rule", "Parameters.parameter.where(name='reason')", text)


def _on_file(known: Standing) -> Iterator[Issue]:
    wanted = known.rules.unalign_on_file.value.get(known.reason)
    if known.operation is Operation.UNALIGN and wanted:
        text = f"For the reason {known.reason} CMS wants {wanted} on file: keep the proof."
        yield warning("business-rule", "Parameters.parameter.where(name='reason')", text)


def _control_group(known: Standing) -> Iterator[Issue]:
    until = known.own.control_until if known.own else None
    if known.operation is Operation.ALIGN and until is not None and known.day <= until:
        text = f"CMS has put the patient in the control group until {until}: CMS will hardly align before."
        yield warning("business-rule", "Parameters.parameter.where(name='patient')", text)


GATES: tuple[Callable[[Standing], Iterator[Issue]], ...] = (
    _disclosure,
    _exclusive,
    _attestation,
    _referral,
    _lock_in,
    _on_file,
    _control_group,
)


def status_of(issues: list[Issue]) -> int:
    """The HTTP status of a refusal: 400 for what the request itself lacks, 409 for what stands against it, else 422."""
    codes = {issue.code for issue in issues if issue.is_error}
    if codes <= {"business-rule", "conflict"}:
        return 409 if "conflict" in codes else 422
    return 400
