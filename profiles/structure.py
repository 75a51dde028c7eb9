"""The base R4 check: the tables of types, compiled once per type into closures. The server's hot path.

Checked on every resource: type known, elements known, cardinality, JSON types, primitive formats, one type of a choice,
required codes, type of literal references, ext-1, ele-1, empty arrays and objects, narrative (`profiles.narrative`) and
the invariants of `profiles.rules`. Nested resources are checked in their slots.

Places are linked tuples and texts are made only for a finding: a sound node costs one look-up and one call.
"""

import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from typing import Any

from profiles import library, rules
from profiles.place import Place, root
from profiles.primitives import PRIMITIVES, Predicate
from profiles.run import Run, Scope

Json = dict[str, Any]
Check = Callable[[Any, Place, Run], None]  # value, its place
Handler = Callable[[Any, Json, Place, Run], None]  # value, the object it stands in, that object's place
ResourceHook = Callable[[Json, Place, Run], None]

_ROW = re.compile(r"(\d+)\.\.(\d+|\*) ([^!]+?)(?: ! (\S+))?")
_KIND = re.compile(r"(@?[A-Za-z0-9.]+)(?:\(([^)]*)\))?")
_ELEMENT_NAME = re.compile(r"_?[A-Za-z][A-Za-z0-9]{0,63}")
_RELATIVE = re.compile(r"([A-Z][A-Za-z]{0,63})/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?")
_ABSOLUTE = re.compile(r"https?://\S+/([A-Z][A-Za-z]{0,63})/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?")
_OTHER_FORM = re.compile(r"#|[A-Za-z][A-Za-z0-9+.\-]*:|[A-Z][A-Za-z]{0,63}\?")  # contained, absolute, conditional

_after_structure: list[ResourceHook] = []


def after_structure(hook: ResourceHook) -> None:
    """Registers what runs on each resource right after its structure: the profiles."""
    _after_structure.append(hook)


def element_name(key: str) -> str:
    """The key if it can be an element's name; other keys may hold anything and are not repeated."""
    return key if _ELEMENT_NAME.fullmatch(key) else "%unnamed"


# --- Resources ------------------------------------------------------------------------------------------------------


def check_resource(value: Any, place: Place, run: Run) -> None:
    """Checks one resource, and those inside it, then its profiles."""
    if type(value) is not dict:
        return run.refuse("structure", place, "A resource is a JSON object with resourceType; send one.")
    name = value.get("resourceType")
    if type(name) is not str or name not in library.resource_types():
        return run.refuse("structure", place, "resourceType is missing or no R4 resource type; name one of the 146.")
    outer = run.scope
    run.scope = Scope(value, outer if outer.resource else None)
    found = run.broken
    type_check(name)(value, place, run)
    if run.broken == found:
        rules.check_domain_resource(value, place, run)
    sound, run.sound = run.sound, run.broken == found
    for hook in _after_structure:
        hook(value, place, run)
    run.sound, run.scope = sound, outer
    return None


def check_root(resource: Json, run: Run) -> None:
    """Checks the outermost resource; its places start with its type."""
    name = resource.get("resourceType")
    check_resource(resource, root(element_name(name) if isinstance(name, str) else "%resource"), run)


# --- Objects --------------------------------------------------------------------------------------------------------


@cache
def type_check(name: str) -> Check:
    """The check of one resource type, datatype or backbone, such as `Observation.component`."""
    entry = library.types()[name]
    handlers, required = _handlers(name, entry)
    finals = _finals(name)
    is_resource = entry["kind"] == "resource"
    may_be_bare = is_resource or name == "Element"  # a primitive's id stands beside its value
    if is_resource:
        handlers["resourceType"] = lambda item, owner, place, run: None

    def check(value: Any, place: Place, run: Run) -> None:
        if type(value) is not dict:
            return run.refuse("structure", place, "A JSON object is wanted here; replace the value by one.")
        before = run.broken
        for key, item in value.items():
            handler = handlers.get(key)
            if handler is None:
                _unknown(key, handlers, place, run)
            else:
                handler(item, value, place, run)
        for keys in required:
            if keys.isdisjoint(value):
                _missing(keys, place, run)
        if len(value) < 2 and (not value or ("id" in value and not may_be_bare)):
            run.refuse("structure", place, "An element holds a value or children (ele-1); fill it or leave it out.")
        if finals and run.broken == before:
            for final in finals:
                final(value, place, run)
        return None

    return check


def _finals(name: str) -> tuple[Check, ...]:
    found = list(rules.checks_at(name, library.rules().get(name, {})))
    if name == "Extension":
        found.append(_extension)
    if name == "Reference":
        found.append(_reference)
    return tuple(found)


def _extension(value: Json, place: Place, run: Run) -> None:
    has_value = any(key.startswith(("value", "_value")) for key in value)
    if has_value == ("extension" in value):
        run.refuse("invariant", place, "An extension has either a value or extensions (ext-1); keep one of the two.")


def _unknown(key: str, handlers: dict[str, Handler], place: Place, run: Run) -> None:
    near = get_close_matches(key, handlers, n=1, cutoff=0.75) if len(key) < 64 else []
    hint = f"did you mean {near[0]}?" if near else "remove it, or put it into an extension."
    run.refuse("structure", (place, element_name(key), -1), f"FHIR R4 defines no such element here; {hint}")


def _missing(keys: frozenset[str], place: Place, run: Run) -> None:
    names = sorted(key for key in keys if not key.startswith("_"))
    name = names[0] if len(names) == 1 else "one of " + ", ".join(names[:12])
    run.refuse("required", place, f"FHIR R4 requires {name} here; add it.")


# --- Elements -------------------------------------------------------------------------------------------------------


def _handlers(owner: str, entry: Json) -> tuple[dict[str, Handler], list[frozenset[str]]]:
    handlers: dict[str, Handler] = {}
    required: list[frozenset[str]] = []
    for name, row in entry["elements"].items():
        parsed = _ROW.fullmatch(row)
        assert parsed is not None, row
        minimum, maximum, kinds, value_set = parsed.groups()
        keys = _add_element(handlers, owner, name, (maximum, kinds, value_set))
        if minimum != "0":
            required.append(frozenset(keys))
    return handlers, required


def _add_element(handlers: dict[str, Handler], owner: str, name: str, facts: tuple[str, str, str | None]) -> list[str]:
    """Adds the handlers of one element under each of its JSON keys; gives these keys."""
    maximum, kinds, value_set = facts
    stem = name.removesuffix("[x]")
    choices = [(kind[1], kind[2]) for kind in _KIND.finditer(kinds)]
    is_choice = name.endswith("[x]")
    keys = {stem + code[0].upper() + code[1:] if is_choice else stem: (code, targets) for code, targets in choices}
    added = [*keys, *(f"_{key}" for key, (code, _) in keys.items() if code in PRIMITIVES)]
    for key, (code, targets) in keys.items():
        step = f"{stem}.ofType({code})" if is_choice else stem
        check = value_check(code, targets, value_set, f"{owner}.{stem}")
        others = frozenset(added) - {key, f"_{key}"} if is_choice else frozenset()
        make = _array if maximum != "1" else _single
        handlers[key] = (
            make(key, step, check, others) if check else _primitive(key, step, code, maximum, others, value_set)
        )
        if code in PRIMITIVES:
            handlers[f"_{key}"] = _companion(key, step, maximum)
    return added


def value_check(code: str, targets: str | None, value_set: str | None, path: str) -> Check | None:
    """The check of a complex element's value; None for a primitive."""
    if code in PRIMITIVES:
        return None
    if code == "Resource":
        return check_resource
    base = _late(code.lstrip("@"))
    extra = [*rules.checks_at(path, {} if code.startswith("@") else library.rules().get(path, {}))]
    if targets:
        extra.append(_target_check(frozenset(targets.split(","))))
    if value_set:
        extra.append(rules.coded_check(value_set))
    return _both(base, tuple(extra)) if extra else base


def _late(name: str) -> Check:
    """The type's check, compiled when first met: types refer to each other in circles."""
    compiled: list[Check] = []

    def check(value: Any, place: Place, run: Run) -> None:
        if not compiled:
            compiled.append(type_check(name))
        compiled[0](value, place, run)

    return check


def _both(base: Check, extra: tuple[Check, ...]) -> Check:
    def check(value: Any, place: Place, run: Run) -> None:
        before = run.broken
        base(value, place, run)
        if run.broken == before:
            for each in extra:
                each(value, place, run)

    return check


def _one_choice(others: frozenset[str], owner: Json, place: Place, run: Run) -> None:
    if not others.isdisjoint(owner):
        run.refuse("structure", place, "Only one type of this choice may have a value; keep one.")


def _single(key: str, step: str, check: Check, others: frozenset[str]) -> Handler:
    def handler(item: Any, owner: Json, place: Place, run: Run) -> None:
        if type(item) is list:
            return run.refuse("structure", (place, step, -1), "One value is wanted here, not an array; unwrap it.")
        check(item, (place, step, -1), run)
        if others:
            _one_choice(others, owner, (place, step, -1), run)
        return None

    return handler


def _array(key: str, step: str, check: Check, others: frozenset[str]) -> Handler:
    def handler(items: Any, owner: Json, place: Place, run: Run) -> None:
        if type(items) is not list:
            return run.refuse("structure", (place, step, -1), "An array is wanted here; put the value into [ ].")
        if not items:
            return run.refuse("structure", (place, step, -1), "An array is never empty in FHIR; leave it out.")
        for index, item in enumerate(items):
            check(item, (place, step, index), run)
        return None

    return handler


# --- Primitives -----------------------------------------------------------------------------------------------------


def _primitive(key: str, step: str, code: str, maximum: str, others: frozenset[str], value_set: str | None) -> Handler:
    accepts = _coded(code, value_set)
    if maximum != "1":
        return _primitive_array(key, step, code, accepts, value_set)
    if others:
        return _primitive_choice(step, code, accepts, others)

    def handler(item: Any, owner: Json, place: Place, run: Run) -> None:
        if not accepts(item):
            _refuse(code, value_set, item, (place, step, -1), run)

    return handler


def _primitive_choice(step: str, code: str, accepts: Predicate, others: frozenset[str]) -> Handler:
    def handler(item: Any, owner: Json, place: Place, run: Run) -> None:
        if not accepts(item):
            _refuse(code, None, item, (place, step, -1), run)
        _one_choice(others, owner, (place, step, -1), run)

    return handler


def _primitive_array(key: str, step: str, code: str, accepts: Predicate, value_set: str | None) -> Handler:
    def handler(items: Any, owner: Json, place: Place, run: Run) -> None:
        if type(items) is not list or not items:
            return run.refuse("structure", (place, step, -1), "An array with at least one value is wanted here.")
        for index, item in enumerate(items):
            if item is None and _companion_at(owner, key, index):
                continue
            if not accepts(item):
                _refuse(code, value_set, item, (place, step, index), run)
        return None

    return handler


def _companion_at(owner: Json, key: str, index: int) -> bool:
    companion = owner.get(f"_{key}")
    return type(companion) is list and index < len(companion) and companion[index] is not None


def _coded(code: str, value_set: str | None) -> Predicate:
    codes = rules.codes_of(value_set) if value_set else None
    if codes is None:
        return PRIMITIVES[code][0]
    return lambda item: type(item) is str and item in codes


def _refuse(code: str, value_set: str | None, item: Any, place: Place, run: Run) -> None:
    accepts, wanted = PRIMITIVES[code]
    if value_set and accepts(item):
        run.error(
            "code-invalid", place, f"The code is not in the required value set {value_set}; use one of its codes."
        )
    elif type(item) is float:
        run.refuse("value", place, "A binary float has lost digits; read JSON with profiles.fhir_json.")
    else:
        run.refuse("value", place, f"The value is no FHIR {code}; write {wanted}.")


def _companion(key: str, step: str, maximum: str) -> Handler:
    """The `_name` property: id and extensions of a primitive."""
    single = _single(f"_{key}", step, _late("Element"), frozenset())
    if maximum == "1":
        return single

    def handler(items: Any, owner: Json, place: Place, run: Run) -> None:
        values = owner.get(key)
        if type(items) is not list or (type(values) is list and len(values) != len(items)):
            return run.refuse("structure", (place, step, -1), "Values and their extensions are arrays of equal length.")
        for index, item in enumerate(items):
            if item is not None:
                single(item, owner, place, run)
            elif type(values) is not list or values[index] is None:
                run.refuse("structure", (place, step, index), "null stands for nothing on either side; leave it out.")
        return None

    return handler


# --- References -----------------------------------------------------------------------------------------------------


def literal_type(reference: str) -> str | None:
    """The resource type that a literal reference names, if it names one."""
    found = _RELATIVE.fullmatch(reference) or _ABSOLUTE.fullmatch(reference)
    return found[1] if found and found[1] in library.resource_types() else None


def _reference(value: Json, place: Place, run: Run) -> None:
    """The form of a literal reference, for any target."""
    text = value.get("reference")
    if text is None or _OTHER_FORM.match(text):
        return
    found = _RELATIVE.fullmatch(text)
    if found is None or found[1] not in library.resource_types():
        where = (place, "reference", -1)
        run.refuse("value", where, "A relative reference is Type/id with an R4 resource type; correct it.")


def _target_check(targets: frozenset[str]) -> Check:
    listed = ", ".join(sorted(targets))

    def check(value: Any, place: Place, run: Run) -> None:
        text = value.get("reference")
        if text is None or text.partition("/")[0] in targets:
            return
        kind = literal_type(text)
        if kind is None:
            target = run.scope.resolve(text)
            kind = target.get("resourceType") if target else None
        if kind is not None and kind not in targets:
            run.refuse("value", place, f"FHIR R4 lets this refer to {listed} only; refer to one of these types.")

    return check
