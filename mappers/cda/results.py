"""Results: an organizer is a DiagnosticReport with its Observations, a lone observation a result of its own.

Source: C-CDA on FHIR 2.0.0, CF-results; US Core 6.1.0.
"""

from collections.abc import Iterable

from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.compiled import Kept
from mappers.cda.context import Document, Resource, identifiers
from mappers.cda.node import Node
from mappers.cda.observations import base, inherit_time, is_timed
from mappers.cda.paths import first, qualified
from mappers.cda.times import instant_of
from profiles.canonical import DIAGNOSTIC_SERVICE

_OBSERVATION = qualified("observation")
_LAB = [{"coding": [{"system": DIAGNOSTIC_SERVICE, "code": "LAB"}]}]  # one list for all reports, not to be changed
_PROCEDURE = qualified("procedure")


def results(node: Node, document: Document) -> None:
    """A result organizer -> DiagnosticReport and its Observations; a lone result observation -> Observation."""
    if node.tag == _OBSERVATION:
        _result(node, {}, document=document)
        return
    report, kept = dialect.apply("report", node, document=document, kind="DiagnosticReport")
    members = _members(kept, report, document=document)
    if "code" not in report:
        document.at(node).inform("The organizer has no code: its results are kept without a report.")
        unheld(report, node, members=members, document=document)
        return
    _complete(report, kept, members=members, document=document)
    claim(report, "us-core-diagnosticreport-lab")
    document.add(report, node)


def _members(kept: Kept, report: Resource, *, document: Document) -> list[str]:
    found = []
    for component in kept.get("component", ()):
        for inner in component[:]:
            if inner.tag == _OBSERVATION:
                made = _result(inner, report, document=document)
                found += [made] if made else []
            elif inner.tag == _PROCEDURE:
                document.leave(inner, "left", reason="A procedure inside a result organizer is no result.")
            else:
                document.unread(inner)
    return found


def _result(node: Node, report: Resource, *, document: Document) -> str | None:
    made = base(node, document, kind="laboratory")
    if made is None:
        return None
    resource, _ = made
    inherit_time(resource, report, node)
    claim(resource, "us-core-observation-lab", "us-core-observation-clinical-result")
    return document.add(resource, node)


def _complete(report: Resource, kept: Kept, *, members: list[str], document: Document) -> None:
    """Status, category, subject, results; the time of its results when it has none; issued from its author's time."""
    report.setdefault("status", "unknown")
    report["category"] = _LAB
    report["subject"] = document.subject
    if members:
        report["result"] = [document.refer(reference) for reference in members]
    if not is_timed(report):
        report |= span(members, document)
    time = first("time")(kept["author"][0]) if "author" in kept else None
    issued = instant_of(time, document) if time is not None else None
    if issued:
        report["issued"] = issued


def unheld(
    panel: Resource, node: Node, *, members: list[str], document: Document, waiting: Iterable[Resource] = ()
) -> None:
    """Of an organizer that becomes no resource: its ids mean its member; a time that no member has is booked.

    `waiting` are members that become a resource later, with another organizer's.
    """
    for key in identifiers(node) if len(members) == 1 else ():
        document.means(key, members[0])
    own = {name: panel[name] for name in ("effectiveDateTime", "effectivePeriod") if name in panel}
    times = first("effectiveTime")(node)
    held = (*waiting, *(document.made[one] for one in members))
    if own and times is not None and not any(own.items() <= one.items() for one in held):
        document.leave(times, "left", reason="The organizer becomes no resource, and its members have other times.")


def span(members: list[str], document: Document) -> Resource:
    """The one time that all members have, or the earliest and latest of them as written."""
    known = [document.made[one] for one in members]
    times = sorted({str(one["effectiveDateTime"]) for one in known if "effectiveDateTime" in one})
    if len(times) > 1:
        return {"effectivePeriod": {"start": times[0], "end": times[-1]}}
    return {"effectiveDateTime": times[0]} if times else {}
