"""Folders of finished runs as `train` leaves them, without any training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml

from mmfuse.tasks import build_task

LABELS = ["effusion", "opacity", "nothing"]
ROWS = 60


def write_run(folder: Path, kind: str) -> Path:
    """A run of `kind`: "classes", "labels", "number" or "text"."""
    draw = np.random.default_rng(0)
    type_, task, said, target = _task(kind, draw)
    groups = [f"g{i // 2}" for i in range(ROWS)]
    of_model = {"type": type_, "labels": task.labels}
    scores = task.score(said, target, groups) if kind != "text" else _caption_scores()
    told = [task.decide(row) for row in said] if kind != "text" else [{"caption": "a b c", "score": -1.0}] * ROWS
    shown = [task.shown(row) for row in target] if kind != "text" else [["a b d"]] * ROWS
    lines = [
        {"id": f"r{i}", "group": groups[i], "tasks": {"finding": {"target": shown[i], **told[i]}}} for i in range(ROWS)
    ]
    (folder / "test").mkdir(parents=True)
    (folder / "model").mkdir()
    report = {"split": "test", "rows": ROWS, "missing": {"text": 2, "image": 0}, "tasks": {"finding": scores}}
    model = {
        "text_encoder": {},
        "image_encoder": {},
        "fusion": {"name": "concat", "out_dim": 8},
        "tasks": {"finding": of_model},
        "decisions": {"finding": task.state()} if kind != "text" else {},
    }
    tower = {"name": "bert", "pretrained": False, "frozen": False}
    config = {"name": f"run of {kind}", "text_encoder": tower, "image_encoder": tower, "seed": 0, "training": {}}
    manifest = {"name": "a set", "tasks": {"finding": {"type": type_, "column": "y", "label_origin": "human"}}}
    log = [{"step": s, "epoch": 0, "loss": 1 / s, "samples": 8, "seconds": 0.1, "waited": 0.0} for s in range(1, 30)]
    log += [{"step": s, "epoch": 1, "validation_loss": 2 / s, "validation": {}, "best": True} for s in (10, 20)]
    _write(folder / "test/metrics.json", report)
    _write(folder / "model/config.json", model)
    _write(folder / "environment.json", {"command": ["mmfuse", "train"], "manifest": {"sha256": "0" * 64}})
    _write(folder / "page.json", _measured(kind))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (folder / "test/predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    splits = [f"r{i},{groups[i]},{'test' if i < 40 else 'train'}" for i in range(ROWS)]
    (folder / "splits.csv").write_text("\n".join(["id,group,split", *splits]) + "\n")
    return folder


def _write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value))


def _task(kind, draw):
    if kind == "classes":
        target = draw.integers(3, size=ROWS)
        likely = draw.dirichlet(np.ones(3), ROWS) + np.eye(3)[target]
        return "classification", build_task("classification", LABELS), likely / 2, target
    if kind == "labels":
        target = draw.integers(2, size=(ROWS, 3)).astype(np.float32)
        target[0, 0] = np.nan
        likely = (draw.random((ROWS, 3)) + np.nan_to_num(target)) / 2
        return "multilabel", build_task("multilabel", LABELS), likely, target
    if kind == "number":
        task, target = build_task("regression", []), draw.normal(size=ROWS).astype(np.float32)
        task.radius = 0.5
        return "regression", task, target + 0.2 * draw.normal(size=ROWS), target
    return "captioning", build_task("captioning", []), np.zeros(ROWS), np.zeros(ROWS)


def _caption_scores():
    score = {"value": 0.3, "low": 0.2, "high": 0.4}
    rival = {"metrics": {"rouge_l": score}, "difference": {"rouge_l": {**score, "p": 0.01}}}
    return {"n": ROWS, "groups": 30, "metrics": {"rouge_l": score}, "baselines": {"consensus": rival}}


def _measured(kind):
    metric = {"classes": "accuracy", "labels": "auroc_macro", "number": "r2"}.get(kind)
    found = {"rows": ROWS, "train_rows": 20, "hidden_by": "others", "untrained": ["text"], "seconds": 0.1, "tasks": {}}
    found |= {"monitored": None, "parameters": {"in all": 1000}, "splits": {"test": 40}}
    if metric is None:
        return found
    score, gap = {"value": 0.6, "low": 0.5, "high": 0.7}, {"value": 0.1, "low": 0.05, "high": 0.15}
    names = ("prior", "text", "image")
    found["tasks"]["finding"] = {
        "metric": metric,
        "scores": dict.fromkeys(("model", *names), score),
        "against": dict.fromkeys(names, gap),
        "contribution": {"rows": ROWS, "none": 0.3, "text": 0.5, "image": 0.4, "both": 0.6}
        | dict.fromkeys(("phi_text", "phi_image", "interaction"), gap),
    }
    return found
