"""One window's values -> the `$report-data` request with its document Bundle. The same input gives the same bytes.

Source: ACCESS API IG 0.9.12, access-report-data-in, access-data-reporting-bundle, access-data-reporting-composition.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from mappers import instruments
from mappers.narrative import generated, narrative
from profiles import canonical

Resource = dict[str, Any]

_SDC_QUESTIONNAIRE = "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire|3.0.0"
# The MBI goes by three system names; CMS takes the first.
_MBI_SYSTEMS = (canonical.MBI, "http://hl7.org/fhir/sid/us-mbi", "urn:oid:2.16.840.1.113883.4.927")
_SYSTEMS = {"LOINC": canonical.LOINC, "section": canonical.REPORT_SECTION}
# What a value brings along. Left out on purpose: everything that refers outside the document (performer, device,
# encounter, ...), because CMS could not resolve it, and free text (note), because it is not asked for.
_COPIED = {
    "Observation": (
        "status", "category", "code", "effectiveDateTime", "effectivePeriod", "valueQuantity", "component", "method",
    ),
    "QuestionnaireResponse": ("identifier", "questionnaire", "status", "authored", "item"),
}  # fmt: skip
_ANSWER_TYPES = {
    "valueCoding": "choice",
    "valueDecimal": "decimal",
    "valueInteger": "integer",
    "valueBoolean": "boolean",
    "valueDate": "date",
    "valueQuantity": "quantity",
}


@dataclass(frozen=True, slots=True)
class Section:
    """One row of report_sections.toml: where a measure stands in a track's section."""

    measure: str
    title: str
    system: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """Everything that a report says.

    `base_url` is the facade's FHIR base, without a slash at its end. `values` holds the resources of each measure in
    the form that the report takes (`mappers.fhir.measures.normalise`), oldest first. `revision` counts the attempts
    to build this report: with `report_id` it makes the Bundle's identifier unique. `at` is aware.
    """

    base_url: str
    report_id: str
    revision: int
    participant_id: str
    participant_name: str
    payer_id: str
    author_npi: str
    author_family: str
    author_given: str
    patient: Resource
    track: str
    report_type: str
    at: datetime
    values: Mapping[str, Sequence[Resource]]


@cache
def sections(track: str) -> tuple[Section, ...]:
    """The sub-sections of one track, in the order of a report; empty for a track that is not known."""
    rows = _rows()
    return tuple(Section(**_section(row)) for row in rows if track in row["tracks"])


@cache
def _rows() -> list[dict[str, Any]]:
    text = files("mappers").joinpath("report_sections.toml").read_text("utf-8")
    rows: list[dict[str, Any]] = tomllib.loads(text)["section"]
    return rows


def _section(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "tracks"} | {"system": _SYSTEMS[row["system"]]}


def instrument_of(response: Resource) -> str | None:
    """The measure that a QuestionnaireResponse is, in any form that is known; None: none of ACCESS's instruments."""
    found = instruments.recognise(response)
    return found.measure if found else None


def build_report(request: ReportRequest) -> Resource:
    """The `$report-data` Parameters with one document Bundle.

    Shape: participantID, payerID, track, reportType, dataBundle; in the Bundle the Composition, Patient, Practitioner,
    Organization, the values in the order of the sections, and one Questionnaire for each instrument.
    Raises: ValueError for a measure that the track has no section for.
    Source: ACCESS API IG 0.9.12, access-report-data-in.
    """
    return {
        "resourceType": "Parameters",
        "meta": {"profile": [canonical.REPORT_DATA_IN]},
        "parameter": [
            {
                "name": "participantID",
                "valueIdentifier": {"system": canonical.PARTICIPANT_ID, "value": request.participant_id},
            },
            {"name": "payerID", "valueIdentifier": _payer(request.payer_id)},
            {"name": "track", "valueCodeableConcept": _concept(canonical.TRACK, request.track)},
            {"name": "reportType", "valueCodeableConcept": _concept(canonical.REPORT_TYPE, request.report_type)},
            {"name": "dataBundle", "resource": _bundle(request)},
        ],
    }


build = build_report


def _payer(payer_id: str) -> Resource:
    return {
        "type": _concept(canonical.PAYER_ID_TYPE, canonical.PAYER_ID_TYPE_CODE),
        "system": canonical.PAYER_ID,
        "value": payer_id,
    }


def _concept(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": code}]}


def _bundle(request: ReportRequest) -> Resource:
    document_id = f"{request.report_id}-{request.revision}"
    found = tuple(_filled(request))
    resources = [
        _composition(request, document_id, found),
        _patient(request.patient),
        _practitioner(request),
        _organization(request),
        *(value for _, values in found for value in values),
        *_questionnaires(request, found),
    ]
    return {
        "resourceType": "Bundle",
        "id": document_id,
        "meta": {"profile": [canonical.REPORTING_BUNDLE]},
        "identifier": {"system": f"{request.base_url}/report", "value": document_id},
        "type": "document",
        "timestamp": _instant(request.at),
        "entry": [{"fullUrl": f"{request.base_url}/{_path(one)}", "resource": one} for one in resources],
    }


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _path(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def _refer(resource: Resource) -> Resource:
    return {"reference": _path(resource)}


def _filled(request: ReportRequest) -> Iterator[tuple[Section, tuple[Resource, ...]]]:
    """The sections that have values, each with its values as the report carries them."""
    rows = sections(request.track)
    if homeless := set(request.values) - {row.measure for row in rows}:
        raise ValueError(f"the track {request.track} has no section for {', '.join(sorted(homeless))}")
    subject = {"reference": f"Patient/{request.patient['id']}"}
    for row in rows:
        if values := request.values.get(row.measure, ()):
            yield row, tuple(_value(value, row, subject, request.base_url) for value in values)


def _value(resource: Resource, section: Section, subject: Resource, base_url: str) -> Resource:
    """A value with its own id, time and unit, cut down to what the document can hold, about the document's Patient."""
    kind = resource["resourceType"]
    resource = _shaped(resource, base_url)
    kept: Resource = {name: resource[name] for name in _COPIED[kind] if name in resource}
    kept["subject"] = subject
    profile = resource.get("meta", {}).get("profile", [])
    if kind == "QuestionnaireResponse":
        profile = [canonical.US_CORE_PINNED("us-core-questionnaireresponse")]
        kept["author"] = subject
        kept.setdefault("questionnaire", f"{base_url}/Questionnaire/{section.measure}")
    return {
        "resourceType": kind,
        "id": resource["id"],
        "meta": {"profile": profile},
        "text": narrative(resource),
        **kept,
    }


def _shaped(resource: Resource, base_url: str) -> Resource:
    """Answers under CMS's linkIds, whatever form they came in; every other resource as it is."""
    if resource["resourceType"] != "QuestionnaireResponse":
        return resource
    form = instruments.cms_response(resource, base_url=base_url)
    return resource if form is None or form.response is None else form.response


def _composition(
    request: ReportRequest, document_id: str, found: Sequence[tuple[Section, tuple[Resource, ...]]]
) -> Resource:
    title = f"ACCESS {request.track} {request.report_type} report"
    return {
        "resourceType": "Composition",
        "id": document_id,
        "meta": {"profile": [canonical.REPORTING_COMPOSITION]},
        "text": generated(f"{title} of {_instant(request.at)}."),
        "status": "final",
        "type": _concept(canonical.LOINC, canonical.QUESTIONNAIRE_DOCUMENT),
        "subject": {"reference": f"Patient/{request.patient['id']}"},
        "date": _instant(request.at),
        "author": [{"reference": f"Practitioner/{_author_id(request)}"}],
        "title": title,
        "custodian": {"reference": f"Organization/{request.participant_id}"},
        "section": [_track_section(request, found)],
    }


def _track_section(request: ReportRequest, found: Sequence[tuple[Section, tuple[Resource, ...]]]) -> Resource:
    parts = [
        {
            "title": row.title,
            "code": _concept(row.system, row.code),
            "text": generated(f"{row.title}: {len(values)} {'value' if len(values) == 1 else 'values'}."),
            "entry": [_refer(value) for value in values],
        }
        for row, values in found
    ]
    section: Resource = {
        "title": f"Values of the {request.track} track",
        "code": _concept(canonical.TRACK, request.track),
        "text": generated(f"The {request.track} track: " + (", ".join(row.title for row, _ in found) or "none") + "."),
    }
    return section | ({"section": parts} if parts else {})


def _patient(patient: Resource) -> Resource:
    """The Patient by what us-core-patient and CMS ask for: MBI, name, gender, birth date; nothing else leaves."""
    identifiers = [
        {
            "type": _concept(canonical.IDENTIFIER_TYPE, canonical.MBI_TYPE_CODE),
            "system": canonical.MBI,
            "value": one["value"].replace("-", "").strip().upper(),
        }
        for one in patient.get("identifier", ())
        if one.get("system") in _MBI_SYSTEMS and "value" in one
    ]
    kept: Resource = {name: patient[name] for name in ("name", "gender", "birthDate") if name in patient}
    return {
        "resourceType": "Patient",
        "id": patient["id"],
        "meta": {"profile": [canonical.US_CORE_PINNED("us-core-patient")]},
        "text": narrative(patient),
        **({"identifier": identifiers[:1]} if identifiers else {}),
        **kept,
    }


def _author_id(request: ReportRequest) -> str:
    return f"npi-{request.author_npi}"


def _practitioner(request: ReportRequest) -> Resource:
    name = {"family": request.author_family} | ({"given": [request.author_given]} if request.author_given else {})
    practitioner = {
        "resourceType": "Practitioner",
        "id": _author_id(request),
        "meta": {"profile": [canonical.US_CORE_PINNED("us-core-practitioner")]},
        "identifier": [{"system": canonical.NPI, "value": request.author_npi}],
        "name": [name],
    }
    return _with_text(practitioner)


def _organization(request: ReportRequest) -> Resource:
    organization = {
        "resourceType": "Organization",
        "id": request.participant_id,
        "meta": {"profile": [canonical.US_CORE_PINNED("us-core-organization")]},
        "identifier": [{"system": canonical.PARTICIPANT_ID, "value": request.participant_id}],
        "active": True,
        "name": request.participant_name,
    }
    return _with_text(organization)


def _with_text(resource: Resource) -> Resource:
    return {**resource, "text": narrative(resource)}


def _questionnaires(
    request: ReportRequest, found: Sequence[tuple[Section, tuple[Resource, ...]]]
) -> Iterator[Resource]:
    """One Questionnaire for each canonical that the answers name: CMS's test environment resolves it in the bundle."""
    seen: set[str] = set()
    for row, values in found:
        for number, value in enumerate(values, 1):
            if (url := value.get("questionnaire")) is not None and url not in seen:
                seen.add(url)
                yield _questionnaire(value, row, number)


def _questionnaire(response: Resource, section: Section, number: int) -> Resource:
    """The bare form of an instrument: linkIds and answer types only, because the wording belongs to its owner.

    A form of ours has the LOINC codes and answer lists of the instrument as well; one of somebody else has what the
    answers show.
    """
    ours = instruments.administration(response)
    if ours and response["questionnaire"].endswith(f"/Questionnaire/{section.measure}"):
        return _with_text(instruments.questionnaire(ours, response["questionnaire"]))
    code = _concept(section.system, section.code)["coding"] if section.system == canonical.LOINC else None
    name = section.measure if number == 1 else f"{section.measure}-{number}"
    return _bare(response, name=name, title=section.title, code=code)


def minimal_questionnaire(response: Resource) -> Resource:
    """The bare Questionnaire that a QuestionnaireResponse names by its canonical: linkIds and answer types only.

    Shape: a Questionnaire with the canonical's url and version; its id hangs on them. For answers that come without it.
    """
    name = sha256(response["questionnaire"].encode()).hexdigest()[:32]
    row = next((row for row in _rows() if row["measure"] == instrument_of(response)), None)
    return _bare(response, name=f"questionnaire-{name}", title=row["title"] if row else "Questionnaire", code=None)


def _bare(response: Resource, *, name: str, title: str, code: list[Resource] | None) -> Resource:
    url, _, version = response["questionnaire"].partition("|")
    questionnaire: Resource = {
        "resourceType": "Questionnaire",
        "id": name,
        "meta": {"profile": [_SDC_QUESTIONNAIRE]},
        "url": url,
        **({"version": version} if version else {}),
        "title": title,
        "status": "active",
        "subjectType": ["Patient"],
        **({"code": code} if code else {}),
        "item": [_question(item) for item in response.get("item", ())],
    }
    if not questionnaire["item"]:
        del questionnaire["item"]
    return _with_text(questionnaire)


def _question(item: Resource) -> Resource:
    answer: Resource = next(iter(item.get("answer", ())), {})
    kind = next((_ANSWER_TYPES[name] for name in answer if name in _ANSWER_TYPES), "string")
    if "item" in item:
        return {"linkId": item["linkId"], "type": "group", "item": [_question(part) for part in item["item"]]}
    return {"linkId": item["linkId"], "type": kind}
