"""Scores by subgroup, and whether the largest gap between subgroups is more than chance gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfuse.data.tables.table import Table
from mmfuse.evaluation.analyses import ANALYSES, Analysis, Scored
from mmfuse.evaluation.analyses.subgroup_lines import subgroup_lines
from mmfuse.evaluation.analyses.subgroup_scores import decision_measures, label_counts, main_measures
from mmfuse.evaluation.analyses.subgroup_values import MOST_SUBGROUPS, Subgroups, split_values
from mmfuse.evaluation.plots import plot_subgroups
from mmfuse.metrics.bootstrap import GroupBootstrap
from mmfuse.metrics.gaps import Compared, Gap, Ints, Measures, compare_subgroups, permute_subgroups
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError

ALPHA = 0.05
_MOST_NAMED = 50
_RESAMPLES = 200
"""Of a subgroup's rows, for the intervals of what is not compared."""


@ANALYSES.register("subgroups")
class SubgroupScores(Analysis):
    """Scores by subgroup, and whether the largest gap between them is more than chance gives.

    Of each column that the manifest names under `subgroups`. In two families of comparisons, each with a chance of
    false findings of 5 % over all tasks, labels and columns: what each task is compared in first (labels: the mean
    AUROC over labels that every compared subgroup has enough of, and of one class a row the accuracy; captions:
    ROUGE-L; else the metric of its head), and by label the true and false positive rates of the model's decisions.

    Reference: Seyyed-Kalantari et al. 2021, "Underdiagnosis bias of artificial intelligence algorithms applied to chest
        radiographs in under-served patient populations", 10.1038/s41591-021-01595-0.
    Differs: intervals and nulls are over groups (patients); the largest gap is judged against what chance gives; small
        subgroups are not compared. See `compare_subgroups`.
    Prefer when: a model is to be as good for everyone. Rows of one column at a time: no intersections of columns.

    Args:
        columns: Some of the manifest's `subgroups`; default: all.
        min_rows: Rows with a target that a subgroup must have to be compared.
        min_positives: Rows with a label, or without it, that it must have where these are counted.
        permutations: Of the groups' subgroups.
    """

    by_itself = True

    def __init__(
        self,
        columns: list[str] | None = None,
        min_rows: int = 20,
        min_positives: int = 10,
        permutations: int = 500,
    ):
        legal = columns is None or (isinstance(columns, list) and all(isinstance(name, str) for name in columns))
        if not legal:
            raise MmfuseError(f"subgroups.columns: {columns!r:.100}: a list of columns is expected")
        for name, value, low in (
            ("min_rows", min_rows, 2),
            ("min_positives", min_positives, 1),
            ("permutations", permutations, 99),
        ):
            if type(value) is not int or value < low:
                raise MmfuseError(f"subgroups.{name}: {value!r:.100}: a whole number of at least {low} is expected")
        self.columns, self.permutations = columns, permutations
        self.min_rows, self.min_positives = min_rows, min_positives

    def check(self, table: Table) -> None:
        """Refuse columns that the manifest does not name under `subgroups`."""
        legal = table.manifest.subgroups
        for name in self.columns or ():
            if name not in legal:
                raise MmfuseError(
                    f"{table.manifest.source}: subgroups: {name!r} is none of the manifest's; {nearest(name, legal)}"
                )

    def __call__(self, scored: Scored) -> dict[str, Any] | None:
        """`columns`, each with its `subgroups`, what they are `compared` in, and the `gaps`; see docs/predict.md."""
        columns = self.columns or scored.table.manifest.subgroups
        if not columns or not scored.scores:
            return None
        bootstrap = GroupBootstrap(scored.groups, scored.resamples, scored.seed)
        found = {name: self._column(scored, name, bootstrap) for name in dict.fromkeys(columns)}
        for family in ("main", "decisions"):
            _correct([[gap for gap in of["gaps"] if gap["family"] == family] for of in found.values()])
        return {
            "min_rows": self.min_rows,
            "min_positives": self.min_positives,
            "permutations": self.permutations,
            "columns": found,
        }

    def lines(self, found: dict[str, Any]) -> list[str]:
        """Whether a gap is found, then by column the scores, the gaps, and what was left out."""
        return subgroup_lines(found)

    def figures(self, found: dict[str, Any], folder: Path) -> list[Path]:
        """`subgroups.png`: what subgroups are compared in, with intervals; none where nothing is compared."""
        panels = _panels(found)
        if not panels:
            return []
        path = folder / "subgroups.png"
        plot_subgroups(panels, path)
        return [path]

    def _column(self, scored: Scored, name: str, bootstrap: GroupBootstrap) -> dict[str, Any]:
        split = split_values(scored.column(f"subgroup.{name}"))
        rows = np.bincount(split.of_row, minlength=len(split.names))
        large = np.flatnonzero(rows >= self.min_rows)
        small = {split.names[k]: int(rows[k]) for k in np.flatnonzero(rows < self.min_rows).tolist()}
        named = dict(sorted(small.items(), key=lambda item: -item[1])[:_MOST_NAMED])
        told = {"binned": split.binned, "varying_groups": _varying(split, bootstrap)}
        told |= {"small": named, "more_small": len(small) - len(named)}
        if len(large) > MOST_SUBGROUPS:
            why = f"{len(large)} values have {self.min_rows} rows or more, and at most {MOST_SUBGROUPS} are compared: "
            return told | {
                "skipped": why + "join them in a coarser column",
                "subgroups": {},
                "compared": {},
                "gaps": [],
            }
        return told | self._compare(scored, split, large, bootstrap)

    def _compare(
        self, scored: Scored, split: Subgroups, large: NDArray[np.int64], bootstrap: GroupBootstrap
    ) -> dict[str, Any]:
        # All small ones are one subgroup, the last, which is in the permutations and never compared.
        place = np.full(len(split.names), len(large))
        place[large] = np.arange(len(large))
        subgroup, names = place[split.of_row].astype(np.int16), [split.names[k] for k in large]
        least = (self.min_rows, self.min_positives)
        main: list[tuple[str, Measures, list[str]]] = []
        decisions: list[tuple[str, Measures]] = []
        for task in scored.scores:
            common = (scored, task, subgroup, len(large) + 1, *least)
            main += [(task, _without_last(of), labels) for of, labels in main_measures(*common)]
            decisions += [(task, _without_last(of)) for of in decision_measures(*common)]
        permuted = permute_subgroups(subgroup, scored.groups, scored.ids, self.permutations, scored.seed)
        compared: dict[str, dict[str, Any]] = {}
        subgroups = _described(scored, names, subgroup)
        gaps: list[dict[str, Any]] = []
        if main:
            result = compare_subgroups([of for _, of, _ in main], subgroup, permuted, bootstrap)
            owner = [(task, labels) for task, of, labels in main for _ in of.names]
            there = np.concatenate([of.compared for _, of, _ in main], axis=1)
            for m, ((task, labels), (metric, _)) in enumerate(zip(owner, result.names, strict=True)):
                scores = {name: _score(result, k, m) for k, name in enumerate(names) if there[k, m]}
                compared.setdefault(task, {})[metric] = {"labels": labels, "subgroups": scores}
            gaps += _gaps("main", result, [task for task, _ in owner], there, names)
        if decisions:
            result = compare_subgroups([of for _, of in decisions], subgroup, permuted, bootstrap)
            tasks = [task for task, of in decisions for _ in of.names]
            there = np.concatenate([of.compared for _, of in decisions], axis=1)
            for m, (task, (metric, label)) in enumerate(zip(tasks, result.names, strict=True)):
                for k, name in enumerate(names):
                    subgroups[name]["scores"][task]["labels"][label][metric] = _score(result, k, m)
            gaps += _gaps("decisions", result, tasks, there, names)
        return {"subgroups": subgroups, "compared": compared, "gaps": gaps}


def _without_last(measures: Measures) -> Measures:
    measures.compared[-1] = False
    return measures


def _varying(split: Subgroups, bootstrap: GroupBootstrap) -> int:
    """Groups whose rows are of several subgroups."""
    pairs = np.unique(np.stack([bootstrap.row_group, split.of_row]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())


def _described(scored: Scored, names: Sequence[str], subgroup: Ints) -> dict[str, dict[str, Any]]:
    """By subgroup its rows, groups, and the scores of its rows as the report scores all rows."""
    groups, found = np.asarray(scored.groups), {}
    counts = {
        task: label_counts(scored, task, subgroup, len(names) + 1)
        for task in scored.scores
        if scored.kind(task).has_labels
    }
    for k, name in enumerate(names):
        rows = np.flatnonzero(subgroup == k)
        scores = scored.score(rows.tolist(), resamples=min(scored.resamples, _RESAMPLES))
        told = {task: {key: of[key] for key in ("n", "groups", "metrics") if key in of} for task, of in scores.items()}
        for task, (positives, negatives) in counts.items():
            of_label = zip(scored.kind(task).labels, positives[k].tolist(), negatives[k].tolist(), strict=True)
            told.setdefault(task, {"n": 0, "groups": 0, "metrics": {}})
            told[task]["labels"] = {label: {"positives": p, "negatives": n} for label, p, n in of_label}
        found[name] = {"rows": len(rows), "groups": len(set(groups[rows].tolist())), "scores": told}
    return found


def _score(result: Compared, k: int, m: int) -> dict[str, float | None]:
    return {
        "value": _number(result.values[k, m]),
        "low": _number(result.low[k, m]),
        "high": _number(result.high[k, m]),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _gaps(
    family: str, result: Compared, tasks: Sequence[str], compared: NDArray[np.bool_], names: Sequence[str]
) -> list[dict[str, Any]]:
    where = [m for m in range(len(tasks)) if compared[:, m].sum() > 1]
    return [
        _gap(family, gap, tasks[m], [names[k] for k in np.flatnonzero(compared[:, m]).tolist()], names)
        for gap, m in zip(result.gaps, where, strict=True)
    ]


def _gap(family: str, gap: Gap, task: str, compared: list[str], names: Sequence[str]) -> dict[str, Any]:
    numbers = {key: _number(getattr(gap, key)) for key in ("value", "low", "high", "chance", "p", "p_family")}
    return {
        "family": family,
        "task": task,
        "metric": gap.metric,
        "label": gap.label,
        "compared": compared,
        "highest": names[gap.highest],
        "lowest": names[gap.lowest],
        **numbers,
    }


def _correct(columns: list[list[dict[str, Any]]]) -> None:
    """Set `p_corrected` and `found` of gaps by column: Holm's correction over columns of what holds within each."""
    asked = [gaps for gaps in columns if any(gap["p_family"] is not None for gap in gaps)]
    asked.sort(key=lambda gaps: min(gap["p_family"] for gap in gaps))
    floor = 0.0
    for place, gaps in enumerate(asked):
        for gap in gaps:
            gap["p_corrected"] = min(1.0, max(floor, (len(asked) - place) * gap["p_family"]))
            gap["found"] = gap["p_corrected"] <= ALPHA
        floor = min(gap["p_corrected"] for gap in gaps)


def _panels(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is drawn: by score its subgroups of all columns, first what is compared first, then rates with a gap."""
    panels: dict[str, dict[str, Any]] = {}
    for column, of in found["columns"].items():
        for task, metrics in of["compared"].items():
            for metric, said in metrics.items():
                panel = panels.setdefault(f"{task}: {metric}", {})
                panel[column] = said["subgroups"]
    for _, gap in _found_rates(found):
        task, label, metric = gap["task"], gap["label"], gap["metric"]
        panels.setdefault(f"{task}: {metric} of {label}", {}).update(
            {column: _rates(of, task, label, metric) for column, of in found["columns"].items()}
        )
    return [{"title": title, "columns": columns} for title, columns in panels.items() if any(columns.values())][:6]


def _rates(of: Mapping[str, Any], task: str, label: str, metric: str) -> dict[str, Any]:
    """By subgroup of a column that is compared in a rate, the rate."""
    compared = next(
        (g["compared"] for g in of["gaps"] if (g["task"], g["label"], g["metric"]) == (task, label, metric)), []
    )
    return {name: of["subgroups"][name]["scores"][task]["labels"][label][metric] for name in compared}


def _found_rates(found: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Gaps of rates that are found, the surest first."""
    gaps = [(column, gap) for column, of in found["columns"].items() for gap in of["gaps"]]
    yield from sorted(
        ((c, g) for c, g in gaps if g["family"] == "decisions" and g.get("found")), key=lambda x: x[1]["p_corrected"]
    )
