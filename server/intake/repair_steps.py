"""What all repairs are made of: reading JSON of any shape without tripping, and writing down what was done."""

from collections.abc import Callable
from typing import Any

from mappers.conversion import Resource
from profiles.canonical import unversioned
from profiles.issue import Issue, Severity


def note(location: str, text: str) -> Issue:
    """One repair, as it is told and kept."""
    return Issue(Severity.INFORMATION, "informational", location, text)


def rows(value: Any) -> list[Resource]:
    """The objects of a list; nothing if it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def mapped(resource: Resource, element: str, change: Callable[[Resource, int], Resource]) -> Resource:
    """The resource with each object of a list element changed; the same if there is no such list."""
    items = resource.get(element)
    if not isinstance(items, list):
        return resource
    return {**resource, element: [change(i, n) if isinstance(i, dict) else i for n, i in enumerate(items)]}


def claiming(resource: Resource, profile: str, place: str, notes: list[Issue], *, why: str) -> Resource:
    """The resource with the profile among those that it claims, whatever the version."""
    meta = resource.get("meta", {})
    claimed = meta.get("profile", []) if isinstance(meta, dict) else None
    if not isinstance(claimed, list):
        return resource
    if any(isinstance(url, str) and unversioned(url) == unversioned(profile) for url in claimed):
        return resource
    notes.append(note(f"{place}.meta.profile", why))
    return {**resource, "meta": {**meta, "profile": [profile, *claimed]}}
