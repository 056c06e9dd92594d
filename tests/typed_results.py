"""Whether plain values are what a TypedDict says, and whether it says of each field what it is."""

from __future__ import annotations

import re
import types
from typing import Any, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict


def assert_typed(value: Any, hint: Any, where: str = "result") -> None:
    """Fail unless the value has the fields of the type, no others, of these types, all the way down."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return
    if origin is NotRequired:
        assert_typed(value, inner[0], where)
    elif origin in (Union, types.UnionType):
        if value is None:
            assert type(None) in inner, where
            return
        (only,) = [one for one in inner if one is not type(None)]
        assert_typed(value, only, where)
    elif is_typeddict(hint):
        assert isinstance(value, dict), where
        hints = get_type_hints(hint, include_extras=True)
        required = {name for name, own in hints.items() if get_origin(own) is not NotRequired}
        assert required <= value.keys(), f"{where}: {required - value.keys()} missing"
        assert value.keys() <= hints.keys(), f"{where}: {value.keys() - hints.keys()} not described"
        for name, own in value.items():
            assert_typed(own, hints[name], f"{where}.{name}")
    elif origin is dict:
        assert isinstance(value, dict), where
        for name, own in value.items():
            assert isinstance(name, str), where
            assert_typed(own, inner[1], f"{where}.{name}")
    elif origin is list:
        assert isinstance(value, list), where
        for i, own in enumerate(value):
            assert_typed(own, inner[0], f"{where}[{i}]")
    else:
        assert isinstance(value, (int, float) if hint is float else hint), f"{where}: {value!r} is no {hint}"


def assert_described(hint: Any) -> None:
    """Fail unless the docstring has a line for each field, and for nothing else."""
    fields = re.findall(r"^ {4,8}(\w+): ", (hint.__doc__ or "").partition("Attributes:")[2], re.MULTILINE)
    assert fields == list(hint.__annotations__), hint.__name__
