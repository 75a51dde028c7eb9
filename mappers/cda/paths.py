"""A small, fast part of XPath for mapping tables, and the place of an element as XPath.

Understood: `name`, `sdtc:name`, `a/b/c`, a last `@attribute` (`xsi:type` too), `.`, and predicates `[@attribute='v']`,
`[a/b/@attribute='v']`, `[name]`, `[not(@attribute='v')]`, all in the namespace urn:hl7-org:v3. Each expression means
what it means in XPath 1.0 with the prefix left out; a test compares them with lxml's own XPath.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

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
    if re.fullmatch(r"[\w:]+", path):
        tag = qualified(path)
        return lambda node: next(node.iterchildren(tag), None)
    if re.fullmatch(r"@\w+", path):
        name = path[1:]
        return lambda node: node.get(name)
    every = each(path)

    def get(node: Any) -> Any:
        found = every(node)
        return found[0] if found else None

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
    return [node for node in root.iter(qualified(name)) if isinstance(node, Node)]


def location(node: Node) -> str:
    """The place of an element as XPath, prefixes left out; a position stands where siblings share the name."""
    return _location(node, {})


def _location(node: Any, known: dict[Node, str]) -> str:
    place = known.get(node)
    if place is None:
        parent = node.getparent()
        name = node.tag.rpartition("}")[2]
        before = sum(1 for _ in node.itersiblings(node.tag, preceding=True))
        alone = before == 0 and next(node.itersiblings(node.tag), None) is None
        above = _location(parent, known) if parent is not None else ""
        place = known[node] = f"{above}/{name}" if alone else f"{above}/{name}[{before + 1}]"
    return place


class Places(dict[Node, str]):
    """`location`, remembered: one a document."""

    def of(self, node: Node) -> str:
        """As `location`."""
        return _location(node, self)


def has_template(node: Node, *roots: str) -> bool:
    """Whether the element carries one of these templateId roots, in whatever version."""
    return any(child.get("root") in roots for child in node.iterchildren(f"{{{HL7}}}templateId"))
