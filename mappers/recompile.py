"""Puts a user's rows to use: all tables of all mappers are compiled again with them, at the start of a process."""

import sys
from importlib.resources import files

from mappers import codesystems, overrides
from mappers.cda import dialect
from mappers.fhir import derived, measures, quantities
from mappers.hl7v2 import compiled, kinds, rules
from mappers.instruments import catalogue
from mappers.overrides import OverrideError, Overrides

# Files that are read where they are used and not before, by package: a name outside is a slip of the pen.
_SHIPPED = {"hl7v2": "mappers.hl7v2", "cda": "mappers.cda", "fhir": "mappers.fhir"}
_FIXED = {"identity.toml"}  # other identities would make second resources of old messages


def install(rows: Overrides) -> None:
    """Compiles all tables with these rows. Raises OverrideError if one is wrong; the earlier ones then stay in use."""
    _known(rows)
    earlier = overrides.use(rows)
    try:
        _compile()
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, FileNotFoundError) as bad:
        overrides.use(earlier)
        _compile()
        names = ", ".join(f"{package}/{name}" for package, name in rows.files)
        text = f"A row of {names} can not be used: {bad}. See docs/mapping.md for what a row may hold."
        raise OverrideError(text) from bad


def _known(rows: Overrides) -> None:
    for package, owner in _SHIPPED.items():
        shipped = {one.name for one in files(owner).joinpath("tables").iterdir()} - _FIXED
        for name in rows.names(package):
            if name not in shipped:
                raise OverrideError(
                    f"{package}/{name}: there is no such table; there are {', '.join(sorted(shipped))}."
                )


def _compile() -> None:
    """Forgets what was read, and reads all of it, so that a wrong row is found now and not with a patient's message."""
    for name, module in list(sys.modules.items()):
        if name == "mappers" or name.startswith("mappers."):
            for value in list(vars(module).values()):
                if callable(getattr(value, "cache_clear", None)):
                    value.cache_clear()
    compiled.recompile()
    for one in files("mappers.cda").joinpath("tables").iterdir():
        if "[[row]]" in one.read_text("utf-8"):
            dialect.table(one.name.removesuffix(".toml"))
    for name in overrides.current().names("codesystems"):
        if name.endswith(".json"):
            codesystems.code_map(name.removesuffix(".json"))
    for read in (measures.tables, quantities.units, derived.limits, catalogue, kinds.items, rules.rules):
        read()
    kinds.kind_of("8867-4^^LN")  # reads the table of observations
