"""The rows of a mapping table as one Python function, written once at start: no row costs a call of its own.

What the function does is what the rows say, in their order: read, convert, write; a value of which nothing came is
noted with the context. Neighbouring rows that read the same path and differ in the value of one condition are one
look-up. All names in it are bound by us; of a table only paths and targets get into the text, as literals.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mappers.codesystems import CodeMap, code_map
from mappers.rows import ANY, EMPTY, Row
from mappers.targets import writer

if TYPE_CHECKING:
    from mappers.engine import Context, Dialect

_HEAD = "def apply(node, resource, context):"


def generate(rows: Sequence[Row], dialect: "Dialect", *, nested: bool) -> Callable[[Any, dict[str, Any], Any], None]:
    """The function `(node, resource, context)` for active rows. Raises KeyError or ValueError for a wrong one."""
    code = _Code(dialect, nested)
    for group in _groups(rows):
        code.group(group)
    return code.function()


def _groups(rows: Iterable[Row]) -> list[list[Row]]:
    groups: list[list[Row]] = []
    for row in rows:
        if groups and _switch_key(row) is not None and _switch_key(row) == _switch_key(groups[-1][0]):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _switch_key(row: Row) -> tuple[str | None, str] | None:
    return (row.path, next(iter(row.when))) if len(row.when) == 1 else None


class _Code:
    """The lines of one function, and what the names in them stand for."""

    def __init__(self, dialect: "Dialect", nested: bool) -> None:
        self.dialect = dialect
        self.nested = nested
        self.lines = [_HEAD]
        self.names: dict[str, Any] = {}
        self.expression = getattr(dialect, "expression", lambda _path: None)
        self.repeats = getattr(dialect, "repeats", lambda _path: "True")
        self._add(1, *getattr(dialect, "opening", ()))

    def function(self) -> Callable[[Any, dict[str, Any], Any], None]:
        """The finished function."""
        source = "\n".join([*self.lines, "    return"])
        exec(compile(source, "<mapping table>", "exec"), self.names)  # noqa: S102 - our own text, see the module
        made: Callable[[Any, dict[str, Any], Any], None] = self.names["apply"]
        return made

    def group(self, rows: Sequence[Row]) -> None:
        """One row, or one look-up over sibling rows."""
        path, depth = rows[0].path, 1
        if path:
            self._add(1, f"value = {self._read(path)}", "if value:")
            depth = 2
        if _switch_key(rows[0]) is not None:
            self._switch(rows, depth)
            return
        row = rows[0]
        if row.when:
            tests = (f"({self._read(key)} or '') in {self._bind(frozenset(held))}" for key, held in row.when.items())
            self._add(depth, f"if {' and '.join(tests)}:")
            depth += 1
        self._write(row, depth)

    def _switch(self, rows: Sequence[Row], depth: int) -> None:
        cases: dict[str, tuple[int, ...]] = {}
        for place, row in enumerate(rows):
            for held in next(iter(row.when.values())):
                cases[held] = (*cases.get(held, ()), place)
        otherwise, empty = cases.pop(ANY, ()), cases.pop(EMPTY, ())
        self._add(depth, f"held = {self._read(next(iter(rows[0].when)))}", "if not held:")
        self._all([rows[place] for place in empty], depth + 1)
        for wanted in dict.fromkeys(cases.values()):
            values = frozenset(held for held, places in cases.items() if places == wanted)
            self._add(depth, f"elif held in {self._bind(values)}:")
            self._all([rows[place] for place in wanted], depth + 1)
        self._add(depth, "else:")
        self._all([rows[place] for place in otherwise], depth + 1)

    def _all(self, rows: Sequence[Row], depth: int) -> None:
        for row in rows:
            self._write(row, depth)
        if not rows:
            self._add(depth, "pass")

    def _write(self, row: Row, depth: int) -> None:
        """Convert and write, without the condition."""
        if row.value is not None:
            self._put(row, self._bind(row.value), depth)
            return
        told = row.path if not self.nested else None
        if told:
            self._add(depth, f"context.path = {told!r}")
        value = "value" if row.path else "True"
        if row.path and (row.to or "").endswith("[]") and self.repeats(row.path):
            each = f"{self._bind(self.dialect.each(row.path))}(node)"
            self._add(depth, f"for value in {each} if {self.repeats(row.path)} else (value,):")
            depth += 1
        self._make(row, value, depth)
        self._add(depth, "if made is not None:")
        self._put(row, "made", depth + 1)
        if told:
            self._add(depth, "else:", f"    context.lose({told!r})")

    def _make(self, row: Row, value: str, depth: int) -> None:
        """`made` is what the row's converter makes of the value, or its map; a code as it is written comes first."""
        extras = "".join(f", {self._read(extra)}" for extra in row.extras)
        convert = self.dialect.converters[row.datatype] if row.datatype else None
        made = value if convert is None else f"{self._bind(convert)}({value}, context{extras})"
        if row.map:
            codes = code_map(row.map)
            self._add(depth, f"made = {self._bind(codes.targets.get)}({value})", "if made is None:")
            self._add(depth + 1, f"made = {self._bind(_translated(codes))}({made}, context)")
        else:
            self._add(depth, f"made = {made}")

    def _put(self, row: Row, made: str, depth: int) -> None:
        to = row.to or ""
        if row.extension is not None or "." in to:
            self._add(depth, f"{self._bind(writer(to, row.extension))}(resource, {made})")
        elif to.endswith("[x]"):
            self._add(depth, f"resource[{to[:-3]!r} + {made}[0]] = {made}[1]")
        elif to.endswith("[]"):
            key = to[:-2]
            self._add(depth, f"into = resource.get({key!r})", "if into is None:", f"    into = resource[{key!r}] = []")
            self._add(depth, f"if {made}.__class__ is list:", f"    into.extend({made})")
            self._add(depth, "else:", f"    into.append({made})")
        else:
            self._add(depth, f"resource[{to!r}] = {made}")

    def _read(self, path: str) -> str:
        return self.expression(path) or f"{self._bind(self.dialect.first(path))}(node)"

    def _bind(self, value: Any) -> str:
        name = f"_{len(self.names)}"
        self.names[name] = value
        return name

    def _add(self, depth: int, *lines: str) -> None:
        self.lines += ["    " * depth + line for line in lines]


def _translated(codes: CodeMap) -> Callable[[str | None, "Context"], str | None]:
    """What a code that is not in the map as it is written becomes, once it is read."""
    translate, name = codes.targets.get, codes.name

    def run(code: str | None, context: "Context") -> str | None:
        if code is None:
            return None
        target = translate(code)
        if target is None:
            context.warn("code-invalid", f"The code is not in the concept map {name}. Add it there, or correct it.")
        return target

    return run
