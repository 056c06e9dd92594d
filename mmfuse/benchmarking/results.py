"""What a benchmark writes, field by field: a line of `results.jsonl`, and `summary.json`; plain dicts.

An unknown number is None, or NaN in `Score` and `ContrastResult`.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from mmfuse.metrics.results import LabelScores


class CellResult(TypedDict):
    """A line of `results.jsonl`: one training.

    Attributes:
        row: The strategy's row.
        seed: From 0.
        fold: None without folds.
        trial: Of the tuning; None outside of it.
        fusion: The strategy's name and options, with the size that was solved for.
        interaction: additive, multiplicative or token.
        parameters: Of the fusion alone.
        macs: Of the fusion alone, for one example of mean length.
        matched: native, matched, or why its size could not be matched.
        status: done or failed.
        reason: Of a failed one: the error's type and first line; the fields below are then missing.
        steps: Optimiser steps taken.
        best_step: The step whose weights were kept.
        seconds: Of the training steps.
        samples_per_s: Rows a second in these.
        peak_mib: Peak memory.
        validation: What training stops on, at the best step.
        options: Training options that tuning chose, or that this trial tries.
        metrics: By task and name, of the test rows, calibrated; those that were chosen among them.
        uncalibrated: By task `ece`, `nll` and `brier` of the test rows at temperature 1.
        validation_metrics: By task and name, of the validation rows, before calibration.
        per_label: By task and label, of the test rows; empty of tasks without labels.
        decisions: By task what was fitted on validation, such as `temperature` and `thresholds`.
        diagnostics: Of seed 0 and the first fold: `permutation`, `shapley`, `missing`, `emap`.
        analyses: By name, what those that the config names have found.
    """

    row: str
    seed: int
    fold: int | None
    trial: int | None
    fusion: dict[str, Any]
    interaction: str
    parameters: int
    macs: int
    matched: str
    status: str
    reason: NotRequired[str]
    steps: NotRequired[int]
    best_step: NotRequired[int]
    seconds: NotRequired[float]
    samples_per_s: NotRequired[float]
    peak_mib: NotRequired[float]
    validation: NotRequired[float | None]
    options: NotRequired[dict[str, Any]]
    metrics: NotRequired[dict[str, dict[str, float | None]]]
    uncalibrated: NotRequired[dict[str, dict[str, float | None]]]
    validation_metrics: NotRequired[dict[str, dict[str, float | None]]]
    per_label: NotRequired[dict[str, dict[str, LabelScores]]]
    decisions: NotRequired[dict[str, dict[str, Any]]]
    diagnostics: NotRequired[dict[str, Any]]
    analyses: NotRequired[dict[str, dict[str, Any]]]


class ContrastResult(TypedDict):
    """A strategy less a reference.

    Attributes:
        difference: Mean over seeds.
        low: Lower end of the interval.
        high: Upper end.
        p: Two-sided, of there being no difference.
        p_holm: The same, corrected over all contrasts with references but the declared one, whose own it is.
        level: Of the interval, such as 0.95 of the declared contrast: it is without 0 where `p_holm` is up to .05.
        declared: It was declared on validation rows, and is tested first and alone.
        tested: False behind a declared contrast that shows no difference.
    """

    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    level: float
    declared: bool
    tested: bool


class StrategyResult(TypedDict):
    """A strategy of a task, in `summary.json`.

    Attributes:
        row: Its name.
        rank: 1 is best; equal means share one.
        letters: Strategies that share one cannot be told apart.
        score: The metric, an `Estimate` of `mmfuse.benchmarking.statistics` as a dict.
        validation: The metric on the validation rows, mean over its cells.
        interaction: additive, multiplicative or token.
        uses: Of text and image.
        parameters: Of the fusion alone.
        macs: Of the fusion alone.
        matched: native, matched, or why its size could not be matched.
        contrasts: By reference.
        seconds: Mean over its cells.
        samples_per_s: Mean over its cells.
        peak_mib: The largest of its cells.
        steps: Mean over its cells.
        metrics: By name, means over its cells.
        uncalibrated: `ece` and `nll`, means over its cells.
        per_label: By label and name, means over its cells.
        worse_without: Modalities without which it is worse than the model that never had them.
        permutation: Diagnostic of the first seed and fold.
        shapley: Diagnostic of the first seed and fold.
        missing: Diagnostic of the first seed and fold.
        emap: Diagnostic of the first seed and fold.
    """

    row: str
    rank: int
    letters: str
    score: dict[str, Any]
    validation: float | None
    interaction: str
    uses: list[str]
    parameters: int
    macs: int
    matched: str
    contrasts: dict[str, ContrastResult]
    seconds: float | None
    samples_per_s: float | None
    peak_mib: float
    steps: float | None
    metrics: dict[str, float | None]
    uncalibrated: dict[str, float | None]
    per_label: dict[str, dict[str, float | None]]
    worse_without: list[str]
    permutation: NotRequired[dict[str, Any]]
    shapley: NotRequired[dict[str, Any]]
    missing: NotRequired[dict[str, Any]]
    emap: NotRequired[dict[str, Any]]


class TaskResult(TypedDict):
    """A task, in `summary.json`.

    Attributes:
        verdict: The conclusion, in a paragraph.
        metric: What is compared.
        rows: Labelled test rows, of all folds.
        groups: Groups that they are of.
        labels: Their names.
        positives: By label its test rows.
        rare_labels: Labels with too few of them.
        label_origin: Of the manifest.
        references: Rows with which all others are compared: `best_unimodal`, `late`, `concat`, `covariates_only`, and
            `declared`, the fusion that was best on validation.
        margin: Of the config; None for the default.
        strategies: Best first.
        indistinguishable: For each letter the strategies that share it.
        seeds_needed: `strategy`, `reference`, `seeds` (None: no number is enough) and `reason`.
        undefined_resamples: Resamples in which some strategy has no score.
        bayes: The best possible accuracy from `text`, `image` and `both`; None where it is not known.
    """

    verdict: str
    metric: str
    rows: int
    groups: int
    labels: list[str]
    positives: dict[str, int]
    rare_labels: list[str]
    label_origin: str
    references: dict[str, str]
    margin: float | None
    strategies: list[StrategyResult]
    indistinguishable: list[list[str]]
    seeds_needed: list[dict[str, Any]]
    undefined_resamples: int
    bayes: dict[str, float] | None


class Summary(TypedDict):
    """`summary.json`.

    Attributes:
        name: Of the benchmark.
        tasks: By name.
        rows: By strategy `label`, `fusion`, `interaction`, `uses`, `parameters`, `macs`, `matched`, and the `reference`
            of its docstring.
        failed: Strategies with a failed cell, which no comparison has: `row`, `cell`, `reason`.
        seeds: As in the config.
        folds: How many were test sets.
        frozen: Whether both encoders were.
        built_in: Whether the dataset is the built-in one.
        matching: As in the config.
        match_to: As in the config.
        tuning_trials: As in the config.
        resamples: As in the config.
        analyses: By strategy and name, of its first seed.
        provenance: How it came about: command, commit, versions, config, ...
    """

    name: str
    tasks: dict[str, TaskResult]
    rows: dict[str, dict[str, Any]]
    failed: list[dict[str, str]]
    seeds: int
    folds: int
    frozen: bool
    built_in: bool
    matching: str
    match_to: str
    tuning_trials: int
    resamples: int
    analyses: NotRequired[dict[str, dict[str, dict[str, Any]]]]
    provenance: dict[str, Any]
