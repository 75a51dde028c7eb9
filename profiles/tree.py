"""A profile's differential as a tree of elements and slices; slices and their discriminators may come from its base."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from profiles import library
from profiles.canonical import unversioned

Json = dict[str, Any]
Steps = tuple[str, ...]
_BY_URL = [{"type": "value", "path": "url"}]


@dataclass(slots=True)
class Node:
    """One element, or one slice of it: what the differential says, its children and its slices."""

    name: str  # JSON name, `value[x]` for a choice; a typed choice such as `valueQuantity` stands under its own name
    path: str  # in the base type, without slices
    facts: Json = field(default_factory=dict)
    children: "dict[str, Node]" = field(default_factory=dict)
    slices: "dict[str, Node]" = field(default_factory=dict)

    @property
    def limits(self) -> tuple[int, int | None]:
        """Least and greatest number of values; None: no limit."""
        maximum = self.facts.get("max", "*")
        return self.facts.get("min", 0), None if maximum == "*" else int(maximum)

    @property
    def base_limits(self) -> tuple[int, int | None]:
        """What the base type says already; 0 and no limit when the element stands inside a datatype."""
        owner, _, _ = self.path.rpartition(".")
        row = library.types().get(owner, {}).get("elements", {}).get(self.name, "0..* ")
        minimum, _, maximum = row.partition(" ")[0].partition("..")
        return int(minimum), None if maximum == "*" else int(maximum)

    def at(self, steps: Steps) -> "Node | None":
        """The descendant under the steps, as `child` or `child:slice`."""
        node: Node | None = self
        for step in steps:
            if node is None:
                return None
            name, _, slice_name = step.partition(":")
            node = node.children.get(name)
            if node is not None and slice_name:
                node = node.slices.get(slice_name)
        return node


@dataclass(slots=True)
class Profile:
    """One profile, compiled from a differential, above the profile it is built on (None: a base type)."""

    url: str
    type: str
    root: Node
    base: "Profile | None"

    @property
    def label(self) -> str:
        """The last part of the URL, for texts."""
        return self.url.rpartition("/")[2]

    def lineage(self) -> "Iterator[Profile]":
        """The profile and those that it is built on, nearest first."""
        found: Profile | None = self
        while found is not None:
            yield found
            found = found.base

    def slicing(self, node: Node, steps: Steps) -> Json:
        """How the values of an element fall into slices: said here or below; extensions by their URL."""
        for each in (node, *self.inherited(steps)):
            if "slicing" in each.facts:
                slicing: Json = each.facts["slicing"]
                return slicing
        return {"discriminator": _BY_URL} if node.name in ("extension", "modifierExtension") else {}

    def inherited(self, steps: Steps) -> list[Node]:
        """The nodes at the same place in the profiles below, nearest first."""
        found, profile = [], self.base
        while profile is not None:
            node = profile.root.at(steps)
            if node is not None:
                found.append(node)
            profile = profile.base
        return found


@library.per_selection
def profile(url: str) -> Profile:
    """The tree of a known profile by its URL without version."""
    definition = library.profiles()[url]
    root = Node(definition["type"], definition["type"])
    for element in definition["differential"]["element"]:
        _node(root, element["id"].split(".")[1:]).facts.update(element)
    base = unversioned(definition["baseDefinition"])
    return Profile(url, definition["type"], root, profile(base) if base in library.profiles() else None)


def _node(root: Node, steps: list[str]) -> Node:
    node = root
    for step in steps:
        name, _, slice_name = step.partition(":")
        if name.endswith("[x]") and slice_name.startswith(name[:-3]):  # a typed choice: value[x]:valueQuantity
            name, slice_name = slice_name, ""
        node = node.children.setdefault(name, Node(name, f"{node.path}.{name.removesuffix('[x]')}"))
        if slice_name:
            node = node.slices.setdefault(slice_name, Node(name, node.path))
    return node
