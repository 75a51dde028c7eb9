"""What stands at a path of the base types: the generators ask, before they leave a test out."""

from dataclasses import dataclass, replace
from functools import cache

from profiles import library
from profiles.elements import Element, elements_of


@dataclass(frozen=True, slots=True)
class Shape:
    """An element of a sound structure. Where the tables do not tell, everything is possible."""

    element: Element | None

    @property
    def is_list(self) -> bool | None:
        """Whether its JSON is an array; None: unknown."""
        return self.element.many if self.element else None

    @property
    def is_object(self) -> bool:
        """Whether each value surely is a JSON object."""
        return self.element is not None and not any(kind.is_primitive for kind in self.element.kinds)

    @property
    def is_primitive(self) -> bool:
        """Whether each value surely is none (or null, where its companion stands)."""
        return self.element is not None and all(kind.is_primitive for kind in self.element.kinds)

    @property
    def only(self) -> str | None:
        """The one type that it has; None when there are several, or unknown."""
        return self.element.kinds[0].code if self.element and len(self.element.kinds) == 1 else None


@cache
def shape(path: str) -> Shape:
    """The shape at a path such as `Observation.component.valueQuantity`, or of a choice as `Observation.value`."""
    owner, *steps = path.split(".")
    element: Element | None = None
    for step in steps:
        element = _child(owner, step)
        if element is None:
            return Shape(None)
        owner = element.kinds[0].code if len(element.kinds) == 1 else ""
    return Shape(element)


def _child(owner: str, step: str) -> Element | None:
    for each in elements_of(owner) if owner in library.types() else ():
        if each.name.removesuffix("[x]") == step:
            return each
        for kind in each.kinds if each.is_choice else ():
            if kind.key == step:
                return replace(each, kinds=(kind,))
    return None
