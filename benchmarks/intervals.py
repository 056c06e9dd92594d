"""Do the intervals and tests of `mmfuse.benchmarking.statistics` keep their word? Simulated, with a known truth.

    python benchmarks/intervals.py run --results FILE.jsonl [--benchmarks 1000] [--quick]
    python benchmarks/intervals.py table --results FILE.jsonl

A simulated benchmark has 10 strategies (2 are the references) with the same true accuracy, 0.75, several seeds, and one
test set of groups of unequal sizes (geometric, mean 4). An example is answered rightly where the sum of normal effects
is positive: difficulty of its group and its own, shared by all strategies and seeds; what a strategy finds hard, shared
by its seeds; what one seed of one strategy finds hard; and a shift of the seed as a whole, three tenths of which is
shared by the strategies. The truth is the accuracy over all seeds and all groups.

A cell is a number of seeds and a share: that of the seeds' own variance (the shift) in the variance of the reported
mean, over seeds and test sets. The size of the shift is solved for exactly. Share 0 is not among the nine required
cells: it is where counting a component twice shows most.

Strategies are alike in how much seeds move them, or not, which `compare` must notice as it lets them lend each other
degrees of freedom: "spread", the variances of the shift are draws of a scaled inverse chi-square with 4 degrees of
freedom; "one", that of a single strategy, any of them, is 25 times that of the others.

Lines of FILE.jsonl are blocks of 50 benchmarks; finished ones are skipped. `table` prints three constructions:

- plain: seed variance / R + bootstrap variance of the mean, one t quantile at Satterthwaite's degrees of freedom
- once: the same without counting the component of seeds x groups twice
- mmfuse: `compare`

and for each the coverage of the intervals of strategies and of contrasts to references, and how often at least one true
null was rejected after Holm among the 17 contrasts, and for mmfuse among all 45 pairs.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm
from scipy.stats import t as student

from mmfuse.benchmarking.statistics import Comparison, compare, holm

ACCURACY, STRATEGIES, REFERENCES, SHARED_SHIFT, BLOCK = 0.75, 10, 2, 0.3, 50
GROUP, EXAMPLE = 0.25, 0.35  # variances of effects shared by all; they and the next four sum to 1
STRATEGY_GROUP, STRATEGY_EXAMPLE, SEED_GROUP, SEED_EXAMPLE = 0.05, 0.15, 0.05, 0.15
SEEDS, SHARES = (3, 5, 10), (0.0, 0.1, 0.5, 0.9)
METHODS = ("plain", "once", "mmfuse")
KINDS = ("alike", "spread", "one")


def num_groups(share: float) -> int:
    return 1000 if share == 0.9 else 200  # seeds are most of the variance where test sets are large


def draw_sizes(rng: np.random.Generator, groups: int) -> np.ndarray:
    return rng.geometric(0.25, groups)


def variances(shift: float, seeds: int, groups: int) -> tuple[float, float]:
    """The variance of the mean accuracy over seeds, and what of it is the seeds' own, by orthant probabilities."""

    def both(shared: float) -> float:
        r = shared / (1 + shift)
        return multivariate_normal([0, 0], [[1, r], [r, 1]]).cdf([norm.ppf(ACCURACY)] * 2) - ACCURACY**2

    sizes = np.stack([draw_sizes(np.random.default_rng(i), groups) for i in range(2000)]).astype(float)
    total = sizes.sum(axis=1)
    same, mates = (1 / total).mean(), ((sizes * (sizes - 1)).sum(axis=1) / total**2).mean()
    own = both(shift)
    one_seed = (
        same * ACCURACY * (1 - ACCURACY)
        + mates * both(shift + GROUP + STRATEGY_GROUP + SEED_GROUP)
        + (1 - same - mates) * own
    )
    two_seeds = same * both(1 - SEED_GROUP - SEED_EXAMPLE) + mates * both(GROUP + STRATEGY_GROUP)
    return one_seed / seeds + two_seeds * (1 - 1 / seeds), own / seeds


def solve_shift(seeds: int, share: float) -> float:
    """The variance of the shift of a seed that makes its share of the variance of the mean what is asked."""
    if share == 0:
        return 0.0

    def excess(shift: float) -> float:
        total, own = variances(shift, seeds, num_groups(share))
        return own / total - share

    return brentq(excess, 1e-5, 2, xtol=1e-6)


def simulate(
    rng: np.random.Generator, seeds: int, groups: int, shift: float, resamples: int, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies `(S, R)` of one simulated benchmark, and on each resample of its groups, `(S, R, B)`."""
    sizes = draw_sizes(rng, groups)
    level = draw_levels(rng, seeds, shift, kind, np.full((STRATEGIES, 1), ACCURACY))
    sums = draw_right(rng, sizes, level)
    drawn = rng.integers(groups, size=(resamples, groups)) + groups * np.arange(resamples)[:, None]
    times = np.bincount(drawn.ravel(), minlength=resamples * groups).reshape(resamples, groups).astype(float)
    return sums.sum(axis=-1) / sizes.sum(), sums @ times.T / (times @ sizes)


def draw_levels(rng: np.random.Generator, seeds: int, shift: float, kind: str, accuracies: np.ndarray) -> np.ndarray:
    """What is added to all examples of a strategy and seed, `(S, R)`, for true `accuracies (S, 1)`."""
    shifts = np.sqrt(SHARED_SHIFT) * rng.standard_normal((1, seeds))
    shifts = shifts + np.sqrt(1 - SHARED_SHIFT) * rng.standard_normal((STRATEGIES, seeds))
    own = shift * np.ones((STRATEGIES, 1))
    if kind == "spread":
        own = shift * 4 / rng.chisquare(4, (STRATEGIES, 1))
    elif kind == "one":
        own[rng.integers(STRATEGIES)] *= 25
    return norm.ppf(accuracies) * np.sqrt(1 + own) + np.sqrt(own) * shifts


def draw_right(rng: np.random.Generator, sizes: np.ndarray, level: np.ndarray) -> np.ndarray:
    """How many examples of each group are answered rightly, `(S, R, G)`."""
    groups, seeds = len(sizes), level.shape[1]
    group = np.repeat(np.arange(groups), sizes)

    def effect(by_group: float, by_example: float, *shape: int) -> np.ndarray:
        of_groups = np.sqrt(by_group) * rng.standard_normal((*shape, groups))
        return of_groups[..., group] + np.sqrt(by_example) * rng.standard_normal((*shape, len(group)))

    right = (
        effect(GROUP, EXAMPLE)
        + effect(STRATEGY_GROUP, STRATEGY_EXAMPLE, STRATEGIES, 1)
        + effect(SEED_GROUP, SEED_EXAMPLE, STRATEGIES, seeds)
        + level[..., None]
    ) > 0
    starts = np.concatenate([[0], sizes.cumsum()[:-1]])
    return np.add.reduceat(right, starts, axis=-1, dtype=float)


def satterthwaite(seed_part: np.ndarray, test_part: np.ndarray, seeds: int, groups: int) -> tuple[np.ndarray, ...]:
    variance = seed_part + test_part
    return np.sqrt(variance), variance**2 / (seed_part**2 / (seeds - 1) + test_part**2 / (groups - 1))


def outcomes(values: np.ndarray, replicates: np.ndarray, groups: int) -> dict[str, dict[str, int]]:
    """For each method how many intervals cover, and whether a true null was rejected."""
    S, R = values.shape
    names = [f"s{i}" for i in range(S)]
    found: Comparison = compare(values, replicates, names, names[:REFERENCES], groups)
    index = {name: i for i, name in enumerate(names)}
    which = [(index[c.strategy], index[c.reference]) for c in found.contrasts]
    scores = [one.score for one in found.strategies]
    differences = [c.difference for c in found.contrasts]
    result = {
        "mmfuse": {
            "scores": sum(e.low <= ACCURACY <= e.high for e in scores),
            "differences": sum(c.p >= 0.05 for c in found.contrasts),  # printed ones are corrected: of 95 % alone
            "rejected": int(min(c.p_holm for c in found.contrasts) <= found.alpha),
            "pairs": int(min(c.p_holm for c in found.pairs) <= found.alpha),
        }
    }
    a, b = (list(x) for x in zip(*which, strict=True))
    bootstrap = np.concatenate([replicates[[index[s.name] for s in found.strategies]], replicates[a] - replicates[b]])
    estimates = [*scores, *differences]
    size = np.abs([e.mean - ACCURACY for e in scores] + [e.mean for e in differences])
    seed_part = np.array([e.seed_sd**2 / R for e in estimates])
    for name, test_part in (
        ("plain", bootstrap.mean(axis=1).var(axis=1, ddof=1)),
        ("once", np.array([e.test_variance for e in estimates])),
    ):
        error, freedom = satterthwaite(seed_part, test_part, R, groups)
        p = 2 * student.sf(size / error, freedom)
        result[name] = {
            "scores": int((p[:S] >= 0.05).sum()),
            "differences": int((p[S:] >= 0.05).sum()),
            "rejected": int(holm(p[S:]).min() <= 0.05),
        }
    return result


def run(args: argparse.Namespace) -> None:
    done = {(line["kind"], line["seeds"], line["share"], line["block"]) for line in read(args.results)}
    benchmarks, resamples = (100, 200) if args.quick else (args.benchmarks, args.resamples)
    for kind, seeds, share in product(args.kinds, SEEDS, SHARES):
        blocks = [b for b in range(-(-benchmarks // BLOCK)) if (kind, seeds, share, b) not in done]
        if not blocks:
            continue
        shift, groups = solve_shift(seeds, share), num_groups(share)
        for block in blocks:
            rng = np.random.default_rng([KINDS.index(kind), seeds, round(share * 100), block])
            means, counted = [], []
            for _ in range(BLOCK):
                values, replicates = simulate(rng, seeds, groups, shift, resamples, kind)
                counted.append(outcomes(values, replicates, groups))
                means.append(values.mean(axis=1).round(6).tolist())
            counts = {m: {k: [one[m][k] for one in counted] for k in counted[0][m]} for m in METHODS}
            total, own = variances(shift, seeds, groups)
            cell = {
                "kind": kind,
                "seeds": seeds,
                "share": share,
                "block": block,
                "resamples": resamples,
                "groups": groups,
            }
            line = {**cell, "seed_sd": (own * seeds) ** 0.5, "error": total**0.5, "counts": counts, "means": means}
            with args.results.open("a") as handle:
                handle.write(json.dumps(line) + "\n")
        print(f"{kind}, {seeds} seeds, share {share}: {len(blocks)} blocks", flush=True)


def read(path: Path) -> list[dict]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def table(args: argparse.Namespace) -> None:
    lines = read(args.results)
    print(
        "| strategies | seeds | share | n | seed sd | error: true, seen | scores: plain, once, mmfuse | contrasts "
        "| any | pairs |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for kind, seeds, share in product(KINDS, SEEDS, SHARES):
        cell = [line for line in lines if (line["kind"], line["seeds"], line["share"]) == (kind, seeds, share)]
        if not cell:
            continue

        def rate(method: str, kind: str, of: int, cell: list[dict] = cell) -> str:
            return f"{100 * np.mean([x for line in cell for x in line['counts'][method][kind]]) / of:.1f}"

        contrasts = REFERENCES * (STRATEGIES - REFERENCES) + REFERENCES * (REFERENCES - 1) // 2
        seen = np.sqrt(((np.concatenate([line["means"] for line in cell]) - ACCURACY) ** 2).mean())
        columns = [
            ", ".join(rate(method, kind, of) for method in METHODS)
            for kind, of in (("scores", STRATEGIES), ("differences", contrasts), ("rejected", 1))
        ]
        first = cell[0]
        print(
            f"| {kind} | {seeds} | {share} | {len(cell) * BLOCK} | {first['seed_sd']:.3f} | "
            f"{first['error']:.4f}, {seen:.4f} | "
            f"{' | '.join(columns)} | {rate('mmfuse', 'pairs', 1)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.set_defaults(command=run)
    running.add_argument("--benchmarks", type=int, default=1000, help="simulated, in each cell")
    running.add_argument("--resamples", type=int, default=400)
    running.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    running.add_argument("--quick", action="store_true", help="100 benchmarks a cell with 200 resamples")
    printing = commands.add_parser("table")
    printing.set_defaults(command=table)
    for command in (running, printing):
        command.add_argument("--results", type=Path, required=True)
    args = parser.parse_args()
    args.command(args)


if __name__ == "__main__":
    main()
