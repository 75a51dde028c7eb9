"""Ids by tables/identity.toml: the same parts always give the same id."""

from collections.abc import Callable, Mapping
from typing import Any

from mappers.converters import SEPARATOR, resource_id
from mappers.engine import load
from mappers.hl7v2.context import MESSAGE_PARTS, MessageContext

# The parts of one identity, joined: from those of the message and those of the resource.
Joined = Callable[[Mapping[str, str], Mapping[str, str]], str]


def _joined(resource_type: str, parts: list[str]) -> Joined:
    """Written out, as each id of each message passes through it. The source holds names of parts only."""
    taken = [f"{'message' if part in MESSAGE_PARTS else 'values'}[{part!r}]" for part in parts]
    source = f"lambda message, values: {SEPARATOR!r}.join(({resource_type!r}, {', '.join(taken)}))"
    made: Joined = eval(source, {})  # noqa: S307 - written here, from our own table
    return made


_FACTS: Mapping[str, Any] = load("mappers.hl7v2", "tables/identity.toml")
_ROWS: Mapping[str, tuple[tuple[tuple[str, ...], Joined, bool], ...]] = {
    kind: tuple((tuple(row.get("needs", ())), _joined(kind, row["parts"]), row.get("shared", False)) for row in rows)
    for kind, rows in _FACTS.items()
    if kind != "preference"
}
PREFERRED: tuple[str, ...] = tuple(_FACTS["preference"]["Patient"])


def identify(resource_type: str, values: dict[str, str], context: MessageContext) -> str:
    """The id of a resource. `values` are the parts that its rows name, those of the message apart.

    The second of two equal identities in one message gets another id: they never merge.
    """
    for needs, joined, shared in _ROWS[resource_type]:
        for need in needs:
            if values.get(need):
                break
        else:
            if needs:
                continue
        parts = joined(context.parts, values)
        made = resource_id(parts)
        if shared:
            return made
        seen = context.seen
        if made not in seen:
            seen[made] = 0
            return made
        seen[made] += 1
        return resource_id(parts, str(seen[made]))
    raise KeyError(resource_type)  # the last row of each has no `needs`: a bug of the table
