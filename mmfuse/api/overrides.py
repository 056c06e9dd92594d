"""Config keys as keyword arguments: nested dicts, or dotted names."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any, get_type_hints

from mmfuse.config.parsing import nested_in
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError


def nest(overrides: Mapping[str, Any], schema: type, arguments: Collection[str], where: str) -> dict[str, Any]:
    """Nested dicts of keyword arguments such as `training={"epochs": 3}` or `**{"training.epochs": 3}`.

    Args:
        overrides: The arguments.
        schema: The dataclass of the config.
        arguments: What else the function takes; named in errors.
        where: The function; named in errors.

    Raises:
        MmfuseError: A key that the config does not have; of deeper ones its reader says so.
    """
    found: dict[str, Any] = {}
    for dotted, value in overrides.items():
        first, *rest = dotted.split(".")
        if first not in get_type_hints(schema):
            raise MmfuseError(f"{where}: {dotted}: no such argument; {_instead(dotted, schema, arguments)}")
        for name in reversed(rest):
            value = {name: value}
        _merge(found, {first: value})
    return found


def _instead(name: str, schema: type, arguments: Collection[str]) -> str:
    """What may be meant: a key deep in the config of this name, or the nearest of all that is legal."""
    deep = [path for path in _leaves(schema) if path.rpartition(".")[2] == name]
    if deep:
        ways = " or ".join(f'**{{"{path}": ...}}' for path in deep[:4])
        return f"the config has it as {', '.join(deep[:4])}: give {ways}"
    return nearest(name, [*arguments, *(item.name for item in dataclasses.fields(schema))])


def _leaves(schema: type, prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(schema)
    for item in dataclasses.fields(schema):
        nested, by_name = nested_in(hints[item.name])
        if nested is None:
            yield f"{prefix}{item.name}"
        elif not by_name:
            yield from _leaves(nested, f"{prefix}{item.name}.")


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for name, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = dict(value) if isinstance(value, Mapping) else value
