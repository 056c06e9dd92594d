"""The interval of one score: what the score would be on all groups of the kind that these ones are of.

A score is known as well as its groups (patients) agree on it. Leaving each group out in turn tells what each one adds,
and so the score's variance (the jackknife); symmetric ends about the score would then be wrong where it is near the end
of its range, where few groups carry the errors, and where groups are of unlike sizes. So

1. The variance is the larger of two: the jackknife's, and that of a model in which a group's part varies with its size
   as a common correlation within groups makes it, fitted to all groups. A few large groups that happen to agree cannot
   then make the first too small.
2. Of a score in a finite range, variance and score give an effective number of answers, n = u (1 - u) / variance with
   the score u on [0, 1], and the ends are Clopper and Pearson's for n answers (Korn and Graubard): they never leave the
   range, and are as skewed as they must be.
3. Where e, the number of groups that carry the variance, is small, the variance itself says little: 40 right of 40 have
   none. So 1 / n is a mean, with weight 1 / (1 + e^2) on 1 / (effective number of groups), the least that n can be.
4. Of a range with one end, the ends are those of the logarithm of the distance to it (1 - R2, an error above 0); of one
   without, they are as far from the score to both sides.
5. Quantiles are those of t, and n is smaller by their square. Degrees of freedom are those of the variance, from the
   spread of squares that does not follow from the score itself, and at most the effective number of groups less 1.

Of groups of unlike sizes there are effectively 1 / (sum of squared shares), of the rows that a score counts.
Whether an interval is given depends on them and on counts of classes, never on what a model says; but for a range with
an open end (an error of 0 in all groups), where no group that changes anything leaves nothing to make one of.

References: Quenouille 1956, "Notes on bias in estimation", Biometrika 43 (the jackknife); Clopper and Pearson 1934,
"The use of confidence or fiducial limits", Biometrika 26; Korn and Graubard 1998, "Confidence intervals for proportions
with small expected number of positive counts estimated from survey data", Survey Methodology 24; Kish 1965, "Survey
sampling" (effective numbers).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri, stdtrit

from mmfuse.metrics.results import Score

Array = NDArray[np.float64]
Bounds = tuple[float, float]
ANYWHERE: Bounds = (-math.inf, math.inf)
FEWEST = 10
"""Effective groups, or groups with and without a label, below which no interval is given."""
_CORRELATIONS = np.linspace(0, 1, 11)
_ROUNDING = 1e-12
"""By how much a score may be beyond its range, as sums of floating-point numbers are."""
_TREND = 3.0
"""Standard errors from which on a score is told to change with the size of groups."""


class Shares(NamedTuple):
    """What of a score each group, or block of groups, holds; leading axes as of the score.

    Attributes:
        share: `(..., b)`, they sum to 1.
        squares: `(..., b)`, the sum of the squared shares of the block's groups.
        effective: `(...)`, how many equal groups would know as much.
    """

    share: Array
    squares: Array
    effective: Array


class Basis(NamedTuple):
    """What the interval of a score rests on.

    Attributes:
        shares: Of the groups; None where no interval is given, or asked for.
        why_not: Why none is given.
        note: What is told of one that is given.
    """

    shares: Shares | None
    why_not: str = ""
    note: str = ""


def score_interval(
    value: ArrayLike, left_out: ArrayLike, shares: Shares, bounds: Bounds = ANYWHERE, level: float = 0.95
) -> tuple[Array, Array]:
    """The ends of the interval of a score, or of as many as there are leading axes.

    Reference: see the head of this file.
    Differs: the design effect is the larger of two, and is not believed where few groups show it.
    Prefer when: groups are independent draws; seeds are those that were run (give the mean over them).

    Args:
        value: `(...)`, in `bounds`.
        left_out: `(..., b)`, the score without each block of groups; finite.
        shares: Of the groups in what is scored.
        bounds: The lowest and highest value that there is.
        level: In (0, 1).

    Returns:
        `low` and `high`, `(...)` each.
    """
    value, left_out = np.asarray(value, np.float64), np.asarray(left_out, np.float64)
    away = left_out - left_out.mean(axis=-1, keepdims=True)
    variance = np.maximum(_jackknife(away), _modelled(away, shares))
    tail = (1 - level) / 2
    freedom = np.minimum(np.maximum(_freedom(away), 3), np.maximum(shares.effective - 1, 1))
    low, high = bounds
    if math.isfinite(low) and math.isfinite(high):
        width = high - low
        ends = _within((value - low) / width, variance / width**2, _carriers(away), shares.effective, freedom, tail)
        return low + width * ends[0], low + width * ends[1]
    reach = -stdtrit(freedom, tail) * np.sqrt(variance)
    if math.isfinite(low):
        return _one_sided(value - low, reach, low, 1.0)
    if math.isfinite(high):
        found = _one_sided(high - value, reach, high, -1.0)
        least = high - 1 + betaincinv(shares.effective, 1.0, tail)  # no error at all: as if R2 were a share
        return np.where(value < high, found[1], least), found[0]
    return value - reach, value + reach


def _jackknife(away: Array) -> Array:
    b = away.shape[-1]
    return (away**2).sum(axis=-1) * (b - 1) / b


def _carriers(away: Array) -> Array:
    """How many groups carry the variance: 1 if one does alone, 0 if there is none."""
    squares = away**2
    return _ratio(squares.sum(axis=-1) ** 2, (squares**2).sum(axis=-1))


def _freedom(away: Array) -> Array:
    """Of the variance, but for what of it follows from the score itself."""
    squares = away**2
    apart = squares - squares.mean(axis=-1, keepdims=True)
    slope = _ratio((away * apart).sum(axis=-1, keepdims=True), squares.sum(axis=-1, keepdims=True))
    own = ((apart - slope * away) ** 2).sum(axis=-1)
    total = squares.sum(axis=-1) ** 2
    return np.divide(2 * total, own, out=np.full(np.shape(own), np.inf), where=own > 1e-9 * total)


def _modelled(away: Array, shares: Shares) -> Array:
    """The variance if a group of share h varies as r h^2 + (1 - r) h / b, over r by Gaussian quasi-likelihood."""
    squared, holds = (away * (1 - shares.share)) ** 2, shares.share > 0
    b = np.maximum(holds.sum(axis=-1), 2)
    fits, found = [], []
    for correlation in _CORRELATIONS:
        form = correlation * shares.squares + (1 - correlation) * shares.share / b[..., None]
        scale = _ratio(squared, form).sum(axis=-1) / b
        logs = np.log(form, where=holds, out=np.zeros_like(form)).sum(axis=-1)
        logs = logs + b * np.log(scale, where=scale > 0, out=np.zeros_like(scale))
        fits.append(-logs / 2)
        found.append(scale * form.sum(axis=-1) * b / (b - 1))
    likely = np.exp(np.array(fits) - np.max(fits, axis=0))
    others = np.where(holds, 0.0, squared).sum(axis=-1)
    return (likely * found).sum(axis=0) / likely.sum(axis=0) + others


def _within(
    value: Array, variance: Array, carriers: Array, effective: Array, freedom: Array, tail: float
) -> tuple[Array, Array]:
    """Clopper and Pearson's ends in [0, 1], of as many answers as the variance is worth."""
    value = value.clip(0, 1)
    unsure = 1 / (1 + carriers**2)
    n = 1 / ((1 - unsure) * _ratio(variance, value * (1 - value)) + unsure / effective)
    n = n * (ndtri(tail) / stdtrit(freedom, tail)) ** 2
    right, wrong = n * value, n * (1 - value)
    low = np.where(right > 0, betaincinv(np.maximum(right, 1e-300), wrong + 1, tail), 0.0)
    high = np.where(wrong > 0, betaincinv(right + 1, np.maximum(wrong, 1e-300), 1 - tail), 1.0)
    return low, high


def _one_sided(distance: Array, reach: Array, end: float, sign: float) -> tuple[Array, Array]:
    """The nearer and the farther end of a score at a distance of at least 0 from the end of its range."""
    with np.errstate(over="ignore"):
        factor = np.exp(_ratio(reach, distance))
        return end + sign * distance / factor, end + sign * distance * factor


def _ratio(above: Array, below: Array) -> Array:
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.zeros(np.shape(below)), where=below > 0)


def score_of(value: float, left_out: ArrayLike, basis: Basis, bounds: Bounds = ANYWHERE) -> Score:
    """A score as reports hold it: the value and its 95 % interval, or why there is none; None where undefined.

    Args:
        value: NaN where undefined.
        left_out: `(b,)`, the score without each block of groups, as a `GroupJackknife` draws it; of none if no interval
            was asked for. Without the groups that alone make it defined it is NaN, and they count as adding nothing.
        basis: The groups.
        bounds: The score's lowest and highest value; without meaning where the value is beyond.
    """
    left_out = np.asarray(left_out, np.float64)
    score: Score = {"value": None if np.isnan(value) else float(value), "low": None, "high": None}
    if score["value"] is None:
        return score
    notes = [basis.note] if basis.note else []
    if basis.shares is None:
        notes = [basis.why_not] if basis.why_not else []
    elif len(left_out):
        left_out = np.where(np.isnan(left_out), value, left_out)
        within = min(max(value, bounds[0]), bounds[1])
        if abs(within - value) > _ROUNDING:
            bounds = ANYWHERE
        elif within != value:  # a mean of ones may be 1 + 2e-16
            score["value"] = value = within
        low, high = score_interval(value, left_out, basis.shares, bounds)
        if high - low <= _ROUNDING * max(1.0, abs(value)):  # of a range with an open end: nothing to set the spread by
            score["note"] = "no group changes it: how far others would cannot be told"
            return score
        score["low"], score["high"] = float(low), float(high)
        if abs(size_trend(value, left_out, basis.shares)) > _TREND:
            notes.append("large groups score unlike small ones: it holds for groups of these sizes")
    if notes:
        score["note"] = "; ".join(notes)
    return score


def size_trend(value: float, left_out: Array, shares: Shares) -> float:
    """By how many of its standard errors the score changes with the logarithm of the groups' size."""
    there = shares.share > 0
    size = np.log(shares.share, where=there, out=np.zeros_like(shares.share))
    adds = (value - left_out) * (1 - shares.share) * there
    parts = adds * (size - (size * shares.share).sum())
    spread = math.sqrt((parts**2).sum())
    return float(parts.sum() / spread) if spread > 1e-12 else 0.0


def effective_number(counts: ArrayLike) -> Array:
    """As many equal groups know as much as groups that hold `counts (..., G)` of what is scored; 0 without any.

    Reference: Kish 1965.
    Differs: nothing.
    Prefer when: rows of a group may be as good as one; else there are more.
    """
    counts = np.asarray(counts, np.float64)
    return _ratio(counts.sum(axis=-1) ** 2, (counts**2).sum(axis=-1))


def shares_of(*counts: ArrayLike, blocks: NDArray[np.integer[Any]] | None = None) -> Shares:
    """The shares of groups that hold `counts (..., G)` of each of the things that a score needs, such as both classes.

    Args:
        *counts: At least 0, and not all 0.
        blocks: `(G,)`, the block of each group; of its own each if left out. Counts are then `(G,)`.
    """
    every = np.array([np.asarray(of, np.float64) for of in counts])
    known = effective_number(every)
    scarce = np.take_along_axis(every, known.argmin(axis=0)[None, ..., None], axis=0)[0]
    share, effective = _ratio(scarce, scarce.sum(axis=-1, keepdims=True)), known.min(axis=0)
    if blocks is None:
        return Shares(share, share**2, effective)
    of_blocks, squares = (np.bincount(blocks, of).astype(np.float64) for of in (share, share**2))
    return Shares(of_blocks, squares, effective)


def balanced(counts: ArrayLike) -> Array:
    """What each group holds `(..., G)` of a mean over labels, each of `counts (..., G, L)`; empty labels left out."""
    counts = np.asarray(counts, np.float64)
    return _ratio(counts, counts.sum(axis=-2, keepdims=True)).sum(axis=-1)


def too_few_groups(rows: ArrayLike, what: str = "rows") -> str:
    """Why groups with so many `rows (G,)` of what is scored give no interval; "" where they do."""
    rows = np.asarray(rows, np.float64)
    return _one_holds_most(rows, what) or _too_few(int((rows > 0).sum()), float(effective_number(rows)))


def too_few_of_classes(positives: ArrayLike, negatives: ArrayLike) -> str:
    """Why groups with so many rows of two classes, `(G,)` each, give no interval of a ranking; "" where they do."""
    positives, negatives = np.asarray(positives, np.float64), np.asarray(negatives, np.float64)
    for counts, what in ((positives, "positive"), (negatives, "negative")):
        there = int((counts > 0).sum())
        if there < FEWEST:
            return f"{there} groups have {what} rows, {FEWEST} are needed"
    return _one_holds_most(positives + negatives, "rows")


def _one_holds_most(rows: Array, what: str) -> str:
    most = float(_ratio(rows.max(initial=0), rows.sum()))
    return f"one group holds {most:.0%} of the {what}" if most > 0.5 else ""


def _too_few(there: int, effective: float) -> str:
    if effective >= FEWEST:
        return ""
    worth = "" if there < FEWEST else f" of unlike sizes, worth {effective:.1f} equal ones"
    return f"{there} groups{worth}; {FEWEST} are needed"
