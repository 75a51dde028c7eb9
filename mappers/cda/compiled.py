"""Mapping tables compiled to one pass over an element's children.

A row's `from` is a path (mappers/cda/paths.py). All rows of a table are merged into one tree of look-ups by child name,
so that each child of a statement is touched once, whatever the number of rows; what no row reaches falls out of the
same pass and is the loss account. Relations (`entryRelationship[@typeCode='X']/observation[code/@code='Y']/..`) are
looked up by the code of the inner statement, else by the type of the relation, else by its name.

Beside the rows a table has `keep`: paths of children that a reader handles itself. `apply` gives them back by path.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mappers.cda.context import Document, Resource
from mappers.cda.parse import Node
from mappers.cda.paths import each, first, qualified, steps
from mappers.codesystems import code_map
from mappers.engine import ANY, EMPTY, Row
from mappers.targets import Put, writer

Kept = dict[str, list[Node]]
Step = Callable[[Any, Resource, Document], None]  # (element or attribute value, resource, document)
Handler = Callable[[Node, Resource, Document, Kept], None]
Converter = Callable[..., Any]  # (element or attribute value, document, *further values) -> value or None

_RELATION = re.compile(
    r"entryRelationship(?:\[@typeCode='(?P<type>\w+)'\])?"
    r"(?:/(?P<name>\w+)(?:\[code/@code='(?P<code>[^']+)'\])?(?P<rest>/.+)?)?"
)
_NAME = re.compile(r"[\w:]+")
_GUARDED = re.compile(r"([\w:]+)\[@(\w+)(?:='([^']*)')?\]")
_CODE = qualified("code")
_UNSAID = ("templateId", "realmCode", "typeId", "text", "title")  # carry no statement of their own
_TAKEN: list[Node] = []  # marks a child of which only the first is read
_ROOM = "The target has room for one of these: the first is mapped, this one stays in the document."


class Branch:
    """What is done with one element: steps on itself and on its attributes, and its children's branches."""

    def __init__(self) -> None:
        self.steps: list[tuple[str | None, Step]] = []  # with the attribute that must be there
        self.attributes: list[tuple[str, Step]] = []
        self.children: dict[str, Branch] = {}
        self.guarded: dict[str, list[tuple[str, str | None, Branch]]] = {}
        self.relations: dict[tuple[str, str, str], Branch] = {}
        self.late: list[Step] = []  # rows of a statement that are read by path
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

    __slots__ = ("_attributes", "_find", "_late")

    def __init__(self, branch: Branch) -> None:
        self._attributes = tuple(branch.attributes)
        self._late = tuple(branch.late)
        self._find = {qualified(name): _ignore for name in _UNSAID} | _handlers(branch)

    def apply(self, node: Node, resource: Resource, document: Document) -> Kept:
        """Runs every row over a node, writing into `resource`; gives the kept children and books the unread ones."""
        kept: Kept = {}
        find = self._find
        document.keyed, document.keys = node, []
        for child in node:
            handle = find.get(child.tag)
            if handle is None:
                document.unread(child)
            else:
                document.node = child
                handle(child, resource, document, kept)
        document.node = node
        for name, step in self._attributes:
            value = node.get(name)
            if value:
                step(value, resource, document)
        for run in self._late:
            run(node, resource, document)
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
    put, many = writer(row.to or "", row.extension), bool(row.to and row.to.endswith("[]"))
    convert = converters[row.datatype] if row.datatype else _as_it_is
    above, _, last = path.rpartition("/")
    if last.startswith("@"):
        (root.at(above) if above else root).attributes.append((last[1:], _attribute(convert, put)))
        return
    guard = _GUARDED.fullmatch(last)
    if guard is not None and guard[3] is None:  # `effectiveTime[@value]`: the element, when it has the attribute
        branch = root.at(path.removesuffix(last) + guard[1])
        branch.steps.append((guard[2], _attribute(convert, put)))
        return
    branch = root.at(path)
    branch.steps.append((None, _element(convert, put)))
    branch.once = branch.once or not many


def _late(root: Branch, row: Row, converters: Mapping[str, Converter]) -> None:
    """A row with a condition, further paths, a map or a constant: read by path, after the children."""
    if row.path and not row.path.startswith("@"):
        root.at(row.path.rpartition("/@")[0] or row.path).steps.append((None, _silent))
    conditions = tuple((first(path), frozenset(held)) for path, held in row.when.items())
    extras = tuple(first(path) for path in row.extras)
    values = each(row.path) if row.path else _always
    convert = _conversion(row, converters)
    put, many = writer(row.to or "", row.extension), bool(row.to and row.to.endswith("[]"))

    def run(node: Node, resource: Resource, document: Document) -> None:
        if not all(_holds(get(node), held) for get, held in conditions):
            return
        for value in values(node)[: None if many else 1]:
            made = convert(value, document, *(get(node) for get in extras))
            if made is not None:
                put(resource, made)

    root.late.append(run)


def _silent(_node: Node, _resource: Resource, _document: Document) -> None:
    """The child is read later."""


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


def _element(convert: Converter, put: Put) -> Step:
    def run(node: Node, resource: Resource, document: Document) -> None:
        made = convert(node, document)
        if made is not None:
            put(resource, made)
        else:
            document.nothing(node)

    return run


def _attribute(convert: Converter, put: Put) -> Step:
    """Of an attribute of which nothing can be made, the converter says so in an Issue."""

    def run(value: str, resource: Resource, document: Document) -> None:
        made = convert(value, document)
        if made is not None:
            put(resource, made)

    return run


def _ignore(_child: Node, _resource: Resource, _document: Document, _kept: Kept) -> None:
    """Carries nothing of its own."""


def _handlers(branch: Branch, above: str = "") -> dict[str, Handler]:
    """By child name. `above` is the path so far, which tells equal names at different places apart."""
    found = {tag: _handler(one, above + tag) for tag, one in branch.children.items()}
    for tag, alternatives in branch.guarded.items():
        tests = [(name, value, _handler(one, f"{above}{tag}{value}")) for name, value, one in alternatives]
        found[tag] = _chosen(tests, found.get(tag))
    if branch.relations:
        found[qualified("entryRelationship")] = _relation(branch.relations)
    return found


def _handler(branch: Branch, key: str) -> Handler:
    """The fastest closure that does what the branch says."""
    if branch.left is not None:
        return _leaver(branch.left)
    simple = not (branch.attributes or branch.children or branch.guarded or branch.relations or branch.keep)
    if simple and len(branch.steps) == 1 and branch.steps[0][0] is None:
        return _single(branch.steps[0][1], key) if branch.once else _each(branch.steps[0][1])
    if branch.keep and not branch.steps and not branch.children and not branch.attributes:
        return _keeper(branch.keep)
    return _composite(branch, key)


def _leaver(reason: str) -> Handler:
    def run(child: Node, _resource: Resource, document: Document, _kept: Kept) -> None:
        document.leave(child, "left", reason=reason)

    return run


def _single(step: Step, key: str) -> Handler:
    def run(child: Node, resource: Resource, document: Document, kept: Kept) -> None:
        if key in kept:
            document.leave(child, "left", reason=_ROOM)
        else:
            kept[key] = _TAKEN
            step(child, resource, document)

    return run


def _each(step: Step) -> Handler:
    def run(child: Node, resource: Resource, document: Document, _kept: Kept) -> None:
        step(child, resource, document)

    return run


def _keeper(name: str) -> Handler:
    def run(child: Node, _resource: Resource, _document: Document, kept: Kept) -> None:
        if name in kept:
            kept[name].append(child)
        else:
            kept[name] = [child]

    return run


def _composite(branch: Branch, key: str) -> Handler:
    keep, steps_, attributes, once = branch.keep, tuple(branch.steps), tuple(branch.attributes), branch.once
    below = _below(branch, key)

    def run(child: Node, resource: Resource, document: Document, kept: Kept) -> None:
        if keep:
            kept.setdefault(keep, []).append(child)
        if once and key in kept:
            return document.leave(child, "left", reason=_ROOM)
        if once:
            kept[key] = _TAKEN
        for needed, step in steps_:
            if needed is None or child.get(needed) is not None:
                step(child, resource, document)
        for name, step in attributes:
            value = child.get(name)
            if value:
                step(value, resource, document)
        if below is not None:
            below(child, resource, document, kept)
        return None

    return run


def _below(branch: Branch, key: str) -> Handler | None:
    """The children of an element inside a statement; those that no row names are booked where the branch is whole."""
    if not (branch.children or branch.guarded or branch.relations):
        return None
    framed = (*_UNSAID, "id", "code", "statusCode") if not branch.whole else _UNSAID
    find = {qualified(name): _ignore for name in framed} | _handlers(branch, key)
    whole = not branch.keep

    def run(child: Node, resource: Resource, document: Document, kept: Kept) -> None:
        for inner in child:
            handle = find.get(inner.tag)
            if handle is not None:
                document.node = inner
                handle(inner, resource, document, kept)
            elif whole:
                document.unread(inner)

    return run


def _chosen(tests: list[tuple[str, str | None, Handler]], otherwise: Handler | None) -> Handler:
    """The first alternative whose attribute holds its value; else the unguarded one; else the child is unread."""

    def run(child: Node, resource: Resource, document: Document, kept: Kept) -> None:
        for name, value, handle in tests:
            if child.get(name) == value:
                return handle(child, resource, document, kept)
        return document.unread(child) if otherwise is None else otherwise(child, resource, document, kept)

    return run


def _relation(relations: Mapping[tuple[str, str, str], Branch]) -> Handler:
    """entryRelationship: by the inner statement's code, by the relation's type and the name, by either alone."""
    by_code: dict[tuple[str, str], Handler] = {}
    by_type: dict[tuple[str, str], Handler] = {}
    by_name: dict[str, Handler] = {}
    for (code, kind, name), branch in relations.items():
        tag = qualified(name) if name else ""
        handle = _handler(branch, f"{code}{kind}{name}")
        if code:
            by_code[tag, code] = handle
        elif kind:
            by_type[tag, kind] = handle
        else:
            by_name[tag] = handle

    def find(inner: Node, kind: str) -> Handler | None:
        tag = inner.tag
        found = by_code.get((tag, code_of(inner))) if by_code else None
        return found or by_type.get((tag, kind)) or by_type.get(("", kind)) or by_name.get(tag)

    def run(child: Node, resource: Resource, document: Document, kept: Kept) -> None:
        kind = child.get("typeCode") or ""
        for inner in child:
            handle = find(inner, kind)
            if handle is None:
                document.unread(inner)
            else:
                document.node = inner
                handle(inner, resource, document, kept)

    return run


def code_of(node: Node) -> str:
    """`code/@code` of a statement, or an empty string."""
    for child in node.iterchildren(_CODE):
        return child.get("code") or ""
    return ""
