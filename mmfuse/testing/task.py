"""The checks of task kinds and their heads, on what `TaskKind.example` gives.

Each is of a defect that shows nowhere but in the scores: a missing target that counts as one, rows that are scored in
another order than they were said, a metric whose direction is told wrongly.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from mmfuse.heads import HEADS, build_head
from mmfuse.metrics.bootstrap import GroupBootstrap
from mmfuse.tasks import TASKS, TaskKind, TaskSpec, build_task, check_spec
from mmfuse.tasks.spec import KEYS
from mmfuse.testing.suite import Candidate, Suite, require, require_docstring, require_named_options
from mmfuse.types import Features

SUITE = Suite(TASKS)
_WHERE = "the example: tasks.y"
_WIDTH = 8
_STEPS = 80
_MISSING = 2
"""The row of an example that has no target."""


class _Example(NamedTuple):
    """A kind's example, read.

    Attributes:
        task: With its labels.
        spec: Of the manifest.
        frame: The cells.
        target: Encoded.
        groups: By row.
        said: By row, what a head might say.
    """

    task: Any
    spec: TaskSpec
    frame: pd.DataFrame
    target: np.ndarray
    groups: list[str]
    said: np.ndarray


def _example(candidate: Candidate) -> _Example:
    values, columns = candidate.cls.example()
    spec = TaskSpec(type=candidate.name, **values, options=dict(candidate.options))
    check_spec(spec, _WHERE)
    frame = pd.DataFrame(columns, dtype=object)
    plain = build_task(candidate.name, (), candidate.options)
    found = plain.read(frame, spec, _WHERE)
    labels = plain.choose(plain.count(found, spec), spec, _WHERE)
    task = build_task(candidate.name, labels, candidate.options)
    target = task.encode(found, spec)
    task.fit(lambda: target)
    rows = len(frame)
    said = _records(task, rows) if task.is_text else np.random.default_rng(0).normal(size=(rows, task.width))
    said = said if task.is_text else said.astype(np.float32)
    return _Example(task, spec, frame, target, [f"group {i // 2}" for i in range(rows)], said)


class _Words:
    """What a kind of texts must know of a decoder: token `i` is the word `w<i>`."""

    eos, pad = 1, 0

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(f"w{id}" for id in ids if id > 1)

    def token(self, id: int) -> str:
        return f"w{id}"


def _records(task: Any, rows: int) -> np.ndarray:
    task.decoder = _Words()
    kind = [("ids", np.int32, (4,)), ("log_probabilities", np.float32, (4,)), ("score", np.float32)]
    found = np.zeros(rows, dtype=[*kind, ("target_loss", np.float32), ("target_tokens", np.int32)])
    found["ids"] = np.random.default_rng(0).integers(2, 9, (rows, 4))
    found["ids"][:, 3] = _Words.eos
    found["target_loss"], found["target_tokens"] = np.arange(rows), 3
    found["target_loss"][_MISSING] = found["target_tokens"][_MISSING] = 0
    return found


def _same(a: Any, b: Any) -> bool:
    """Whether encoded targets or predictions are equal; NaN is like itself."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.names:  # records
        return a.tobytes() == b.tobytes()
    return a.tolist() == b.tolist() if a.dtype == object else np.array_equal(a, b, equal_nan=True)


@SUITE.check
def _protocol(candidate: Candidate) -> None:
    """Constructor, attributes, docstring, and which metrics it names."""
    cls = candidate.cls
    require(issubclass(cls, TaskKind), "it is no mmfuse.tasks.TaskKind")
    require_docstring(cls)
    require_named_options(cls)
    first = next(iter(inspect.signature(cls).parameters.values()), None)
    require(first is not None and first.name == "labels", "its constructor does not begin with `labels`")
    require(cls.keys <= set(KEYS), f"`keys` names {sorted(cls.keys - set(KEYS))}, which no task of a manifest has")
    task = build_task(candidate.name, (), candidate.options)
    metrics, lower = set(task.metrics), task.lower_is_better
    require(task.monitor in metrics, f"`monitor` is {task.monitor!r}, which `metrics` does not name")
    for name in ("lower_is_better", "comparable", "diagnosed"):
        strange = set(getattr(task, name)) - metrics
        require(not strange, f"`{name}` names {sorted(strange)}, which `metrics` does not")
    wrong = lower & set(task.diagnosed)
    require(not wrong, f"`diagnosed` names {sorted(wrong)}, of which less is better: give what grows with quality")
    require(bool(task.diagnosed) >= bool(task.comparable), "it can be compared, but `diagnosed` names no metric")


@SUITE.check
def _missing(candidate: Candidate) -> None:
    """A missing target is missing, every other one is there; a shard gives the same back."""
    example = _example(candidate)
    task, target, rows = example.task, example.target, len(example.frame)
    known = task.labelled(target)
    require(
        known.shape == (rows,) and known.dtype == bool, f"`labelled` gives {known.dtype} {known.shape}, not (rows,)"
    )
    require(not known[_MISSING], "the row without a target counts as labelled")
    require(known.sum() == rows - 1, "a row with a target does not count as labelled")
    require(task.shown(target[_MISSING]) is None, "`shown` gives something of a missing target")
    json.dumps([task.shown(one) for one in target], allow_nan=False)
    require(len(target) == rows, f"`encode` gives {len(target)} targets of {rows} rows")
    column = pa.chunked_array([pa.array(target.tolist(), task.arrow)])
    require(
        _same(task.from_arrow(column), target), "a shard does not give back what was encoded: `arrow`, `from_arrow`"
    )
    require(target.dtype != np.float64, "targets are float64, which no head computes in: encode float32")


@SUITE.check
def _blocks(candidate: Candidate) -> None:
    """Rows that come in blocks, or in another order, have the same labels and the same targets."""
    example = _example(candidate)
    plain = build_task(candidate.name, (), candidate.options)
    spec, frame, half = example.spec, example.frame, len(example.frame) // 2
    parts = [plain.read(frame.iloc[:half], spec, _WHERE), plain.read(frame.iloc[half:], spec, _WHERE, half)]
    counts = plain.count(parts[0], spec)
    counts.update(plain.count(parts[1], spec))
    labels = plain.choose(counts, spec, _WHERE)
    require(labels == example.task.labels, f"rows in two blocks have the labels {labels}, not {example.task.labels}")
    encoded = np.concatenate([example.task.encode(part, spec) for part in parts])
    require(_same(encoded, example.target), "rows in two blocks have other targets: does `encode` look at all rows?")
    backwards = plain.read(frame.iloc[::-1], spec, _WHERE)
    again = plain.choose(plain.count(backwards, spec), spec, _WHERE)
    require(again == labels, "labels depend on the order of rows")
    require(_same(example.task.encode(backwards, spec)[::-1], example.target), "targets depend on the order of rows")
    own = plain.choose(counts, spec, _WHERE, labels)
    require(own == labels, "a model's labels are not kept")


@SUITE.check
def _predictions(candidate: Candidate) -> None:
    """Each row is said by itself, in finite numbers; a decision is JSON, and a table's row has its columns."""
    example = _example(candidate)
    task, said = example.task, example.said
    predicted = task.predictions(said)
    require(len(predicted) == len(said), f"{len(predicted)} predictions of {len(said)} rows")
    order = np.random.default_rng(1).permutation(len(said))
    require(_same(task.predictions(said[order]), predicted[order]), "the prediction of a row depends on other rows")
    if not task.is_text:
        far = task.predictions(np.full_like(said, 1e4)), task.predictions(np.full_like(said, -1e4))
        require(all(np.isfinite(each).all() for each in (predicted, *far)), "a prediction is not finite")
    for row in predicted:
        decided = json.loads(json.dumps(task.decide(row), allow_nan=False))
        columns = task.columns("y")
        flat = task.flat("y", decided)
        names = [name for name, _ in columns]
        require(list(flat) == names, f"a row of a table has {list(flat)}, its columns are {names}")
        pa.Table.from_pylist([flat], schema=pa.schema(columns))


@SUITE.check
def _metrics_see(candidate: Candidate) -> None:
    """Metrics that are chosen by name see the labelled rows, and of them what is true and what is decided."""
    example = _example(candidate)
    task, target = example.task, example.target
    if task.is_text:
        return
    predicted = task.predictions(example.said)
    scored, known = task.scored(predicted, target), task.labelled(target)
    require(np.array_equal(scored.rows, np.flatnonzero(known)), "`scored` is not of the labelled rows")
    for row, true, said in zip(scored.rows, scored.target, scored.decided, strict=True):
        decided, shown = task.decide(predicted[row]), task.shown(target[row])
        if task.exclusive:
            told = [(scored.labels[int(true)], shown), (scored.labels[int(said)], decided.get("label"))]
        elif task.has_labels:
            told = [([name for name, is_said in zip(scored.labels, said, strict=True) if is_said], decided["labels"])]
        else:
            told = [(float(true), shown), (float(said), decided.get("value", float(said)))]
        for seen, own in told:
            same = np.isclose(seen, own, rtol=1e-4) if isinstance(seen, float) else seen == own
            require(same, f"a metric sees {seen!r}, where {own!r} is told: is `scored` or `said` of another rule?")


@SUITE.check
def _scores(candidate: Candidate) -> None:
    """Scores are of labelled rows, whatever their order, each with its interval; all ways to a metric agree."""
    example = _example(candidate)
    task, target, groups = example.task, example.target, np.array(example.groups)
    predicted = task.predictions(example.said)
    found = task.score(predicted, target, example.groups, 20)
    require(found["n"] == int(task.labelled(target).sum()), "`n` does not count the labelled rows")
    require(set(found["metrics"]) <= set(task.metrics), "`score` gives metrics that `metrics` does not name")
    require(task.monitor in found["metrics"], "`score` does not give the metric of `monitor`")
    for name, score in found["metrics"].items():
        told = set(score) - {"note"}
        require(told == {"value", "low", "high"}, f"{name} has {sorted(told)}, not value, low and high")
    json.dumps(found, allow_nan=False)

    def values(rows: np.ndarray) -> dict[str, float]:
        scores = task.score(predicted[rows], target[rows], groups[rows].tolist(), 0)["metrics"]
        return {name: np.nan if score["value"] is None else score["value"] for name, score in scores.items()}

    every = np.arange(len(target))
    whole, order = values(every), np.random.default_rng(1).permutation(len(target))
    names, numbers = list(whole), list(whole.values())
    same = [np.isclose(numbers, [values(rows)[name] for name in names], rtol=1e-9, atol=1e-9, equal_nan=True)
            for rows in (order, every[task.labelled(target)])]  # fmt: skip
    require(same[0].all(), f"{names[same[0].argmin()]} depends on the order of rows")
    require(same[1].all(), f"{names[same[1].argmin()]} depends on rows without a target")
    asked = (*task.comparable, *task.diagnosed)
    direct = task.values(asked, predicted, target) if asked else {}
    for name, value in direct.items():
        require(
            np.isclose(value, whole[name], rtol=1e-9, equal_nan=True), f"`values` gives another {name} than `score`"
        )
    known = task.labelled(target)
    _resamples(task, predicted[known], target[known], groups[known].tolist())


def _resamples(task: Any, predicted: np.ndarray, target: np.ndarray, groups: list[str]) -> None:
    """A replicate of a metric is its value on the rows that the resample has, each as often as it has it."""
    bootstrap = GroupBootstrap(groups, 5)
    for metric in task.comparable:
        drawn = task.replicates(metric, [predicted, predicted[::-1]], target, bootstrap)
        require(np.shape(drawn) == (2, 5), f"`replicates` of {metric} are {np.shape(drawn)}, not (models, resamples)")
        for times, replicate in zip(bootstrap.multiplicities(0, 5), drawn[0], strict=True):
            rows = np.repeat(np.arange(len(target)), times[bootstrap.row_group].astype(int))
            value = task.values([metric], predicted[rows], target[rows])[metric]
            right = np.isclose(replicate, value, rtol=1e-6, atol=1e-9, equal_nan=True)
            require(right, f"a replicate of {metric} is {replicate}, but {value} on the rows of that resample")


@SUITE.check
def _files(candidate: Candidate) -> None:
    """What files hold of targets and decisions is read back, so that `mmfuse compare` can score it."""
    example = _example(candidate)
    task, target = example.task, example.target
    again = task.unshown(json.loads(json.dumps([task.shown(one) for one in target])))
    require(_same(again, target), "`unshown` does not give back what `shown` told: override both")
    predicted = task.predictions(example.said)
    told = [task.decide(row) for row in predicted]
    one, other = task.scored(predicted, target), task.reread(json.loads(json.dumps(told)), target)
    alike = one.decided.dtype == object or np.allclose(one.decided.astype(float), other.decided.astype(float), 1e-4)
    require(alike and len(one) == len(other), "`reread` does not give back what `decide` told: override both")
    flat = [task.unflat("y", {k: "" if v is None else str(v) for k, v in task.flat("y", row).items()}) for row in told]
    third = task.reread(flat, target)
    alike = one.decided.dtype == object or np.allclose(one.decided.astype(float), third.decided.astype(float), 1e-4)
    require(alike, "`unflat` does not give back what `flat` put into a table: override both")


@SUITE.check
def _state(candidate: Candidate) -> None:
    """What was fitted and calibrated survives a model folder, and gives the same predictions."""
    example = _example(candidate)
    task = example.task
    task.calibrate(example.said, example.target)
    state = json.loads(json.dumps(task.state(), allow_nan=False))
    other = build_task(candidate.name, task.labels, candidate.options)
    if task.is_text:
        other.decoder = task.decoder  # type: ignore[attr-defined]
    other.load_state(state, "decisions.y")
    require(other.state() == task.state(), f"`load_state` of {state} gives {other.state()}")
    one, two = (kind.predictions(example.said) for kind in (task, other))
    require(_same(one, two), "another prediction after `load_state`: does `state` tell all that was set?")
    decided = [[kind.decide(row) for row in predicted] for kind, predicted in ((task, one), (other, two))]
    require(decided[0] == decided[1], "another decision after `load_state`: does `state` tell all that was set?")


@SUITE.check
def _projection(candidate: Candidate) -> None:
    """What is averaged in a space, and put back, is what was said; the prior is one row of predictions."""
    example = _example(candidate)
    task, said = example.task, example.said
    if task.is_text:
        return
    predicted = task.predictions(said)
    for space in ("logits", "probabilities"):
        back = task.predictions(task.out_of(space, task.into(space, said)))
        require(np.allclose(back, predicted, rtol=1e-5, atol=1e-9), f"`out_of` does not undo `into` in {space}")
    prior = task.prior(example.target)
    require(np.shape(prior) == predicted.shape[1:], f"`prior` is {np.shape(prior)}, a prediction {predicted.shape[1:]}")
    require(np.isfinite(prior).all(), "`prior` is not finite: do missing targets count?")


@SUITE.check
def _confidence(candidate: Candidate) -> None:
    """A decision that can be held back has a confidence, a curve of validation rows, and a column."""
    example = _example(candidate)
    task = example.task
    if not task.abstains:
        require(task.curves(example.said, example.target) == [], "it has curves, but `abstains` is false")
        return
    sure = task.confidences(task.predictions(example.said))
    require(sure.ndim == 2 and ((sure >= 0) & (sure <= 1)).all(), "`confidences` are not (rows, decisions) in [0, 1]")
    curves = task.curves(example.said, example.target)
    require(len(curves) == sure.shape[1], f"{len(curves)} curves of {sure.shape[1]} decisions")
    held = task.held(sure < 2)
    require(len(held) == len(sure), "`held` does not tell each row")
    decided = {**task.decide(task.predictions(example.said)[0]), "abstained": held[0]}
    flat, names = task.flat("y", decided), [name for name, _ in task.columns("y", abstains=True)]
    require(sorted(flat) == sorted(names), f"a row of a table has {sorted(flat)}, its columns are {sorted(names)}")


@SUITE.check
def _head(candidate: Candidate) -> None:
    """Its head's loss is a sum over labelled rows, which `count` divides; it learns, and the monitor tells so."""
    require(candidate.name in HEADS.names(), "no head is registered under its name in mmfuse.heads.HEADS")
    example = _example(candidate)
    rows = len(example.frame)
    if HEADS.get(candidate.name).generates:  # type: ignore[attr-defined]
        return
    torch.manual_seed(0)
    head: Any = build_head(candidate.name, _WIDTH, example.task.labels, None, candidate.options)
    head.task.fit(lambda: example.target)
    pooled = torch.randn(rows, _WIDTH)
    whole = torch.ones(rows, 1, dtype=torch.bool)
    features = Features(pooled.unsqueeze(1), whole, pooled, whole[:, 0])
    target = torch.from_numpy(example.target)
    logits = head(features)
    require(tuple(logits.shape) == (rows, head.task.width), f"it says {tuple(logits.shape)}, not (rows, width)")
    with torch.no_grad():
        loss, count = head.loss(logits, target), head.count(target)
        each = [head.loss(logits[i : i + 1], target[i : i + 1]) for i in range(rows)]
        counts = [head.count(target[i : i + 1]) for i in range(rows)]
    require(
        torch.isclose(loss, torch.stack(each).sum(), rtol=1e-4), "the loss is no sum over rows: a mean, or a batch's?"
    )
    require(torch.isclose(count.float(), torch.stack(counts).sum().float()), "`count` is no sum over rows")
    require(
        float(each[_MISSING]) == 0 and float(counts[_MISSING]) == 0, "a missing target adds to the loss or its count"
    )
    before = _quality(head, logits, example)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        value = head.loss(head(features), target) / head.count(target)
        value.backward()
        optimizer.step()
    require(
        all(p.isfinite().all() for p in head.parameters()),
        "a parameter is not finite: is the gradient of a missing target NaN?",
    )
    with torch.no_grad():
        after = head.loss(head(features), target) / head.count(target)
    require(
        bool(after < loss / count), f"the loss does not fall in {_STEPS} steps: {loss / count:.3g}, then {after:.3g}"
    )
    better = _quality(head, head(features), example)
    require(
        better >= before,
        f"the loss falls, but {head.task.monitor} gets worse: does `lower_is_better` tell its direction?",
    )


@SUITE.check
def _head_rows(candidate: Candidate) -> None:
    """What its head says of a row depends on that row and on saved weights alone, in train mode and in eval mode."""
    example = _example(candidate)
    rows = len(example.frame)
    if HEADS.get(candidate.name).generates:  # type: ignore[attr-defined]
        return
    torch.manual_seed(0)
    heads: list[Any] = [
        build_head(candidate.name, _WIDTH, example.task.labels, None, candidate.options).double() for _ in range(2)
    ]
    pooled = torch.randn(2 * rows, _WIDTH).double()
    for head in heads:
        head.task.fit(lambda: example.target)
    for training in (True, False):
        mode = "train" if training else "eval"
        whole, beside = (_said(heads[0].train(training), part) for part in (pooled[:rows], pooled[rows:]))
        mixed = _said(heads[0], torch.cat([pooled[:1], pooled[rows + 1 :]]))
        require(torch.allclose(mixed[0], whole[0]), f"in {mode} mode what it says of a row depends on the other rows")
        alone = _said(heads[0], pooled[:1])
        require(
            alone.shape == whole[:1].shape and bool(alone.isfinite().all()), f"in {mode} mode it fails on a single row"
        )
        require(not torch.equal(whole, beside), f"in {mode} mode it says the same of all rows")
    heads[1].load_state_dict(heads[0].state_dict())
    one, other = (_said(head.eval(), pooled) for head in heads)
    require(torch.equal(one, other), "loaded from its weights it says something else: does it remember forwards?")


@torch.no_grad()
def _said(head: Any, pooled: torch.Tensor) -> torch.Tensor:
    """A head's output for pooled vectors, which draws the same each time."""
    whole = torch.ones(len(pooled), 1, dtype=torch.bool)
    torch.manual_seed(1)
    return head(Features(pooled.unsqueeze(1), whole, pooled, whole[:, 0]))


def _quality(head: Any, logits: torch.Tensor, example: _Example) -> float:
    """The metric of `monitor`, of which more is better."""
    predicted = head.task.predictions(logits.detach().numpy())
    value = head.task.values([head.task.monitor], predicted, example.target)[head.task.monitor]
    return -value if head.task.monitor in head.task.lower_is_better else value
