"""Repairs of a report's document Bundle: narrative, profiles, references, Questionnaires, one coding a section.

Source: ACCESS API IG 0.9.12, data reporting; FHIR R4 4.0.1, Bundle, resolving references; CMS's test environment, which
wants `text` on every resource and a Questionnaire that it can resolve.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from mappers.conversion import Resource
from mappers.fhir.measures import tables
from mappers.narrative import generated, narrative
from mappers.report import minimal_questionnaire
from profiles import fhir_json
from profiles.canonical import (
    LOINC,
    REPORTING_BUNDLE,
    REPORTING_COMPOSITION,
    TRACK,
    US_CORE_PINNED,
    unversioned,
)
from profiles.issue import Issue
from profiles.validate import validate
from server.intake.repair_steps import claiming, mapped, note, rows

# The profile that CMS wants an entry to claim, where it follows from the type alone.
_PROFILES = {
    "Composition": REPORTING_COMPOSITION,
    "Practitioner": US_CORE_PINNED("us-core-practitioner"),
    "PractitionerRole": US_CORE_PINNED("us-core-practitionerrole"),
    "Organization": US_CORE_PINNED("us-core-organization"),
    "QuestionnaireResponse": US_CORE_PINNED("us-core-questionnaireresponse"),
    "DiagnosticReport": US_CORE_PINNED("us-core-diagnosticreport-lab"),
}
_TYPE_AND_ID = re.compile(r"([A-Z][A-Za-z]{0,63}/[A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?$")
_UUID = re.compile(r"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

Step = Callable[[Resource, str, list[Issue]], Resource]


def repaired_report(bundle: Resource, place: str, notes: list[Issue], *, base_url: str) -> Resource:
    """The Bundle as CMS takes it; `notes` gets what was put right. Values, times and statuses are never touched."""
    why = "The profile of the reporting Bundle was added."
    bundle = claiming(bundle, REPORTING_BUNDLE, place, notes, why=why)

    def entry(one: Resource, number: int) -> Resource:
        resource, here = one.get("resource"), f"{place}.entry[{number}].resource"
        if not isinstance(resource, dict):
            return one
        for step in _STEPS:
            resource = step(resource, here, notes)
        return {**one, "resource": resource}

    bundle = mapped(bundle, "entry", entry)
    bundle = _with_questionnaires(bundle, place, notes)
    return _resolvable(bundle, place, notes, base_url=base_url)


def _claimed(resource: Resource, place: str, notes: list[Issue]) -> Resource:
    """A profile where the resource claims none: by its type, of an Observation by its code."""
    meta = resource.get("meta", {})
    if not isinstance(meta, dict) or meta.get("profile"):
        return resource
    profile = _PROFILES.get(str(resource.get("resourceType"))) or _of_measure(resource)
    if profile is None:
        return resource
    return claiming(resource, profile, place, notes, why="The profile was added, which CMS wants each entry to claim.")


def _of_measure(resource: Resource) -> str | None:
    code = resource.get("code")
    if resource.get("resourceType") != "Observation" or not isinstance(code, dict):
        return None
    known = tables().measures
    codes = [coding.get("code") for coding in rows(code.get("coding")) if coding.get("system") == LOINC]
    return next((US_CORE_PINNED(known[one].profile) for one in codes if isinstance(one, str) and one in known), None)


def _section_codes(resource: Resource, place: str, notes: list[Issue]) -> Resource:
    """One coding in the track's section, equal to the parameter `track`: CMS compares the lists."""

    def section(one: Resource, number: int) -> Resource:
        concept = one.get("code")
        codings = rows(concept.get("coding")) if isinstance(concept, dict) else []
        own = [coding for coding in codings if coding.get("system") == TRACK]
        if not isinstance(concept, dict) or len(own) != 1 or len(codings) == 1:
            return one
        notes.append(note(f"{place}.section[{number}].code.coding", "Only the coding of the track was kept."))
        return {**one, "code": {**concept, "coding": own}}

    return mapped(resource, "section", section) if resource.get("resourceType") == "Composition" else resource


def _told(resource: Resource, place: str, notes: list[Issue]) -> Resource:
    """Narrative where there is none: what the resource says, without names and numbers of people."""
    if resource.get("resourceType") == "Composition":
        resource = _sections_told(resource, place, notes)
    if "text" in resource or not _is_sound(resource):
        return resource
    notes.append(note(f"{place}.text", "A narrative was generated, which CMS wants on every resource of a report."))
    head = {name: resource[name] for name in ("resourceType", "id", "meta") if name in resource}
    return head | {"text": narrative(resource)} | {k: v for k, v in resource.items() if k not in head}


def _sections_told(composition: Resource, place: str, notes: list[Issue]) -> Resource:
    def section(one: Resource, number: int) -> Resource:
        if "text" in one:
            return one
        notes.append(note(f"{place}.section[{number}].text", "A narrative was generated for the section."))
        title = one.get("title")
        parts = [part["title"] for part in rows(one.get("section")) if isinstance(part.get("title"), str)]
        sentence = f"{title if isinstance(title, str) else 'Section'}: {', '.join(parts) or 'see the entries'}."
        return {**one, "text": generated(sentence)}

    return mapped(composition, "section", section)


def _is_sound(resource: Resource) -> bool:
    """Whether base R4 holds, profiles aside: narrative is made of sound resources only."""
    bare = {name: value for name, value in resource.items() if name != "meta"}
    return not any(issue.is_error for issue in validate(bare))


_STEPS: tuple[Step, ...] = (_claimed, _section_codes, _told)


def _with_questionnaires(bundle: Resource, place: str, notes: list[Issue]) -> Resource:
    """A bare Questionnaire for each canonical that is named and not there."""
    entries = bundle.get("entry")
    resources = [r for entry in rows(entries) if isinstance(r := entry.get("resource"), dict)]
    known = {str(r.get("url")) for r in resources if r.get("resourceType") == "Questionnaire"}
    added = []
    for response in resources:
        named = response.get("questionnaire") if response.get("resourceType") == "QuestionnaireResponse" else None
        if isinstance(named, str) and unversioned(named) not in known and _is_sound(response):
            known.add(unversioned(named))
            added.append({"resource": minimal_questionnaire(response)})
            notes.append(note(f"{place}.entry", "A bare Questionnaire was added: CMS could not resolve the canonical."))
    return {**bundle, "entry": [*entries, *added]} if added and isinstance(entries, list) else bundle


def _resolvable(bundle: Resource, place: str, notes: list[Issue], *, base_url: str) -> Resource:
    """Each entry with a usable fullUrl, and each reference to an entry as R4's rules find it."""
    entries = bundle.get("entry")
    if not isinstance(entries, list):
        return bundle
    base = next((own for entry in rows(entries) if (own := _base(entry))), f"{base_url}/")
    urls = [_full_url(entry, base) if isinstance(entry, dict) else None for entry in entries]
    names = _names(entries, urls)

    def entry(one: Resource, number: int) -> Resource:
        url, here = urls[number], f"{place}.entry[{number}]"
        if url is None:
            return one
        if one.get("fullUrl") != url:
            notes.append(note(f"{here}.fullUrl", "A usable fullUrl was given to the entry."))
            one = {"fullUrl": url} | {name: value for name, value in one.items() if name != "fullUrl"}
        own_base = _base(one) or ""
        found = _References(own_base, frozenset(filter(None, urls)), names, notes)
        if not found.astray(one["resource"]):
            return one
        return {**one, "resource": found.pointed(one["resource"], f"{here}.resource")}

    return mapped(bundle, "entry", entry)


def _base(entry: Resource) -> str | None:
    """What relative references of an entry are relative to; None under another kind of fullUrl."""
    url, resource = entry.get("fullUrl"), entry.get("resource")
    if not isinstance(url, str) or not isinstance(resource, dict) or not url.startswith(("http://", "https://")):
        return None
    own = f"{resource.get('resourceType')}/{resource.get('id')}"
    return url.removesuffix(own) if url.endswith(f"/{own}") else None


def _full_url(entry: Resource, base: str) -> str | None:
    """The entry's own if it can be used; else one made of its type and id, or of its content."""
    url, resource = entry.get("fullUrl"), entry.get("resource")
    if not isinstance(resource, dict):
        return None
    if isinstance(url, str) and (url.startswith(("http://", "https://", "urn:oid:")) or _UUID.fullmatch(url)):
        return url
    kind, identity = resource.get("resourceType"), resource.get("id")
    if isinstance(kind, str) and isinstance(identity, str) and _TYPE_AND_ID.fullmatch(f"{kind}/{identity}"):
        return f"{base}{kind}/{identity}"
    return f"urn:uuid:{uuid5(NAMESPACE_URL, fhir_json.dump(resource).decode())}"


def _names(entries: list[Any], urls: list[str | None]) -> dict[str, str]:
    """By every name that a sender may use for an entry, its fullUrl; a name of two entries is none."""
    found: dict[str, set[str]] = {}
    for entry, url in zip(entries, urls, strict=True):
        if url is not None:
            for name in _aliases(entry):
                found.setdefault(name, set()).add(url)
    return {name: next(iter(of)) for name, of in found.items() if len(of) == 1}


def _aliases(entry: Resource) -> Iterator[str]:
    url, resource = entry.get("fullUrl"), entry["resource"]
    if isinstance(url, str):
        yield url
        relative = _TYPE_AND_ID.search(url)
        yield from (relative[1],) if relative else ()
    if isinstance(resource.get("id"), str):
        yield f"{resource.get('resourceType')}/{resource['id']}"


class _References:
    """Points the references of one entry at the entries they mean."""

    def __init__(self, base: str, urls: frozenset[str], names: dict[str, str], notes: list[Issue]) -> None:
        self._base, self._urls, self._names, self._notes = base, urls, names, notes

    def astray(self, resource: Resource) -> bool:
        """Whether a reference has to be changed: a bare walk, because almost always none has."""
        stack: list[Any] = [resource]
        while stack:
            value = stack.pop()
            if type(value) is dict:
                if "reference" in value and self._target(value["reference"]) is not None:
                    return True
                stack.extend(item for item in value.values() if type(item) in (dict, list))
            else:
                stack.extend(item for item in value if type(item) in (dict, list))
        return False

    def pointed(self, value: Any, place: str) -> Any:
        """The same JSON, its references resolvable; the very object if none had to be changed."""
        if isinstance(value, list):
            new: Any = [self.pointed(item, f"{place}[{number}]") for number, item in enumerate(value)]
            return new if any(a is not b for a, b in zip(new, value, strict=True)) else value
        if not isinstance(value, dict):
            return value
        new = {name: self.pointed(item, f"{place}.{name}") for name, item in value.items()}
        target = self._target(value.get("reference"))
        if target is not None:
            self._notes.append(note(f"{place}.reference", "The reference was written as the entry's fullUrl."))
            return new | {"reference": target}
        return new if any(new[name] is not value[name] for name in value) else value

    def _target(self, reference: Any) -> str | None:
        """The fullUrl that has to be written instead; None if the reference finds its entry, or means none."""
        if not isinstance(reference, str) or reference.startswith("#"):
            return None
        if reference in self._urls or (self._base and f"{self._base}{reference}" in self._urls):
            return None
        relative = _TYPE_AND_ID.search(reference)
        return self._names.get(reference) or (self._names.get(relative[1]) if relative else None)
