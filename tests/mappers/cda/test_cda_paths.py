"""The small path language means what XPath means."""

import re
from pathlib import Path

import pytest
from lxml import etree

from mappers import engine
from mappers.cda import paths
from mappers.cda.parse import read

FOLDER = Path(engine.__file__).parent / "cda" / "tables"
TABLES = sorted(path.stem for path in FOLDER.glob("*.toml") if "[[row]]" in path.read_text("utf-8"))
NAMES = {"c": "urn:hl7-org:v3", "sdtc": "urn:hl7-org:sdtc", "xsi": "http://www.w3.org/2001/XMLSchema-instance"}


def _xpath(path: str) -> str:
    """The same path with prefixes, for lxml."""
    bare = re.compile(r"(?<![\w@:'-])(?<!')([A-Za-z]\w*)(?![\w:('-])(?=[/\[\]]|$)")
    return bare.sub(r"c:\1", path)


def _all_paths() -> list[str]:
    rows = [row for name in TABLES for row in engine.load("mappers.cda", f"tables/{name}.toml")["row"]]
    return sorted({path for row in rows for path in (row.get("from"), *row.get("when", ())) if path})


@pytest.mark.parametrize("path", _all_paths())
@pytest.mark.parametrize("name", ["clinic-vitals", "care-summary"])
def test_every_path_of_the_tables_finds_what_lxml_finds(path, name, case):
    """Each `from` of each table, at every element of the cases, gives lxml's own answer."""
    root, _ = read(case(name))
    expected = etree.XPath(_xpath(path), namespaces=NAMES)
    get, first = paths.each(path), paths.first(path)
    for node in root.iter(etree.Element):
        found = expected(node)
        assert get(node) == found
        assert first(node) == (found[0] if found else None)


def test_a_negated_predicate_is_understood(case):
    """`not(@a='v')` is XPath's."""
    root, _ = read(case("clinic-vitals"))
    path = "telecom[not(@use='MC')]"
    role = paths.first("recordTarget/patientRole")(root)
    assert paths.each(path)(role) == etree.XPath("c:telecom[not(@use='MC')]", namespaces=NAMES)(role)


@pytest.mark.parametrize("path", ["a//b", "a[1]", "../a", "a[b='c' or d]", "a|b"])
def test_what_is_not_understood_is_refused_at_once(path):
    """A table with a wider expression is a bug of ours and fails when it is compiled."""
    with pytest.raises(ValueError, match="not understood"):
        paths.each(path)


def test_the_location_is_an_xpath_to_the_same_element(case):
    """`location` of each element selects that element again."""
    root, _ = read(case("care-summary"))
    for node in root.iter("{urn:hl7-org:v3}*"):
        steps = "/".join(f"c:{step}" for step in paths.location(node).split("/")[1:])
        assert root.getroottree().xpath(f"/{steps}", namespaces=NAMES) == [node]


@pytest.mark.parametrize("large", [False, True])
def test_places_inside_an_entry_are_those_of_the_document(case, large):
    """Counted by lxml or numbered by us, from the root or from the entry: one place for one element."""
    root, _ = read(case("care-summary"))
    places = paths.Places(root, large=large)
    for entry in root.iter("{urn:hl7-org:v3}entry"):
        places.enter(entry, paths.location(entry))
        assert [places.of(node) for node in entry.iter()] == [paths.location(node) for node in entry.iter()]
        assert places.of(root[0]) == paths.location(root[0])
    places.leave()
    assert [places.of(node) for node in root.iter()] == [paths.location(node) for node in root.iter()]
