"""The config of a benchmark: a run's keys, and which strategies are compared on equal terms."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmfuse.config import (
    CacheConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    ImageEncoderConfig,
    TaskConfig,
    TextEncoderConfig,
    TrainingConfig,
    config_from_dict,
    key,
    parse,
    read_overrides,
    read_yaml,
)
from mmfuse.config.load import settle_choices
from mmfuse.effect import check_effect
from mmfuse.types import MmfuseError

BUILT_IN = "interactions"
QUICK = (
    "text_only",
    "image_only",
    "late",
    "concat_linear",
    "concat",
    "gated",
    "film",
    "low_rank_tensor",
    "cross_attention",
    "merged_attention",
)
"""The rows of `preset: quick`: the baselines, and what is tried first of each kind."""


@dataclass
class BuiltInConfig:
    """Sizes of the built-in dataset, with `data.manifest: interactions`."""

    train: int = key(40000, "examples", low=100)
    validation: int = key(2000, "examples", low=50)
    test: int = key(20000, "examples", low=100)
    symbols: int = key(20000, "pairs of symbols that the encoders are trained to read", low=100)
    encoder_epochs: int = key(8, "of that training", low=1)


@dataclass
class BenchmarkConfig:
    """Strategies x seeds (x folds) on one dataset."""

    name: str = key("???", "of the benchmark")
    output_dir: str | None = key(None, "default: runs/NAME")
    plugins: list[str] = key([], "Python files of your own: fusions, tasks, towers, metrics, ... (mmfuse list)")
    data: DataConfig = field(default_factory=DataConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    tasks: dict[str, TaskConfig] = key({}, "by task name: weight, class_weights")
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    built_in: BuiltInConfig = field(default_factory=BuiltInConfig)
    strategies: dict[str, Any] = key({}, "row name: {name: STRATEGY, options}; default: all, with their variants")
    seeds: int = key(3, "runs of each strategy, seeds 0, 1, ...", low=1)
    width: int = key(128, "out_dim of every strategy, before its size is matched", low=4)
    matching: str = key(
        "native",
        "how sizes are made equal, by solving for each strategy's own size argument",
        choices=("native", "parameters", "macs"),
    )
    match_to: str = key("concat", "the row whose size the others get")
    tuning_trials: int = key(0, "random trials, the same for every strategy, chosen on validation with seed 0", low=0)
    preset: str | None = key(None, "quick: one seed and ten strategies", choices=("quick",))
    metric: str | None = key(None, "what is compared, such as accuracy; default: each task's own")
    margin: float | None = key(
        None,
        "scores within it are equal; in the metric's unit, .01 is a point; default: that, or a twentieth of the gain",
        low=0.0,
    )
    resamples: int = key(10000, "of the groups, for intervals", low=100)
    emap_rows: int = key(200, "test rows whose pairs EMAP runs over; 0: no EMAP", low=0)
    diagnostic_rows: int = key(2000, "test rows of permutation scores, Shapley values and missing curves", low=0)
    processes: int = key(1, "processes that share the work; each takes its share of the cores", low=1)

    @property
    def run_dir(self) -> Path:
        """The benchmark's folder."""
        return Path(self.output_dir or f"runs/{self.name}")

    def run_config(self, fusion: dict[str, Any], seed: int, folder: Path, **training: Any) -> Config:
        """The training run of one cell."""
        return Config(
            name=self.name,
            output_dir=str(folder),
            seed=seed,
            plugins=self.plugins,
            data=self.data,
            text_encoder=self.text_encoder,
            image_encoder=self.image_encoder,
            fusion=fusion,
            tasks=self.tasks,
            training=dataclasses.replace(self.training, **training),
            evaluation=self.evaluation,
            cache=self.cache,
        )


def load_benchmark_config(
    config: BenchmarkConfig | str | Path | dict[str, Any], overrides: Iterable[str] = ()
) -> BenchmarkConfig:
    """A benchmark's config from a YAML file or plain values, with `key=value` overrides on top.

    Raises:
        MmfuseError: No such file, an unknown key, or a value that is not legal.
    """
    if isinstance(config, BenchmarkConfig):
        config = dataclasses.asdict(config)
    where = "config" if isinstance(config, dict) else str(config)
    values = config if isinstance(config, dict) else read_yaml(Path(config))
    dots = read_overrides(overrides)
    for layer in (values, dots):
        if isinstance(layer, dict) and "fusion" in layer:
            raise MmfuseError(f"{where}: fusion: a benchmark compares several; name them under strategies")
    layers = [(where, values), ("command line", dots)]
    parsed = parse(BenchmarkConfig, layers)
    settle_choices(parsed.training, layers)
    check_effect(parsed, layers)
    for task, own in parsed.tasks.items():
        if own.operating_points:
            raise MmfuseError(f"{where}: tasks.{task}.operating_points: a benchmark keeps no model to decide at them")
    keys = {f.name for f in dataclasses.fields(Config)} - {"preset"}  # a benchmark's own says what is compared
    shared = {k: v for k, v in dataclasses.asdict(parsed).items() if k in keys}
    config_from_dict(shared, where=where)  # what a run refuses, a benchmark does
    if parsed.preset == "quick":
        parsed.seeds = 1
    return parsed


def is_built_in(config: BenchmarkConfig) -> bool:
    """Whether it runs on the built-in dataset, which it makes, instead of on a manifest."""
    return config.data.manifest == BUILT_IN
