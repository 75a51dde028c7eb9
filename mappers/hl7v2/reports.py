"""One OBR to one DiagnosticReport.

Source: HL7 v2-to-FHIR 1.0.0, OBR[DiagnosticReport]; US Core 6.1.0 us-core-diagnosticreport-lab.
"""

from typing import Any

from mappers.conversion import Resource
from mappers.converters import concept
from mappers.hl7v2.attachments import text_attachment
from mappers.hl7v2.compiled import TABLES
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.identity import identify
from mappers.hl7v2.kinds import is_laboratory
from mappers.hl7v2.observations import Finding, Group
from mappers.hl7v2.parse import Segment
from profiles import canonical

_OBR = TABLES["OBR"].apply
_LABORATORY = canonical.US_CORE_PINNED("us-core-diagnosticreport-lab")
_LAB = concept(canonical.DIAGNOSTIC_SERVICE, "LAB")["coding"][0]


def open_group(fields: Segment, context: MessageContext) -> Group:
    """Starts the group of an OBR with its report, which gets its results when the group ends."""
    report: Resource = {"resourceType": "DiagnosticReport", "id": "", "meta": {"source": context.place()}}
    _OBR(fields, report, context)
    report["subject"] = context.subject
    if "status" not in report:
        report["status"] = "unknown"
        if not fields[25]:
            context.warn("required", "OBR-25 is empty, so the report's status is unknown. Send it.", path="OBR-25")
    if "code" not in report:
        context.error("required", "OBR-4 is empty, so the report says not what it is about. Send a code.", path="OBR-4")
    effective: dict[str, Any] = {key: report[key] for key in ("effectiveDateTime", "effectivePeriod") if key in report}
    return Group(
        report=report,
        number=context.number,
        order=(fields[3] or fields[2]).partition("^")[0],
        panel=fields[4],
        effective=effective,
        laboratory=is_laboratory(fields[4], fields[24]),
    )


def close_report(group: Group, findings: list[Finding], context: MessageContext) -> Resource | None:
    """The report with its results; None without a code, which FHIR demands."""
    report = group.report
    if report is None or "code" not in report:
        return None
    if findings:
        made = {name: {"reference": name} for name in [f"Observation/{each.resource['id']}" for each in findings]}
        report["result"] = [*made.values()]
        context.results |= made
    if any(group.texts):
        report["presentedForm"] = [text_attachment("\n".join(group.texts))]
    if _is_laboratory(group, findings):
        _claim(report)
    code = report["code"].get("coding", [{}])[0].get("code") or report["code"].get("text", "")
    when = report.get("effectiveDateTime") or str(report.get("effectivePeriod", ""))
    report["id"] = identify("DiagnosticReport", {"order": group.order, "OBR-4": code, "effective": when}, context)
    return report


def _is_laboratory(group: Group, findings: list[Finding]) -> bool:
    return {each.kind.category for each in findings} == {"laboratory"} if findings else group.laboratory


def _claim(report: Resource) -> None:
    """Category LAB, and US Core's claim where effective and issued are there."""
    categories = report.setdefault("category", [])
    if not any(each.get("code") == "LAB" for category in categories for each in category.get("coding", ())):
        categories.append({"coding": [dict(_LAB)]})
    if "issued" in report and (report.keys() & {"effectiveDateTime", "effectivePeriod"}):
        report["meta"]["profile"] = [_LABORATORY]
