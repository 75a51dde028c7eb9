"""A small, fast part of XPath for mapping tables, and the place of an element as XPath.

Understood: `name`, `sdtc:name`, `a/b/c`, a last `@attribute` (`xsi:type` too), `.`, and predicates `[@attribute='v']`,
`[a/b/@attribute='v']`, `[name]`, `[not(@attribute='v')]`, all in the namespace urn:hl7-org:v3. Each expression means
what it means in XPath 1.0 with the prefix left out; a test compares them with lxml's own XPath.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from lxml import etree

from mappers.cda.parse import HL7, SDTC, XSI, Node

Each = Callable[[Any], list[Any]]

_SPLIT = re.compile(r"/(?![^\[]*\])")
_STEP = re.compile(r"(\.|@?[A-Za-z][\w:]*)((?:\[[^\]]+\])*)")
_PREDICATE = re.compile(r"\[(not\()?([A-Za-z@][\w:@/]*)(?:='([^']*)')?\)?\]")
_PREFIXES = {"sdtc": SDTC, "xsi": XSI}


def qualified(name: str) -> str:
    """`code` -> `{urn:hl7-org:v3}code`; `sdtc:raceCode` -> `{urn:hl7-org:sdtc}raceCode`."""
    prefix, colon, local = name.rpartition(":")
    return f"{{{_PREFIXES[prefix] if colon else HL7}}}{local}"


def steps(path: str) -> list[str]:
    """The steps of a path, predicates with them."""
    return _SPLIT.split(path)


@lru_cache(1024)
def each(path: str) -> Each:
    """A getter of all nodes (or attribute values) at a path. Raises ValueError for a path it does not understand."""
    taken = [_step(text) for text in steps(path)]

    def get(node: Any) -> list[Any]:
        found: Iterable[Any] = (node,)
        for step in taken:
            found = [hit for one in found for hit in step(one)]
            if not found:
                break
        return list(found)

    return get


@lru_cache(1024)
def first(path: str) -> Callable[[Any], Any]:
    """A getter of the first node (or attribute value) at a path; None when there is none."""
    match = re.fullmatch(r"([\w:]+(?:/[\w:]+)*)?/?(?:@(\w+))?", path)
    if match is None:
        every = each(path)
        return lambda node: next(iter(every(node)), None)
    names, attribute = match[1] or "", match[2]
    tags = [qualified(name) for name in names.split("/") if name]
    if not tags:
        return lambda node: node.get(attribute)
    if len(tags) == 1 and attribute is None:
        tag = tags[0]
        return lambda node: next(node.iterchildren(tag), None)
    return _deep(tags, attribute, each(path))


def _deep(tags: list[str], attribute: str | None, every: Each) -> Callable[[Any], Any]:
    """The first child of the first child is nearly always it; only when that fails are all looked at."""
    top, *rest = tags

    def get(node: Any) -> Any:
        found = next(node.iterchildren(top), None)
        if found is None:
            return None
        for tag in rest:
            found = next(found.iterchildren(tag), None)
            if found is None:
                break
        value = found if found is None or attribute is None else found.get(attribute)
        return value if value is not None else next(iter(every(node)), None)

    return get


def _step(text: str) -> Each:
    match = _STEP.fullmatch(text)
    if match is None:
        raise ValueError(f"the path step {text!r} is not understood")
    name, predicates = match[1], [_predicate(part) for part in re.findall(r"\[[^\]]+\]", match[2])]
    if name == ".":
        return lambda node: [node]
    if name.startswith("@"):
        return _attribute(name[1:])
    tag = qualified(name)
    if not predicates:
        return lambda node: list(node.iterchildren(tag))
    return lambda node: [child for child in node.iterchildren(tag) if all(test(child) for test in predicates)]


def _attribute(name: str) -> Each:
    key = qualified(name) if ":" in name else name

    def get(node: Any) -> list[Any]:
        value = node.get(key)
        return [] if value is None else [value]

    return get


def _predicate(text: str) -> Callable[[Any], bool]:
    match = _PREDICATE.fullmatch(text)
    if match is None:
        raise ValueError(f"the predicate {text!r} is not understood")
    negated, path, value = bool(match[1]), match[2], match[3]
    get = each(path)
    if value is None:
        return lambda node: bool(get(node)) != negated
    return lambda node: (value in get(node)) != negated


def inside(root: Node, name: str) -> list[Node]:
    """All elements of a name (`section`) under an element, at any depth, in document order."""
    return list(root.iter(qualified(name)))


def location(node: Node) -> str:
    """The place of an element as XPath, prefixes left out; a position stands where siblings share the name."""
    return Places(node.getroottree().getroot()).of(node)


class Places:
    """`location` for one document.

    lxml counts the siblings before an element each time it is asked, which is fast for a document of usual size; in a
    `large` one the children of an element that has very many are numbered once instead.
    """

    __slots__ = ("_known", "_large", "_path", "_root")

    def __init__(self, root: Node, *, large: bool = False) -> None:
        self._known: dict[Node, str] = {}  # children of the wide elements
        self._large = large
        self._root = f"/{root.tag.rpartition('}')[2]}"
        self._path = root.getroottree().getelementpath

    def of(self, node: Node) -> str:
        """As `location`."""
        if self._large:
            return self._from_wide(node)
        path = self._path(node)
        return f"{self._root}/{_plain(path)}" if path != "." else self._root

    def _from_wide(self, node: Node) -> str:
        """From the nearest element above that has very many siblings, else from the root."""
        top = node
        while top not in self._known:
            parent = top.getparent()
            if parent is None:
                break
            if len(parent) > _WIDE:
                self._number(parent)
            else:
                top = parent
        above = self._known.get(top, self._root)
        return above if top is node else f"{above}/{_plain(etree.ElementTree(top).getelementpath(node))}"

    def _number(self, parent: Node) -> None:
        above = self._from_wide(parent)
        groups: dict[str, list[Node]] = {}
        for child in parent:
            groups.setdefault(child.tag, []).append(child)
        for tag, nodes in groups.items():
            path = f"{above}/{tag.rpartition('}')[2]}"
            alone = len(nodes) == 1
            self._known.update((one, path if alone else f"{path}[{index}]") for index, one in enumerate(nodes, 1))


_WIDE = 1000


def _plain(path: str) -> str:
    """An ElementPath without namespaces."""
    return _NAMESPACE.sub("", path) if _SDTC in path else path.replace(_V3, "")


_V3, _SDTC = f"{{{HL7}}}", f"{{{SDTC}}}"
_NAMESPACE = re.compile(r"\{[^}]*\}")


def has_template(node: Node, *roots: str) -> bool:
    """Whether the element carries one of these templateId roots, in whatever version."""
    return any(child.get("root") in roots for child in node.iterchildren(f"{{{HL7}}}templateId"))


def grouped(node: Node) -> dict[str, list[Node]]:
    """The children by their name (`sdtc:` before those of that namespace), in one pass."""
    found: dict[str, list[Node]] = {}
    for child in node:
        name = _local(child.tag)
        if name in found:
            found[name].append(child)
        else:
            found[name] = [child]
    return found


@lru_cache(1024)
def _local(tag: str) -> str:
    """`code`, `sdtc:raceCode`, or the tag as it is for any other namespace."""
    uri, _, name = tag.rpartition("}")
    return name if uri == f"{{{HL7}" else f"sdtc:{name}" if uri == f"{{{SDTC}" else tag
