"""Task kinds: what a target is, one file each, found by name; no torch, so that data and scores need none."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

from mmfuse.registry import Registry
from mmfuse.tasks.kind import TaskKind
from mmfuse.tasks.spec import TaskSpec
from mmfuse.types import MmfuseError

__all__ = ["TASKS", "TaskKind", "TaskSpec", "build_task", "check_spec", "kind_of", "task_of"]

TASKS = Registry("task", reserved=("labels",))


def kind_of(spec: TaskSpec) -> Any:
    """The registered class of a manifest's task; it was found when the manifest was read."""
    return TASKS.get(spec.type)


def task_of(spec: TaskSpec, labels: Sequence[str] = ()) -> TaskKind:
    """What a manifest's task is, with its own options.

    Args:
        spec: Of a manifest that was read.
        labels: The label names in the order of the logits; empty while they are not known, and of kinds without any.
    """
    return kind_of(spec)(list(labels), **spec.options)


def build_task(kind: str, labels: Sequence[str] = (), options: dict[str, Any] | None = None) -> TaskKind:
    """The task kind `kind` for `labels`.

    Raises:
        MmfuseError: No such kind, or an option that its constructor does not take.
    """
    TASKS.check_options(kind, options or {})
    return TASKS.build(kind, "its task", list(labels), **options or {})


def check_spec(spec: TaskSpec, where: str) -> None:
    """Refuse what is not legal of one task of a manifest.

    Raises:
        MmfuseError: The message begins with `where`, and names the key and the fix.
    """
    try:
        kind = kind_of(spec)
    except MmfuseError as error:
        raise MmfuseError(f"{where}.type: {error}") from error
    if bool(spec.column) == bool(spec.columns):
        raise MmfuseError(f"{where}: give either column or columns")
    kind.check_keys(spec, where)
    try:
        TASKS.check_options(spec.type, spec.options)
        task = task_of(spec)
    except (TypeError, ValueError) as error:  # MmfuseError is a ValueError
        raise MmfuseError(f"{where}: {error}") from error
    task.check(spec, where)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
