"""The base R4 check: the tables of types, compiled once per type into closures. The server's hot path.

Checked on every resource: type known, elements known, cardinality, JSON types, primitive formats, one type of a choice,
required codes, type of literal references, ext-1, ele-1, empty arrays and objects, narrative (`profiles.narrative`) and
the invariants of `profiles.rules`. Nested resources are checked in their slots.

Places are linked tuples and texts are made only for a finding: a sound node costs one look-up and one call.
"""

import re
from collections.abc import Callable
from typing import Any

from profiles import library, references, rules
from profiles.accept import accepts
from profiles.base_rules import extension_is_sound
from profiles.elements import Element, Kind, elements_of
from profiles.place import Place, root
from profiles.primitives import PRIMITIVES, Predicate
from profiles.run import Run, Scope

Json = dict[str, Any]
Check = Callable[[Any, Place, Run], None]  # value, its place
Handler = Callable[[Any, Json, Place, Run], None]  # value, the object it stands in, that object's place
ResourceHook = Callable[[Json, Place, Run], None]

_ELEMENT_NAME = re.compile(r"_?[A-Za-z][A-Za-z0-9]{0,63}")

_after_structure: list[ResourceHook] = []
_checks: dict[str, Check] = {}


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
    if not accepts(name)(value, run.scope):
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
    check_resource(resource, root(element_name(name) if type(name) is str else "%resource"), run)


# --- Objects --------------------------------------------------------------------------------------------------------


def type_check(name: str) -> Check:
    """The check of a resource type, datatype or backbone (`Observation.component`), compiled when first met."""
    if name not in _checks:
        handlers: dict[str, Handler] = {}
        required: list[tuple[str, frozenset[str]]] = []
        finals: list[Check] = []
        _checks[name] = _type_check(name, handlers, required, finals)  # first: types hold each other in circles
        _add_elements(handlers, required, name)
        finals += _finals(name)
    return _checks[name]


def _type_check(
    name: str, handlers: dict[str, Handler], required: list[tuple[str, frozenset[str]]], finals: list[Check]
) -> Check:
    is_resource = library.types()[name]["kind"] == "resource"
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
        for likely, keys in required:
            if likely not in value and keys.isdisjoint(value):
                _missing(keys, place, run)
        if len(value) < 2 and (not value or ("id" in value and not may_be_bare)):
            run.refuse("structure", place, "An element holds a value or children (ele-1); fill it or leave it out.")
        if finals and run.broken == before:
            for final in finals:
                final(value, place, run)
        return None

    return check


def _finals(name: str) -> tuple[Check, ...]:
    found = list(rules.checks_at(name))
    if name == "Extension":
        found.append(_extension)
    if name == "Reference":
        found.append(_reference)
    return tuple(found)


def _extension(value: Json, place: Place, run: Run) -> None:
    if not extension_is_sound(value, run.scope):
        run.refuse("invariant", place, "An extension has either a value or extensions (ext-1); keep one of the two.")


def _reference(value: Json, place: Place, run: Run) -> None:
    if not references.is_well_formed(value, run.scope):
        where = (place, "reference", -1)
        run.refuse("value", where, "A relative reference is Type/id with an R4 resource type; correct it.")


def _unknown(key: str, handlers: dict[str, Handler], place: Place, run: Run) -> None:
    near = run.near(key, handlers)
    hint = f"did you mean {near}?" if near else "remove it, or put it into an extension."
    run.refuse("structure", (place, element_name(key), -1), f"FHIR R4 defines no such element here; {hint}")


def _missing(keys: frozenset[str], place: Place, run: Run) -> None:
    names = sorted(key for key in keys if not key.startswith("_"))
    name = names[0] if len(names) == 1 else "one of " + ", ".join(names[:12])
    run.refuse("required", place, f"FHIR R4 requires {name} here; add it.")


# --- Elements -------------------------------------------------------------------------------------------------------


def _add_elements(handlers: dict[str, Handler], required: list[tuple[str, frozenset[str]]], owner: str) -> None:
    for element in elements_of(owner):
        for kind in element.kinds:
            others = element.keys - {kind.key, f"_{kind.key}"} if element.is_choice else frozenset()
            if kind.is_primitive:
                handlers[kind.key] = _primitive(element, kind, others)
                handlers[f"_{kind.key}"] = _companion(element, kind)
            else:
                handlers[kind.key] = (_array if element.many else _single)(kind, _value_check(element, kind), others)
        if element.required:
            required.append((element.kinds[0].key, element.keys))


def _value_check(element: Element, kind: Kind) -> Check:
    """The check of one value that is an object."""
    if kind.code == "Resource":
        return check_resource
    extra = [*rules.checks_at(element.path)] if element.path else []
    if kind.targets:
        extra.append(_target_check(kind.targets))
    if element.value_set:
        extra.append(rules.coded_check(element.value_set))
    base = type_check(kind.code)
    return _both(base, tuple(extra)) if extra else base


def _both(base: Check, extra: tuple[Check, ...]) -> Check:
    def check(value: Any, place: Place, run: Run) -> None:
        before = run.broken
        base(value, place, run)
        if run.broken == before:
            for each in extra:
                each(value, place, run)

    return check


def _target_check(targets: frozenset[str]) -> Check:
    text = f"FHIR R4 lets this refer to {', '.join(sorted(targets))} only; refer to one of these types."

    def check(value: Any, place: Place, run: Run) -> None:
        if not references.may_refer(value, run.scope, targets):
            run.refuse("value", place, text)

    return check


def _one_choice(others: frozenset[str], owner: Json, place: Place, run: Run) -> None:
    if not others.isdisjoint(owner):
        run.refuse("structure", place, "Only one type of this choice may have a value; keep one.")


def _single(kind: Kind, check: Check, others: frozenset[str]) -> Handler:
    step = kind.step

    def handler(item: Any, owner: Json, place: Place, run: Run) -> None:
        if type(item) is list:
            return run.refuse("structure", (place, step, -1), "One value is wanted here, not an array; unwrap it.")
        check(item, (place, step, -1), run)
        if others:
            _one_choice(others, owner, (place, step, -1), run)
        return None

    return handler


def _array(kind: Kind, check: Check, others: frozenset[str]) -> Handler:
    step = kind.step

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


def _primitive(element: Element, kind: Kind, others: frozenset[str]) -> Handler:
    accepts = _coded(kind.code, element.value_set)
    if element.many:
        return _primitive_array(element, kind, accepts)
    if others:
        return _primitive_choice(kind, accepts, others)
    step, code, value_set = kind.step, kind.code, element.value_set

    def handler(item: Any, owner: Json, place: Place, run: Run) -> None:
        if not accepts(item):
            _refuse(code, value_set, item, (place, step, -1), run)

    return handler


def _primitive_choice(kind: Kind, accepts: Predicate, others: frozenset[str]) -> Handler:
    step, code = kind.step, kind.code

    def handler(item: Any, owner: Json, place: Place, run: Run) -> None:
        if not accepts(item):
            _refuse(code, None, item, (place, step, -1), run)
        _one_choice(others, owner, (place, step, -1), run)

    return handler


def _primitive_array(element: Element, kind: Kind, accepts: Predicate) -> Handler:
    key, step, code, value_set = kind.key, kind.step, kind.code, element.value_set

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


def _companion(element: Element, kind: Kind) -> Handler:
    """The `_name` property: id and extensions of a primitive."""
    key, step = kind.key, kind.step
    single = _single(kind, type_check("Element"), frozenset())
    if not element.many:
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
