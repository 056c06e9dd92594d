"""Figures of a run, as PNG. They use matplotlib's objects, not pyplot: no global state, no display, safe in threads."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from mmfuse.metrics import less_is_better

INK, GRID = "#333333", "#dddddd"
BLUE, ORANGE, GREEN = "#3b6fb6", "#d9772b", "#2e8b57"
LONGEST_LABEL = 24
MOST_LABELS_WITH_COUNTS = 15


def plot_confusion(confusion: ArrayLike, labels: Sequence[str], path: str | Path) -> None:
    """Draw which class was taken for which.

    Colours are shares of each true class; up to 15 labels, cells show the counts.

    Args:
        confusion: `(K, K)` counts, rows are truth.
        labels: The K names; the middle of long ones is left out.
        path: The PNG to write.

    Raises:
        ValueError: The shapes do not match.
    """
    counts, K = np.asarray(confusion), len(labels)
    if counts.shape != (K, K):
        raise ValueError(f"confusion is {counts.shape}; it must be ({K}, {K}), one row and column a label")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [_shortened(label) for label in labels]

    margin = 0.6 + 0.075 * max(map(len, names))  # inches, for the names
    side = float(np.clip(0.55 * K, 2.6, 9))
    figure = Figure(figsize=(side + margin + 1.2, side + margin + 0.7), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 10 if K <= MOST_LABELS_WITH_COUNTS else 8
    axes.set_xticks(range(K), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size, parse_math=False)
    axes.set_yticks(range(K), names, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    axes.set_xticks(np.arange(K + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(K + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0, colors=INK)
    axes.spines[:].set_visible(False)
    if K <= MOST_LABELS_WITH_COUNTS:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if shares[row, column] > 0.5 else INK if count else "#aaaaaa"
            digits = len(f"{count:,}")
            axes.text(
                column, row, f"{count:,}", ha="center", va="center", color=color, fontsize=10 if digits < 6 else 7
            )

    total, right = counts.sum(), np.trace(counts)
    accuracy = f"accuracy {right / total:.1%}, {right:,} of {total:,}" if total else "no rows"
    axes.set_title(accuracy, color=INK, fontsize=12, pad=10)
    bar = figure.colorbar(
        image, ax=axes, shrink=0.8, aspect=30, format=PercentFormatter(1), ticks=[0, 0.25, 0.5, 0.75, 1]
    )
    bar.set_label("share of the true class", color=INK)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(length=0, colors=INK)
    _save(figure, path)


def plot_subgroups(panels: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Draw scores by subgroup with their intervals, a panel a score: a forest plot.

    Args:
        panels: Each with a `title` and `columns`: by column, by subgroup a `value`, `low` and `high`, None where
            unknown. One or more.
        path: The PNG to write.
    """
    rows = list(dict.fromkeys((c, s) for panel in panels for c, by in panel["columns"].items() for s in by))
    columns = list(dict.fromkeys(column for column, _ in rows))
    height = {row: i + 1.2 * columns.index(row[0]) for i, row in enumerate(rows)}  # a line of room for each column
    lines = len(rows) + 1.2 * len(columns)
    margin = 0.4 + 0.085 * max(len(_shortened(name)) for row in rows for name in row)
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(margin + 3.1 * across, (0.9 + 0.27 * lines) * down), layout="constrained")
    grid = figure.subplots(down, across, sharey=True, squeeze=False).flat
    for axes, panel in zip(grid, panels, strict=False):
        for column, by_subgroup in panel["columns"].items():
            for subgroup, score in by_subgroup.items():
                if score["value"] is None:
                    continue
                at = height[column, subgroup]
                if score["low"] is not None:
                    axes.plot([score["low"], score["high"]], [at, at], color=BLUE, linewidth=1.8, alpha=0.55)
                axes.plot([score["value"]], [at], color=BLUE, marker="o", markersize=5.5)
        axes.set_title(_wrapped(panel["title"]), color=INK, fontsize=10.5, parse_math=False)
        axes.grid(axis="x", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(colors=INK, labelsize=9)
        axes.tick_params(axis="y", length=0)
    for axes in list(grid)[len(panels) :]:
        axes.set_visible(False)
    places = [(at, _shortened(subgroup), False) for (_, subgroup), at in height.items()]
    places += [
        (min(height[row] for row in rows if row[0] == column) - 1, _shortened(column), True) for column in columns
    ]
    for axes in figure.axes[: len(panels) : across]:
        axes.set_yticks([at for at, _, _ in places], [name for _, name, _ in places], parse_math=False)
        for (_, _, is_column), tick in zip(places, axes.get_yticklabels(), strict=True):
            tick.set_fontweight("bold" if is_column else "normal")
    figure.axes[0].set_ylim(max(height.values()) + 0.7, min(at for at, _, _ in places) - 0.6)
    _save(figure, path)


def _wrapped(title: str) -> str:
    """A title in lines that stand above a panel."""
    return "\n".join(textwrap.wrap(title, 34)[:3])


def plot_residuals(
    predicted: ArrayLike,
    target: ArrayLike,
    path: str | Path,
    name: str,
    reach: tuple[ArrayLike, ArrayLike] | None = None,
    log: bool = False,
) -> None:
    """Draw predicted against true numbers, and the residuals (true - predicted) against what was predicted.

    Args:
        predicted: `(N,)` finite, N at least 1.
        target: `(N,)` of the same unit.
        path: The PNG to write.
        name: Of the target, with its unit.
        reach: Lower and upper ends of the predictions' intervals, `(N,)` each: drawn as a band, and counted.
        log: Logarithmic axes, and residuals as factors (true / predicted); all numbers are above 0.

    Raises:
        ValueError: The shapes do not match.
    """
    said, true = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    if said.shape != true.shape or said.ndim != 1 or not len(said):
        raise ValueError(f"predictions are {said.shape}, targets {true.shape}; both must be (N,), N at least 1")
    residual = true / said if log else true - said
    size = float(np.clip(3000 / len(said), 2, 18))
    dots: dict[str, Any] = {"s": size, "color": BLUE, "alpha": 0.35 if len(said) > 300 else 0.6, "linewidths": 0}
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    ends = min(said.min(), true.min()), max(said.max(), true.max())
    left.scatter(said, true, rasterized=True, **dots)
    left.plot(ends, ends, color=INK, linewidth=1, linestyle=":", label="true = predicted")
    right.scatter(said, residual, rasterized=True, **dots)
    right.axhline(1 if log else 0, color=INK, linewidth=1, linestyle=":")
    if reach is not None:
        low, high = (np.asarray(end, np.float64) for end in reach)
        order = np.argsort(said, kind="stable")
        inside = float(((true >= low) & (true <= high)).mean())
        label = f"interval of the predictions: {inside:.1%} inside"
        left.fill_between(said[order], low[order], high[order], color=ORANGE, alpha=0.18, linewidth=0, label=label)
        offsets = [(end / said if log else end - said)[order] for end in (low, high)]
        right.fill_between(said[order], *offsets, color=ORANGE, alpha=0.18, linewidth=0)
    left.set_xlabel(f"predicted {name}", color=INK, parse_math=False)
    left.set_ylabel(f"true {name}", color=INK, parse_math=False)
    right.set_xlabel(f"predicted {name}", color=INK, parse_math=False)
    right.set_ylabel("true / predicted" if log else "true - predicted", color=INK)
    left.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, labelcolor=INK)  # over no dot
    for axes in (left, right):
        if log:
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(which="both", colors=INK)
    if log:  # where residuals span two decades or more, the powers of ten are enough
        few = residual.max() < 100 * residual.min()
        right.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}") if few else NullFormatter())
    _save(figure, path)


def plot_learning_curve(
    records: Sequence[dict[str, Any]], path: str | Path, monitor: str, *, less: bool = False
) -> None:
    """Draw training loss, validation loss and the monitored metric by optimiser step, and mark the best step.

    The best is the lowest for losses and metrics of which less is better, else the highest; the first of equal ones.

    Args:
        records: Lines of `metrics.jsonl`: `step` and `loss`; or `step`, `validation_loss` and `validation`, a dict by
            "task/metric". A line replaces an earlier one of the same step.
        path: The PNG to write.
        monitor: A key of `validation`, such as "findings/auroc_macro", or "validation_loss".
        less: Whether less of it is better, of a metric that its task's kind alone knows, such as an RMSE.
    """
    train = _series(records, "loss")
    validation = _series(records, "validation_loss")
    monitored = validation if monitor == "validation_loss" else _series(records, monitor, "validation")
    name = monitor.rsplit("/", 1)[-1]
    lower_is_better = less or less_is_better(name) or name.endswith("loss")

    figure = Figure(figsize=(8, 6), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    smooth = _smoothed(train[1])
    upper.plot(*train, color=BLUE, alpha=0.25, linewidth=0.8)
    upper.plot(train[0], smooth, color=BLUE, linewidth=1.8, label="training (running median)")
    upper.plot(*validation, color=ORANGE, linewidth=1.8, marker="o", markersize=4, zorder=3, label="validation")
    _fit_to(upper, np.concatenate([smooth, validation[1]]))
    upper.set_ylabel("loss", color=INK)
    if len(train[0]) or len(validation[0]):
        upper.legend(loc="upper right", frameon=False, labelcolor=INK)

    lower.plot(*monitored, color=GREEN, linewidth=1.8, marker="o", markersize=4)
    lower.set_ylabel(monitor, color=INK, parse_math=False)
    lower.set_xlabel("step", color=INK)
    if not len(monitored[0]):
        title = f"{monitor}: not recorded"
        lower.set_yticks([])
    else:
        best = int(monitored[1].argmin() if lower_is_better else monitored[1].argmax())
        step, value = monitored[0][best], monitored[1][best]
        for axes in (upper, lower):
            axes.axvline(step, color=INK, linewidth=1, linestyle=":")
        lower.plot([step], [value], color=GREEN, marker="*", markersize=15, markeredgecolor="white")
        title = f"best {monitor}: {value:.4g} at step {step:,}"
    figure.suptitle(title, color=INK, fontsize=12, parse_math=False)
    for axes in (upper, lower):
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)
    lower.set_xlim(0, 1.02 * max([1, *train[0][-1:], *validation[0][-1:]]))
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    lower.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _save(figure, path)


def _series(records: Sequence[dict[str, Any]], key: str, inside: str | None = None) -> tuple[NDArray, NDArray]:
    """Steps in ascending order `(n,)`, and the finite values of the key there `(n,)`."""
    found = {}
    for record in records:
        value = (record.get(inside, {}) if inside else record).get(key)
        if value is not None and np.isfinite(value):
            found[record["step"]] = value
    steps = sorted(found)
    return np.array(steps, dtype=np.int64), np.array([found[step] for step in steps], dtype=np.float64)


def _smoothed(values: NDArray) -> NDArray:
    """The running median over about a twentieth of the values: no lag, and one spike leaves no plateau."""
    if not len(values):
        return values
    reach = int(np.clip(len(values) // 40, 1, 50))
    padded = np.pad(values, reach, mode="edge")
    return np.median(sliding_window_view(padded, 2 * reach + 1), axis=-1)


def _fit_to(axes: Axes, values: NDArray) -> None:
    """Show these values, whatever spikes lie behind them."""
    if len(values) and values.max() > values.min():
        space = 0.06 * (values.max() - values.min())
        axes.set_ylim(values.min() - space, values.max() + space)


def _shortened(label: str) -> str:
    half = (LONGEST_LABEL - 1) // 2
    return label if len(label) <= LONGEST_LABEL else f"{label[:half].rstrip()}…{label[-half:].lstrip()}"


def _save(figure: Figure, path: str | Path) -> None:
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # a box in the figure says it
        figure.savefig(path, dpi=130, format="png", bbox_inches="tight", pad_inches=0.15)
