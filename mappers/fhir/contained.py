"""Results inside a report: the Observations that a DiagnosticReport contains, as resources of their own.

Laboratories and gateways send them so. Inside a report a value is found by nobody and goes into no report to CMS, so
each is kept beside it as well; the report itself stays as it was sent.
Source: FHIR R4, References (contained resources); DiagnosticReport.result.
"""

from typing import Any

from mappers.converters import resource_id
from mappers.fhir.references import literal, objects, rewritten, text

Resource = dict[str, Any]

_GONE = "entered-in-error"


def results_of(report: Resource) -> list[Resource]:
    """The contained Observations of a DiagnosticReport that has its id; nothing for any other resource.

    Shape: the report's subject where an Observation names none outside the report; references among them literal; of
    what else the report contains (a specimen, a device) type and place in words, since a copy in each could make a
    small message large. Ids hang on the report's and on the local one. What was entered in error with the report is
    so, too. Nothing is changed in place.
    """
    if report["resourceType"] != "DiagnosticReport":
        return []
    inside = {f"#{one['id']}": one for one in objects(report.get("contained")) if text(one.get("id"))}
    found = {name: one for name, one in inside.items() if one.get("resourceType") == "Observation"}
    targets = {name: f"Observation/{resource_id('Observation', report['id'], name)}" for name in found}
    words = {name: _words(one, report) for name, one in inside.items() if name not in found}
    return [_apart(rewritten(one, targets), targets[name], report, words) for name, one in found.items()]


def _words(one: Resource, report: Resource) -> dict[str, str]:
    """A Reference that leads to what is inside the report without a literal one, which R4 does not allow."""
    kind = text(one.get("resourceType")) or "Resource"
    return {"type": kind, "display": f"{kind} {one['id']}, contained in {literal(report)}"}


def _apart(one: Resource, made: str, report: Resource, words: dict[str, dict[str, str]]) -> Resource:
    rest = {name: part for name, part in one.items() if name not in ("resourceType", "id")}
    about = one.get("subject")
    if "subject" in report and (not isinstance(about, dict) or text(about.get("reference")).startswith("#")):
        rest["subject"] = _bare(report["subject"])
    if report.get("status") == _GONE:
        rest["status"] = _GONE
    settled: Resource = _settled(rest, words)
    return {"resourceType": "Observation", "id": made.partition("/")[2]} | settled


def _bare(subject: Any) -> Any:
    """Whom, without what else stands beside it."""
    return {"reference": subject["reference"]} if isinstance(subject, dict) and "reference" in subject else subject


def _settled(value: Any, words: dict[str, dict[str, str]]) -> Any:
    if isinstance(value, dict):
        found = words.get(text(value.get("reference")))
        if found is not None:
            return found | {name: part for name, part in value.items() if name != "reference"}
        return {name: _settled(part, words) for name, part in value.items()}
    return [_settled(part, words) for part in value] if isinstance(value, list) else value
