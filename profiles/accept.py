"""The fast lane of the base check: one generated function per type that says yes only to what is surely sound.

`accepts(type)` is a plain Python function made from the same tables, predicates and rules as `profiles.structure`, with
the primitives' tests written in line. A no means nothing: the structure check then walks the same value and finds what
there is to say, if anything. So this module can make validation slow, but never wrong, as long as a yes is right: a
test spoils resources at random and compares.

What is left to the structure check on purpose: types with a slot for any resource (Bundle, Parameters) or a rule that
only FHIRPath knows, contained resources, companions of primitives (`_birthDate`).
"""

from collections.abc import Callable
from typing import Any

from profiles import library, references, rules, valuesets
from profiles.base_rules import Holds, extension_is_sound
from profiles.elements import Element, Kind, elements_of
from profiles.primitives import PRIMITIVES
from profiles.run import Scope

Accepts = Callable[[Any, Scope], bool]

_STRING = "type(x) is not str or not x or not x.isprintable() or x.isspace()"
_NO_SPACE = 'type(x) is not str or not x or not x.isprintable() or " " in x'
_IN_LINE = {"string": _STRING, "markdown": _STRING} | dict.fromkeys(("code", "uri", "url", "canonical"), _NO_SPACE)
_USUAL = frozenset(  # asked for first: when nothing is left after them, the seldom ones are not asked for
    {
        "answer",
        "category",
        "code",
        "coding",
        "display",
        "div",
        "entry",
        "family",
        "fullUrl",
        "given",
        "high",
        "id",
        "item",
    }
    | {"linkId", "meta", "name", "profile", "reference", "section", "status", "subject", "system", "text", "title"}
    | {"unit", "value"}
)

_names: dict[str, Any] = {}  # what the generated functions refer to, each other included


def accepts(name: str) -> Accepts:
    """The acceptor of a resource type, datatype or backbone, made when first met."""
    key = _function_name(name)
    if key not in _names:
        _names[key] = _never  # types hold each other in circles
        _names[key] = _generate(name, key)
    found: Accepts = _names[key]
    return found


def _never(value: Any, scope: Scope) -> bool:
    return False


def _function_name(name: str) -> str:
    return "accept_" + name.replace(".", "_")


def _generate(name: str, key: str) -> Accepts:
    finals = _finals(name)
    elements = elements_of(name)
    if finals is None or any(each.kinds[0].code == "Resource" and each.name != "contained" for each in elements):
        return _never
    lines = [f"def {key}(v, s):", "    if type(v) is not dict or not v: return False", "    n = len(v)"]
    is_resource = library.types()[name]["kind"] == "resource"  # its resourceType has been read by the caller
    lines.append("    n -= 1" if is_resource else '    if n == 1 and "id" in v: return False')
    plain = [each for each in elements if not each.is_choice and each.kinds[0].code != "Resource"]
    for each in (each for each in plain if _is_usual(each, is_resource)):
        lines += _element_lines(each)
    late = [each for each in plain if not _is_usual(each, is_resource)]
    lines += _late_lines(name, late, [each for each in elements if each.is_choice])
    lines += [f"    if not {_named(holds)}(v, s): return False" for holds in finals]
    source = "\n".join([*lines, "    return True"])
    exec(compile(source, f"<{key}>", "exec"), _names)  # noqa: S102 - our own tables, no input
    made: Accepts = _names[key]
    return made


def _is_usual(each: Element, of_resource: bool) -> bool:
    return each.required or (each.name in _USUAL and (of_resource or each.name != "id"))


def _finals(name: str) -> list[Holds] | None:
    found = rules.holds_at(name)
    extra = {"Extension": extension_is_sound, "Reference": references.is_well_formed}.get(name)
    return None if found is None else [*found, *([extra] if extra else [])]


def _named(value: Any) -> str:
    """A name under which the generated functions find the object."""
    name = f"o{id(value)}"
    _names[name] = value  # also keeps it alive, so that no other object gets its identity
    return name


# --- Elements -------------------------------------------------------------------------------------------------------


def _element_lines(each: Element) -> list[str]:
    kind = each.kinds[0]
    missing = ["    else: return False"] if each.required else []
    lines = [f'    x = v.get("{kind.key}")', "    if x is not None:", "        n -= 1"]
    if each.many:
        lines += ["        if type(x) is not list or not x: return False", "        for x in x:"]
        return [*lines, *(f"            {line}" for line in _value_lines(each, kind)), *missing]
    return [*lines, *(f"        {line}" for line in _value_lines(each, kind)), *missing]


def _value_lines(each: Element, kind: Kind) -> list[str]:
    """Tests of one value `x`."""
    if kind.is_primitive:
        return [f"if {_primitive_test(kind.code, each.value_set)}: return False"]
    accepts(kind.code)
    lines = [f"if not {_function_name(kind.code)}(x, s): return False"]
    if kind.targets:
        test = f"{_named(references.may_refer)}(x, s, {_named(kind.targets)})"
        lines.append(f"if not {test}: return False")
    if each.value_set:
        lines.append(f'if {_named(valuesets.coded_in)}("{each.value_set}", x) is False: return False')
    own = rules.holds_at(each.path) if each.path else []
    return [*lines, *(["return False"] if own is None else [f"if not {_named(h)}(x, s): return False" for h in own])]


def _primitive_test(code: str, value_set: str | None) -> str:
    """The condition under which `x` is not surely well-formed."""
    codes = rules.codes_of(value_set) if value_set else None
    if codes is not None:
        return f"type(x) is not str or x not in {_named(codes)}"
    predicate = f"not {_named(PRIMITIVES[code][0])}(x)"
    return f"({_IN_LINE[code]}) and {predicate}" if code in _IN_LINE else predicate


def _late_lines(name: str, late: list[Element], choices: list[Element]) -> list[str]:
    """The seldom elements and the choices, in one pass over the keys: bit by bit, each choice may have one value."""
    table: dict[str, tuple[int, Accepts]] = {each.kinds[0].key: (0, _acceptor(name, each)) for each in late}
    for number, each in enumerate(choices):
        for kind in each.kinds:
            table[kind.key] = (1 << number, _choice_acceptor(name, each, kind))
    if not table:
        return ["    if n: return False"]
    required = sum(1 << number for number, each in enumerate(choices) if each.required)
    return [
        *(["    g = 0"] if required else []),
        "    if n:",
        *([] if required else ["        g = 0"]),
        "        for k, x in v.items():",
        f"            t = {_named(table)}.get(k)",
        "            if t is not None:",
        "                if g & t[0] or not t[1](x, s): return False",
        "                g |= t[0]",
        "                n -= 1",
        "        if n: return False",
        *([f"    if g & {required} != {required}: return False"] if required else []),
    ]


def _acceptor(name: str, each: Element) -> Accepts:
    """Accepts what an element holds: a value, or a list of them."""
    key = f"all_{_function_name(name)}_{each.kinds[0].key}"  # a backbone's own acceptor has the name without all_
    lines = [f"    {line}" for line in _value_lines(each, each.kinds[0])]
    if each.many:
        lines = [
            "    if type(x) is not list or not x: return False",
            "    for x in x:",
            *(f"    {line}" for line in lines),
        ]
    exec(compile("\n".join([f"def {key}(x, s):", *lines, "    return True"]), f"<{key}>", "exec"), _names)  # noqa: S102 - our own tables, no input
    made: Accepts = _names[key]
    return made


def _choice_acceptor(name: str, each: Element, kind: Kind) -> Accepts:
    key = f"{_function_name(name)}_{kind.key}"
    lines = [f"def {key}(x, s):", *(f"    {line}" for line in _value_lines(each, kind)), "    return True"]
    exec(compile("\n".join(lines), f"<{key}>", "exec"), _names)  # noqa: S102 - our own tables, no input
    made: Accepts = _names[key]
    return made
