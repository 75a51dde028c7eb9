"""FHIRPath invariants, parsed once: the slow but general way, for rules that have no named function.

fhirpathpy 2.2.4 needs three things here: the R4 model (else choice types are silently empty), its missing functions
`resolve` and `hasValue`, and a trace function (else `trace()` prints input to standard output). An expression that the
engine can not evaluate says nothing: it is neither met nor broken.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from profiles.run import Scope

Expression = Callable[[Any, Scope], bool | None]


@cache
def compiled(expression: str, path: str) -> Expression:
    """The expression as a function of (element, scope): true, false, or None when the engine can not say.

    `path` is the element's path in its base type, such as `Observation.component`; it gives choice types their meaning.
    """
    from fhirpathpy import compile as compile_expression  # 0.2 s to import: only where a rule needs it
    from fhirpathpy.engine.nodes import ResourceNode
    from fhirpathpy.models import models

    current: list[Scope] = []
    functions = {
        "resolve": {"fn": lambda _, inputs: _resolved(inputs, current[-1]), "arity": {0: []}},
        "hasValue": {"fn": lambda _, inputs: [bool(inputs)], "arity": {0: []}},
    }
    options = {"traceFn": lambda *_: None, "userInvocationTable": functions}
    evaluate = compile_expression(expression, models["r4"], options)

    def run(value: Any, scope: Scope) -> bool | None:
        root = scope.outer.resource if scope.outer and "contained" in scope.outer.resource else scope.resource
        current.append(scope)
        try:
            node = ResourceNode.create_node(value, path)  # type: ignore[no-untyped-call]
            outcome = evaluate(node, {"resource": scope.resource, "rootResource": root})
        except Exception:  # the edge of a third-party engine, which raises bare Exception for what it does not know
            return None
        finally:
            current.pop()
        return bool(outcome[0]) if outcome else None

    return run


def _resolved(inputs: Any, scope: Scope) -> list[Any]:
    from fhirpathpy.engine.nodes import ResourceNode

    found = []
    for node in inputs:
        data = getattr(node, "data", node)
        text = data.get("reference") if isinstance(data, dict) else data
        target = scope.resolve(text) if isinstance(text, str) else None
        if target is not None:
            found.append(ResourceNode.create_node(target, target["resourceType"]))  # type: ignore[no-untyped-call]
    return found
