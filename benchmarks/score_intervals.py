"""Do the intervals of scores hold the truth? Simulated, in 60 cells that were written down before any was run.

    python benchmarks/score_intervals.py run --results FOLDER [--runs 2000] [--cells 0 5 7]
    python benchmarks/score_intervals.py table --results FOLDER

A cell is a metric, its true level, a number of groups, their sizes and a number of seeds. A run draws a test set and
what each seed's model says of it. Everything is latent and normal: three tenths of the variance of what makes an answer
right (or a score high, or an error large) are a group's own, shared by its rows and by all seeds, four tenths a row's,
shared by the seeds, three tenths a row's and a seed's. Seeds differ in their level too. The truth is the mean, over the
seeds that were run, of each model's score on the population of groups, known in closed form.

- accuracy: an answer is right where the sum is above a threshold.
- f1: macro-F1 of four classes of 50, 30, 15 and 5 %; a wrong answer is any other class.
- auroc2, auroc6: positives are 2 or 6 % of rows.
- r2: errors with Student's t (5 degrees of freedom) as rows' own part; the target's variance is 3/10 the groups'.
- Level 1: nothing is ever wrong. Any interval up to 1 covers; none may be [1, 1].

Sizes: "equal", 8 rows a group; "one", 1; "pareto", floor(2 U^(-1/1.5)): infinite variance. With other words: 15 groups
of Pareto sizes are about 7 effective ones, 40 about 16, 200 about 60.

Targets, for each cell with 2,000 runs: coverage of 95 % intervals at least 93 %, where they are given (over-coverage is
allowed); none reaches outside the metric's range; given in at least 95 % of the runs where they must be: 30 effective
groups (1 / sum of squared shares of the rows), of AUROC 10 groups with and 10 without a positive, and none with most
of the rows, which is refused. Whether one is given depends on sizes and class counts alone. Cells with fewer groups
have no target but to say nothing wrong.

Beside the score over seeds, as a benchmark shows it, the first seed's alone is measured, as `evaluate` shows it; and
on the first 200 runs the widths of the constructions of before: Banerjee's t intervals over seeds and groups, and the
percentiles of the bootstrap of groups.

FOLDER gets a file a cell, with all runs; finished cells are skipped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from mmfuse.benchmarking.statistics import paired_contrast
from mmfuse.metrics.bootstrap import interval
from mmfuse.metrics.intervals import (
    balanced,
    effective_number,
    score_interval,
    shares_of,
    too_few_groups,
    too_few_of_classes,
)
from mmfuse.metrics.ranking import Ranking

Array = NDArray[np.float64]
GROUP, ROW, OWN = 0.3, 0.4, 0.3  # shares of the variance: a group's, a row's, and a row's and seed's
SEED_SD = 0.1  # of the level, in latent units
CLASSES = np.array([0.5, 0.3, 0.15, 0.05])
PREVALENCE = {"auroc2": 0.02, "auroc6": 0.06}


class Cell(NamedTuple):
    """One cell of the grid."""

    metric: str
    level: float
    groups: int
    sizes: str
    seeds: int


_GRID = (
    # accuracy
    *(("accuracy", 0.9, 15, "equal"), ("accuracy", 0.97, 15, "one"), ("accuracy", 0.5, 15, "pareto")),
    *(("accuracy", 0.5, 40, "equal"), ("accuracy", 0.99, 40, "equal"), ("accuracy", 0.97, 40, "one")),
    *(("accuracy", 1.0, 40, "one"), ("accuracy", 0.9, 40, "pareto"), ("accuracy", 0.99, 40, "pareto")),
    *(("accuracy", 0.97, 200, "equal"), ("accuracy", 1.0, 200, "equal"), ("accuracy", 0.99, 200, "one")),
    *(("accuracy", 0.5, 200, "pareto"), ("accuracy", 0.97, 200, "pareto"), ("accuracy", 0.9, 1000, "equal")),
    *(("accuracy", 0.5, 1000, "one"), ("accuracy", 0.99, 1000, "pareto"), ("accuracy", 1.0, 1000, "pareto")),
    # macro-F1
    *(("f1", 0.8, 15, "equal"), ("f1", 0.5, 40, "equal"), ("f1", 0.8, 40, "one"), ("f1", 0.9, 40, "pareto")),
    *(("f1", 0.97, 40, "one"), ("f1", 1.0, 40, "equal"), ("f1", 0.97, 200, "equal"), ("f1", 0.5, 200, "one")),
    *(("f1", 0.8, 200, "pareto"), ("f1", 0.99, 200, "pareto"), ("f1", 0.99, 1000, "one"), ("f1", 0.9, 1000, "pareto")),
    # AUROC, of 2 %
    *(("auroc2", 0.5, 200, "equal"), ("auroc2", 0.9, 200, "equal"), ("auroc2", 0.99, 200, "equal")),
    *(("auroc2", 0.8, 200, "pareto"), ("auroc2", 0.8, 1000, "one"), ("auroc2", 0.97, 1000, "one")),
    *(("auroc2", 0.97, 1000, "equal"), ("auroc2", 0.9, 1000, "pareto"), ("auroc2", 1.0, 1000, "one")),
    # AUROC, of 6 %
    *(("auroc6", 0.9, 15, "equal"), ("auroc6", 0.8, 40, "equal"), ("auroc6", 0.97, 40, "equal")),
    *(("auroc6", 0.9, 40, "pareto"), ("auroc6", 0.9, 200, "one"), ("auroc6", 0.99, 200, "one")),
    *(("auroc6", 0.8, 200, "equal"), ("auroc6", 1.0, 200, "equal"), ("auroc6", 0.97, 1000, "pareto")),
    # R2
    *(("r2", 0.5, 15, "equal"), ("r2", 0.9, 40, "equal"), ("r2", 0.5, 40, "one"), ("r2", 0.99, 40, "one")),
    *(("r2", 0.5, 40, "pareto"), ("r2", 1.0, 40, "one"), ("r2", 0.5, 200, "equal"), ("r2", 0.9, 200, "one")),
    *(("r2", 0.9, 200, "pareto"), ("r2", 0.99, 200, "pareto"), ("r2", 0.5, 1000, "one"), ("r2", 0.5, 1000, "pareto")),
)
CELLS = tuple(Cell(*cell, 3 if i % 2 == 0 else 10) for i, cell in enumerate(_GRID))
assert len(CELLS) == 60


def draw_sizes(rng: np.random.Generator, kind: str, groups: int) -> NDArray[np.int64]:
    """Rows of each group."""
    if kind == "pareto":
        return np.floor(2 * rng.random(groups) ** (-1 / 1.5)).astype(np.int64)
    return np.full(groups, {"equal": 8, "one": 1}[kind])


class Drawn(NamedTuple):
    """One run: of each seed the truth and the score `(R,)`, and the score without each group `(R, G)`.

    `counts`: what the score needs, `(G,)` each; `why_not`: why no interval may be given; `must`: whether one must be.
    `resampled`: makes scores `(R, B)` of multiplicities `(B, G)`, for the intervals of before.
    """

    truth: Array
    value: Array
    left_out: Array
    counts: tuple[Array, ...]
    why_not: str
    must: bool
    resampled: Callable[[Array], Array]


class Rows(NamedTuple):
    """The rows of one test set, and by seed the latent part `(R, N)` that is not the level."""

    group: NDArray[np.int64]
    groups: int
    latent: Array
    shift: Array

    def sums(self, values: Array) -> Array:
        """`(..., N)` by group, `(..., G)`."""
        flat = values.reshape(-1, values.shape[-1])
        found = np.stack([np.bincount(self.group, row, self.groups).astype(np.float64) for row in flat])
        return found.reshape(*values.shape[:-1], self.groups)


def draw_rows(rng: np.random.Generator, cell: Cell) -> Rows:
    """Rows and what is common to all metrics."""
    group = np.repeat(np.arange(cell.groups), draw_sizes(rng, cell.sizes, cell.groups))
    shared = np.sqrt(GROUP) * rng.standard_normal(cell.groups)[group]
    row, own = rng.standard_normal(len(group)), rng.standard_normal((cell.seeds, len(group)))
    if cell.metric == "r2":
        row = rng.standard_t(5, len(group)) / np.sqrt(5 / 3)
    latent = shared + np.sqrt(ROW) * row + np.sqrt(OWN) * own
    return Rows(group, cell.groups, latent, SEED_SD * rng.standard_normal(cell.seeds))


def from_sums(
    rows: Rows, truth: Array, sums: Array, score: Callable[[Array], Array], counts: tuple[Array, ...]
) -> Drawn:
    """A run whose score is made of sums over rows `(R, G, k)`, which `score` takes over the last axis."""
    size = counts[0]

    def resampled(times: Array) -> Array:
        return score(times @ sums)

    total = sums.sum(axis=1)
    left_out = score(total[:, None] - sums)
    must = bool(effective_number(size) >= 30)
    return Drawn(truth, score(total), left_out, counts, too_few_groups(size), must, resampled)


def draw_accuracy(rng: np.random.Generator, cell: Cell) -> Drawn:
    """Shares of right answers."""
    rows = draw_rows(rng, cell)
    at = norm.ppf(cell.level) + rows.shift
    right = rows.latent + at[:, None] > 0
    size = rows.sums(np.ones(len(rows.group)))
    sums = np.stack([rows.sums(right.astype(float)), np.broadcast_to(size, (cell.seeds, cell.groups))], axis=-1)
    return from_sums(rows, norm.cdf(at), sums, lambda s: s[..., 0] / s[..., 1], (size,))


def f1_of(right: Array) -> Array:
    """The population's macro-F1 at probabilities of a right answer `(...)`."""
    said = CLASSES * right[..., None] + (1 - right[..., None]) * (1 - CLASSES) / (len(CLASSES) - 1)
    return (2 * CLASSES * right[..., None] / (CLASSES + said)).mean(axis=-1)


def macro_f1(sums: Array) -> Array:
    """Of hits, said and true by class, `(..., 3 K)`; classes that are not there are left out."""
    hits, said, true = np.split(sums, 3, axis=-1)
    either = said + true
    found = np.divide(2 * hits, either, out=np.full(hits.shape, np.nan), where=true > 0)
    return np.nanmean(found, axis=-1)


def draw_f1(rng: np.random.Generator, cell: Cell) -> Drawn:
    """Macro-F1 of four classes."""
    rows = draw_rows(rng, cell)
    level = 1.0 if cell.level == 1 else brentq(lambda p: f1_of(np.array(p)) - cell.level, 0.2, 0.9999)
    at = norm.ppf(level) + rows.shift
    right = rows.latent + at[:, None] > 0
    true = rng.choice(len(CLASSES), size=len(rows.group), p=CLASSES)
    said = np.where(right, true, (true + rng.integers(1, len(CLASSES), right.shape)) % len(CLASSES))
    K, shape = len(CLASSES), (cell.groups, len(CLASSES))
    sums = np.zeros((cell.seeds, cell.groups, 3 * K))
    for seed, own in enumerate(said):
        for i, (of, weight) in enumerate(((own, own == true), (own, None), (true, None))):
            found = np.bincount(rows.group * K + of, weight, cell.groups * K)
            sums[seed, :, i * K : (i + 1) * K] = found.reshape(shape)
    counts = (rows.sums(np.ones(len(rows.group))), balanced(sums[0, :, -K:]))
    return from_sums(rows, f1_of(norm.cdf(at)), sums, macro_f1, counts)


def draw_r2(rng: np.random.Generator, cell: Cell) -> Drawn:
    """R2 of errors that are not normal."""
    rows = draw_rows(rng, cell)
    target = np.sqrt(GROUP) * rng.standard_normal(cell.groups)[rows.group]
    target = target + np.sqrt(1 - GROUP) * rng.standard_normal(len(rows.group))
    scale = (1 - cell.level) * (1 + rows.shift) ** 2
    error = np.sqrt(scale)[:, None] * rows.latent
    size = rows.sums(np.ones(len(rows.group)))
    parts = [rows.sums(error**2), *(np.broadcast_to(rows.sums(x), (cell.seeds, cell.groups)) for x in
             (np.ones_like(target), target, target**2))]  # fmt: skip

    def r2(sums: Array) -> Array:
        squared, count, first, second = np.moveaxis(sums, -1, 0)
        return 1 - squared / (second - first**2 / count)

    return from_sums(rows, 1 - scale, np.stack(parts, axis=-1), r2, (size,))


def draw_auroc(rng: np.random.Generator, cell: Cell) -> Drawn:
    """AUROC of scores whose mean is higher where the row is positive."""
    rows = draw_rows(rng, cell)
    positive = rng.random(len(rows.group)) < PREVALENCE[cell.metric]
    while positive.all() or not positive.any():
        positive = rng.random(len(rows.group)) < PREVALENCE[cell.metric]
    apart = np.sqrt(2) * norm.ppf(cell.level) + rows.shift
    if cell.level == 1:
        scores = np.broadcast_to(positive.astype(float), rows.latent.shape)
    else:
        scores = rows.latent + apart[:, None] * positive
    truth = norm.cdf(apart / np.sqrt(2))
    found = [auroc_left_out(of, positive, rows.group, cell.groups) for of in scores]
    counts = tuple(rows.sums(of.astype(float)) for of in (positive, ~positive))
    has, lacks = counts[0] > 0, counts[0] == 0

    def resampled(times: Array) -> Array:
        truth = positive.astype(float)
        return np.stack([Ranking.of(of, truth, rows.group).weighted(times)[0] for of in scores])

    return Drawn(
        truth,
        np.array([value for value, _ in found]),
        np.stack([left for _, left in found]),
        counts,
        too_few_of_classes(*counts),
        bool(has.sum() >= 10 and lacks.sum() >= 10 and 2 * np.sum(counts, axis=0).max() <= len(positive)),
        resampled,
    )


def auroc_left_out(
    scores: Array, positive: NDArray[np.bool_], group: NDArray[np.int64], groups: int
) -> tuple[float, Array]:
    """The AUROC of scores without ties, and without each group `(G,)`: `Ranking` on a jackknife, in one sort."""
    order = np.argsort(scores, kind="stable")
    own, where = positive[order], group[order]
    wins = np.where(own, np.cumsum(~own), own.sum() - np.cumsum(own))  # over negatives; of positives over this row
    by_group = np.bincount(where, wins, groups)
    within = np.lexsort((np.arange(len(where)), where))
    inner, at = own[within], where[within]
    below = np.cumsum(~inner)
    starts = np.concatenate([[0], below])[np.searchsorted(at, np.arange(groups))]
    both = np.bincount(at, np.where(inner, below - starts[at], 0), groups)
    positives, negatives = np.bincount(group, positive, groups), np.bincount(group, ~positive, groups)
    pairs = positives.sum() * negatives.sum()
    all_wins = np.where(own, wins, 0).sum()
    left = (positives.sum() - positives) * (negatives.sum() - negatives)
    return all_wins / pairs, np.divide(all_wins - by_group + both, left, out=np.full(groups, np.nan), where=left > 0)


DRAW = {"accuracy": draw_accuracy, "f1": draw_f1, "r2": draw_r2, "auroc2": draw_auroc, "auroc6": draw_auroc}
BOUNDS = {"r2": (-np.inf, 1.0)}


def before(rng: np.random.Generator, cell: Cell, drawn: Drawn, resamples: int = 200) -> tuple[Array, Array]:
    """The intervals of before: over seeds and groups, and of the first seed."""
    times = rng.multinomial(cell.groups, np.full(cell.groups, 1 / cell.groups), resamples).astype(float)
    with np.errstate(all="ignore"):
        replicates = drawn.resampled(times)
    zero = np.zeros_like(drawn.value), np.zeros_like(replicates)
    both = paired_contrast((drawn.value, replicates), zero, cell.groups).difference
    return np.array([both.low, both.high]), np.array(interval(replicates[0]))


def run_cell(index: int, runs: int) -> dict[str, Array]:
    """All runs of one cell."""
    cell = CELLS[index]
    found: dict[str, list[Any]] = {name: [] for name in ("truth", "ends", "first_truth", "first", "given", "must")}
    old: list[Any] = []
    for run in range(runs):
        rng = np.random.default_rng([index, run])
        drawn = DRAW[cell.metric](rng, cell)
        if run == 0 and cell.metric in PREVALENCE and cell.groups <= 200:
            same = drawn.resampled(1 - np.eye(cell.groups))
            assert np.allclose(same, drawn.left_out, equal_nan=True)
        given = not drawn.why_not
        shares = shares_of(*drawn.counts) if given else None
        ends = np.full((2, 2), np.nan)
        if shares is not None:
            values = np.array([drawn.value.mean(), drawn.value[0]])
            left_out = np.stack([drawn.left_out.mean(axis=0), drawn.left_out[0]])
            ends = np.array(score_interval(values, left_out, shares, BOUNDS.get(cell.metric, (0.0, 1.0))))
        row = (drawn.truth.mean(), ends[:, 0], drawn.truth[0], ends[:, 1], given, drawn.must)
        for name, value in zip(found, row, strict=True):
            found[name].append(value)
        if run < 200:
            old.append(np.concatenate(before(rng, cell, drawn)))
    return {name: np.array(values) for name, values in found.items()} | {"old": np.array(old)}


def run(args: argparse.Namespace) -> None:
    """Do the cells that are not done."""
    args.results.mkdir(parents=True, exist_ok=True)
    for index in args.cells or range(len(CELLS)):
        path = args.results / f"{index:02d}.npz"
        if path.exists():
            continue
        started = time.perf_counter()
        found = run_cell(index, args.runs)
        with (path.with_suffix(".part")).open("wb") as handle:
            np.savez(handle, **found)  # pyright: ignore[reportArgumentType]
        path.with_suffix(".part").rename(path)
        print(f"{index:02d} {CELLS[index]} {time.perf_counter() - started:.0f} s", flush=True)


def covered(ends: Array, truth: Array) -> NDArray[np.bool_]:
    """Whether `ends (n, 2)` hold `truth (n,)`; up to rounding."""
    return (ends[:, 0] <= truth + 1e-12) & (truth - 1e-12 <= ends[:, 1])


def line(cell: Cell, found: dict[str, Array]) -> tuple[str, bool]:
    """A cell in one line, and whether it meets its targets."""
    given, must = found["given"].astype(bool), found["must"].astype(bool)
    low, high = BOUNDS.get(cell.metric, (0.0, 1.0))
    name = f"{cell.metric} {cell.level:g}, {cell.groups} {cell.sizes}, {cell.seeds} seeds"
    there = given[must].mean() if must.any() else np.nan
    old = found["old"]
    truth, first = found["truth"][: len(old)], found["first_truth"][: len(old)]
    before = f"{covered(old[:, :2], truth).mean():6.1%} {np.nanmean(np.ptp(old[:, :2], axis=1)):.3f}"
    before += f" |{covered(old[:, 2:], first).mean():7.1%} {np.nanmean(np.ptp(old[:, 2:], axis=1)):.3f}"
    if not given.any():
        return f"{name:38} | {given.mean():6.1%} {there:6.1%} |{'':14} |{'':14} | {before}", not must.any()
    cells, met = "", not (there < 0.95)
    for key, of in (("ends", "truth"), ("first", "first_truth")):
        ends = found[key][given]
        rate = covered(ends, found[of][given]).mean()
        inside = bool((ends >= low).all() and (ends <= high).all() and (ends[:, 0] < ends[:, 1]).all())
        met &= inside and rate >= 0.93
        cells += f" | {rate:6.1%} {np.ptp(ends, axis=1).mean():.3f}{'' if inside else '!'}"
    return f"{name:38} | {given.mean():6.1%} {there:6.1%}{cells} | {before}{'' if met else '  MISSED'}", met


def table(args: argparse.Namespace) -> None:
    """A line a cell."""
    print(f"{'cell':38} | given, must | seeds: coverage, width | first seed | before: seeds | before: first seed")
    met, paths = 0, sorted(args.results.glob("*.npz"))
    for path in paths:
        with np.load(path) as arrays:
            told, right = line(CELLS[int(path.stem)], dict(arrays))
        met += right
        print(told)
    print(f"{met} of {len(paths)} cells meet their targets")


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description="Coverage of the intervals of scores, in 60 cells")
    commands = parser.add_subparsers(required=True)
    for name, does in (("run", run), ("table", table)):
        command = commands.add_parser(name)
        command.add_argument("--results", type=Path, required=True)
        command.set_defaults(does=does)
        if name == "run":
            command.add_argument("--runs", type=int, default=2000)
            command.add_argument("--cells", type=int, nargs="*")
    args = parser.parse_args()
    args.does(args)


if __name__ == "__main__":
    main()
