"""Literal references: their form, and the type of resource that they name. Source: FHIR R4 4.0.1, References."""

import re
from typing import Any

from profiles import library
from profiles.run import Scope

_RELATIVE = re.compile(r"([A-Z][A-Za-z]{0,63})/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?").fullmatch
_ABSOLUTE = re.compile(r"https?://\S+/([A-Z][A-Za-z]{0,63})/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?")
_OTHER_FORM = re.compile(r"#|[A-Za-z][A-Za-z0-9+.\-]*:|[A-Z][A-Za-z]{0,63}\?").match  # contained, absolute, conditional


def literal_type(reference: str) -> str | None:
    """The resource type that a literal reference names, if it names one."""
    found = _RELATIVE(reference) or _ABSOLUTE.fullmatch(reference)
    return found[1] if found and found[1] in library.resource_types() else None


def is_well_formed(value: dict[str, Any], scope: Scope) -> bool:
    """Whether the text of a Reference is `Type/id` of an R4 type, contained, absolute or conditional, or absent."""
    text = value.get("reference")
    if text is None:
        return True
    found = _RELATIVE(text)
    return found[1] in library.resource_types() if found else _OTHER_FORM(text) is not None


def may_refer(value: dict[str, Any], scope: Scope, targets: frozenset[str]) -> bool:
    """Whether a Reference names one of the types, or none that can be told."""
    text = value.get("reference")
    if text is None or text.partition("/")[0] in targets:
        return True
    kind = literal_type(text)
    if kind is None:
        target = scope.resolve(text)
        kind = target.get("resourceType") if target else None
    return kind is None or kind in targets
