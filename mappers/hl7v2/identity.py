"""Ids by tables/identity.toml: the same parts always give the same id."""

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from mappers.converters import resource_id
from mappers.engine import load
from mappers.hl7v2.context import MessageContext


def _picker(parts: list[str]) -> Callable[[Any], tuple[str, ...]]:
    return itemgetter(*parts) if len(parts) > 1 else lambda known: (known[parts[0]],)


_FACTS: Mapping[str, Any] = load("mappers.hl7v2", "tables/identity.toml")
_ROWS: Mapping[str, tuple[tuple[tuple[str, ...], Callable[[Any], tuple[str, ...]], bool], ...]] = {
    kind: tuple((tuple(row.get("needs", ())), _picker(row["parts"]), row.get("shared", False)) for row in rows)
    for kind, rows in _FACTS.items()
    if kind != "preference"
}
PREFERRED: tuple[str, ...] = tuple(_FACTS["preference"]["Patient"])


def identify(resource_type: str, values: dict[str, str], context: MessageContext) -> str:
    """The id of a resource. `values` are the parts that its rows name, MSH fields and `patient` apart.

    The second of two equal identities in one message gets another id: they never merge.
    """
    known = context.parts | values
    for needs, pick, shared in _ROWS[resource_type]:
        for need in needs:
            if values.get(need):
                break
        else:
            if needs:
                continue
        parts = pick(known)
        made = resource_id(resource_type, *parts)
        if shared:
            return made
        context.seen[made] = count = context.seen.get(made, -1) + 1
        return made if not count else resource_id(resource_type, *parts, str(count))
    raise KeyError(resource_type)  # the last row of each has no `needs`: a bug of the table
