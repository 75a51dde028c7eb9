"""Python source in the making: what the generators of the fast lanes have in common.

Whatever comes from a definition is written into the source as a Python literal or bound to a name, never as text,
because a definition may come from a package that someone downloaded.
"""

from itertools import count
from typing import Any

Lines = list[str]
NO = "return False"

_numbers = count()
_names: dict[str, Any] = {"EMPTY": {}}  # what the generated functions refer to


def indented(lines: Lines) -> Lines:
    """The lines one level further in."""
    return [f"    {line}" for line in lines]


def when(condition: str, lines: Lines) -> Lines:
    """The lines under an `if`; nothing when there are none."""
    return [f"if {condition}:", *indented(lines)] if lines else []


def fresh(stem: str) -> str:
    """A variable that no other line uses."""
    return f"{stem}{next(_numbers)}"


def named(value: Any) -> str:
    """A name under which the generated functions find the object."""
    name = fresh("o")
    _names[name] = value
    return name


def function(label: str, lines: Lines) -> Any:
    """A function of (v, s), a value and its scope: runs the lines, then says yes. `label` is an identifier."""
    source = "\n".join([f"def {label}(v, s):", *indented(lines), "    return True"])
    made: dict[str, Any] = {}
    exec(compile(source, f"<{label}>", "exec"), _names, made)  # noqa: S102 - literals and names only
    return made[label]
