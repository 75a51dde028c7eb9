"""The one XML entry point refuses what is dangerous or broken, says where, and never raises (X2)."""

import time

import pytest

from mappers.cda import parse
from mappers.cda.parse import MAX_BYTES, read
from profiles.issue import Severity

ROOT = '<ClinicalDocument xmlns="urn:hl7-org:v3">{}</ClinicalDocument>'
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
ATTACKS = {
    "xxe-file": '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + ROOT.format("&e;"),
    "xxe-http": '<!DOCTYPE x [<!ENTITY e SYSTEM "http://192.0.2.1/e">]>' + ROOT.format("&e;"),
    "parameter-entity": '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://192.0.2.1/p"> %p;]>' + ROOT.format(""),
    "external-dtd": '<!DOCTYPE ClinicalDocument SYSTEM "http://192.0.2.1/c.dtd">' + ROOT.format(""),
    "billion-laughs": f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]>' + ROOT.format("&l11;"),
    "quadratic": f'<!DOCTYPE x [<!ENTITY a "{"a" * 50_000}">]>' + ROOT.format("&a;" * 5_000),
    "after-comment": "<?xml version='1.0'?> <!-- c --> <?pi x?> <!DOCTYPE x>" + ROOT.format(""),
    "lower-case": "<!doctype x>" + ROOT.format(""),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_document_type_declaration_is_refused_before_it_is_parsed(name, encoding, monkeypatch):
    """XXE, parameter entities, laughs and quadratic blow-up end at the door: the parser never sees them."""
    monkeypatch.setattr(parse, "_parsed", lambda _: pytest.fail("the parser was called"))
    started = time.perf_counter()
    root, issues = read(ATTACKS[name].encode(encoding))
    assert root is None
    assert (issues[0].severity, issues[0].code) == (Severity.FATAL, "security")
    assert time.perf_counter() - started < 0.1


def test_an_entity_without_declaration_is_refused():
    """An undeclared entity is broken XML, with its line and column."""
    root, issues = read(ROOT.format("\n\n&nbsp;").encode())
    assert root is None
    assert issues[0].location.startswith("line 3, column")


def test_xinclude_is_not_processed():
    """An XInclude element stays an element: nothing is fetched or inlined."""
    include = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="/etc/passwd" parse="text"/>'
    root, issues = read(ROOT.format(include).encode())
    assert not issues
    assert "".join(root.itertext()) == ""


def test_a_stylesheet_instruction_is_dropped(case):
    """The xml-stylesheet line of a document reaches nobody."""
    root, issues = read(case("clinic-vitals"))
    assert not issues
    assert list(root.itersiblings(preceding=True)) == []


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ("<a><b></a>", "line 1, column"),
        ("", ""),
        ("\n <a x=1/>", "line 2, column"),
        ("<a>\x01</a>", "line 1, column"),
    ],
)
def test_broken_xml_says_line_and_column(body, place):
    """Broken XML is one fatal Issue that names the place."""
    data = ROOT.format(body).encode() if body else b""
    root, issues = read(data)
    assert root is None
    assert issues[0].severity is Severity.FATAL
    assert issues[0].location.startswith(place)


def test_the_issue_of_broken_xml_holds_nothing_of_the_document():
    """No PHI in texts: the name in a broken tag is not repeated."""
    _, issues = read(ROOT.format("<family>Alvarez</Alvarez>").encode())
    assert "Alvarez" not in issues[0].text + issues[0].location


@pytest.mark.parametrize(
    "data",
    [
        b"<a/>",
        b'<ClinicalDocument xmlns="urn:other"/>',
        b"<ClinicalDocument/>",
        b"MSH|^~\\&|",
        b"{}",
        b"\x00\x01",
        b"<?xml version='1.0' encoding='UTF-7'?><a/>",
        b"<?xml version='1.0' encoding='ebcdic-cp-us'?><a/>",
        b"\xff\xfe\x00\x00<\x00\x00\x00",
        b"\xff\xfe\x00\xd8",
        b"<!--" * 1000,
        b"\xef\xbb\xbf",
    ],
)
def test_what_is_no_clinical_document_is_one_fatal_issue(data):
    """Another root, another namespace, another format, another encoding: refused whole, never an exception."""
    root, issues = read(data)
    assert root is None
    assert [issue.severity for issue in issues] == [Severity.FATAL]


def test_depth_and_size_are_limited():
    """256 levels and 20 MB are the end."""
    deep = ROOT.format("<a>" * 5_000 + "</a>" * 5_000).encode()
    assert read(deep)[0] is None
    root, issues = read(b" " * (MAX_BYTES + 1))
    assert root is None
    assert issues[0].code == "too-long"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"])
def test_encodings_are_read_by_mark_or_declaration(encoding):
    """UTF-8, UTF-16, Latin-1 and Windows-1252 give the same characters."""
    names = {"latin-1": "ISO-8859-1", "cp1252": "windows-1252"}
    declared = f'<?xml version="1.0" encoding="{names[encoding]}"?>' if encoding in names else ""
    root, issues = read((declared + ROOT.format("<title>Zoë</title>")).encode(encoding))
    assert not issues
    assert root[0].text == "Zoë"


def test_bytes_that_belie_their_declaration_are_refused():
    """Latin-1 bytes under a UTF-8 declaration name the byte, and are not guessed at."""
    _, issues = read(ROOT.format("<title>Zoë</title>").encode("latin-1"))
    assert "Byte 50" in issues[0].text
