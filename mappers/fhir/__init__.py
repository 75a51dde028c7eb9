"""FHIR in: resources of an EHR or a device gateway, kept as they were posted.

Source: FHIR R4 4.0.1, Bundle and References; US Core 6.1.0, Provenance.
"""

from typing import Any

from mappers.conversion import Conversion, Source, Unmapped
from mappers.converters import resource_id
from mappers.fhir.references import Ids, identifier_of, literal, nodes, objects, rewritten, text
from mappers.fhir.subject import Subject, find, reference_of, with_literal_subject
from profiles.canonical import US_CORE_PINNED, US_CORE_PROVENANCE_PARTICIPANT, UUID_SYSTEM
from profiles.issue import Issue, error, warning

__all__ = ["convert"]

Resource = dict[str, Any]
Place = tuple[str, Resource]  # FHIRPath of a resource in what was posted, and the resource

_TRANSMITTER = {"coding": [{"system": US_CORE_PROVENANCE_PARTICIPANT, "code": "transmitter"}]}
_LEFT = {
    "Bundle": "A Bundle inside a Bundle is not opened: send its resources themselves.",
    "OperationOutcome": "An OperationOutcome is a report about an exchange and nothing to keep.",
    "MessageHeader": "The MessageHeader routes a message; what it carries is kept.",
    "Parameters": "Parameters belong to an operation; here resources are taken.",
}


def convert(resource: Resource, source: Source) -> Conversion:
    """One resource, or the resources of one Bundle, with Provenance; values, times and units are not touched.

    Shape: `patient` is the posted Patient, or one with only the identifier that the subjects name, or None with
    `meta["patient"]` = `Patient/x` when a literal reference to a Patient not sent along is all there is. Ids are the
    posted ones, else made from the identifier, else from the content. `meta.source` is set where the sender left it
    out: `urn:sha256:<of the bytes>#<FHIRPath>`. `control_id`: Bundle.identifier as `system|value`.
    Raises: nothing. Several patients in one Bundle, or a subject nobody can find, are errors, with no resources.
    """
    if not isinstance(resource.get("resourceType"), str):
        return Conversion(issues=(error("structure", "$this", "The object has no resourceType: send a resource."),))
    named = identifier_of(resource) if resource["resourceType"] == "Bundle" else None
    control = "|".join(named) if named else None
    entries, unmapped = _entries(resource)
    if not entries:
        why = "There is no resource to keep: send at least one."
        return Conversion(issues=(error("required", "Bundle.entry", why),), unmapped=tuple(unmapped))
    placed, targets = _identified(entries)
    subject = find(placed)
    issues = [*subject.issues, *_unresolved(placed)]
    if any(issue.is_error for issue in issues):
        return Conversion(issues=tuple(issues), unmapped=tuple(unmapped), control_id=control)
    return _finished(placed, subject, issues=issues, unmapped=unmapped, source=source, control=control)


def _finished(
    placed: list[Place],
    subject: Subject,
    *,
    issues: list[Issue],
    unmapped: list[Unmapped],
    source: Source,
    control: str | None,
) -> Conversion:
    settled = [(place, with_literal_subject(one, subject)) for place, one in placed]
    kept = [_sourced(rewritten(one, subject.targets), place, source=source) for place, one in settled]
    others = [one for one in kept if one["resourceType"] != "Patient"]
    own = [one for one in kept if one["resourceType"] == "Patient"]
    meta = {"patient": subject.reference} if subject.reference else {}
    return Conversion(
        patient=own[0] if own else subject.patient,
        resources=(*others, _provenance(kept, source)),
        unmapped=tuple(unmapped),
        issues=tuple(issues),
        control_id=control,
        meta=meta,
    )


def _entries(resource: Resource) -> tuple[list[tuple[str, str, Resource]], list[Unmapped]]:
    """(place, fullUrl, resource) of what is to be kept, and what is not."""
    posted: list[tuple[str, str, Any]]
    if resource["resourceType"] != "Bundle":
        posted = [(resource["resourceType"], "", resource)]
    else:
        entries = objects(resource.get("entry"))
        places = [f"Bundle.entry[{index}].resource" for index in range(len(entries))]
        urls = [text(one.get("fullUrl")) for one in entries]
        posted = list(zip(places, urls, (one.get("resource") for one in entries), strict=True))
    kept: list[tuple[str, str, Resource]] = []
    unmapped: list[Unmapped] = []
    for place, url, one in posted:
        if not isinstance(one, dict) or not isinstance(one.get("resourceType"), str):
            reason = "The entry holds no resource (a deletion or a search result without one): nothing is done."
            unmapped.append(Unmapped(place, "bad", reason))
        elif one["resourceType"] in _LEFT:
            unmapped.append(Unmapped(place, "left", _LEFT[one["resourceType"]]))
        else:
            kept.append((place, url, one))
    return kept, unmapped


def _identified(entries: list[tuple[str, str, Resource]]) -> tuple[list[Place], dict[str, str]]:
    """Every resource with its id, contained Patients lifted out, every reference to an entry literal."""
    lifted = [made for place, url, one in entries for made in _lifted(place, url, resource=one)]
    lifted.sort(key=lambda entry: entry[2]["resourceType"] != "Patient")  # patients first: their ids are in the others'
    ids = Ids({url: one["resourceType"] for _, url, one in lifted if url})
    placed: list[Place] = []
    targets: dict[str, str] = {}
    for place, url, one in lifted:
        made = ids.give(one)
        if url:
            targets[url] = literal(made)
        if made["resourceType"] == "Patient":
            ids.settle(url, literal(made))
        if all(literal(known) != literal(made) for _, known in placed):
            placed.append((place, made))
    return [(place, rewritten(one, targets)) for place, one in placed], targets


def _lifted(place: str, url: str, *, resource: Resource) -> list[tuple[str, str, Resource]]:
    """The resource; if its subject is a contained Patient with an identifier, that Patient apart and the rest."""
    about = reference_of(resource)
    reference = about.get("reference") if about else None
    contained = objects(resource.get("contained"))
    found = [one for one in contained if one.get("resourceType") == "Patient" and f"#{one.get('id')}" == reference]
    named = identifier_of(found[0]) if found else None
    if named is None:
        return [(place, url, resource)]
    rest = [one for one in contained if one is not found[0]]
    kept = {name: part for name, part in resource.items() if name != "contained"}
    kept |= {"contained": rest} if rest else {}
    own = f"urn:contained:{named[0]}|{named[1]}"
    patient = {name: part for name, part in found[0].items() if name != "id"}
    return [(f"{place}.contained", own, patient), (place, url, rewritten(kept, {f"#{found[0]['id']}": own}))]


def _unresolved(placed: list[Place]) -> list[Issue]:
    """References by urn:uuid or urn:oid that no entry of the Bundle answers."""
    why = "A reference by urn names no entry of the Bundle: it stays as it is."
    urns = ("urn:uuid:", "urn:oid:")
    return [
        warning("not-found", place, why)
        for place, resource in placed
        if any(text(node.get("reference")).startswith(urns) for node in nodes(resource))
    ]


def _sourced(resource: Resource, place: str, *, source: Source) -> Resource:
    meta = resource.get("meta", {})
    if not isinstance(meta, dict) or "source" in meta:
        return resource
    return resource | {"meta": meta | {"source": f"urn:sha256:{source.sha256}#{place}"}}


def _provenance(kept: list[Resource], source: Source) -> Resource:
    """The bytes that all of them were read from."""
    urn = f"urn:sha256:{source.sha256}"
    return {
        "resourceType": "Provenance",
        "id": resource_id("Provenance", source.sha256),
        "meta": {"profile": [US_CORE_PINNED("us-core-provenance")]},
        "target": [{"reference": literal(one)} for one in kept],
        "recorded": source.received_at,
        "agent": [{"type": _TRANSMITTER, "who": {"display": "The client that posted the resources"}}],
        "entity": [{"role": "source", "what": {"identifier": {"system": UUID_SYSTEM, "value": urn}}}],
    }
