from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mmfuse import cells
from mmfuse.cells import Cell
from mmfuse.registry import nearest
from mmfuse.tasks import TASKS
from mmfuse.tasks.kind import Array
from mmfuse.tasks.labels import LabelTask, labels_of
from mmfuse.tasks.spec import TaskSpec
from mmfuse.types import MmfuseError, SelectiveCurve

if TYPE_CHECKING:
    from mmfuse.metrics.scored import Scored

_POSITIVE, _NEGATIVE, _UNCERTAIN = {"1", "1.0", "yes", "true"}, {"0", "0.0", "no", "false"}, {"-1", "-1.0"}


@TASKS.register("multilabel")
class Multilabel(LabelTask):
    """Any number of labels: a target is 1, 0 or NaN a label; a sigmoid each makes probabilities, thresholds decide.

    Reference: Lipton et al. 2014, "Thresholding Classifiers to Maximize F1 Score", arXiv 1402.1892.
    Differs: nothing.
    Prefer when: several findings may be true of a row, or the target of some is not known.
    """

    monitor = "auroc_macro"
    comparable = ("auroc_macro", "average_precision_macro")
    diagnosed = ("accuracy", "auroc_macro")
    fields: ClassVar[dict[str, pa.DataType]] = {"labels": pa.string()}
    abstained_type = pa.string()

    def __init__(self, labels: Sequence[str] = ()):
        super().__init__(labels)
        self.thresholds: list[float] = [0.5] * len(self.labels)

    @classmethod
    def example(cls) -> tuple[dict[str, Any], dict[str, Sequence[str]]]:
        """Three labels, one of them unknown of some rows."""
        columns = {"a": "10_11010110010", "b": "01_01100101011", "c": "1__0__01011100"}
        return {"columns": list(columns)}, {name: [c.strip("_") for c in cells] for name, cells in columns.items()}

    def read(self, frame: pd.DataFrame, spec: TaskSpec, where: str, first: int = 0) -> Any:
        """By row its labels or None; of label columns `(rows, columns)` float32 with NaN where missing."""
        if spec.columns:
            return _read_columns(frame, spec.columns, spec, where, first)
        return _read_lists(list(frame[spec.named[0]]), spec, where, first)

    def written(self, frame: pd.DataFrame, spec: TaskSpec, where: str, first: int = 0) -> list[Sequence[str]]:
        """As of all kinds."""
        return [found or () for found in self.read(frame, replace(spec, values=None, other="missing"), where, first)]

    def count(self, found: Any, spec: TaskSpec) -> Counter[str]:
        """By label its positive rows."""
        if spec.columns:
            return Counter(dict(zip(spec.columns, (found == 1).sum(0).tolist(), strict=True)))
        return Counter(label for labels in found if labels for label in set(labels))

    def encode(self, found: Any, spec: TaskSpec) -> np.ndarray:
        """`(rows, labels)` float32; what is no label was left out as too rare."""
        if spec.columns:
            column = {name: found[:, i] for i, name in enumerate(spec.columns)}
            empty = np.full(len(found), np.nan, dtype=np.float32)
            return np.stack([column.get(name, empty) for name in self.labels], axis=1)
        code = {name: i for i, name in enumerate(self.labels)}
        targets = np.zeros((len(found), len(self.labels)), dtype=np.float32)
        for i, labels in enumerate(found):
            if labels is None:
                targets[i] = np.nan
            else:
                targets[i, [code[label] for label in labels if label in code]] = 1
        return targets

    def labelled(self, target: np.ndarray) -> NDArray[np.bool_]:
        """`(rows,)` bool: any label is known."""
        return np.asarray(~np.isnan(target).all(axis=1))

    def known(self, target: np.ndarray) -> NDArray[np.bool_]:
        """`(rows, labels)` bool."""
        return ~np.isnan(target)

    def undefined(self, target: np.ndarray) -> dict[str, str]:
        """Ranking needs a label with rows that have it and rows that do not, F1 a row that has one."""
        positive, negative = (target == 1).any(axis=0), (target == 0).any(axis=0)
        found: dict[str, str] = {}
        if not (positive & negative).any():
            found |= dict.fromkeys(("auroc_macro", "average_precision_macro"), "no label has rows with and without it")
        if not positive.any():
            found |= dict.fromkeys(("f1_macro", "f1_micro"), "no row has a label")
        return found

    def one_hot(self, target: np.ndarray) -> Array:
        """`(rows, labels)`."""
        return np.nan_to_num(target.astype(np.float64))

    def counted(self, target: np.ndarray) -> list[list[int]] | None:
        """Rows with each label, and without it."""
        return [(target == 1).sum(axis=0).tolist(), (target == 0).sum(axis=0).tolist()]

    def as_counted(self, counts: Sequence[Sequence[int]]) -> np.ndarray:
        """Of each label those with it, those without it, and unknown ones."""
        positive, negative = np.array(counts)
        row = np.arange(int((positive + negative).max(initial=0)))[:, None]
        found = np.where(row < positive, 1.0, np.where(row < positive + negative, 0.0, np.nan))
        return found.astype(np.float32)

    def shown(self, target: Any) -> dict[str, list[str]] | None:
        """The labels that are true, and those that are unknown."""
        if np.isnan(target).all():
            return None
        return {
            "labels": [name for name, value in zip(self.labels, target, strict=True) if value == 1],
            "unknown": [name for name, value in zip(self.labels, target, strict=True) if np.isnan(value)],
        }

    def unshown(self, shown: Sequence[Any]) -> np.ndarray:
        """As of all kinds."""
        targets = np.full((len(shown), len(self.labels)), np.nan, dtype=np.float32)
        for row, one in enumerate(shown):
            if one is not None:
                targets[row] = self._among(one["labels"])
                targets[row, self._among(one["unknown"]) == 1] = np.nan
        return targets

    def _among(self, names: Sequence[str]) -> Array:
        """`(labels,)` 0 or 1: which ones are named."""
        strange = set(names) - set(self.labels)
        if strange:
            raise MmfuseError(f"{min(strange)!r} is none of the labels; {nearest(min(strange), self.labels)}")
        return np.array([name in names for name in self.labels], dtype=np.float64)

    def mirrored(self, target: Any, mirror: NDArray[np.int64]) -> Any:
        """`(labels,)`."""
        return target[mirror]

    @property
    def arrow(self) -> pa.DataType:
        """A list of float32."""
        return pa.list_(pa.float32())

    def from_arrow(self, column: pa.ChunkedArray) -> np.ndarray:
        """`(rows, labels)`."""
        return column.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)

    def calibrate(self, said: np.ndarray, target: np.ndarray) -> None:
        """Fit the temperature, and tune the thresholds at it."""
        from mmfuse.metrics.calibration import fit_temperature, tune_thresholds

        self.temperature = fit_temperature(said, target, "multilabel")
        self.thresholds = [float(t) for t in tune_thresholds(self.probabilities(said), target)]

    def probabilities(self, logits: np.ndarray) -> Array:
        """Sigmoid of `logits (rows, labels)` over the temperature."""
        from scipy.special import expit

        return expit(logits.astype(np.float64) / self.temperature)

    def decide(self, predicted: Array) -> dict[str, Any]:
        """`labels` above their thresholds and `probabilities` by name, of one row's `(labels,)`."""
        return {
            "labels": [name for name, said in zip(self.labels, self.said(predicted), strict=True) if said],
            "probabilities": self.named(predicted),
        }

    def score(
        self, predicted: Array, target: np.ndarray, groups: Sequence[str], resamples: int = 1000, seed: int = 0
    ) -> dict[str, Any]:
        """What `mmfuse.metrics.labels.score_multilabel` gives."""
        from mmfuse.metrics.labels import score_multilabel

        return score_multilabel(predicted, target, self.labels, groups, self.thresholds, resamples, seed)

    def reread(self, told: Sequence[Mapping[str, Any]], target: np.ndarray) -> Scored:
        """As of all kinds."""
        from mmfuse.metrics.scored import Scored

        said = np.array([self._among(one["labels"]) for one in told]).reshape(-1, len(self.labels))
        rows = np.flatnonzero(self.labelled(target))
        target = np.asarray(target, np.float64)
        return Scored(target[rows], said[rows], tuple(self.labels), self.reread_probabilities(told)[rows], rows)

    def unflat(self, task: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Labels that were joined by `;` are a list again."""
        found = super().unflat(task, row)
        return found | {"labels": [name for name in found["labels"].split(";") if name]}

    def replicates(self, metric: str, predicted: Sequence[Array], target: np.ndarray, bootstrap: Any) -> Array:
        """As of all kinds."""
        from mmfuse.metrics.labels import multilabel_replicates

        drawn = (multilabel_replicates(p, target, self.labels, self.thresholds, bootstrap) for p in predicted)
        return np.array([each[metric] for each in drawn])

    def prior(self, target: np.ndarray) -> Array:
        """The share of each label's known rows that have it."""
        return np.nansum(target, axis=0) / np.maximum((~np.isnan(target)).sum(axis=0), 1)

    def uncalibrated(self) -> Multilabel:
        """With thresholds of 0.5."""
        return Multilabel(self.labels)

    def into(self, space: str, said: np.ndarray) -> Array:
        """Each label is a choice between yes and no."""
        from scipy.special import expit

        logits = said.astype(np.float64)
        return expit(logits) if space == "probabilities" else logits

    def out_of(self, space: str, values: Array) -> Array:
        """Logits of the average."""
        from scipy.special import logit

        tiny, one = np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).epsneg
        return values if space == "logits" else logit(values.clip(tiny, one))

    def confidences(self, predicted: Array) -> Array:
        """`(rows, labels)`: how far a probability is on the way from its threshold `t` to certainty.

        `1/2 + (p - t) / (2 (1 - t))` of a yes, `1/2 + (t - p) / (2 t)` of a no; at `t` = 1/2 the larger of p and 1 - p.
        """
        threshold = np.broadcast_to(np.asarray(self.thresholds), predicted.shape)
        room = np.where(predicted >= threshold, 1 - threshold, threshold)
        way = np.divide(abs(predicted - threshold), room, out=np.ones_like(predicted), where=room > 0)
        return 0.5 + 0.5 * way

    def held(self, unsure: np.ndarray) -> list[list[str]]:
        """The labels that are."""
        return [[name for name, held in zip(self.labels, row, strict=True) if held] for row in unsure]

    def curves(self, said: np.ndarray, target: np.ndarray) -> list[SelectiveCurve | None]:
        """A curve a label."""
        from mmfuse.metrics.calibration import selective_curve

        predicted = self.predictions(said)
        right = np.where(np.isnan(target), np.nan, (predicted >= self.thresholds) == target)
        return [selective_curve(*column) for column in zip(self.confidences(predicted).T, right.T, strict=True)]


def _read_lists(column: list[Cell], spec: TaskSpec, where: str, first: int) -> list[list[str] | None]:
    table, absent, separator = spec.value_map, set(spec.missing), (spec.separator or "").strip() or spec.separator
    rows: list[list[str] | None] = []
    for row, cell in enumerate(column, start=first + 1):
        found = labels_of(cell, where, row)
        if found is None:
            raw = str(cell).strip()
            if raw and raw not in absent and not separator:
                raise MmfuseError(
                    f"{where}.separator is missing: row {row} is a text, not a list; name the separator of the labels, "
                    "such as ';'"
                )
            found = [part.strip() for part in raw.split(separator) if part.strip()] if raw else []
            known = raw not in absent
        else:
            known = True
        known = known and not (found and absent.issuperset(found))
        found = [part for part in found if part not in absent]
        if not known or (not found and spec.empty == "missing"):
            rows.append(None)
            continue
        strange = [part for part in found if table is not None and part not in table]
        if strange and spec.other == "error":
            raise MmfuseError(
                f"{where}: row {row}: {strange[0]!r} is not in values; {nearest(strange[0], table or [])}"
            )
        rows.append([table[part] if table else part for part in found if part not in strange])
    return rows


def _read_columns(frame: pd.DataFrame, columns: Sequence[str], spec: TaskSpec, where: str, first: int) -> np.ndarray:
    uncertain = {"mask": np.nan, "positive": 1.0, "negative": 0.0}[spec.uncertain]
    absent = {"", *spec.missing}
    values = np.full((len(frame), len(columns)), np.nan, dtype=np.float32)
    for column, name in enumerate(columns):
        for row, raw in enumerate(cells.texts(frame, name, where, "columns", first)):
            raw = raw.strip()
            if not raw and spec.empty == "negative":
                values[row, column] = 0.0
            elif raw in absent:
                continue
            elif raw.lower() in _POSITIVE or raw.lower() in _NEGATIVE:
                values[row, column] = raw.lower() in _POSITIVE
            elif raw in _UNCERTAIN:
                values[row, column] = uncertain
            else:
                raise MmfuseError(
                    f"{where}: column {name!r}, row {first + row + 1}: {raw!r}; legal: 1, 0, -1 (uncertain), empty"
                )
    return values
