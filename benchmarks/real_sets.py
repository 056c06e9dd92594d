"""Text-only, image-only and fusions on three real sets: grouped stratified 5-fold, predictions pooled, several seeds.

    python benchmarks/real_sets.py run --data DATA --pretrained DIR --results FILE.jsonl [--only emoji_google/category]
    python benchmarks/real_sets.py table --results FILE.jsonl

A cell (set, task, strategy, seed, fold) is one `mmfuse.train`; finished cells are skipped, so a killed run goes on.
Encoders are frozen and pretrained. FILE.jsonl keeps every test row's target and prediction, by id: no text and no
image. `table` prints the macro-F1 of pooled predictions (mean over seeds), its bootstrap standard error over groups,
and the paired difference of the best fusion to both unimodal rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml

STRATEGIES = {
    "text_only": {"name": "text_only"},
    "image_only": {"name": "image_only"},
    "late": {"name": "late"},
    "concat": {"name": "concat"},
    "gated": {"name": "gated"},
    "cross_attention": {"name": "cross_attention"},
}
TASKS = (
    ("emoji_google", "category"),
    ("covid_cxr", "view"),
    ("covid_cxr", "intubated"),
    ("flipkart_1050", "category"),
)
ORIENTATION = {  # logistic regression on the same frozen features, given with the task: text, image, both
    "emoji_google/category": (0.81, 0.74, 0.86),
    "covid_cxr/view": (0.36, 0.71, 0.73),
    "covid_cxr/intubated": (0.72, 0.74, 0.77),
    "flipkart_1050/category": (0.94, 0.85, 0.93),
}
FOLDS = 5


def run(args: argparse.Namespace) -> None:
    import mmfuse

    torch.set_num_threads(args.threads)
    done = {cell_key(cell) for cell in read_cells(args.results)}
    chosen = [t for t in TASKS if not args.only or "/".join(t) in args.only]
    cells = [
        {"set": s, "task": t, "strategy": strategy, "seed": seed, "fold": fold}
        for seed in range(args.seeds)
        for s, t in chosen
        for strategy in STRATEGIES
        for fold in range(FOLDS)
    ]
    todo = [cell for cell in cells if cell_key(cell) not in done]
    print(f"{len(cells)} cells, {len(todo)} to do", flush=True)
    for i, cell in enumerate(todo, start=1):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            config = cell_config(cell, args, Path(scratch))
            result = mmfuse.train(config)
            lines = (result.dir / "test" / "predictions.jsonl").read_text().splitlines()
            rows = [json.loads(line) for line in lines]
            shutil.rmtree(result.dir)
        kept = [
            (r["id"], r["group"], r["tasks"][cell["task"]]["target"], r["tasks"][cell["task"]]["label"])
            for r in rows
            if r["tasks"][cell["task"]]["target"] is not None
        ]
        cell = {**cell, "seconds": round(time.perf_counter() - start, 1), "steps": result.steps, "rows": kept}
        with args.results.open("a") as handle:
            handle.write(json.dumps(cell) + "\n")
        print(f"{i}/{len(todo)} {cell_key(cell)} {cell['seconds']} s, {cell['steps']} steps", flush=True)


def cell_config(cell: dict, args: argparse.Namespace, scratch: Path):
    from mmfuse.config import load_config

    here = Path(__file__).parent.parent
    manifest = yaml.safe_load((here / "data_manifests" / f"{cell['set']}.yaml").read_text())
    manifest["splits"] = {"folds": FOLDS, "stratify": cell["task"]}
    (scratch / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    config = load_config(
        here / "configs" / f"{cell['set']}.yaml",
        [
            f"name={cell['set']}",
            f"output_dir={scratch / 'run'}",
            f"data.manifest={scratch / 'manifest.yaml'}",
            f"data.root={args.data}",
            f"data.tasks=[{cell['task']}]",
            f"data.fold={cell['fold']}",
            f"text_encoder.name={args.pretrained}/minilm",
            f"image_encoder.name=local-dir:{args.pretrained}/efficientnet_lite0",
            f"seed={cell['seed']}",
            "training.trackers=[]",
            *([f"cache.dir={args.cache}"] if args.cache else []),
        ],
    )
    config.fusion = {**STRATEGIES[cell["strategy"]], "out_dim": 128}
    if config.tasks:  # the shipped config is for one of the set's tasks
        config.tasks = {cell["task"]: next(iter(config.tasks.values()))}
    return config


def cell_key(cell: dict) -> str:
    return f"{cell['set']}/{cell['task']} {cell['strategy']} seed {cell['seed']} fold {cell['fold']}"


def read_cells(path: Path) -> list[dict]:
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def table(args: argparse.Namespace) -> None:
    from mmfuse.metrics.bootstrap import GroupBootstrap, interval
    from mmfuse.metrics.labels import classification_replicates

    cells = read_cells(args.results)
    for name in dict.fromkeys(f"{c['set']}/{c['task']}" for c in cells):
        here = [c for c in cells if f"{c['set']}/{c['task']}" == name]
        labels = sorted({row[2] for c in here for row in c["rows"]})
        code = {label: i for i, label in enumerate(labels)}
        values, replicates, sds, seeds = {}, {}, {}, {}
        for strategy in STRATEGIES:
            points, draws = [], []
            for seed in sorted({c["seed"] for c in here}):
                folds = [c for c in here if c["strategy"] == strategy and c["seed"] == seed]
                if len(folds) != FOLDS:
                    continue
                rows = sorted(tuple(row) for c in folds for row in c["rows"])
                target = np.array([code[row[2]] for row in rows])
                said = np.eye(len(labels))[[code[row[3]] for row in rows]]
                bootstrap = GroupBootstrap([row[1] for row in rows], resamples=2000, seed=0)
                draws.append(classification_replicates(said, target, labels, bootstrap)["f1_macro"])
                points.append(macro_f1(said.argmax(1), target, len(labels)))
            if points:
                values[strategy], replicates[strategy] = float(np.mean(points)), np.mean(draws, axis=0)
                sds[strategy], seeds[strategy] = float(np.std(points)), len(points)
        print(f"\n### {name}\n\n| strategy | macro-F1 | bootstrap SE | sd over seeds | seeds |\n|---|---|---|---|---|")
        for strategy, value in values.items():
            error = replicates[strategy].std()
            print(f"| {strategy} | {value:.3f} | {error:.3f} | {sds[strategy]:.3f} | {seeds[strategy]} |")
        fusions = [s for s in values if s not in ("text_only", "image_only")]
        if not fusions or "text_only" not in values or "image_only" not in values:
            continue
        best = max(fusions, key=values.__getitem__)
        for base in ("text_only", "image_only"):
            low, high = interval(replicates[best] - replicates[base])
            print(f"\n{best} - {base}: {values[best] - values[base]:+.3f} [{low:+.3f}, {high:+.3f}]")
        for row, strategy, figure in zip(
            ("text", "image", "both"), ("text_only", "image_only", best), ORIENTATION[name], strict=True
        ):
            floor = figure - 2 * replicates[strategy].std()
            reached = "reached" if values[strategy] >= floor else "MISSED"
            print(f"\n{row}: {strategy} {values[strategy]:.3f}, figure {figure:.2f} less 2 SE = {floor:.3f}: {reached}")


def macro_f1(predicted: np.ndarray, target: np.ndarray, num_labels: int) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(target, predicted, labels=range(num_labels), average="macro", zero_division=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.set_defaults(command=run)
    running.add_argument("--data", required=True)
    running.add_argument("--pretrained", required=True)
    running.add_argument("--cache", default=None)
    running.add_argument("--seeds", type=int, default=3)
    running.add_argument("--threads", type=int, default=2)
    running.add_argument("--only", nargs="*", default=[])
    printing = commands.add_parser("table")
    printing.set_defaults(command=table)
    for command in (running, printing):
        command.add_argument("--results", type=Path, required=True)
    args = parser.parse_args()
    args.command(args)


if __name__ == "__main__":
    main()
