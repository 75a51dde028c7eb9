"""What must be true of a patient before CMS is asked: each gate shut, and what opens it."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from profiles import fhir_json
from profiles.canonical import MBI, UNALIGNMENT_REASON
from server.demo import messages
from server.domain.alignment import Alignment, AlignmentState
from server.domain.submission import Submission, SubmissionEvent
from server.intake import gates
from server.store.base import Changeset, Where
from tests.server.intake.requests import consent, operation, report_of


async def alignment_row(installation, **columns: Any) -> Alignment:
    """A record of the demo's patient, as an earlier decision of CMS left it."""
    answer = await installation.operation("check-eligibility", operation("check-eligibility"))
    patient = (await installation.submission()).patient_id
    await installation.result(answer.headers["Content-Location"].rpartition("/")[2])
    (row,) = await installation.context.store.find(Alignment, Where("patient_id", "==", patient))
    values = {"participant_id": "ACCES12345", "patient_id": patient, "track": "CKM"} | columns
    made = Alignment(**values)
    if made.track == row.track:
        await installation.context.store.commit(Changeset(delete=(row,)))
    await installation.context.store.commit(Changeset(insert=(made,)))
    return made


def said(answer: Any) -> str:
    return " ".join(issue["details"]["text"] for issue in fhir_json.parse(answer.content)["issue"])


# --- Disclosure ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["check-eligibility", "align"])
async def test_no_question_without_the_disclosure(strict, name):
    """422 with what to do; nothing goes to CMS (RFA as cited: before the first eligibility or alignment query)."""
    answer = await strict.operation(name, operation(name))
    assert answer.status_code == 422
    assert gates.DISCLOSURE in said(answer)
    assert await strict.context.store.find(Submission) == []


async def test_a_stored_disclosure_opens_the_door(strict):
    """A Consent with our category, posted by the EHR with the MBI, and the same bytes are taken."""
    assert (await strict.operation("check-eligibility", operation("check-eligibility"))).status_code == 422
    answer = await strict.call("ehr-1", "POST", "/fhir", consent(gates.DISCLOSURE))
    assert answer.status_code == 200, answer.text
    assert (await strict.operation("check-eligibility", operation("check-eligibility"))).status_code == 202


@pytest.mark.parametrize(
    "change",
    [
        {"status": "inactive"},
        {"status": "entered-in-error"},
        {"dateTime": "2027-01-01"},
        {"provision": {"type": "deny"}},
    ],
    ids=str,
)
async def test_a_consent_that_is_not_in_force_does_not(strict, change):
    """Withdrawn, wrong, of tomorrow, or a refusal."""
    answer = await strict.call("ehr-1", "POST", "/fhir", consent(gates.DISCLOSURE, **change))
    assert answer.status_code == 200, answer.text
    assert (await strict.operation("check-eligibility", operation("check-eligibility"))).status_code == 422


async def test_the_first_question_only(strict):
    """Once CMS has answered about a patient and track, later questions need no new proof."""
    await strict.call("ehr-1", "POST", "/fhir", consent(gates.DISCLOSURE))
    first = await strict.operation("check-eligibility", operation("check-eligibility"))
    await strict.result(first.headers["Content-Location"].rpartition("/")[2])
    await strict.call("ehr-1", "POST", "/fhir", consent(gates.DISCLOSURE, status="inactive"))
    assert (await strict.operation("align", operation("align"))).status_code == 202


# --- Tracks, switches, unalignments -----------------------------------------------------------------------------------


async def test_ckm_and_eckm_exclude_each_other(installation):
    """409 with a plain sentence: unalign first (IG 0.9.12, tracks)."""
    await alignment_row(installation, track="eCKM", state=AlignmentState.ALIGNED, ends_on=date(2027, 6, 1))
    answer = await installation.operation("align", operation("align"))
    assert answer.status_code == 409
    assert "unalign from eCKM first" in said(answer)
    assert installation.cms.journal("align") == []


async def test_another_track_stands_beside(installation):
    """One alignment a track: BH does not bar CKM."""
    await alignment_row(installation, track="BH", state=AlignmentState.ALIGNED, ends_on=date(2027, 6, 1))
    assert (await installation.operation("align", operation("align"))).status_code == 202


async def test_an_alignment_that_is_over_bars_nothing(installation):
    """After its 12 months."""
    await alignment_row(installation, track="eCKM", state=AlignmentState.ALIGNED, ends_on=date(2026, 8, 1))
    assert (await installation.operation("align", operation("align"))).status_code == 202


async def test_a_switch_needs_the_attestation(installation):
    """400 required, as the guide's own example has it (IG 0.9.12, alignment errors)."""
    await alignment_row(installation, state=AlignmentState.ELIGIBLE, may_switch=True)
    answer = await installation.operation("align", operation("align"))
    assert answer.status_code == 400
    assert "switchConsentAttestation" in said(answer)
    attested = operation("align", switchConsentAttestation=True)
    assert (await installation.operation("align", attested)).status_code == 202


async def test_an_attestation_needs_a_stored_consent(strict):
    """Never a default, never on nothing: with the setting on, the Consent has to be there."""
    await strict.call("ehr-1", "POST", "/fhir", consent(gates.DISCLOSURE))
    attested = operation("align", switchConsentAttestation=True)
    answer = await strict.operation("align", attested)
    assert answer.status_code == 422
    assert gates.SWITCH in said(answer)
    await strict.call("ehr-1", "POST", "/fhir", consent(gates.SWITCH))
    assert (await strict.operation("align", attested)).status_code == 202


def unalign(reason: str, **more: Any) -> bytes:
    coding = {"system": UNALIGNMENT_REASON, "code": reason}
    return operation("unalign", reason={"coding": [coding]}, **more)


async def test_a_patients_wish_waits_for_the_end_of_the_lock_in(installation):
    """`patient-initiated` is defined for the time after the 90 days: refused with the day, and what corrects it."""
    today = installation.clock.at.date()
    await alignment_row(installation, state=AlignmentState.ALIGNED, lock_in_until=today + timedelta(days=3))
    answer = await installation.operation("unalign", unalign("patient-initiated"))
    assert answer.status_code == 422
    assert str(today + timedelta(days=3)) in said(answer)
    assert (await installation.operation("unalign", unalign("geographic-relocated"))).status_code == 202


async def test_after_the_lock_in_it_goes(installation):
    """The last day is included."""
    yesterday = installation.clock.at.date() - timedelta(days=2)
    await alignment_row(installation, state=AlignmentState.ALIGNED, lock_in_until=yesterday)
    assert (await installation.operation("unalign", unalign("patient-initiated"))).status_code == 202


async def test_loss_of_contact_is_sent_with_a_note(installation):
    """Nothing in the request carries the attempts: the note in the submission's record says what to keep."""
    await installation.operation("unalign", unalign("loss-of-contact"))
    (event,) = await installation.context.store.find(SubmissionEvent)
    assert "at least 3 attempts over at least 30 days" in event.detail


async def test_no_longer_eligible_needs_a_condition(installation):
    """IG 0.9.12, access-unalign-condition-required."""
    answer = await installation.operation("unalign", unalign("no-longer-clinically-eligible"))
    assert answer.status_code == 400
    assert "needs a condition" in said(answer)


async def test_the_control_group_is_noted_not_barred(installation):
    """What a repeat within the 12 months returns is not said: CMS is asked, and the record says that it hardly will."""
    await alignment_row(installation, state=AlignmentState.CONTROL_GROUP, control_until=date(2027, 8, 1))
    await installation.operation("align", operation("align"))
    rows = await installation.context.store.find(SubmissionEvent, Where("sequence", "==", 1))
    assert any("control group until 2027-08-01" in row.detail for row in rows)


async def test_a_track_that_the_participant_does_not_take_is_refused(installation):
    """422: before anything about the patient leaves."""
    settings = installation.context.settings
    only = {key: replace(one, tracks=("MSK",)) for key, one in settings.participants.items()}
    installation.app.state.context = replace(installation.context, settings=replace(settings, participants=only))
    answer = await installation.operation("check-eligibility", operation("check-eligibility"))
    assert answer.status_code == 422
    assert "its tracks are MSK" in said(answer)


# --- Reports ---------------------------------------------------------------------------------------------------------


async def test_one_bundle_in_one_request(installation):
    """What CMS does with several is not said, and its rule compares the first only."""
    request = report_of("CKM")
    bundle = request["parameter"][-1]
    request["parameter"].append(bundle)
    answer = await installation.operation("report-data", fhir_json.dump(request))
    assert answer.status_code == 400
    assert "one dataBundle" in said(answer)


async def test_the_organization_is_the_participant(installation):
    """Its participant id is participantID (and so entityId)."""
    request = report_of("CKM")
    for entry in request["parameter"][-1]["resource"]["entry"]:
        if entry["resource"]["resourceType"] == "Organization":
            entry["resource"]["identifier"][0]["value"] = "ACCES99999"
    answer = await installation.operation("report-data", fhir_json.dump(request))
    assert answer.status_code == 400
    assert "another participant id" in said(answer)


@pytest.mark.parametrize("element", ["timestamp", "identifier"])
async def test_what_is_not_ours_to_invent_is_refused(installation, element):
    """A report's own time and name (FHIR R4, bdl-9, bdl-10)."""
    request = report_of("CKM")
    del request["parameter"][-1]["resource"][element]
    assert (await installation.operation("report-data", fhir_json.dump(request))).status_code == 400


async def test_an_identifier_is_used_for_one_report(installation):
    """One identifier in two reports (a known client sends it every quarter): the second gets its own."""
    first = report_of("CKM")
    second = report_of("CKM")
    second["parameter"][-1]["resource"]["timestamp"] = "2026-08-20T19:00:00Z"
    for request in (first, second, second):
        assert (await installation.operation("report-data", fhir_json.dump(request))).status_code == 202
    sent = [fhir_json.parse(row.request) for row in await installation.context.store.find(Submission)]
    values = [one["parameter"][-1]["resource"]["identifier"]["value"] for one in sent]
    own = first["parameter"][-1]["resource"]["identifier"]["value"]
    assert len(values) == len(set(values)) == 2
    assert own in values
    assert all(value.startswith(own) for value in values)


# --- Referral --------------------------------------------------------------------------------------------------------


def referral(**changes: Any) -> bytes:
    """A provider's referral of the demo's patient, as an EHR sends it."""
    resource: dict[str, Any] = {
        "resourceType": "ServiceRequest",
        "identifier": [{"system": "urn:example:referrals", "value": "R-55"}],
        "status": "active",
        "intent": "order",
        "category": [{"coding": [{"system": gates.REFERRAL_CODE[0], "code": gates.REFERRAL_CODE[1]}]}],
        "code": {"text": "ACCESS"},
        "subject": {"identifier": {"system": MBI, "value": messages.PATIENT_MBI}},
    }
    entry = {"resource": resource | changes, "request": {"method": "POST", "url": "ServiceRequest"}}
    return fhir_json.dump({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})


def stating(value: bool) -> bytes:
    """The demo's $align with that `isProviderReferral`."""
    request = fhir_json.parse(operation("align"))
    request["parameter"][-1]["valueBoolean"] = value
    return fhir_json.dump(request)


async def test_a_stored_referral_may_not_be_denied(installation):
    """`isProviderReferral` = false beside a referral on record: 422 with the remedy, nothing goes to CMS."""
    stored = await installation.call("ehr-1", "POST", "/fhir", referral())
    assert stored.status_code == 200, stored.text
    answer = await installation.operation("align", stating(False))
    assert answer.status_code == 422
    assert "isProviderReferral = true" in said(answer)
    assert await installation.context.store.find(Submission) == []


@pytest.mark.parametrize(
    "change",
    [
        {"status": "revoked"},
        {"status": "entered-in-error"},
        {"category": [{"coding": [{"system": "http://snomed.info/sct", "code": "108252007"}]}]},
    ],
    ids=str,
)
async def test_what_is_no_referral_denies_nothing(installation, change):
    """A revoked one, a wrong one, and a laboratory order."""
    stored = await installation.call("ehr-1", "POST", "/fhir", referral(**change))
    assert stored.status_code == 200, stored.text
    assert (await installation.operation("align", stating(False))).status_code == 202


@pytest.mark.parametrize(
    ("stored", "noted"), [(True, "The referral on record is ServiceRequest/"), (False, "keep the proof")]
)
async def test_what_a_referral_rests_on_is_written_down(installation, stored, noted):
    """True: with the referral on record, or the advice to keep the proof; the bytes go as they came."""
    if stored:
        await installation.call("ehr-1", "POST", "/fhir", referral())
    body = stating(True)
    assert (await installation.operation("align", body)).status_code == 202
    row = await installation.submission()
    assert row.request == body
    (event,) = await installation.context.store.find(SubmissionEvent, Where("submission_id", "==", row.id))
    assert noted in event.detail
