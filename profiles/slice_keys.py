"""What makes a slice, where one look-up tells: the short way of `profiles.matching.matcher`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from profiles.matching import coding_of, drill, expectation, expected, extension_urls, wanted_of
from profiles.tree import Node

Json = dict[str, Any]


class Form(StrEnum):
    """What a slice's key is compared with."""

    TEXT = "text"  # the string at the path, or the value itself
    CODING = "coding"  # any coding of the CodeableConcept at the path, or of the value itself
    PARTS = "parts"  # system and code of codings, each by a discriminator of its own
    TYPE = "type"  # the type of the resource at the path


@dataclass(frozen=True, slots=True)
class Key:
    """What makes a slice, where looking it up in a table decides: texts, types, or (system, code)."""

    form: Form
    path: tuple[str, ...]  # none or one step
    values: frozenset[Any]


def key_of(discriminators: list[Json], nodes: list[Node]) -> Key | None:
    """The key of a slice that `matcher` would tell the same way; None when it takes more than a look-up."""
    if len(discriminators) == 2:
        return _key_of_parts(discriminators, nodes)
    kind, path = discriminators[0]["type"], discriminators[0]["path"]
    steps = () if path == "$this" else tuple(path.split("."))
    if kind == "type":
        return _key_of_type(steps, nodes) if steps == ("resource",) else None
    if kind not in ("value", "pattern") or len(steps) > 1:
        return None
    return _key_of_value(steps, nodes)


def _key_of_type(steps: tuple[str, ...], nodes: list[Node]) -> Key:
    typed = [child for node in nodes if (child := node.at(steps)) and "type" in child.facts]
    return Key(Form.TYPE, steps, wanted_of(typed[0].facts["type"], by_profile=False) if typed else frozenset())


def _key_of_parts(discriminators: list[Json], nodes: list[Node]) -> Key | None:
    paths = sorted(each["path"] for each in discriminators if each["type"] in ("value", "pattern"))
    if paths != ["coding.code", "coding.system"]:
        return None
    code, system = (_deepest(path.split("."), nodes) for path in paths)
    if type(code) is not str or type(system) is not str:
        return None
    return Key(Form.PARTS, (), frozenset([(system, code)]))


def _key_of_value(steps: tuple[str, ...], nodes: list[Node]) -> Key | None:
    value = _deepest(list(steps), nodes)
    if type(value) is str:
        return Key(Form.TEXT, steps, frozenset([value]))
    if type(value) is frozenset:
        return Key(Form.TEXT, steps, value)
    pair = coding_of(value)
    return Key(Form.CODING, steps, frozenset([pair])) if pair else None


def _deepest(steps: list[str], nodes: list[Node]) -> Any:
    """What the expectation of `_by_value` compares with, when it compares with a constant or an extension's URLs."""
    for node in reversed(nodes):
        if expectation(node, steps) is not None:
            return _constant(node, steps)
    return None


def _constant(node: Node, steps: list[str]) -> Any:
    here = expected(node.facts)
    if here is not None:
        return drill(here[0], steps)
    if not steps:
        return None
    child = node.children.get(steps[0])
    if child is None:
        return extension_urls(node.facts.get("type", []))
    return _constant(child, steps[1:])
