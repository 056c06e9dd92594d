"""Does the gate of `mmfuse.benchmarking.statistics.compare` keep the family-wise level, and what power does it win?

    python benchmarks/first_question.py run --results FILE.jsonl [--benchmarks 2000] [--kinds alike ...]
    python benchmarks/first_question.py table --results FILE.jsonl

Benchmarks are simulated as in `intervals.py`, with 10 strategies, two of which are the modalities alone and two (late,
concat) references, on 200 test groups. Each is validated on 100 other groups by the same seeds, and the fusion and the
modality that are best there are declared: lucky seeds are lucky in both.

Cells: 3, 5, 10 seeds x the seeds' own share of the variance of a mean, .1, .5, .9, each with all strategies equal (0)
and with all fusions 5 points ahead of both modalities; and 5 seeds, share .5, with fusions 2, 4, 6 and 8 points ahead.
For each it is counted how often

- the declared contrast is rejected in favour of fusion: alone, and as one of all contrasts to the best modality, late
  and concat by Holm's procedure, which was the rule before
- anything false is rejected, by the gate and Holm's procedure behind it
- the declared interval covers; and all others that are printed, at once

Lines of FILE.jsonl are blocks of 50 benchmarks; finished ones are skipped.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
from intervals import ACCURACY, KINDS, SEEDS, STRATEGIES, draw_levels, draw_right, draw_sizes, read, variances
from scipy.optimize import brentq

from mmfuse.benchmarking.statistics.comparison import contrast_family

GROUPS, VALIDATION_GROUPS, RESAMPLES, BLOCK, ALPHA = 200, 100, 200, 50, 0.05
NAMES = ["text_only", "image_only", "late", "concat", *(f"s{i}" for i in range(4, STRATEGIES))]
CELLS = [
    *((seeds, share, ahead) for seeds, share in product(SEEDS, (0.1, 0.5, 0.9)) for ahead in (0, 5)),
    *((5, 0.5, ahead) for ahead in (2, 4, 6, 8)),
]
"""Seeds, share of the seeds' own variance, points that fusions are ahead."""


def solve_shift(seeds: int, share: float) -> float:
    """As in `intervals.py`, with the same number of groups for every share."""

    def excess(shift: float) -> float:
        total, own = variances(shift, seeds, GROUPS)
        return own / total - share

    return float(brentq(excess, 1e-5, 2, xtol=1e-6))  # type: ignore[arg-type]


def one_benchmark(rng: np.random.Generator, seeds: int, shift: float, ahead: float, kind: str) -> dict[str, int]:
    """What is found of one simulated benchmark, as counts."""
    truth = np.full((STRATEGIES, 1), ACCURACY)
    truth[:2] -= ahead / 100
    level = draw_levels(rng, seeds, shift, kind, truth)
    sizes = draw_sizes(rng, VALIDATION_GROUPS)
    validation = draw_right(rng, sizes, level).sum(axis=(1, 2))
    reference, fusion = NAMES[validation[:2].argmax()], NAMES[2 + validation[2:].argmax()]
    sizes = draw_sizes(rng, GROUPS)
    sums = draw_right(rng, sizes, level)
    drawn = rng.integers(GROUPS, size=(RESAMPLES, GROUPS)) + GROUPS * np.arange(RESAMPLES)[:, None]
    times = np.bincount(drawn.ravel(), minlength=RESAMPLES * GROUPS).reshape(RESAMPLES, GROUPS).astype(float)
    values, replicates = sums.sum(axis=-1) / sizes.sum(), sums @ times.T / (times @ sizes)
    references = list(dict.fromkeys([reference, "late", "concat", fusion]))
    found, _ = contrast_family(values, replicates, NAMES, references, GROUPS, ALPHA, (fusion, reference))
    true = {name: float(value) for name, value in zip(NAMES, truth[:, 0], strict=True)}
    gaps = [true[one.strategy] - true[one.reference] for one in found]
    first = next(one for one in found if one.declared)
    before, _ = contrast_family(values, replicates, NAMES, [reference, "late", "concat"], GROUPS, ALPHA, None)
    by_holm = {one.strategy: one.p_holm for one in before if one.reference == reference}
    covers = [one.difference.low <= gap <= one.difference.high for one, gap in zip(found, gaps, strict=True)]
    others = [cover for cover, one in zip(covers, found, strict=True) if not one.declared]
    helps = first.difference.mean > 0
    return {
        "after": int(first.p_holm <= ALPHA and helps),
        "before": int(by_holm[fusion] <= ALPHA and helps),
        "open": int(first.p_holm <= ALPHA),
        "false": int(any(o.tested and o.p_holm <= ALPHA and gap == 0 for o, gap in zip(found, gaps, strict=True))),
        "covers": int(covers[found.index(first)]),
        "others cover": int(all(others)),
    }


def run(args: argparse.Namespace) -> None:
    done = {(line["kind"], *line["cell"], line["block"]) for line in read(args.results)}
    for kind, cell in product(args.kinds, CELLS):
        seeds, share, ahead = cell
        blocks = [b for b in range(-(-args.benchmarks // BLOCK)) if (kind, *cell, b) not in done]
        if not blocks:
            continue
        shift = solve_shift(seeds, share)
        for block in blocks:
            rng = np.random.default_rng([KINDS.index(kind), seeds, round(share * 100), ahead, block])
            counts = [one_benchmark(rng, seeds, shift, ahead, kind) for _ in range(BLOCK)]
            line = {"kind": kind, "cell": cell, "block": block, **{k: sum(c[k] for c in counts) for k in counts[0]}}
            with args.results.open("a") as handle:
                handle.write(json.dumps(line) + "\n")
        print(f"{kind}, {seeds} seeds, share {share}, {ahead} points ahead: {len(blocks)} blocks", flush=True)


def table(args: argparse.Namespace) -> None:
    lines = read(args.results)
    print("| strategies | seeds | share | ahead | n | fusion helps: before, after | anything false | covers | others |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, cell in product(KINDS, CELLS):
        of = [line for line in lines if line["kind"] == kind and tuple(line["cell"]) == cell]
        if not of:
            continue
        n = len(of) * BLOCK
        before, after, false, covers, others = (
            f"{100 * sum(line[k] for line in of) / n:.1f}"
            for k in ("before", "after", "false", "covers", "others cover")
        )
        print(f"| {kind} | {' | '.join(map(str, cell))} | {n} | {before}, {after} | {false} | {covers} | {others} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.set_defaults(command=run)
    running.add_argument("--benchmarks", type=int, default=2000, help="simulated, in each cell")
    running.add_argument("--kinds", nargs="*", choices=KINDS, default=["alike"])
    printing = commands.add_parser("table")
    printing.set_defaults(command=table)
    for command in (running, printing):
        command.add_argument("--results", type=Path, required=True)
    args = parser.parse_args()
    args.command(args)


if __name__ == "__main__":
    main()
