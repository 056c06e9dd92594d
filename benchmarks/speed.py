"""Training and prediction against the scripts a user writes by hand, both sides in one run, threads pinned alike.

    python benchmarks/speed.py --data DATA --pretrained DIR --baselines DIR [--only train predict]

DATA has emoji_google/ and flipkart_1050/, --pretrained minilm/, --baselines naive_train.py and naive_predict.py. Every
measurement is a process of its own; sides alternate, and medians are printed. Raw numbers are kept in WORK/speed.jsonl,
and what is there is not measured again.

Train: the same model (MiniLM + ResNet-18 at 224, the baseline's own fusion: tutorial_concat.py), batch 16, nothing
frozen, float32, the same rows. The rate is samples over seconds in the training loop, waiting for data included.
Accuracy: the held-out rows, over seeds.
Predict: the baseline's folder of pairs; pairs over seconds, model loading left out on both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SETS = ("flipkart_1050", "emoji_google")
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("MMFUSE_TEST_DATA")
    parser.add_argument("--data", type=Path, default=Path(shared) / "data" if shared else None)
    parser.add_argument("--baselines", type=Path, default=Path(shared) / "baselines" if shared else None)
    parser.add_argument("--pretrained", type=Path, default=os.environ.get("MMFUSE_TEST_PRETRAINED"))
    parser.add_argument("--work", type=Path, default=Path("bench"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, default=400, help="rows for the training rate")
    parser.add_argument("--accuracy-limit", type=int, default=0, help="rows for accuracy; 0: all")
    parser.add_argument("--accuracy-epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=["train", "predict", "accuracy"])
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(SIDES[args.side](json.loads(args.job))))
        return
    absent = [name for name in ("data", "pretrained", "baselines") if not getattr(args, name)]
    if absent:
        sys.exit(f"--{absent[0]} is needed (or MMFUSE_TEST_DATA and MMFUSE_TEST_PRETRAINED): see --help")
    args.work.mkdir(parents=True, exist_ok=True)
    if "train" in args.only:
        measure_training(args)
    if "predict" in args.only:
        measure_prediction(args)
    if "accuracy" in args.only:
        measure_accuracy(args)


def measure(args: argparse.Namespace, key: str, side: str, job: dict) -> dict:
    """One measurement in a process of its own, unless it has been made."""
    raw = args.work / "speed.jsonl"
    for line in raw.read_text().splitlines() if raw.exists() else []:
        known = json.loads(line)
        if known["key"] == key:
            return known
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(args.baselines)}
    environment |= {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    job = {**job, "data": str(args.data), "pretrained": str(args.pretrained), "baselines": str(args.baselines)}
    command = [sys.executable, __file__, "--side", side, "--job", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    result = {"key": key, "side": side, **json.loads(done.stdout.splitlines()[-1])}
    with raw.open("a") as handle:
        handle.write(json.dumps(result) + "\n")
    print(result, flush=True)
    return result


def rounds(args: argparse.Namespace, name: str, job: dict, sides: tuple[str, str]) -> tuple[list[dict], list[dict]]:
    found: tuple[list[dict], list[dict]] = ([], [])
    for repeat in range(args.repeats):
        for column, side in zip(found, sides, strict=True):
            column.append(measure(args, f"{name} {side} {repeat}", side, job))
    return found


def measure_training(args: argparse.Namespace) -> None:
    for data_set in args.sets:
        job = {"set": data_set, "limit": args.limit, "epochs": 1, "seed": 0, "work": str(args.work)}
        naive, ours = rounds(args, f"train {data_set}", job, ("naive_train", "mmfuse_train"))
        a, b = (statistics.median(r["samples_per_s"] for r in side) for side in (naive, ours))
        waited = statistics.median(r["waited"] for r in ours)
        share = statistics.median(r["matmul_share"] for r in ours)
        rates = f"naive {a:.2f}, mmfuse {b:.2f} samples/s: {b / a:.2f}x"
        print(f"train {data_set}: {rates}; waiting for data {waited:.1%}; {share:.0%} of the matmul rate", flush=True)


def measure_prediction(args: argparse.Namespace) -> None:
    job = {"set": "flipkart_1050", "limit": 300, "work": str(args.work)}
    naive, ours = rounds(args, "predict", job, ("naive_predict", "mmfuse_predict"))
    a, b = (statistics.median(r["pairs_per_s"] for r in side) for side in (naive, ours))
    worst = max(r["batch_1_difference"] for r in ours)
    print(f"predict: naive {a:.2f}, mmfuse {b:.2f} pairs/s: {b / a:.2f}x; batch 1 against 32: {worst:.1e}", flush=True)


def measure_accuracy(args: argparse.Namespace) -> None:
    for data_set in args.sets:
        scores: dict[str, list[float]] = {"naive_train": [], "mmfuse_train": []}
        for seed in range(args.repeats):
            for side, found in scores.items():
                job = {"set": data_set, "limit": args.accuracy_limit, "epochs": args.accuracy_epochs, "seed": seed}
                job["work"] = str(args.work)
                found.append(measure(args, f"accuracy {data_set} {side} {seed}", side, job)["accuracy"])
        a, b = (statistics.mean(found) for found in scores.values())
        print(f"accuracy {data_set}: naive {a:.3f}, mmfuse {b:.3f}, difference {b - a:+.3f}", flush=True)


def naive_train(job: dict) -> dict:
    """The baseline as it is, but for its seed."""
    import contextlib
    import io

    import naive_train as baseline
    import torch

    seed = torch.manual_seed
    torch.manual_seed = lambda _: seed(job["seed"])
    root = f"{job['data']}/{job['set']}"
    sys.argv = ["naive_train.py", "--csv", f"{root}/data.csv", "--image-root", root, "--label", "category",
                "--text-model", f"{job['pretrained']}/minilm", "--epochs", str(job["epochs"]),
                "--limit", str(job["limit"]),
                "--batch-size", str(BATCH), "--train-encoders"]  # fmt: skip
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        baseline.main()
    return json.loads(printed.getvalue().splitlines()[-1])


def mmfuse_train(job: dict) -> dict:
    """The same model on the same rows: the baseline's shuffle and cut, as a split column."""
    import pandas as pd
    import yaml

    import mmfuse

    work = Path(job["work"]) / f"{job['set']}_{os.getpid()}"
    work.mkdir(parents=True)
    rows = pd.read_csv(f"{job['data']}/{job['set']}/data.csv").sample(frac=1, random_state=0).reset_index(drop=True)
    rows = rows.head(job["limit"]) if job["limit"] else rows
    rows["split"] = ["train" if i < int(len(rows) * 0.8) else "test" for i in range(len(rows))]
    rows.to_csv(work / "rows.csv", index=False)
    manifest = {
        "name": job["set"],
        "rows": "rows.csv",
        "id": "id",
        "image": {"column": "image", "root": f"{job['data']}/{job['set']}"},
        "text": {"columns": ["text"]},
        "tasks": {"category": {"type": "classification", "column": "category"}},
        "splits": {"column": "split"},
    }
    (work / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    config = {
        "name": job["set"],
        "output_dir": str(work / "run"),
        "seed": job["seed"],
        "data": {"manifest": str(work / "manifest.yaml")},
        "text_encoder": {"name": f"{job['pretrained']}/minilm", "max_length": 128, "pooling": "cls"},
        "image_encoder": {"name": "resnet18", "pretrained": False, "size": [224, 224]},
        "plugins": [str(Path(__file__).with_name("tutorial_concat.py"))],
        "fusion": {"name": "tutorial_concat", "out_dim": 256},
        "training": {"epochs": job["epochs"], "batch_size": BATCH, "learning_rate": 1e-4, "warmup": 0.0,
                     "schedule": "constant", "clip_norm": None, "patience": None, "trackers": []},
    }  # fmt: skip
    run = mmfuse.train(config)
    lines = [json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()]
    seconds, waited = (sum(line[key] for line in lines) for key in ("seconds", "waited"))
    rate = sum(line["samples"] for line in lines) / seconds
    flops = training_flops(run.model_dir, list(rows["text"]))
    return {
        "samples_per_s": rate,
        "seconds": seconds,
        "waited": waited / seconds,
        "accuracy": run.report["tasks"]["category"]["metrics"]["accuracy"]["value"],
        "matmul_share": rate * flops / matmul_rate(),
    }


def training_flops(model_dir: Path, texts: list[str]) -> float:
    """Floating-point operations of one sample's forward and backward pass, its text of mean length and not padded."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from mmfuse.model import FusionModel

    model = FusionModel.from_pretrained(model_dir).train()
    ids, _ = model.text_encoder.tokenize(texts)
    tokens = round(statistics.mean(map(len, ids)))
    batch = {
        "row_ids": torch.arange(BATCH),
        "text_row": torch.arange(BATCH),
        "input_ids": torch.ones(BATCH, tokens, dtype=torch.long),
        "text_mask": torch.ones(BATCH, tokens, dtype=torch.bool),
        "image_row": torch.arange(BATCH),
        "image_view": torch.zeros(BATCH, dtype=torch.long),
        "pixels": torch.zeros(BATCH, 3, 224, 224, dtype=torch.uint8),
    }
    with FlopCounterMode(display=False) as counter:
        model(batch)["category"].sum().backward()
    return counter.get_total_flops() / BATCH


def matmul_rate() -> float:
    """Floating-point operations per second of this machine's own matrix multiply, 2048 x 2048, float32."""
    import torch

    a = torch.randn(2048, 2048)
    a @ a
    times = []
    for _ in range(7):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / statistics.median(times)


def make_pairs(job: dict) -> Path:
    """The first rows of a set as a folder of ID.jpg and ID.txt."""
    import shutil

    import pandas as pd

    folder = Path(job["work"]) / f"pairs_{job['set']}_{job['limit']}"
    if not folder.exists():
        scratch = folder.with_suffix(".tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for _, row in pd.read_csv(f"{job['data']}/{job['set']}/data.csv").head(job["limit"]).iterrows():
            shutil.copyfile(f"{job['data']}/{job['set']}/{row['image']}", scratch / f"{row['id']}.jpg")
            (scratch / f"{row['id']}.txt").write_text(row["text"])
        scratch.rename(folder)
    return folder


def naive_predict(job: dict) -> dict:
    import contextlib
    import io

    import naive_predict as baseline

    sys.argv = ["naive_predict.py", "--folder", str(make_pairs(job)), "--text-model", f"{job['pretrained']}/minilm"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        baseline.main()
    return json.loads(printed.getvalue().splitlines()[-1])


def mmfuse_predict(job: dict) -> dict:
    import torch

    from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
    from mmfuse.encoders.image import build_image_encoder
    from mmfuse.encoders.text import build_text_encoder
    from mmfuse.model import FusionModel
    from mmfuse.predict import Predictor, open_studies, predict_to_file

    folder, saved = make_pairs(job), Path(job["work"]) / "predict_model"
    if not saved.exists():
        torch.manual_seed(0)
        text = build_text_encoder(TextEncoderConfig(name=f"{job['pretrained']}/minilm", pooling="cls"), [])
        image = build_image_encoder(ImageEncoderConfig(name="resnet18", pretrained=False, size=[224, 224]))
        tasks = {"category": {"type": "classification", "labels": [f"c{i}" for i in range(10)]}}
        FusionModel(text, image, {"name": "concat"}, tasks).eval().save_pretrained(saved)
    predictor = Predictor.from_pretrained(saved)
    out = Path(job["work"]) / f"predictions_{os.getpid()}.jsonl"
    start = time.perf_counter()
    studies = open_studies(str(folder))
    counts = predict_to_file(predictor, studies, out, overwrite=True)
    seconds = time.perf_counter() - start
    few = list(studies.read(0, 32))
    batched, single = (
        [list(p.tasks["category"]["probabilities"].values()) for p in Predictor(m, batch_size=size)(few)]
        for m, size in ((predictor.model, 32), (FusionModel.from_pretrained(saved), 1))
    )
    worst = max(abs(a - b) for x, y in zip(batched, single, strict=True) for a, b in zip(x, y, strict=True))
    return {"pairs": counts.predictions, "seconds": seconds, "pairs_per_s": counts.predictions / seconds,
            "batch_1_difference": worst}  # fmt: skip


SIDES = {
    "naive_train": naive_train,
    "mmfuse_train": mmfuse_train,
    "naive_predict": naive_predict,
    "mmfuse_predict": mmfuse_predict,
}

if __name__ == "__main__":
    main()
