"""One row of a mapping table, as read from TOML; what the keys mean stands in `mappers.engine`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ANY = "*"
EMPTY = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One rule."""

    path: str | None
    to: str | None = None
    datatype: str | None = None
    extras: tuple[str, ...] = ()
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    map: str | None = None
    value: Any = None
    extension: str | None = None
    left: str | None = None
    source: str = ""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "Row":
        """A row from its TOML table. Raises ValueError for an unknown key: the table is ours, so that is a bug."""
        unknown = raw.keys() - _ROW_KEYS.keys()
        if unknown or not ("from" in raw or "to" in raw):
            raise ValueError(f"mapping row {dict(raw)!r} is not understood")
        values = {_ROW_KEYS[key]: value for key, value in raw.items()}
        values["when"] = {path: tuple(held) for path, held in raw.get("when", {}).items()}
        values["extras"] = tuple(raw.get("with", ()))
        return cls(**{"path": None, **values})


_ROW_KEYS = {
    "from": "path",
    "to": "to",
    "datatype": "datatype",
    "with": "extras",
    "when": "when",
    "map": "map",
    "value": "value",
    "extension": "extension",
    "left": "left",
    "source": "source",
}
