"""Seeded mutations of our own cases: bytes as a broken line gives them, shapes as a wrong sender does."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest
from lxml import etree

CASES = Path(__file__).parents[1] / "cases"
PATTERNS = {
    "hl7v2": ("hl7v2/*.hl7", "instruments/*.hl7"),
    "cda": ("cda/*.xml", "instruments/*.xml"),
    "fhir": ("fhir/*.json", "instruments/*.json", "profiles/pco-*.json", "profiles/[op]*[pt].json"),
}
# What breaks readers: separators, escapes, numbers at the edge, other encodings, markup where none belongs.
TOKENS = {
    "hl7v2": (
        "|",
        "^",
        "~",
        "&",
        "\\",
        "\\F\\",
        "\\X0D\\",
        "\\Xzz\\",
        "\\.br\\",
        '""',
        "\r",
        "\n",
        "\rMSH|^~\\&|",
        "\rOBX|1|NM|",
        "\rFHS|^~\\&|",
        "\x0b",
        "\x1c\r",
        "1e9999",
        "-",
        "99999999999999999999",
        "20260230",
        "2026081",
        "\ufeff",
        "\x00",
        "é",
        "ED",
        "SN^>^",
        "RP",
        "CWE",
        "2.5.1",
        "UNICODE UTF-8",
        "8859/1",
        "#",
    ),
    "cda": (
        "<",
        ">",
        "</",
        "/>",
        '"',
        "&",
        "&amp;",
        "&#0;",
        "&x;",
        "<!DOCTYPE a [<!ENTITY x 'y'>]>",
        "<!--",
        "]]>",
        "<?xml?>",
        "nullFlavor='UNK'",
        " negationInd='true'",
        " xsi:type='CD'",
        " xsi:type='IVL_PQ'",
        "value='1e999'",
        "\x00",
        "é",
        "\ufeff",
        "<observation>",
        "</section>",
        "2.16.840.1.113883.10.20.22.4.69",
        " xmlns='urn:x'",
        "moodCode='GOL'",
        "20260230",
    ),
    "fhir": (
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"',
        "null",
        "true",
        "1e999",
        "-0",
        "0.10",
        "\\u0000",
        "\\ud800",
        '"id"',
        "é",
        "\ufeff",
        "\x00",
        '"resourceType":"Bundle"',
        '"reference":"Patient/1"',
        "Patient?identifier=a|b",
        "urn:uuid:1",
        "#x",
        '{"resourceType":',
    ),
}
_REFUSED: tuple[Any, ...] = (None, [], {}, [[]], [{}], "", " ")  # no JSON of FHIR holds these anywhere
_VALUES: tuple[Any, ...] = (
    True,
    "x" * 300,
    0,
    -1,
    10**30,
    1.5,
    "Patient/1",
    "#a",
    "2026-13-40",
    {"value": "x"},
    {"reference": "Patient?identifier=a|b"},
    {"resourceType": "Bundle", "type": "batch"},
    "http://loinc.org",
    "44249-1",
)


@pytest.fixture
def cases() -> Callable[[str], list[bytes]]:
    """kind -> the files that are mutated."""
    return _cases


@pytest.fixture
def mutants() -> Callable[[str, int], Iterator[tuple[int, bytes]]]:
    """kind, count -> that many inputs, each with its number."""
    return _mutants


def _cases(kind: str) -> list[bytes]:
    """The files of a kind, in a fixed order."""
    return [path.read_bytes() for pattern in PATTERNS[kind] for path in sorted(CASES.glob(pattern))]


def _mutants(kind: str, count: int, seed: int = 2026) -> Iterator[tuple[int, bytes]]:
    """`count` inputs, each named by its number: number and seed alone make the bytes."""
    sources = _cases(kind)
    for number in range(count):
        chance = Random(f"{kind} {seed} {number}")
        data = chance.choice(sources)
        if kind != "hl7v2" and chance.random() < 0.7:
            yield number, (_reshaped if kind == "fhir" else _rearranged)(data, chance, sources)
            continue
        for _ in range(chance.choice((1, 1, 2, 3, 5, 9))):
            data = chance.choice(_BYTES)(data, chance, (sources, TOKENS[kind]))
        yield number, data


Extra = tuple[list[bytes], tuple[str, ...]]


def _span(data: bytes, chance: Random, longest: int = 200) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.randrange(1, longest))


def _flip(data: bytes, chance: Random, _extra: Extra) -> bytes:
    place = chance.randrange(len(data) or 1)
    return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]


def _cut(data: bytes, chance: Random, _extra: Extra) -> bytes:
    start, end = _span(data, chance)
    return data[:start] + data[end:]


def _truncate(data: bytes, chance: Random, _extra: Extra) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _insert(data: bytes, chance: Random, extra: Extra) -> bytes:
    place = chance.randrange(len(data) + 1)
    token = chance.choice(extra[1]).encode("utf-8", "surrogatepass")
    return data[:place] + token * chance.choice((1, 1, 1, 2, 40)) + data[place:]


def _swap(data: bytes, chance: Random, extra: Extra) -> bytes:
    """A token in the place of some bytes."""
    start, end = _span(data, chance, 12)
    return data[:start] + chance.choice(extra[1]).encode("utf-8", "surrogatepass") + data[end:]


def _repeat(data: bytes, chance: Random, _extra: Extra) -> bytes:
    start, end = _span(data, chance, 600)
    return data[:end] + data[start:end] * chance.choice((1, 2, 30)) + data[end:]


def _move(data: bytes, chance: Random, _extra: Extra) -> bytes:
    start, end = _span(data, chance)
    rest = data[:start] + data[end:]
    place = chance.randrange(len(rest) + 1)
    return rest[:place] + data[start:end] + rest[place:]


def _splice(data: bytes, chance: Random, extra: Extra) -> bytes:
    """The head of this and the tail of another."""
    other = chance.choice(extra[0])
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


_BYTES: tuple[Callable[[bytes, Random, Extra], bytes], ...] = (
    _flip,
    _cut,
    _truncate,
    _insert,
    _insert,
    _swap,
    _swap,
    _repeat,
    _move,
    _splice,
)


def _rearranged(data: bytes, chance: Random, _sources: list[bytes]) -> bytes:
    """The same XML, still well-formed, with elements and attributes lost, doubled, moved or changed."""
    root = etree.fromstring(data)
    for _ in range(chance.choice((1, 2, 4, 8, 20))):
        nodes = [node for node in root.iter() if isinstance(node.tag, str)]
        if len(nodes) > LARGEST:
            break
        _change(chance.choice(nodes), chance.choice(nodes), chance)
    return etree.tostring(root)


def _change(node: Any, other: Any, chance: Random) -> None:
    parent, way = node.getparent(), chance.randrange(8)
    if parent is not None and way < 3:
        copies = (0, 1, 40)[way]
        for _ in range(copies):
            parent.insert(0, deepcopy(node))
        if not copies:
            parent.remove(node)
    elif way == 3 and node not in other.iterancestors() and node is not other:
        other.append(deepcopy(node))
    elif way == 4:
        node.text = chance.choice(_TEXTS)
    elif way == 5:
        node.tag = other.tag
    elif node.attrib:
        name = chance.choice(sorted(node.attrib))
        node.attrib.pop(name)
        if way == 6:
            node.set(chance.choice((name, *sorted(other.attrib))), chance.choice((*_TEXTS, *other.attrib.values())))


LARGEST = 5000  # elements: copies of copies would be a test of patience
_TEXTS = (
    "",
    "x" * 500,
    "1e999",
    "-1",
    "20260230",
    "20260820101500-0400",
    "PQ",
    "CD",
    "IVL_TS",
    "ED",
    "http://loinc.org",
    "NI",
    "2.16.840.1.113883.6.1",
    "2.16.840.1.113883.10.20.22.4.69",
    "44249-1",
    "LA6569-3",
    "true",
    "INT",
    "mm[Hg]",
    "#a",
    "é",
)


def _reshaped(data: bytes, chance: Random, sources: list[bytes]) -> bytes:
    """The same JSON, alone or in a Bundle with others, with values, names and lists changed somewhere."""
    value = json.loads(data)
    if value["resourceType"] != "Bundle" and chance.random() < 0.5:
        others = [json.loads(one) for one in chance.choices(sources, k=chance.randrange(4))]
        value = {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [_entry(one, chance) for one in (value, *others)],
        }
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        value = _changed(value, chance, stay=0)
    return json.dumps(value).encode()


def _entry(resource: Any, chance: Random) -> Any:
    kind = resource["resourceType"]
    method, url = chance.choice((("POST", kind), ("PUT", f"{kind}/a"), ("PUT", f"{kind}?identifier=a|b"), ("POST", "")))
    return {
        "fullUrl": f"urn:uuid:{chance.randrange(3)}",
        "resource": resource,
        "request": {"method": method, "url": url},
    }


def _changed(value: Any, chance: Random, stay: float = 0.15) -> Any:
    """One change: here, at the chance `stay`, else at a random place below."""
    if isinstance(value, dict) and value and chance.random() >= stay:
        key = chance.choice([name for name in value if name != "resourceType" or chance.random() < 0.1] or list(value))
        if len(value) > 1 and chance.random() < 0.12:
            return {name: part for name, part in value.items() if name != key}
        if chance.random() < 0.08:
            other = chance.choice(list(value))
            return {**value, key: value[other], other: value[key]}
        return {**value, key: _changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() >= stay:
        place = chance.randrange(len(value))
        if chance.random() < 0.2:
            return (
                value[:place] + [value[place]] * chance.choice((0 if len(value) > 1 else 2, 2, 40)) + value[place + 1 :]
            )
        return [*value[:place], _changed(value[place], chance), *value[place + 1 :]]
    if chance.random() < 0.05:
        return _deep(value, chance.choice((5, 60, 70, 400)))
    return chance.choice(_REFUSED if chance.random() < 0.05 else _VALUES)


def _deep(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = {"extension": [value]} if depth % 2 else [value]
    return value
