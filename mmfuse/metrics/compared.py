"""What `compare` returns and `comparison.json` holds, field by field: plain dicts, as JSON has them."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from mmfuse.metrics.results import Difference, JudgedRequirement


class ComparedMetric(TypedDict):
    """A metric of two models on the same rows.

    Attributes:
        a: Of the first model; None where it is undefined.
        b: Of the second.
        difference: b - a, in the metric's own unit.
        better: "a" or "b" where the interval of the difference is without 0; else None.
        non_inferior: Whether the interval shows that b is worse than a by less than the margin; None without an
            interval; with a margin.
    """

    a: float | None
    b: float | None
    difference: Difference
    better: str | None
    non_inferior: NotRequired[bool | None]


class Flips(TypedDict):
    """Decisions that two models make otherwise.

    Attributes:
        decisions: Of which the truth is known: rows, or rows and labels.
        right_to_wrong: Of these, where a is right and b is wrong.
        wrong_to_right: Where a is wrong and b is right.
        wrong_to_wrong: Where both are wrong, and differ.
    """

    decisions: int
    right_to_wrong: int
    wrong_to_right: int
    wrong_to_wrong: int


class ComparedSubgroup(TypedDict):
    """Two models on the rows of a subgroup.

    Attributes:
        n: Rows with a target.
        groups: Groups that they are of.
        difference: Of the metric that the column is compared in; not corrected for the number of subgroups.
        flips: Decisions that flip, where the task has decisions.
    """

    n: int
    groups: int
    difference: Difference
    flips: NotRequired[Flips]


class ComparedColumn(TypedDict):
    """A column of subgroups.

    Attributes:
        metric: What its subgroups are compared in.
        binned: Whether they are quarters of numbers.
        subgroups: By value; empty where there are too many values.
    """

    metric: str
    binned: bool
    subgroups: dict[str, ComparedSubgroup]


class ComparedTask(TypedDict):
    """Two models on a task.

    Attributes:
        n: Rows with a target.
        groups: Groups that they are of.
        identical: Whether both give the same answer to each row, to the digits that files of predictions keep.
        metrics: By name.
        flips: Decisions that flip, of a task that has decisions.
        label_flips: The same of each label, where there is a decision a label.
        subgroups: By column of the manifest's `subgroups`.
    """

    n: int
    groups: int
    identical: bool
    metrics: dict[str, ComparedMetric]
    flips: NotRequired[Flips]
    label_flips: NotRequired[dict[str, Flips]]
    subgroups: dict[str, ComparedColumn]


class ComparedRows(TypedDict):
    """Which rows were compared.

    Attributes:
        both: Rows that both answer, which are compared.
        only_a: Rows of a alone, or outside the split.
        only_b: Rows of b alone, or outside the split.
        unanswered: Rows of the split that neither, or one alone, answers; 0 without a manifest.
    """

    both: int
    only_a: int
    only_b: int
    unanswered: int


class Comparison(TypedDict):
    """What `compare` returns.

    Attributes:
        a: The first model, or file of predictions.
        b: The second.
        split: Whose rows; None without a manifest.
        rows: Which were compared.
        margin: By which b may be worse and still counts as not inferior, where one was given.
        tasks: By task that both answer; one without any target among the rows is left out.
        requirements: What was required, and whether it holds.
    """

    a: str
    b: str
    split: str | None
    rows: ComparedRows
    margin: NotRequired[float]
    tasks: dict[str, ComparedTask]
    requirements: NotRequired[list[JudgedRequirement]]
