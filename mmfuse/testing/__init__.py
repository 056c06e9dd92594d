"""The conformance suites: `check("fusion", "gated")`, for ours and for everybody's; each kind's is a file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from mmfuse.testing.suite import ConformanceError, Suite

__all__ = ["SUITES", "ConformanceError", "Suite", "check", "check_fusion", "fusion_checks"]

SUITES: dict[str, Suite] = {}
"""By kind, in the singular, its suite."""

for _found in pkgutil.iter_modules(__path__):
    _suite = getattr(importlib.import_module(f"{__name__}.{_found.name}"), "SUITE", None)
    if _suite is not None:
        SUITES[_suite.registry.kind] = _suite


def check(kind: str, name: str, **options: Any) -> None:
    """Run every check of a kind on what is registered as `name`, built with `options`.

    Raises:
        ConformanceError: A check fails.
        MmfuseError: Nothing is registered so, or it refuses an option.
    """
    SUITES[kind].run(name, **options)


def check_fusion(name: str, **options: Any) -> None:
    """`check("fusion", name)`: the strategy is built at small, unequal input widths."""
    check("fusion", name, **options)


def fusion_checks() -> dict[str, Callable[..., None]]:
    """The checks of fusions by name, plainest message first; each is called as `check(name, **options)`."""
    return dict(SUITES["fusion"].checks)
