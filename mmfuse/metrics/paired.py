"""The difference of two models' scores on the same rows, with an interval over new groups and a p value that agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from mmfuse.metrics.bootstrap import GroupJackknife
from mmfuse.metrics.results import Difference

Array = NDArray[np.float64]
LEVEL = 0.95


class PairedJackknife(GroupJackknife):
    """All groups, then all but a block of them for every block in turn, in the form of a bootstrap's resamples.

    Whatever gives a metric under each resample of a `GroupBootstrap` gives it here of all rows first, `(1 + K,)`.

    Args:
        groups: `(N,)`, the group of each row.
        seed: Of the lot by which groups are in blocks, where there are many.

    Attributes:
        times: How often a block's groups count when it is its turn: 0, or 2 where something must not be lost.
        num_blocks: K.
        effective: How many blocks of equal size know as much: Kish's (sum of sizes)^2 / (sum of their squares).
    """

    def __init__(self, groups: Sequence[str] | NDArray[Any], seed: int = 0):
        super().__init__(groups, seed=seed)
        self.times, self.num_blocks = 0, max(self.resamples, 1)
        self.resamples = 1 + self.num_blocks if self.num_blocks > 1 else 1
        sizes = np.bincount(self.blocks[self.row_group]).astype(np.float64)
        self.effective = float(sizes.sum() ** 2 / (sizes**2).sum())

    def multiplicities(self, start: int, stop: int) -> Array:
        """How often each group counts in resamples start to stop, `(stop - start, G)`."""
        turn = np.arange(start, stop)[:, None] - 1  # the first one is that of nobody
        return np.where(self.blocks == turn, float(self.times), 1.0)

    def doubled(self) -> PairedJackknife:
        """The same blocks, each counted twice in its turn instead of left out."""
        other = object.__new__(PairedJackknife)
        other.__dict__ = {**self.__dict__, "times": 2}
        return other

    def losing(self, truth: Array) -> NDArray[np.bool_]:
        """`(K,)`: without which blocks a label of `truth (N, L)`, 0, 1 or NaN, loses all positives or all negatives."""
        lost = np.zeros(self.num_blocks, dtype=bool)
        of_row = self.blocks[self.row_group]
        for value in (0, 1):
            for column in truth.T:
                counts = np.bincount(of_row, column == value, minlength=self.num_blocks)
                lost |= (counts > 0) & (counts == counts.sum())
        return lost


class Paired(NamedTuple):
    """A metric of two models on the same rows.

    Attributes:
        a: Of the first model; NaN where undefined.
        b: Of the second.
        difference: b - a.
    """

    a: float
    b: float
    difference: Difference


Replicates = Callable[[PairedJackknife], tuple[Mapping[str, Array], Mapping[str, Array]]]


def compare_replicates(
    replicates: Replicates,
    jackknife: PairedJackknife,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    kept: NDArray[np.bool_] | None = None,
) -> dict[str, Paired]:
    """Two models' metrics and their differences, as `paired_difference` says.

    Args:
        replicates: Gives by metric each model's values under the resamples of a jackknife, `(1 + K,)`.
        jackknife: Over the groups of the rows.
        ranges: By metric its lowest and highest value, where they are known and finite.
        kept: `(K,)`, blocks that are counted twice instead of left out: without them the metric would be another one,
            such as a mean over fewer labels. A block without which a metric is undefined is so too.
    """
    found_a, found_b = replicates(jackknife)
    K = jackknife.num_blocks
    kept = np.zeros(K, dtype=bool) if kept is None else kept
    doubled: list[tuple[Mapping[str, Array], Mapping[str, Array]]] = []
    told = {}
    for name in found_a:
        drawn = found_b[name] - found_a[name]
        values = float(found_a[name][0]), float(found_b[name][0])
        moved = drawn[0] - drawn[1:]
        instead = kept | np.isnan(moved) if len(moved) else kept
        if len(moved) and instead.any() and not math.isnan(drawn[0]):
            if not doubled:
                doubled.append(replicates(jackknife.doubled()))
            again = doubled[0][1][name] - doubled[0][0][name]
            moved = np.where(instead, (again[1:] - again[0]) * (K + 1) / (K - 1), moved)
        low, high = (ranges or {}).get(name, (-math.inf, math.inf))
        told[name] = Paired(*values, paired_difference(float(drawn[0]), moved, jackknife.effective, high - low))
    return told


def paired_difference(value: float, moved: Array, effective: float, width: float = math.inf) -> Difference:
    """The difference of two scores with its 95 % interval over new groups, and p.

    The variance is the jackknife's over K groups, `(K - 1) / K * sum moved^2`, times `(m + 2) / m`: m = (sum moved^2)^2
    / (sum moved^4) tells how many groups the difference rests on. Of many it is 1; of two models that differ in few
    groups it is what two more groups that differ, one for each model, would add. Student's t has as many degrees of
    freedom as groups of equal size would leave. The interval is without 0 exactly where p is at most .05.

    Where no group moves the difference, that says little of other groups: of G groups that agree, at most 1 -
    .025^(1/G) of all others do not (about 3.7 / G), so that far the interval reaches, as a share of the metric's range;
    a metric without a range has none then, and p is 1.

    Reference: MacKinnon, Nielsen and Webb 2023, "Cluster-robust inference: a guide to empirical practice", for the
    jackknife over clusters; Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data", for the two more.
    Differs: Bonett and Price add two pairs to a 2 x 2 table, and so also draw the difference to 0; here they only widen
    the interval, of any metric.
    Prefer when: two single models answered the same rows; of strategies with several seeds, a benchmark.

    Args:
        value: On all rows; NaN where undefined.
        moved: `(K,)`, by group how far the difference falls without it.
        effective: How many groups of equal size know as much.
        width: Highest less lowest value of the metric; the interval stays within what differences it allows.

    Returns:
        Ends are None where there is no interval (one group, or an undefined difference), and p with them.
    """
    if math.isnan(value):
        return {"value": None, "low": None, "high": None, "p": None}
    K = len(moved)
    if K < 2 or np.isnan(moved).any():
        return {"value": value, "low": None, "high": None, "p": None}
    squares = moved**2
    variance = (K - 1) / K * squares.sum()
    if variance <= np.finfo(np.float64).tiny:
        reach = width * (1 - ((1 - LEVEL) / 2) ** (1 / effective))
        ends = (-reach, reach) if math.isfinite(width) else (None, None)
        return {"value": value, "low": ends[0], "high": ends[1], "p": 1.0}
    rests_on = squares.sum() ** 2 / (squares**2).sum()
    error = math.sqrt(variance * (rests_on + 2) / rests_on)
    freedom = max(1.0, effective - 1)
    reach = float(student.ppf((1 + LEVEL) / 2, freedom)) * error
    p = float(2 * student.sf(abs(value) / error, freedom))
    return {"value": value, "low": max(value - reach, -width), "high": min(value + reach, width), "p": p}
