"""What each modality contributes to a trained model, and whether the two interact.

All of it works on rows that were encoded once (`encode_rows`): only the fusion and the heads run again. The rows belong
to the model that encoded them, as its own missing tokens stand in them. Results are plain JSON, with None for a metric
that is undefined; every task is scored by the metrics that its kind is `diagnosed` by, and a task without a target
among the rows is left out. Nothing is shared between processes: one alone may ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mmfuse.data.batches.pairs import PairDataset
from mmfuse.metrics.paired import PairedJackknife, paired_difference
from mmfuse.model import FusionModel
from mmfuse.predict.loop import in_eval_mode, table_features
from mmfuse.seeds import unit_hash
from mmfuse.tasks import TaskKind
from mmfuse.types import MODALITIES, Features, MmfuseError

SHARES = tuple(i / 10 for i in range(11))
LARGEST_CHUNK = 4096
CHUNK_TOKENS = 2**15
"""Bounds of one forward pass: rows, and the tokens of both modalities in them (100 MB at a width of 768)."""

Array = NDArray[np.float64]
Space = Literal["logits", "probabilities"]
Chosen = tuple[Features | None, NDArray[np.int64]]
"""A modality's features, and which of their rows stand in the rows of a forward pass."""


@dataclass(frozen=True)
class EncodedRows:
    """Rows of a table as one model's encoders see them.

    Attributes:
        ids: N ids, by which rows are sampled and hidden, so that every model's are the same.
        text: `Features` of the N rows, None where the model does not use texts.
        image: The same of the images.
        has: By modality, `(N,)` bool: whether the row has it in the table, used or not.
        groups: Of the rows; where it is empty each is one of its own.
        targets: By task, `(N,)` int64 with -100 where missing, or `(N, L)` float with NaN where missing.
    """

    ids: Sequence[str]
    text: Features | None
    image: Features | None
    has: dict[str, NDArray[np.bool_]]
    targets: dict[str, np.ndarray]
    groups: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.ids)


def encode_rows(
    model: FusionModel, pairs: PairDataset, rows: Sequence[int], *, batch_size: int = 64, num_workers: int = 0
) -> EncodedRows:
    """Encode rows once, or read their cached features, for all that is asked here.

    Args:
        model: Trained.
        pairs: The table as the model reads it (`prepare_pairs`).
        rows: Row numbers, at least one; in memory they take `rows x tokens x width` floats where tokens are read.
        batch_size: Rows per forward pass of the encoders.
        num_workers: Processes that read images.
    """
    text, image = table_features(model, pairs, rows, batch_size=batch_size, num_workers=num_workers)
    chosen = list(rows)
    return EncodedRows(
        ids=[pairs.ids[row] for row in chosen],
        text=text,
        image=image,
        has={"text": pairs.table.has_text()[chosen], "image": pairs.table.has_image()[chosen]},
        targets={task: pairs.table.targets[task][chosen] for task in model.heads},
        groups=pairs.table.rows[chosen]["group"],
    )


def emap(
    model: FusionModel,
    data: EncodedRows,
    *,
    rows: int = 200,
    seed: int = 0,
    space: Space | None = None,
    chunk_rows: int | None = None,
) -> dict[str, Any]:
    """Score the additive model that is nearest to this one: what is lost by it is what interactions are good for.

    `e_i = mean_j f(t_i, v_j) + mean_j f(t_j, v_i) - mean_jk f(t_j, v_k)`, over all N² pairs. `f` is the logits (of
    classes: minus their mean), or the probabilities at temperature 1 where the strategy is additive in these: in the
    other space an additive model would show a gap that is not there. Probabilities below 0, which a projection may
    give, count as 0.

    Reference: Hessel and Lee 2020, "Does my multimodal model learn cross-modal interactions?", arXiv 2010.06572.
    Differs: probabilities, where a strategy declares `additive_in`. A strategy of one modality is its own projection.
    Prefer when: a fusion wins: without a gap, there is an additive model that scores the same on these rows.

    Args:
        model: Trained.
        data: Rows that it encoded.
        rows: At most so many labelled ones are taken, those whose ids hash lowest; the cost is their square.
        seed: Of that hash.
        space: Where the projection is made; default: where the strategy says it is additive.
        chunk_rows: Pairs per forward pass; default: by their tokens.

    Returns:
        `rows`, `space`, and by task `n` labelled rows, `model` and `projection` (each by metric, on these rows), and
        `gap`, the first minus the second: 0 for additive strategies, up to rounding that breaks ties; `interval`, by
        metric the 95 % ends of the gap for other groups (`mmfuse.metrics.paired`), of metrics that can be compared.

    Raises:
        ValueError: `space` is unknown.
    """
    space = space or getattr(model.fusion, "additive_in", "logits")
    if space not in ("logits", "probabilities"):
        raise ValueError(f"space is {space!r}; legal: 'logits', 'probabilities'")
    chosen = _lowest_hashes(model, data, rows, seed)
    logits = _own_and_projected(model, data, chosen, space, chunk_rows) if len(chosen) else {}
    tasks: dict[str, Any] = {}
    for task, kind, target, count in _labelled_tasks(model, data, chosen):
        own, projected = (_score(kind, kind.predictions(z), target) for z in logits[task])
        gap = {name: own[name] - projected[name] for name in own}
        groups = [(data.groups or data.ids)[int(i)] for i in chosen]
        ends = _gap_ends(kind, [kind.predictions(z) for z in logits[task]], target, groups)
        tasks[task] = {"n": count, "model": own, "projection": projected, "gap": gap, "interval": ends}
    return _plain({"rows": len(chosen), "space": space, "tasks": tasks})


def permutation_scores(
    model: FusionModel,
    data: EncodedRows,
    train_targets: Mapping[str, np.ndarray],
    *,
    permutations: int = 5,
    seed: int = 0,
    chunk_rows: int | None = None,
) -> dict[str, Any]:
    """Measure what a model loses when one modality is dealt out to the rows anew.

    A row then has another row's text (or none, where that has none) beside its own image. Permuting the features is
    permuting the inputs, as encoders see one row at a time. A permuted modality does not fall silent, it contradicts
    the other: drops say what the model relies on, not what it could do without, and they do not add up.

    Reference: Gat et al. 2021, "Perceptual Score", arXiv 2110.14375.
    Differs: any metric where larger is better; permuted over all rows, not within batches; the two normalisations are
    spelled out below, and neither is clipped.
    Prefer when: the model was never trained with a missing modality, so that its missing tokens mean nothing.

    Args:
        model: Trained.
        data: Rows that it encoded.
        train_targets: By task, the targets of the training rows; the class prior is theirs.
        permutations: How many are averaged; 5 or more.
        seed: Of the permutations. They depend on the ids alone, so all models see the same.
        chunk_rows: Rows per forward pass; default: by their tokens.

    Returns:
        `rows`, `permutations`, and by task `n` labelled rows, `score` and `prior` (each by metric; see `shapley`), and
        by modality and metric: `values` (one a permutation), `drop` (score - mean of values), `drop_of_score` (drop /
        score: which share of its score the model owes to it) and `drop_of_range` (drop / (1 - prior): the same
        denominator for every model). All drops of a modality that is not used are 0.

    Raises:
        ValueError: There is no permutation.
        MmfuseError: A task has no target in `train_targets`.
    """
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}; it must be at least 1, better 5 or more")
    rows = np.arange(len(data))
    by_id = np.argsort(np.asarray(data.ids, dtype=str), kind="stable")
    orders = []
    for k in range(permutations):
        order = np.empty_like(rows)
        order[by_id] = by_id[np.random.default_rng((seed, k)).permutation(len(data))]
        orders.append(order)
    base = _logits(model, (data.text, rows), (data.image, rows), chunk_rows)
    permuted: dict[str, list[dict[str, np.ndarray]]] = {}
    for modality in MODALITIES:
        use = {m: orders if m == modality else [rows] * permutations for m in MODALITIES}
        permuted[modality] = [
            _logits(model, (data.text, text), (data.image, image), chunk_rows) if modality in model.uses else base
            for text, image in zip(use["text"], use["image"], strict=True)
        ]
    tasks: dict[str, Any] = {}
    for task, kind, target, count in _labelled_tasks(model, data, rows):
        score = _score(kind, kind.predictions(base[task]), target)
        prior = _prior_score(task, kind, target, train_targets)
        tasks[task] = {"n": count, "score": score, "prior": prior}
        for modality, drawn in permuted.items():
            found = [_score(kind, kind.predictions(logits[task]), target) for logits in drawn]
            tasks[task][modality] = {
                name: _drop(score[name], prior[name], [each[name] for each in found]) for name in score
            }
    return _plain({"rows": len(data), "permutations": permutations, "tasks": tasks})


def shapley(
    model: FusionModel, data: EncodedRows, train_targets: Mapping[str, np.ndarray], *, chunk_rows: int | None = None
) -> dict[str, Any]:
    """Divide what a model scores above the class prior between its two modalities, exactly.

    `v(both)` is the model's metric, `v(text)` and `v(image)` those with the learned missing token in place of the other
    modality, `v(none)` that of the class prior: training never hides both, so the model on two missing tokens means
    nothing. For the same reason only rows with both modalities are scored. A modality that is not used changes no
    coalition, and gets 0.

    `phi_text = ((v(text) - v(none)) + (v(both) - v(image))) / 2`, `phi_image` alike: they sum to `v(both) - v(none)`.
    `interaction = v(both) - v(text) - v(image) + v(none)`: negative where both say the same, positive where only both
    together say it.

    Reference: Shapley 1953, "A value for n-person games"; the index is Grabisch and Roubens 1999's for two players.
    Differs: nothing; with two players there is nothing to sample. Multi-label prior: a label is decided by whether it
    is true of half the training rows, not by the head's thresholds, which are tuned for the model.
    Prefer when: the model was trained with modality dropout; else see `untrained`, and `permutation_scores`.

    Args:
        model: Trained.
        data: Rows that it encoded.
        train_targets: By task, the targets of the training rows, `(rows,)` int64 or `(rows, L)` float, as in `data`.
        chunk_rows: Rows per forward pass; default: by their tokens.

    Returns:
        `rows`, `left_out` (rows that lack a modality), `untrained` (modalities whose missing token was never trained),
        and by task `n` labelled rows, and by metric `none`, `text`, `image`, `both`, `phi_text`, `phi_image`,
        `interaction`.

    Raises:
        MmfuseError: A task has no target in `train_targets`.
    """
    rows = np.flatnonzero(data.has["text"] & data.has["image"])
    coalitions = {"text": ("text",), "image": ("image",), "both": MODALITIES}
    logits = {
        name: hiding_logits(model, data, rows, set(MODALITIES).difference(kept), chunk_rows)
        for name, kept in coalitions.items()
        if not set(kept).isdisjoint(model.uses)
    }
    tasks: dict[str, Any] = {}
    for task, kind, target, count in _labelled_tasks(model, data, rows):
        prior = _prior_score(task, kind, target, train_targets)
        worth = {name: _score(kind, kind.predictions(found[task]), target) for name, found in logits.items()}
        tasks[task] = {"n": count}
        for name in prior:
            none, text, image, both = (worth.get(kept, prior)[name] for kept in ("none", *MODALITIES, "both"))
            tasks[task][name] = {
                "none": none,
                "text": text,
                "image": image,
                "both": both,
                "phi_text": ((text - none) + (both - image)) / 2,
                "phi_image": ((image - none) + (both - text)) / 2,
                "interaction": both - text - image + none,
            }
    left_out = len(data) - len(rows)
    return _plain({"rows": len(rows), "left_out": left_out, "untrained": _untrained(model), "tasks": tasks})


def missing_curve(
    model: FusionModel, data: EncodedRows, *, seed: int = 0, chunk_rows: int | None = None
) -> dict[str, Any]:
    """Score a model where a growing share of rows lacks the text, and where it lacks the image.

    A row lacks the modality at share p if the hash of (seed, its id) is below p: the same rows for every model and for
    both modalities, and a row that lacks it at .3 lacks it at .5. No row's logits depend on its neighbours', so three
    forward passes give the whole curve.

    Reference: Ma et al. 2022, "Are Multimodal Transformers Robust to Missing Modality?", arXiv 2204.05454.
    Differs: both modalities in turn, and the mean of the curve beside it, which MultiBench (Liang et al. 2021, arXiv
    2107.07502) scales by the methods compared: here no other model moves it.
    Prefer when: a modality may be absent where the model is used.

    Args:
        model: Trained.
        data: Rows that it encoded.
        seed: Of the hash.
        chunk_rows: Rows per forward pass; default: by their tokens.

    Returns:
        `rows`, `shares` (0, 0.1, ... 1), `lacking` (by modality, the fraction of rows without it at each share, with
        those that never had it), `empty` (by modality hidden, the fraction that then has neither), `untrained`
        (modalities whose missing token was never trained), and by task `n` labelled rows and by modality and metric
        `values` (one a share) and their `mean`.
    """
    rows = np.arange(len(data))
    draws = np.array([unit_hash(seed, f"missing:{name}") for name in data.ids])
    hidden = [draws < share for share in SHARES]
    base = hiding_logits(model, data, rows, set(), chunk_rows)
    without = {modality: hiding_logits(model, data, rows, {modality}, chunk_rows) for modality in MODALITIES}
    tasks: dict[str, Any] = {}
    for task, kind, target, count in _labelled_tasks(model, data, rows):
        tasks[task] = {"n": count}
        for modality, found in without.items():
            scores = [
                _score(kind, kind.predictions(np.where(gone[:, None], found[task], base[task])), target)
                for gone in hidden
            ]
            tasks[task][modality] = {
                name: {"values": [each[name] for each in scores], "mean": np.mean([each[name] for each in scores])}
                for name in scores[0]
            }
    text, image = data.has["text"], data.has["image"]
    lacking = {m: [np.mean(gone | ~data.has[m]) for gone in hidden] for m in MODALITIES}
    empty = {
        "text": [np.mean((gone | ~text) & ~image) for gone in hidden],
        "image": [np.mean((gone | ~image) & ~text) for gone in hidden],
    }
    return _plain(
        {
            "rows": len(data),
            "shares": list(SHARES),
            "lacking": lacking,
            "empty": empty,
            "untrained": _untrained(model),
            "tasks": tasks,
        }
    )


def worse_than_unimodal(curve: Mapping[str, Any], unimodal_value: float | None, *, margin: float = 0.0) -> bool | None:
    """Say whether a model that lacks a modality in every row is worse than one that never had it.

    Args:
        curve: `missing_curve(...)["tasks"][task][modality][metric]`.
        unimodal_value: The same metric of the strategy that reads the other modality alone, trained and tested on the
            same rows: `text_only` for a curve of missing images.
        margin: By how much it must be worse.

    Returns:
        None where one of the two is undefined.
    """
    value = curve["values"][-1]
    return None if value is None or unimodal_value is None else value < unimodal_value - margin


def _gap_ends(
    kind: TaskKind, models: list[np.ndarray], target: np.ndarray, groups: Sequence[str]
) -> dict[str, list[float | None]]:
    """By metric the ends of the difference of the first model to the second."""
    there = kind.labelled(target)
    jackknife = PairedJackknife(np.asarray(groups, dtype=str)[there])
    found = {}
    for metric in (name for name in kind.diagnosed if name in kind.comparable):
        own, projected = kind.replicates(metric, [each[there] for each in models], target[there], jackknife)
        drawn = own - projected
        width = np.ptp(kind.ranges[metric]) if metric in kind.ranges else 1.0 if kind.has_labels else np.inf
        told = paired_difference(float(drawn[0]), drawn[0] - drawn[1:], jackknife.effective, float(width))
        found[metric] = [told["low"], told["high"]]
    return found


def _own_and_projected(
    model: FusionModel, data: EncodedRows, chosen: NDArray[np.int64], space: Space, chunk_rows: int | None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By task, logits of the chosen rows `(N, L)`: the model's own, and those of its additive projection."""
    if len(model.uses) == 1:
        own = _logits(model, (data.text, chosen), (data.image, chosen), chunk_rows)
        return {task: (values, values) for task, values in own.items()}
    N, device = len(chosen), next(model.parameters()).device
    text, image = (None if f is None else _take(f, chosen, device) for f in (data.text, data.image))
    text_rows, image_rows = np.repeat(np.arange(N), N), np.tile(np.arange(N), N)
    heads: dict[str, Any] = dict(model.heads.items())
    sums = {task: np.zeros((2, N, head.task.width)) for task, head in heads.items()}
    own = {task: np.zeros((N, head.task.width), dtype=np.float32) for task, head in heads.items()}
    for part, logits in _forward(model, (text, text_rows), (image, image_rows), chunk_rows):
        of_text, of_image = text_rows[part], image_rows[part]
        real = of_text == of_image
        for task, values in logits.items():
            own[task][of_text[real]] = values[real]
            values = heads[task].task.into(space, values)
            np.add.at(sums[task][0], of_text, values)
            np.add.at(sums[task][1], of_image, values)
    return {
        task: (own[task], heads[task].task.out_of(space, (found.sum(0) - found[0].sum(0) / N) / N))
        for task, found in sums.items()
    }


def row_logits(
    model: FusionModel, data: EncodedRows, text_rows: NDArray[np.int64], image_rows: NDArray[np.int64]
) -> dict[str, np.ndarray]:
    """Logits by task of the texts of some rows `(n,)` beside the images of others `(n,)`."""
    return _logits(model, (data.text, text_rows), (data.image, image_rows), None)


def hiding_logits(
    model: FusionModel,
    data: EncodedRows,
    rows: NDArray[np.int64],
    hidden: set[str],
    chunk_rows: int | None = None,
) -> dict[str, np.ndarray]:
    """Logits of the rows with the missing token in place of the hidden modalities."""
    chosen: dict[str, Chosen] = {"text": (data.text, rows), "image": (data.image, rows)}
    for modality in hidden.intersection(model.uses):
        chosen[modality] = (model.missing(modality, 1), np.zeros_like(rows))
    return _logits(model, chosen["text"], chosen["image"], chunk_rows)


def _logits(model: FusionModel, text: Chosen, image: Chosen, chunk_rows: int | None) -> dict[str, np.ndarray]:
    """Logits by task, `(n, L)`."""
    parts = [logits for _, logits in _forward(model, text, image, chunk_rows)]
    return {task: np.concatenate([part[task] for part in parts]) for task in parts[0]} if parts else {}


def _forward(
    model: FusionModel, text: Chosen, image: Chosen, chunk_rows: int | None
) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
    """Fuse text `text_rows[k]` with image `image_rows[k]` for every k, in chunks of bounded memory."""
    (texts, text_rows), (images, image_rows) = text, image
    tokens = sum(features.tokens.shape[1] for features in (texts, images) if features is not None)
    size = chunk_rows or max(1, min(LARGEST_CHUNK, CHUNK_TOKENS // tokens))
    device = next(model.parameters()).device

    def fuse(part: slice) -> tuple[slice, dict[str, np.ndarray]]:
        logits = model.fuse(
            None if texts is None else _take(texts, text_rows[part], device),
            None if images is None else _take(images, image_rows[part], device),
        )
        return part, {task: values.float().cpu().numpy() for task, values in logits.items()}

    parts = (slice(start, start + size) for start in range(0, len(text_rows), size))
    return in_eval_mode(model, fuse, parts)


def _take(features: Features, rows: NDArray[np.int64], device: Any) -> Features:
    """Some rows, with no more padding than they need, where the model is."""
    index = torch.from_numpy(rows).to(features.mask.device)
    mask = features.mask[index]
    longest = int(mask.any(0).nonzero().max()) + 1
    taken = (features.tokens[:, :longest][index], mask[:, :longest], features.pooled[index], features.present[index])
    return Features(*(part.to(device) for part in taken))


def _lowest_hashes(model: FusionModel, data: EncodedRows, rows: int, seed: int) -> NDArray[np.int64]:
    """At most so many rows with a target, in the table's order: the same ones for every model and order of rows."""
    heads: dict[str, Any] = dict(model.heads.items())
    known = np.any([head.task.labelled(data.targets[task]) for task, head in heads.items()], axis=0)
    order = sorted(np.flatnonzero(known).tolist(), key=lambda row: unit_hash(seed, f"emap:{data.ids[row]}"))
    return np.sort(np.array(order[:rows], dtype=np.int64))


def _labelled_tasks(
    model: FusionModel, data: EncodedRows, rows: NDArray[np.int64]
) -> Iterator[tuple[str, TaskKind, np.ndarray, int]]:
    """By task what it is, its targets, and how many of them there are; one without any is left out."""
    heads: dict[str, Any] = dict(model.heads.items())
    for task, head in heads.items():
        target = data.targets[task][rows]
        count = int(head.task.labelled(target).sum())
        if count:
            yield task, head.task, target, count


def _score(kind: TaskKind, predicted: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """The metrics that contribution is told in; NaN where undefined."""
    return kind.values(kind.diagnosed, predicted, target)


def _prior_score(
    task: str, kind: TaskKind, target: np.ndarray, train_targets: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """What the best constant of the training rows, such as the classes' frequencies, scores where it is always said."""
    train = np.asarray(train_targets.get(task, ()))
    if not len(train) or not kind.labelled(train).any():
        raise MmfuseError(f"train_targets: task {task!r} has no target among the training rows, so no class prior")
    return _score(kind.uncalibrated(), np.repeat(kind.prior(train)[None], len(target), axis=0), target)


def _drop(score: float, prior: float, values: list[float]) -> dict[str, Any]:
    drop = float(np.mean([score - value for value in values]))  # exactly 0 where all are the score
    return {
        "values": values,
        "drop": drop,
        "drop_of_score": drop / score if score else float("nan"),
        "drop_of_range": drop / (1 - prior) if prior != 1 else float("nan"),
    }


def _untrained(model: FusionModel) -> list[str]:
    return [modality for modality in model.uses if modality not in model.accepts_missing]


def _plain(tree: Any) -> Any:
    """The same as JSON knows it: Python's numbers, None for NaN."""
    if isinstance(tree, dict):
        return {name: _plain(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_plain(value) for value in tree]
    if isinstance(tree, float | np.floating):
        return None if np.isnan(tree) else float(tree)
    return tree
