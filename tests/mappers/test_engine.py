"""The mapping engine, on a dialect of plain dicts: what each key of a row means."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from mappers.conversion import Source
from mappers.engine import Context, as_converter, compile_table


def number(value: str, context: Context) -> int | None:
    """A converter that reports what is no number."""
    if value.isdigit():
        return int(value)
    context.warn("value", "Not a number. Send one.")
    return None


def joined(value: str, _context: Context, other: str) -> str:
    """A converter with an extra value."""
    return f"{value}+{other}"


def choose(value: str, _context: Context) -> tuple[str, Any]:
    """A converter for a choice of types."""
    return ("Integer", int(value)) if value.isdigit() else ("String", value)


class Dicts:
    """Nodes are dicts of lists; a path is a key."""

    converters: dict[str, Callable[..., Any]] = {"number": number, "joined": joined, "choose": choose}

    def first(self, path: str) -> Callable[[Any], Any]:
        return lambda node: next(iter(node.get(path, ())), "")

    def each(self, path: str) -> Callable[[Any], Iterable[Any]]:
        return lambda node: node.get(path, ())


def run(rows: list[dict[str, Any]], **node: list[str]) -> tuple[dict[str, Any], Context]:
    """Rows over one node: the resource and the context."""
    context, resource = Context(Source("0" * 64, "2026-09-10T12:00:00Z")), {}
    compile_table(rows, Dicts()).apply(node, resource, context)
    return resource, context


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("status", {"status": "x"}),
        ("code.text", {"code": {"text": "x"}}),
        ("name[0].family", {"name": [{"family": "x"}]}),
        ("name[0].given[]", {"name": [{"given": ["x", "y"]}]}),
        ("identifier[]", {"identifier": ["x", "y"]}),
    ],
)
def test_targets(to: str, expected: dict[str, Any]) -> None:
    """A path, a first element, or a list that each value is appended to."""
    assert run([{"from": "a", "to": to}], a=["x", "y"])[0] == expected


def test_a_row_without_a_value_writes_nothing() -> None:
    """Absent is absent: no empty element, no issue."""
    resource, context = run([{"from": "a", "to": "status"}])
    assert (resource, context.issues, context.lost) == ({}, [], [])


def test_a_choice_writes_the_suffix_that_its_converter_gives() -> None:
    """`value[x]` becomes valueInteger or valueString."""
    row = {"from": "a", "to": "value[x]", "datatype": "choose"}
    assert run([row], a=["7"])[0] == {"valueInteger": 7}
    assert run([row], a=["seven"])[0] == {"valueString": "seven"}


def test_an_extension_row_appends_an_extension() -> None:
    """`extension` names the URL, `to` the value."""
    row = {"from": "a", "to": "valueCode", "extension": "http://example.org/x"}
    assert run([row, row], a=["x"])[0] == {"extension": [{"url": "http://example.org/x", "valueCode": "x"}] * 2}


def test_further_paths_reach_the_converter() -> None:
    """`with` gives the converter the values beside it, for one target and for lists."""
    assert run([{"from": "a", "with": ["b"], "to": "s", "datatype": "joined"}], a=["1"], b=["2"])[0] == {"s": "1+2"}
    rows = [{"from": "a", "with": ["b"], "to": "s[]", "datatype": "joined"}]
    assert run(rows, a=["1", "3"], b=["2"])[0] == {"s": ["1+2", "3+2"]}


SWITCH = [
    {"from": "v", "when": {"t": ["A", "B"]}, "to": "ab"},
    {"from": "v", "when": {"t": [""]}, "to": "none"},
    {"from": "v", "when": {"t": ["*"]}, "to": "other"},
]


@pytest.mark.parametrize(("kind", "expected"), [(["A"], "ab"), (["B"], "ab"), ([], "none"), (["C"], "other")])
def test_sibling_rows_are_a_look_up(kind: list[str], expected: str) -> None:
    """One condition, several rows: a value, empty, or any other."""
    assert run(SWITCH, v=["x"], t=kind)[0] == {expected: "x"}


def test_all_conditions_must_hold() -> None:
    """`when` with two paths is a conjunction."""
    row = {"from": "v", "when": {"t": ["A"], "u": ["1"]}, "to": "s"}
    assert run([row], v=["x"], t=["A"], u=["1"])[0] == {"s": "x"}
    assert run([row], v=["x"], t=["A"], u=["2"])[0] == {}


def test_a_constant_is_written_with_or_without_a_path() -> None:
    """`value` stands by itself, or wherever `from` has a value."""
    assert run([{"to": "s", "value": "final"}])[0] == {"s": "final"}
    assert run([{"from": "a", "to": "s", "value": "final"}])[0] == {}


def test_an_unknown_code_is_a_warning_and_nothing_is_written() -> None:
    """`map` never guesses."""
    row = {"from": "a", "to": "gender", "map": "v2-0001"}
    assert run([row], a=["F"])[0] == {"gender": "female"}
    resource, context = run([row], a=["Q"])
    assert (resource, [issue.location for issue in context.issues], context.lost) == ({}, ["a"], ["a"])


def test_what_can_not_be_read_is_lost_and_said() -> None:
    """A converter that reports and gives None leaves the value in the account."""
    resource, context = run([{"from": "a", "to": "n", "datatype": "number"}], a=["x"])
    assert (resource, context.lost, context.issues[0].location) == ({}, ["a"], "a")


def test_a_table_tells_what_it_reads_and_leaves() -> None:
    """The account is made from this."""
    rows = [
        {"from": "a", "with": ["b"], "when": {"c": ["1"]}, "to": "s[]", "datatype": "joined"},
        {"from": "d", "left": "why"},
    ]
    table = compile_table(rows, Dicts())
    assert (table.reads, dict(table.left), table.appended) == ({"a", "b", "c"}, {"d": "why"}, {"a"})


def test_a_nested_table_reports_at_the_outer_row() -> None:
    """An Issue inside a datatype names the field that holds it."""
    nested = as_converter(
        compile_table([{"from": "n", "to": "n", "datatype": "number"}], Dicts(), nested=True), lambda v: {"n": [v]}
    )

    class Nesting(Dicts):
        converters = {**Dicts.converters, "inner": nested}

    context: Context = Context(Source("0" * 64, "2026-09-10T12:00:00Z"))
    compile_table([{"from": "a", "to": "x", "datatype": "inner"}], Nesting()).apply({"a": ["?"]}, {}, context)
    assert [issue.location for issue in context.issues] == ["a"]


@pytest.mark.parametrize("row", [{"from": "a", "tow": "x"}, {"datatype": "number"}, {}])
def test_a_wrong_row_is_refused_when_compiled(row: dict[str, Any]) -> None:
    """A slip in a table shows at once, not at the first message."""
    with pytest.raises(ValueError, match="is not understood"):
        compile_table([row], Dicts())


def test_an_unknown_converter_is_refused_when_compiled() -> None:
    """So does a converter that does not exist."""
    with pytest.raises(KeyError):
        compile_table([{"from": "a", "to": "b", "datatype": "nope"}], Dicts())
