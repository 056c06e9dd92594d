"""What cached features save: an epoch with and without them, and a second benchmark's time in encoders, in one run.

    python benchmarks/cache.py --data DATA --pretrained DIR --work DIR

DATA has emoji_google/, --pretrained minilm/ and efficientnet_lite0/. Both encoders are frozen, so that without the
cache an epoch is all forward passes of theirs. Sides alternate; an epoch is the sum of its steps, waiting for data
included, evaluations left out, and the first of every training warms up. Then a benchmark (`preset: quick`, one fold)
runs twice on one cache, in two folders. Raw numbers stay in WORK/cache.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).resolve().parent.parent
POOLED, TOKENS = ("concat", "low_rank_tensor"), ("cross_attention", "bottleneck")
ASKED = dict.fromkeys(POOLED, 50) | dict.fromkeys(TOKENS, 5)
EPOCHS = {True: 6, False: 2}
"""With the cache, and without."""


def epoch_seconds(run: Path) -> list[float]:
    """Seconds of each epoch but the first."""
    found: dict[int, float] = {}
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        if "loss" in line:
            found[line["epoch"]] = found.get(line["epoch"], 0.0) + line["seconds"]
    return [seconds for epoch, seconds in sorted(found.items()) if epoch]


def measure_epochs(args: argparse.Namespace, config: dict) -> dict[str, float]:
    """By strategy, how many times longer an epoch is without the cache."""
    import mmfuse

    taken: dict[tuple[str, bool], list[float]] = {}
    for repeat in range(args.repeats):
        for strategy in ASKED:
            for cached in (True, False) if repeat % 2 else (False, True):
                run = args.work / f"{strategy}_{'cached' if cached else 'live'}_{repeat}"
                shutil.rmtree(run, ignore_errors=True)
                training = {**config["training"], "epochs": EPOCHS[cached], "patience": None, "trackers": []}
                values = {**config, "output_dir": str(run), "fusion": {"name": strategy, "out_dim": 64}}
                values |= {"training": training, "cache": {**config["cache"], "enabled": cached}}
                mmfuse.train(values)
                taken.setdefault((strategy, cached), []).extend(epoch_seconds(run))
    ratios = {}
    for strategy, asked in ASKED.items():
        live, cached = (statistics.median(taken[strategy, side]) for side in (False, True))
        ratios[strategy] = live / cached
        print(
            f"{strategy}: {live:.2f} s an epoch without the cache, {cached:.3f} s with it: 1/{live / cached:.0f} "
            f"(asked for: 1/{asked})",
            flush=True,
        )
    return ratios


def measure_benchmarks(args: argparse.Namespace, config: dict) -> list[float]:
    """The share of its time that each of two benchmarks on one cache spends in getting features."""
    import mmfuse

    shares = []
    cache = {**config["cache"], "dir": str(args.work / "cache_of_benchmarks")}
    shutil.rmtree(cache["dir"], ignore_errors=True)
    for which in ("first", "second"):
        folder = args.work / f"benchmark_{which}"
        shutil.rmtree(folder, ignore_errors=True)
        values = {**config, "output_dir": str(folder), "cache": cache, "preset": "quick", "width": 64}
        start = time.perf_counter()
        found = mmfuse.benchmark(values)
        seconds = time.perf_counter() - start
        spent = found.summary["provenance"]["encoder_seconds"]
        shares.append(spent / seconds)
        print(f"{which} benchmark: {spent:.1f} of {seconds:.1f} s for features: {spent / seconds:.1%}", flush=True)
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("MMFUSE_TEST_DATA")
    parser.add_argument("--data", type=Path, default=Path(shared) / "data" if shared else None)
    parser.add_argument("--pretrained", type=Path, default=os.environ.get("MMFUSE_TEST_PRETRAINED"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if not args.data or not args.pretrained:
        sys.exit("--data and --pretrained are needed (or MMFUSE_TEST_DATA and MMFUSE_TEST_PRETRAINED): see --help")
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((ROOT / "configs" / "emoji_google.yaml").read_text())
    config["data"] |= {"manifest": str(ROOT / config["data"]["manifest"]), "root": str(args.data), "fold": 0}
    config["text_encoder"]["name"] = f"{args.pretrained}/minilm"
    config["image_encoder"]["name"] = f"local-dir:{args.pretrained}/efficientnet_lite0"
    config["cache"] = {"dir": str(args.work / "cache")}
    config["training"]["modality_dropout"] = {"text": 0.1, "image": 0.1}
    del config["fusion"]
    ratios, shares = measure_epochs(args, config), measure_benchmarks(args, config)
    (args.work / "cache.json").write_text(json.dumps({"ratios": ratios, "shares": shares}) + "\n")
    reached = all(ratios[strategy] >= asked for strategy, asked in ASKED.items()) and shares[1] < 0.05
    print("reached" if reached else "MISSED")
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()
