"""What one document's conversion knows: where it is, who is meant, which ids were given, what was left out."""

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from lxml import etree

from mappers import engine
from mappers.cda.node import Node
from mappers.cda.parse import HL7
from mappers.cda.paths import Places, child, children, grouped
from mappers.conversion import Source, Unmapped
from mappers.converters import resource_id
from profiles.issue import Issue, Severity

Resource = dict[str, Any]

_OFFSET = re.compile(r"\d{10,}(\.\d+)?[+-]\d{4}", re.ASCII)
_UNKNOWN = "No rule maps this part of the entry; the document itself is kept."
_NOTHING = "Nothing could be made of this value; the document itself is kept."
_V3 = f"{{{HL7}}}"
_ID, _CODE, _ROLE = f"{_V3}id", f"{_V3}code", f"{_V3}patientRole"
_AROUND = "The time of an act that only holds others is no time of what it holds."
_TIME = f"{_V3}effectiveTime"
_FIRST = "The same id stands elsewhere in the document with other details: the first are kept."
_LARGE = 256 * 1024  # bytes
_AT_LEAST = 1_000_000
_FEW = 20  # an id that more entries bear points at none of them
_SECTION, _TEXT = f"{_V3}section", f"{_V3}text"


_MARKED: Any = etree.XPath("descendant-or-self::*/@ID/..", smart_strings=False)
_MARKS: Any = etree.XPath("descendant-or-self::*/@ID", smart_strings=False)


@cache
def codes() -> dict[str, dict[str, str]]:
    """tables/codes.toml, read once."""
    return engine.load("mappers.cda", "tables/codes.toml")


class Document(engine.Context):
    """One ClinicalDocument being converted. `node` is the element that a table is applied to."""

    __slots__ = (
        "_counts",
        "_allowance",
        "_narrative",
        "_told",
        "_urn",
        "by_id",
        "control",
        "entry_targets",
        "head",
        "keyed",
        "keys",
        "made",
        "made_in",
        "narratives",
        "node",
        "offset",
        "own",
        "panels",
        "patient_ids",
        "_references",
        "_said",
        "subject",
        "places",
        "people",
        "resources",
        "sections",
        "root",
        "scale",
        "seed",
        "stated",
        "taken",
        "unmapped",
        "writers",
    )

    def __init__(self, root: Node, source: Source, *, size: int = 0) -> None:
        super().__init__(source)
        self.root = root
        self.node = root
        self.head = grouped(root)  # the parts of the header by name
        self.sections = list(root.iter(_SECTION))
        self.keyed: Node | None = None  # the element whose ids are in `keys`: a table that was applied read them
        self.keys: list[str] = []
        self.people: dict[str, Resource] = {}  # reference -> people, organizations and devices, each made once
        self.resources: list[Resource] = []
        self.made: dict[str, Resource] = {}  # reference -> resources made of entries
        self.unmapped: list[Unmapped] = []
        self.subject: dict[str, str] = {}  # the reference to the patient: one object in all resources
        self._references: dict[str, Resource] = {}
        self.patient_ids: frozenset[str] = frozenset()  # root|extension
        self.writers: dict[tuple[str, bool], str] = {}  # an author's first id, whether named -> reference
        self.places = Places(root, large=size > _LARGE)
        self.entry_targets: list[str] = []  # of the entry that is being read
        self.made_in: dict[Node, list[str]] = {}  # section -> references
        self.narratives: dict[Node, tuple[str | None, list[Node]]] = {}  # section -> its code and text
        self.own = keys_of(self.head.get("id", ()))  # the document's ids
        self.control = self.own[0] if self.own else None
        self.by_id: dict[str, list[str]] = {}  # entry id (root|extension) -> references
        self.seed = _patient_identifier(self.head) or source.sha256
        self.panels: frozenset[str] = frozenset()  # codes of observations that are assessment scales
        self.scale: Callable[[Node, Document], None] | None = None  # their reader
        self.stated: dict[Node, list[str]] = {}  # scale -> what was made of it
        self.taken: set[Node] = set()  # statements inside others that were read on their own
        self._said: set[str] = set()  # what was said of the whole document
        self._counts: dict[str, int] = {}
        self._urn = f"urn:sha256:{source.sha256}"
        self._narrative: dict[str, Node] | None = None
        self._told: dict[str, str | None] = {}  # the text of each anchor that was asked for
        self._allowance = max(_AT_LEAST, 2 * size)  # characters of narrative that resources may repeat
        self.offset = _offset(self.head)

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
        if text not in self._said:
            self._said.add(text)
            self.issues.append(Issue(Severity.INFORMATION, "informational", "/ClinicalDocument", text))

    def forget(self, *, booked: int, told: int) -> None:
        """Takes back what was booked and said since there were so many: the statement is read in another way."""
        self._said.difference_update(issue.text for issue in self.issues[told:])
        del self.unmapped[booked:], self.issues[told:]

    def leave(self, node: Node, kind: str, *, reason: str) -> None:
        """Books an element that no resource carries."""
        self.unmapped.append(Unmapped(self.places.of(node), kind, reason))

    def unread(self, node: Node) -> None:
        """Books a part of an entry that no rule reaches, unless it says nothing; a scale among them is read."""
        if node in self.taken or not says(node):
            return
        code = child(node, _CODE)
        if not self.is_scale(node, None if code is None else code.get("code")):
            self.leave(node, "unknown", reason=_UNKNOWN)

    def is_scale(self, node: Node, code: str | None) -> bool:
        """Whether an observation is a scale by its panel's code; it is then read as one."""
        if code not in self.panels or self.scale is None or node.get("moodCode") not in (None, "EVN"):
            return False
        self.taken.add(node)
        self.scale(node, self)
        return True

    def around(self, node: Node) -> None:
        """Books what an act says that only holds other statements: its time; its id points at what it holds."""
        for one in node[:]:
            if one.tag == _TIME and says(one):
                self.leave(one, "left", reason=_AROUND)

    def nothing(self, node: Node) -> None:
        """Books an element of which a rule could make nothing, unless it says nothing."""
        if says(node):
            self.leave(node, "bad", reason=_NOTHING)

    def add(self, resource: Resource, node: Node, *, key: str | None = None) -> str:
        """Gives a resource its id, keeps it, and returns its reference.

        The id follows from the patient's first identifier, the type and the element's own first id (or `key`); an
        element without one, by the document's bytes and the place. A repeated entry id is told apart by its count.
        """
        kind = resource["resourceType"]
        place = self.places.of(node)
        own = self.keys if self.keyed is node else self.own if node is self.root else identifiers(node)
        key = key or (own[0] if own else f"{self.source.sha256}{place}")
        logical_id = resource_id(kind, self.seed, key)
        reference = f"{kind}/{logical_id}"
        made, by_id = self.made, self.by_id
        if reference in made:
            count = self._counts[reference] = self._counts.get(reference, 1) + 1
            logical_id = resource_id(kind, self.seed, key, str(count))
            reference = f"{kind}/{logical_id}"
        resource["id"] = logical_id
        meta = resource.get("meta")
        if meta is None:
            resource["meta"] = {"source": f"{self._urn}#{place}"}
        else:
            meta["source"] = f"{self._urn}#{place}"
        self.resources.append(resource)
        made[reference] = resource
        self.entry_targets.append(reference)
        for identifier in own:
            if identifier in by_id:
                by_id[identifier].append(reference)
            else:
                by_id[identifier] = [reference]
        return reference

    def means(self, key: str, reference: str) -> None:
        """An entry's id (root|extension) stands for a resource; of more than one, in document order."""
        known = self.by_id.get(key)
        if known is None:
            self.by_id[key] = [reference]
        else:
            known.append(reference)

    def refer(self, reference: str) -> Resource:
        """A Reference that many resources hold: one object for all of them."""
        known = self._references.get(reference)
        if known is None:
            known = self._references[reference] = {"reference": reference}
        return known

    def done(self) -> None:
        """Lets go of what only linking needs: the rest is written with that room."""
        self.by_id.clear()
        self.made.clear()
        self.made_in.clear()
        self.narratives.clear()
        self.stated.clear()
        self._counts.clear()

    def source_of(self, node: Node) -> str:
        """meta.source: the bytes and the place in them."""
        return f"{self._urn}#{self.places.of(node)}"

    def shared(self, resource: Resource, node: Node, *, key: str) -> str:
        """As `add`, for people and organizations: the same key gives the same resource, kept once."""
        kind = resource["resourceType"]
        resource["id"] = resource_id(kind, self.seed, key)
        reference = f"{kind}/{resource['id']}"
        known = self.people.get(reference)
        if known is None:
            resource.setdefault("meta", {})["source"] = self.source_of(node)
            self.people[reference] = resource
            self.resources.append(resource)
        elif any(known.get(name) != value for name, value in resource.items() if name not in ("meta", "id")):
            self._differing(resource, known, node)
        return reference

    def _differing(self, resource: Resource, known: Resource, node: Node) -> None:
        """Another entry of the same id: the full one of a person who stood here by id alone, or other details."""
        if "name" in resource and "name" not in known:  # the full entry of one who stood here by id alone
            known |= {name: value for name, value in resource.items() if name != "meta"}
            known["meta"] |= {"profile": resource["meta"]["profile"]} if "profile" in resource.get("meta", {}) else {}
        elif "name" in resource:
            self.leave(node, "left", reason=_FIRST)

    def linked(self, node: Node, *kinds: str) -> list[str]:
        """References to resources of these types that were made from an element with one of this element's ids."""
        found = [reference for key in identifiers(node)[:_FEW] for reference in self.by_id.get(key, ())[:_FEW]]
        return [reference for reference in dict.fromkeys(found) if reference.partition("/")[0] in kinds]

    def narrative(self, anchor: str) -> str | None:
        """The text of the narrative element with this ID (`#id`), blanks folded.

        Entries may refer to one text again and again: beyond twice the document's size no more of it is repeated.
        """
        if anchor not in self._told:
            self._told[anchor] = self._text_of(anchor)
        found = self._told[anchor]
        self._allowance -= len(found) if found else 0
        if self._allowance < 0:
            self.once("The entries refer to the narrative so often that not all of it is repeated in the resources.")
            return None
        return found

    def _text_of(self, anchor: str) -> str | None:
        if self._narrative is None:
            texts = (text for section in self.sections for text in children(section, _TEXT))
            self._narrative = {}
            for text in texts:
                self._narrative.update(zip(_MARKS(text), _MARKED(text), strict=True))
            self._narrative.pop("", None)
        found = self._narrative.get(anchor.removeprefix("#"))
        return folded(found) if found is not None else None


def _offset(head: dict[str, list[Node]]) -> str | None:
    """The offset of the header's effectiveTime as it is written (`-0400`), if it has one."""
    written = (one.get("value") for one in head.get("effectiveTime", ()))
    value = next((one for one in written if one is not None), "").strip()
    return value[-5:] if _OFFSET.fullmatch(value) else None


def says(node: Node) -> bool:
    """Whether an element holds anything but nullFlavors, types and blanks."""
    keys = node.keys()
    if not len(node) and "nullFlavor" in keys:
        return False
    for key in keys:
        if key != "nullFlavor" and key[0] != "{":
            return True
    text = node.text
    if text and not text.isspace():
        return True
    return any(says(one) for one in node[:])


def identifiers(node: Node) -> list[str]:
    """The ids of an element as `root|extension`."""
    found = []
    for one in node[:]:
        if one.tag == _ID and (root := one.get("root")):
            found.append(f"{root}|{one.get('extension') or ''}")
    return found


def keys_of(nodes: Iterable[Node]) -> list[str]:
    """id elements as `root|extension`."""
    return [f"{root}|{one.get('extension') or ''}" for one in nodes if (root := one.get("root"))]


def _first_identifier(nodes: Iterable[Node]) -> str | None:
    return next(iter(keys_of(nodes)), None)


def _patient_identifier(head: dict[str, list[Node]]) -> str | None:
    roles = (role for one in head.get("recordTarget", ()) for role in one[:] if role.tag == _ROLE)
    return _first_identifier(one for role in roles for one in role[:] if one.tag == _ID)


def folded(node: Node) -> str | None:
    """All text under an element, blanks folded to one; None when there is none."""
    text = words(node) if len(node) else node.text
    return " ".join(text.split()) or None if text else None


def words(node: Node) -> str:
    """All text under an element as it stands: written by libxml2, which takes a tenth of the time of an iterator."""
    return etree.tostring(node, method="text", encoding="unicode", with_tail=False)
