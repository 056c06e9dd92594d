"""Scores of what models say: metrics by name, their intervals, and calibration. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from mmfuse.registry import Registry, nearest
from mmfuse.types import MmfuseError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmfuse.metrics.scored import Scored

METRICS = Registry("metric", built_in=("mmfuse.metrics.standard", "mmfuse.metrics.confusion"))


class Metric(Protocol):
    """A metric is a class in one file, found by name; its constructor's signature is its config schema.

    It scores weighted rows: a replicate of the bootstrap is a weighting of rows, so intervals need no code of a metric.

    Attributes:
        kinds: Of tasks that it is for: "classification", "multilabel", or a kind of your own.
        needs: What of the predictions it reads: "decisions", "probabilities", or both.
        larger_is_better: False where less is better.
        range: Its lowest and highest value; they may be infinite.
        per_label: Whether it gives one value a label; such a metric is a column of the report, and training cannot stop
            on it.
    """

    kinds: tuple[str, ...]
    needs: frozenset[str]
    larger_is_better: bool
    range: tuple[float, float]
    per_label: bool

    def __call__(self, scored: Scored, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score under b weightings of the n rows at once.

        Args:
            scored: What is true of the rows, and what was said; not to be changed.
            weights: `(b, n)`, at least 0; a row of weight 2 counts as two rows, one of weight 0 as none.

        Returns:
            `(b,)`, or with `per_label` `(b, L)`; NaN where it is undefined, which a report says as None.
        """
        ...


def metrics_for(kind: str, *, per_label: bool = True) -> list[str]:
    """The names of the metrics for a kind of task, without those of one value a label where these are of no use."""
    return [name for name in METRICS.names() if _is_for(METRICS.get(name), kind, per_label)]


def _is_for(cls: Any, kind: str, per_label: bool) -> bool:
    return kind in cls.kinds and (per_label or not cls.per_label)


def less_is_better(name: str) -> bool:
    """Whether a metric of this name, be it registered, is better where it is less."""
    return name in METRICS.names() and not METRICS.get(name).larger_is_better  # pyright: ignore[reportAttributeAccessIssue]


def worst_value(name: str) -> float | None:
    """The end of a metric's range that is worst; None where nothing is registered so."""
    if name not in METRICS.names():
        return None
    low, high = METRICS.get(name).range  # pyright: ignore[reportAttributeAccessIssue]
    return high if less_is_better(name) else low


def choose_metrics(values: Iterable[str | Mapping[str, Any]], kind: str, where: str) -> dict[str, Metric]:
    """The metrics that a config chooses for a task, built, by name.

    Args:
        values: Names, or `{name: ..., options}`.
        kind: Of the task.
        where: What errors begin with.

    Raises:
        MmfuseError: There is no such metric or option, it is not for this kind of task, or it is named twice.
    """
    chosen: dict[str, Metric] = {}
    for value in values:
        name, options = METRICS.chosen(dict(value) if isinstance(value, Mapping) else value, where)
        if kind not in METRICS.get(name).kinds:  # pyright: ignore[reportAttributeAccessIssue]
            raise MmfuseError(f"{where}: {name} is not for {kind}; {nearest(name, metrics_for(kind))}")
        if name in chosen:
            raise MmfuseError(f"{where}: {name} is named twice")
        try:
            chosen[name] = METRICS.get(name)(**options)
        except (TypeError, ValueError) as error:  # MmfuseError is a ValueError
            raise MmfuseError(f"{where}: {name}: {error}") from error
    return chosen
