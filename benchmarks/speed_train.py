"""Sides of `speed.py` that train: the baseline, and mmfuse with the same model on the same rows."""

from __future__ import annotations

import itertools
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

BATCH = 16
WARM = 3
"""Steps before which nothing is counted: libraries choose kernels, and memory grows."""


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
                "--text-model", f"{job['pretrained']}/minilm", "--image-model", job["tower"],
                "--epochs", str(job["epochs"]), "--limit", str(job["limit"]),
                "--batch-size", str(BATCH), "--train-encoders"]  # fmt: skip
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        baseline.main()
    return json.loads(printed.getvalue().splitlines()[-1])


def mmfuse_train(job: dict) -> dict:
    """The same model on the same rows; what a step costs beside its time; the model folder is left for prediction."""
    import mmfuse
    from mmfuse.training.loop import Trainer

    work = Path(job["work"]) / f"{job['set']}_{os.getpid()}"
    texts = write_rows(job, work)
    product, meter = matmul_rate(), Meter(Trainer)
    run = mmfuse.train(config(job, work))
    lines = [json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "samples" in line]
    seconds, waited = (sum(line[key] for line in steps) for key in ("seconds", "waited"))
    rate = sum(line["samples"] for line in steps) / seconds
    found = {
        "samples_per_s": rate,
        "seconds": seconds,
        "waited": waited / seconds,
        "accuracy": run.report["tasks"]["category"]["metrics"]["accuracy"]["value"],
        "last_loss": steps[-1]["loss"],
        "model": str(run.model_dir),
        "manifest": str(work / "manifest.yaml"),
        **meter.told(),
    }
    if job["precision"] == "fp32":
        found["matmul_share"] = rate * training_flops(run.model_dir, texts) / max(product, matmul_rate())
    return found


def flat(job: dict) -> dict:
    """Resident memory over hundreds of steps on small images, with readers, whose texts differ in length."""
    import torch

    import mmfuse
    from mmfuse.training.loop import Trainer

    work = Path(job["work"]) / f"flat_{os.getpid()}"
    write_rows({**job, "set": "flipkart_1050"}, work)
    values = config({**job, "set": "flipkart_1050", "tower": "resnet10t", "precision": "fp32"}, work)
    values["image_encoder"]["size"] = [64, 64]
    values["training"] |= {"epochs": 1000, "max_steps": job["steps"]}
    torch.manual_seed(0)
    meter = Meter(Trainer)
    mmfuse.train(values)
    resident = [round(mib) for _, _, mib in meter.steps]
    return {"resident_mib": resident[9::10], **meter.told()}


def write_rows(job: dict, work: Path) -> list[str]:
    """The baseline's shuffle and cut, as a table with a split column and its manifest; the texts."""
    import pandas as pd
    import yaml

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
    return list(rows["text"])


def config(job: dict, work: Path) -> dict:
    """The baseline's model and loop, as a config."""
    precision = {} if job["precision"] == "fp32" else {"mixed_precision": job["precision"]}
    return {
        "name": job["set"],
        "output_dir": str(work / "run"),
        "seed": job["seed"],
        "data": {"manifest": str(work / "manifest.yaml")},
        "text_encoder": {"name": f"{job['pretrained']}/minilm", "max_length": 128, "pooling": "cls"},
        "image_encoder": {"name": job["tower"], "pretrained": False, "size": [224, 224]},
        "plugins": [str(Path(__file__).with_name("tutorial_concat.py"))],
        "fusion": {"name": "tutorial_concat", "out_dim": 256},
        "training": {"epochs": job["epochs"], "batch_size": BATCH, "learning_rate": 1e-4, "warmup": 0.0,
                     "schedule": "constant", "clip_norm": None, "patience": None, "trackers": [], **precision},
    }  # fmt: skip


class Meter:
    """Page faults, processor time and resident memory of this process after every step of a `Trainer`."""

    def __init__(self, trainer: Any):
        self.steps: list[tuple[int, tuple[float, float], float]] = []
        step = trainer.step

        def metered(*args: Any) -> Any:
            found = step(*args)
            used = resource.getrusage(resource.RUSAGE_SELF)
            self.steps.append((used.ru_minflt, (used.ru_utime, used.ru_stime), resident()))
            return found

        trainer.step = metered

    def told(self) -> dict:
        """A step's faults (median) and processor time, the system's share of that, and peak memory."""
        faults, times, _ = zip(*self.steps[max(0, min(WARM, len(self.steps) - 1) - 1) :], strict=True)
        user, system = (last - first for first, last in zip(times[0], times[-1], strict=True))
        return {
            "faults_a_step": statistics.median(b - a for a, b in itertools.pairwise(faults)),
            "cpu_s_a_step": (user + system) / (len(times) - 1),
            "sys_share": system / (user + system),
            "peak_mib": peak_mib(),
        }


def resident() -> float:
    """MiB of this process now."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mib() -> float:
    """MiB of this process at its peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


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
        loss = model(batch)["category"].sum()
        forward = counter.get_total_flops()
        loss.backward()
    # torch counts a grouped convolution's backward pass as if it had no groups, so there it is twice the forward pass.
    grouped = any(getattr(module, "groups", 1) > 1 for module in model.modules())
    return (3 * forward if grouped else counter.get_total_flops()) / BATCH


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
