"""The scores of metrics that were chosen by name, with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfuse.metrics import Metric
from mmfuse.metrics.basis import LabelBasis, basis_of_rows
from mmfuse.metrics.bootstrap import GroupBootstrap, GroupJackknife
from mmfuse.metrics.intervals import Basis, score_of
from mmfuse.metrics.results import Score
from mmfuse.metrics.scored import Scored

Array = NDArray[np.float64]


def evaluate_metrics(
    scored: Scored, metrics: Mapping[str, Metric], groups: Sequence[str], resamples: int = 1000, seed: int = 0
) -> dict[str, list[Score]]:
    """The score of each metric with its interval: one, or one a label.

    Args:
        scored: The rows.
        metrics: By name.
        groups: Of all rows that were predicted, `scored.rows` among them.
        resamples: 0 for no intervals.
        seed: Of the lot by which groups are left out together, where there are many.
    """
    jackknife = GroupJackknife(np.asarray(groups, dtype=str)[scored.rows], resamples if len(scored) else 0, seed)
    every = np.ones((1, len(scored)))
    values = {name: np.atleast_1d(np.asarray(metric(scored, every))[0]) for name, metric in metrics.items()}

    def without(times: Array) -> dict[str, Array]:
        weights = times.take(jackknife.row_group, axis=1)
        return {name: np.asarray(metric(scored, weights)).reshape(len(times), -1) for name, metric in metrics.items()}

    left_out = {name: np.zeros((0, len(value))) for name, value in values.items()}
    if jackknife.resamples and metrics:
        left_out = jackknife.replicate(without)
    bases = bases_of(scored, jackknife)
    return {
        name: [
            score_of(float(value), left_out[name][:, i], basis, metric.range)
            for i, (value, basis) in enumerate(zip(values[name], bases(metric), strict=True))
        ]
        for name, metric in metrics.items()
    }


def bases_of(scored: Scored, jackknife: GroupJackknife) -> Callable[[Metric], list[Basis]]:
    """What gives of a metric the basis of its interval, of one with a value a label of each.

    A metric says by `counts` what it is of (see `LabelBasis`); one that does not is of all rows.
    """
    if not scored.labels:
        rows = basis_of_rows(jackknife)
        return lambda metric: [rows]
    of_labels = LabelBasis(scored.truth, scored.said, scored.labels, jackknife)
    return lambda metric: of_labels(getattr(metric, "counts", "known" if metric.per_label else "rows"))


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
        groups: Of all rows that were predicted; rows of one group are no independent ones.
        resamples: 0 for no intervals.
        seed: Of the lot by which groups are left out together, where there are many.
    """
    there = scores["metrics"].keys() | {name for label in scores.get("per_label", {}).values() for name in label}
    new = {name: metric for name, metric in metrics.items() if name not in there}
    for name, found in evaluate_metrics(scored, new, groups, resamples, seed).items():
        if not new[name].per_label:
            (scores["metrics"][name],) = found
            over = getattr(new[name], "over", lambda scored: None)(scored)
            if over is not None:
                scores.setdefault("macro_over", {})[name] = over
            continue
        of_labels = scores.setdefault("per_label", {})
        for i, (label, score) in enumerate(zip(scored.labels, found, strict=True)):
            of_label = of_labels.setdefault(label, {"positives": int((scored.truth[:, i] == 1).sum())})
            of_label[name] = score
