"""A finished run's folder, as its page reads it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mmfuse.config.files import read_small
from mmfuse.tasks import build_task
from mmfuse.types import MmfuseError

MEASURED = "page.json"
"""What was measured for the page beside the scores."""


@dataclass(frozen=True)
class Scores:
    """A task of a run.

    Attributes:
        name: Its name.
        kind: What its target is, with the temperature and the thresholds of the model.
        scores: As the report has them.
        told: `(n,)` what is said of each labelled row, as files of predictions have it.
        target: `(n, ...)` encoded.
        ids: `(n,)`, of the rows.
        lower: Whether less is better of the metrics of this name.
        origin: Who labelled: human, mined_from_text, model, synthetic; "" where it is not told.
    """

    name: str
    kind: Any
    scores: dict[str, Any]
    told: list[dict[str, Any]]
    target: np.ndarray
    ids: list[str]
    origin: str


@dataclass(frozen=True)
class RunFolder:
    """What a run's folder says.

    Attributes:
        dir: The folder.
        config: With all defaults.
        manifest: As it was written, a mapping.
        environment: Command, commit, versions.
        log: Lines of `metrics.jsonl`.
        report: Of the scored split.
        model: The model folder's config.
        tasks: Those that have scores.
        rows: Rows a split.
        groups: Groups a split; empty where they are not known.
        measured: What `measure_run` found, with times; empty where it was not measured.
        unmeasured: Why it could not be, where that is known.
    """

    dir: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    environment: dict[str, Any]
    log: list[dict[str, Any]]
    report: dict[str, Any]
    model: dict[str, Any]
    tasks: list[Scores]
    rows: dict[str, int]
    groups: dict[str, int]
    measured: dict[str, Any]
    unmeasured: str | None = None


def read_run(folder: Path) -> RunFolder:
    """Read a run's folder.

    Raises:
        MmfuseError: It is none of a finished run, or damaged.
    """
    model_file = folder / "model" / "config.json"
    splits = [name for name in ("test", "validation") if (folder / name / "metrics.json").is_file()]
    if not (folder / "config.yaml").is_file() or not model_file.is_file() or not splits:
        raise MmfuseError(
            f"{folder}: no folder of a finished run: config.yaml, model/config.json and test/metrics.json are expected"
        )
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        manifest = yaml.safe_load(read_small(str(folder / "manifest.yaml")))
        report = _json(folder / splits[0] / "metrics.json")
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        model, measured = _json(model_file), _json(folder / MEASURED) if (folder / MEASURED).is_file() else {}
        rows, groups = _splits(folder, measured)
        predictions = folder / splits[0] / "predictions.jsonl"
        tasks = _tasks(model, manifest, report, predictions)
        return RunFolder(folder, config, manifest, _json(folder / "environment.json"), lines, report, model, tasks,
                         rows, groups, measured)  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        if isinstance(error, MmfuseError):
            raise
        raise MmfuseError(f"{folder}: damaged: {type(error).__name__}: {str(error)[:200]}") from error


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _tasks(model: dict[str, Any], manifest: dict[str, Any], report: dict[str, Any], predictions: Path) -> list[Scores]:
    lines = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()]
    found = []
    for task, scores in report["tasks"].items():
        own = model["tasks"][task]
        kind = build_task(own["type"], own["labels"], own.get("options"))
        if task in model["decisions"]:
            kind.load_state(model["decisions"][task], f"decisions.{task}")
        labelled = [line for line in lines if line["tasks"][task]["target"] is not None]
        told = [line["tasks"][task] for line in labelled]
        target = kind.unshown([line["target"] for line in told])
        origin = str(manifest.get("tasks", {}).get(task, {}).get("label_origin") or "")
        found.append(Scores(task, kind, scores, told, target, [line["id"] for line in labelled], origin))
    return found


def _splits(folder: Path, measured: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    if not (folder / "splits.csv").is_file():
        return measured.get("splits", {}), {}
    with (folder / "splits.csv").open(encoding="utf-8", newline="") as handle:
        lines = list(csv.DictReader(handle))
    groups = {split: len({line["group"] for line in lines if line["split"] == split}) for split in _ORDER}
    counts = Counter(line["split"] for line in lines)
    return {name: counts[name] for name in _ORDER if counts[name]}, {n: of for n, of in groups.items() if of}


_ORDER = ("train", "validation", "test")
