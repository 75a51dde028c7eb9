"""Applies mapping tables to a parsed source. This is the one engine; HL7 v2, CDA and FHIR are dialects of it.

How a source plugs in:

1. Parse the input into nodes of any kind: a list of fields (HL7 v2), an element (CDA), a dict (FHIR).
2. Write a `Dialect`: `first(path)` and `each(path)` turn a row's `from` into a getter, once, at compile time;
   `converters` names the functions that a row's `datatype` may call: `(value, context, *extras) -> value or None`.
3. Keep a `Context` (or a subclass) per message: converters report through it; it knows where we are.
4. `table = compile_table(rows, dialect)`, once; then `table.apply(node, resource, context)` for each node.
   `as_converter(table, opener)` makes a table itself a datatype (XPN to HumanName, say).

A row (TOML, one rule a row):

    from     where to read, in the dialect's own words; left out for a constant
    with     further paths; their values are passed to the converter after the context
    when     path -> the values it may hold; all must hold; "" is empty, "*" any that no sibling row names
    to       where to write: `status`, `code.text`, `name[0].family` (first element), `identifier[]` (append each
             value of `from`), `value[x]` (the converter gives a pair: suffix and value)
    extension  URL; `to` is then written into that extension, appended to `extension`
    datatype converter's name; without it the value is taken as it is
    map      ConceptMap's name: the code is translated; an unknown code is a warning and nothing is written
    value    a constant, written if `from` (if any) has a value and `when` holds
    left     why this field is left out on purpose: nothing is written, the account says so
    source   guide, version and place

Nothing here raises on input: a converter that can not make sense of a value reports an Issue and returns None; the
engine then notes the place in `context.lost`, from which, with `table.reads` and `table.left`, a source makes its
loss account.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

from mappers.conversion import Source
from mappers.overrides import over
from mappers.rowcode import generate
from mappers.rows import ANY, EMPTY, Row
from profiles.issue import Issue, Severity

__all__ = [
    "ANY",
    "EMPTY",
    "Context",
    "Converter",
    "Dialect",
    "Getter",
    "Row",
    "Table",
    "as_converter",
    "compile_table",
    "load",
]

Getter = Callable[[Any], Any]  # node -> value; falsy when absent
Converter = Callable[..., Any]  # (value, context, *extras) -> value, or None for nothing
Apply = Callable[[Any, dict[str, Any], "Context"], None]  # (node, resource, context)


class Dialect(Protocol):
    """What a source language brings to the engine.

    It may also have `expression(path)`: Python for reading `node` there at once (or None), which saves the call of a
    getter; `repeats(path)`: Python that is false where the value at the path is the only one (None: it always is); and
    `opening`: lines of Python that stand before all others, for names that expressions use.
    """

    converters: Mapping[str, Converter]

    def first(self, path: str) -> Getter:
        """A getter of the (first) value at a path."""

    def each(self, path: str) -> Callable[[Any], Iterable[Any]]:
        """A getter of all the values at a path."""


class Context:
    """One message's conversion: where we are and what was found. Subclass it to add what converters need.

    `path` is the `from` of the row that runs; `where` turns it into a location for an Issue.
    """

    __slots__ = ("source", "issues", "lost", "path")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.issues: list[Issue] = []
        self.lost: list[str] = []  # locations of values of which nothing could be made
        self.path = ""

    def where(self, path: str) -> str:
        """The location of `path` in the input, as an Issue names it."""
        return path

    def report(self, severity: Severity, code: str, text: str, *, path: str | None = None) -> None:
        """Adds an Issue at the row that runs, or at `path`. `code` is a FHIR R4 IssueType."""
        self.issues.append(Issue(severity, code, self.where(self.path if path is None else path), text))

    def lose(self, path: str) -> None:
        """Notes that nothing came of the value at `path`; the account lists it."""
        self.lost.append(self.where(path))

    def warn(self, code: str, text: str, *, path: str | None = None) -> None:
        """Adds a warning."""
        self.report(Severity.WARNING, code, text, path=path)

    def error(self, code: str, text: str, *, path: str | None = None) -> None:
        """Adds an error: the input is refused, or the row counts as bad."""
        self.report(Severity.ERROR, code, text, path=path)


@dataclass(frozen=True, slots=True)
class Table:
    """Compiled rows. `reads` are the paths that reach a resource; `left` are those left on purpose, with the reason."""

    run: Apply
    reads: frozenset[str]
    left: Mapping[str, str]
    appended: frozenset[str]  # paths of which every repetition is read

    def apply(self, node: Any, resource: dict[str, Any], context: Context) -> None:
        """Runs every row over a node, writing into `resource`."""
        self.run(node, resource, context)


def load(package: str, name: str) -> dict[str, Any]:
    """A TOML file of a package, as plain data, with the user's rows laid over it (mappers/overrides.py).

    Raises FileNotFoundError or tomllib.TOMLDecodeError: a bug of ours.
    """
    ours = tomllib.loads(files(package).joinpath(name).read_text("utf-8"))
    return over(package.rpartition(".")[2], name.rpartition("/")[2], ours)


def compile_table(rows: Iterable[Mapping[str, Any]], dialect: Dialect, *, nested: bool = False) -> Table:
    """Compiles rows to one function. Raises ValueError or KeyError for a table that is wrong: a bug of ours.

    `nested` is for datatype tables: their rows do not set `context.path`, so that an Issue names the outer row's place.
    """
    parsed = [Row.of(raw) for raw in rows]
    active = [row for row in parsed if row.left is None]
    reads = {path for row in active for path in (row.path, *row.extras, *row.when) if path}
    left = {row.path: row.left for row in parsed if row.path and row.left is not None}
    appended = {row.path for row in active if row.path and row.to and row.to.endswith("[]")}
    return Table(generate(active, dialect, nested=nested), frozenset(reads), left, frozenset(appended))


def as_converter(table: Table, opener: Callable[[Any], Any], *, needs: Getter | None = None) -> Converter:
    """A table as a datatype: `opener` turns the value into a node; an empty result is nothing.

    `needs`: where this gets nothing from the node, nothing is made of it at all.
    """
    run = table.run

    def convert(value: Any, context: Context) -> dict[str, Any] | None:
        node = opener(value)
        if needs is not None and not needs(node):
            return None
        result: dict[str, Any] = {}
        run(node, result, context)
        return result or None

    return convert
