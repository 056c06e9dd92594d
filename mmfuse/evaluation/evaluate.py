"""Score a model on one split of a manifest and write down what came out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from mmfuse.data.manifest import load_manifest
from mmfuse.data.pairs import PairDataset
from mmfuse.data.table import load_table
from mmfuse.evaluation.metrics import score_classification, score_multilabel
from mmfuse.evaluation.plots import plot_confusion
from mmfuse.model import FusionModel
from mmfuse.predict import default_workers, prepare_pairs, table_logits
from mmfuse.types import MISSING_CLASS, MmfuseError

RESAMPLES = 1000


def evaluate(
    model: str | Path | FusionModel,
    manifest: str | Path,
    *,
    split: str = "test",
    fold: int | None = None,
    data_root: str | None = None,
    out: str | Path | None = None,
    batch_size: int = 64,
    num_workers: int | None = None,
    resamples: int = RESAMPLES,
    cache: bool | str = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a model on a split.

    Args:
        model: A model folder, a Hub id, or a loaded model.
        manifest: A data manifest with the model's tasks; its labels must be the model's.
        split: train, validation or test.
        fold: Where the manifest says folds, which one is the test set.
        data_root: What `${data_root}` stands for in the manifest.
        out: Folder for `metrics.json`, `predictions.jsonl` and `confusion_TASK.png`; None writes nothing.
        batch_size: Rows per process and forward pass.
        num_workers: Processes that read images; default: by the machine's cores.
        resamples: Of the bootstrap over groups.
        cache: True or a folder: take the encoders' features from the cache, and keep there what it lacks. Of use where
            they were frozen in training, as the features are then those of the training run.
        progress: Called with (rows done, rows) of this process.

    Returns:
        `split`, `rows`, `missing` (rows without text, without image), and by task what `score_classification` and
        `score_multilabel` give.

    Raises:
        MmfuseError: The model or the data cannot be read, or a task or a label is not the model's.
    """
    loaded = model if isinstance(model, FusionModel) else FusionModel.from_pretrained(model)
    state = PartialState()
    loaded = loaded.to(state.device).eval()
    described = load_manifest(manifest, data_root)
    for task, options in loaded.task_config.items():
        if task not in described.tasks:
            raise MmfuseError(
                f"{manifest}: the model's task {task!r} is not in it; its tasks: {', '.join(described.tasks)}"
            )
        if described.tasks[task].type != options["type"]:
            raise MmfuseError(
                f"{manifest}: tasks.{task} is {described.tasks[task].type}, but the model's is {options['type']}"
            )
    labels = {task: list(options["labels"]) for task, options in loaded.task_config.items()}
    table = load_table(described, tasks=list(labels), labels=labels, fold=fold)
    rows = table.indices(split)
    if cache:
        for tower in (loaded.text_encoder, loaded.image_encoder):
            if tower is not None:
                tower.freeze(True)
    pairs = prepare_pairs(loaded, table, cache=cache)
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(done, len(rows))

    workers = default_workers() if num_workers is None else num_workers
    logits = table_logits(loaded, pairs, rows, batch_size=batch_size, num_workers=workers, progress=count)
    scores = score_rows(loaded, pairs, rows, logits, resamples=resamples)
    report = {"split": split, "rows": len(rows), "missing": _missing(pairs, rows), "tasks": scores}
    if out is not None and state.is_main_process:
        write_report(Path(out), report, loaded, pairs, rows, logits)
    return report


def score_rows(
    model: FusionModel,
    pairs: PairDataset,
    rows: Sequence[int],
    logits: dict[str, np.ndarray],
    resamples: int = RESAMPLES,
) -> dict[str, dict[str, Any]]:
    """By task, the scores of the model's heads on these rows; a task without any target among them is left out.

    Args:
        model: Its heads make probabilities and decisions of the logits.
        pairs: Holds targets and groups.
        rows: Row numbers.
        logits: By task, `(len(rows), L)`.
        resamples: Of the bootstrap over groups; 0 for no intervals.
    """
    groups: list[str] = pairs.table.rows["group"][:]
    chosen = [groups[row] for row in rows]
    scores = {}
    for task, head in model.heads.items():
        target = pairs.table.targets[task][list(rows)]
        if not _labelled(target).any():
            continue
        found: Any = head
        probabilities = found.probabilities(logits[task])
        if found.kind == "classification":
            scores[task] = score_classification(probabilities, target, found.labels, chosen, resamples)
        else:
            scores[task] = score_multilabel(probabilities, target, found.labels, chosen, found.thresholds, resamples)
    return scores


def _labelled(target: np.ndarray) -> np.ndarray:
    return np.asarray(target != MISSING_CLASS if target.ndim == 1 else ~np.isnan(target).all(1))


def _missing(pairs: PairDataset, rows: Sequence[int]) -> dict[str, int]:
    text, image = pairs.table.has_text()[list(rows)], pairs.table.has_image()[list(rows)]
    return {"text": int((~text).sum()), "image": int((~image).sum())}


def write_report(
    out: Path,
    report: dict[str, Any],
    model: FusionModel,
    pairs: PairDataset,
    rows: Sequence[int],
    logits: dict[str, np.ndarray],
) -> None:
    """Write `metrics.json`, `predictions.jsonl` (a line a row, with targets) and confusion matrices."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    groups: list[str] = pairs.table.rows["group"][:]
    heads: dict[str, Any] = dict(model.heads.items())
    probabilities = {task: head.probabilities(logits[task]) for task, head in heads.items()}
    with (out / "predictions.jsonl").open("w", encoding="utf-8") as handle:
        for i, row in enumerate(rows):
            line: dict[str, Any] = {"id": pairs.ids[row], "group": groups[row], "tasks": {}}
            for task, head in heads.items():
                target = _target_name(pairs.table.targets[task][row], head.labels)
                line["tasks"][task] = {"target": target, **head.decide(probabilities[task][i])}
            handle.write(json.dumps(line, ensure_ascii=False) + "\n")
    for task, scores in report["tasks"].items():
        if "confusion" in scores:
            plot_confusion(scores["confusion"], heads[task].labels, out / f"confusion_{task}.png")


def _target_name(target: Any, labels: list[str]) -> Any:
    """A target by name: a label, or the labels that are true and those that are unknown; None where it is missing."""
    if np.ndim(target) == 0:
        return None if target == MISSING_CLASS else labels[int(target)]
    if np.isnan(target).all():
        return None
    return {
        "labels": [name for name, value in zip(labels, target, strict=True) if value == 1],
        "unknown": [name for name, value in zip(labels, target, strict=True) if np.isnan(value)],
    }


def format_report(report: dict[str, Any]) -> str:
    """The scores as a table in Markdown: a task's metrics, then its labels."""
    lines = []
    for task, scores in report["tasks"].items():
        lines += [f"### {task}: {report['split']}, {scores['n']} rows of {scores['groups']} groups", ""]
        lines += ["| metric | value | 95 % interval |", "|---|---|---|"]
        lines += [f"| {name} | {_cells(score)} |" for name, score in scores["metrics"].items()]
        lines += ["", "| label | positives | AUROC | average precision | F1 |", "|---|---|---|---|---|"]
        for label, found in scores["per_label"].items():
            cells = " | ".join(_cells(found[name]).replace(" | ", " ") for name in ("auroc", "average_precision", "f1"))
            lines.append(f"| {label} | {found['positives']} | {cells} |")
        lines.append("")
    missing = {name: n for name, n in report["missing"].items() if n}
    if missing:
        lines.append("Rows without " + ", ".join(f"{name}: {n}" for name, n in missing.items()))
    return "\n".join(lines)


def _cells(score: dict[str, Any]) -> str:
    if score["value"] is None:
        return "undefined | "
    interval = f"[{score['low']:.3f}, {score['high']:.3f}]" if score["low"] is not None else ""
    return f"{score['value']:.3f} | {interval}"
