"""A doctor belongs to no patient: many messages name the same one, and no two spell the name alike."""

from server.domain.resource import StoredResource
from server.intake import accept
from server.store.base import Where

ER7 = "x-application/hl7-v2+er7"
DOCTOR = "1234567893^Okafor^Ngozi^^^^MD^^NPI&2.16.840.1.113883.4.6&ISO^L^^^NPI"


def _about(mbi: str, doctor: str, control: str) -> bytes:
    return "\r".join(
        [
            f"MSH|^~\\&|LAB|X|F|C|20260820080000-0400||ORU^R01^ORU_R01|{control}|P|2.5.1",
            f"PID|1||{mbi}^^^CMS&2.16.840.1.113883.4.927&ISO^MC||Doe{control}^Jo^^^^^L||19500101|F",
            f"PD1||||{doctor}",
            f"OBR|1||F-{control}|29463-7^Body weight^LN|||20260820070000-0400|||||||||||||||20260820080000-0400|||F",
            "OBX|1|NM|29463-7^Body weight^LN||80|kg^kg^UCUM|||||F",
        ]
    ).encode()


async def _doctors(installation) -> list[StoredResource]:
    return list(await installation.context.store.find(StoredResource, Where("resource_type", "==", "Practitioner")))


async def test_the_same_doctor_of_another_patient_is_no_conflict(installation):
    """Another spelling in another patient's message is a new version of the Practitioner, not a mistaken identity."""
    for mbi, doctor, control in (
        ("1EG4TE5MK72", DOCTOR, "M1"),
        ("1EG4TE5MK73", DOCTOR.replace("Ngozi", "N."), "M2"),
    ):
        answer = await installation.call("hie-1", "POST", "/hl7v2", _about(mbi, doctor, control), Content_Type=ER7)
        assert b"MSA|AA" in answer.content, answer.content
    (row,) = await _doctors(installation)
    assert (row.revision, row.patient_id) == (2, None)


async def test_a_doctor_who_is_named_again_is_no_new_version(installation):
    """Only the message differs that names the person: nothing is written of it."""
    for mbi, control in (("1EG4TE5MK72", "M1"), ("1EG4TE5MK73", "M2"), ("1EG4TE5MK72", "M3")):
        answer = await installation.call("hie-1", "POST", "/hl7v2", _about(mbi, DOCTOR, control), Content_Type=ER7)
        assert b"MSA|AA" in answer.content, answer.content
    (row,) = await _doctors(installation)
    assert row.revision == 1


async def test_what_says_the_same_as_before_is_not_checked_again(installation, monkeypatch):
    """A person whom the store holds word for word was checked when that came; what is new is checked."""
    checked = []

    def validate(resource, **more):
        checked.append(resource["resourceType"])
        return validate_all(resource, **more)

    validate_all = accept.validate
    monkeypatch.setattr(accept, "validate", validate)
    for mbi, control in (("1EG4TE5MK72", "M1"), ("1EG4TE5MK73", "M2")):
        await installation.call("hie-1", "POST", "/hl7v2", _about(mbi, DOCTOR, control), Content_Type=ER7)
    assert checked.count("Practitioner") == 1
    assert checked.count("Observation") == checked.count("Patient") == 2
