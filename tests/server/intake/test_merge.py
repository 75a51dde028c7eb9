"""Two records of one person made one, by ADT^A40 and A34: what the resources and the store then say."""

import pytest

from profiles import fhir_json
from server.domain.care_period import CarePeriod
from server.domain.received import Received, ReceivedState
from server.domain.resource import PatientIdentity, ResourceVersion, StoredResource
from server.store.base import Where

ER7 = "x-application/hl7-v2+er7"
OID = "urn:oid:2.16.840.1.113883.3.9999.20"
MBI = "http://terminology.hl7.org/NamingSystem/cmsMBI"


def _pid(*identifiers: str, name: str = "Doe^Jo") -> str:
    return f"PID|1||{'~'.join(identifiers)}||{name}^^^^^L||19500101|F"


def _mrn(number: int) -> str:
    return f"MRN-{number}^^^ORG&2.16.840.1.113883.3.9999.20&ISO^MR"


def _mbi(value: str) -> str:
    return f"{value}^^^CMS&2.16.840.1.113883.4.927&ISO^MC"


def _message(kind: str, control: str, *segments: str) -> bytes:
    head = f"MSH|^~\\&|EHR|CLINIC|F|C|20260820080000-0400||{kind}|{control}|P|2.5.1"
    return "\r".join([head, *segments]).encode()


def _merge(control: str, survivor: str, prior: str, event: str = "A40") -> bytes:
    return _message(f"ADT^{event}", control, "EVN|A40", survivor, f"MRG|{prior}")


def _weight(control: str, pid: str, value: int) -> bytes:
    obr = f"OBR|1||F-{control}|29463-7^Body weight^LN|||20260820070000-0400|||||||||||||||20260820080000-0400|||F"
    return _message("ORU^R01", control, pid, obr, f"OBX|1|NM|29463-7^Body weight^LN||{value}|kg^kg^UCUM|||||F")


async def _send(installation, message: bytes) -> bytes:
    return (await installation.call("hie-1", "POST", "/hl7v2", message, Content_Type=ER7)).content


async def _registered(installation, *pids: str) -> None:
    for number, pid in enumerate(pids):
        assert b"MSA|AA" in await _send(installation, _message("ADT^A04^ADT_A01", f"REG{number}", pid, "PV1|1|O"))


async def _patients(installation) -> dict[str, dict]:
    """By the value of the first identifier."""
    rows = await installation.context.store.find(StoredResource, Where("resource_type", "==", "Patient"))
    bodies = [fhir_json.parse(row.body) for row in rows]
    return {body["identifier"][0]["value"]: body for body in bodies}


async def _weights(installation) -> list[tuple[str, int]]:
    rows = await installation.context.store.find(StoredResource, Where("resource_type", "==", "Observation"))
    bodies = [fhir_json.parse(row.body) for row in rows]
    assert all(
        body["subject"]["reference"] == f"Patient/{row.patient_id}" for body, row in zip(bodies, rows, strict=True)
    )
    return sorted((row.patient_id, int(body["valueQuantity"]["value"])) for body, row in zip(bodies, rows, strict=True))


@pytest.mark.parametrize("event", ["A40", "A34"])
async def test_two_known_records_become_one(installation, event):
    """The survivor has both records' numbers and data; the other is not active and linked; nothing is lost."""
    await _registered(installation, _pid(_mrn(1)), _pid(_mrn(2)))
    await _send(installation, _weight("W1", _pid(_mrn(1)), 81))
    await _send(installation, _weight("W2", _pid(_mrn(2)), 82))
    assert b"MSA|AA" in await _send(installation, _merge("MERGE1", _pid(_mrn(2)), _mrn(1), event))
    patients = await _patients(installation)
    survivor, other = patients["MRN-2"], patients["MRN-1"]
    assert (survivor.get("active"), other["active"]) == (None, False)
    assert other["link"] == [{"other": {"reference": f"Patient/{survivor['id']}"}, "type": "replaced-by"}]
    assert survivor["link"] == [{"other": {"reference": f"Patient/{other['id']}"}, "type": "replaces"}]
    assert await _weights(installation) == [(survivor["id"], 81), (survivor["id"], 82)]
    identities = await installation.context.store.find(PatientIdentity)
    assert [row.patient_id for row in identities] == [survivor["id"]] * 2


async def test_what_moves_is_a_new_version_with_a_history(installation):
    """The earlier version of a moved result still names the record under which it came."""
    await _registered(installation, _pid(_mrn(1)), _pid(_mrn(2)))
    await _send(installation, _weight("W1", _pid(_mrn(1)), 81))
    other = (await _patients(installation))["MRN-1"]
    await _send(installation, _merge("MERGE1", _pid(_mrn(2)), _mrn(1)))
    versions = await installation.context.store.find(ResourceVersion, Where("resource_type", "==", "Observation"))
    assert [(row.version_id, row.patient_id) for row in versions] == [(1, other["id"])]


async def test_later_messages_under_the_old_number_reach_the_survivor(installation):
    """A laboratory that was not told goes on with the old number."""
    await _registered(installation, _pid(_mrn(1)), _pid(_mrn(2)))
    await _send(installation, _merge("MERGE1", _pid(_mrn(2)), _mrn(1)))
    assert b"MSA|AA" in await _send(installation, _weight("W1", _pid(_mrn(1)), 81))
    survivor = (await _patients(installation))["MRN-2"]
    assert await _weights(installation) == [(survivor["id"], 81)]


async def test_a_record_that_nobody_knows_is_an_old_number_of_the_survivor(installation):
    """Only the survivor is known: there is one Patient, without link, that has the other number as an old one."""
    await _registered(installation, _pid(_mrn(2)))
    assert b"MSA|AA" in await _send(installation, _merge("MERGE1", _pid(_mrn(2)), _mrn(1)))
    ((_, patient),) = (await _patients(installation)).items()
    assert [(each["value"], each.get("use")) for each in patient["identifier"]] == [("MRN-2", None), ("MRN-1", "old")]
    assert "link" not in patient
    assert b"MSA|AA" in await _send(installation, _weight("W1", _pid(_mrn(1)), 81))


async def test_a_survivor_that_nobody_knows_is_a_new_number_of_the_known_record(installation):
    """Only the replaced record is known: it stays one Patient with its data, under both numbers."""
    await _registered(installation, _pid(_mrn(1)))
    await _send(installation, _weight("W1", _pid(_mrn(1)), 81))
    assert b"MSA|AA" in await _send(installation, _merge("MERGE1", _pid(_mrn(2)), _mrn(1)))
    ((_, patient),) = (await _patients(installation)).items()
    assert {"MRN-1", "MRN-2"} <= {each["value"] for each in patient["identifier"]}
    assert await _weights(installation) == [(patient["id"], 81)]
    await _send(installation, _weight("W2", _pid(_mrn(2)), 82))
    assert await _weights(installation) == [(patient["id"], 81), (patient["id"], 82)]


async def test_a_merge_of_two_unknown_records_makes_one_known(installation):
    """One Patient with both numbers, and a Provenance that names it once."""
    assert b"MSA|AA" in await _send(installation, _merge("MERGE1", _pid(_mrn(2)), _mrn(1)))
    ((_, patient),) = (await _patients(installation)).items()
    (row,) = await installation.context.store.find(StoredResource, Where("resource_type", "==", "Provenance"))
    assert fhir_json.parse(row.body)["target"] == [{"reference": f"Patient/{patient['id']}"}]


async def test_a_merge_sent_again_under_a_new_control_id_changes_nothing_more(installation):
    """The second time both numbers name the survivor."""
    await _registered(installation, _pid(_mrn(1)), _pid(_mrn(2)))
    await _send(installation, _merge("MERGE1", _pid(_mrn(2)), _mrn(1)))
    before = await _patients(installation)
    assert b"MSA|AA" in await _send(installation, _merge("MERGE2", _pid(_mrn(2)), _mrn(1)))
    after = await _patients(installation)
    assert after["MRN-1"] == before["MRN-1"]
    assert after["MRN-2"]["link"] == before["MRN-2"]["link"]


REFUSED = [
    ("two Medicare numbers", [_pid(_mrn(1), _mbi("1EG4TE5MK72")), _pid(_mrn(2), _mbi("1EG4TE5MK73"))], _mrn(1)),
    ("no prior identifier", [_pid(_mrn(2))], ""),
    ("the same record twice", [_pid(_mrn(2))], _mrn(2)),
    ("numbers of two patients", [_pid(_mrn(1)), _pid(_mrn(2)), _pid(_mrn(3))], f"{_mrn(1)}~{_mrn(3)}"),
]


@pytest.mark.parametrize(("registered", "prior"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED])
async def test_a_merge_that_is_not_for_a_program_to_decide_is_refused(installation, registered, prior):
    """AE that names MRG-1; the message is kept, and both records stay as they were."""
    await _registered(installation, *registered)
    before = await _patients(installation)
    answer = await _send(installation, _merge("MERGE1", _pid(_mrn(2)), prior))
    assert b"MSA|AE" in answer
    assert b"ERR||MRG^1^1" in answer
    assert await _patients(installation) == before
    states = [row.state for row in await installation.context.store.find(Received)]
    assert states.count(ReceivedState.QUARANTINED) == 1


async def test_a_replaced_record_that_cms_knows_of_is_not_moved(installation, alignment):
    """A submission under the replaced record: a person decides, and nothing moves."""
    await _registered(installation, _pid(_mrn(2)))
    await installation.operation("align", alignment)
    patients = await _patients(installation)
    enrolled = next(body for value, body in patients.items() if value != "MRN-2")
    assert await installation.context.store.find(CarePeriod) == []
    answer = await _send(installation, _merge("MERGE1", _pid(_mrn(2)), _mbi("1EG4TE5MK72")))
    assert b"MSA|AE" in answer
    assert (await _patients(installation))[enrolled["identifier"][0]["value"]] == enrolled
