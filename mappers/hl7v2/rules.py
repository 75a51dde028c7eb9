"""Which messages we take, what each segment in them is for (tables/messages.toml), and checks of the header."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any

from mappers.engine import load
from mappers.hl7v2.context import MessageContext

_PROCESSING = frozenset({"P", "T", "D", ""})


@dataclass(frozen=True, slots=True)
class Rule:
    """One message type. `use` maps a segment's name to the step that takes it."""

    name: str  # ORU^R01
    use: Mapping[str, str]
    encounter: Mapping[str, str]  # trigger event -> Encounter.status
    condition: str | None = None  # category of a DG1
    needs: tuple[str, ...] = ()  # segments beside PID without which the message says nothing


@cache
def _facts() -> dict[str, Any]:
    return load("mappers.hl7v2", "tables/messages.toml")


@cache
def rules() -> Mapping[str, Rule]:
    """The messages we take, by `type^event`."""
    empty: Mapping[str, str] = MappingProxyType({})
    return {
        name: Rule(name, raw["use"], raw.get("encounter", empty), raw.get("condition"), tuple(raw.get("needs", ())))
        for raw in _facts()["message"]
        for name in raw["names"]
    }


@cache
def left_segments() -> Mapping[str, str]:
    """Segments that no message uses unless its rule says so, with the reason."""
    return dict(_facts()["left"])


def name_of(header: list[str]) -> tuple[str, str]:
    """Type and event: MSH-9.1 and 9.2; a structure alone (`ORU_R01`) gives them too."""
    return _name_of(header[9])


@lru_cache(256)
def _name_of(field: str) -> tuple[str, str]:
    parts = [part.strip() for part in field.split("^")] + ["", "", ""]
    kind, event, structure = parts[0], parts[1], parts[2]
    if not event and structure.count("_") == 1:
        event = structure.partition("_")[2]
    return kind, event


def rule_for(context: MessageContext) -> Rule | None:
    """The rule for a message; what the header lacks or has wrong is reported. None: the message is not taken at all."""
    header = context.message.header
    kind, event = name_of(header)
    rule = rules().get(f"{kind}^{event}")
    if rule is None:
        known = any(name.startswith(f"{kind}^") for name in rules())
        what, place = ("event", "MSH[1]-9.2") if known else ("type", "MSH[1]-9.1")
        context.error(
            "not-supported", f"This message {what} is not taken. Send one of: {', '.join(rules())}.", path=place
        )
        return None
    if not _version_fits(header[12]):
        context.error("not-supported", "MSH-12 is no version of HL7 v2. Send version 2.1 to 2.9.", path="MSH[1]-12")
        return None
    if header[11].partition("^")[0].strip() not in _PROCESSING:
        context.error("not-supported", "MSH-11 is no processing id. Send P, T or D.", path="MSH[1]-11")
        return None
    _check_required(header, context)
    return rule


@lru_cache(256)
def _version_fits(field: str) -> bool:
    version = field.partition("^")[0].strip()
    return not version or (version.startswith("2.") and version[2:3] in "123456789" and len(version) <= 6)


def _check_required(header: list[str], context: MessageContext) -> None:
    if not header[10].strip():
        context.error(
            "required", "MSH-10 is empty, so the answer can not name the message. Send a control id.", path="MSH[1]-10"
        )
    for index, what in ((11, "processing id"), (12, "version")):
        if not header[index].strip():
            context.warn("required", f"MSH-{index} is empty. Send the {what}.", path=f"MSH[1]-{index}")
