"""A report's bytes: built from a selection, checked against every profile it claims, ready to be sent."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256

from mappers.report import ReportRequest, build_report
from profiles import fhir_json
from profiles.issue import Issue, error
from profiles.validate import validate
from server.context import Context
from server.domain.care_period import Report, ReportState
from server.domain.job import JobKind, NewJob
from server.domain.measures import Resource, Selection, dump_evidence
from server.domain.submission import Operation, Submission, SubmissionEvent, SubmissionState
from server.schedule.lifecycle import Calendar, audited, identity
from server.settings import Participant
from server.store.base import Changeset

AGENT = "schedule"


@dataclass(frozen=True, slots=True)
class Document:
    """A built report. With errors among `issues` it must not be sent."""

    body: bytes
    issues: tuple[Issue, ...]

    @property
    def errors(self) -> tuple[Issue, ...]:
        """What refuses it."""
        return tuple(issue for issue in self.issues if issue.is_error)


def build(
    report: Report, selection: Selection, patient: Resource | None, calendar: Calendar, context: Context
) -> Document:
    """Builds and checks. The Bundle's identifier hangs on the report's revision: each attempt has its own."""
    participant = context.settings.participant(report.participant_id)
    lacking = tuple(_lacking(participant, patient))
    if lacking or patient is None:
        return Document(b"", lacking)
    request = ReportRequest(
        base_url=f"{context.settings.base_url}/fhir",
        report_id=report.id,
        revision=report.revision,
        participant_id=participant.entity_id,
        participant_name=participant.name,
        payer_id=participant.payer_id,
        author_npi=participant.author.npi,
        author_family=participant.author.family,
        author_given=participant.author.given,
        patient=patient,
        track=report.track,
        report_type=report.report_type,
        at=calendar.now,
        values={measure: [one.resource for one in found] for measure, found in selection.chosen.items()},
    )
    parameters = build_report(request)
    return Document(fhir_json.dump(parameters), tuple(validate(parameters, guide=participant.guide)))


def submitted(
    report: Report, selection: Selection, document: Document, calendar: Calendar, *, agent: str = AGENT
) -> tuple[Report, Changeset]:
    """The report on its way, and its submission with the job that sends it."""
    submission = Submission(
        participant_id=report.participant_id,
        id=identity("submission", report.id, report.revision),
        operation=Operation.REPORT_DATA,
        patient_id=report.patient_id,
        track=report.track,
        agent=agent,
        created_at=calendar.now,
        request_sha256=sha256(document.body).hexdigest(),
        report_id=report.id,
        report_type=report.report_type,
        request=document.body,
    )
    event = SubmissionEvent(
        participant_id=report.participant_id,
        submission_id=submission.id,
        sequence=1,
        at=calendar.now,
        state=SubmissionState.BUILT,
        detail=f"{report.report_type} report built and checked",
    )
    job = NewJob(participant_id=report.participant_id, kind=JobKind.SUBMIT, key=submission.id, due_at=calendar.now)
    gone = replace(
        report,
        state=ReportState.SUBMITTED,
        missing="",
        submission_id=submission.id,
        evidence=dump_evidence(selection.evidence),
    )
    audit = audited(calendar, "report built", entity=f"submission/{submission.id}")
    return gone, Changeset(insert=(submission, event), jobs=(job,), audit=(audit,))


def _lacking(participant: Participant, patient: Resource | None) -> Iterator[Issue]:
    """What no profile would say in words that help."""
    if patient is None:
        yield error(
            "not-found", "Patient", "The patient's own record is not stored: send the Patient, then assess again."
        )
    if not participant.author.npi or not participant.author.family:
        text = "The participant has no clinical director: set npi and family in [participant.author]."
        yield error("required", "Bundle.entry.resource.ofType(Practitioner)", text)
