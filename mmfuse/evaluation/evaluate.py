"""Score a model on one split of a manifest and write down what came out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

import numpy as np

from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.load import load_table
from mmfuse.data.tables.manifest import Manifest
from mmfuse.data.tables.table import Table
from mmfuse.evaluation import plots
from mmfuse.evaluation.analyses import (
    Scored,
    analysis_lines,
    choose_analyses,
    draw_analyses,
    run_analyses,
    told_beside,
    told_of,
)
from mmfuse.evaluation.chosen import Chosen, add_chosen, add_operating_points, metrics_of_all
from mmfuse.evaluation.gate import add_required, askable, judge_all
from mmfuse.evaluation.markdown import note_lines, score_cells
from mmfuse.evaluation.of_run import opened_manifest
from mmfuse.evaluation.precision import scoring_precision
from mmfuse.evaluation.report_metrics import check_report_metrics
from mmfuse.heads import decide_rows
from mmfuse.metrics import Metric
from mmfuse.metrics.bootstrap import RESAMPLES
from mmfuse.metrics.captions import meteor_lite, tokens_of
from mmfuse.metrics.operating import MEASURED, in_words
from mmfuse.metrics.requirements import Requirement, read_requirements
from mmfuse.metrics.results import Report
from mmfuse.model import FusionModel
from mmfuse.precision import at_precision
from mmfuse.predict import (
    count_cut_texts,
    default_workers,
    join_processes,
    prepare_pairs,
    table_logits,
    tell_cut_texts,
)
from mmfuse.predict.operating import at_operating_point
from mmfuse.pulse import now
from mmfuse.tasks import TASKS
from mmfuse.types import MmfuseError, visible


class Reading(TypedDict, total=False):
    """How `evaluate` reads rows and runs the model over them.

    Attributes:
        batch_size: Rows per process and forward pass; default: 64.
        num_workers: Processes that read images; default: by the machine's cores.
        cache: True or a folder: take the encoders' features from the cache, and keep there what it lacks. Of use where
            they were frozen in training, as the features are then those of the training run.
        progress: Called with (rows done, rows) of this process.
        precision: "fp32", "bf16" or "auto" (as `Predictor`); default: as the model's own report was computed, which is
            fp32 unless it was trained with `mixed_precision: auto`.
    """

    batch_size: int
    num_workers: int | None
    cache: bool | str
    progress: Callable[[int, int], None] | None
    precision: str | None


def evaluate(
    model: str | Path | FusionModel,
    manifest: Any,
    *,
    split: str = "test",
    fold: int | None = None,
    out: str | Path | None = None,
    resamples: int = RESAMPLES,
    analyses: Sequence[str | dict[str, Any]] | None = None,
    metrics: Iterable[str | Mapping[str, Any]] = (),
    operating_point: str | None = None,
    require: Iterable[str] = (),
    **reading: Unpack[Reading],
) -> Report:
    """Score a model on a split.

    Args:
        model: A model folder, a Hub id, or a loaded model.
        manifest: A data manifest with the model's tasks, or what `load_manifest` gave of one (which takes what
            `${data_root}` stands for); its labels must be the model's. Or rows, all of which are then test rows: a
            pandas DataFrame, a `datasets.Dataset`, or the path of a file of rows, in the columns of the training.
        split: train, validation or test.
        fold: Where the manifest says folds, which one is the test set.
        out: Folder for `metrics.json`, `predictions.jsonl`, and the figures of tasks (`confusion_TASK.png`,
            `residuals_TASK.png`) and of analyses; None writes nothing.
        resamples: Of the bootstrap over groups.
        analyses: What is asked of the scored rows: names, or `{"name": ..., options}`; None: what is asked by itself
            (`caption_baselines` of captions, `subgroups` where the manifest names some), [] for nothing.
        metrics: More of them, names or `{name: ..., options}`, each for the tasks that it is for
            (`mmfuse list metrics`).
        operating_point: One of the model's, to decide at; default: the usual thresholds.
        require: What scores must reach, such as "finding/auroc_macro >= 0.8", each judged by the near end of its
            interval (see `mmfuse.metrics.requirements`); a metric that is required is computed too.
        **reading: `batch_size`, `num_workers`, `cache`, `progress`, `precision`; see `Reading`.

    Returns:
        The scores: by task its own, what was chosen among them, under `analyses` what those that apply have found, and
        under `requirements` whether what is required holds.

    Raises:
        MmfuseError: The model or the data cannot be read, a task or a label is not the model's, or an analysis or a
            requirement cannot be asked.
    """
    asked = choose_analyses(analyses, "analyses")
    loaded = model if isinstance(model, FusionModel) else FusionModel.from_pretrained(model)
    state = join_processes()
    loaded = loaded.to(state.device).eval()
    with opened_manifest(manifest, loaded, model) as described:
        check_tasks(loaded, described, list(loaded.task_config))
        check_report_metrics(described)
        chosen = metrics_of_all(loaded, metrics)
        required = _required(loaded, described, require, chosen)
        with at_operating_point(loaded, operating_point):
            pass  # one that the model does not have is told before it predicts
        for task in loaded.captioning:  # else what scores captions would be missed after the predictions
            meteor_lite()
            tokens_of(described.tasks[task].language)
        labels = {task: list(options["labels"]) for task, options in loaded.task_config.items()}
        table = load_table(described, tasks=list(labels), labels=labels, fold=fold)
    for analysis in asked.values():
        analysis.check(table)
    rows = table.indices(split)
    computed, told = scoring_precision(reading.pop("precision", None), loaded, state)
    with at_precision(loaded, computed), at_operating_point(loaded, operating_point):
        pairs, logits = read_and_run(loaded, table, rows, **cast(dict[str, Any], reading))
        score = partial(score_rows, chosen=chosen)
        scores = score(loaded, pairs, rows, logits, resamples=resamples)
        add_operating_points(scores, loaded, pairs, rows, logits, resamples)
        report: dict[str, Any] = {"split": split, "rows": len(rows), "missing": _missing(pairs, rows), "tasks": scores}
        if operating_point is not None:
            report["operating_point"] = operating_point
        if told is not None:
            report["precision"] = told
        report["cut_texts"] = count_cut_texts(loaded, pairs, rows)
        run_analyses(asked, Scored(loaded, pairs, rows, logits, scores, score, resamples), report)
        if required:
            report["requirements"] = judge_all(required, scores, f"split {split}")
        if out is not None and state.is_main_process:
            write_report(Path(out), report, loaded, pairs, rows, logits)
    return cast(Report, report)


def _required(
    model: FusionModel, manifest: Manifest, texts: Iterable[str], chosen: Mapping[str, dict[str, Metric]]
) -> list[Requirement]:
    """What is required, read; the metrics that no report has by itself are added to the chosen ones."""
    heads: dict[str, Any] = dict(model.heads.items())
    kinds = {task: (head.task, manifest.tasks[task].type) for task, head in heads.items()}
    asked = {task: askable(kind, type, manifest.tasks[task].report_metrics) for task, (kind, type) in kinds.items()}
    required = read_requirements(texts, asked)
    add_required(chosen, required, kinds)
    return required


def read_and_run(
    model: FusionModel,
    table: Table,
    rows: list[int],
    *,
    batch_size: int = 64,
    num_workers: int | None = None,
    cache: bool | str = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[PairDataset, dict[str, np.ndarray]]:
    """A table as a model reads it, and by task what it says of some rows."""
    if cache:
        for tower in (model.text_encoder, model.image_encoder):
            if tower is not None:
                tower.freeze(True)
    pairs = prepare_pairs(model, table, cache=cache)
    workers = default_workers() if num_workers is None else num_workers
    count = summed(progress, len(rows))
    return pairs, table_logits(model, pairs, rows, batch_size=batch_size, num_workers=workers, progress=count)


def summed(progress: Callable[[int, int], None] | None, total: int) -> Callable[[int], None]:
    """What is told of each batch's rows, so that `progress` is told (rows done, rows)."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(done, total)

    return count


def check_tasks(model: FusionModel, manifest: Manifest, tasks: Iterable[str]) -> None:
    """Refuse a manifest where these tasks of a model are other ones.

    Raises:
        MmfuseError: One is not in it, or of another kind, or has other options.
    """
    for task in tasks:
        options = model.task_config[task]
        if task not in manifest.tasks:
            raise MmfuseError(
                f"{manifest.source}: the model's task {task!r} is not in it; its tasks: {', '.join(manifest.tasks)}"
            )
        there = manifest.tasks[task].type
        if there != options["type"]:
            raise MmfuseError(f"{manifest.source}: tasks.{task} is {there}, but the model's is {options['type']}")
        defaults = {name: parameter.default for name, parameter in TASKS.options(there).items()}
        own, others = defaults | options.get("options", {}), defaults | manifest.tasks[task].options
        for name in defaults:
            if own[name] != others[name]:
                raise MmfuseError(
                    f"{manifest.source}: tasks.{task}.{name} is {others[name]!r}, but the model's is {own[name]!r}"
                )


def score_rows(
    model: FusionModel,
    pairs: PairDataset,
    rows: Sequence[int],
    logits: dict[str, np.ndarray],
    resamples: int = RESAMPLES,
    chosen: Chosen | None = None,
) -> dict[str, dict[str, Any]]:
    """By task, the scores of the model's heads on these rows; a task without any target among them is left out.

    Args:
        model: Its heads make probabilities and decisions of the logits.
        pairs: Holds targets and groups.
        rows: Row numbers.
        logits: By task, `(len(rows), L)`; a task that is not in it is left out.
        resamples: Of the bootstrap over groups; 0 for no intervals.
        chosen: By task, more metrics.
    """
    groups: list[str] = pairs.table.rows["group"][:]
    own = [groups[row] for row in rows]
    scores = {}
    for task, head in model.heads.items():
        if task not in logits:  # an analysis asks for some tasks
            continue
        now(f"scores of {task}")
        target = pairs.table.targets[task][list(rows)]
        kind: Any = head.task
        if kind.labelled(target).any():
            spec = pairs.table.manifest.tasks[task]
            more = {"reports": spec.report_metrics, "language": spec.language}
            more = {name: value for name, value in more.items() if value}
            scores[task] = kind.score(kind.predictions(logits[task]), target, own, resamples, **more)
            told = kind.told(scores[task])
            scores[task] |= {"told": told} if told else {}
    add_chosen(scores, chosen or {}, model, pairs, rows, logits, resamples)
    return scores


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
    """Write `metrics.json`, `predictions.jsonl` (a line a row, with targets), and the figures of tasks and analyses."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    groups: list[str] = pairs.table.rows["group"][:]
    heads: dict[str, Any] = dict(model.heads.items())
    decided = {task: decide_rows(head, logits[task]) for task, head in heads.items()}
    with (out / "predictions.jsonl").open("w", encoding="utf-8") as handle:
        for row in rows:
            line: dict[str, Any] = {"id": pairs.ids[row], "group": groups[row], "tasks": {}}
            for task, head in heads.items():
                target = head.task.shown(pairs.table.targets[task][row])
                line["tasks"][task] = {"target": target, **next(decided[task])}
            handle.write(json.dumps(line, ensure_ascii=False) + "\n")
    for task, scores in report["tasks"].items():
        kind, target = heads[task].task, pairs.table.targets[task][list(rows)]
        known = kind.labelled(target)
        kind.figures(task, kind.predictions(logits[task])[known], target[known], scores, out, plots)
    draw_analyses(report, out)


def format_report(report: Mapping[str, Any], escape: Callable[[object], str] = visible) -> str:
    """The scores as a table in Markdown: a task's metrics, then its labels.

    Args:
        report: As `evaluate` gives it.
        escape: Of the tasks' and labels' names; by default as a terminal may show them.
    """
    lines = []
    for task, scores in report["tasks"].items():
        lines += [f"### {escape(task)}: {report['split']}, {scores['n']} rows of {scores['groups']} groups", ""]
        lines += ["| metric | value | 95 % interval |", "|---|---|---|"]
        lines += [
            f"| {name}{_over(name, scores)} | {score_cells(score)} |" for name, score in scores["metrics"].items()
        ]
        lines += note_lines(scores["metrics"], escape)
        lines += ["", scores["words"]] if "words" in scores else []
        lines += ["", *map(escape, scores["told"])] if scores.get("told") else []
        for name, found in told_beside(scores).items():
            lines += analysis_lines(name, {task: found}, escape)
        lines += _label_lines(scores.get("per_label", {}), escape)
        for name, point in scores.get("operating_points", {}).items():
            lines += point_lines(name, point, report["split"], escape)
        lines.append("")
    for name, found in told_of(report).items():
        lines += [f"### {escape(name)}", "", *analysis_lines(name, found, escape), ""]
    missing = {name: n for name, n in report["missing"].items() if n}
    if missing:
        lines.append("Rows without " + ", ".join(f"{name}: {n}" for name, n in missing.items()))
    cut = report.get("cut_texts")
    if cut and cut["cut"]:
        lines.append(f"{tell_cut_texts(cut)}.")
    if "precision" in report:
        lines.append(f"{report['precision']}.")
    return "\n".join(lines)


def _over(metric: str, scores: Mapping[str, Any]) -> str:
    """Over how many labels a macro average is, where it is not over all."""
    over, labels = scores.get("macro_over", {}).get(metric), len(scores.get("per_label", ()))
    return "" if over is None or over == labels else f" (over {over} of {labels} labels)"


def _label_lines(labels: dict[str, dict[str, Any]], escape: Callable[[object], str]) -> list[str]:
    """A row a label: what every report has, then what was chosen."""
    if not labels:
        return []
    usual = {"auroc": "AUROC", "average_precision": "average precision", "f1": "F1"}
    there = [name for name, found in next(iter(labels.values())).items() if isinstance(found, dict)]
    names = {name: title for name, title in usual.items() if name in there}
    names |= {name: name for name in there if name not in usual}
    lines = ["", f"| label | positives | {' | '.join(names.values())} |", "|---|---|" + "---|" * len(names)]
    for label, found in labels.items():
        cells = " | ".join(score_cells(found[name]).replace(" | ", " ") for name in names)
        lines.append(f"| {escape(label)} | {found['positives']} | {cells} |")
    every = {f"{label} {names[name]}": found[name] for label, found in labels.items() for name in names}
    return lines + note_lines(every, escape)


def point_lines(name: str, point: dict[str, Any], split: str, escape: Callable[[object], str] = visible) -> list[str]:
    """An operating point: by label its threshold, and what it gave on validation and on the rows of the report."""
    head = "label | threshold | rows | sensitivity | specificity | PPV | NPV"
    lines = ["", f"Operating point {escape(name)}: {in_words(point['requires'])} on validation", ""]
    lines += [f"| {head} |", "|---|---|---|---|---|---|---|"]
    told: dict[str, Any] = {}
    for label, found in point["labels"].items():
        if found["threshold"] is None:
            lines.append(f"| {escape(label)} | not reached | validation | | | | |")
            continue
        for rows, scores in (("validation", found["validation"]), (split, found["scored"])):
            cells = (
                " | ".join(score_cells(scores[rate]).replace(" | ", " ") for rate in MEASURED) if scores else "| | |"
            )
            lines.append(f"| {escape(label)} | {found['threshold']:.4g} | {rows} | {cells} |")
            told |= {f"{label} {rate} ({rows})": score for rate, score in (scores or {}).items()}
    return lines + note_lines(told, escape)
