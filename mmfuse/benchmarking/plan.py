"""What a benchmark runs: rows (strategies with their sizes) and cells (row, seed, fold)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mmfuse.benchmarking.config import QUICK, BenchmarkConfig
from mmfuse.fusion import FUSIONS, build_fusion
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError

VARIANTS: dict[str, dict[str, Any]] = {
    "concat_linear": {"name": "concat", "hidden_layers": 0},
    "late_learned": {"name": "late", "learned_weights": True},
    "cross_attention_text": {"name": "cross_attention", "queries": "text"},
    "cross_attention_image": {"name": "cross_attention", "queries": "image"},
}
"""Rows beside the registered strategies: one name would hide what they differ in."""

UNIMODAL = ("text_only", "image_only")
COVARIATES = "covariates_only"
"""The row that sees neither text nor image: the columns that the manifest names as `subgroups`."""
NO_FUSION = (*UNIMODAL, COVARIATES)
CLOSE_ENOUGH = 0.05


@dataclass(frozen=True)
class Row:
    """A strategy as it takes part.

    Attributes:
        label: The row's name.
        fusion: Its name and options.
        interaction: "additive", "multiplicative" or "token".
        uses: The modalities it reads.
        parameters: Of the fusion alone.
        macs: Multiply-accumulates of the fusion for one example of mean length, in labelling: a strategy that reads
            pooled vectors gets no tokens then.
        matched: How its size came about: "native", "matched", or why it could not be matched.
    """

    label: str
    fusion: dict[str, Any]
    interaction: str
    uses: tuple[str, ...]
    parameters: int
    macs: int
    matched: str


@dataclass(frozen=True)
class Cell:
    """One training: a row, a seed, a fold, and for tuning the number of a trial.

    Attributes:
        row: The row's label.
        seed: Of the run.
        fold: Of the manifest; None where it has no folds.
        trial: Of the tuning; None in the benchmark itself.
    """

    row: str
    seed: int
    fold: int | None = None
    trial: int | None = None

    @property
    def key(self) -> str:
        """Its name among all cells, fit for a file."""
        fold = "" if self.fold is None else f"-fold{self.fold}"
        trial = "" if self.trial is None else f"-trial{self.trial}"
        return f"{self.row}-seed{self.seed}{fold}{trial}"


@dataclass(frozen=True)
class Plan:
    """All that will be run.

    Attributes:
        rows: By label.
        cells: In the order in which they are begun.
        trials: Training options of each tuning trial; the first is the config's own.
    """

    rows: dict[str, Row]
    cells: list[Cell]
    trials: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Widths:
    """What a strategy meets.

    Attributes:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        text_tokens: Of an example, in the mean.
        image_tokens: Of an example, in the mean.
    """

    text_dim: int
    image_dim: int
    text_tokens: int
    image_tokens: int


def make_plan(
    config: BenchmarkConfig,
    widths: Widths,
    folds: Iterable[int | None],
    *,
    labels: bool = True,
    covariates: dict[str, Any] | None = None,
) -> Plan:
    """The rows with their sizes, and every cell.

    Args:
        config: Of the benchmark.
        widths: Of the features.
        folds: Of the manifest; one None where it has none.
        labels: Whether all tasks have labels: else strategies that combine decisions between labels are no default.
        covariates: The strategy of the row that sees covariates alone; it has one cell a fold, as no seed changes it.

    Raises:
        MmfuseError: An unknown strategy or option, or `match_to` is no row.
    """
    chosen = choose_strategies(config, labels)
    built = {label: _describe(label, fusion, widths, "native") for label, fusion in chosen.items()}
    if config.matching != "native":
        if config.match_to not in built:
            raise MmfuseError(f"match_to: no row {config.match_to!r}; {nearest(config.match_to, built)}")
        target = getattr(built[config.match_to], config.matching)
        built = {
            label: row if label == config.match_to else _match(row, widths, config.matching, target)
            for label, row in built.items()
        }
    trials = draw_trials(config.tuning_trials, config.training.learning_rate, config.training.weight_decay)
    folds = list(folds)
    tuning = [Cell(label, 0, folds[0], trial) for trial in range(len(trials)) for label in built]
    longest_first = sorted(built, key=lambda label: -built[label].macs)  # processes then end at about the same time
    cells = [Cell(label, seed, fold) for seed in range(config.seeds) for label in longest_first for fold in folds]
    if covariates is not None:
        built[COVARIATES] = Row(COVARIATES, covariates, "additive", tuple(covariates["columns"]), 0, 0, "native")
        cells += [Cell(COVARIATES, 0, fold) for fold in folds]
    return Plan(built, tuning + cells, trials)


def choose_strategies(config: BenchmarkConfig, labels: bool = True) -> dict[str, dict[str, Any]]:
    """By row, its strategy with options; the unimodal rows are always there.

    Raises:
        MmfuseError: An unknown strategy or option.
    """
    if config.strategies:
        chosen = {label: dict(options or {"name": label}) for label, options in config.strategies.items()}
        for label, options in chosen.items():
            options.setdefault("name", label)
    else:
        own = {name: {"name": name} for name in FUSIONS.names()} | VARIANTS
        if not labels:
            own = {label: of for label, of in own.items() if not hasattr(FUSIONS.get(of["name"]), "combine")}
        wanted = [label for label in QUICK if label in own] if config.preset == "quick" else list(own)
        plugged = [name for name in FUSIONS.names() if name in own and FUSIONS.origin(name)]
        chosen = {label: dict(own[label]) for label in dict.fromkeys([*wanted, *plugged])}
    chosen = {**{label: {"name": label} for label in UNIMODAL}, **chosen}
    options: dict[str, Any]
    for label, options in chosen.items():
        if label == COVARIATES:
            raise MmfuseError(f"strategies: {label} is the row of the manifest's subgroups; give yours another name")
        if not label.replace("_", "").isalnum():
            raise MmfuseError(f"strategies: row name {label!r}: letters, digits and _ are legal")
        given = {k: v for k, v in options.items() if k != "name"}
        FUSIONS.check_options(str(options["name"]), given)
        _check_values(label, options)
        if "out_dim" in inspect.signature(FUSIONS.get(options["name"])).parameters:
            options.setdefault("out_dim", config.width)
    return chosen


_LEGAL = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}


def _check_values(label: str, options: dict[str, Any]) -> None:
    """Refuse a value that is not of the type that a strategy's constructor says; any text would do for a switch."""
    for name, parameter in inspect.signature(FUSIONS.get(options["name"])).parameters.items():
        kind = getattr(parameter.annotation, "__name__", str(parameter.annotation))
        legal, value = _LEGAL.get(kind), options.get(name)
        if name in options and legal and (not isinstance(value, legal) or (isinstance(value, bool) and kind != "bool")):
            raise MmfuseError(f"strategies.{label}.{name}: {value!r:.60} is not legal; {kind} is expected")


def count_parameters(fusion: dict[str, Any], text_dim: int, image_dim: int) -> int:
    """The parameters of a strategy at these widths; nothing is allocated."""
    with torch.device("meta"):
        return sum(p.numel() for p in _build(fusion, text_dim, image_dim).parameters())


def draw_trials(number: int, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Training options of `number` trials, the same for every strategy and every time: the config's own, then random.

    Learning rates are log-uniform within a factor of 5 of the config's, weight decays within a factor of 10.
    """
    if not number:
        return []
    rng = np.random.default_rng(0)
    drawn = [(5.0 ** rng.uniform(-1, 1), 10.0 ** rng.uniform(-1, 1)) for _ in range(number - 1)]
    return [{}] + [{"learning_rate": learning_rate * a, "weight_decay": weight_decay * b} for a, b in drawn]


def solve_size(build: Callable[[int], int], target: int, largest: int = 8192) -> int:
    """The size whose `build(size)` (parameters or MACs, growing with size) is nearest to `target`.

    Args:
        build: Raises MmfuseError for a size that the strategy cannot have.
        target: At least 1.
        largest: Sizes beyond are not tried.

    Raises:
        MmfuseError: No size is legal.
    """

    def cost(size: int) -> float:
        try:
            return build(size)
        except MmfuseError:
            return math.nan

    legal = [size for size in range(1, 65) if not math.isnan(cost(size))]
    if not legal:
        raise MmfuseError("no size up to 64 can be built")
    step = legal[1] - legal[0] if len(legal) > 1 else 1
    low, high = 0, (largest - legal[0]) // step
    while low < high:  # the first legal size that costs at least the target
        middle = (low + high) // 2
        if cost(legal[0] + middle * step) < target:
            low = middle + 1
        else:
            high = middle
    near = [legal[0] + i * step for i in (low - 1, low) if i >= 0]
    return min(near, key=lambda size: abs(cost(size) - target))


def _build(fusion: dict[str, Any], text_dim: int, image_dim: int) -> Any:
    return build_fusion(fusion["name"], text_dim, image_dim, {k: v for k, v in fusion.items() if k != "name"})


def _describe(label: str, fusion: dict[str, Any], widths: Widths, matched: str) -> Row:
    with torch.device("meta"):
        built = _build(fusion, widths.text_dim, widths.image_dim)
    parameters = sum(p.numel() for p in built.parameters())
    tokens = (widths.text_tokens, widths.image_tokens) if "tokens" in built.reads else (1, 1)  # as FusionModel runs it
    macs = built.macs(*tokens)
    return Row(label, fusion, built.interaction, tuple(built.uses), parameters, macs, matched)


def _match(row: Row, widths: Widths, what: str, target: int) -> Row:
    """The same strategy with its size solved for, or marked where that does not get it near enough."""
    size = FUSIONS.get(row.fusion["name"]).size  # type: ignore[attr-defined]
    if size is None:
        return _describe(row.label, row.fusion, widths, "native: it has no size")

    def cost(value: int) -> int:
        return getattr(_describe(row.label, {**row.fusion, size: value}, widths, ""), what)

    solved = {**row.fusion, size: solve_size(cost, target)}
    ratio = getattr(_describe(row.label, solved, widths, ""), what) / target
    if abs(ratio - 1) > CLOSE_ENOUGH:
        return _describe(row.label, solved, widths, f"nearest: {ratio:.2f} of the target")
    return _describe(row.label, solved, widths, "matched")
