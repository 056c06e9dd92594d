"""Many tests at once: Holm's correction, and the letters of strategies that were not told apart.

References: Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6; Piepho 2004, "An
algorithm for a letter-based representation of all-pairwise comparisons", J. Comput. Graph. Stat. 13.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def holm(p_values: ArrayLike) -> Array:
    """Adjust p-values so that rejecting those up to alpha is wrong anywhere in the family with probability alpha.

    Reference: Holm 1979.
    Differs: nothing. NaN stays NaN, and counts as a member of the family that is never rejected.
    Prefer when: a family of contrasts is named before the results are seen, whatever their dependence.

    Args:
        p_values: `(m,)` in [0, 1] or NaN.

    Returns:
        `(m,)`, in the order given.

    Raises:
        ValueError: Not one axis, or a value outside [0, 1].
    """
    p_values = np.asarray(p_values, np.float64)
    if p_values.ndim != 1:
        raise ValueError(f"p-values are {p_values.shape}; they must be (m,)")
    if ((p_values < 0) | (p_values > 1)).any():
        raise ValueError("a p-value is outside [0, 1]")
    order = np.argsort(p_values)  # NaN last
    m = len(p_values)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(m, 0, -1)), 1)
    return adjusted


def interval_levels(p_values: ArrayLike, alpha: float) -> Array:
    """The level of each member's interval that agrees with `holm`: it is without 0 where `holm` is up to alpha.

    All are simultaneous, 1 - alpha / m, but for those that only a later step of Holm's rejects: they are at the level
    of their step.

    Reference: Bonferroni's intervals; Holm 1979 for the steps.
    Differs: the exceptions. The intervals that follow from Holm's procedure (Strassburger and Bretz 2008) end at 0 for
    all that it rejects, however large the difference.
    Prefer when: intervals stand beside p-values of `holm`.

    Args:
        p_values: `(m,)` in [0, 1] or NaN.
        alpha: In (0, 1).

    Returns:
        `(m,)`, in the order given.
    """
    p_values = np.asarray(p_values, np.float64)
    m, adjusted = len(p_values), holm(p_values)
    steps = np.empty(m)
    steps[np.argsort(p_values)] = alpha / np.arange(m, 0, -1)
    late = (adjusted <= alpha) & (p_values > alpha / max(m, 1))
    return 1 - np.where(late, steps, alpha / max(m, 1))


def letter_groups(different: ArrayLike) -> list[list[int]]:
    """The largest sets without two members that differ: one letter each, in a compact letter display.

    Any two that differ share no set, any two that do not share at least one.

    Reference: Piepho 2004, insert and absorb.
    Differs: letters are not swept: redundant ones stay, so that a letter always stands for a whole set.
    Prefer when: all pairs were compared; for contrasts to one reference read these.

    Args:
        different: `(S, S)` bool, symmetric; members are in the order in which letters are to be given.

    Raises:
        ValueError: Not square or not symmetric, or a member differs from itself.
    """
    different = np.asarray(different, bool)
    if different.ndim != 2 or different.shape[0] != different.shape[1]:
        raise ValueError(f"`different` is {different.shape}; it must be (S, S)")
    if (different != different.T).any() or different.diagonal().any():
        raise ValueError("`different` must be symmetric, with a False diagonal")
    columns = [frozenset(range(len(different)))]
    for i, j in np.argwhere(np.triu(different)).tolist():
        together = [column for column in columns if {i, j} <= column]
        inserted = {column for column in columns if not {i, j} <= column}
        inserted.update(column - {member} for column in together for member in (i, j))
        columns = [column for column in inserted if not any(column < other for other in inserted)]
    return sorted(sorted(column) for column in columns)
