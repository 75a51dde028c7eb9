"""The loss account where real documents had parts that went without a word: header, names beside codes, roles by id."""

from typing import Any

from mappers.cda import convert
from mappers.conversion import Conversion, Source

SNOMED = 'codeSystem="2.16.840.1.113883.6.96"'


def _booked(conversion: Conversion) -> set[str]:
    return {one.location.rpartition("/ClinicalDocument/")[2] for one in conversion.unmapped}


def _of(conversion: Conversion, kind: str) -> dict[str, Any]:
    (found,) = [one for one in conversion.resources if one["resourceType"] == kind]
    return found


def _with_header(wrap, header: str) -> Conversion:
    data = wrap("8716-3", "").replace(b"<component>", header.encode() + b"<component>", 1)
    return convert(data, Source("0" * 64, "2026-02-03T04:05:06Z"))


def test_who_cares_beside_the_pcp_is_booked(wrap):
    """A performer of the care without the function PCP; what the care is called; since when the PCP is it."""
    person = "<assignedEntity><id root='1.2' extension='{0}'/><assignedPerson><name><family>{0}</family></name></assignedPerson></assignedEntity>"  # noqa: E501 - one element
    pcp = f"<performer><functionCode code='PCP'/><time value='2020'/>{person.format('Abe')}</performer>"
    other = f"<performer><functionCode code='ATTPHYS'/>{person.format('Bo')}</performer>"
    event = f"<serviceEvent><code code='1' {SNOMED}/>{pcp}{other}</serviceEvent>"
    conversion = _with_header(wrap, f"<documentationOf>{event}</documentationOf>")
    place = "documentationOf/serviceEvent/"
    assert {f"{place}code", f"{place}performer[1]/time", f"{place}performer[2]"} <= _booked(conversion)


def test_when_it_was_signed_and_written_is_booked(wrap):
    """The time of a signature, and that of an author where it is not the document's own."""
    role = "<id root='1.2' extension='a'/>"
    author = f"<author><time value='20250101'/><assignedAuthor>{role}</assignedAuthor></author>"
    signer = f"<legalAuthenticator><time value='20260302'/><signatureCode code='S'/><assignedEntity>{role}</assignedEntity></legalAuthenticator>"  # noqa: E501 - one element
    conversion = _with_header(wrap, author + signer)
    assert {"author/time", "legalAuthenticator/time", "legalAuthenticator/signatureCode"} <= _booked(conversion)


def test_what_a_related_document_says_beside_its_id_is_booked(wrap):
    """Its series and number."""
    parent = "<parentDocument><id root='1.2.9'/><setId root='1.2.8'/><versionNumber value='1'/></parentDocument>"
    conversion = _with_header(wrap, f"<relatedDocument typeCode='RPLC'>{parent}</relatedDocument>")
    place = "relatedDocument/parentDocument/"
    assert {f"{place}setId", f"{place}versionNumber"} <= _booked(conversion)
    assert _of(conversion, "DocumentReference")["relatesTo"][0]["code"] == "replaces"


def test_a_date_of_the_document_that_is_no_instant_is_booked(wrap):
    """DocumentReference.date wants seconds and an offset: a day alone is in the account."""
    data = wrap("8716-3", "", time="20260301")
    assert "effectiveTime" in _booked(convert(data, Source("0" * 64, "2026-02-03T04:05:06Z")))


def test_words_of_a_code_stand_before_the_narrative_that_they_point_at(of):
    """originalText with words and a reference: the words; they are not lost when the reference leads nowhere."""
    code = f"<code code='8' {SNOMED}><originalText>Own words<reference value='#no'/></originalText></code>"
    entry = f"<entry><procedure>{code}<statusCode code='completed'/></procedure></entry>"
    assert _of(of("47519-4", entry), "Procedure")["code"]["text"] == "Own words"


def test_a_name_beside_a_code_with_words_of_its_own_is_booked(of):
    """A medicine: the text is the code's; the other name is in the account."""
    code = f"<code code='8' {SNOMED}><originalText>One</originalText></code><name>Two</name>"
    product = f"<consumable><manufacturedProduct><manufacturedMaterial>{code}</manufacturedMaterial></manufacturedProduct></consumable>"  # noqa: E501 - one element
    entry = f"<entry><substanceAdministration>{product}</substanceAdministration></entry>"
    conversion = of("10160-0", entry)
    assert _of(conversion, "MedicationRequest")["medicationCodeableConcept"]["text"] == "One"
    assert any(place.endswith("manufacturedMaterial/name") for place in _booked(conversion))


def test_a_role_by_id_alone_keeps_no_code_in_silence(of):
    """A performer without a name: the id makes the Practitioner, the specialty is in the account."""
    role = f"<assignedEntity><id root='1.2' extension='z'/><code code='59058001' {SNOMED}/></assignedEntity>"
    entry = f"<entry><procedure><code code='8' {SNOMED}/><performer>{role}</performer></procedure></entry>"
    conversion = of("47519-4", entry)
    assert any(place.endswith("performer/assignedEntity/code") for place in _booked(conversion))


def test_the_code_of_a_goal_without_a_value_describes_it(of):
    """Words from the text, the code beside them."""
    code = f"<code code='289169006' {SNOMED} displayName='Weight loss'/><text>Lose weight</text>"
    entry = f"<entry><observation moodCode='GOL'>{code}<statusCode code='active'/></observation></entry>"
    described = _of(of("61146-7", entry), "Goal")["description"]
    assert (described["text"], described["coding"][0]["code"]) == ("Lose weight", "289169006")
