"""SMART scopes: read, cut to what is registered, and asked for rights. Pure.

Shape of a scope: `system/{type or *}.{rights}`, rights a subset of `cruds` in that order (SMART 2.x) or
`read`, `write`, `*` (SMART 1.0). Others that we know are listed in OWN. What we can not hold to (`patient/`, `user/`,
a `?search` restriction) is never granted.
Source: SMART App Launch 2.2, section "Scopes for requesting FHIR Resources".
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

RIGHTS = "cruds"
VERSION_1 = {"read": "rs", "write": "cud", "*": RIGHTS}
OWN = frozenset({"access/submit"})  # the CMS-shaped front door: send to CMS, read the submission's status
_SYSTEM = re.compile(r"system/(\*|[A-Z][A-Za-z]{1,63})\.(read|write|\*|c?r?u?d?s?)")


def parse(scope: str) -> tuple[str, str] | None:
    """Resource type (or `*`) and rights of one SMART scope; None if it is not one that we grant."""
    match = _SYSTEM.fullmatch(scope)
    if not match or not match[2]:
        return None
    return match[1], VERSION_1.get(match[2], match[2])


@lru_cache(maxsize=1024)
def grants(scopes: frozenset[str]) -> Mapping[str, frozenset[str]]:
    """Rights for each resource type (or `*`) that these scopes give."""
    found: dict[str, frozenset[str]] = {}
    for scope in scopes:
        if parsed := parse(scope):
            found[parsed[0]] = found.get(parsed[0], frozenset()) | frozenset(parsed[1])
    return MappingProxyType(found)


def allows(scopes: frozenset[str], resource_type: str, right: str) -> bool:
    """Whether these scopes give `right` (c, r, u, d, s) on a resource type."""
    given = grants(scopes)
    return right in given.get(resource_type, ()) or right in given.get("*", ())


def intersect(asked: str, registered: str) -> str:
    """The scopes to grant: what was asked for, cut to what is registered. Empty when nothing is left.

    Shape: space-separated, in the order asked; a scope that is granted whole stays as it was written.
    """
    known = frozenset(registered.split())
    granted: list[str] = []
    for scope in asked.split():
        granted.extend(item for item in _granted(scope, known) if item not in granted)
    return " ".join(granted)


def _granted(scope: str, registered: frozenset[str]) -> Iterable[str]:
    if scope in OWN:
        return (scope,) if scope in registered else ()
    parsed = parse(scope)
    if parsed is None:
        return ()
    resource_type, rights = parsed
    if all(allows(registered, resource_type, right) for right in rights):
        return (scope,)
    types = sorted(grants(registered)) if resource_type == "*" else [resource_type]
    cut = ((name, "".join(r for r in RIGHTS if r in rights and allows(registered, name, r))) for name in types)
    return tuple(f"system/{name}.{left}" for name, left in cut if left)
