"""Where in a resource a check stands: linked tuples, cheap to make on the hot path, written as FHIRPath when needed."""

from typing import Any, TypeAlias

Place: TypeAlias = tuple[Any, str, int]  # (the parent Place or None, element name, index in its array or -1)


def root(name: str) -> Place:
    """The place of a whole resource."""
    return (None, name, -1)


def render(place: Place) -> str:
    """FHIRPath, such as `Bundle.entry[2].resource.component[0].value.ofType(Quantity).code`."""
    steps = []
    step: Place | None = place
    while step is not None:
        parent, name, index = step
        steps.append(name if index < 0 else f"{name}[{index}]")
        step = parent
    return ".".join(reversed(steps))
