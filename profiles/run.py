"""What one validation carries along: the issues found, and the resources that references may point to."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from profiles.issue import Issue, Severity
from profiles.place import Place, render

MAX_ISSUES = 500  # of one resource: a hostile body must not buy a longer answer than it is worth
_MAX_HINTS = 20
_MAX_WORD = 64
_VERSIONED = re.compile(r"/_history/[^/]+$")
_is_type_and_id = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}", re.ASCII).fullmatch


class Scope:
    """A resource, and the resource that holds it: where `resolve()` looks.

    `checked` is shared by all resources of one validation: (identity of a value, URL of a profile it was held against).
    """

    __slots__ = ("_bundle", "_contained", "_entries", "checked", "outer", "resource")

    def __init__(self, resource: dict[str, Any], outer: "Scope | None" = None) -> None:
        self.resource = resource
        self.outer = outer
        self.checked: set[tuple[int, str]] = outer.checked if outer is not None else set()
        holds_entries = resource.get("resourceType") == "Bundle"
        self._bundle: Scope | None = self if holds_entries else outer._bundle if outer is not None else None
        self._contained: dict[str, Any] | None = None
        self._entries: dict[str, Any] | None = None

    def resolve(self, reference: str) -> dict[str, Any] | None:
        """The resource a literal reference names, when it is contained or in the Bundle around; else None."""
        if reference.startswith("#"):
            return self._resolve_contained(reference[1:])
        if self._bundle is None:
            return None
        entries = self._bundle.entries()
        found = entries.get(reference)
        if found is None and "/_history/" in reference:
            found = entries.get(_VERSIONED.sub("", reference))
        return found

    def _resolve_contained(self, name: str) -> dict[str, Any] | None:
        scope: Scope | None = self
        while scope is not None:
            found = scope.contained().get(name)
            if found is not None or not name:
                return found if name else scope.resource
            scope = scope.outer
        return None

    def contained(self) -> dict[str, Any]:
        """The contained resources by id."""
        if self._contained is None:
            self._contained = {}
            inside = self.resource.get("contained")
            for each in inside if type(inside) is list else ():
                if type(each) is dict and type(each.get("id")) is str:
                    self._contained[each["id"]] = each
        return self._contained

    def entries(self) -> dict[str, Any]:
        """The Bundle's resources by every reference that finds them: fullUrl, and `Type/id` where the rules allow."""
        if self._entries is None:
            self._entries = {}
            entries = self.resource.get("entry")
            for entry in entries if type(entries) is list else ():
                if type(entry) is dict and type(entry.get("resource")) is dict:
                    self._entries.update(_names(entry))
        return self._entries


def _names(entry: dict[str, Any]) -> dict[str, Any]:
    url, resource = entry.get("fullUrl"), entry["resource"]
    kind, identity = resource.get("resourceType"), resource.get("id")
    if type(url) is not str:
        return {f"{kind}/{identity}": resource}
    relative = "/".join(url.rsplit("/", 2)[-2:])
    return {url: resource, relative: resource} if _is_type_and_id(relative) else {url: resource}


class Run:
    """One call of validate(): collects issues; `scope` is the resource that is being walked.

    `broken` counts the errors of structure so far; `sound` says whether the resource whose profiles run has none.
    """

    __slots__ = ("_hints", "broken", "issues", "named", "scope", "sound")

    def __init__(self, named: tuple[str, ...] = ()) -> None:
        self.issues: list[Issue] = []
        self.named = named
        self.scope: Scope = Scope({})
        self._hints = 0
        self.broken = 0
        self.sound = True

    def refuse(self, code: str, place: Place, text: str) -> None:
        """Adds an error of structure: rules that trust the structure will not run on what holds it."""
        self.broken += 1
        self.error(code, place, text)

    def error(self, code: str, place: Place, text: str) -> None:
        """Adds an error at the place."""
        self._add(Severity.ERROR, code, place, text)

    def warning(self, code: str, place: Place, text: str) -> None:
        """Adds a warning at the place."""
        self._add(Severity.WARNING, code, place, text)

    def information(self, code: str, place: Place, text: str) -> None:
        """Adds a note at the place."""
        self._add(Severity.INFORMATION, code, place, text)

    def near(self, word: str, known: Iterable[str]) -> str | None:
        """The known name that the word was probably meant to be; only for the first few words, because it is slow."""
        self._hints += 1
        if self._hints > _MAX_HINTS or len(word) > _MAX_WORD:
            return None
        return next(iter(get_close_matches(word, known, n=1, cutoff=0.75)), None)

    def _add(self, severity: Severity, code: str, place: Place, text: str) -> None:
        if len(self.issues) < MAX_ISSUES:
            self.issues.append(Issue(severity, code, render(place), text))
        elif len(self.issues) == MAX_ISSUES:
            rest = f"More than {MAX_ISSUES} findings: the rest is left out; correct these first."
            self.issues.append(Issue(Severity.ERROR, "too-costly", "", rest))
