"""Writers for the `to` of a mapping row: `status`, `code.text`, `name[0].family`, `identifier[]`, `value[x]`."""

from collections.abc import Callable
from operator import setitem
from typing import Any

Put = Callable[[dict[str, Any], Any], None]  # (resource, value)


def writer(to: str, extension: str | None = None) -> Put:
    """A writer for a target path."""
    if extension is not None:
        return _put_extension(extension, to)
    *parents, last = to.split(".")
    final = _put_last(last)
    if not parents:
        return final
    steps = [_descend(parent) for parent in parents]

    def put(resource: dict[str, Any], value: Any) -> None:
        for step in steps:
            resource = step(resource)
        final(resource, value)

    return put


def _put_last(key: str) -> Put:
    if key.endswith("[x]"):
        stem = key[:-3]

        def choice(resource: dict[str, Any], value: tuple[str, Any]) -> None:
            resource[stem + value[0]] = value[1]

        return choice
    if key.endswith("[]"):
        return _put_append(key[:-2])

    def put(resource: dict[str, Any], value: Any, _set: Callable[..., None] = setitem) -> None:
        _set(resource, key, value)

    return put


def _put_append(key: str) -> Put:
    def append(resource: dict[str, Any], value: Any) -> None:
        values = resource.get(key)
        if values is None:
            values = resource[key] = []
        if isinstance(value, list):
            values.extend(value)
        else:
            values.append(value)

    return append


def _descend(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    if key.endswith("[0]"):
        name = key[:-3]

        def first(resource: dict[str, Any]) -> dict[str, Any]:
            values = resource.setdefault(name, [{}])
            element: dict[str, Any] = values[0]
            return element

        return first

    def inner(resource: dict[str, Any]) -> dict[str, Any]:
        element: dict[str, Any] = resource.setdefault(key, {})
        return element

    return inner


def _put_extension(url: str, key: str) -> Put:
    append = _put_append("extension")

    def put(resource: dict[str, Any], value: Any) -> None:
        append(resource, {"url": url, key: value})

    return put
