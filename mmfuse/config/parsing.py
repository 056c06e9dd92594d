"""Plain nested values to an instance of a dataclass, strictly: every error names the key and what is legal."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmfuse.registry import nearest
from mmfuse.types import MmfuseError, first_line

NOT_YAML = (ValueError, LookupError, AttributeError, TypeError)
"""What PyYAML's constructors raise of a value that is not of its tag: `!!bool maybe`, `!!int ""`, `!!timestamp x`."""
T = TypeVar("T")


def key(default: Any, help: str, **rules: Any) -> Any:
    """A config key: its default, one line of help, and `choices`, `low` or `high` where its values are bounded.

    With `before`, what was done in runs that were begun before there was this key, where that is not its default.
    """
    metadata = {"help": help, **rules}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def parse(schema: type[T], layers: Iterable[tuple[str, Any]]) -> T:
    """An instance of the dataclass `schema` from plain nested values, strictly.

    Args:
        schema: A dataclass whose fields were made by `key`.
        layers: (where they come from, nested values), later ones on top.

    Raises:
        MmfuseError: An unknown or missing key, a wrong type, a value out of range.
    """
    layers = list(layers)
    try:
        mark = stand_in(repr(layers))
    except ValueError as error:  # Python writes no number of thousands of digits, which YAML has in hexadecimal
        raise MmfuseError(f"{layers[0][0]}: it contains a number of thousands of digits") from error
    merged = OmegaConf.structured(schema)
    for where, values in layers:
        unknown = _unknown_key(values, schema)
        if unknown:
            raise MmfuseError(f"{where}: {unknown}")
        try:
            merged = OmegaConf.merge(merged, exchange(values, "$", mark))
        except (
            OmegaConfBaseException,
            TypeError,
            ValueError,
            ArithmeticError,
            AssertionError,
            AttributeError,
        ) as error:
            # OmegaConf has no errors of its own for some values that do not fit, such as a mapping where a list stands.
            path = getattr(error, "full_key", "") or "".join(re.findall(r"full_key: (\S+)", str(error))[:1])
            raise MmfuseError(f"{where}: {path}: {first_line(error)}".replace(mark, "$")) from error
    where = layers[0][0]
    try:
        for name in sorted(OmegaConf.missing_keys(merged)):
            raise MmfuseError(f"{where}: {name} is missing: {_help_of(schema, name)}".replace(mark, "$"))
        parsed: Any = exchange(OmegaConf.to_object(merged), mark, "$")
    except OmegaConfBaseException as error:
        said = f"{where}: {getattr(error, 'full_key', '')}: {first_line(error)}"
        raise MmfuseError(said.replace(mark, "$")) from error
    for name, value, rules in _walk(parsed):
        _check_value(name, value, rules, where)
    return parsed


def read_overrides(overrides: Iterable[str]) -> Any:
    """Nested dicts of `key=value` strings.

    Raises:
        MmfuseError: One is no `key=value`, or its value is not YAML.
    """
    overrides = list(overrides)
    for text in overrides:
        if "=" not in text:
            raise MmfuseError(f"{text!r}: an override is key=value, for example training.epochs=3")
    mark = stand_in("\n".join(overrides))
    try:
        return exchange(OmegaConf.to_container(OmegaConf.from_dotlist(exchange(overrides, "$", mark))), mark, "$")
    except (OmegaConfBaseException, yaml.YAMLError, RecursionError, *NOT_YAML) as error:
        raise MmfuseError(f"command line: {first_line(error)}".replace(mark, "$")) from error


def stand_in(text: str) -> str:
    """A character for each `$`, so that OmegaConf finds no interpolation, whatever backslashes stand before one.

    `${...}` is kept for the one who knows what it stands for, and the environment is nobody's to quote. The character,
    of those that mean nothing, does not occur in `text`, nor does its number, as which YAML could have it.
    """
    lower = text.lower()
    return next(c for c in map(chr, range(0xE000, 0xF900)) if c not in text and f"{ord(c):x}" not in lower)


def exchange(values: Any, old: str, new: str) -> Any:
    """The same values with one character for another in all their texts."""
    if isinstance(values, str):
        return values.replace(old, new)
    if isinstance(values, dict):
        return {exchange(name, old, new): exchange(value, old, new) for name, value in values.items()}
    if isinstance(values, list):
        return [exchange(value, old, new) for value in values]
    if dataclasses.is_dataclass(values):
        for item in dataclasses.fields(values):
            setattr(values, item.name, exchange(getattr(values, item.name), old, new))
    return values


def nested_in(hint: Any) -> tuple[type | None, bool]:
    """The dataclass that a field's type holds, if any, and whether it holds it by name (`dict[str, X]`)."""
    if dataclasses.is_dataclass(hint):
        return hint, False  # type: ignore[return-value]
    inner = next((a for a in get_args(hint) if dataclasses.is_dataclass(a)), None)
    return inner, get_origin(hint) is dict  # type: ignore[return-value]


def _unknown_key(values: Any, cls: type, prefix: str = "") -> str | None:
    """The complaint about the first key of `values` that the schema does not know, or None."""
    hints = get_type_hints(cls)
    if values is None:
        return None
    if not isinstance(values, dict):
        return f"{prefix.rstrip('.') or 'top level'}: a mapping (key: value lines) is expected"
    for name, value in values.items():
        if name not in hints:
            return f"{prefix}{name}: no such key; {nearest(str(name), hints)}"
        nested, by_name = nested_in(hints[name])
        if nested is None:
            expected = _expected_instead(hints[name], value)
            if expected:
                return f"{prefix}{name}: {expected} is expected"
            continue
        children = {f"{prefix}{name}.": value}
        if by_name:
            if not isinstance(value, dict):
                return f"{prefix}{name}: a mapping (name: ...) is expected"
            children = {f"{prefix}{name}.{child}.": options for child, options in value.items()}
        for path, child in children.items():
            complaint = _unknown_key(child, nested, path)
            if complaint:
                return complaint
    return None


def _expected_instead(hint: Any, value: Any) -> str | None:
    """What a key's type wants where `value` is a list, a mapping or one value and does not fit; or None."""
    if hint is Any or value is None:
        return None
    container = next((kind for kind in (hint, *get_args(hint)) if get_origin(kind) in (list, dict)), None)
    if container is None:
        return "one value" if isinstance(value, (list, dict)) else None
    if type(value) is not get_origin(container):
        return "a list" if get_origin(container) is list else "a mapping (key: value lines)"
    children = value.values() if isinstance(value, dict) else value
    if Any not in get_args(container) and any(child is None or isinstance(child, (list, dict)) for child in children):
        return "one value for each item"
    return None


def _help_of(cls: Any, path: str) -> str:
    item = None
    for name in path.split("."):
        item = next((i for i in dataclasses.fields(cls) if i.name == name), item)
        nested, _ = nested_in(get_type_hints(cls).get(name))
        cls = nested or cls
    return item.metadata.get("help", "") if item else ""


def _walk(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for item in dataclasses.fields(config):
        value, path = getattr(config, item.name), f"{prefix}{item.name}"
        children = {path: value} if not isinstance(value, dict) else {f"{path}.{k}": v for k, v in value.items()}
        if children and all(dataclasses.is_dataclass(child) for child in children.values()):
            for name, child in children.items():
                yield from _walk(child, f"{name}.")
        else:
            yield path, value, item.metadata


def _check_value(name: str, value: Any, rules: Any, where: str) -> None:
    if value is None:
        return
    choices, low, high = rules.get("choices"), rules.get("low"), rules.get("high")
    if choices and value not in choices:
        raise MmfuseError(f"{where}: {name}: {value!r} is not legal; {nearest(str(value), choices)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise MmfuseError(f"{where}: {name}: {value} is not a finite number")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"at least {low}" + (f" and at most {high}" if high is not None else "")
        raise MmfuseError(f"{where}: {name}: {value} is out of range; it must be {bounds}")
