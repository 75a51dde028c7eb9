"""A measured quantity in the unit that CMS's report takes, by table, in exact decimals."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import cache
from typing import Any

from mappers.engine import load
from profiles.canonical import UCUM

_EXACT = Context(prec=60, rounding=ROUND_HALF_UP)


@dataclass(frozen=True, slots=True)
class Conversion:
    """value * multiply / divide + add; a row of tables/units.toml. `source` says where the numbers come from."""

    source: str
    multiply: Decimal = Decimal(1)
    divide: Decimal = Decimal(1)
    add: Decimal = Decimal(0)

    @property
    def changes(self) -> bool:
        """Whether the number changes, not only the spelling of its unit."""
        return (self.multiply, self.divide, self.add) != (Decimal(1), Decimal(1), Decimal(0))

    def apply(self, value: Decimal, digits: int) -> Decimal:
        """The converted number, rounded half up to `digits` decimals; a mere spelling leaves it untouched."""
        return _EXACT.quantize(self.exact(value), Decimal(1).scaleb(-digits)) if self.changes else value

    def exact(self, value: Decimal) -> Decimal:
        """The converted number, unrounded (to 60 digits)."""
        return _EXACT.add(_EXACT.divide(_EXACT.multiply(value, self.multiply), self.divide), self.add)


_SAME = Conversion(source="already the unit of the report")


@dataclass(frozen=True, slots=True)
class Units:
    """The rows of tables/units.toml: by measure and UCUM code, and by what people write."""

    conversions: dict[tuple[str, str], Conversion]
    spellings: dict[str, str]

    def conversion(self, measure: str, unit: str, *, target: str) -> Conversion | None:
        """How `unit` becomes `target` for one measure; None when no row says it."""
        return _SAME if unit == target else self.conversions.get((measure, unit))


def _squeeze(text: str) -> str:
    return "".join(text.split()).casefold()


@cache
def units() -> Units:
    """The table of units, read once."""
    data = load("mappers.fhir", "tables/units.toml")
    conversions = {(row["measure"], row["unit"]): _conversion(row) for row in data["conversion"]}
    spellings = {_squeeze(text): row["ucum"] for row in data["spelling"] for text in row["text"]}
    return Units(conversions, spellings)


def _conversion(row: dict[str, str]) -> Conversion:
    numbers = {name: Decimal(row[name]) for name in ("multiply", "divide", "add") if name in row}
    return Conversion(source=row["source"], **numbers)


def ucum_code(quantity: dict[str, Any]) -> str | None:
    """The UCUM code of a Quantity: its `code` if the system is UCUM, else its text by the table of spellings.

    A code with the UCUM system that is no known spelling is given back as it stands; None: the unit says nothing.
    """
    table = units()
    code, unit = quantity.get("code"), quantity.get("unit")
    if isinstance(code, str) and quantity.get("system") == UCUM:
        return table.spellings.get(_squeeze(code), code)
    for text in (code, unit):
        if isinstance(text, str) and text.strip():
            return table.spellings.get(_squeeze(text), text.strip())
    return None
