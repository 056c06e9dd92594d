"""From the cells' results to what may be said of them: scores with intervals, contrasts and diagnostics, by task."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmfuse.benchmarking.cells import Workshop
from mmfuse.benchmarking.declare import declare
from mmfuse.benchmarking.ledger import Ledger
from mmfuse.benchmarking.methods import reference_of
from mmfuse.benchmarking.plan import COVARIATES, NO_FUSION, Cell, Plan, Row
from mmfuse.benchmarking.statistics import Comparison, Estimate, compare, strategy_score
from mmfuse.benchmarking.verdict import FEWEST_POSITIVES, verdict
from mmfuse.evaluation.contribution import worse_than_unimodal
from mmfuse.fusion import FUSIONS
from mmfuse.metrics import METRICS, Metric, metrics_for, worst_value
from mmfuse.metrics.basis import basis_of_rows
from mmfuse.metrics.bootstrap import GroupBootstrap, GroupJackknife
from mmfuse.metrics.chosen import bases_of, metric_replicates
from mmfuse.metrics.intervals import ANYWHERE
from mmfuse.registry import nearest
from mmfuse.tasks import TaskKind, task_of
from mmfuse.types import MmfuseError

Array = NDArray[np.float64]


class _Task(NamedTuple):
    """One task's test rows, pooled over folds: targets, groups, and by row and seed what was said of them."""

    name: str
    kind: TaskKind
    metric: str
    target: np.ndarray
    groups: list[str]
    said: dict[str, dict[int, Array]]


def analyse(workshop: Workshop, plan: Plan, ledger: Ledger) -> dict[str, Any]:
    """What the report says, as plain values.

    Args:
        workshop: Knows the rows and their targets.
        plan: Its rows and cells.
        ledger: Holds the cells' results.

    Raises:
        MmfuseError: No row has all its cells, or the metric is not one that can be compared.
    """
    config = workshop.config
    cells = [cell for cell in plan.cells if cell.trial is None]
    results = ledger.read(plan.cells)
    failed = {
        cell.row: {"row": cell.row, "cell": cell.key, "reason": results[cell.key]["reason"]}
        for cell in reversed(cells)
        if results[cell.key]["status"] == "failed"
    }
    whole = [label for label in plan.rows if label not in failed]
    if not whole:
        raise MmfuseError(f"{config.run_dir}: every cell failed, such as {next(iter(failed.values()))['reason']}")
    table = workshop.table(workshop.folds[0])
    tasks = {}
    for task in table.labels:
        pooled = _pool(workshop, ledger, [cell for cell in cells if cell.row in whole], results, task)
        tasks[task] = _compare_task(workshop, plan, cells, results, pooled)
    return {
        "tasks": tasks,
        "rows": {label: {**dataclasses.asdict(row), "reference": _reference(row)} for label, row in plan.rows.items()},
        "failed": list(failed.values()),
        "seeds": config.seeds,
        "folds": len(workshop.folds),
        "frozen": workshop.frozen,
        "built_in": workshop.built_in,
        "matching": config.matching,
        "match_to": config.match_to,
        "tuning_trials": config.tuning_trials,
        "resamples": config.resamples,
    }


def _reference(row: Row) -> str:
    return "" if row.label == COVARIATES else reference_of(FUSIONS.get(row.fusion["name"]))


def check_task(workshop: Workshop, task: str) -> None:
    """Refuse what could not be compared in the end.

    Raises:
        MmfuseError: The metric is none for this type of task, a fold's test rows have no label of it, or all have the
            same.
    """
    _metric_of(workshop, task)
    seen = []
    for fold in workshop.folds:
        table = workshop.table(fold)
        target = table.targets[task][table.indices("test")]
        known = table.kind(task).labelled(target)
        if not known.any():
            where = "" if fold is None else f" of fold {fold}"
            raise MmfuseError(f"{table.manifest.source}: tasks.{task}: no test row{where} is labelled")
        seen.append(target[known])
    target = np.concatenate(seen)
    if (target == target[:1]).all():
        raise MmfuseError(f"{workshop.manifest.source}: tasks.{task}: all test rows have the same label")


def check_margin(workshop: Workshop, tasks: Iterable[str]) -> None:
    """Refuse one margin for tasks whose metrics have different units.

    Raises:
        MmfuseError: They have.
    """
    if workshop.config.margin is None:
        return
    found = {task: _metric_of(workshop, task) for task in tasks}
    units = {task: task_of(workshop.manifest.tasks[task]).units.get(metric) for task, metric in found.items()}
    if len(set(units.values())) > 1:
        raise MmfuseError(
            f"margin: {workshop.config.margin:g} cannot be of {', '.join(f'{t}/{m}' for t, m in found.items())} alike, "
            "whose units differ; leave it out, or choose tasks of one unit by data.tasks"
        )


def _metric_of(workshop: Workshop, task: str) -> str:
    """What a task is compared by: the config's metric, or the one its kind is monitored by, if it can be compared."""
    spec = workshop.manifest.tasks[task]
    kind = task_of(spec)
    usual = kind.comparable
    metric = workshop.config.metric or (usual[0] if usual and kind.monitor not in usual else kind.monitor)
    more = [name for name in metrics_for(spec.type) if name not in usual]
    legal = [*usual, *(name for name in more if not _why_not(name, kind))]
    if metric not in legal:
        why = f": {_why_not(metric, kind)}" if metric in more else ""
        raise MmfuseError(
            f"metric: {metric!r} cannot be compared for {task}, a {spec.type}{why}; {nearest(metric, legal)}"
        )
    return metric


def _why_not(metric: str, kind: Any) -> str:
    """Why strategies cannot be compared by a registered metric; "" where they can."""
    found: Any = METRICS.get(metric)
    if found.per_label:
        return "it has one value a label"
    if not found.larger_is_better:
        return "less of it is better"
    if "decisions" in found.needs and kind.has_labels and not kind.exclusive:
        return "its thresholds are chosen by every cell for itself"
    needed = [key for key, parameter in METRICS.options(metric).items() if parameter.default is parameter.empty]
    if needed:
        return f"it is compared at its defaults, and its option {needed[0]} has none"
    return ""


def _pool(
    workshop: Workshop, ledger: Ledger, cells: Sequence[Cell], results: dict[str, dict[str, Any]], task: str
) -> _Task:
    first = workshop.table(workshop.folds[0])
    said_by = first.kind(task)
    metric = _metric_of(workshop, task)
    found: dict[tuple[str, int], dict[int, Array]] = defaultdict(dict)
    for cell in cells:
        rows, logits = ledger.said(cell, task)
        said_by.load_state(results[cell.key]["decisions"][task], f"{cell.key}: decisions.{task}")
        found[cell.row, cell.seed].update(zip(rows.tolist(), said_by.predictions(logits), strict=True))
    seeds = sorted({seed for _, seed in found})
    if (COVARIATES, 0) in found:  # no seed changes it
        found |= {(COVARIATES, seed): found[COVARIATES, 0] for seed in seeds}
    target = first.targets[task]
    known = first.kind(task).labelled(target)
    rows = sorted(row for row in next(iter(found.values())) if known[row])
    groups: list[str] = first.rows["group"][:]
    said: dict[str, dict[int, Array]] = defaultdict(dict)
    for (label, seed), by_row in found.items():
        said[label][seed] = np.stack([by_row[row] for row in rows])
    return _Task(task, first.kind(task), metric, target[rows], [groups[row] for row in rows], dict(said))


def _compare_task(
    workshop: Workshop, plan: Plan, cells: Sequence[Cell], results: dict[str, dict[str, Any]], task: _Task
) -> dict[str, Any]:
    config = workshop.config
    names = [label for label in plan.rows if label in task.said]
    bootstrap = GroupBootstrap(task.groups, config.resamples, seed=0)
    jackknife = GroupJackknife(task.groups)
    values, replicates, left_out = _replicate(task, names, bootstrap, jackknife)
    validation = {
        label: _mean(
            results[cell.key]["validation_metrics"].get(task.name, {}).get(task.metric)
            for cell in cells
            if cell.row == label
        )
        for label in names
    }
    less = task.metric in task.kind.lower_is_better
    sign = -1.0 if less else 1.0
    asked = declare(
        names,
        {label: row.macs for label, row in plan.rows.items()},
        {label: None if value is None else sign * value for label, value in validation.items()},
    )
    comparison = compare(
        sign * values,
        sign * replicates,
        names,
        list(dict.fromkeys(asked.references.values())),
        bootstrap.num_groups,
        declared=asked.first,
        steady=[label for label in names if label == COVARIATES],
        scores=_scores(task, sign, values, left_out, jackknife),
    )
    if less:
        comparison = _turned(comparison)
    strategies = [
        _describe(place, plan, cells, results, task, comparison, validation) for place in comparison.strategies
    ]
    _flag_worse_than_unimodal(strategies, task.kind.diagnosed[0])
    spec = workshop.manifest.tasks[task.name]
    counts = task.kind.one_hot(task.target).sum(0).astype(int).tolist()
    positives = dict(zip(task.kind.labels, counts, strict=True))
    summary = {
        "metric": task.metric,
        **({"less_is_better": True} if less else {}),
        **({"unit": task.kind.units[task.metric]} if task.metric in task.kind.units else {}),
        "rows": len(task.target),
        "groups": bootstrap.num_groups,
        "labels": task.kind.labels,
        "positives": positives,
        "rare_labels": [name for name, count in positives.items() if count < FEWEST_POSITIVES],
        "label_origin": spec.label_origin,
        "references": asked.references,
        "margin": config.margin,
        "strategies": strategies,
        "indistinguishable": [list(group) for group in comparison.groups],
        "seeds_needed": [dataclasses.asdict(needed) for needed in comparison.seeds_needed],
        "undefined_resamples": comparison.undefined_resamples,
        "bayes": workshop.bayes(task.name),
    }
    return {**summary, "verdict": verdict(summary)}


def _turned(comparison: Comparison) -> Comparison:
    """A comparison of negated scores, of the scores themselves; ranks, letters and p-values stay."""

    def turned(of: Estimate) -> Estimate:
        seeds = {"seed_low": _minus(of.seed_high), "seed_high": _minus(of.seed_low)}
        return dataclasses.replace(of, mean=-of.mean, low=-of.high, high=-of.low, **seeds)

    strategies = tuple(dataclasses.replace(s, score=turned(s.score)) for s in comparison.strategies)
    contrasts = tuple(dataclasses.replace(c, difference=turned(c.difference)) for c in comparison.contrasts)
    return dataclasses.replace(comparison, strategies=strategies, contrasts=contrasts)


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _scores(task: _Task, sign: float, values: Array, left_out: Array, jackknife: GroupJackknife) -> list[Estimate]:
    """The score of each strategy with its interval, times `sign`; of `values (S, R)` and `left_out (S, R, b)`."""
    low, high = _range(task)
    basis = basis_of_rows(jackknife)
    if task.metric in METRICS.names():
        metric: Metric = METRICS.get(task.metric)()
        said = next(iter(next(iter(task.said.values())).values()))
        (basis,) = bases_of(task.kind.scored(said, task.target), jackknife)(metric)
    bounds = (low, high) if sign > 0 else (-high, -low)
    return [strategy_score(sign * v, sign * w, basis, bounds) for v, w in zip(values, left_out, strict=True)]


def _range(task: _Task) -> tuple[float, float]:
    """The metric's lowest and highest value."""
    if task.metric in METRICS.names():
        return METRICS.get(task.metric).range  # pyright: ignore[reportAttributeAccessIssue]
    return task.kind.ranges.get(task.metric, ANYWHERE)


def _replicate(task: _Task, names: Sequence[str], *bootstraps: GroupBootstrap) -> tuple[Array, ...]:
    """The metric `(S, R)` of each strategy and seed, and its replicates `(S, R, B)` of each bootstrap."""
    seeds = sorted(next(iter(task.said.values())))
    said = [task.said[name][seed] for name in names for seed in seeds]
    shape = (len(names), len(seeds))
    if task.metric in task.kind.comparable:
        scores = [task.kind.values([task.metric], each, task.target)[task.metric] for each in said]
        drawn = [task.kind.replicates(task.metric, said, task.target, of) for of in bootstraps]
    else:
        scores, *drawn = _by_name(task, said, *bootstraps)
    return np.array(scores, dtype=np.float64).reshape(shape), *(of.reshape(*shape, -1) for of in drawn)


def _by_name(task: _Task, said: Sequence[Array], *bootstraps: GroupBootstrap) -> tuple[Array, ...]:
    """A registered metric of each model `(M,)`, and its replicates `(M, B)` of each bootstrap.

    A model that it is undefined for (it says one class alone, and has no `mcc`) has its worst value, as in training.
    """
    metric: Metric = METRICS.get(task.metric)()
    each = [task.kind.scored(one, task.target) for one in said]
    scores = np.array([metric(one, np.ones((1, len(one))))[0] for one in each], dtype=np.float64)
    drawn, undefined = [metric_replicates(metric, each, of) for of in bootstraps], np.isnan(scores)
    worst = worst_value(task.metric)
    assert worst is not None  # it is registered
    if undefined.any() and not np.isfinite(worst):
        raise MmfuseError(f"metric: {task.metric!r} is undefined for a model of {task.name}; choose another metric")
    for of in drawn:
        of[undefined] = np.where(np.isnan(of[undefined]), worst, of[undefined])
    return np.where(undefined, worst, scores), *drawn


def _describe(
    place: Any,
    plan: Plan,
    cells: Sequence[Cell],
    results: dict[str, dict[str, Any]],
    task: _Task,
    comparison: Comparison,
    validation: dict[str, float | None],
) -> dict[str, Any]:
    """A strategy's line of the report."""
    own = [results[cell.key] for cell in cells if cell.row == place.name]
    row = plan.rows[place.name]
    lowest, highest = _range(task)
    reach = highest - lowest  # no two scores differ by more: two seeds alone may give an interval of many times that
    contrasts = {
        one.reference: {
            "difference": one.difference.mean,
            "low": float(np.maximum(one.difference.low, -reach)),
            "high": float(np.minimum(one.difference.high, reach)),
            "p": one.p,
            "p_holm": one.p_holm,
            "level": one.level,
            "declared": one.declared,
            "tested": one.tested,
        }
        for one in comparison.contrasts
        if one.strategy == place.name
    }
    diagnostics = next((r["diagnostics"] for r in own if r.get("diagnostics")), {})
    return {
        "row": place.name,
        "rank": place.rank,
        "letters": place.letters,
        "score": dataclasses.asdict(place.score),
        "validation": validation[place.name],
        "interaction": row.interaction,
        "uses": list(row.uses),
        "parameters": row.parameters,
        "macs": row.macs,
        "matched": row.matched,
        "contrasts": contrasts,
        "seconds": _mean(r["seconds"] for r in own),
        "samples_per_s": _mean(r.get("samples_per_s") for r in own),
        "peak_mib": max(r["peak_mib"] for r in own),
        "steps": _mean(r["steps"] for r in own),
        "metrics": {name: _mean(r["metrics"][task.name][name] for r in own) for name in own[0]["metrics"][task.name]},
        "uncalibrated": {name: _mean(r["uncalibrated"][task.name].get(name) for r in own) for name in ("ece", "nll")},
        "per_label": _per_label(own, task),
        **{name: _of_task(found, task.name) for name, found in diagnostics.items()},
    }


def _per_label(own: Sequence[dict[str, Any]], task: _Task) -> dict[str, dict[str, float | None]]:
    return {
        label: {
            name: _mean(
                r["per_label"][task.name][label][name]["value"] for r in own if label in r["per_label"][task.name]
            )
            for name in ("auroc", "average_precision", "f1")
        }
        for label in task.kind.labels
    }


def _of_task(found: dict[str, Any], task: str) -> dict[str, Any]:
    return {**{k: v for k, v in found.items() if k != "tasks"}, **found["tasks"].get(task, {})}


def _flag_worse_than_unimodal(strategies: list[dict[str, Any]], metric: str) -> None:
    """Mark a fusion that, without one modality, is worse by a metric than the model that never had it.

    Nothing is marked where the curves of missing modalities do not have that metric.
    """
    by_name = {s["row"]: s for s in strategies}
    for strategy in strategies:
        curve = strategy.get("missing")
        strategy["worse_without"] = []
        for gone, alone in (("text", "image_only"), ("image", "text_only")):
            other = by_name.get(alone, {}).get("missing")
            if not curve or not other or strategy["row"] in NO_FUSION or metric not in curve.get(gone, {}):
                continue
            full = other[gone][metric]["values"][0]
            if worse_than_unimodal(curve[gone][metric], full, margin=_margin(full, curve["n"])):
                strategy["worse_without"].append(gone)


def _margin(accuracy: float | None, rows: int) -> float:
    """What is beyond chance between two accuracies on `rows` rows: two standard errors, and a point at least.

    Of R2, which lies in [0, 1] too where it is worth comparing, the same.
    """
    if accuracy is None or not 0 <= accuracy <= 1:
        return 0.01
    return max(0.01, 2 * math.sqrt(2 * accuracy * (1 - accuracy) / rows))


def _mean(values: Any) -> float | None:
    known = [v for v in values if v is not None and not math.isnan(v)]
    return sum(known) / len(known) if known else None
