"""What one document's conversion knows: where it is, who is meant, which ids were given, what was left out."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

from mappers import engine
from mappers.cda.parse import Node
from mappers.cda.paths import Places, each, first, steps
from mappers.conversion import Source, Unmapped
from mappers.converters import resource_id
from profiles.issue import Issue, Severity

Resource = dict[str, Any]

_RELATION = re.compile(r"entryRelationship/(\w+)(?:\[([^\]]+)\])?")
_OFFSET = re.compile(r"\d{10,}(\.\d+)?[+-]\d{4}", re.ASCII)
_WHERE = {"id", "templateId", "realmCode", "typeId", "text", "title"}  # carry no statement of their own


@cache
def codes() -> dict[str, dict[str, str]]:
    """tables/codes.toml, read once."""
    return engine.load("mappers.cda", "tables/codes.toml")


class Document(engine.Context):
    """One ClinicalDocument being converted. `node` is the element that a table is applied to."""

    __slots__ = (
        "_counts",
        "_narrative",
        "by_id",
        "control",
        "entry_targets",
        "made_in",
        "node",
        "offset",
        "patient_reference",
        "places",
        "resources",
        "root",
        "seed",
        "unmapped",
    )

    def __init__(self, root: Node, source: Source) -> None:
        super().__init__(source)
        self.root = root
        self.node = root
        self.resources: list[Resource] = []
        self.unmapped: list[Unmapped] = []
        self.patient_reference = ""
        self.places = Places()
        self.entry_targets: list[str] = []  # of the entry that is being read
        self.made_in: dict[Node, list[str]] = {}  # section -> references
        self.control = _first_identifier(root, "id")
        self.by_id: dict[str, list[str]] = {}  # entry id (root|extension) -> references
        self.seed = _first_identifier(root, "recordTarget/patientRole/id") or source.sha256
        self._counts: Counter[str] = Counter()
        self._narrative: dict[str, Node] | None = None
        self.offset = _offset(root)

    def where(self, path: str) -> str:
        """XPath of `path` under the present element."""
        return f"{self.places.of(self.node)}/{path}" if path else self.places.of(self.node)

    def at(self, node: Node) -> "Document":
        """Moves to an element: Issues then name it."""
        self.node = node
        self.path = ""
        return self

    def inform(self, text: str) -> None:
        """Adds an information that says what was decided."""
        self.report(Severity.INFORMATION, "informational", text)

    def once(self, text: str) -> None:
        """Adds an information for the whole document, the first time only."""
        issue = Issue(Severity.INFORMATION, "informational", "/ClinicalDocument", text)
        if issue not in self.issues:
            self.issues.append(issue)

    def leave(self, node: Node, kind: str, *, reason: str) -> None:
        """Books an element that no resource carries."""
        self.unmapped.append(Unmapped(self.places.of(node), kind, reason))

    def add(self, resource: Resource, node: Node, *, key: str | None = None) -> str:
        """Gives a resource its id, keeps it, and returns its reference.

        The id follows from the patient's first identifier, the type and the element's own first id (or `key`); an
        element without one, by the document's bytes and the place. A repeated entry id is told apart by its count.
        """
        kind = resource["resourceType"]
        key = key or _first_identifier(node, "id") or f"{self.source.sha256}{self.places.of(node)}"
        self._counts[f"{kind}|{key}"] += 1
        count = self._counts[f"{kind}|{key}"]
        resource["id"] = resource_id(kind, self.seed, key, *([str(count)] if count > 1 else []))
        resource.setdefault("meta", {})["source"] = f"urn:sha256:{self.source.sha256}#{self.places.of(node)}"
        self.resources.append(resource)
        reference = f"{kind}/{resource['id']}"
        self.entry_targets.append(reference)
        for identifier in identifiers(node):
            self.by_id.setdefault(identifier, []).append(reference)
        return reference

    def shared(self, resource: Resource, node: Node, *, key: str) -> str:
        """As `add`, for people and organizations: the same key gives the same resource, kept once."""
        kind = resource["resourceType"]
        resource["id"] = resource_id(kind, self.seed, key)
        resource.setdefault("meta", {})["source"] = f"urn:sha256:{self.source.sha256}#{self.places.of(node)}"
        if all(known["id"] != resource["id"] for known in self.resources if known["resourceType"] == kind):
            self.resources.append(resource)
        return f"{kind}/{resource['id']}"

    def references(self) -> list[str]:
        """The references of all resources so far, in order."""
        return [f"{one['resourceType']}/{one['id']}" for one in self.resources]

    def linked(self, node: Node, *kinds: str) -> list[str]:
        """References to resources of these types that were made from an element with one of this element's ids."""
        found = [reference for key in identifiers(node) for reference in self.by_id.get(key, ())]
        return [reference for reference in dict.fromkeys(found) if reference.partition("/")[0] in kinds]

    def narrative(self, anchor: str) -> str | None:
        """The text of the narrative element with this ID (`#id`), blanks folded."""
        if self._narrative is None:
            texts = (text for section in self.root.iter("{urn:hl7-org:v3}section") for text in each("text")(section))
            self._narrative = {node.get("ID"): node for text in texts for node in text.iter() if node.get("ID")}
        found = self._narrative.get(anchor.removeprefix("#"))
        return folded(found) if found is not None else None


def _offset(root: Node) -> str | None:
    """The offset of the header's effectiveTime as it is written (`-0400`), if it has one."""
    value = (first("effectiveTime/@value")(root) or "").strip()
    return value[-5:] if _OFFSET.fullmatch(value) else None


def identifiers(node: Node) -> Iterator[str]:
    """The ids of an element as `root|extension`."""
    for identifier in each("id")(node):
        if identifier.get("root"):
            yield f"{identifier.get('root')}|{identifier.get('extension') or ''}"


def _first_identifier(node: Node, path: str) -> str | None:
    found = (one for one in each(path)(node) if one.get("root"))
    return next((f"{one.get('root')}|{one.get('extension') or ''}" for one in found), None)


def folded(node: Node) -> str | None:
    """All text under an element, blanks folded to one; None when there is none."""
    return " ".join("".join(map(str, node.itertext())).split()) or None


def account(node: Node, document: Document, *, read: frozenset[str], handled: frozenset[str] = frozenset()) -> None:
    """Books each child of a statement that no path in `read` and no path in `handled` reaches.

    A plain name reaches all children of that name; a relation (`entryRelationship/act[..]/..`) only those that hold
    what its second step asks for.
    """
    plain, relations = _reach(read | handled)
    children: Iterator[Any] = node.iterchildren("{urn:hl7-org:v3}*")
    rest = [child for child in children if child.tag.rpartition("}")[2] not in plain and not _empty(child)]
    reached = {child for top in relations for child in each(top)(node)} if rest else set()
    for child in rest:
        if child not in reached:
            name = child.tag.rpartition("}")[2]
            document.leave(
                child, "unknown", reason=f"No rule maps {name} of this kind of entry; the document itself is kept."
            )


@cache
def _reach(paths: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Names of children that are read whole, and predicates on those of which only some are."""
    tops = {_relation(path) for path in paths}
    return frozenset({top for top in tops if "[" not in top} | _WHERE), frozenset(top for top in tops if "[" in top)


def _relation(path: str) -> str:
    """The first step; of a relation, the first step with the second as its predicate."""
    match = _RELATION.match(path)
    if match is None:
        return steps(path)[0]
    inner = f"{match[1]}/{match[2]}" if match[2] else match[1]
    return f"entryRelationship[{inner}]"


def _empty(node: Node) -> bool:
    return node.get("nullFlavor") is not None and len(node) == 0
