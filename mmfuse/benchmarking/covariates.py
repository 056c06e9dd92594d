"""`covariates_only`: what age and sex alone would say, the first question of a reviewer.

A linear model of scikit-learn on the columns that the manifest names as `subgroups`. It is a row of a benchmark beside
each modality alone, and sees neither text nor image. All that it knows of the columns is taken from training rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfuse.data.tables.table import Table
from mmfuse.evaluation.analyses.subgroup_values import MOST_NUMBERS, as_number
from mmfuse.tasks import TaskKind

Array = NDArray[np.float64]
KINDS = ("classification", "multilabel", "regression")
"""Of tasks that it can be fitted to."""
_SURE = -30.0
"""The logarithm of a probability that is as good as 0."""


def covariates_of(table: Table) -> dict[str, Any] | None:
    """Its strategy, as a row of a benchmark has it; None where there is nothing to fit, or to fit it to.

    Columns that a task reads its targets from are left out. The hash is of what stands in the columns, so that a
    finished cell is refused where that has changed.
    """
    manifest = table.manifest
    targets = {column for task in table.labels for column in manifest.tasks[task].named}
    columns = [name for name in manifest.subgroups if name not in targets]
    if not columns or any(manifest.tasks[task].type not in KINDS for task in table.labels):
        return None
    cells = [table.rows[f"subgroup.{name}"][:] for name in columns]
    digest = hashlib.sha256(json.dumps(cells).encode()).hexdigest()
    return {"name": "covariates_only", "columns": columns, "sha256": digest}


def predict_covariates(
    table: Table, columns: Sequence[str], kinds: dict[str, TaskKind], balanced: Sequence[str] = ()
) -> dict[str, NDArray[np.float32]]:
    """Fit each task to the training split, and say of every row what a head would, `(rows, width)`.

    Reference: none; logistic and ridge regression, with an L2 penalty of 1 on standardised columns.
    Differs: a column of numbers is a slope and its quarters, others are one indicator a value; what is missing, and
    what no training row has, is an indicator of its own.
    Prefer when: it is to be known what a fusion adds to what the manifest's columns say.

    Args:
        table: Its splits are those of the fold.
        columns: Names of subgroups.
        kinds: By task; the scale of numbers is fitted here.
        balanced: Tasks whose labels weigh alike.
    """
    train = table.indices("train")
    design = np.hstack([_column(table.rows[f"subgroup.{name}"][:], train) for name in columns])
    found = {}
    for task, kind in kinds.items():
        target = table.targets[task]
        kind.fit(lambda target=target: target[train])
        weights = "balanced" if task in balanced else None
        if not kind.has_labels:
            said = _numbers(design, kind, target, train)
        elif kind.exclusive:
            said = _classes(design, kind, target, train, weights)
        else:
            parts = [_label(design, target[:, i], train, weights) for i in range(kind.width)]
            said = np.stack(parts, axis=1)
        found[task] = said.astype(np.float32)
    return found


def _column(cells: Sequence[str | None], train: Sequence[int]) -> Array:
    """`(rows, features)` of one column; only the training rows tell what its values are."""
    texts = [(cell or "").strip() for cell in cells]
    seen = sorted({texts[row] for row in train} - {""})
    numbers = [as_number(text) for text in seen]
    if seen and None not in numbers and len(set(numbers)) > MOST_NUMBERS:
        return _of_numbers(np.array([_float(text) for text in texts]), train)
    place = {text: i for i, text in enumerate(seen)}
    design = np.zeros((len(texts), len(seen) + 1))
    design[np.arange(len(texts)), [place.get(text, len(seen)) for text in texts]] = 1  # last: missing or unseen
    return design


def _of_numbers(values: Array, train: Sequence[int]) -> Array:
    known = values[list(train)]
    known = known[~np.isnan(known)]
    cuts = np.unique(np.quantile(known, (0.25, 0.5, 0.75)))
    there = ~np.isnan(values)
    design = np.zeros((len(values), len(cuts) + 3))
    design[there, 0] = (values[there] - known.mean()) / (known.std() or 1.0)
    design[there, 1 + np.searchsorted(cuts, values[there], side="right")] = 1
    design[~there, -1] = 1
    return design


def _float(text: str) -> float:
    number = as_number(text)
    return np.nan if number is None else number


def _numbers(design: Array, kind: Any, target: np.ndarray, train: Sequence[int]) -> Array:
    from sklearn.linear_model import Ridge

    rows = [row for row in train if not np.isnan(target[row])]
    return Ridge().fit(design[rows], kind.on_scale(target[rows])).predict(design)[:, None]


def _classes(design: Array, kind: TaskKind, target: np.ndarray, train: Sequence[int], weights: str | None) -> Array:
    """Logarithms of probabilities; of a class that no training row has, of one as good as 0."""
    labelled = kind.labelled(target)
    rows = [row for row in train if labelled[row]]
    said = np.full((len(design), kind.width), _SURE)
    classes = np.unique(target[rows])
    if len(classes) == 1:
        said[:, classes[0]] = 0.0
        return said
    model = _logistic(weights).fit(design[rows], target[rows])
    said[:, model.classes_] = model.predict_log_proba(design).clip(_SURE)
    return said


def _label(design: Array, target: np.ndarray, train: Sequence[int], weights: str | None) -> Array:
    """Logits of one label; a constant where training rows all have it, or none has."""
    rows = [row for row in train if not np.isnan(target[row])]
    if len(np.unique(target[rows])) < 2:
        share = (target[rows].sum() + 0.5) / (len(rows) + 1)
        return np.full(len(design), np.log(share / (1 - share)))
    return _logistic(weights).fit(design[rows], target[rows]).decision_function(design)


def _logistic(weights: str | None) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(class_weight=weights, max_iter=5000)
