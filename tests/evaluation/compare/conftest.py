"""Two tiny untrained models of three tasks, 60 SYNTHETIC studies, and what `evaluate` writes of each model."""

import csv
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml

from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
from mmfuse.data.synthetic.phantom import write_phantom
from mmfuse.data.synthetic.phantom_study import LABELS
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import build_text_encoder
from mmfuse.evaluation import evaluate
from mmfuse.model import FusionModel

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TASKS = {
    "findings": {"type": "multilabel", "labels": list(LABELS)},
    "sex": {"type": "classification", "labels": ["F", "M"]},
    "age": {"type": "regression", "labels": []},
}


class Pair(NamedTuple):
    """Folders of two models, the manifest of their rows, and their predictions by `evaluate`."""

    a: Path
    b: Path
    manifest: Path
    of_a: Path
    of_b: Path


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Sixty small images are read sooner than a process is started, and no figure is looked at."""
    monkeypatch.setattr(sys.modules["mmfuse.evaluation.evaluate"], "default_workers", lambda: 0)
    monkeypatch.setattr("mmfuse.evaluation.plots._save", lambda *_: None)


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> Pair:
    folder = tmp_path_factory.mktemp("compare")
    write_phantom(folder, 60, seed=0)
    rows = list(csv.DictReader((folder / "data.csv").read_text().splitlines()))
    for i, row in enumerate(rows):
        row["age"] = "" if i % 7 == 0 else str(len(row["findings"].split(";")) + i % 3)
        row["split"], row["sex"] = "test", "" if i % 11 == 0 else row["sex"]
    with (folder / "data.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    manifest["tasks"] |= {"sex": {"type": "classification", "column": "sex"}}
    manifest["tasks"] |= {"age": {"type": "regression", "column": "age"}}
    manifest["subgroups"] = ["age_band"]
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    models = [_write_model(folder / name, seed, [row["text"] for row in rows]) for seed, name in enumerate("ab")]
    for model in models:
        evaluate(model, folder / "manifest.yaml", out=f"{model}_test", resamples=0, analyses=[], num_workers=0)
    files = [Path(f"{model}_test") / "predictions.jsonl" for model in models]
    return Pair(models[0], models[1], folder / "manifest.yaml", files[0], files[1])


def _write_model(path: Path, seed: int, texts: list[str]) -> Path:
    torch.manual_seed(seed)
    text = build_text_encoder(TextEncoderConfig(name="bert", pretrained=False, options=SIZES, max_length=48), texts)
    options = {"depth": 1, "embed_dim": 16, "num_heads": 2}
    image = build_image_encoder(
        ImageEncoderConfig(name="vit_tiny_patch16_224", pretrained=False, size=[32, 32], options=options)
    )
    model = FusionModel(text, image, {"name": "concat", "out_dim": 16}, TASKS).eval()
    for head in model.heads.values():
        for weights in head.parameters():
            torch.nn.init.normal_(weights)  # answers that differ from row to row
    model.save_pretrained(path)
    return path
