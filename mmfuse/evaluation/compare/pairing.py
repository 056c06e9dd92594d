"""Two sides brought to the same rows: those of a manifest's split, or those whose targets two files hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmfuse.data.load import load_table
from mmfuse.data.tables.manifest import Manifest
from mmfuse.data.tables.table import Table
from mmfuse.evaluation.compare.sides import Predictions, Said, Side, kind_told
from mmfuse.evaluation.evaluate import check_tasks, read_and_run
from mmfuse.evaluation.precision import scoring_precision
from mmfuse.heads import decide_rows
from mmfuse.metrics.compared import ComparedRows
from mmfuse.model import FusionModel
from mmfuse.precision import at_precision
from mmfuse.predict import join_processes
from mmfuse.tasks import TaskKind
from mmfuse.types import MmfuseError

Sides = tuple[Side, Side]
Names = tuple[str, str]


@dataclass(frozen=True)
class PairedTask:
    """What both sides say of a task.

    Attributes:
        type: The name of its kind.
        target: `(rows, ...)` encoded.
        a: Of the first side.
        b: Of the second.
        options: What its manifest says of how it is scored, by name of an argument of `weighted`.
    """

    type: str
    target: np.ndarray
    a: Said
    b: Said
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> TaskKind:
        """What its target is."""
        return self.a.kind


@dataclass(frozen=True)
class Pairing:
    """The rows that both sides answer.

    Attributes:
        ids: By row.
        groups: By row.
        counts: How many there are, and how many there are elsewhere.
        tasks: By name.
        columns: By name of a subgroup's column, its cells.
    """

    ids: list[str]
    groups: list[str]
    counts: ComparedRows
    tasks: dict[str, PairedTask]
    columns: dict[str, list[str]] = field(default_factory=dict)


Check = Callable[[dict[str, tuple[TaskKind, str]]], None]
"""Is told, before anything is run, by task its kind and the kind's name; it raises what must be told at once."""


def pair_files(sides: tuple[Predictions, Predictions], check: Check) -> Pairing:
    """Two files that hold targets, as `evaluate` writes them.

    Raises:
        MmfuseError: They hold none, share no row or task, or differ in a target or a group.
    """
    a, b = sides
    ids = [id for id in a.rows if id in b.rows]
    counts = _counts(len(ids), len(a.rows) - len(ids), len(b.rows) - len(ids), 0, (str(a.path), str(b.path)))
    shared = [task for task in a.tasks() if task in b.tasks()]
    for side in sides:
        first = side.rows[ids[0]].get("tasks", {})
        if any("target" not in first.get(task, ()) for task in shared) or not side.tasks():
            raise MmfuseError(f"{side.path}: its predictions have no targets (evaluate writes them): name the manifest")
    if not shared:
        raise MmfuseError(f"{a.path} and {b.path} share no task: {', '.join(a.tasks())}; {', '.join(b.tasks())}")
    kinds = {
        task: kind_told(a.rows[ids[0]]["tasks"].get(task, {}), f"{a.path}: predictions of {task}") for task in shared
    }
    check({task: (kind, type) for task, (type, kind) in kinds.items()})
    tasks, groups = {}, [_same(id, "group", sides, lambda row, id=id: row.get("group", id)) for id in ids]
    for task, (type, kind) in kinds.items():
        shown = [
            _same(id, f"target of {task}", sides, lambda row, task=task: row["tasks"][task]["target"]) for id in ids
        ]
        one, other = (Said(kind, side.told(task, kind, ids)) for side in sides)
        with a.reads(task):
            tasks[task] = PairedTask(type, kind.unshown(shown), one, other)
    return Pairing(ids, groups, counts, tasks)


def _same(id: str, what: str, sides: tuple[Predictions, Predictions], of: Callable[[dict[str, Any]], Any]) -> Any:
    try:
        one, other = (of(side.rows[id]) for side in sides)
    except KeyError as error:
        raise MmfuseError(f"{sides[0].path} and {sides[1].path}: row {id!r} lacks {error}") from error
    if one != other:
        raise MmfuseError(
            f"{sides[0].path} and {sides[1].path}: the {what} of row {id!r} is {one!r:.60} and {other!r:.60}: they are "
            "not of the same rows"
        )
    return one


def pair_on_manifest(
    sides: Sides, names: Names, manifest: Manifest, split: str, fold: int | None, check: Check, **reading: Any
) -> Pairing:
    """Two sides on the rows of a split: models are run over it, files are joined by id.

    Raises:
        MmfuseError: They share no task of the manifest or no row of the split, or one cannot be read.
    """
    models = [side for side in sides if isinstance(side, FusionModel)]
    shared = _shared_tasks(sides, names, manifest)
    labels: dict[str, list[str]] = {}
    for task in shared:
        for model in models:
            check_tasks(model, manifest, [task])
            own = list(model.task_config[task]["labels"])
            if sorted(labels.setdefault(task, own)) != sorted(own):
                strange = sorted(set(own) ^ set(labels[task]))[0]
                raise MmfuseError(f"{names[1]}: task {task!r} has other labels than in {names[0]}, such as {strange!r}")
    table = load_table(manifest, tasks=shared, labels=labels if models else None, fold=fold)
    check({task: (table.kind(task), manifest.tasks[task].type) for task in shared})
    rows = table.indices(split)
    every = _column(table, "id", rows)
    answered = [set(every if isinstance(side, FusionModel) else side.rows) for side in sides]
    places = [i for i, id in enumerate(every) if id in answered[0] and id in answered[1]]
    ids = [every[i] for i in places]
    alone = [0 if isinstance(side, FusionModel) else len(side.rows) - len(ids) for side in sides]
    counts = _counts(len(ids), alone[0], alone[1], len(rows) - len(ids), names)
    kept = [rows[i] for i in places]
    one, other = (_said(side, table, shared, kept, ids, **reading) for side in sides)
    tasks = {}
    for task in shared:
        spec, target = manifest.tasks[task], table.targets[task][kept]
        options = {"language": spec.language} if spec.language else {}
        tasks[task] = PairedTask(spec.type, target, one[task], other[task], options)
    columns = {name: _column(table, f"subgroup.{name}", kept) for name in manifest.subgroups}
    return Pairing(ids, _column(table, "group", kept), counts, tasks, columns)


def _counts(both: int, only_a: int, only_b: int, unanswered: int, names: Names) -> ComparedRows:
    if not both:
        raise MmfuseError(f"{names[0]} and {names[1]} have no row in common: are their ids those of the same table?")
    return {"both": both, "only_a": only_a, "only_b": only_b, "unanswered": unanswered}


def _column(table: Table, name: str, rows: Sequence[int]) -> list[str]:
    values: list[Any] = table.rows[name][:]
    return [values[row] for row in rows]


def _shared_tasks(sides: Sides, names: Names, manifest: Manifest) -> list[str]:
    own = [list(s.heads) if isinstance(s, FusionModel) else s.tasks(list(manifest.tasks)) for s in sides]
    shared = [task for task in own[0] if task in own[1] and task in manifest.tasks]
    if not shared:
        told = "; ".join(f"{name}: {', '.join(tasks) or 'none'}" for name, tasks in zip(names, own, strict=True))
        raise MmfuseError(f"{manifest.source}: no task of it is of both: {told}; its own: {', '.join(manifest.tasks)}")
    return shared


def _said(
    side: Side, table: Table, tasks: Sequence[str], rows: list[int], ids: Sequence[str], **reading: Any
) -> dict[str, Said]:
    """By task what a side says of some rows."""
    if isinstance(side, Predictions):
        kinds = {task: table.kind(task) for task in tasks}
        return {task: Said(kind, side.told(task, kind, ids)) for task, kind in kinds.items()}
    state = join_processes()
    side = side.to(state.device).eval()
    computed, _ = scoring_precision(reading.pop("precision", None), side, state)
    with at_precision(side, computed):
        _, logits = read_and_run(side, table, rows, **reading)
    side.to("cpu")  # the other one has the memory to itself
    found = {}
    for task in tasks:
        head: Any = side.heads[task]
        told = list(decide_rows(head, logits[task]))
        if head.task.labels == table.labels[task]:
            found[task] = Said(head.task, told, head.task.predictions(logits[task]))
        else:  # in another order: its answers are read by name, as those of a file
            found[task] = Said(table.kind(task), told)
    return found
