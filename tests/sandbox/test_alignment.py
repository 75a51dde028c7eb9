"""Who is eligible and aligned: each result code of $check-eligibility, $align and $unalign, and the state behind it."""

from typing import Any

import pytest

OTHER = "ACCES54321"
BARRED = [
    ("2AC4DE5FG61", "not-medicare"),
    ("2AC4DE5FG62", "services"),
    ("2AC4DE5FG63", "services"),
    ("2AC4DE5FG64", "services"),
    ("2AC4DE5FG65", "control-group"),
    ("2AC4DE5FG66", "already-aligned"),
    ("2AC4DE5FG69", "clinical-exclusion"),
    ("2AC4DE5FG70", "mismatch"),
]


@pytest.mark.parametrize(("mbi", "reason"), BARRED)
async def test_barred(cms: Any, mbi: str, reason: str) -> None:
    """Each kind of beneficiary that cannot be aligned gets the code for it, from both operations."""
    patient = cms.made.person(cms.app, mbi)
    checked = await cms.result("check-eligibility", cms.made.check_eligibility("E11.9", patient=patient))
    aligned = await cms.result("align", cms.made.align(patient=patient))
    assert (checked, aligned) == (f"not-eligible-{reason}", f"not-aligned-{reason}")


async def test_eligible_by_record(cms: Any) -> None:
    """Without a condition, the diagnoses that CMS has on record decide."""
    assert await cms.result("check-eligibility", cms.made.check_eligibility()) == "eligible"


async def test_pending_diagnosis(cms: Any) -> None:
    """No diagnosis on record and none sent: eligible pending diagnosis; a wrong one sent: not eligible."""
    patient = cms.made.person(cms.app, "2AC4DE5FG71")
    none = await cms.result("check-eligibility", cms.made.check_eligibility(patient=patient))
    wrong = await cms.result("check-eligibility", cms.made.check_eligibility("Z00.00", patient=patient))
    right = await cms.result("check-eligibility", cms.made.check_eligibility("E11.9", patient=patient))
    assert (none, wrong, right) == ("eligible-pending-diagnosis", "not-eligible-diagnoses", "eligible")


async def test_no_qualifying_diagnosis(cms: Any) -> None:
    """An alignment goes by the conditions sent, not by those on record."""
    assert await cms.result("align", cms.made.align("Z00.00")) == "not-aligned-diagnoses"
    assert await cms.result("align", cms.made.align("Z00.00", "E11.9")) == "aligned"


async def test_excluding_diagnosis(cms: Any) -> None:
    """A condition beneath a root of the exclusion list is a clinical exclusion."""
    assert await cms.result("align", cms.made.align("E11.9", "G30.9")) == "not-aligned-clinical-exclusion"


@pytest.mark.parametrize(
    "wrong", [{"family": "Smith"}, {"given": "Jim"}, {"birth": "1950-01-02"}, {"mbi": "9AA9AA9AA99"}]
)
async def test_mismatch(cms: Any, wrong: dict[str, str]) -> None:
    """Another name or birth date than on record, or an unknown MBI, is a mismatch."""
    patient = cms.made.patient(**wrong)
    assert await cms.result("align", cms.made.align(patient=patient)) == "not-aligned-mismatch"


async def test_name_in_other_case(cms: Any) -> None:
    """Letter case of a name is no mismatch."""
    assert await cms.result("align", cms.made.align(patient=cms.made.patient(family="DOE"))) == "aligned"


async def test_other_payer(cms: Any) -> None:
    """A member id of another payer passes the checks of format and is not Medicare."""
    patient = cms.made.patient()
    patient["identifier"][0] = {"system": "http://payer.example/member", "value": "A-1"}
    assert await cms.result("align", cms.made.align(patient=patient)) == "not-aligned-not-medicare"


async def test_align_again(cms: Any) -> None:
    """The same participant again: already aligned, and the first alignment stands."""
    first = await cms.aligned()
    assert await cms.result("align", cms.made.align()) == "not-aligned-already-aligned"
    assert await cms.result("check-eligibility", cms.made.check_eligibility()) == "not-eligible-already-aligned"
    current = [row for row in await cms.get("/sandbox/alignments") if row["mbi"] == "1EG4TE5MK73"]
    assert [(row["id"], row["state"]) for row in current] == [(first, "aligned")]


async def test_several_tracks(cms: Any) -> None:
    """One alignment a track: MSK beside CKM is fine."""
    await cms.aligned()
    assert await cms.result("align", cms.made.align("M54.50", track="MSK")) == "aligned"


async def test_ckm_and_eckm(cms: Any) -> None:
    """eCKM and CKM exclude each other at one participant until the first is unaligned."""
    assert await cms.result("align", cms.made.align("I10", track="eCKM")) == "aligned"
    assert await cms.result("align", cms.made.align()) == "not-aligned-already-aligned"
    out = cms.made.unalign("no-longer-clinically-eligible", "E11.9", track="eCKM")
    assert await cms.result("unalign", out) == "unaligned"
    assert await cms.result("align", cms.made.align()) == "aligned"


async def test_from_eckm_elsewhere(cms: Any) -> None:
    """A move from eCKM to CKM at another participant is not bound by the lock-in, but needs the attestation."""
    patient = cms.made.person(cms.app, "2AC4DE5FG68")
    checked = await cms.result("check-eligibility", cms.made.check_eligibility("E11.9", patient=patient))
    without = await cms.result("align", cms.made.align(patient=patient))
    attested = await cms.result("align", cms.made.align(patient=patient, attested=True))
    assert checked == "eligible-switch-participants"
    assert (without, attested) == ("not-aligned-no-switch-attestation", "aligned-switch-approved")


async def test_switch(cms: Any) -> None:
    """After the lock-in a patient may switch with the attestation; the former alignment ends."""
    patient = cms.made.person(cms.app, "2AC4DE5FG67")
    checked = await cms.result("check-eligibility", cms.made.check_eligibility(patient=patient))
    refused = await cms.result("align", cms.made.align(patient=patient, attested=False))
    switched = await cms.result("align", cms.made.align(patient=patient, attested=True))
    assert checked == "eligible-switch-participants"
    assert (refused, switched) == ("not-aligned-no-switch-attestation", "aligned-switch-approved")
    rows = [row for row in await cms.get("/sandbox/alignments") if row["mbi"] == "2AC4DE5FG67"]
    assert [(row["entity_id"], row["state"]) for row in rows] == [
        ("ACCES99999", "unaligned"),
        ("ACCES12345", "aligned"),
    ]


@pytest.mark.parametrize(("day", "expected"), [(89, "not-aligned-already-aligned"), (90, "aligned-switch-approved")])
async def test_lock_in(cms: Any, day: int, expected: str) -> None:
    """The lock-in lasts 90 days from the alignment."""
    await cms.aligned()
    assert await cms.result("report-data", cms.made.report()) == "success"
    await cms.day(day)
    body = cms.made.align(attested=True, entity=OTHER)
    assert await cms.result("align", body, entity=OTHER) == expected


async def test_unalign(cms: Any) -> None:
    """An alignment ends once; then there is nothing to unalign, and the patient may be aligned again."""
    await cms.aligned()
    assert await cms.result("unalign", cms.made.unalign("loss-of-contact")) == "unaligned"
    assert await cms.result("unalign", cms.made.unalign("loss-of-contact")) == "patient-not-aligned"
    assert await cms.result("align", cms.made.align()) == "aligned"


async def test_unalign_of_another(cms: Any) -> None:
    """Another participant's patient cannot be unaligned."""
    await cms.aligned()
    body = cms.made.unalign(entity=OTHER)
    assert await cms.result("unalign", body, entity=OTHER) == "patient-not-aligned"


@pytest.mark.parametrize(("day", "expected"), [(89, "cannot-unalign-during-lock-in"), (90, "unaligned")])
async def test_patient_initiated(cms: Any, day: int, expected: str) -> None:
    """A patient leaves only after the lock-in."""
    await cms.aligned()
    await cms.result("report-data", cms.made.report())
    await cms.day(day)
    assert await cms.result("unalign", cms.made.unalign("patient-initiated")) == expected


async def test_unalignment_under_review(cms: Any) -> None:
    """Under review the alignment stands; it ends with the review, a week later."""
    await cms.day(0)
    patient = cms.made.person(cms.app, "2AC4DE5FG72")
    assert await cms.result("align", cms.made.align(patient=patient)) == "aligned"
    for _ in range(2):
        assert await cms.result("unalign", cms.made.unalign(patient=patient)) == "unalignment-pending"
    assert await cms.result("report-data", cms.made.report(patient=patient)) == "success"
    await cms.day(7)
    assert await cms.result("unalign", cms.made.unalign(patient=patient)) == "patient-not-aligned"


@pytest.mark.parametrize(("day", "state"), [(60, "aligned"), (61, "unaligned")])
async def test_no_baseline(cms: Any, day: int, state: str) -> None:
    """Without a baseline report within 60 days the patient is unaligned."""
    submission_id = await cms.aligned()
    await cms.day(day)
    rows = {row["id"]: row for row in await cms.get("/sandbox/alignments")}
    assert rows[submission_id]["state"] == state


@pytest.mark.parametrize(("day", "expected"), [(364, "not-aligned-control-group"), (365, "aligned")])
async def test_control_group(cms: Any, day: int, expected: str) -> None:
    """The control group lasts 12 months from the first query."""
    await cms.day(0)
    patient = cms.made.person(cms.app, "2AC4DE5FG65")
    await cms.result("check-eligibility", cms.made.check_eligibility(patient=patient))
    await cms.day(day)
    assert await cms.result("align", cms.made.align(patient=patient)) == expected


async def test_follow_on(cms: Any) -> None:
    """After a period with its last report the same participant may align again; before, not."""
    await cms.aligned()
    for day, kind in [(0, "baseline"), (300, "end-of-period")]:
        await cms.day(day)
        assert await cms.result("report-data", cms.made.report(kind, number=kind)) == "success"
    assert await cms.result("align", cms.made.align()) == "not-aligned-already-aligned"
    await cms.day(365)
    assert await cms.result("align", cms.made.align()) == "aligned"


async def test_answer_shape(cms: Any) -> None:
    """The polled answer is Parameters of the operation's own profile with a flat result, and stays readable."""
    taken = await cms.post("align", cms.made.align())
    first = await cms.poll(taken.headers["content-location"])
    second = await cms.poll(taken.headers["content-location"])
    ig = "https://dsacms.github.io/cmmi-access-model"
    body = first.json()
    assert body["meta"]["profile"] == [f"{ig}/StructureDefinition/access-align-out"]
    (result,) = body["parameter"]
    coding = {"system": f"{ig}/CodeSystem/ACCESSAlignmentResultCS", "code": "aligned", "display": "Aligned"}
    assert result["valueCodeableConcept"]["coding"] == [coding]
    assert result["valueCodeableConcept"]["text"]
    assert second.json() == body


async def test_encoded_dollar(cms: Any) -> None:
    """`%24` does as well as `$`."""
    url = "/fhir/access/Patient/%24check-eligibility?entityId=ACCES12345"
    taken = await cms.client.post(url, json=cms.made.check_eligibility(), headers=await cms.headers())
    assert taken.status_code == 202
    location = taken.headers["content-location"].replace("$", "%24")
    assert (await cms.poll(location)).status_code == 200
