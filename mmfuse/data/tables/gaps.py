"""What a table lacks to be trained and scored on; `train` and `data check` find the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmfuse.data.tables.splits import SPLITS
from mmfuse.data.tables.table import Table
from mmfuse.tasks import kind_of
from mmfuse.types import MmfuseError

_MOST_NAMED = 5
_NAMES = {"train": "training", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Gap:
    """One thing that is not there.

    Attributes:
        check: Its kind, as the audit names it.
        refused: Whether nothing can be trained so; else it is only told.
        message: What is not there, and what follows.
        fix: What to do about it.
    """

    check: str
    refused: bool
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.message}; {self.fix}"


def find_gaps(table: Table) -> list[Gap]:
    """All gaps of a table, those that are refused first."""
    if not table.labels:
        fix = "say in the manifest under tasks which column is the target"
        return [Gap("tasks.absent", True, "tasks: there is none to train", fix)]
    return sorted([*_targets(table), *_inputs(table), *_left_out(table)], key=lambda gap: not gap.refused)


def refuse_gaps(table: Table) -> list[Gap]:
    """The gaps that are only told, and labels that a split lacks, which an audit tells with those that it has few of.

    Raises:
        MmfuseError: There is one with which nothing can be trained.
    """
    gaps = find_gaps(table)
    for gap in gaps:
        if gap.refused:
            raise MmfuseError(f"{table.manifest.source}: {gap}")
    return [*gaps, *_absent_labels(table)]


def scored_split(table: Table) -> str:
    """The split whose scores a run reports: of test, validation and train the first in which a row has a target."""
    there = [split for split in reversed(SPLITS) if split in table.splits]
    return next((split for split in there if any(table.has_target(task, split) for task in table.labels)), there[0])


def _targets(table: Table) -> Iterator[Gap]:
    counts = table.counts()
    for split in SPLITS:
        if not counts.get(split):
            continue
        without = [task for task in table.labels if not table.has_target(task, split)]
        whole = without == list(table.labels)
        what = {
            "train": "nothing can be learned from it",
            "validation": "no epoch can be chosen by it" if whole else "it is ignored when an epoch is chosen",
            "test": "there is no score on it",
        }[split]
        for task in without:
            yield Gap(
                "splits.without_targets",
                split == "train" or (split == "validation" and whole),
                f"tasks.{task}: no row of the {_NAMES[split]} split has a target: {what}",
                "correct the target's column or splits, or leave the task or the split out",
            )
        if split != "validation":
            continue
        for task in [task for task in table.labels if task not in without]:
            kind = table.kind(task)
            reason = kind.undefined(table.targets_of(task, split)).get(kind.monitor)
            if reason:
                yield Gap(
                    "labels.not_monitored",
                    False,
                    f"tasks.{task}: in the validation split {reason}: {kind.monitor}, on which training stops by "
                    "default, is undefined, and the validation loss takes its place",
                    "stratify the splits by this task, or name another metric in training.monitor",
                )


def _absent_labels(table: Table) -> Iterator[Gap]:
    counts = table.counts()
    for task in table.labels:
        kind = table.kind(task)
        if not kind.has_labels:
            continue
        for split in SPLITS[1:]:
            if not counts.get(split) or not table.has_target(task, split):
                continue
            positives = kind.one_hot(table.targets_of(task, split)).sum(axis=0).tolist()
            absent = [name for name, count in zip(kind.labels, positives, strict=True) if not count]
            if absent and any(positives):
                more = f" and {len(absent) - _MOST_NAMED} more" if len(absent) > _MOST_NAMED else ""
                yield Gap(
                    "labels.absent",
                    False,
                    f"tasks.{task}: no row of the {_NAMES[split]} split has "
                    f"{', '.join(map(repr, absent[:_MOST_NAMED]))}{more}: their scores are undefined there, and macro "
                    f"averages are over {len(positives) - len(absent)} of {len(positives)} labels at most",
                    "stratify the splits by this task, or leave rare labels out (min_count)",
                )


def _inputs(table: Table) -> Iterator[Gap]:
    rows = table.counts().get("train", 0)
    lacks = table.lacks("train") if rows else {}
    for name, spec in (("text", table.manifest.text), ("image", table.manifest.image)):
        if spec is not None and rows and lacks[name] == rows:
            yield Gap(
                f"{name}s.absent",
                False,
                f"{name}: no row of the training split has one, though the manifest names where they are",
                f"correct {name}.columns in the manifest, or take {name} out of it",
            )


def _left_out(table: Table) -> Iterator[Gap]:
    for task, names in table.labels.items():
        spec = table.manifest.tasks[task]
        values = spec.values.values() if isinstance(spec.values, dict) else spec.values
        left_out = [name for name in dict.fromkeys(spec.columns or values or ()) if name not in names]
        if kind_of(spec).has_labels and left_out and spec.min_count == 1:
            yield Gap(
                "labels.left_out",
                False,
                f"tasks.{task}: no row has {', '.join(map(repr, left_out))}: left out",
                "correct the column or values, or take the label out of the manifest",
            )
