"""Whether two CPU processes under DeepSpeed's ZeRO 2 do what two under DistributedDataParallel do, and survive a kill.

    pip install 'mmfuse[deepspeed]'
    python benchmarks/deepspeed_check.py --work DIR

DeepSpeed is too large for the tests' environment, so this stands for a test: it fails at the first difference. Data are
SYNTHETIC; half of the rows have no image, so that at times one process has images and the other has none. To compare,
the plain run gives a zero gradient to what has none (mmfuse/training/zero.py says why).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file

from mmfuse.data.rows.folder import find_study
from mmfuse.data.synthetic.phantom import write_pairs, write_phantom
from mmfuse.predict import Predictor
from mmfuse.types import Sample

ACCELERATE = Path(__file__).resolve().parent.parent / "configs" / "accelerate" / "deepspeed_zero2.yaml"
PLUGIN = """
import os, signal, torch
from mmfuse.training import loop
step = loop.Trainer.step
def killed(self, batches):
    if str(self.state.step) == os.environ.get("KILL_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batches)
loop.Trainer.step = killed
class AdamW(torch.optim.AdamW):
    def step(self, closure=None):
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is None):
            p.grad = torch.zeros_like(p)
        return super().step(closure)
torch.optim.AdamW = AdamW
"""
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
VIT = {"name": "vit_tiny_patch16_224", "options": {"depth": 1, "embed_dim": 16, "num_heads": 2}}
RESNET = {"name": "resnet10t", "options": {"channels": [8, 16, 16, 16]}, "batch_norm": "train"}
CASES: dict[str, dict[str, Any]] = {
    "transformers": {"image_encoder": VIT, "batch_size": 2, "accumulation": 1},
    "accumulated, batch norm": {"image_encoder": RESNET, "batch_size": 4, "accumulation": 2},
}


def main() -> None:
    """Run all cases and print what was found."""
    parser = argparse.ArgumentParser(description="DeepSpeed's ZeRO 2 against DDP")
    parser.add_argument("--work", type=Path, required=True, help="a folder that is not there yet")
    work = parser.parse_args().work
    work.mkdir(parents=True)
    (work / "plugin.py").write_text(PLUGIN)
    manifest = write_uneven(work)
    folder = write_pairs(work / "pairs", 3, seed=9)
    samples = [find_study(path).sample() for path in sorted(folder.glob("*.png"))]
    for number, (name, case) in enumerate(CASES.items()):
        plain, zero, killed = (work / f"{run}{number}" for run in ("plain", "zero", "killed"))
        for run in (plain, zero, killed):
            write_config(run, manifest, case)
        assert launch(plain, ["torch.distributed.run", "--nproc_per_node", "2", "--master_port"])
        assert launch(zero)
        assert not launch(killed, KILL_AT="5")
        left = [path.name for path in (killed / "checkpoints").glob("step_*")]
        assert launch(killed)
        first, second = curve(plain), curve(zero)
        apart = max(float(np.abs(np.array(first[key]) / second[key] - 1).max()) for key in first)
        same = curve(killed) == second and equal(killed, zero)
        predicted = float(np.abs(probabilities(plain, samples) - probabilities(killed, samples)).max())
        print(
            f"{name}: {len(first['loss'])} steps; loss, gradient norm and validation loss of ZeRO 2 and DDP at most "
            f"{apart:.1e} (relative) apart; predictions {predicted:.1e}; killed before step 6, resumed from {left}: "
            f"{'the same curve and weights' if same else 'NOT the same'}",
            flush=True,
        )
        assert apart < 1e-5
        assert predicted < 1e-5
        assert same


def probabilities(run: Path, samples: list[Sample]) -> np.ndarray:
    """`(samples, labels)`, of the run's model folder."""
    said: Any = Predictor.from_pretrained(run / "model")(samples)
    return np.array([list(prediction.tasks["findings"]["probabilities"].values()) for prediction in said])


def write_uneven(work: Path) -> Path:
    """The phantom's manifest, with half of the rows without an image."""
    source = write_phantom(work / "phantom", 90, seed=0)
    rows = list(csv.DictReader((source.parent / "data.csv").read_text().splitlines()))
    for i, row in enumerate(rows):
        row["image"] = "" if i % 2 else str(source.parent / row["image"])
    with (work / "rows.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (work / "manifest.yaml").write_text(
        yaml.safe_dump({**yaml.safe_load(source.read_text()), "rows": str(work / "rows.csv")})
    )
    return work / "manifest.yaml"


def write_config(run: Path, manifest: Path, case: dict[str, Any]) -> None:
    """`RUN.yaml`, of a model of seconds."""
    config = {
        "name": run.name,
        "output_dir": str(run),
        "plugins": [str(run.parent / "plugin.py")],
        "data": {"manifest": str(manifest), "num_workers": 0},
        "text_encoder": {"name": "bert", "pretrained": False, "options": SIZES | NO_DROPOUT, "max_length": 48},
        "image_encoder": {"pretrained": False, "size": [64, 64], **case["image_encoder"]},
        "fusion": {"name": "concat", "out_dim": 16, "dropout": 0.0},
        "training": {
            **{key: case[key] for key in ("batch_size", "accumulation")},
            "epochs": 2,
            "learning_rate": 0.003,
            "clip_norm": 0.5,
            "trackers": [],
            "patience": None,
            "checkpoint_every": 3,
        },
    }
    run.with_suffix(".yaml").write_text(yaml.safe_dump(config))


def launch(run: Path, launcher: list[str] | None = None, **variables: str) -> bool:
    """Train in two CPU processes, with DeepSpeed unless told otherwise; whether they ended well."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    zero = ["accelerate.commands.launch", "--config_file", str(ACCELERATE), "--num_processes", "2"]
    command = [sys.executable, "-m", *(launcher or [*zero, "--main_process_port"]), port]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    command += ["-m", "mmfuse.cli", "train", str(run.with_suffix(".yaml"))]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False)
    if done.returncode and not variables:
        print(done.stdout + done.stderr, file=sys.stderr)
    elif not launcher and not variables:
        assert "ZeRO 2" in done.stderr, done.stderr
    return done.returncode == 0


def curve(run: Path) -> dict[str, list[float]]:
    """By key of `metrics.jsonl`, its values."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keys = ("loss", "grad_norm", "validation_loss")
    return {key: [line[key] for line in lines if key in line] for key in keys}


def equal(a: Path, b: Path) -> bool:
    """Whether two runs ended with the same weights, bit for bit; a run that has ended has no moments."""
    first, second = (load_file(run / "model" / "model.safetensors") for run in (a, b))
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


if __name__ == "__main__":
    main()
