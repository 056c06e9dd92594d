"""What kinds whose targets are labels with names have in common: labels are found, counted and chosen alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmfuse import cells
from mmfuse.cells import Cell
from mmfuse.registry import nearest
from mmfuse.tasks.kind import Array, TaskKind
from mmfuse.tasks.spec import KEYS, TaskSpec
from mmfuse.types import MmfuseError

if TYPE_CHECKING:
    from mmfuse.metrics.scored import Scored


class LabelTask(TaskKind):
    """Of labels with names; what is said are logits, and predictions are their probabilities.

    Attributes:
        temperature: Logits are divided by it before they become probabilities.
        thresholds: Per label, for decisions; None where the kind decides otherwise.
        fewest: How many labels a task needs.
        declared_stay: Whether a label that the manifest declares stays one though no row has it.
    """

    keys = frozenset(KEYS) - {"report_metrics", "language", "allow_copies", "section"}
    has_labels = True
    abstains = True
    fewest: ClassVar[int] = 1
    declared_stay: ClassVar[bool] = False

    def __init__(self, labels: Sequence[str] = ()):
        super().__init__(labels)
        self.temperature = 1.0
        self.thresholds: list[float] | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of `mmfuse.metrics.labels`, imported where something is scored: scikit-learn takes a second."""
        from mmfuse.metrics.labels import METRICS

        return METRICS

    @property
    def lower_is_better(self) -> frozenset[str]:
        """Of them."""
        from mmfuse.metrics.labels import LOWER_IS_BETTER

        return LOWER_IS_BETTER

    @classmethod
    def check_keys(cls, spec: TaskSpec, where: str) -> None:
        """As of all kinds, in words of their own where a key is for captions."""
        if spec.report_metrics or spec.allow_copies:
            raise MmfuseError(f"{where}: report_metrics and allow_copies are for captioning")
        if spec.section is not None:
            raise MmfuseError(f"{where}.section: {spec.section!r} is not legal; only captioning has one")
        super().check_keys(spec, where)

    def check(self, spec: TaskSpec, where: str) -> None:
        """Values are a list or a mapping, and go with one column."""
        if spec.columns and spec.values is not None:
            raise MmfuseError(f"{where}: values go with column; with columns they are 1, 0, -1 or empty")
        if not (spec.values is None or isinstance(spec.values, (list, dict))):
            raise MmfuseError(f'{where}.values: a list, or a mapping such as {{"Y": "yes"}}, is expected')

    def choose(
        self, counts: Counter[str], spec: TaskSpec, where: str, labels: Sequence[str] | None = None
    ) -> list[str]:
        """The label names: the model's if given (then nothing else may occur), else in the manifest's or sorted order.

        Labels of fewer rows than `min_count` are left out, but never one of a model's.

        Raises:
            MmfuseError: Too few labels are left, or one is not the model's.
        """
        table = spec.value_map
        if table is not None and (not self.declared_stay or spec.min_count > 1):
            counts = counts.copy()
            counts.update(dict.fromkeys(table.values(), 0))
        rare = {name for name, n in counts.items() if n < spec.min_count} - set(labels or ())
        found = set(counts) - rare
        if labels is not None:
            strange = sorted(found - set(labels))
            if strange:
                raise MmfuseError(
                    f"{where}: label {strange[0]!r} is not one of the model's; {nearest(strange[0], labels)}"
                )
            return list(labels)
        names = [name for name in (dict.fromkeys(table.values()) if table else sorted(found)) if name not in rare]
        if not any(counts.values()):
            raise MmfuseError(
                f"{where}: no row has a label: {', '.join(spec.named)[:200]} is empty or negative in every row"
            )
        if len(names) < self.fewest:
            raise MmfuseError(f"{where}: only {names} is left as label; a task needs more (see values, min_count)")
        return names

    def state(self) -> dict[str, Any]:
        """Temperature and thresholds."""
        return {"temperature": self.temperature, "thresholds": self.thresholds}

    def load_state(self, state: dict[str, Any], where: str) -> None:
        """As of all kinds."""
        temperature, thresholds = state["temperature"], state["thresholds"]
        if not (_is_number(temperature) and temperature > 0):
            raise MmfuseError(f"{where}.temperature: {temperature!r:.100}: a number above 0 is expected")
        if thresholds is not None and not (
            len(thresholds) == len(self.labels) and all(map(_is_number, thresholds)) and self.has_labels
        ):
            raise MmfuseError(f"{where}.thresholds: {thresholds!r:.100}: {len(self.labels)} numbers are expected")
        self.temperature = temperature
        if thresholds is not None:
            self.thresholds = thresholds

    def predictions(self, said: np.ndarray) -> Array:
        """Probabilities `(rows, labels)` in [0, 1]."""
        return self.probabilities(said)

    def probabilities(self, logits: np.ndarray) -> Array:
        """Of logits `(rows, labels)`, at the temperature."""
        raise NotImplementedError

    def said(self, predicted: Array) -> NDArray[Any]:
        """What is said of rows of probabilities `(..., labels)`: a class' number, or of each label 0 or 1."""
        if self.exclusive:
            return predicted.argmax(axis=-1)
        return (predicted >= np.asarray(self.thresholds)).astype(np.float64)

    def scored(self, predicted: Array, target: np.ndarray) -> Scored:
        """As of all kinds."""
        from mmfuse.metrics.scored import Scored

        rows = np.flatnonzero(self.labelled(target))
        known, truth = self.known(target[rows]), self.one_hot(target[rows])
        true = truth.argmax(axis=1) if self.exclusive else np.where(known, truth, np.nan)
        return Scored(true, self.said(predicted[rows]), tuple(self.labels), predicted[rows], rows)

    def weighted(self, scored: Scored, bootstrap: Any) -> dict[str, Array]:
        """As of all kinds."""
        from mmfuse.metrics.labels import METRICS, weighted_scores

        drawn = bootstrap.replicate(weighted_scores(scored.outcomes, bootstrap))
        return {name: drawn[name] for name in METRICS}

    def values(self, metrics: Iterable[str], predicted: np.ndarray, target: np.ndarray) -> dict[str, float]:
        """As of all kinds."""
        found = self.score(predicted, target, [""] * len(target), resamples=0)["metrics"]
        values = {name: found[name]["value"] for name in metrics}
        return {name: math.nan if value is None else value for name, value in values.items()}

    def named(self, probabilities: Array) -> dict[str, float]:
        """One row's probabilities by label, as files of predictions have them."""
        return {name: round(float(p), 6) for name, p in zip(self.labels, probabilities, strict=True)}

    def reread_probabilities(self, told: Sequence[Mapping[str, Any]]) -> Array:
        """`(rows, labels)`, of what `decide` gave.

        Raises:
            MmfuseError: A row has other labels, or a probability is none.
        """
        for one in told:
            if set(one["probabilities"]) != set(self.labels):
                raise MmfuseError(
                    f"predictions are of the labels {', '.join(one['probabilities'])}; {', '.join(self.labels)} are "
                    "expected"
                )
        found = np.array([[one["probabilities"][name] for name in self.labels] for one in told], np.float64)
        found = found.reshape(len(told), len(self.labels))
        wrong = found[~((found >= 0) & (found <= 1))]
        if len(wrong):
            raise MmfuseError(f"{wrong[0]:g} is no probability")
        return found

    def unflat(self, task: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """As of all kinds; labels are in the order of the columns."""
        begin = f"{task}.p."
        probabilities = {name.removeprefix(begin): float(p) for name, p in row.items() if name.startswith(begin)}
        return {**super().unflat(task, row), "probabilities": probabilities}

    def columns(self, task: str, abstains: bool = False) -> list[tuple[str, pa.DataType]]:
        """The decision, what is held back of it, and a probability a label: `TASK.p.LABEL`."""
        found = super().columns(task)
        if abstains:
            found.append((f"{task}.abstained", self.abstained_type))
        return [*found, *((f"{task}.p.{label}", pa.float64()) for label in self.labels)]

    @property
    def abstained_type(self) -> pa.DataType:
        """Of the column that says what is held back."""
        raise NotImplementedError

    def flat(self, task: str, decided: dict[str, Any]) -> dict[str, Any]:
        """Labels joined by `;`, and the probabilities."""
        row = {f"{task}.{name}": _joined(decided[name]) for name in self.fields}
        if "abstained" in decided:
            row[f"{task}.abstained"] = _joined(decided["abstained"])
        return row | {f"{task}.p.{label}": p for label, p in decided["probabilities"].items()}


def _joined(value: Any) -> Any:
    return ";".join(value) if isinstance(value, list) else value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def labels_of(cell: Cell, where: str, row: int) -> list[str] | None:
    """The labels that a list in a cell says, None where it is no list.

    Raises:
        MmfuseError: It is not legal as one.
    """
    try:
        return cells.labels(cell)
    except MmfuseError as error:
        raise MmfuseError(f"{where}: row {row}: {error}") from error
