"""The scores of metrics that were chosen by name, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfuse.metrics import Metric
from mmfuse.metrics.bootstrap import GroupBootstrap, score_of
from mmfuse.metrics.scored import Scored

Array = NDArray[np.float64]


def evaluate_metrics(
    scored: Scored, metrics: Mapping[str, Metric], groups: Sequence[str], resamples: int = 1000, seed: int = 0
) -> dict[str, tuple[Array, Array]]:
    """The value of each metric, and its replicates over resampled groups.

    Args:
        scored: The rows.
        metrics: By name.
        groups: Of all rows that were predicted, `scored.rows` among them.
        resamples: B; 0 for none.
        seed: Of the resampling.

    Returns:
        By name the value, `()` or `(L,)`, and `(B,)` or `(B, L)`; NaN where undefined.
    """
    row_groups = np.asarray(groups, dtype=str)[scored.rows]
    every = np.ones((1, len(scored)))
    values = {name: np.asarray(metric(scored, every))[0] for name, metric in metrics.items()}
    bootstrap = GroupBootstrap(row_groups, resamples, seed)

    def drawn(times: Array) -> dict[str, Array]:
        weights = times.take(bootstrap.row_group, axis=1)
        return {name: np.asarray(metric(scored, weights)) for name, metric in metrics.items()}

    if not len(scored) or not bootstrap.resamples:
        return {name: (value, np.zeros((0, *np.shape(value)))) for name, value in values.items()}
    replicates = bootstrap.replicate(drawn)
    return {name: (values[name], replicates[name]) for name in metrics}


def metric_replicates(metric: Metric, models: Sequence[Scored], bootstrap: GroupBootstrap) -> Array:
    """A metric of one value under every resample, the same ones for all models, so that differences are paired.

    Args:
        metric: Of one value.
        models: What each said of the same rows.
        bootstrap: Over the groups of these rows.

    Returns:
        `(models, B)`.
    """

    def drawn(times: Array) -> dict[str, Array]:
        weights = times.take(bootstrap.row_group, axis=1)
        return {"value": np.stack([np.asarray(metric(scored, weights)) for scored in models], axis=1)}

    return bootstrap.replicate(drawn)["value"].T


def add_metrics(
    scores: dict[str, Any],
    scored: Scored,
    metrics: Mapping[str, Metric],
    groups: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> None:
    """Set metrics that were chosen beside those that a task's scores have; what is there stays as it is.

    Args:
        scores: Of one task: `metrics` gets a score for each metric, `per_label` one a label, and `macro_over` over how
            many labels a metric is that tells it by `over(scored)`.
        scored: The rows that they are of.
        metrics: By name.
        groups: Of all rows that were predicted; rows of one group are resampled together.
        resamples: Of the groups; 0 for no intervals.
        seed: Of the resampling.
    """
    there = scores["metrics"].keys() | {name for label in scores.get("per_label", {}).values() for name in label}
    new = {name: metric for name, metric in metrics.items() if name not in there}
    for name, (value, drawn) in evaluate_metrics(scored, new, groups, resamples, seed).items():
        if not new[name].per_label:
            scores["metrics"][name] = score_of(float(value), drawn)
            over = getattr(new[name], "over", lambda scored: None)(scored)
            if over is not None:
                scores.setdefault("macro_over", {})[name] = over
            continue
        of_labels = scores.setdefault("per_label", {})
        for i, label in enumerate(scored.labels):
            of_label = of_labels.setdefault(label, {"positives": int((scored.truth[:, i] == 1).sum())})
            of_label[name] = score_of(float(value[i]), drawn[:, i])
