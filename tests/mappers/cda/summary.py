"""A conversion in lines that a person can check: a resource a line, without ids; then the account and the issues."""

from typing import Any

from mappers.conversion import Conversion


def _concept(value: dict[str, Any] | None) -> str:
    codes = " ".join(one.get("code", "?") for one in (value or {}).get("coding", ()))
    return codes or str((value or {}).get("text", ""))


def _quantity(value: dict[str, Any]) -> str:
    return f"{value.get('comparator', '')}{value['value']} {value.get('code') or value.get('unit', '')}".strip()


def _value(holder: dict[str, Any], stem: str) -> str:
    for name, one in holder.items():
        if name.startswith(stem) and name != stem:
            if name.endswith(("Quantity", "Age")):
                return _quantity(one)
            return _concept(one) if isinstance(one, dict) and ("coding" in one or "text" in one) else str(one)
    return ""


def _parts(resource: dict[str, Any]) -> str:
    found = [f"{_concept(one['code'])}={_value(one, 'value')}" for one in resource.get("component", ())]
    for target in resource.get("target", ()) if resource["resourceType"] == "Goal" else ():
        due = target.get("dueDate", "")
        found.append(f"{_concept(target.get('measure'))}={_value(target, 'detail')} due {due}".strip())
    found += [str(len(resource["item"])) + " items"] if "item" in resource else []
    for name in ("achievementStatus", "clinicalStatus", "verificationStatus"):
        found += [f"{name}={_concept(resource[name])}"] if name in resource else []
    links = ("addresses", "goal", "focus", "outcomeReference", "hasMember", "derivedFrom", "result", "reasonReference")
    found += [f"{name}:{len(resource[name])}" for name in links if name in resource]
    return " ".join(found)


def _line(resource: dict[str, Any]) -> str:
    code = resource.get("code") or resource.get("vaccineCode") or resource.get("medicationCodeableConcept")
    when = next((str(one) for name, one in resource.items() if name.endswith(("DateTime", "Period", "startDate"))), "")
    state = str(resource.get("status") or resource.get("lifecycleStatus") or "")
    profiles = ",".join(one.rpartition("/")[2] for one in resource.get("meta", {}).get("profile", ()))
    name = next((str(one.get("text") or one.get("family")) for one in _list(resource.get("name"))), "")
    said = (_concept(code) if code else name, _value(resource, "value"), _parts(resource), state, when, f"[{profiles}]")
    return " | ".join([resource["resourceType"], *(one for one in said if one)])


def _list(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def summary(conversion: Conversion) -> str:
    """All lines, in the order of the document."""
    lines = [_line(one) for one in (conversion.patient or {}, *conversion.resources) if one]
    lines += [f"account {one.kind} {one.location} {one.reason}" for one in conversion.unmapped]
    lines += [f"issue {one.severity} {one.code} {one.location} {one.text}" for one in conversion.issues]
    return "\n".join(lines) + "\n"
