"""What a target is: the base of all task kinds, of which one number a row is the plainest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mmfuse import cells
from mmfuse.registry import nearest
from mmfuse.tasks.spec import TaskSpec
from mmfuse.types import MmfuseError, SelectiveCurve

if TYPE_CHECKING:
    from mmfuse.metrics.scored import Scored

Array = NDArray[np.float64]


class TaskKind:
    """What the target of a row is: read, encoded, said, decided and scored.

    A subclass that is registered in `TASKS` under NAME serves `type: NAME` of a manifest, and a head registered under
    the same name in `mmfuse.heads.HEADS` learns it. The arguments of its constructor beside `labels` are keys that such
    a task may hold in a manifest. As it stands here a target is one number a row, NaN where missing, and a head says
    one number of it; a kind overrides what differs.

    A row passes through it so: `read` makes values of cells, `encode` a target of values; a head says something of a
    row (a row of logits), `predictions` makes of that what is scored by `measure` and told by `decide`.

    Args:
        labels: The label names in the order of the logits; empty of kinds without any, and while they are not known.

    Attributes:
        keys: Of a manifest's task the keys that it reads beside `type` and `label_origin`; another one is refused.
        has_labels: Whether targets are of labels with names, so that they can be counted, stratified by and balanced.
        exclusive: Whether exactly one label is true of a row.
        is_text: Whether targets are texts that someone wrote, which a model must not find in its input.
        abstains: Whether a decision has a confidence, below which it can be held back.
        one_a_group: Whether `calibrate` is given one row of each group: rows of a group are no evidence on another.
        metrics: The names of what `measure` gives.
        lower_is_better: Those of them of which less is better.
        monitor: The metric that early stopping watches by default.
        comparable: Metrics that a benchmark may compare by: nothing is in them that each cell has chosen for itself.
        units: Of metrics that are no shares their unit, "" where it is not known: differences are told in it, not in
            points.
        ranges: Of metrics their lowest and highest value; one that is not here may have any, and its interval too.
        diagnosed: Metrics, of which more is better, that the contribution of each modality is told in; the first one
            is shown.
        fields: Of a decision the parts that a table of predictions holds, with their types.
        labels: The label names.
    """

    keys: ClassVar[frozenset[str]] = frozenset({"column", "missing"})
    has_labels: ClassVar[bool] = False
    exclusive: ClassVar[bool] = False
    is_text: ClassVar[bool] = False
    abstains: ClassVar[bool] = False
    one_a_group: ClassVar[bool] = False
    metrics: tuple[str, ...] = ()
    lower_is_better: frozenset[str] = frozenset()
    monitor: str = ""
    comparable: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = MappingProxyType({})
    diagnosed: tuple[str, ...] = ()
    fields: ClassVar[dict[str, pa.DataType]] = {"value": pa.float64()}

    def __init__(self, labels: Sequence[str] = ()):
        self.labels = list(labels)
        self.units: dict[str, str] = {}

    @classmethod
    def example(cls) -> tuple[dict[str, Any], dict[str, Sequence[str]]]:
        """A task of this kind as a manifest has it, and columns of cells that it reads, for its conformance suite.

        At least 12 rows whose targets differ; the third row has none.
        """
        return {"column": "y"}, {"y": "3 1 _ 0 2 5 1 0 4 2 1 3 0 6".replace("_", "").split(" ")}

    @property
    def width(self) -> int:
        """How many numbers a linear head says of a row."""
        return len(self.labels) if self.has_labels else 1

    # ---- reading: what a manifest and its cells say

    @classmethod
    def check_keys(cls, spec: TaskSpec, where: str) -> None:
        """Refuse keys of a manifest's task that this kind does not read.

        Raises:
            MmfuseError: The message begins with `where`.
        """
        legal = {*cls.keys, "type", "label_origin"}
        for name in spec.changed():
            if name not in legal:
                raise MmfuseError(f"{where}.{name}: not for {spec.type}; {nearest(name, sorted(legal))}")

    def check(self, spec: TaskSpec, where: str) -> None:
        """Refuse what is not legal of a manifest's task beside its keys.

        Raises:
            MmfuseError: The message begins with `where`, and names the key and the fix.
        """

    def read(self, frame: pd.DataFrame, spec: TaskSpec, where: str, first: int = 0) -> Any:
        """What some rows say, in values that are not yet encoded.

        Args:
            frame: The rows.
            spec: Of the task.
            where: The manifest and the task; errors begin with it.
            first: The number of the first row, from 0; named in errors.

        Returns:
            By row its value, None or NaN where missing; here `(rows,)` float64.

        Raises:
            MmfuseError: A value is not legal.
        """
        [column], absent = spec.named, {"", *spec.missing}
        values = np.full(len(frame), np.nan)
        for row, cell in enumerate(cells.texts(frame, column, where, "column", first)):
            raw = cell.strip()
            if raw in absent:
                continue
            try:
                values[row] = self.number(raw)
            except ValueError as error:
                raise MmfuseError(
                    f"{where}: column {column!r}, row {first + row + 1}: {str(error) or 'not legal'} "
                    "(what means that there is none is named in missing)"
                ) from error
        return values

    def number(self, raw: str) -> float:
        """The number that a cell says.

        Raises:
            ValueError: It is none that this kind knows; the message says what is.
        """
        try:
            value = float(raw)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{raw!r} is not a finite number")
        return value

    def count(self, found: Any, spec: TaskSpec) -> Counter[str]:
        """Of what `read` gave, what `choose` needs to know of all rows: by label its positive rows, or a total."""
        return Counter(rows=int(self.labelled(np.asarray(found)).sum()))

    def choose(
        self, counts: Counter[str], spec: TaskSpec, where: str, labels: Sequence[str] | None = None
    ) -> list[str]:
        """The label names; none of a kind without any.

        Args:
            counts: Of all rows, as `count` gives them, added up over blocks.
            spec: Of the task.
            where: Errors begin with it.
            labels: A model's, which are to be taken.

        Raises:
            MmfuseError: No row has a target, or what they say is not the model's.
        """
        if not counts["rows"]:
            raise MmfuseError(f"{where}: no row has a value: {', '.join(spec.named)[:200]} is empty in every row")
        return []

    def encode(self, found: Any, spec: TaskSpec) -> np.ndarray:
        """What `read` gave as `Table.targets` has it, `(rows, ...)`; what is missing stays missing."""
        return np.asarray(found, dtype=np.float32)

    def labelled(self, target: np.ndarray) -> NDArray[np.bool_]:
        """`(rows,)` bool: which rows of encoded targets say anything."""
        return ~np.isnan(target)

    def known(self, target: np.ndarray) -> NDArray[np.bool_]:
        """`(rows, 1)` bool, or `(rows, labels)` where each is known or not by itself."""
        return self.labelled(target)[:, None]

    def written(self, frame: pd.DataFrame, spec: TaskSpec, where: str, first: int = 0) -> Iterable[Sequence[str]]:
        """By row the labels or texts as they stand there, before the manifest translates them; arguments as of `read`.

        It is asked of kinds with labels that read one column, and of texts.
        """
        return ((),) * len(frame)

    def describe(self, target: np.ndarray) -> str:
        """What encoded targets are like, of a kind without labels: a phrase of an audit."""
        there = target[self.labelled(target)]
        spread = f", {there.min():g} to {there.max():g}, median {np.median(there):g}" if len(there) else ""
        return f"{len(there)} rows with a value{spread}"

    def undefined(self, target: np.ndarray) -> dict[str, str]:
        """The metrics that are undefined on encoded targets of which some row is labelled, each with the reason."""
        return {}

    def one_hot(self, target: np.ndarray) -> Array:
        """Encoded targets as `(rows, labels)` 0 or 1; a missing one is 0 everywhere."""
        return np.zeros((len(target), 0))

    def shown(self, target: Any) -> Any:
        """One row's encoded target as JSON, by name; None where it is missing."""
        return None if np.isnan(target) else float(target)

    def unshown(self, shown: Sequence[Any]) -> np.ndarray:
        """Encoded targets of what `shown` gave of some rows."""
        return np.array([math.nan if one is None else float(one) for one in shown], dtype=np.float32)

    def stated(self, text: str, target: Any) -> bool:
        """Whether a text says one row's encoded target in so many words, so that it need not be learned."""
        return False

    def mirrored(self, target: Any, mirror: NDArray[np.int64]) -> Any:
        """One row's encoded target as it is true of the mirrored picture; of a kind with labels.

        Args:
            target: As `encode` gave it.
            mirror: `(labels,)` which label each one is there.
        """
        raise NotImplementedError(f"{type(self).__name__}.mirrored")

    @property
    def arrow(self) -> pa.DataType:
        """The type of an encoded target in a shard."""
        return pa.float32()

    def from_arrow(self, column: pa.ChunkedArray) -> np.ndarray:
        """A column of a shard as `encode` gave it."""
        return column.to_numpy()

    # ---- what is taken from rows

    def counted(self, target: np.ndarray) -> list[list[int]] | None:
        """`(1 or 2, labels)` rows in which each label is there, and is not, for the index of shards; None: of no use.

        Args:
            target: `(rows, ...)`, encoded.
        """
        return None

    def as_counted(self, counts: Sequence[Sequence[int]]) -> np.ndarray:
        """Targets, encoded, of which `counted` gives these counts: for weights that depend on nothing else."""
        raise NotImplementedError

    def fit(self, targets: Callable[[], np.ndarray]) -> None:
        """Take what is needed from the encoded targets of the training split, before anything is trained.

        Args:
            targets: Reads them; call it only where they are needed, as they may lie in shards.
        """

    def calibrate(self, said: np.ndarray, target: np.ndarray) -> None:
        """Set what makes of what is said a prediction (a temperature, thresholds) by validation rows.

        Args:
            said: `(rows, width)`.
            target: `(rows, ...)`, encoded.
        """

    def state(self) -> dict[str, Any]:
        """What `fit` and `calibrate` have set, as JSON; a model folder keeps it."""
        return {}

    def load_state(self, state: dict[str, Any], where: str) -> None:
        """Set it as it was.

        Raises:
            MmfuseError: A value is not legal; the message begins with `where`.
        """

    # ---- saying: what a head's output means

    def predictions(self, said: np.ndarray) -> np.ndarray:
        """What a head says of some rows, `(rows, width)`, as what is scored and decided, `(rows, ...)`."""
        return said[:, 0].astype(np.float64)

    def decide(self, predicted: Any) -> dict[str, Any]:
        """One row of `predictions` as what a file of predictions says of it; JSON."""
        return {"value": float(f"{predicted:.6g}")}

    def measure(self, predicted: np.ndarray, target: np.ndarray, times: Array) -> dict[str, float]:
        """The metrics of some rows, NaN where undefined.

        Args:
            predicted: `(n, ...)` of `predictions`.
            target: `(n, ...)` encoded, all labelled.
            times: `(n,)` how often each row counts: 1, or how often a resample has it.
        """
        raise NotImplementedError(f"{type(self).__name__}.measure")

    def score(
        self, predicted: np.ndarray, target: np.ndarray, groups: Sequence[str], resamples: int = 1000, seed: int = 0
    ) -> dict[str, Any]:
        """The scores of some rows, with 95 % intervals for groups like theirs.

        Args:
            predicted: `(rows, ...)` of `predictions`.
            target: `(rows, ...)` encoded; rows without a target are left out.
            groups: `(rows,)`.
            resamples: 0 for no intervals.
            seed: Of the lot by which groups are left out together, where there are many.

        Returns:
            `n` labelled rows, their `groups`, and `metrics`: by name `{"value", "low", "high"}`, None where undefined,
            and a `note` where there is something to say.

        Raises:
            MmfuseError: No row has a target.
        """
        from mmfuse.metrics.basis import basis_of_rows
        from mmfuse.metrics.bootstrap import GroupJackknife
        from mmfuse.metrics.intervals import ANYWHERE, score_of

        there = self.labelled(target)
        if not there.any():
            raise MmfuseError(f"nothing to score: none of the {len(target)} rows has a target")
        predicted, target = predicted[there], target[there]
        jackknife = GroupJackknife(np.asarray(groups, dtype=str)[there], resamples, seed)
        values = self.measure(predicted, target, np.ones(len(target)))
        left_out = self._resampled(list(values), predicted, target, jackknife) if jackknife.resamples else {}
        basis = basis_of_rows(jackknife)
        metrics = {
            name: score_of(value, left_out.get(name, []), basis, self.ranges.get(name, ANYWHERE))
            for name, value in values.items()
        }
        return {"n": len(target), "groups": jackknife.num_groups, "metrics": metrics}

    def told(self, scores: dict[str, Any]) -> list[str]:
        """Sentences that the printed report has of what `score` gave, beside the table of the metrics; none here."""
        return []

    def scored(self, predicted: np.ndarray, target: np.ndarray) -> Scored:
        """What metrics that are chosen by name (`mmfuse.metrics.METRICS`) see of some rows; arguments as of `score`."""
        from mmfuse.metrics.scored import Scored

        rows = np.flatnonzero(self.labelled(target))
        return Scored(target[rows], predicted[rows], (), None, rows)

    def reread(self, told: Sequence[Mapping[str, Any]], target: np.ndarray) -> Scored:
        """What files of predictions say of some rows, as `scored` has it.

        Args:
            told: By row what `decide` gave.
            target: `(rows, ...)` encoded.

        Raises:
            MmfuseError: It is not what this kind says.
        """
        try:
            predicted = np.array([float(one["value"]) for one in told])
        except (KeyError, TypeError, ValueError) as error:
            raise MmfuseError(f"{type(self).__name__} cannot read predictions of a file: no number 'value'") from error
        if not np.isfinite(predicted).all():
            raise MmfuseError(f"{predicted[~np.isfinite(predicted)][0]:g} is not a finite number")
        return self.scored(predicted, target)

    def weighted(self, scored: Scored, bootstrap: Any) -> dict[str, Array]:
        """Every metric that resamples of rows have, under each resample, `(B,)`; NaN where undefined.

        Args:
            scored: As `scored` or `reread` gave it.
            bootstrap: A `GroupBootstrap` over the groups of its rows.
        """
        return self._resampled(self.metrics, scored.decided, scored.target, bootstrap)

    def values(self, metrics: Iterable[str], predicted: np.ndarray, target: np.ndarray) -> dict[str, float]:
        """Some metrics without their intervals; NaN where undefined, rows without a target are left out."""
        there = self.labelled(target)
        found = self.measure(predicted[there], target[there], np.ones(int(there.sum())))
        return {name: float(found[name]) for name in metrics}

    def replicates(self, metric: str, predicted: Sequence[np.ndarray], target: np.ndarray, bootstrap: Any) -> Array:
        """One metric of several models under every resample, the same ones for all, so that differences are paired.

        Args:
            metric: One of `comparable`.
            predicted: By model `(rows, ...)`.
            target: `(rows, ...)` encoded, all labelled.
            bootstrap: A `GroupBootstrap` over the rows' groups.

        Returns:
            `(models, resamples)`.
        """
        return np.stack([self._resampled([metric], each, target, bootstrap)[metric] for each in predicted])

    def _resampled(
        self, names: Iterable[str], predicted: np.ndarray, target: np.ndarray, bootstrap: Any
    ) -> dict[str, Array]:
        def metrics(times: Array) -> dict[str, Array]:
            found = [self.measure(predicted, target, of[bootstrap.row_group]) for of in times]
            return {name: np.array([each[name] for each in found], dtype=np.float64) for name in names}

        return bootstrap.replicate(metrics)

    def prior(self, target: np.ndarray) -> np.ndarray:
        """One row of `predictions` that says of every row the same: the best that training targets alone allow."""
        return np.asarray(np.nanmean(target.astype(np.float64)))

    def uncalibrated(self) -> TaskKind:
        """The same without what `calibrate` has set for one model's decisions."""
        return self

    def into(self, space: str, said: np.ndarray) -> Array:
        """What is said as what is averaged where a fusion is projected to an additive one.

        Args:
            space: "logits" or "probabilities", in which the fusion adds.
            said: `(n, width)`.
        """
        return said.astype(np.float64)

    def out_of(self, space: str, values: Array) -> Array:
        """The average, as if a head said it."""
        return values

    def figures(
        self, task: str, predicted: np.ndarray, target: np.ndarray, scores: dict[str, Any], folder: Path, plots: Any
    ) -> None:
        """Draw, as PNG into a folder, what shows how good predictions are; nothing is here.

        Args:
            task: Its name, for names of files.
            predicted: `(n, ...)` of `predictions`.
            target: `(n, ...)` encoded, all labelled.
            scores: What `score` gave.
            folder: Where to.
            plots: `mmfuse.evaluation.plots`, which draws; it stands above, so it is handed over.
        """

    def confidences(self, predicted: np.ndarray) -> Array:
        """How sure each decision is, `(rows, decisions)` in [0, 1]; of a kind that abstains."""
        raise NotImplementedError(f"{type(self).__name__}.confidences")

    def held(self, unsure: np.ndarray) -> list[Any]:
        """What is told of each row's decisions `(rows, decisions)` bool that are held back; of a kind that abstains."""
        raise NotImplementedError(f"{type(self).__name__}.held")

    def curves(self, said: np.ndarray, target: np.ndarray) -> list[SelectiveCurve | None]:
        """What abstaining keeps of validation rows, a curve a decision; nothing of a kind that does not abstain."""
        return []

    def columns(self, task: str, abstains: bool = False) -> list[tuple[str, pa.DataType]]:
        """The columns that a table of predictions has of a task.

        Args:
            task: Its name.
            abstains: Whether decisions are held back.
        """
        return [(f"{task}.{name}", kind) for name, kind in self.fields.items()]

    def flat(self, task: str, decided: dict[str, Any]) -> dict[str, Any]:
        """What `decide` gave (and `abstained`, where it is), as a row of these columns."""
        return {f"{task}.{name}": decided[name] for name in self.fields}

    def unflat(self, task: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """What `decide` gave, as far as a row of these columns holds it; of a CSV all cells are texts.

        Raises:
            MmfuseError: The row lacks a column, or a number is none.
        """
        found: dict[str, Any] = {}
        for name, kind in self.fields.items():
            if f"{task}.{name}" not in row:
                raise MmfuseError(f"there is no column {task}.{name}")
            cell = row[f"{task}.{name}"]
            try:
                found[name] = cell if not pa.types.is_floating(kind) else None if cell in ("", None) else float(cell)
            except ValueError as error:
                raise MmfuseError(f"{task}.{name}: {cell!r:.60} is not a number") from error
        return found
