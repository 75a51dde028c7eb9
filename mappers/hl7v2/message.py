"""One HL7 v2 message to FHIR resources: the whole way, on one page."""

from collections.abc import Mapping

from mappers.conversion import Conversion, Source, Unmapped
from mappers.hl7v2.account import account as account_of
from mappers.hl7v2.account import whole
from mappers.hl7v2.assemble import Assembly, all_resources
from mappers.hl7v2.compiled import WIDTHS
from mappers.hl7v2.context import MessageContext
from mappers.hl7v2.parse import parse
from mappers.hl7v2.rules import name_of, rule_for
from profiles.issue import Issue


def convert(message: bytes, source: Source, *, account: bool = True) -> Conversion:
    """Converts one message (unframed; see `split`). Raises nothing: what is wrong comes back as issues.

    Shape: `patient` apart, all else in `resources`, people and Provenance last. Without a patient, or for a message
    that we do not take, there are no resources. `account=False` leaves `unmapped` empty.
    Source: HL7 v2-to-FHIR 1.0.0; the tables beside this module name it row by row.
    """
    parsed = parse(message, WIDTHS)
    if isinstance(parsed, Issue):
        return Conversion(issues=(parsed,))
    context = MessageContext(parsed, source)
    context.issues.extend(parsed.issues)
    rule = rule_for(context)
    assembly = Assembly(rule, context) if rule else None
    if assembly is None or not assembly.run():
        unmapped = whole(parsed.segments, "nothing was made of this message; see the issues") if account else ()
        return _done(context, unmapped=unmapped)
    resources = tuple(all_resources(assembly))
    context.note_time_rules()
    return Conversion(
        patient=assembly.patient,
        resources=resources,
        unmapped=account_of(assembly) if account else (),
        issues=tuple(context.issues),
        control_id=_control_id(context),
        meta=_meta(context),
    )


def _done(context: MessageContext, *, unmapped: tuple[Unmapped, ...]) -> Conversion:
    return Conversion(
        unmapped=unmapped, issues=tuple(context.issues), control_id=_control_id(context), meta=_meta(context)
    )


def _control_id(context: MessageContext) -> str | None:
    return f"{context.sender[0]}|{context.control_id}" if context.control_id else None


def _meta(context: MessageContext) -> dict[str, str]:
    header = context.message.header
    kind, event = name_of(header)
    found: Mapping[str, str] = {
        "message_type": f"{kind}^{event}",
        "message_control_id": context.control_id,
        "sending_application": context.sender[0],
        "sending_facility": context.sender[1],
        "version": header[12].partition("^")[0],
    }
    return {name: value for name, value in found.items() if value}
