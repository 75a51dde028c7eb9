"""Generated narrative of the resources of a report: values and times, escaped; never a name or an identifier.

Source: ACCESS API IG 0.9.12; CMS's test environment wanted `text` on every resource of a report.
"""

from collections.abc import Callable
from html import escape
from typing import Any

Resource = dict[str, Any]

_XHTML = "http://www.w3.org/1999/xhtml"


def generated(*paragraphs: str) -> Resource:
    """A Narrative of plain paragraphs; any text may be given, it is escaped here."""
    body = "".join(f"<p>{escape(text)}</p>" for text in paragraphs)
    return {"status": "generated", "div": f'<div xmlns="{_XHTML}">{body}</div>'}


def narrative(resource: Resource) -> Resource:
    """The Narrative of one resource of a report; of a kind not listed below, its type."""
    describe = _DESCRIBE.get(resource["resourceType"])
    return generated(describe(resource) if describe else f"{resource['resourceType']}.")


def _observation(observation: Resource) -> str:
    when = _when(observation.get("effectiveDateTime") or observation.get("effectivePeriod"))
    return f"{_label(observation)}: {_values(observation)}, measured {when}, {observation.get('status', '')}."


def _values(observation: Resource) -> str:
    if "component" in observation:
        return ", ".join(f"{_label(part)} {_quantity(part)}" for part in observation["component"])
    return _quantity(observation)


def _quantity(holder: Resource) -> str:
    quantity = holder.get("valueQuantity")
    if not quantity:
        return "no value"
    unit = quantity.get("unit") or quantity.get("code", "")
    return f"{quantity.get('comparator', '')}{quantity.get('value')} {unit}"


def _label(coded: Resource) -> str:
    concept = coded.get("code", {})
    coding = (concept.get("coding") or [{}])[0]
    return str(coding.get("display") or concept.get("text") or coding.get("code", "Observation"))


def _when(effective: Any) -> str:
    if isinstance(effective, dict):
        return f"from {effective.get('start', 'an unknown time')} to {effective.get('end', 'an unknown time')}"
    return str(effective or "at an unknown time")


def _response(response: Resource) -> str:
    count = len(response.get("item", ()))
    return f"Answers to a questionnaire: {count} items, given {response.get('authored', 'at an unknown time')}."


_DESCRIBE: dict[str, Callable[[Resource], str]] = {
    "Observation": _observation,
    "QuestionnaireResponse": _response,
    "Questionnaire": lambda _: "The questions that the answers of this report refer to.",
    "Patient": lambda _: "The patient of this report.",
    "Practitioner": lambda _: "The clinician responsible for this report.",
    "Organization": lambda _: "The participant in the ACCESS Model that sends this report.",
}
