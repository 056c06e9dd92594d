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
groups (1 / sum of squared shares of the rows), of AUROC 10 groups with and 10 without a positive. Whether one is given
depends on sizes and class counts alone. Cells with fewer groups have no target but to say nothing wrong.

Beside the score over seeds, as a benchmark shows it, the first seed's alone is measured, as `evaluate` shows it; and
on the first 200 runs the widths of the constructions of before: Banerjee's t intervals over seeds and groups, and the
percentiles of the bootstrap of groups.

FOLDER gets a file a cell, with all runs; finished cells are skipped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

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
