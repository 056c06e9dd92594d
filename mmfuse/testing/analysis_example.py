"""Scored rows of a small untrained model on SYNTHETIC phantoms, to ask analyses of."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mmfuse.evaluation.analyses import Scored
from mmfuse.tasks import TASKS

STUDIES, RESAMPLES = 64, 50
_BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
_VIT = {"depth": 1, "embed_dim": 16, "num_heads": 2}
_DECODER = {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "max_length": 12}
_OF_PHANTOMS = ("multilabel", "classification", "captioning")
_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []
"""With the images, which an analysis may read; they go when the process ends."""


def example(every_kind: bool = False) -> Scored:
    """Labels (`findings`), a class (`sex`), and where nltk is installed captions (`report`); subgroups by two columns.

    All rows are scored, those of the training split too.

    Args:
        every_kind: With a task of every other kind, numbers and those of plug-ins, that is named as the kind and has
            what `TaskKind.example` gives.
    """
    return _example(tuple(TASKS.names()) if every_kind else ())


@functools.cache
def _example(kinds: tuple[str, ...]) -> Scored:
    import torch
    import yaml

    from mmfuse.config import config_from_dict
    from mmfuse.data.load import load_table
    from mmfuse.data.synthetic.phantom import write_phantom
    from mmfuse.data.synthetic.phantom_findings import write_language
    from mmfuse.data.tables.manifest import load_manifest
    from mmfuse.evaluation.evaluate import score_rows
    from mmfuse.predict import prepare_pairs, table_logits
    from mmfuse.training.build import build_model

    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="mmfuse-check-"))
    folder = Path(_FOLDERS[-1].name)
    write_phantom(folder, STUDIES, seed=0)
    path, _ = write_language(folder, seed=0)
    manifest: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    manifest["tasks"]["sex"] = {"type": "classification", "column": "sex", "label_origin": "synthetic"}
    tasks: dict[str, Any] = {"report": {"decoder": _DECODER}}
    if importlib.util.find_spec("nltk") is None:
        tasks, _ = {}, manifest["tasks"].pop("report")
    _add_kinds(manifest, folder, [kind for kind in kinds if kind not in _OF_PHANTOMS])
    path.write_text(yaml.safe_dump(manifest), encoding="utf-8")
    values = {
        "name": "check",
        "data": {"manifest": str(path)},
        "text_encoder": {"name": "bert", "pretrained": False, "options": _BERT, "max_length": 24},
        "image_encoder": {"name": "vit_tiny_patch16_224", "pretrained": False, "size": [32, 32], "options": _VIT},
        "fusion": {"name": "concat", "out_dim": 16},
        "tasks": tasks,
    }
    table = load_table(load_manifest(path))
    with torch.random.fork_rng(devices=[]):
        model = build_model(config_from_dict(values), table).eval()
    pairs, rows = prepare_pairs(model, table), list(range(len(table)))
    said = table_logits(model, pairs, rows, batch_size=32, num_workers=0)
    for values in said.values():
        values.setflags(write=False)
    scores = score_rows(model, pairs, rows, said, resamples=RESAMPLES)
    return Scored(model, pairs, rows, said, scores, score_rows, RESAMPLES)


def _add_kinds(manifest: dict[str, Any], folder: Path, kinds: Sequence[str]) -> None:
    """A task of each kind, whose cells are those of its example over and over."""
    rows = folder / manifest["rows"]
    frame = pd.read_csv(rows, dtype=str, keep_default_na=False)
    for kind in kinds:
        values, columns = TASKS.get(kind).example()  # type: ignore[attr-defined]
        names = {name: f"{kind}.{name}" for name in columns}
        for name, cells in columns.items():
            frame[names[name]] = [
                cell or "" for cell, _ in zip(itertools.cycle(cells), range(len(frame)), strict=False)
            ]
        if "column" in values:
            values = {**values, "column": names[values["column"]]}
        if "columns" in values:
            values = {**values, "columns": [names[name] for name in values["columns"]]}
        manifest["tasks"][kind] = {"type": kind, "label_origin": "synthetic", **values}
    frame.to_csv(rows, index=False)


def reordered(scored: Scored) -> Scored:
    """The same rows, the other way round."""
    said = {task: values[::-1] for task, values in scored.said.items()}
    return dataclasses.replace(scored, rows=list(scored.rows)[::-1], said=said)
