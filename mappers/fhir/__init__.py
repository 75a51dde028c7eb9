"""FHIR in: resources of an EHR or a device gateway, kept as they were posted.

Source: FHIR R4 4.0.1, Bundle and References; US Core 6.1.0, Provenance.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from mappers import instruments
from mappers.conversion import Conversion, Source
from mappers.converters import resource_id
from mappers.fhir.contained import results_of
from mappers.fhir.entries import Entry, entries_of
from mappers.fhir.measures import is_part
from mappers.fhir.references import Ids, identifier_of, literal, objects, referred, rewritten, text
from mappers.fhir.subject import Subject, find, reference_of, with_literal_subject
from profiles.canonical import US_CORE_PINNED, US_CORE_PROVENANCE_PARTICIPANT, UUID_SYSTEM
from profiles.issue import Issue, Severity, error, warning

__all__ = ["convert", "opened", "scored"]

Resource = dict[str, Any]
Place = tuple[str, Resource]  # FHIRPath of a resource in what was posted, and the resource

_FINISHED = ("completed", "amended")
_TRANSMITTER = {"coding": [{"system": US_CORE_PROVENANCE_PARTICIPANT, "code": "transmitter"}]}


@dataclass(frozen=True, slots=True)
class _Placed:
    """What was posted, with ids and literal references. `became`: entry number -> `Type/id`."""

    places: list[Place]
    became: dict[int, str]
    issues: list[Issue]


def convert(resource: Resource, source: Source, *, occurrence: int = 1) -> Conversion:
    """One resource, or the resources of one Bundle, with Provenance; values, times and units are not touched.

    Shape: `patient` is the posted Patient, or one with only the identifier that the subjects name, or None with
    `meta["patient"]` = `Patient/x` when a literal reference to a Patient not sent along is all there is. Ids are the
    posted ones (of a PUT the one in its URL), else, and for each POST of a transaction or batch, made from the
    identifier, else from the content. `entries` says which resource came of which entry. `meta.source` is set where
    the sender left it out: `urn:sha256:<of the bytes>#<FHIRPath>`. `control_id`: Bundle.identifier as `system|value`.
    A response to an instrument of ACCESS gets its PCO score Observation, unless the Bundle holds that score; the
    Observations that a DiagnosticReport contains are kept beside it, too.
    `occurrence` tells the second of two equal entries of a batch, converted one by one, from the first.
    Raises: nothing. Several patients in one Bundle, or a subject nobody can find, are errors, with no resources.
    """
    if not isinstance(resource.get("resourceType"), str):
        return Conversion(issues=(error("structure", "$this", "The object has no resourceType: send a resource."),))
    named = identifier_of(resource) if resource["resourceType"] == "Bundle" else None
    control = "|".join(named) if named else None
    entries, unmapped, count = entries_of(resource)
    empty = Conversion(unmapped=tuple(unmapped), control_id=control, entries=(None,) * count)
    if not entries:
        why = "There is no resource to keep: send at least one."
        return replace(empty, issues=(error("required", "Bundle.entry", why),))
    placed = _identified(entries, occurrence)
    subject = find(placed.places)
    issues = (*placed.issues, *subject.issues, *_unresolved(placed.places))
    if any(issue.is_error for issue in issues):
        return replace(empty, issues=issues)
    became = tuple(placed.became.get(number) for number in range(count))
    return _finished(placed.places, subject, replace(empty, issues=issues, entries=became), source=source)


def _finished(placed: list[Place], subject: Subject, rest: Conversion, *, source: Source) -> Conversion:
    settled = [(place, with_literal_subject(one, subject)) for place, one in placed]
    read = [(place, rewritten(one, subject.targets)) for place, one in settled]
    read += [(f"{place}.contained", result) for place, one in read for result in results_of(one)]
    sourced = [(place, _sourced(one, place, source=source)) for place, one in read]
    scores, remarks = _scores(sourced)
    kept = [*(one for _, one in sourced), *scores]
    own = [one for one in kept if one["resourceType"] == "Patient"]
    others = [one for one in kept if one["resourceType"] != "Patient"]
    return replace(
        rest,
        patient=own[0] if own else subject.patient,
        resources=(*others, _provenance(kept, source)),
        issues=(*rest.issues, *remarks, *_halves(sourced)),
        meta={"patient": subject.reference} if subject.reference else {},
    )


def scored(response: Resource, source: Source) -> Conversion:
    """The PCO score of a QuestionnaireResponse that came alone and has its id, with Provenance to it and to its bytes.

    Shape: nothing in `resources` for what is no instrument of ACCESS or has no score; `issues` are warnings about its
    answers (a total that they do not give, an item left out) and are there without a score too. Raises: nothing.
    """
    scores, remarks = _scores([("QuestionnaireResponse", response)])
    if not scores:
        return Conversion(issues=tuple(remarks))
    told = _provenance(scores, source)
    told["id"] = resource_id("Provenance", source.sha256, scores[0]["id"])
    told["entity"].append({"role": "source", "what": scores[0]["derivedFrom"][0]})
    return Conversion(resources=(*scores, told), issues=tuple(remarks))


def opened(report: Resource, source: Source) -> Conversion:
    """The Observations inside a DiagnosticReport that came alone and has its id, with Provenance to it and its bytes.

    Shape: nothing in `resources` for a report without contained Observations. Raises: nothing.
    """
    found = [_sourced(one, "DiagnosticReport.contained", source=source) for one in results_of(report)]
    if not found:
        return Conversion()
    told = _provenance(found, source)
    told["id"] = resource_id("Provenance", source.sha256, found[0]["id"])
    told["entity"].append({"role": "source", "what": {"reference": literal(report)}})
    return Conversion(resources=(*found, told))


def _scores(kept: list[Place]) -> tuple[list[Resource], list[Issue]]:
    """The PCO scores of the finished responses to instruments, and what their answers lack; a score that was sent is
    enough."""
    sent = {(text(code.get("code")), text(one.get("effectiveDateTime"))) for _, one in kept for code in _codings(one)}
    made: list[Resource] = []
    issues: list[Issue] = []
    for place, response in kept:
        if response["resourceType"] == "QuestionnaireResponse" and response.get("status") in _FINISHED:
            score, remarks = instruments.score_observation(response)
            issues += [_remark(one, place) for one in remarks]
            if score and (score["code"]["coding"][0]["code"], score["effectiveDateTime"]) not in sent:
                made.append(score)
    return made, issues


def _remark(issue: Issue, place: str) -> Issue:
    """With its place in the Bundle. What can not be reported is kept as it was sent: no error of the message."""
    where = place + issue.location.removeprefix("QuestionnaireResponse")
    return replace(issue, location=where, severity=Severity.WARNING if issue.is_error else issue.severity)


def _halves(kept: list[Place]) -> list[Issue]:
    """Systolic and diastolic values that stand alone: kept as sent, and nobody waits in vain for them in a report."""
    why = "A systolic or diastolic value alone goes into no report to CMS: send both as components of one 85354-9."
    return [
        Issue(Severity.INFORMATION, "informational", f"{place}.code", why)
        for place, one in kept
        if one["resourceType"] == "Observation" and is_part(one)
    ]


def _codings(resource: Resource) -> Iterator[Resource]:
    if resource["resourceType"] == "Observation":
        for concept in objects(resource.get("code")):
            yield from objects(concept.get("coding"))


def _identified(entries: list[Entry], occurrence: int) -> _Placed:
    """Every resource with its id, contained Patients lifted out, every reference to an entry literal."""
    lifted = [made for entry in entries for made in _lifted(entry)]
    lifted.sort(key=lambda entry: entry.kind != "Patient")  # patients first: their ids are in the others'
    ids = Ids({name: one.kind for one in lifted for name in one.names}, occurrence)
    placed = _Placed([], {}, [])
    targets: dict[str, str] = {}
    known: dict[str, Resource] = {}
    for entry in lifted:
        made = ids.give(entry.resource, keep=entry.keeps_id)
        name = literal(made)
        targets |= dict.fromkeys(entry.names, name)
        if entry.kind == "Patient":
            for one in entry.names:
                ids.settle(one, name)
        if entry.number is not None:
            placed.became[entry.number] = name
        if known.setdefault(name, made) is made:
            placed.places.append((entry.place, made))
        elif known[name] != made:
            why = "Two entries are the same resource with different content: send it once."
            placed.issues.append(error("duplicate", entry.place, why))
    placed.places[:] = [(place, rewritten(one, targets)) for place, one in placed.places]
    return placed


def _lifted(entry: Entry) -> list[Entry]:
    """The entry; if its subject is a contained Patient with an identifier, that Patient apart and the rest."""
    resource = entry.resource
    about = reference_of(resource)
    reference = about.get("reference") if about else None
    contained = objects(resource.get("contained"))
    found = [one for one in contained if one.get("resourceType") == "Patient" and f"#{one.get('id')}" == reference]
    named = identifier_of(found[0]) if found else None
    if named is None:
        return [entry]
    rest = [one for one in contained if one is not found[0]]
    kept = {name: part for name, part in resource.items() if name != "contained"}
    kept |= {"contained": rest} if rest else {}
    own = f"urn:contained:{named[0]}|{named[1]}"
    patient = {name: part for name, part in found[0].items() if name != "id"}
    return [
        Entry(None, f"{entry.place}.contained", patient, (own,), keeps_id=True),
        replace(entry, resource=rewritten(kept, {f"#{found[0]['id']}": own})),
    ]


def _unresolved(placed: list[Place]) -> list[Issue]:
    """References by urn:uuid or urn:oid that no entry of the Bundle answers."""
    why = "A reference by urn names no entry of the Bundle: it stays as it is."
    urns = ("urn:uuid:", "urn:oid:")
    return [
        warning("not-found", place, why)
        for place, resource in placed
        if any(reference.startswith(urns) for reference in referred(resource))
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
