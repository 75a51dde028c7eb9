"""The branches of a compiled table as Python functions, written once at start: an element costs one call, no more.

Each branch becomes a function `(child, resource, document, kept)` that does what its rows say, in their order. All
names in it are bound by us; of a table only targets and attribute names get into the text, as literals.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mappers.cda.node import Node
from mappers.cda.paths import qualified
from mappers.targets import writer

if TYPE_CHECKING:
    from mappers.cda.compiled import Branch, Step

Handler = Callable[..., None]  # (child, resource, document, kept)

UNSAID = ("templateId", "realmCode", "typeId", "text", "title")  # carry no statement of their own
_FRAME = ("id", "code", "statusCode")  # of a statement inside another: what it is, not what it says
_TAKEN: list[Node] = []  # marks a child of which only the first is read
_ROOM = "The target has room for one of these: the first is mapped, this one stays in the document."
_CODE, _RELATION = qualified("code"), qualified("entryRelationship")


def handlers(branch: "Branch", above: str = "") -> dict[str, Handler]:
    """By child name. `above` is the path so far, which tells equal names at different places apart."""
    found = {tag: handler(one, above + tag) for tag, one in branch.children.items()}
    for tag, alternatives in branch.guarded.items():
        tests = [(name, value, handler(one, f"{above}{tag}{value}")) for name, value, one in alternatives]
        found[tag] = _chosen(tests, found.get(tag))
    if branch.relations:
        found[_RELATION] = _relation(branch.relations)
    return found


def handler(branch: "Branch", key: str) -> Handler:
    """The function of one branch; `key` names the place of which only the first is read."""
    code = Code("child, resource, document, kept")
    if branch.left is not None:
        code.add(1, f"document.leave(child, 'left', reason={branch.left!r})")
        return code.function()
    if branch.keep:
        code.add(1, f"if {branch.keep!r} in kept:", f"    kept[{branch.keep!r}].append(child)")
        code.add(1, "else:", f"    kept[{branch.keep!r}] = [child]")
    if branch.once:
        code.add(1, f"if {key!r} in kept:", f"    return document.leave(child, 'left', reason={_ROOM!r})")
        code.add(1, f"kept[{key!r}] = {code.bind(_TAKEN)}")
    for step in branch.steps:
        code.step(step, "child")
    for step in branch.attributes:
        code.attribute(step, "child")
    if branch.children or branch.guarded or branch.relations:
        _below(code, branch, key)
    return code.function()


def _below(code: "Code", branch: "Branch", key: str) -> None:
    """The children of an element inside a statement; those that no row names are booked where the branch is whole."""
    framed = UNSAID if branch.whole else (*UNSAID, *_FRAME)
    find = dict.fromkeys(map(qualified, framed), False) | handlers(branch, key)
    code.add(1, "for inner in child[:]:", f"    handle = {code.bind(find.get)}(inner.tag)")
    code.add(2, "if handle:", "    document.node = inner", "    handle(inner, resource, document, kept)")
    if not branch.keep:
        code.add(2, "elif handle is None:", "    document.unread(inner)")


def _chosen(tests: Iterable[tuple[str, str | None, Handler]], otherwise: Handler | None) -> Handler:
    """The first alternative whose attribute holds its value; else the unguarded one; else the child is unread."""
    code = Code("child, resource, document, kept")
    for name, value, handle in tests:
        code.add(1, f"if child.get({name!r}) == {value!r}:")
        code.add(2, f"return {code.bind(handle)}(child, resource, document, kept)")
    rest = "document.unread(child)" if otherwise is None else f"{code.bind(otherwise)}(child, resource, document, kept)"
    code.add(1, f"return {rest}")
    return code.function()


def _relation(relations: Mapping[tuple[str, str, str], "Branch"]) -> Handler:
    """entryRelationship: by the inner statement's code, by the relation's type and the name, by either alone."""
    by_code: dict[tuple[str, str], Handler] = {}
    by_type: dict[tuple[str, str], Handler] = {}
    by_name: dict[str, Handler] = {}
    for (code, kind, name), branch in relations.items():
        tag = qualified(name) if name else ""
        handle = handler(branch, f"{code}{kind}{name}")
        if code:
            by_code[tag, code] = handle
        elif kind:
            by_type[tag, kind] = handle
        else:
            by_name[tag] = handle

    def run(child: Node, resource: Any, document: Any, kept: Any) -> None:
        kind = child.get("typeCode") or ""
        for inner in child[:]:
            tag = inner.tag
            handle = by_code.get((tag, code_of(inner))) if by_code else None
            handle = handle or by_type.get((tag, kind)) or by_type.get(("", kind)) or by_name.get(tag)
            if handle is None:
                document.unread(inner)
            else:
                document.node = inner
                handle(inner, resource, document, kept)

    return run


def code_of(node: Node) -> str:
    """`code/@code` of a statement, or an empty string."""
    for child in node[:]:
        if child.tag == _CODE:
            return child.get("code") or ""
    return ""


def own(resource: dict[str, Any], name: str) -> None:
    """Gives a resource an element of its own to be written into: codes and the like are one object for many."""
    if name in resource:
        resource[name] = _copied(resource[name])


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(one) for name, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value


class Code:
    """The lines of one function, and what the names in them stand for."""

    def __init__(self, arguments: str) -> None:
        self.lines = [f"def apply({arguments}):"]
        self.names: dict[str, Any] = {}

    def function(self) -> Callable[..., Any]:
        """The finished function."""
        source = "\n".join([*self.lines, "    return"])
        exec(compile(source, "<mapping table>", "exec"), self.names)  # noqa: S102 - our own text, see the module
        made: Callable[..., Any] = self.names["apply"]
        return made

    def add(self, depth: int, *lines: str) -> None:
        """Lines at a depth of indentation."""
        self.lines += ["    " * depth + line for line in lines]

    def bind(self, value: Any) -> str:
        """A name for a value."""
        name = f"_{len(self.names)}"
        self.names[name] = value
        return name

    def step(self, step: "Step", node: str) -> None:
        """Converts an element and writes it; one of which nothing comes is booked."""
        if step.needs is None:
            self._convert(1, step, node, f"document.nothing({node})")
        else:
            self.add(1, f"if {node}.get({step.needs!r}) is not None:")
            self._convert(2, step, node, "")

    def attribute(self, step: "Step", node: str) -> None:
        """Converts an attribute and writes it; of a bad one the converter says so in an Issue."""
        self.add(1, f"value = {node}.get({step.needs!r})", "if value:")
        self._convert(2, step, "value", "")

    def _convert(self, depth: int, step: "Step", value: str, otherwise: str) -> None:
        made = value if step.convert is None else f"{self.bind(step.convert)}({value}, document)"
        self.add(depth, f"made = {made}", "if made is not None:")
        self._put(depth + 1, step)
        if otherwise:
            self.add(depth, "else:", f"    {otherwise}")

    def _put(self, depth: int, step: "Step") -> None:
        to = step.to
        if step.extension is not None or "." in to:
            if step.extension is None:
                self.add(depth, f"{self.bind(own)}(resource, {to.partition('.')[0].partition('[')[0]!r})")
            self.add(depth, f"{self.bind(writer(to, step.extension))}(resource, made)")
        elif to.endswith("[x]"):
            self.add(depth, f"resource[{to[:-3]!r} + made[0]] = made[1]")
        elif to.endswith("[]"):
            self.add(depth, f"into = resource.get({to[:-2]!r})")
            self.add(depth, "made = [made] if made.__class__ is not list else [*made]")
            self.add(depth, "if into is None:", f"    resource[{to[:-2]!r}] = made", "else:", "    into += made")
        else:
            self.add(depth, f"resource[{to!r}] = made")
