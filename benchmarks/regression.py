"""Regression where the best is known, and on prices: RMSE, R2, and how often the intervals cover.

    python benchmarks/regression.py phantom --work DIR [--strategies cross_attention text_only] [key=value ...]
    python benchmarks/regression.py prices --work DIR --data DATA --pretrained DIR [--seeds 1]
    python benchmarks/regression.py table --work DIR

`phantom` trains configs/phantom_dose.yaml with each strategy on 20,000 SYNTHETIC studies (3,000 of them validation
rows, which set the intervals), and scores 4,000 fresh ones beside the best prediction, which the generator knows.
`prices` predicts the price of flipkart_1050's products (transform: log) over five folds, from frozen pretrained
encoders: with the texts as they are, of which many state the price, and with all amounts taken out. A finished cell is
not done again. DIR/*.json and DIR/prices.jsonl keep what each cell said of every row, by id.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CONFIG = Path(__file__).parent.parent / "configs" / "phantom_dose.yaml"
STRATEGIES = ("cross_attention", "text_only", "image_only")
SEES = {"text_only": "text", "image_only": "image"}
CELLS = {
    "as it is": ("text_only", "concat"),
    "without amounts": ("text_only", "image_only", "concat"),
}
"""By text, the strategies; the image alone is the same for both."""
AMOUNT = re.compile(r"(?:Rs|INR|₹)\.?\s*[\d,]+(?:\.\d+)?(?:\s*/-)?", re.IGNORECASE)
FOLDS = 5


def phantom(args: argparse.Namespace) -> None:
    import mmfuse
    from mmfuse.data.synthetic.phantom_dose import write_doses

    train, fresh = args.work / "train" / "manifest.yaml", args.work / "fresh" / "manifest.yaml"
    for path, studies, seed, ratios in (
        (train, args.studies, 0, {"train": 0.85, "validation": 0.15}),
        (fresh, args.fresh, 1, {"test": 1.0}),
    ):
        if not path.with_name("split.yaml").exists():
            write_doses(path.parent, studies, seed)
            described = yaml.safe_load(path.read_text()) | {"splits": {"ratios": ratios}}
            path.with_name("split.yaml").write_text(yaml.safe_dump(described))
    for name in args.strategies:
        done = args.work / f"phantom_{name}.json"
        if done.exists():
            continue
        start = time.perf_counter()
        given = [f"data.manifest={train.with_name('split.yaml')}", f"output_dir={args.work / name}"]
        config = mmfuse.load_config(CONFIG, [*given, "training.trackers=[]", *args.overrides])
        config.fusion = {**config.fusion, "name": name}
        run = mmfuse.train(config)
        out = args.work / f"{name}_fresh"
        report = mmfuse.evaluate(run.model_dir, fresh.with_name("split.yaml"), out=out)
        rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
        found = {"seconds": time.perf_counter() - start, "steps": run.steps, "scores": report["tasks"]["level"]}
        found["rows"] = [[row["id"], *(row["tasks"]["level"][key] for key in ("value", "low", "high"))] for row in rows]
        done.write_text(json.dumps(found))


def phantom_table(work: Path) -> None:
    from mmfuse.data.synthetic.phantom_dose import bayes_rmse, treat
    from mmfuse.data.synthetic.phantom_study import make_study

    print("| strategy | sees | RMSE | best on these rows | more | best in expectation | R2 | 90 % intervals cover |")
    print("|---|---|---|---|---|---|---|---|")
    for name in STRATEGIES:
        done = work / f"phantom_{name}.json"
        if not done.exists():
            continue
        found, seen = json.loads(done.read_text()), SEES.get(name, "both")
        known = [treat(make_study(1, int(id.rsplit("-", 1)[1]))) for id, *_ in found["rows"]]
        level = np.array([one.level for one in known])
        best = float(np.sqrt(((level - [one.expected[seen] for one in known]) ** 2).mean()))
        scores = found["scores"]
        rmse, r2 = scores["metrics"]["rmse"]["value"], scores["metrics"]["r2"]["value"]
        covered = scores["intervals"]["coverage"]
        print(
            f"| {name} | {seen} | {rmse:.3f} | {best:.3f} | {rmse / best - 1:+.1%} | {bayes_rmse()[seen]:.3f} "
            f"| {r2:.3f} | {covered['value']:.1%} [{covered['low']:.1%}, {covered['high']:.1%}] |"
        )


def make_prices(args: argparse.Namespace) -> dict[str, Path]:
    """By text, a manifest in the work folder."""
    source = args.data / "flipkart_1050"
    with (source / "data.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    made = {}
    for text in CELLS:
        folder = args.work / text.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "data.csv").open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["id", "image", "text", "price"])
            for row in rows:
                told = row["text"] if text == "as it is" else AMOUNT.sub(" ", row["text"])
                writer.writerow([row["id"], row["image"], told, row["discounted_price"]])
        made[text] = folder / "manifest.yaml"
        task = {"type": "regression", "column": "price", "unit": "INR", "transform": "log", "label_origin": "metadata"}
        manifest = {
            "name": "flipkart_prices",
            "rows": "data.csv",
            "id": "id",
            "image": {"column": "image", "root": str(source.resolve())},
            "text": {"columns": ["text"]},
            "group": "content",
            "tasks": {"price": task},
            "splits": {"folds": FOLDS},
        }
        made[text].write_text(yaml.safe_dump(manifest))
    return made


def prices(args: argparse.Namespace) -> None:
    import mmfuse
    from mmfuse.data.audit import audit
    from mmfuse.data.tables.manifest import load_manifest

    manifests, results = make_prices(args), args.work / "prices.jsonl"
    for text, path in manifests.items():
        said = args.work / f"check_{text.replace(' ', '_')}.json"
        if not said.exists():
            found = [f for f in audit(load_manifest(path)).findings if f.check.startswith("numbers.")]
            said.write_text(json.dumps([[f.check, f.severity, f.message] for f in found], indent=1))
    done = {tuple(cell[key] for key in ("text", "strategy", "seed", "fold")) for cell in read(results)}
    for seed in range(args.seeds):
        for text, strategies in CELLS.items():
            for strategy in strategies:
                for fold in range(FOLDS):
                    if (text, strategy, seed, fold) in done:
                        continue
                    start = time.perf_counter()
                    config = price_config(args, manifests[text], strategy, seed, fold)
                    run = mmfuse.train(config)
                    lines = (run.dir / "test" / "predictions.jsonl").read_text().splitlines()
                    said = [(row["id"], row["group"], row["tasks"]["price"]) for row in map(json.loads, lines)]
                    keys = ("target", "value", "low", "high")
                    kept = [[id, group, *(of[key] for key in keys)] for id, group, of in said if of["target"]]
                    cell = {"text": text, "strategy": strategy, "seed": seed, "fold": fold, "steps": run.steps}
                    cell |= {"seconds": round(time.perf_counter() - start, 1), "rows": kept}
                    with results.open("a") as handle:
                        handle.write(json.dumps(cell) + "\n")
                    print(text, strategy, seed, fold, cell["seconds"], "s", run.steps, "steps", flush=True)


def price_config(args: argparse.Namespace, manifest: Path, strategy: str, seed: int, fold: int) -> Any:
    from mmfuse.config import config_from_dict

    values = {
        "name": "prices",
        "output_dir": str(args.work / "runs" / f"{manifest.parent.name}_{strategy}_{seed}_{fold}"),
        "seed": seed,
        "data": {"manifest": str(manifest), "fold": fold},
        "text_encoder": {"name": str(args.pretrained / "minilm"), "max_length": 96, "frozen": True},
        "image_encoder": {
            "name": f"local-dir:{args.pretrained / 'efficientnet_lite0'}",
            "size": [224, 224],
            "frozen": True,
        },
        "fusion": {"name": strategy, "out_dim": 128},
        "training": {"epochs": 30, "batch_size": 32, "learning_rate": 0.001, "weight_decay": 0.05, "patience": 6}
        | {"trackers": []},
        "cache": {"dir": str(args.work / "cache")},
    }
    return config_from_dict(values)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def prices_table(work: Path) -> None:
    from mmfuse.metrics.bootstrap import GroupBootstrap, interval
    from mmfuse.metrics.regression import regression_replicates, regression_values

    cells = read(work / "prices.jsonl")
    if not cells:
        return
    for path in sorted(work.glob("check_*.json")):
        print(path.stem, *(f"\n    {line}" for line in json.loads(path.read_text())), "")
    seeds = sorted({cell["seed"] for cell in cells})
    print(
        "\n| text | strategy | R2 of the logarithm | MAE, INR | Spearman | 90 % intervals cover | more than text_only |"
    )
    print("|---|---|---|---|---|---|---|")
    for text, strategies in CELLS.items():
        drawn: dict[str, Any] = {}
        for strategy in strategies:
            values, replicates, covered = [], [], []
            for seed in seeds:
                chosen = [c for c in cells if (c["text"], c["strategy"], c["seed"]) == (text, strategy, seed)]
                rows = sorted(row for cell in chosen for row in cell["rows"])
                if len(chosen) < FOLDS:
                    continue
                target, value, low, high = np.array([row[2:] for row in rows], dtype=float).T
                bootstrap = GroupBootstrap([row[1] for row in rows])
                values.append(regression_values(value, target, log=True))
                replicates.append(regression_replicates(value, target, bootstrap, log=True)["r2_log"])
                covered.append(((low <= target) & (target <= high)).mean())
            if not values:
                continue
            mean = {name: np.mean([one[name] for one in values]) for name in values[0]}
            drawn[strategy] = np.mean(replicates, axis=0), mean["r2_log"]
            low, high = interval(drawn[strategy][0])
            more = ""
            if strategy != "text_only" and "text_only" in drawn:
                of, alone = drawn[strategy], drawn["text_only"]
                ends = interval(of[0] - alone[0])
                more = f"{of[1] - alone[1]:+.3f} [{ends[0]:+.3f}, {ends[1]:+.3f}]"
            print(
                f"| {text} | {strategy} | {mean['r2_log']:.3f} [{low:.3f}, {high:.3f}] | {mean['mae']:,.0f} "
                f"| {mean['spearman']:.3f} | {np.mean(covered):.1%} | {more} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("phantom", "prices", "table"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES))
    parser.add_argument("--studies", type=int, default=20_000)
    parser.add_argument("--fresh", type=int, default=4000)
    parser.add_argument("--data", type=Path, help="The folder that holds flipkart_1050/.")
    parser.add_argument("--pretrained", type=Path, help="The folder that holds minilm/ and efficientnet_lite0/.")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("overrides", nargs="*", default=[])
    args = parser.parse_intermixed_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.what == "table":
        phantom_table(args.work)
        prices_table(args.work)
    else:
        {"phantom": phantom, "prices": prices}[args.what](args)


if __name__ == "__main__":
    main()
