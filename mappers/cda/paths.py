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

from mappers.cda.node import Node
from mappers.cda.parse import HL7, SDTC, XSI

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
        return _single(tags[0])
    return _deep(tags, attribute, each(path))


def _single(tag: str) -> Callable[[Any], Any]:
    def get(node: Any) -> Any:
        for child in node[:]:
            if child.tag == tag:
                return child
        return None

    return get


def _deep(tags: list[str], attribute: str | None, every: Each) -> Callable[[Any], Any]:
    """The first child of the first child is nearly always it; only when that fails are all looked at."""

    def get(node: Any) -> Any:
        found, seen = node, False
        for tag in tags:
            for child in found[:]:
                if child.tag == tag:
                    found, seen = child, True
                    break
            else:
                return next(iter(every(node)), None) if seen else None
        value = found if attribute is None else found.get(attribute)
        return value if value is not None else next(iter(every(node)), None)

    return get


def child(node: Node, tag: str) -> Node | None:
    """The first child with this (qualified) tag. A slice is taken in C; an iterator costs as much as six children."""
    for one in node[:]:
        if one.tag == tag:
            return one
    return None


def children(node: Node, tag: str) -> list[Node]:
    """All children with this (qualified) tag."""
    return [one for one in node[:] if one.tag == tag]


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
        return lambda node: [one for one in node[:] if one.tag == tag]
    return lambda node: [one for one in node[:] if one.tag == tag and all(test(one) for test in predicates)]


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


def location(node: Node) -> str:
    """The place of an element as XPath, prefixes left out; a position stands where siblings share the name."""
    root: Any = node.getroottree().getroot()
    return Places(root).of(node)


class Places:
    """`location` for one document.

    lxml counts the siblings before an element each time it is asked. In a `large` document children of one name are
    numbered together and kept instead, those inside an entry until the next: places keep their elements alive.
    """

    __slots__ = ("_above", "_entry", "_known", "_large", "_outer", "_path", "_root")

    def __init__(self, root: Node, *, large: bool = False) -> None:
        self._root = f"/{root.tag.rpartition('}')[2]}"
        self._known = self._outer = {root: self._root}
        self._large = large
        self._entry: Node | None = root
        self._path: Callable[[Node], str] | None = None  # from the entry, or from the root
        self._above = self._root

    def enter(self, entry: Node, place: str) -> None:
        """From now on the places inside an entry are asked for; those of the one before are forgotten."""
        self._known = {entry: place}
        self._entry, self._path, self._above = entry, None, place
        if len(entry) == 1:
            statement = entry[0]
            self._known[statement] = f"{place}/{_SHORT[statement.tag]}"

    def leave(self) -> None:
        """From now on any places."""
        self._known = self._outer
        self._entry, self._path, self._above = None, None, self._root

    def of(self, node: Node) -> str:
        """As `location`."""
        found = self._known.get(node)
        if found is not None:
            return found
        return self._number(node) if self._large else self._counted(node)

    def _counted(self, node: Node) -> str:
        path = self._path
        if path is None:
            tree = etree.ElementTree(self._entry) if self._entry is not None else node.getroottree()
            path = self._path = tree.getelementpath
        try:
            found = f"{self._above}/{path(node).replace(_V3, '')}"
        except ValueError:  # an element outside of the entry that is being read
            found = f"{self._root}/{node.getroottree().getelementpath(node).replace(_V3, '')}"
        return found.replace(_SDTC, "") if "{" in found else found

    def _number(self, node: Node) -> str:
        parent = node.getparent()
        if parent is None:
            return self._root
        above = self._known.get(parent) or self._number(parent)
        tag = node.tag
        path = f"{above}/{_SHORT[tag]}"
        if len(parent) > 1 and len(alike := [one for one in parent[:] if one.tag == tag]) > 1:
            self._known.update((one, f"{path}[{index}]") for index, one in enumerate(alike, 1))
            return self._known[node]
        self._known[node] = path
        return path


def has_template(node: Node, *roots: str) -> bool:
    """Whether the element carries one of these templateId roots, in whatever version."""
    return any(one.tag == _TEMPLATE and one.get("root") in roots for one in node[:])


_TEMPLATE = qualified("templateId")


def grouped(node: Node) -> dict[str, list[Node]]:
    """The children by their name (`sdtc:` before those of that namespace), in one pass."""
    found: dict[str, list[Node]] = {}
    for one in node[:]:
        name = _NAMES[one.tag]
        if name in found:
            found[name].append(one)
        else:
            found[name] = [one]
    return found


_V3, _SDTC = f"{{{HL7}}}", f"{{{SDTC}}}"
_MOST = 1024  # names: a document of many others does not fill the memory


class _Names(dict[str, str]):
    """Tag -> `code`, a prefix and `raceCode`, or the tag as it is for any other namespace; a look-up without a call."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def __missing__(self, tag: str) -> str:
        known = tag.startswith(_SDTC)
        found = self._prefix + tag.removeprefix(_SDTC) if known else tag.removeprefix(_V3)
        if len(self) < _MOST:
            self[tag] = found
        return found


_NAMES, _SHORT = _Names("sdtc:"), _Names("")
