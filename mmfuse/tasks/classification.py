from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mmfuse.registry import nearest
from mmfuse.tasks import TASKS
from mmfuse.tasks.kind import Array
from mmfuse.tasks.labels import LabelTask, labels_of
from mmfuse.tasks.spec import TaskSpec
from mmfuse.types import MISSING_CLASS, MmfuseError, SelectiveCurve

if TYPE_CHECKING:
    from mmfuse.metrics.scored import Scored


@TASKS.register("classification")
class Classification(LabelTask):
    """One class of several: a target is its number, -100 where missing; softmax makes probabilities of logits.

    Reference: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599, for the temperature.
    Differs: nothing.
    Prefer when: exactly one label is true of a row; `multilabel` where several may be.

    Attributes:
        cut: At an operating point of two classes the positive one and its threshold, else None.
    """

    monitor = "f1_macro"
    comparable = ("accuracy", "f1_macro", "auroc_macro", "average_precision_macro")
    diagnosed = ("accuracy", "f1_macro")
    fields: ClassVar[dict[str, pa.DataType]] = {"label": pa.string()}
    exclusive = True
    fewest = 2
    declared_stay = True
    abstained_type = pa.bool_()

    def __init__(self, labels: Sequence[str] = ()):
        super().__init__(labels)
        self.cut: tuple[int, float] | None = None

    @classmethod
    def example(cls) -> tuple[dict[str, Any], dict[str, Sequence[str]]]:
        """Three classes."""
        return {"column": "y"}, {"y": "a b _ c a b c a b c a b b a".replace("_", "").split(" ")}

    def check(self, spec: TaskSpec, where: str) -> None:
        """A class stands in one column."""
        if spec.column is None:
            raise MmfuseError(f"{where}: a classification needs column")
        super().check(spec, where)

    def read(self, frame: pd.DataFrame, spec: TaskSpec, where: str, first: int = 0) -> list[str | None]:
        """By row its class or None."""
        table, absent = spec.value_map, {"", *spec.missing}
        values: list[str | None] = []
        for row, cell in enumerate(frame[spec.named[0]], start=first + 1):
            raw = cell.strip() if isinstance(cell, str) else None
            if raw in absent:
                values.append(None)
            elif table is not None and raw in table:  # also one that is written like a list, such as [0, 10]
                values.append(table[raw])
            elif raw is None or labels_of(cell, where, row) is not None:
                way = "of several, type: multilabel; a class that is written so is named in values"
                raise MmfuseError(f"{where}: row {row}: a list, where one class is expected; {way}")
            elif table is None:
                values.append(raw)
            elif spec.other == "missing":
                values.append(None)
            else:
                raise MmfuseError(
                    f"{where}: row {row}: {raw!r} is not in values; {nearest(raw, table)} (or other: missing)"
                )
        return values

    def written(self, frame: pd.DataFrame, spec: TaskSpec, where: str, first: int = 0) -> list[Sequence[str]]:
        """As of all kinds."""
        absent = {"", *spec.missing}
        return [() if (cell := raw.strip()) in absent else (cell,) for raw in frame[spec.named[0]]]

    def count(self, found: Any, spec: TaskSpec) -> Counter[str]:
        """By class its rows."""
        return Counter(v for v in found if v is not None)

    def encode(self, found: Any, spec: TaskSpec) -> np.ndarray:
        """`(rows,)` int64; a class that is no label was left out as too rare, and is missing."""
        code = {name: i for i, name in enumerate(self.labels)}
        return np.array([MISSING_CLASS if v is None else code.get(v, MISSING_CLASS) for v in found], dtype=np.int64)

    def labelled(self, target: np.ndarray) -> NDArray[np.bool_]:
        """`(rows,)` bool."""
        return np.asarray(target != MISSING_CLASS)

    def undefined(self, target: np.ndarray) -> dict[str, str]:
        """Ranking needs two classes."""
        if len(np.unique(target[self.labelled(target)])) > 1:
            return {}
        return dict.fromkeys(("auroc_macro", "average_precision_macro"), "one class only")

    def one_hot(self, target: np.ndarray) -> Array:
        """`(rows, labels)`."""
        L = len(self.labels)
        return np.eye(L + 1)[np.where(target == MISSING_CLASS, L, target)][:, :L]

    def counted(self, target: np.ndarray) -> list[list[int]] | None:
        """Rows of each class."""
        return [np.bincount(target[self.labelled(target)], minlength=len(self.labels)).tolist()]

    def as_counted(self, counts: Sequence[Sequence[int]]) -> np.ndarray:
        """One class after the other."""
        return np.repeat(np.arange(len(self.labels)), counts[0])

    def shown(self, target: Any) -> str | None:
        """The class by name."""
        return None if target == MISSING_CLASS else self.labels[int(target)]

    def unshown(self, shown: Sequence[Any]) -> NDArray[np.int64]:
        """As of all kinds."""
        return np.array([MISSING_CLASS if name is None else self._place(name) for name in shown], dtype=np.int64)

    def _place(self, name: str) -> int:
        if name not in self.labels:
            raise MmfuseError(f"{name!r} is none of the classes; {nearest(name, self.labels)}")
        return self.labels.index(name)

    def mirrored(self, target: Any, mirror: NDArray[np.int64]) -> Any:
        """A missing class stays missing."""
        return target if target == MISSING_CLASS else mirror[target]

    @property
    def arrow(self) -> pa.DataType:
        """int64."""
        return pa.int64()

    def calibrate(self, said: np.ndarray, target: np.ndarray) -> None:
        """Fit the temperature."""
        from mmfuse.metrics.calibration import fit_temperature

        self.temperature = fit_temperature(said, target, "classification")

    def probabilities(self, logits: np.ndarray) -> Array:
        """Softmax of `logits (rows, labels)` over the temperature."""
        from scipy.special import softmax

        return softmax(logits.astype(np.float64) / self.temperature, axis=-1)

    def said(self, predicted: Array) -> NDArray[np.int64]:
        """The class that is said of each row of `(..., labels)`: the likeliest, but at an operating point."""
        if self.cut is None:
            return super().said(predicted)
        positive, threshold = self.cut
        return np.where(predicted[..., positive] >= threshold, positive, 1 - positive)

    def decide(self, predicted: Array) -> dict[str, Any]:
        """`label` and `probabilities` by name, of one row's `(labels,)`."""
        return {"label": self.labels[int(self.said(predicted))], "probabilities": self.named(predicted)}

    def score(
        self, predicted: Array, target: np.ndarray, groups: Sequence[str], resamples: int = 1000, seed: int = 0
    ) -> dict[str, Any]:
        """What `mmfuse.metrics.labels.score_classification` gives."""
        from mmfuse.metrics.labels import score_classification

        return score_classification(predicted, target, self.labels, groups, resamples, seed, self.said(predicted))

    def reread(self, told: Sequence[Mapping[str, Any]], target: np.ndarray) -> Scored:
        """As of all kinds."""
        from mmfuse.metrics.scored import Scored

        said = [self._place(one["label"]) for one in told]
        return Scored.of_classes(self.reread_probabilities(told), target, self.labels, said)

    def replicates(self, metric: str, predicted: Sequence[Array], target: np.ndarray, bootstrap: Any) -> Array:
        """As of all kinds; accuracy and F1 need the decisions alone, so all models share one pass over resamples."""
        from mmfuse.metrics.decisions import decision_replicates
        from mmfuse.metrics.labels import classification_replicates

        if metric in ("accuracy", "f1_macro"):
            return decision_replicates(
                metric, np.stack([self.said(p) for p in predicted]), target, self.labels, bootstrap
            )
        return np.array([classification_replicates(p, target, self.labels, bootstrap)[metric] for p in predicted])

    def prior(self, target: np.ndarray) -> Array:
        """The classes' frequencies."""
        counts = np.bincount(target[target != MISSING_CLASS], minlength=len(self.labels))
        return counts / counts.sum()

    def into(self, space: str, said: np.ndarray) -> Array:
        """Probabilities, or logits of mean 0: softmax does not see the mean."""
        from scipy.special import softmax

        logits = said.astype(np.float64)
        return softmax(logits, axis=1) if space == "probabilities" else logits - logits.mean(axis=1, keepdims=True)

    def out_of(self, space: str, values: Array) -> Array:
        """Logits of the average."""
        return values if space == "logits" else np.log(values.clip(np.finfo(np.float64).tiny, None))

    def figures(
        self, task: str, predicted: Array, target: np.ndarray, scores: dict[str, Any], folder: Path, plots: Any
    ) -> None:
        """Which class was taken for which."""
        plots.plot_confusion(scores["confusion"], self.labels, folder / f"confusion_{task}.png")

    def confidences(self, predicted: Array) -> Array:
        """`(rows, 1)`: the probability of the class."""
        return predicted.max(axis=-1, keepdims=True)

    def held(self, unsure: np.ndarray) -> list[bool]:
        """Whether the class is."""
        return unsure[:, 0].tolist()

    def curves(self, said: np.ndarray, target: np.ndarray) -> list[SelectiveCurve | None]:
        """One curve."""
        from mmfuse.metrics.calibration import selective_curve

        predicted = self.predictions(said)
        right = np.where(target == MISSING_CLASS, np.nan, self.said(predicted) == target)
        return [selective_curve(self.confidences(predicted)[:, 0], right)]
