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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Protocol

from mappers.codesystems import CodeMap, code_map
from mappers.conversion import Source
from mappers.overrides import over
from mappers.targets import Put, writer
from profiles.issue import Issue, Severity

Getter = Callable[[Any], Any]  # node -> value; falsy when absent
Converter = Callable[..., Any]  # (value, context, *extras) -> value, or None for nothing
Step = Callable[[Any, Any, dict[str, Any], "Context"], None]  # (value, node, resource, context)

ANY = "*"
EMPTY = ""


class Dialect(Protocol):
    """What a source language brings to the engine.

    It may also have `together(paths)`: one getter for the values at several paths (None for a constant row), where
    reading them at once is faster than one by one.
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
class Row:
    """One rule, as read from TOML; see the module's docstring."""

    path: str | None
    to: str | None = None
    datatype: str | None = None
    extras: tuple[str, ...] = ()
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    map: str | None = None
    value: Any = None
    extension: str | None = None
    left: str | None = None
    source: str = ""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "Row":
        """A row from its TOML table. Raises ValueError for an unknown key: the table is ours, so that is a bug."""
        unknown = raw.keys() - _ROW_KEYS.keys()
        if unknown or not ("from" in raw or "to" in raw):
            raise ValueError(f"mapping row {dict(raw)!r} is not understood")
        values = {_ROW_KEYS[key]: value for key, value in raw.items()}
        values["when"] = {path: tuple(held) for path, held in raw.get("when", {}).items()}
        values["extras"] = tuple(raw.get("with", ()))
        return cls(**{"path": None, **values})


_ROW_KEYS = {
    "from": "path",
    "to": "to",
    "datatype": "datatype",
    "with": "extras",
    "when": "when",
    "map": "map",
    "value": "value",
    "extension": "extension",
    "left": "left",
    "source": "source",
}


@dataclass(frozen=True, slots=True)
class Table:
    """Compiled rows. `reads` are the paths that reach a resource; `left` are those left on purpose, with the reason."""

    read: Callable[[Any], Iterable[Any]]  # node -> the value for each step
    steps: tuple[Step, ...]
    reads: frozenset[str]
    left: Mapping[str, str]
    appended: frozenset[str]  # paths of which every repetition is read

    def apply(self, node: Any, resource: dict[str, Any], context: Context) -> None:
        """Runs every row over a node, writing into `resource`."""
        for value, step in zip(self.read(node), self.steps):  # noqa: B905 - equal by construction, and hot
            if value:
                step(value, node, resource, context)


def load(package: str, name: str) -> dict[str, Any]:
    """A TOML file of a package, as plain data, with the user's rows laid over it (mappers/overrides.py).

    Raises FileNotFoundError or tomllib.TOMLDecodeError: a bug of ours.
    """
    ours = tomllib.loads(files(package).joinpath(name).read_text("utf-8"))
    return over(package.rpartition(".")[2], name.rpartition("/")[2], ours)


def compile_table(rows: Iterable[Mapping[str, Any]], dialect: Dialect, *, nested: bool = False) -> Table:
    """Compiles rows to closures. Raises ValueError or KeyError for a table that is wrong: a bug of ours.

    `nested` is for datatype tables: their rows do not set `context.path`, so that an Issue names the outer row's place.
    """
    parsed = [Row.of(raw) for raw in rows]
    active = [row for row in parsed if row.left is None]
    reads = {path for row in active for path in (row.path, *row.extras, *row.when) if path}
    left = {row.path: row.left for row in parsed if row.path and row.left is not None}
    appended = {row.path for row in active if row.path and row.to and row.to.endswith("[]")}
    groups = _groups(active)
    steps = tuple(_step(group, dialect, nested) for group in groups)
    read = _reader([group[0].path for group in groups], dialect)
    return Table(read, steps, frozenset(reads), left, frozenset(appended))


def _reader(paths: list[str | None], dialect: Dialect) -> Callable[[Any], Iterable[Any]]:
    together = getattr(dialect, "together", None)
    if together is not None:
        made: Callable[[Any], Iterable[Any]] = together(paths)
        return made
    getters = [dialect.first(path) if path else _always for path in paths]
    return lambda node: [get(node) for get in getters]


def as_converter(table: Table, opener: Callable[[Any], Any], *, needs: Getter | None = None) -> Converter:
    """A table as a datatype: `opener` turns the value into a node; an empty result is nothing.

    `needs`: where this gets nothing from the node, nothing is made of it at all.
    """
    apply = table.apply

    def convert(value: Any, context: Context) -> dict[str, Any] | None:
        node = opener(value)
        if needs is not None and not needs(node):
            return None
        result: dict[str, Any] = {}
        apply(node, result, context)
        return result or None

    return convert


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Neighbouring rows that read the same path and differ in the value of one condition: they become one look-up."""
    groups: list[list[Row]] = []
    for row in rows:
        if groups and _switch_key(row) is not None and _switch_key(row) == _switch_key(groups[-1][0]):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _switch_key(row: Row) -> tuple[str | None, str] | None:
    return (row.path, next(iter(row.when))) if len(row.when) == 1 else None


def _step(group: list[Row], dialect: Dialect, nested: bool) -> Step:
    """One row, or one look-up over sibling rows."""
    if _switch_key(group[0]) is not None:
        return _switch(group, dialect, nested)
    return _conditional(group[0], dialect, nested)


def _always(_node: Any) -> bool:
    return True


def _switch(group: list[Row], dialect: Dialect, nested: bool) -> Step:
    key = dialect.first(next(iter(group[0].when)))
    cases: dict[str, tuple[Step, ...]] = {}
    for row in group:
        step = _write(row, dialect, nested)
        for held in next(iter(row.when.values())):
            cases[held] = (*cases.get(held, ()), step)
    otherwise, empty = cases.get(ANY, ()), cases.get(EMPTY, ())

    def run(value: Any, node: Any, resource: dict[str, Any], context: Context) -> None:
        held = key(node)
        for step in cases.get(held, otherwise) if held else empty:
            step(value, node, resource, context)

    return run


def _conditional(row: Row, dialect: Dialect, nested: bool) -> Step:
    write = _write(row, dialect, nested)
    if not row.when:
        return write
    conditions = tuple((dialect.first(path), frozenset(held)) for path, held in row.when.items())

    def run(value: Any, node: Any, resource: dict[str, Any], context: Context) -> None:
        if all((get(node) or EMPTY) in held for get, held in conditions):
            write(value, node, resource, context)

    return run


def _write(row: Row, dialect: Dialect, nested: bool) -> Step:
    """The step that converts and writes, without the condition."""
    put = writer(row.to or "", row.extension)
    path = "" if nested else row.path or ""
    if row.value is not None:
        return _constant(row.value, put)
    convert = _converter(row, dialect)
    if row.to and row.to.endswith("[]") and row.path:
        return _appending(path, dialect.each(row.path), _bound(row, dialect, convert), put)
    if row.extras:
        return _widened(path, [dialect.first(extra) for extra in row.extras], convert, put)

    def run(value: Any, _node: Any, resource: dict[str, Any], context: Context) -> None:
        if path:
            context.path = path
        converted = convert(value, context)
        if converted is not None:
            put(resource, converted)
        elif path:
            context.lose(path)

    return run


def _constant(constant: Any, put: Put) -> Step:
    def run(_value: Any, _node: Any, resource: dict[str, Any], _context: Context) -> None:
        put(resource, constant)

    return run


def _bound(row: Row, dialect: Dialect, convert: Converter) -> Callable[[Any, Context, Any], Any]:
    """The converter as `(value, context, node)`, so that repetitions share the row's extras."""
    extras = [dialect.first(extra) for extra in row.extras]
    if not extras:
        return lambda value, context, _node: convert(value, context)
    return lambda value, context, node: convert(value, context, *[extra(node) for extra in extras])


def _appending(
    path: str, each: Callable[[Any], Iterable[Any]], convert: Callable[[Any, Context, Any], Any], put: Put
) -> Step:
    def run(_value: Any, node: Any, resource: dict[str, Any], context: Context) -> None:
        if path:
            context.path = path
        for value in each(node):
            converted = convert(value, context, node)
            if converted is not None:
                put(resource, converted)
            elif path:
                context.lose(path)

    return run


def _widened(path: str, extras: list[Getter], convert: Converter, put: Put) -> Step:
    def run(value: Any, node: Any, resource: dict[str, Any], context: Context) -> None:
        if path:
            context.path = path
        converted = convert(value, context, *[extra(node) for extra in extras])
        if converted is not None:
            put(resource, converted)
        elif path:
            context.lose(path)

    return run


def _converter(row: Row, dialect: Dialect) -> Converter:
    convert = dialect.converters[row.datatype] if row.datatype else _as_it_is
    return _translated(convert, code_map(row.map)) if row.map else convert


def _as_it_is(value: Any, _context: Context) -> Any:
    return value


def _translated(convert: Converter, codes: CodeMap) -> Converter:
    translate, name = codes.targets.get, codes.name

    def run(value: Any, context: Context, *extras: Any) -> str | None:
        target = translate(value)
        if target is not None:
            return target
        code = convert(value, context, *extras)
        if code is None:
            return None
        target = translate(code)
        if target is None:
            context.warn("code-invalid", f"The code is not in the concept map {name}. Add it there, or correct it.")
        return target

    return run
