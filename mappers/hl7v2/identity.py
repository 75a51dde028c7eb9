"""Ids by tables/identity.toml: the same parts always give the same id."""

from collections.abc import Mapping
from typing import Any

from mappers.converters import resource_id
from mappers.engine import load
from mappers.hl7v2.context import MessageContext

_FACTS: Mapping[str, Any] = load("mappers.hl7v2", "tables/identity.toml")
_ROWS: Mapping[str, tuple[tuple[tuple[str, ...], tuple[str, ...], bool], ...]] = {
    kind: tuple((tuple(row.get("needs", ())), tuple(row["parts"]), row.get("shared", False)) for row in rows)
    for kind, rows in _FACTS.items()
    if kind != "preference"
}
PREFERRED: tuple[str, ...] = tuple(_FACTS["preference"]["Patient"])


def identify(resource_type: str, values: Mapping[str, str], context: MessageContext) -> str:
    """The id of a resource. `values` are the parts that its rows name, MSH fields and `patient` apart."""
    known = context.parts
    for needs, parts, shared in _ROWS[resource_type]:
        if needs and not any(map(values.get, needs)):
            continue
        found = [values[part] if part in values else known.get(part, "") for part in parts]
        return resource_id(resource_type, *found) if shared else context.counted(resource_type, found)
    raise KeyError(resource_type)  # the last row of each has no `needs`: a bug of the table
