"""The guide's code lists as data files."""

import json
from pathlib import Path

from sandbox.codes import Codes


def test_concepts_and_roots(tmp_path: Path) -> None:
    """A list has single codes, and roots with everything beneath them."""
    include = [{"concept": [{"code": "E11.9"}]}, {"filter": [{"property": "concept", "op": "is-a", "value": "G30"}]}]
    value_set = {"resourceType": "ValueSet", "url": "http://x/vs", "compose": {"include": include}}
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "one.json").write_text(json.dumps(value_set))
    codes = Codes(tmp_path)
    found = {code: codes.contains("http://x/vs", code) for code in ("E11.9", "E11.91", "G30", "G30.9", "G3")}
    assert found == {"E11.9": True, "E11.91": False, "G30": True, "G30.9": True, "G3": False}


def test_unknown_list(tmp_path: Path) -> None:
    """A list that is not there is unknown, neither true nor false."""
    codes = Codes(tmp_path)
    assert codes.contains("http://x/vs", "A") is None
    assert codes.codes_of("http://x/cs") is None
    assert codes.display("http://x/cs", "A") is None
