"""Documents made to hurt: width, depth, repetition and amplification end in time and in size (X2)."""

import sys
import time

import pytest

LOINC = "2.16.840.1.113883.6.1"
CODE = f'<code code="1-8" codeSystem="{LOINC}"/>'
FEW = 3000
ENTRY = '<entry><observation classCode="OBS" moodCode="EVN">{}</observation></entry>'
INTERVENTION = '<act classCode="ACT" moodCode="INT"><templateId root="2.16.840.1.113883.10.20.22.4.146"/>'
WIDE = {
    "entries": '<entry><act><id root="1.2"/></act></entry>' * FEW,
    "relations": ENTRY.format(CODE + '<entryRelationship><act><id root="1.2"/></act></entryRelationship>' * FEW),
    "ids": ENTRY.format('<id root="1.2"/>' * FEW + CODE),
    "translations": ENTRY.format(
        f'<code code="1-8" codeSystem="{LOINC}">'
        + "".join(f'<translation code="{n}"/>' for n in range(FEW))
        + "</code>"
    ),
    "authors": ENTRY.format(
        CODE
        + "".join(
            f'<author><assignedAuthor><id root="1.2" extension="{n}"/></assignedAuthor></author>' for n in range(FEW)
        )
    ),
    "attributes": "<entry><observation " + " ".join(f'a{n}="1"' for n in range(20 * FEW)) + "/></entry>",
    "same-ids": ENTRY.format(f'<id root="1.2"/>{CODE}') * FEW,
    "pointers": ENTRY.format(
        f'<id root="1.2"/>{CODE}<entryRelationship typeCode="GEVL"><act><id root="1.2"/></act></entryRelationship>'
    )
    * 1000,
}


@pytest.mark.parametrize("name", WIDE)
def test_a_wide_document_takes_time_in_proportion(name, of):
    """Thousands of the same thing: no quadratic work, no refusal, each one mapped or in the account."""
    of("29762-2", "")  # the tables are compiled
    started = time.process_time()  # of this process: other work on the machine does not count
    conversion = of("29762-2", WIDE[name])
    assert time.process_time() - started < 2.0
    assert len(conversion.resources) + len(conversion.unmapped) >= 5


def test_narrative_is_not_multiplied(of):
    """Many entries that refer to one long text: the resources do not grow beyond twice the document."""
    text = f'<text><paragraph ID="x">{"word " * 100_000}</paragraph></text>'
    refer = f'<code code="1-8" codeSystem="{LOINC}"><originalText><reference value="#x"/></originalText></code>'
    conversion = of("29762-2", text + ENTRY.format(refer) * 200)
    said = [one["code"].get("text", "") for one in conversion.resources if one["resourceType"] == "Observation"]
    assert sum(map(len, said)) < 2_000_000
    assert len(said) == 200
    assert any("not all of it is repeated" in issue.text for issue in conversion.issues)


def test_an_id_that_all_entries_bear_links_few(of):
    """Pointers to one id among a thousand: no list of a thousand in a thousand resources."""
    aim = ENTRY.format(f'<id root="1.2"/>{CODE}<text>Aim</text>').replace("EVN", "GOL")
    conversion = of("11383-7", aim * 1000 + WIDE["pointers"])
    assert sum(one["resourceType"] == "Goal" for one in conversion.resources) == 1000
    assert any(one.get("focus") for one in conversion.resources)
    assert all(len(one.get("focus", ())) <= 20 for one in conversion.resources)


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<text><list><item>", "</item></list></text>"),
        (
            '<entry><act classCode="ACT" moodCode="INT"><templateId root="2.16.840.1.113883.10.20.22.4.146"/>',
            "</act></entry>",
        ),
    ],
)
def test_depth_ends_before_python_does(opening, closing, of):
    """Up to libxml2's 256 levels everything is read; the stack holds."""
    inner = {
        "<text": ("<list><item>", "</item></list>"),
        "<entry": (
            f"<entryRelationship>{INTERVENTION}",
            "</act></entryRelationship>",
        ),
    }[opening.partition(">")[0].partition(" ")[0]]
    deep = opening + inner[0] * 115 + "x" + inner[1] * 115 + closing
    assert sys.getrecursionlimit() == 1000
    conversion = of("18776-5", deep)
    assert conversion.patient is not None
