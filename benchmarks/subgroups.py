"""How often the comparison of subgroups finds a gap that is not there, finds one that is, and covers it.

    python benchmarks/subgroups.py [--repetitions 400]

SYNTHETIC rows: two of each patient, whose scores have half of their spread in common; a subgroup a patient. The planted
gap is in the first subgroup: its positives score lower. One line per case: the mean of the largest gap, what chance
gives, how often a gap is found (p <= .05) by both nulls as mmfuse takes them and by permutations alone, and how often
the 95 % interval covers the true gap.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from mmfuse.metrics import gaps
from mmfuse.metrics.bootstrap import GroupBootstrap
from mmfuse.metrics.gaps import MeanAuroc, Rates, compare_subgroups, permute_subgroups

ROWS_PER_PATIENT = 2
FOUND = 0.8  # of the positives, at the threshold


class Case(NamedTuple):
    """Subgroups, rows of each on average, the gap of the first, and the shares of positives, in turn."""

    metric: str
    subgroups: int
    rows: int
    gap: float
    prevalence: tuple[float, ...]


CASES = [
    Case("tpr", 2, 400, 0.0, (0.4,)),
    Case("tpr", 6, 200, 0.0, (0.4,)),
    Case("tpr", 12, 200, 0.0, (0.4,)),
    Case("tpr", 2, 600, 0.0, (0.05, 0.5)),
    Case("tpr", 6, 300, 0.0, (0.1, 0.5)),
    Case("tpr", 2, 1000, 0.1, (0.4,)),
    Case("tpr", 6, 500, 0.2, (0.4,)),
    Case("tpr", 12, 200, 0.2, (0.4,)),
    Case("auroc", 2, 400, 0.0, (0.4,)),
    Case("auroc", 6, 200, 0.0, (0.4,)),
    Case("auroc", 6, 300, 0.0, (0.1, 0.5)),
    Case("auroc", 2, 600, 0.1, (0.4,)),
    Case("auroc", 6, 400, 0.1, (0.4,)),
]


def simulate(case: Case, seed: int) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
    """Subgroups, groups, truth and scores of rows; positives of the first subgroup score lower, as the gap asks."""
    draw = np.random.default_rng(seed)
    patients = case.subgroups * case.rows // ROWS_PER_PATIENT
    of_patient = draw.integers(0, case.subgroups, patients)
    subgroup = np.repeat(of_patient, ROWS_PER_PATIENT)
    shares = np.resize(case.prevalence, case.subgroups)
    truth = (draw.random(len(subgroup)) < shares[subgroup]).astype(float)
    noise = np.repeat(draw.normal(size=patients), ROWS_PER_PATIENT) + draw.normal(size=len(subgroup))
    if case.metric == "tpr":
        lift, lowered = norm.ppf(FOUND), norm.ppf(FOUND - case.gap)
    else:  # of two normals whose means are d apart, the AUROC is the normal's share below d / sqrt 2
        lift, lowered = np.sqrt(2) * norm.ppf(FOUND), np.sqrt(2) * norm.ppf(FOUND - case.gap)
    scores = noise / np.sqrt(2) + truth * np.where(subgroup == 0, lowered, lift)
    return subgroup, [f"{patient:06d}" for patient in np.repeat(np.arange(patients), ROWS_PER_PATIENT)], truth, scores


def run(case: Case, seed: int, replicates: int) -> tuple[gaps.Gap, list[float]]:
    """The gap, and its p by permutations and by resamples."""
    subgroup, groups, truth, scores = simulate(case, seed)
    compared = np.ones(case.subgroups, dtype=bool)
    if case.metric == "tpr":
        hits = (truth * (scores >= 0))[:, None]
        measure: Any = Rates([("tpr", "finding")], hits, truth[:, None], compared[:, None])
    else:
        measure = MeanAuroc(scores[:, None], truth[:, None], compared)
    ids = [f"{row:06d}" for row in range(len(groups))]
    both: list[float] = []
    judged = gaps._p_values

    def watched(gap: Any, null: Any) -> Any:
        found = judged(gap, null)
        both.append(float(found[0][0]))
        return found

    gaps._p_values = watched
    try:
        permuted = permute_subgroups(subgroup, groups, ids, replicates, seed)
        found = compare_subgroups([measure], subgroup, permuted, GroupBootstrap(groups, replicates, seed))
    finally:
        gaps._p_values = judged
    return found.gaps[0], both


def share(values: list[bool]) -> str:
    return f"{np.mean(values):.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--replicates", type=int, default=200, help="permutations, and resamples")
    args = parser.parse_args()
    print("| metric | subgroups, rows of each | prevalence | true gap | largest gap, mean | chance | found | "
          "by permutations alone | covered |")  # fmt: skip
    print("|---" * 9 + "|")
    for case in CASES:
        results = [run(case, seed, args.replicates) for seed in range(args.repetitions)]
        found = [gap for gap, _ in results]
        cells = [
            case.metric,
            f"{case.subgroups} of {case.rows}",
            ", ".join(map(str, case.prevalence)),
            str(case.gap),
            f"{np.mean([gap.value for gap in found]):.3f}",
            f"{np.mean([gap.chance for gap in found]):.3f}",
            share([gap.p <= 0.05 for gap in found]),
            share([p[0] <= 0.05 for _, p in results]),
            share([gap.low <= case.gap <= gap.high for gap in found]),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
