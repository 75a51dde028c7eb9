"""One message's conversion: sender, times, the segment we are in, and the people and organizations met on the way."""

from collections.abc import Mapping
from typing import Any

from mappers.conversion import Resource, Source
from mappers.converters import Stamp, compact_time, reference
from mappers.engine import Context
from mappers.hl7v2.parse import Message
from profiles.issue import Severity

_ZONE_RULES: Mapping[str, str] = {
    "default": "Times without offset took the offset of MSH-7. Send the offset with each time.",
    "time-zone": "Times without offset took that of the sender's configured time zone. Send the offset with each time.",
    "cut": "Times without a usable offset, or without minutes, were cut to their date. Send minutes and offset.",
}


MESSAGE_PARTS = ("MSH-3", "MSH-4", "MSH-10", "patient")  # what the ids of resources have of their message


class MessageContext(Context):
    """What converters and builders of one HL7 v2 message share.

    `name` and `number` say which segment runs: `OBX`, third of its name. `sender` is MSH-3 and MSH-4: part of every id.
    `urn` names the raw bytes; each resource says in `meta.source` which segments of them it comes from.
    """

    __slots__ = (
        "message",
        "name",
        "number",
        "sender",
        "control_id",
        "urn",
        "default_offset",
        "time_zone",
        "zones",
        "times",
        "parts",
        "subject",
        "people",
        "extra",
        "results",
        "seen",
        "left",
    )

    def __init__(self, message: Message, source: Source) -> None:
        super().__init__(source)
        header = message.header
        self.message = message
        self.name, self.number = "MSH", 1
        self.sender = (_namespace(header[3]), _namespace(header[4]))
        self.control_id = header[10]
        self.urn = f"urn:sha256:{source.sha256}#"
        self.time_zone = source.time_zone
        self.default_offset = _offset_of(header[7])
        self.zones: set[str] = set()
        self.times: dict[str, str] = {}  # as written -> as FHIR writes it
        # Of identities: MESSAGE_PARTS.
        self.parts = {"MSH-3": self.sender[0], "MSH-4": self.sender[1], "MSH-10": self.control_id}
        self.subject: dict[str, str] = {}
        self.people: dict[tuple[str, str], dict[str, Any] | None] = {}  # raw field -> reference
        self.extra: dict[str, Resource] = {}  # id -> Practitioner or Organization
        self.results: dict[
            str, dict[str, str]
        ] = {}  # what a report refers to -> the reference, which Provenance shares
        self.seen: dict[str, int] = {}  # identity -> how often it came in this message
        self.left: dict[str, str] = {}  # location of a field that a row would read, and why it was not used here

    def belong_to(self, patient_id: str) -> None:
        """Makes the patient known: the subject of all resources and a part of their ids."""
        self.parts["patient"] = patient_id
        self.subject = {"reference": f"Patient/{patient_id}"}

    def enter(self, name: str, number: int) -> None:
        """Says which segment runs now."""
        self.name, self.number = name, number

    def where(self, path: str) -> str:
        """`OBX[2]-5.1` for the row path `OBX-5.1`; a path of another segment stays as it is."""
        name, _, rest = path.partition("-")
        return f"{self.name}[{self.number}]-{rest.rstrip('*')}" if name == self.name else path

    def leave(self, path: str, reason: str) -> None:
        """Notes that the value at `path` was not used in this message, for the account."""
        self.left[self.where(path)] = reason

    def time(self, written: str) -> Stamp | None:
        """A time of the message in FHIR's form. One that can not be read is a warning and None."""
        stamp = compact_time(written, self.default_offset, self.time_zone)
        if stamp is None:
            self.warn("value", "The time can not be read and was dropped. Send YYYYMMDDHHMMSS+ZZZZ.")
        elif stamp.zone:
            self.zones.add(stamp.zone)
        return stamp

    def add(self, resource: Resource) -> dict[str, str]:
        """Keeps a Practitioner, Organization or role once, and gives the reference to it."""
        kept = self.extra.setdefault(resource["id"], resource)
        if kept is not resource and kept | {"meta": resource["meta"]} != resource:
            text = "The same person or organization is described in another way before; the first description was kept."
            self.report(Severity.INFORMATION, "informational", text)
        return reference(resource["resourceType"], resource["id"])

    def place(self) -> str:
        """The `meta.source` of a resource that comes from the segment that runs."""
        return f"{self.urn}{self.name}/{self.number}"

    def note_time_rules(self) -> None:
        """One information Issue for each rule that times without offset went by."""
        for zone in sorted(self.zones):
            self.report(Severity.INFORMATION, "informational", _ZONE_RULES[zone], path="MSH-7")


def _namespace(field: str) -> str:
    return field.partition("^")[0].strip() or field.strip("^ ")


def _offset_of(written: str) -> str | None:
    stripped = written.partition("^")[0].strip()
    return stripped[-5:] if stripped[-5:-4] in ("+", "-") and stripped[-4:].isdecimal() else None
