"""The checks of analyses: each asks one of the same scored rows, and looks at what it says and leaves behind."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmfuse.evaluation.analyses import ANALYSES, Analysis, Scored, analysis_lines
from mmfuse.evaluation.markdown import plain
from mmfuse.testing.analysis_example import example, reordered
from mmfuse.testing.suite import Candidate, ConformanceError, Suite, require, require_docstring, require_named_options
from mmfuse.types import MmfuseError

EQUAL = 1e-6
"""Relative; sums of another order of rows differ by less."""

SUITE = Suite(ANALYSES)


def _build(candidate: Candidate) -> Any:
    return candidate.cls(**candidate.options)


def _fresh(every_kind: bool = False) -> Scored:
    """The example, with scores of its own."""
    return dataclasses.replace(example(every_kind), scores=copy.deepcopy(example(every_kind).scores))


def _asked(candidate: Candidate, change: Callable[[Scored], Scored] = lambda scored: scored) -> dict[str, Any]:
    """What is found in the example, where the analysis applies to it, or else in that of every kind of task."""
    for every_kind in (False, True):
        found = _build(candidate)(change(_fresh(every_kind)))
        if found is not None:
            return found
    tasks = ", ".join(f"{name} ({len(scores['metrics'])} metrics)" for name, scores in example(True).scores.items())
    raise ConformanceError(
        f"it does not apply to the rows it is tried on ({tasks}; subgroups by two columns), so nothing can be checked: "
        "let it answer on labels, classes, numbers, captions, or a kind of task that is registered"
    )


def _told(candidate: Candidate) -> dict[str, Any]:
    """The same, as a reader of `metrics.json` has it."""
    return json.loads(json.dumps(_asked(candidate)))


@SUITE.check
def _protocol(candidate: Candidate) -> None:
    """The base class, attributes, options with defaults, and the docstring."""
    cls = candidate.cls
    require(
        isinstance(cls, type) and issubclass(cls, Analysis), "it is no subclass of mmfuse.evaluation.analyses.Analysis"
    )
    require_named_options(cls)
    require_docstring(cls)
    require(isinstance(cls.by_itself, bool), f"`by_itself` is {cls.by_itself!r}: True or False")
    require(cls.beside is None or isinstance(cls.beside, str), f"`beside` is {cls.beside!r}: a key, or None")
    taken = {"n", "groups", "metrics", "per_label", "undefined_labels", "macro_over", "confusion"}
    require(cls.beside not in taken, f"`beside` is {cls.beside!r}, which the scores have themselves")
    for method in ("__call__", "lines"):
        require(getattr(cls, method) is not getattr(Analysis, method), f"it has no `{method}`")
    try:
        cls()
    except TypeError as error:
        raise ConformanceError(f"an option has no default, so a report cannot be told: {error}") from None
    try:
        _build(candidate).check(example().table)
    except MmfuseError:  # it may be for a kind of task that is not in it
        _build(candidate).check(example(every_kind=True).table)


@SUITE.check
def _result_is_json(candidate: Candidate) -> None:
    """Plain values only, that are the same when they are read again."""
    found = _asked(candidate)
    require(isinstance(found, dict), f"it gives a {type(found).__name__}: a dict, or None")
    try:
        read = json.loads(json.dumps(found, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConformanceError(f"its result is not JSON: {error}; numbers must be Python's, and NaN None") from None
    require(read == found, "its result is another when read from JSON: are there tuples, or keys that are no strings?")
    if candidate.cls.beside is not None:
        strange = sorted(set(found) - set(example(every_kind=True).scores))
        require(not strange, f"with `beside`, its keys must be tasks: {', '.join(strange)} is none")


@SUITE.check
def _same_answer_twice(candidate: Candidate) -> None:
    """No clock, and no global random state: it neither decides anything nor is changed."""
    found = []
    for seed in (0, 1):
        _seed(seed)
        before = _random_states()
        found.append(_asked(candidate))
        require(before == _random_states(), "it draws from a global random state: draw from default_rng(scored.seed)")
    why = "its answer to the same rows differs from call to call: what is drawn must follow from scored.seed"
    require(_equal(found[0], found[1]), why)


@SUITE.check
def _order_of_rows(candidate: Candidate) -> None:
    """Rows in another order are the same rows."""
    one, other = _asked(candidate), _asked(candidate, reordered)
    require(_equal(one, other), "its answer depends on the order of the rows")


@SUITE.check
def _leaves_what_it_reads(candidate: Candidate) -> None:
    """Scores, what was said, the rows and the model are as they were."""
    given: list[tuple[Scored, dict[str, str]]] = []

    def kept(scored: Scored) -> Scored:
        given.append((scored, _state(scored)))
        return scored

    _asked(candidate, kept)
    changed = [name for scored, before in given for name, now in _state(scored).items() if before[name] != now]
    require(not changed, f"it changes {', '.join(changed)}: others are asked of the same")


@SUITE.check
def _lines(candidate: Candidate) -> None:
    """Lines of text of what is read from JSON, whatever options the analysis has."""
    found = _told(candidate)
    kept = copy.deepcopy(found)
    lines = _build(candidate).lines(found)
    require(found == kept, "`lines` changes what was found")
    told = isinstance(lines, list) and all(isinstance(line, str) for line in lines)
    require(told and any(line.strip() for line in lines), "`lines` gives no list of texts, or says nothing")
    require(not any("\n" in line for line in lines), "a line of `lines` has a line break in it")
    default = candidate.cls().lines(copy.deepcopy(found))
    require(lines == default, "`lines` depends on options: put what it needs of them into the result")
    analysis_lines(candidate.name, found, plain)  # with names as the model card has them


@SUITE.check
def _figures(candidate: Candidate) -> None:
    """PNGs in the folder, under names that begin with the analysis' own; nothing is left anywhere else."""
    found = _told(candidate)
    kept = copy.deepcopy(found)
    with _elsewhere() as (folder, other):
        drawn = [Path(path) for path in _build(candidate).figures(found, folder)]
        require(found == kept, "`figures` changes what was found")
        outside = [str(path) for path in drawn if path.resolve().parent != folder.resolve()]
        require(not outside, f"`figures` writes outside of its folder: {', '.join(outside)}")
        there = {path for path in folder.rglob("*") if path.is_file()}
        missing = {path.resolve() for path in drawn} ^ {path.resolve() for path in there}
        require(not missing, f"`figures` does not tell what it writes: {', '.join(path.name for path in missing)}")
        for path in there:
            require(path.name.startswith(candidate.name), f"{path.name} does not begin with {candidate.name!r}")
            require(path.suffix == ".png" and path.read_bytes().startswith(b"\x89PNG"), f"{path.name} is no PNG")
        require(not any(other.iterdir()), "`figures` writes into the working directory")


@contextmanager
def _elsewhere() -> Iterator[tuple[Path, Path]]:
    """An empty folder, and another one that is the working directory."""
    was = os.getcwd()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        os.chdir(other)
        try:
            yield Path(folder), Path(other)
        finally:
            os.chdir(was)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _random_states() -> tuple[Any, ...]:
    """Python's and numpy's; a DataLoader, through which a model may be asked, draws its seed from torch's."""
    of_numpy: Any = np.random.get_state()
    return random.getstate(), of_numpy[1].tobytes(), *of_numpy[2:]


def _state(scored: Scored) -> dict[str, str]:
    """By what an analysis is given, a hash of it."""
    weights = {name: tensor.cpu().numpy().tobytes() for name, tensor in scored.model.state_dict().items()}
    decisions = {task: scored.kind(task).state() for task in scored.scores}
    parts: dict[str, Any] = {
        "scores": scored.scores,
        "said": {task: values.tobytes() for task, values in scored.said.items()},
        "rows": list(scored.rows),
        "the targets": {task: target.tolist() for task, target in scored.table.targets.items()},
        "the model": (weights, decisions, scored.model.training),
    }
    return {name: hashlib.sha256(repr(part).encode()).hexdigest() for name, part in parts.items()}


def _equal(one: Any, other: Any) -> bool:
    """Whether two results are the same, their numbers but for rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=EQUAL, abs_tol=EQUAL)
    return bool(one == other)
