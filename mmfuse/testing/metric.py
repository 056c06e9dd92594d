"""The checks of metrics that are found by name.

Each is made on random rows of every kind of task that a metric is for, so that an interval of it means something: a
replicate of the bootstrap is a weighting of rows.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfuse.metrics import METRICS
from mmfuse.metrics.scored import Scored
from mmfuse.tasks import TASKS
from mmfuse.testing.suite import Candidate, Suite, require, require_docstring, require_named_options

SUITE = Suite(METRICS)
LABELS = ("ant", "bee", "cat")
N = 40
Array = NDArray[np.float64]
_EQUAL = 1e-9


def _classes(rng: np.random.Generator, skill: float) -> Scored:
    target = rng.integers(0, len(LABELS), N)
    raw = rng.dirichlet(np.ones(len(LABELS)), N)
    return Scored.of_classes((1 - skill) * raw + skill * np.eye(len(LABELS))[target], target, LABELS)


def _labels(rng: np.random.Generator, skill: float) -> Scored:
    target = (rng.random((N, len(LABELS))) < 0.4).astype(np.float64)
    said = (1 - skill) * rng.random(target.shape) + skill * target
    missing = rng.random(target.shape) < 0.1
    target[missing & ~missing.all(axis=1, keepdims=True)] = np.nan
    return Scored.of_labels(said, target, LABELS, [0.5] * len(LABELS))


def _numbers(rng: np.random.Generator, skill: float) -> Scored:
    target = rng.poisson(5.0, N).astype(np.float64)
    return Scored(target, target + (1 - skill) * rng.normal(0, 3, N), (), None, np.arange(N))


def _captions(rng: np.random.Generator, skill: float) -> Scored:
    words = np.array(["a film of the chest", "no effusion is seen", "the heart is large"], dtype=object)
    true, other = rng.integers(0, 3, N), rng.integers(0, 3, N)
    target = np.empty(N, dtype=object)
    target[:] = [(words[i],) for i in true]
    return Scored(target, words[np.where(rng.random(N) < skill, true, other)], (), None, np.arange(N))


def _rows_of(kind: Any) -> Callable[[np.random.Generator, float], Scored]:
    """What makes rows as a kind of task has them."""
    if kind.is_text:
        return _captions
    if kind.has_labels:
        return _classes if kind.exclusive else _labels
    return _numbers


def _rows(candidate: Candidate, seed: int = 0, skill: float = 0.3) -> Iterator[Scored]:
    """Random rows of each kind that the metric is for; `skill` 1 is a perfect prediction, 0 knows nothing."""
    for kind in candidate.cls.kinds:
        yield _rows_of(TASKS.get(kind))(np.random.default_rng(seed), skill)


def _score(candidate: Candidate, scored: Scored, weights: Array | None = None) -> Array:
    """What the metric gives, without a warning, as float64 of the right shape."""
    weights = np.ones((1, len(scored))) if weights is None else weights
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = np.asarray(candidate.cls(**candidate.options)(scored, weights), dtype=np.float64)
    shape = (len(weights), len(scored.labels)) if candidate.cls.per_label else (len(weights),)
    require(found.shape == shape, f"it gives {found.shape}, not {shape}: is it one value for each row of weights?")
    return found


def _take(scored: Scored, rows: NDArray[np.int64]) -> Scored:
    """Some of the rows, in this order."""
    p = None if scored.probabilities is None else scored.probabilities[rows]
    return Scored(scored.target[rows], scored.decided[rows], scored.labels, p, np.arange(len(rows)))


def _same(a: Array, b: Array) -> bool:
    return bool(np.allclose(a, b, rtol=_EQUAL, atol=_EQUAL, equal_nan=True))


def _weights(seed: int = 0, b: int = 5) -> Array:
    return np.random.default_rng(seed).integers(0, 4, (b, N)).astype(np.float64)


@SUITE.check
def _protocol(candidate: Candidate) -> None:
    """Attributes, constructor, docstring and the output's shape."""
    cls = candidate.cls
    kinds = getattr(cls, "kinds", None)
    require(isinstance(kinds, tuple) and kinds, "`kinds` is no tuple of the kinds of task it is for")
    strange = [kind for kind in cls.kinds if kind not in TASKS.names()]
    require(not strange, f"`kinds` has {strange}, which are no kinds of task: {', '.join(TASKS.names())}")
    needs = getattr(cls, "needs", None)
    legal = {"decisions", "probabilities"}
    require(isinstance(needs, frozenset) and needs and needs <= legal, f"`needs` is no frozenset of {sorted(legal)}")
    for name in ("larger_is_better", "per_label"):
        require(isinstance(getattr(cls, name, None), bool), f"`{name}` is neither True nor False")
    low, high = getattr(cls, "range", (math.nan, math.nan))
    require(low < high, "`range` is no (lowest, highest)")
    require_docstring(cls)
    require_named_options(cls)
    for scored in _rows(candidate):
        _score(candidate, scored)


@SUITE.check
def _inputs_unchanged(candidate: Candidate) -> None:
    """Other metrics see the same arrays."""
    for scored in _rows(candidate):
        weights = _weights()
        before = copy.deepcopy((scored.target, scored.decided, scored.probabilities, weights))
        _score(candidate, scored, weights)
        after = (scored.target, scored.decided, scored.probabilities, weights)
        for name, a, b in zip(("target", "decided", "probabilities", "weights"), before, after, strict=True):
            same = a is b is None or np.array_equal(a, b, equal_nan=a.dtype != object)  # pyright: ignore[reportOptionalMemberAccess, reportArgumentType]
            require(same, f"it changes `{name}`, which other metrics see: copy before writing")


@SUITE.check
def _order_of_rows(candidate: Candidate) -> None:
    """Rows have no order."""
    for scored in _rows(candidate):
        order, weights = np.random.default_rng(1).permutation(N), _weights()
        same = _same(_score(candidate, scored, weights), _score(candidate, _take(scored, order), weights[:, order]))
        require(same, "another order of the rows gives another score: does it pair rows, or break ties by position?")


@SUITE.check
def _weights_are_repeats(candidate: Candidate) -> None:
    """A row of weight 2 counts as two rows, one of weight 0 as none: else no interval means anything."""
    for scored in _rows(candidate):
        weights = _weights()
        found = _score(candidate, scored, weights)
        for own, times in zip(found, weights, strict=True):
            repeated = _take(scored, np.repeat(np.arange(N), times.astype(int)))
            same = _same(own[None], _score(candidate, repeated))
            require(same, "weights are not repeated rows: does it ignore them, or divide by the number of rows?")


@SUITE.check
def _replicates_apart(candidate: Candidate) -> None:
    """Weightings that are scored together do not see each other."""
    for scored in _rows(candidate):
        weights = _weights()
        alone = np.concatenate([_score(candidate, scored, one[None]) for one in weights])
        require(
            _same(_score(candidate, scored, weights), alone), "weightings that are scored together change each other"
        )


@SUITE.check
def _repeats(candidate: Candidate) -> None:
    """Asked again, one that has scored other rows gives the same: a benchmark asks one for every resample."""
    metric = candidate.cls(**candidate.options)
    one, other = list(_rows(candidate)), list(_rows(candidate, seed=1))
    ones = np.ones((1, N))
    first = [np.asarray(metric(scored, ones), dtype=np.float64) for scored in one]
    for scored in other:
        metric(scored, ones)
    again = [np.asarray(metric(scored, ones), dtype=np.float64) for scored in one]
    same = all(map(_same, first, again))
    require(same, "the same rows have another score the second time: does it remember others, or draw at random?")


@SUITE.check
def _range(candidate: Candidate) -> None:
    """Every score lies in the range that it declares."""
    low, high = candidate.cls.range
    for seed in range(20):
        for scored in _rows(candidate, seed, seed / 19):
            found = _score(candidate, scored, _weights(seed))
            found = found[~np.isnan(found)]
            inside = (found >= low - _EQUAL) & (found <= high + _EQUAL)
            require(inside.all(), f"a score is {found[~inside][:1]}, outside of its `range` {(low, high)}")


@SUITE.check
def _perfect_prediction(candidate: Candidate) -> None:
    """What is right everywhere is scored, and as the best."""
    low, high = candidate.cls.range
    best = high if candidate.cls.larger_is_better else low
    for scored in _rows(candidate, skill=1.0):
        found = _score(candidate, scored)
        require(not np.isnan(found).any(), "a perfect prediction has no score: is 0 / 0 in it?")
        if math.isfinite(best):
            require(
                _same(found, np.full_like(found, best)),
                f"a perfect prediction scores {found.ravel()[0]:g}, not {best:g}",
            )


@SUITE.check
def _direction(candidate: Candidate) -> None:
    """Better predictions have better scores."""
    sign = 1 if candidate.cls.larger_is_better else -1
    steps = [[list(_rows(candidate, seed, skill)) for seed in range(10)] for skill in (0.0, 1.0)]
    for kind in range(len(candidate.cls.kinds)):
        blind, perfect = (np.nanmean([_score(candidate, rows[kind]) for rows in step]) for step in steps)
        better = sign * (perfect - blind) > 0
        require(
            better, f"perfect predictions score {perfect:.3g}, blind ones {blind:.3g}: is `larger_is_better` right?"
        )


@SUITE.check
def _undefined(candidate: Candidate) -> None:
    """Where it is undefined it is NaN: no error, no warning, no infinity; without any row it always is."""
    for scored in _rows(candidate):
        require(np.isnan(_score(candidate, scored, np.zeros((2, N)))).all(), "without any row it is not NaN")
        for rows in (np.arange(1), np.arange(2), np.arange(0)):
            require(not np.isinf(_score(candidate, _take(scored, rows))).any(), "of few rows it is infinite")
        if scored.labels:
            alone = _take(scored, np.flatnonzero(scored.truth[:, 0] == 1))
            require(not np.isinf(_score(candidate, alone)).any(), "of rows of one label it is infinite")


@SUITE.check
def _needs(candidate: Candidate) -> None:
    """What it does not declare to need does not matter: by this a benchmark knows whether thresholds are in it."""
    for scored in _rows(candidate):
        if not scored.labels or scored.probabilities is None:
            continue
        found, rng = _score(candidate, scored), np.random.default_rng(2)
        other = {
            "decisions": {"decided": rng.permutation(scored.decided)},
            "probabilities": {"probabilities": rng.dirichlet(np.ones(len(LABELS)), N)},
        }
        for name, change in other.items():
            changed: Any = dataclasses.replace(scored, **change)
            same = name in candidate.cls.needs or _same(found, _score(candidate, changed))
            require(same, f"it depends on {name}, which `needs` does not name")
