"""Walks a message's segments in order and hands each to the step that its message rule names.

One PID is one patient; everything else refers to it. Each OBR opens a group, which the next one (or the end) closes.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from mappers.conversion import Resource
from mappers.hl7v2 import history, records
from mappers.hl7v2.compiled import TABLES
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.documents import documents
from mappers.hl7v2.observations import Group, finish, observe
from mappers.hl7v2.parse import Segment
from mappers.hl7v2.people import practitioner
from mappers.hl7v2.questionnaires import respond
from mappers.hl7v2.reports import close_report, open_group
from mappers.hl7v2.rules import Rule, left_segments, name_of, rules

_NTE, _PD1, _PRD = TABLES["NTE"].apply, TABLES["PD1"].apply, TABLES["PRD"].apply
_NO_REPORT = Segment([""])


class Assembly:
    """The resources of one message. `unused` are segments of which nothing came, with the reason, for the account."""

    def __init__(self, rule: Rule, context: MessageContext) -> None:
        self.rule = rule
        self.context = context
        self.patient: Resource | None = None
        self.resources: list[Resource] = []
        self.unused: dict[int, str] = {}  # position of the segment in the message
        self.group = Group()
        self.ordered: tuple[str, str, int] = ("", "", 0)  # ORC-2, ORC-3, which ORC
        self.noted: Resource | None = None
        self.document_reference: Resource | None = None
        self.document_at = 0  # position of its TXA
        self.service_request: Resource | None = None
        self.steps = _steps(rule.name)
        self.position = 0

    def run(self) -> bool:
        """Takes the whole message. False if there is no patient: then nothing is made of it."""
        segments = self.context.message.segments
        patients = [position for position, fields in enumerate(segments) if fields[0] == "PID"]
        if not patients:
            text = "The message has no PID segment, so its data belong to nobody. Send the patient."
            self.context.error("structure", text, path="PID[1]")
            return False
        self.context.enter("PID", 1)
        self.patient = records.patient(segments[patients[0]], self.context)
        end = patients[1] if len(patients) > 1 else len(segments)
        if len(patients) > 1:
            text = "The message holds more than one patient; only the first was taken. Send one patient a message."
            self.context.error("structure", text, path="PID[2]")
            self.unused.update(dict.fromkeys(range(end, len(segments)), "belongs to a second patient"))
        self._walk(segments, end)
        for name in self.rule.needs:
            if any(fields[0] == name for fields in segments[:end]):
                continue
            text = f"The message has no {name} segment, without which it says nothing. Send it."
            self.context.error("structure", text, path=f"{name}[1]")
        self._order_unused(_NO_REPORT, "no report follows that it could be of")
        self._close_group()
        self._close_document()
        return True

    def _walk(self, segments: list[Segment], end: int) -> None:
        context, steps = self.context, self.steps
        counts: dict[str, int] = {}
        for position in range(1, end):
            fields = segments[position]
            name = fields[0]
            counts[name] = number = counts.get(name, 0) + 1
            step = steps.get(name)
            if step is not None:
                context.name, context.number = name, number
                self.position = position
                step(self, fields)

    def _patient_more(self, fields: Segment) -> None:
        if self.patient is not None:
            _PD1(fields, self.patient, self.context)
        self.noted = None

    def _visit(self, fields: Segment) -> None:
        """In a result message an encounter is made only of a visit with a number."""
        self.noted = None
        if fields[19].strip("^ "):
            self._encounter(fields)
        else:
            self.unused[self.position] = "visit without a number: no encounter can be told from another"

    def _encounter(self, fields: Segment) -> None:
        trigger = name_of(self.context.message.header)[1]
        self.resources.append(records.encounter(fields, trigger, dict(self.rule.encounter), self.context))
        self.noted = None

    def _order(self, fields: Segment) -> None:
        self._order_unused(_NO_REPORT, "no report follows that it could be of")
        self.ordered = (fields[2], fields[3], self.context.number)

    def _order_unused(self, report: Segment, reason: str) -> None:
        """What ORC says and nobody uses: OBR has its own number, or there is none."""
        *numbers, orc = self.ordered
        if not orc:
            return
        for index, number in enumerate(numbers, 2):
            if number and (not report[0] or report[index]):
                self.context.left[f"ORC[{orc}]-{index}"] = reason
        self.ordered = ("", "", 0)

    def _report(self, fields: Segment) -> None:
        self._close_group()
        placer, filler, _ = self.ordered
        self._order_unused(fields, "the report's own number stands in OBR")
        if (placer and not fields[2]) or (filler and not fields[3]):
            fields = fields.replaced(2, fields[2] or placer).replaced(3, fields[3] or filler)
        self.group = open_group(fields, self.context)
        self.noted = self.group.report

    def _result(self, fields: Segment) -> None:
        self.noted = observe(fields, self.group, self.context)

    def _specimen(self, _fields: Segment) -> None:
        self.group.laboratory = True

    def _note(self, fields: Segment) -> None:
        """A note of the result before it; of the report, its conclusion; elsewhere there is nothing to bear it."""
        if self.noted is None:
            self.unused[self.position] = "note without a resource that could bear it"
            return
        note: dict[str, Any] = {}
        _NTE(fields, note, self.context)
        if "text" not in note:
            return
        if self.noted["resourceType"] == "DiagnosticReport":
            before = self.noted.get("conclusion")
            self.noted["conclusion"] = f"{before}\n{note['text']}" if before else note["text"]
        else:
            self.noted.setdefault("note", []).append(note)

    def _diagnosis(self, fields: Segment) -> None:
        made = records.condition(fields, self.rule.condition or "encounter-diagnosis", self.context)
        if made is not None:
            self.resources.append(made)
        self.noted = made

    def _allergy(self, fields: Segment) -> None:
        self._keep(history.allergy(fields, self.context))

    def _procedure(self, fields: Segment) -> None:
        self._keep(history.procedure(fields, self.context))

    def _keep(self, made: Resource | None) -> None:
        if made is not None:
            self.resources.append(made)
        self.noted = None

    def _role(self, fields: Segment) -> None:
        self._primary_care("ROL", fields)

    def _participation(self, fields: Segment) -> None:
        self._primary_care("PRT", fields)

    def _primary_care(self, name: str, fields: Segment) -> None:
        found = history.primary_care(name, fields, self.context)
        if found is None or self.patient is None:
            self.unused[self.position] = left_segments()[name]
            return
        doctors = self.patient.setdefault("generalPractitioner", [])
        if found not in doctors:
            doctors.append(found)

    def _replaced(self, fields: Segment) -> None:
        if self.patient is not None:
            self._keep(history.replaced(fields, self.patient, self.context))

    def _document(self, fields: Segment) -> None:
        self._close_document()
        self.document_reference, self.document_at = records.document(fields, self.context), self.position

    def _content(self, fields: Segment) -> None:
        if self.document_reference is None:
            self.unused[self.position] = "content before the document that it belongs to"
        else:
            records.content(fields, self.document_reference, self.context)

    def _referral(self, fields: Segment) -> None:
        self.service_request = records.referral(fields, self.context)
        self.resources.append(self.service_request)

    def _provider(self, fields: Segment) -> None:
        body: dict[str, Any] = {}
        _PRD(fields, body, self.context)
        made = practitioner(body, self.context)
        if made is None:
            return
        found = self.context.add(made)
        role = records.role_of(fields)
        if role == "PP" and self.patient is not None:
            self.patient.setdefault("generalPractitioner", []).append(found)
        elif role == "RP" and self.service_request is not None:
            self.service_request["requester"] = found
        elif role == "RT" and self.service_request is not None:
            self.service_request.setdefault("performer", []).append(found)

    def _close_group(self) -> None:
        """Makes what the group holds; another follows, or the message ends."""
        group = self.group
        if group.report is None and not group.findings and not group.answers:
            return
        if group.answers:
            self.resources.extend(respond(group, self.context))
        findings = finish(group, self.context)
        report = close_report(group, findings, self.context)
        if report is not None:
            self.resources.append(report)
        self.resources.extend(finding.resource for finding in findings)
        if "ED" in [finding.fields[2] for finding in findings]:
            self.resources.extend(documents(findings, self.context))

    def _close_document(self) -> None:
        made, self.document_reference = self.document_reference, None
        if made is None:
            return
        if made["content"]:
            self.resources.append(made)
        else:
            self.context.error("required", "The document has no readable content. Send it in OBX-5.", path="TXA[1]")
            self.unused[self.document_at] = "the document has no readable content, so it was not kept"


def all_resources(assembly: Assembly) -> list[Resource]:
    """The resources with the people in them and the Provenance of all."""
    context = assembly.context
    made = [*assembly.resources, *context.extra.values()]
    targets = [assembly.patient, *made] if assembly.patient else made
    return [*made, records.provenance(targets, context)]


Step = Callable[[Assembly, Segment], None]


@cache
def _steps(name: str) -> dict[str, Step]:
    """From a segment's name to what takes it, for one message type. The patient is taken first of all, apart."""
    return {segment: getattr(Assembly, f"_{step}") for segment, step in rules()[name].use.items() if step != "patient"}
