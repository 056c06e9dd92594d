"""What `evaluate` returns and a benchmark writes, field by field: plain dicts, as JSON has them.

Numbers that are undefined are None, here and in JSON. Fields of `NotRequired` are there only where there is something
to say.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Score(TypedDict):
    """A metric with its 95 % interval, for all groups of the kind that these rows' groups are of.

    Attributes:
        value: On these rows; None where it is undefined.
        low: Lower end; None without an interval.
        high: Upper end.
        note: Why there is no interval, or what must be known of the one that there is.
    """

    value: float | None
    low: float | None
    high: float | None
    note: NotRequired[str]


class Difference(TypedDict):
    """A score of the model less that of something else, under the same resamples.

    Attributes:
        value: On these rows.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Two-sided, of there being no difference; None where it is not known.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None


class LabelScores(TypedDict):
    """One label, of classes one against the rest. A metric that was chosen and has one value a label is a field too.

    Attributes:
        positives: Rows where it is true: its support.
        negatives: Rows where it is not (multi-label tasks).
        auroc: Area under the ROC curve.
        average_precision: Area under the curve of precision and recall.
        f1: Harmonic mean of precision and recall.
        threshold: From which probability on it is said (multi-label tasks).
        precision: Share of what was said that is true, also called `ppv`; with `metrics: [precision]`.
        ppv: The same; with `metrics: [ppv]`.
        recall: Share of what is true that was said; with `metrics: [recall]`.
        sensitivity: The same; with `metrics: [sensitivity]`.
        specificity: Share of what is not true that was not said; with `metrics: [specificity]`.
        npv: Share of what was not said that is not true; with `metrics: [npv]`.
    """

    positives: int
    negatives: NotRequired[int]
    auroc: Score
    average_precision: Score
    f1: Score
    threshold: NotRequired[float]
    precision: NotRequired[Score]
    ppv: NotRequired[Score]
    recall: NotRequired[Score]
    sensitivity: NotRequired[Score]
    specificity: NotRequired[Score]
    npv: NotRequired[Score]


class PointScores(TypedDict):
    """What an operating point gives of one label.

    Attributes:
        sensitivity: Share of the positives that were said.
        specificity: Share of the negatives that were not said.
        ppv: Share of what was said that is true.
        npv: Share of what was not said that is not true.
    """

    sensitivity: Score
    specificity: Score
    ppv: Score
    npv: Score


class PointOfLabel(TypedDict):
    """An operating point of one label.

    Attributes:
        threshold: From which probability on it is said; None where the validation rows do not reach what is required.
        validation: What it gave on the validation rows, which chose it; None without a threshold.
        scored: What it gave on the rows of the report; None without a threshold.
    """

    threshold: float | None
    validation: PointScores | None
    scored: PointScores | None


class PointReport(TypedDict):
    """An operating point of a task.

    Attributes:
        requires: As in the config, such as `{"sensitivity": 0.95}`.
        labels: By label; of two classes the positive one alone.
    """

    requires: dict[str, Any]
    labels: dict[str, PointOfLabel]


class Baseline(TypedDict):
    """A captioning task's baseline.

    Attributes:
        metrics: Its own scores, by name.
        difference: The model's scores less its own.
    """

    metrics: dict[str, Score]
    difference: dict[str, Difference]


class Intervals(TypedDict):
    """The intervals that go with predicted numbers.

    Attributes:
        level: The share of new rows that they promise to cover.
        coverage: The share of these rows that they cover.
        width: Their median width, in the target's unit.
    """

    level: float
    coverage: Score
    width: float


class TaskScores(TypedDict):
    """The scores of one task.

    Attributes:
        n: Rows with a target.
        groups: Groups that they are of; rows of one group are resampled together.
        metrics: By name, those of every report first, then those that were chosen.
        per_label: By label (classification and multi-label tasks).
        undefined_labels: Labels without positives or without negatives, left out of `auroc_macro` and
            `average_precision_macro`.
        macro_over: By macro average over how many of the labels it is; the others are undefined among these rows.
        confusion: `K x K` rows of each true class (first) by what was said (classification).
        operating_points: By name, where the model has any.
        baselines: `consensus` and `retrieval` (captioning).
        words: What is to be known of metrics that count words, where captions have no spaces between them (captioning).
        unit: Of the target (regression).
        intervals: What the predictions' intervals are worth, where there are any (regression).
        told: Sentences of the printed report beside the tables, where the kind of task has any.
    """

    n: int
    groups: int
    metrics: dict[str, Score]
    per_label: NotRequired[dict[str, LabelScores]]
    undefined_labels: NotRequired[list[str]]
    macro_over: NotRequired[dict[str, int]]
    confusion: NotRequired[list[list[int]]]
    operating_points: NotRequired[dict[str, PointReport]]
    baselines: NotRequired[dict[str, Baseline]]
    words: NotRequired[str]
    unit: NotRequired[str | None]
    intervals: NotRequired[Intervals]
    told: NotRequired[list[str]]


class Missing(TypedDict):
    """How many rows lack a modality.

    Attributes:
        text: Rows without a text.
        image: Rows without an image.
    """

    text: int
    image: int


class CutTexts(TypedDict):
    """How many texts were cut.

    Attributes:
        texts: Rows with a text.
        cut: Of these, those that are longer than the model reads.
        max_length: Tokens that it reads.
        truncation: Which part of a longer text is kept.
    """

    texts: int
    cut: int
    max_length: int
    truncation: str


class JudgedRequirement(TypedDict):
    """What was required of a score, and whether it holds.

    Attributes:
        requirement: As it was written.
        value: Of the score; None where it is undefined.
        low: Lower end of its 95 % interval, which decides of `>=`.
        high: Upper end, which decides of `<=`.
        passed: Whether that end reaches the bound.
        reason: Why nothing could be judged, and so it failed.
    """

    requirement: str
    value: float | None
    low: float | None
    high: float | None
    passed: bool
    reason: NotRequired[str]


class Report(TypedDict):
    """What `evaluate` returns, and `metrics.json` holds.

    Attributes:
        split: Which was scored.
        rows: Its rows.
        missing: Rows without a modality.
        tasks: By task; one without any target among the rows is left out.
        operating_point: At which decisions were scored, where it was not the model's usual thresholds.
        precision: What the model computed in, and why; not where all was fp32.
        analyses: By name what analyses found that are not of one task.
        cut_texts: Texts longer than the model reads; None of a model without a text encoder.
        requirements: What was required, and whether it holds.
    """

    split: str
    rows: int
    missing: Missing
    tasks: dict[str, TaskScores]
    operating_point: NotRequired[str]
    precision: NotRequired[str]
    analyses: NotRequired[dict[str, dict[str, Any]]]
    cut_texts: CutTexts | None
    requirements: NotRequired[list[JudgedRequirement]]
