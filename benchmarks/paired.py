"""How often the interval of a paired difference covers the truth: two models on the same rows, over new groups.

    python benchmarks/paired.py --out DIR [--runs 2000] [--cells NAME ...]

Each cell's runs are appended to DIR/CELL.jsonl, one line a run; a killed run resumes. The truth is that of 200,000 new
groups. `percentile` is the interval of 1,000 resamples of groups that mmfuse gave before, of the first 500 runs.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmfuse.metrics import METRICS
from mmfuse.metrics.bootstrap import GroupBootstrap, interval
from mmfuse.metrics.decisions import decision_replicates
from mmfuse.metrics.labels import weighted_scores
from mmfuse.metrics.paired import PairedJackknife, compare_replicates
from mmfuse.metrics.regression import regression_replicates
from mmfuse.metrics.scored import Scored

TRUTH_GROUPS, OLD_RUNS = 200_000, 500


def equal(size: int) -> Callable[..., np.ndarray]:
    return lambda rng, number: np.full(number, size)


def pareto(rng: np.random.Generator, number: int) -> np.ndarray:
    return np.minimum(np.ceil(rng.pareto(1.5, number) + 1), 100).astype(int)


def normal_cdf(x: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    return ndtr(x)


def quantile(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))


def latent(rng: np.random.Generator, group: np.ndarray, shared: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Two standard normals a row: half of their common part is the group's."""
    common = np.sqrt(0.5) * rng.normal(size=group.max() + 1)[group] + np.sqrt(0.5) * rng.normal(size=len(group))
    own = rng.normal(size=(2, len(group)))
    return tuple(np.sqrt(shared) * common + np.sqrt(1 - shared) * one for one in own)  # type: ignore[return-value]


def decisions(a: float, b: float, sizes: Callable[..., np.ndarray], shared: float = 0.6) -> Callable[..., Any]:
    def draw(rng: np.random.Generator, number: int) -> tuple[Scored, Scored, np.ndarray]:
        group = np.repeat(np.arange(number), sizes(rng, number))
        right = [u < quantile(share) for u, share in zip(latent(rng, group, shared), (a, b), strict=True)]
        return (*(of_right(one) for one in right), group)

    return draw


def of_right(right: np.ndarray) -> Scored:
    return Scored(np.zeros(len(right), int), np.where(right, 0, 1), ("x", "y"), None, np.arange(len(right)))


def few_differ(rng: np.random.Generator, number: int, share: float = 0.02) -> tuple[Scored, Scored, np.ndarray]:
    a = rng.random(number) < 0.9 - share
    b = a | (rng.random(number) < share / (0.1 + share))
    return of_right(a), of_right(b), np.arange(number)


def all_agree(rng: np.random.Generator, number: int) -> tuple[Scored, Scored, np.ndarray]:
    a = of_right(rng.random(number) < 0.9)
    return a, a, np.arange(number)


def ranks(shares: list[float], sizes: Callable[..., np.ndarray], a: float = 1.2, b: float = 1.4) -> Callable[..., Any]:
    def draw(rng: np.random.Generator, number: int) -> tuple[Scored, Scored, np.ndarray]:
        group = np.repeat(np.arange(number), sizes(rng, number))
        truth, scores = [], []
        for share in shares:
            ill, _ = latent(rng, group, 0.5)
            y = ill > quantile(1 - share)
            truth.append(y)
            scores.append([normal_cdf(u + d * y) for u, d in zip(latent(rng, group), (a, b), strict=True)])
        y = np.stack(truth, axis=1).astype(float)
        labels = tuple(f"l{i}" for i in range(len(shares)))
        models = [
            Scored.of_labels(np.stack(p, axis=1), y, labels, [0.5] * len(shares)) for p in zip(*scores, strict=True)
        ]
        return (*models, group)

    return draw


def classes(rng: np.random.Generator, number: int) -> tuple[Scored, Scored, np.ndarray]:
    group = np.repeat(np.arange(number), pareto(rng, number))
    target = rng.choice(4, len(group), p=[0.5, 0.3, 0.15, 0.05])
    other = (target + rng.integers(1, 4, len(group))) % 4
    said = [np.where(u < quantile(s), target, other) for u, s in zip(latent(rng, group), (0.75, 0.8), strict=True)]
    return (*(Scored(target, one, tuple("abcd"), None, np.arange(len(one))) for one in said), group)


def numbers(rng: np.random.Generator, number: int) -> tuple[Scored, Scored, np.ndarray]:
    group = np.repeat(np.arange(number), pareto(rng, number))
    target = rng.normal(size=number)[group] + rng.normal(size=len(group))
    said = [target + u * spread for u, spread in zip(latent(rng, group), (1.0, 0.95), strict=True)]
    return (*(Scored(target, one, (), None, np.arange(len(one))) for one in said), group)


CELLS: dict[str, tuple[str, int, Callable[..., Any]]] = {
    "accuracy_40": ("accuracy", 40, decisions(0.9, 0.92, equal(5))),
    "accuracy_200": ("accuracy", 200, decisions(0.9, 0.92, equal(5))),
    "auroc_one_row": ("auroc_macro", 200, ranks([0.1], equal(1))),
    "f1_pareto": ("f1_macro", 60, classes),
    "few_differ": ("accuracy", 40, few_differ),
    "accuracy_pareto": ("accuracy", 60, decisions(0.85, 0.88, pareto)),
    "equal_models": ("accuracy", 40, all_agree),
    "accuracy_97_one_row": ("accuracy", 40, decisions(0.97, 0.98, equal(1))),
    "accuracy_15": ("accuracy", 15, decisions(0.9, 0.92, equal(5))),
    "r2_pareto": ("r2", 100, numbers),
    "auroc_4": ("auroc_macro", 300, ranks([0.04], equal(2))),
    "auroc_macro_3": ("auroc_macro", 200, ranks([0.3, 0.1, 0.03], equal(1))),
    "no_difference": ("accuracy", 100, decisions(0.9, 0.9, equal(3))),
}
"""By name the metric, how many groups, and what draws them: the first six are those of the target."""


def replicates(metric: str, models: tuple[Scored, Scored], bootstrap: GroupBootstrap) -> tuple[dict[str, Any], ...]:
    if metric == "r2":
        return tuple({metric: regression_replicates(m.decided, m.target, bootstrap)[metric]} for m in models)
    if metric == "auroc_macro":
        drawn = [bootstrap.replicate(weighted_scores(m.outcomes, bootstrap))[metric] for m in models]
    else:
        said = np.stack([m.decided for m in models])
        drawn = decision_replicates(metric, said, models[0].target, models[0].labels, bootstrap)
    return tuple({metric: one} for one in drawn)


def truth(name: str) -> float:
    metric, _, draw = CELLS[name]
    a, b, group = draw(np.random.default_rng([7, *name.encode()]), TRUTH_GROUPS)
    one = PairedJackknife(np.zeros(len(group), int).astype(str))
    found = replicates(metric, (a, b), one)
    return float(found[1][metric][0] - found[0][metric][0])


def run(name: str, seed: int) -> dict[str, Any]:
    metric, number, draw = CELLS[name]
    a, b, group = draw(np.random.default_rng([seed, *name.encode()]), number)
    groups = np.char.zfill(group.astype(str), 6)
    jackknife = PairedJackknife(groups)
    width = METRICS.get(metric).range if metric != "r2" else (-math.inf, math.inf)  # pyright: ignore
    kept = jackknife.losing(a.truth) if a.labels and metric != "accuracy" else None
    found = compare_replicates(lambda j: replicates(metric, (a, b), j), jackknife, {metric: width}, kept)[metric]  # type: ignore
    told: dict[str, Any] = {"run": seed, **found.difference}
    if seed < OLD_RUNS:
        drawn = replicates(metric, (a, b), GroupBootstrap(groups, 1000, seed))
        told["old_low"], told["old_high"] = interval(drawn[1][metric] - drawn[0][metric])
    return told


def summary(name: str, lines: list[dict[str, Any]], true: float) -> str:
    given = [line for line in lines if line["low"] is not None]
    hit = np.array([line["low"] <= true <= line["high"] for line in given])
    width = float(np.mean([line["high"] - line["low"] for line in given]))
    old = [line for line in lines if "old_low" in line]
    old_hit = np.mean([line["old_low"] <= true <= line["old_high"] for line in old])
    old_width = np.mean([line["old_high"] - line["old_low"] for line in old])
    found = np.mean([line["p"] <= 0.05 for line in given])
    agree = all((line["p"] <= 0.05) == (line["low"] > 0 or line["high"] < 0) for line in given)
    return (
        f"| {name} | {true:+.4f} | {len(given)} of {len(lines)} | {hit.mean():.1%} | {width:.4f} | {old_hit:.1%} | "
        f"{old_width:.4f} | {found:.1%} | {'yes' if agree else 'NO'} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--cells", nargs="*", default=list(CELLS), choices=list(CELLS))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    print("| cell | true b - a | given | covers | width | percentile covers | its width | p <= .05 | p agrees |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in asked.cells:
        path = asked.out / f"{name}.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        with path.open("a") as handle:
            for seed in range(len(lines), asked.runs):
                lines.append(run(name, seed))
                handle.write(json.dumps(lines[-1]) + "\n")
                handle.flush()
        print(summary(name, lines, truth(name)), flush=True)


if __name__ == "__main__":
    main()
