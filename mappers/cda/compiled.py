"""Mapping tables compiled to one pass over an element's children.

A row's `from` is a path (mappers/cda/paths.py). All rows of a table are merged into one tree of look-ups by child name,
so that each child of a statement is touched once, whatever the number of rows; what no row reaches falls out of the
same pass and is the loss account. Relations (`entryRelationship[@typeCode='X']/observation[code/@code='Y']/..`) are
looked up by the code of the inner statement, else by the type of the relation, else by its name.

Beside the rows a table has `keep`: paths of children that a reader handles itself. `apply` gives them back by path.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mappers.cda.context import Document, Resource
from mappers.cda.node import Node
from mappers.cda.paths import each, first, qualified, steps
from mappers.cda.tablecode import UNSAID, Code, handlers, own
from mappers.codesystems import code_map
from mappers.engine import ANY, EMPTY, Row
from mappers.targets import writer

Kept = dict[str, list[Node]]
Late = Callable[[Any, Resource, Document], None]
Converter = Callable[..., Any]  # (element or attribute value, document, *further values) -> value or None

_RELATION = re.compile(
    r"entryRelationship(?:\[@typeCode='(?P<type>\w+)'\])?"
    r"(?:/(?P<name>\w+)(?:\[code/@code='(?P<code>[^']+)'\])?(?P<rest>/.+)?)?"
)
_NAME = re.compile(r"[\w:]+")
_GUARDED = re.compile(r"([\w:]+)\[@(\w+)(?:='([^']*)')?\]")


@dataclass(frozen=True, slots=True)
class Step:
    """One row: convert (None: as it is) and write. `needs`: the attribute that is read, or that must be there."""

    needs: str | None
    convert: Converter | None
    to: str
    extension: str | None = None


class Branch:
    """What is done with one element: steps on itself and on its attributes, and its children's branches."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.attributes: list[Step] = []
        self.children: dict[str, Branch] = {}
        self.guarded: dict[str, list[tuple[str, str | None, Branch]]] = {}
        self.relations: dict[tuple[str, str, str], Branch] = {}
        self.late: list[Late] = []  # rows of a statement that are read by path
        self.keep: str | None = None
        self.left: str | None = None
        self.once = False
        self.whole = True  # id, code and statusCode count in the account as well

    def at(self, path: str) -> "Branch":
        """The branch at a path below this one. Raises ValueError for a path that is not understood."""
        if (match := _RELATION.fullmatch(path)) is not None:
            key = (match["code"] or "", match["type"] or "", match["name"] or "")
            below = self.relations.setdefault(key, Branch())
            below.whole = False  # of a statement inside, its id, code and status only say what it is
            return below.at(match["rest"][1:]) if match["rest"] else below
        name, *rest = steps(path)
        below = self._child(name)
        return below.at("/".join(rest)) if rest else below

    def _child(self, name: str) -> "Branch":
        if name == ".":
            return self
        if _NAME.fullmatch(name):
            return self._kin(self.children.setdefault(qualified(name), Branch()))
        match = _GUARDED.fullmatch(name)
        if match is None or match[3] is None:
            raise ValueError(f"the path step {name!r} is not understood here")
        known = self.guarded.setdefault(qualified(match[1]), [])
        found = next((one for attribute, value, one in known if (attribute, value) == (match[2], match[3])), None)
        if found is None:
            known.append((match[2], match[3], found := Branch()))
        return self._kin(found)

    def _kin(self, below: "Branch") -> "Branch":
        below.whole = below.whole and self.whole
        return below


class Table:
    """Compiled rows; see the module's docstring."""

    __slots__ = ("_find", "_rest")

    def __init__(self, branch: Branch) -> None:
        rest = Code("node, resource, document")
        for step in branch.attributes:
            rest.attribute(step, "node")
        for run in branch.late:
            rest.add(1, f"{rest.bind(run)}(node, resource, document)")
        self._rest = rest.function() if branch.attributes or branch.late else None
        self._find: Callable[[str], Any] = (dict.fromkeys(map(qualified, UNSAID), False) | handlers(branch)).get

    def apply(self, node: Node, resource: Resource, document: Document) -> Kept:
        """Runs every row over a node, writing into `resource`; gives the kept children and books the unread ones."""
        kept: Kept = {}
        find = self._find
        document.keyed, document.keys = node, []
        for child in node[:]:
            handle = find(child.tag)
            if handle:
                document.node = child
                handle(child, resource, document, kept)
            elif handle is None:
                document.unread(child)
        document.node = node
        if self._rest is not None:
            self._rest(node, resource, document)
        return kept


def compile_table(
    rows: Iterable[Mapping[str, Any]], converters: Mapping[str, Converter], *, keep: Iterable[str] = ()
) -> Table:
    """Compiles rows. Raises ValueError or KeyError for a table that is wrong: a bug of ours."""
    root = Branch()
    for row in map(Row.of, rows):
        _add(root, row, converters)
    for path in keep:
        root.at(path).keep = path
    return Table(root)


def _add(root: Branch, row: Row, converters: Mapping[str, Converter]) -> None:
    path = row.path or "."
    if row.when or row.extras or row.map or row.value is not None:
        _late(root, row, converters)
        return
    if row.left is not None:
        root.at(path).left = row.left
        return
    convert = converters[row.datatype] if row.datatype else None
    to, above, last = row.to or "", *path.rpartition("/")[::2]
    if last.startswith("@"):
        (root.at(above) if above else root).attributes.append(Step(last[1:], convert, to, row.extension))
        return
    guard = _GUARDED.fullmatch(last)
    if guard is not None and guard[3] is None:  # `effectiveTime[@value]`: the element, when it has the attribute
        branch = root.at(path.removesuffix(last) + guard[1])
        branch.steps.append(Step(guard[2], convert, to, row.extension))
        return
    branch = root.at(path)
    branch.steps.append(Step(None, convert, to, row.extension))
    branch.once = branch.once or not to.endswith("[]")


def _late(root: Branch, row: Row, converters: Mapping[str, Converter]) -> None:
    """A row with a condition, further paths, a map or a constant: read by path, after the children."""
    if row.path and not row.path.startswith("@"):
        root.at(row.path.rpartition("/@")[0] or row.path)  # a branch of its own: the child is not unread
    conditions = tuple((first(path), frozenset(held)) for path, held in row.when.items())
    extras = tuple(first(path) for path in row.extras)
    values = each(row.path) if row.path else _always
    convert = _conversion(row, converters)
    put, many = _writer(row), bool(row.to and row.to.endswith("[]"))

    def run(node: Node, resource: Resource, document: Document) -> None:
        if not all(_holds(get(node), held) for get, held in conditions):
            return
        for value in values(node)[: None if many else 1]:
            made = convert(value, document, *(get(node) for get in extras))
            if made is not None:
                put(resource, made)

    root.late.append(run)


def _writer(row: Row) -> Callable[[Resource, Any], None]:
    """Writes a value into a resource; what is written into is the resource's own."""
    put = writer(row.to or "", row.extension)
    if row.extension is not None or "." not in (row.to or ""):
        return put
    name = (row.to or "").partition(".")[0].partition("[")[0]

    def run(resource: Resource, value: Any) -> None:
        own(resource, name)
        put(resource, value)

    return run


def _always(_node: Any) -> list[Any]:
    return [True]


def _holds(value: Any, held: frozenset[str]) -> bool:
    return (value or EMPTY) in held or (ANY in held and bool(value))


def _conversion(row: Row, converters: Mapping[str, Converter]) -> Converter:
    convert = converters[row.datatype] if row.datatype else _as_it_is
    if row.value is not None:
        return lambda _value, _document, *_extras: row.value
    if row.map is None:
        return convert
    targets, name = code_map(row.map).targets, row.map

    def run(value: Any, document: Document, *extras: Any) -> Any:
        code = convert(value, document, *extras)
        target = targets.get(code) if code is not None else None
        if target is None:
            document.warn("code-invalid", f"The code is not in the concept map {name}. Add it there, or correct it.")
        return target

    return run


def _as_it_is(value: Any, _document: Document) -> Any:
    return value
