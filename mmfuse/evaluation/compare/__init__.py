"""Two single models on the same rows: the difference of each metric, and the decisions that flip."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from mmfuse.data.tables.manifest import Manifest, load_manifest
from mmfuse.evaluation.analyses.subgroup_values import MOST_SUBGROUPS, split_values
from mmfuse.evaluation.compare.flips import Decisions, write_flips
from mmfuse.evaluation.compare.pairing import PairedTask, Pairing, pair_files, pair_on_manifest
from mmfuse.evaluation.compare.sides import Predictions, open_side, side_name
from mmfuse.evaluation.evaluate import Reading
from mmfuse.evaluation.gate import add_required, askable, judge_all
from mmfuse.metrics import METRICS, Metric, choose_metrics, metrics_for
from mmfuse.metrics.compared import ComparedColumn, ComparedMetric, ComparedSubgroup, ComparedTask, Comparison
from mmfuse.metrics.paired import Paired, PairedJackknife, compare_replicates
from mmfuse.metrics.requirements import Requirement, read_requirements
from mmfuse.metrics.scored import Scored
from mmfuse.model import FusionModel
from mmfuse.predict import join_processes
from mmfuse.pulse import now
from mmfuse.registry import nearest
from mmfuse.tasks import TaskKind
from mmfuse.types import MmfuseError

__all__ = ["compare"]


def compare(
    a: str | Path | FusionModel,
    b: str | Path | FusionModel,
    manifest: str | Path | Manifest | None = None,
    *,
    split: str = "test",
    fold: int | None = None,
    out: str | Path | None = None,
    metrics: Iterable[str] = (),
    margin: float | None = None,
    require: Iterable[str] = (),
    **reading: Unpack[Reading],
) -> Comparison:
    """Compare two models on the rows of a split, or two files of predictions; every difference is b - a.

    Args:
        a: A model folder, a Hub id, a loaded model, or a file of predictions (.jsonl, .csv, .parquet).
        b: Another one. The two share a task, with the same labels.
        manifest: Of the rows. Two files that `evaluate` wrote hold the targets themselves, and need none.
        split: train, validation or test, of the manifest.
        fold: Where the manifest says folds, which one is the test set.
        out: Folder for `comparison.json` and `flips.jsonl` (a line a decision that flips); None writes nothing.
        metrics: More of them by name, each for the tasks that it is for.
        margin: By how much b may be worse and still counts as not inferior, in each metric's own unit.
        require: What differences must reach, such as "finding/accuracy >= -0.01", judged by the near end of the
            interval; so that is non-inferiority at a margin of 0.01.
        **reading: `batch_size`, `num_workers`, `cache`, `progress`, `precision`; see
            `mmfuse.evaluation.evaluate.Reading`.

    Returns:
        By task each metric of both, the difference with its 95 % interval and p (`mmfuse.metrics.paired`), and the
        decisions that flip, also by subgroup. Rows that one side alone answers are counted and left out.

    Raises:
        MmfuseError: A side or the data cannot be read, they share no task or no row, or what is asked is not legal.
    """
    if margin is not None and not (math.isfinite(margin) and margin > 0):
        raise MmfuseError(f"margin: {margin}: a number above 0 is expected, such as 0.01")
    names, sides = (side_name(a), side_name(b)), (open_side(a), open_side(b))
    asked = _Asked(list(metrics), list(require))
    if manifest is not None:
        described = manifest if isinstance(manifest, Manifest) else load_manifest(manifest)
        pairing = pair_on_manifest(sides, names, described, split, fold, asked.read, **reading)
    elif isinstance(sides[0], Predictions) and isinstance(sides[1], Predictions):
        pairing = pair_files((sides[0], sides[1]), asked.read)
    else:
        raise MmfuseError("compare: a model is run over rows: name their manifest after the two models")
    tasks, decided = {}, {}
    for task, paired in pairing.tasks.items():
        if paired.kind.labelled(paired.target).any():
            now(f"comparing {task}")
            tasks[task], scored = _compare_task(paired, pairing, asked.chosen[task], margin)
            if scored[0].labels:
                decided[task] = scored
    if not tasks:
        raise MmfuseError(f"{names[0]} and {names[1]}: no row that both answer has a target")
    found: Comparison = {
        "a": names[0],
        "b": names[1],
        "split": None if manifest is None else split,
        "rows": pairing.counts,
        "tasks": tasks,
    }
    if margin is not None:
        found["margin"] = margin
    if asked.required:
        differences = {
            task: {"metrics": {name: one["difference"] for name, one in of["metrics"].items()}}
            for task, of in tasks.items()
        }
        found["requirements"] = judge_all(asked.required, differences, "these rows")
    if out is not None and join_processes().is_main_process:
        Path(out).mkdir(parents=True, exist_ok=True)
        (Path(out) / "comparison.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        write_flips(Path(out) / "flips.jsonl", pairing, decided)
    return found


class _Asked:
    """Metrics and requirements, which are read once it is known which tasks there are.

    Args:
        metrics: By name.
        require: As they were written.

    Attributes:
        chosen: By task the metrics that were chosen or are required.
        required: What is.
    """

    def __init__(self, metrics: list[str], require: list[str]):
        self._metrics, self._require = metrics, require
        self.chosen: dict[str, dict[str, Metric]] = {}
        self.required: list[Requirement] = []

    def read(self, kinds: dict[str, tuple[TaskKind, str]]) -> None:
        """Read them for these tasks.

        Raises:
            MmfuseError: There is no such metric, or it is for none of them; or as `read_requirements`.
        """
        legal = {task: metrics_for(type, per_label=False) for task, (_, type) in kinds.items()}
        for name in self._metrics:
            if not any(name in names for names in legal.values()):
                every = sorted({one for names in legal.values() for one in names})
                raise MmfuseError(f"metrics: {name} is for no task that both have; {nearest(name, every)}")
        for task, (kind, type) in kinds.items():
            own = [name for name in self._metrics if name in legal[task] and name not in kind.metrics]
            self.chosen[task] = choose_metrics(own, type, "metrics")
        self.required = read_requirements(self._require, {t: askable(*of) for t, of in kinds.items()})
        add_required(self.chosen, self.required, kinds)


def _compare_task(
    paired: PairedTask, pairing: Pairing, chosen: Mapping[str, Metric], margin: float | None
) -> tuple[ComparedTask, tuple[Scored, Scored]]:
    every = np.arange(len(pairing.ids))
    a, b = (side.scored(every, paired.target) for side in (paired.a, paired.b))
    groups = np.asarray(pairing.groups, dtype=str)
    found = _differences(paired, a, b, groups[a.rows], chosen)
    told: ComparedTask = {
        "n": len(a),
        "groups": len(np.unique(groups[a.rows])),
        "identical": paired.a.told == paired.b.told,
        "metrics": {name: _told(name, one, _lower(paired.kind, name), margin) for name, one in found.items()},
        "subgroups": {},
    }
    if a.labels:
        decisions = Decisions(a, b)
        told["flips"] = decisions.flips()
        if not a.exclusive:
            told["label_flips"] = {name: decisions.flips(column=[i]) for i, name in enumerate(a.labels)}
    for name, cells in pairing.columns.items():
        told["subgroups"][name] = _column(paired, cells, groups)
    return told, (a, b)


def _differences(
    paired: PairedTask, a: Scored, b: Scored, groups: np.ndarray, chosen: Mapping[str, Metric]
) -> dict[str, Paired]:
    jackknife = PairedJackknife(groups)
    kept = jackknife.losing(a.truth) if a.labels else None

    def replicates(resamples: PairedJackknife) -> tuple[dict[str, np.ndarray], ...]:
        def of(said: Any, scored: Scored) -> dict[str, np.ndarray]:
            def drawn(times: np.ndarray) -> dict[str, np.ndarray]:
                weights = times.take(resamples.row_group, axis=1)
                return {name: np.asarray(metric(scored, weights)) for name, metric in chosen.items()}

            more = resamples.replicate(drawn) if chosen else {}
            return {**said.kind.weighted(scored, resamples, **paired.options), **more}

        return of(paired.a, a), of(paired.b, b)

    ranges = {name: _range(paired.kind, name) for name in (*paired.kind.metrics, *chosen)}
    return compare_replicates(replicates, jackknife, ranges, kept)  # pyright: ignore[reportArgumentType]


def _range(kind: TaskKind, metric: str) -> tuple[float, float]:
    if metric in kind.ranges:
        return kind.ranges[metric]
    return METRICS.get(metric).range if metric in METRICS.names() else (-math.inf, math.inf)  # pyright: ignore[reportAttributeAccessIssue]


def _lower(kind: TaskKind, metric: str) -> bool:
    if metric in kind.metrics:
        return metric in kind.lower_is_better
    return not METRICS.get(metric).larger_is_better  # pyright: ignore[reportAttributeAccessIssue]


def _told(metric: str, found: Paired, lower: bool, margin: float | None) -> ComparedMetric:
    difference = found.difference
    low, high = difference["low"], difference["high"]
    better = None
    if low is not None and high is not None and (low > 0 or high < 0):
        better = "b" if (low > 0) != lower else "a"
    values = (None if math.isnan(value) else value for value in (found.a, found.b))
    told: ComparedMetric = {**dict(zip("ab", values, strict=True)), "difference": difference, "better": better}  # type: ignore[typeddict-item]
    if margin is not None:
        end = high if lower else low
        told["non_inferior"] = None if end is None else bool(end < margin if lower else end > -margin)
    return told


def _column(paired: PairedTask, cells: list[str], groups: np.ndarray) -> ComparedColumn:
    """What is compared by the subgroups of a column; of one with too many values nothing."""
    split = split_values(cells)
    metric = paired.kind.monitor
    told: ComparedColumn = {"metric": metric, "binned": split.binned, "subgroups": {}}
    if len(split.names) > MOST_SUBGROUPS:
        return told
    for place, name in enumerate(split.names):
        rows = np.flatnonzero((split.of_row == place) & paired.kind.labelled(paired.target))
        if not len(rows):
            continue
        a, b = (side.scored(rows, paired.target[rows]) for side in (paired.a, paired.b))
        found = _differences(paired, a, b, groups[rows], {})
        one: ComparedSubgroup = {
            "n": len(rows),
            "groups": len(np.unique(groups[rows])),
            "difference": found[metric].difference,
        }
        if a.labels:
            one["flips"] = Decisions(a, b).flips()
        told["subgroups"][name] = one
    return told
