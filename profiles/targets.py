"""What a reference may point to, by the target profiles of an element."""

from enum import StrEnum

from profiles import library
from profiles.matching import claims
from profiles.references import literal_type
from profiles.run import Scope


class Fit(StrEnum):
    """How the target of a reference fits."""

    YES = "yes"  # or nobody can say
    OTHER_TYPE = "other-type"
    UNCLAIMED = "unclaimed"  # of a right type, in sight, and without a claim of a wanted profile


class Targets:
    """What a reference may point to."""

    __slots__ = ("_any_of", "_types", "_wanted")

    def __init__(self, urls: list[str]) -> None:
        types = [library.type_of(url) for url in urls]
        told = all(types) and "Resource" not in urls[0]
        self._types = frozenset(name for name in types if name) if told else frozenset()
        self._any_of = frozenset(
            name for url, name in zip(urls, types, strict=True) if name and url.endswith("/" + name)
        )
        self._wanted = frozenset(urls)

    def __bool__(self) -> bool:
        """Whether anything can be refused."""
        return bool(self._types)

    def fit(self, reference: str, scope: Scope) -> Fit:
        """How the target named by a literal reference fits: its type always, its profile where it can be seen."""
        target = scope.resolve(reference)
        if target is None and reference.partition("/")[0] in self._types:
            return Fit.YES
        kind = target.get("resourceType") if target else literal_type(reference)
        if type(kind) is not str or not self._types:
            return Fit.YES
        if kind not in self._types:
            return Fit.OTHER_TYPE
        seen = target is None or kind in self._any_of or claims(target, self._wanted)
        return Fit.YES if seen else Fit.UNCLAIMED
