"""What a run's page tells beside the scores: what is known without the model, and what each modality adds to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmfuse.data.batches.pairs import PairDataset
from mmfuse.evaluation.contribution import EncodedRows, encode_rows, hiding_logits, row_logits
from mmfuse.evaluation.run_page.probes import can_probe, fit_probe
from mmfuse.metrics.paired import PairedJackknife, paired_difference
from mmfuse.model import FusionModel
from mmfuse.seeds import unit_hash
from mmfuse.tasks import TaskKind
from mmfuse.types import MODALITIES

MOST_ROWS, MOST_TRAIN_ROWS = 2000, 4000
"""Of the scored split, and of the training split."""
FEWEST_ROWS = 200
SHARE_OF_RUN = 0.03
"""Rows that encoders run over again, where their features are not kept, to all that training ran over."""
PART = 256
"""Rows whose tokens are held at once, and among which inputs are dealt anew."""
DEALT = 3


def measure_run(
    model: FusionModel,
    pairs: PairDataset,
    split: str,
    *,
    batch_size: int = 64,
    num_workers: int = 0,
    passes: float = 0.0,
) -> dict[str, Any]:
    """Baselines and the contribution of each modality, on rows of a split; one process alone may ask.

    The encoders run once over at most 2,000 rows of the split and 4,000 training rows, drawn by their ids.

    Args:
        model: Trained.
        pairs: The rows as it reads them.
        split: Whose rows are scored.
        batch_size: Of a forward pass.
        num_workers: Processes that read images.
        passes: How often training went over its rows: fewer rows are taken where encoders must run and it was seldom.

    Returns:
        `rows`, `train_rows`, `hidden_by` ("token" or "others", see `_coalitions`), `untrained`, `seconds`, and by task
        what `_of_task` gives.
    """
    began = time.perf_counter()
    table = pairs.table
    live = pairs.live_images or ("text" in model.uses and pairs.text_cache is None)
    train = [row for row, name in enumerate(table.splits) if name == "train"]
    most = int(max(FEWEST_ROWS, SHARE_OF_RUN * passes * len(train))) if live and passes else MOST_TRAIN_ROWS
    rows = _drawn(pairs, table.indices(split), min(most, MOST_ROWS))
    reading: Any = {"batch_size": batch_size, "num_workers": num_workers if live else 0}
    untrained = [m for m in model.uses if m not in model.accepts_missing]
    found: dict[str, Any] = {"rows": len(rows), "hidden_by": "others" if untrained else "token", "untrained": untrained}
    heads: dict[str, Any] = dict(model.heads.items())
    kinds = {task: head.task for task, head in heads.items() if not head.generates}
    kinds = {task: kind for task, kind in kinds.items() if kind.labelled(table.targets[task][rows]).any()}
    if not kinds:
        return {**found, "train_rows": 0, "tasks": {}, "seconds": round(time.perf_counter() - began, 2)}
    pooled, logits = _scored_rows(model, pairs, rows, bool(untrained), reading)
    fitted = _drawn(pairs, train, min(most, MOST_TRAIN_ROWS))
    features = _pooled_rows(model, pairs, fitted, reading) if fitted else {}
    groups: list[str] = table.rows["group"][:]
    of_rows = [groups[row] for row in rows]
    both = (table.has_text() & table.has_image())[rows] if len(model.uses) == 2 else np.ones(len(rows), bool)
    tasks = {}
    for task, kind in kinds.items():
        prior = kind.prior(table.counted_targets(task, "train"))
        target = table.targets[task][rows]
        alone = {}
        if can_probe(kind) and fitted and kind.labelled(table.targets[task][fitted]).sum() > 1:
            train_target = table.targets[task][fitted]
            alone = {m: fit_probe(kind, features[m], train_target, pooled[m]) for m in model.uses}
        said = {name: [kind.predictions(drawn[task]) for drawn in of] for name, of in logits.items()}
        tasks[task] = _of_task(kind, target, of_rows, prior, alone, said, both)
    return {**found, "train_rows": len(fitted), "tasks": tasks, "seconds": round(time.perf_counter() - began, 2)}


def shown_metric(kind: TaskKind) -> str | None:
    """The metric that a page speaks of first: of classes accuracy, else the one that contribution is told in."""
    if kind.has_labels and not kind.exclusive:
        return "auroc_macro"  # needs no thresholds, and 1/2 is chance
    return kind.diagnosed[0] if kind.diagnosed else None


def _drawn(pairs: PairDataset, rows: Sequence[int], most: int) -> list[int]:
    """At most so many rows, those whose ids hash lowest, in that order: neighbours have nothing in common."""
    order = {row: unit_hash(0, f"page:{pairs.ids[row]}") for row in rows}
    return sorted(rows, key=order.__getitem__)[:most]


def _scored_rows(
    model: FusionModel, pairs: PairDataset, rows: list[int], dealt: bool, reading: dict[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, list[dict[str, np.ndarray]]]]:
    """Pooled features by modality, and logits by task with both modalities and with one, each as often as drawn."""
    parts, said = [], []
    for start in range(0, len(rows), PART):
        data = encode_rows(model, pairs, rows[start : start + PART], **reading)
        parts.append(_pooled(model, data))
        said.append(_coalitions(model, data, dealt, start))
    pooled = {m: np.concatenate([part[m] for part in parts]) for m in model.uses}
    logits = {
        name: [
            {task: np.concatenate([part[name][k][task] for part in said]) for task in said[0][name][k]}
            for k in range(len(said[0][name]))
        ]
        for name in said[0]
    }
    return pooled, logits


def _coalitions(
    model: FusionModel, data: EncodedRows, dealt: bool, seed: int
) -> dict[str, list[dict[str, np.ndarray]]]:
    """Logits with both modalities, and with one alone.

    The other one is replaced by the learned missing token; where that was never trained (`dealt`), by those of other
    rows, dealt anew three times: then what the model reads is what it learned to read, but contradicts itself.
    """
    own = np.arange(len(data))
    found = {"both": [row_logits(model, data, own, own)]}
    if len(model.uses) < 2:
        return found
    orders = [np.random.default_rng((seed, k)).permutation(len(data)) for k in range(DEALT)]
    for kept, hidden in (("text", "image"), ("image", "text")):
        if not dealt:
            found[kept] = [hiding_logits(model, data, own, {hidden})]
        elif kept == "text":
            found[kept] = [row_logits(model, data, own, order) for order in orders]
        else:
            found[kept] = [row_logits(model, data, order, own) for order in orders]
    return found


def _pooled_rows(
    model: FusionModel, pairs: PairDataset, rows: list[int], reading: dict[str, Any]
) -> dict[str, np.ndarray]:
    parts = [
        _pooled(model, encode_rows(model, pairs, rows[start : start + PART], **reading))
        for start in range(0, len(rows), PART)
    ]
    return {m: np.concatenate([part[m] for part in parts]) for m in model.uses}


def _pooled(model: FusionModel, data: EncodedRows) -> dict[str, np.ndarray]:
    features: dict[str, Any] = {"text": data.text, "image": data.image}
    return {m: features[m].pooled.double().numpy() for m in model.uses}


def _of_task(
    kind: Any,
    target: np.ndarray,
    groups: Sequence[str],
    prior: np.ndarray,
    alone: dict[str, np.ndarray],
    said: dict[str, list[np.ndarray]],
    both: np.ndarray,
) -> dict[str, Any]:
    """One task's part of the page.

    Returns:
        `metric`; `scores` of the model, of the `prior` and of each probe on these rows; `against`: by baseline the
        model's difference to it; and `contribution`: `rows`, `none`, `text`, `image`, `both` as values, `phi_text`,
        `phi_image` and `interaction` as differences with their intervals.
    """
    metric, plain = shown_metric(kind), kind.uncalibrated()
    if metric is None:
        return {"metric": None}
    there = kind.labelled(target)
    known, own = target[there], np.asarray(groups, dtype=str)[there]
    constant = np.repeat(np.asarray(prior)[None], len(target), axis=0)
    rivals = {"prior": constant, **alone}
    scores = {"model": kind.score(said["both"][0], target, groups)["metrics"][metric]}
    scores |= {name: plain.score(found, target, groups)["metrics"][metric] for name, found in rivals.items()}
    if kind.has_labels and metric == "auroc_macro":  # a constant ranks nothing, whatever the rows
        scores["prior"] = {"value": scores["prior"]["value"], "low": None, "high": None}
    jackknife = PairedJackknife(own)
    less = metric in kind.lower_is_better
    drawn = _replicates(kind, metric, [said["both"][0][there], *(found[there] for found in rivals.values())], known,
                        jackknife)  # fmt: skip
    against = {
        name: _difference(drawn[0] - drawn[i] if not less else drawn[i] - drawn[0], jackknife)
        for i, name in enumerate(rivals, start=1)
    }
    found = {"metric": metric, "scores": scores, "against": against}
    if "text" in said and (there & both).any():
        chosen = there & both
        drawn_of = {name: [each[chosen] for each in of] for name, of in said.items()}
        own = np.asarray(groups, dtype=str)[chosen]
        found["contribution"] = _shapley(kind, metric, target[chosen], own, constant[chosen], drawn_of)
    return found


def _shapley(
    kind: Any,
    metric: str,
    target: np.ndarray,
    groups: np.ndarray,
    prior: np.ndarray,
    said: dict[str, list[np.ndarray]],
) -> dict[str, Any]:
    """`mmfuse.evaluation.contribution.shapley`'s division of a score, with intervals over new groups."""
    jackknife = PairedJackknife(groups)
    models = [prior, *(each for name in (*MODALITIES, "both") for each in said[name])]
    drawn = _replicates(kind, metric, models, target, jackknife)
    none, rest = drawn[0], drawn[1:]
    counts = [len(said[name]) for name in (*MODALITIES, "both")]
    text, image, both = (part.mean(axis=0) for part in np.split(rest, np.cumsum(counts)[:-1]))
    shares = {
        "phi_text": ((text - none) + (both - image)) / 2,
        "phi_image": ((image - none) + (both - text)) / 2,
        "interaction": both - text - image + none,
    }
    values = {"none": none, "text": text, "image": image, "both": both}
    return {
        "rows": len(target),
        **{name: None if np.isnan(of[0]) else float(of[0]) for name, of in values.items()},
        **{name: _difference(of, jackknife) for name, of in shares.items()},
    }


def _replicates(
    kind: Any, metric: str, models: list[np.ndarray], target: np.ndarray, jackknife: PairedJackknife
) -> np.ndarray:
    """`(models, 1 + K)`: a metric of all rows, then without each block of groups."""
    return np.asarray(kind.replicates(metric, models, target, jackknife))


def _difference(drawn: np.ndarray, jackknife: PairedJackknife) -> dict[str, float | None]:
    """A value with its interval, of its replicates `(1 + K,)`; without one where a block alone makes it defined."""
    found = paired_difference(float(drawn[0]), drawn[0] - drawn[1:], jackknife.effective)
    return {name: found[name] for name in ("value", "low", "high")}
