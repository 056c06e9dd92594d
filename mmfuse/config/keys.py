"""The config of a training run: the dataclasses below are the schema, read strictly from YAML.

Every error names the key, what is legal, and the nearest match. A strategy's own options (`fusion`) are checked against
its constructor when the model is built.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from omegaconf import MISSING

from mmfuse.config.parsing import key, nested_in
from mmfuse.config.presets import PRESETS

LARGEST_SIZE = 4096
"""Of an image encoder's input, in pixels a side."""
VOCABULARIES = ("byte_bpe", "wordpiece", "wordpiece_cased", "wordpiece_stripped")
"""What `mmfuse.encoders.vocabularies` trains."""


@dataclass
class DataConfig:
    """Which pairs."""

    manifest: str = key(MISSING, "path of the data manifest")
    root: str | None = key(None, "what ${data_root} stands for in the manifest; default: $MMFUSE_DATA_ROOT")
    tasks: list[str] | None = key(None, "tasks of the manifest to train; default: all")
    fold: int | None = key(None, "which fold is the test set, where the manifest says folds", low=0)
    num_workers: int | None = key(None, "processes that read images; default: by the machine's cores", low=0)
    shuffle_buffer: int = key(512, "with shards: rows of each lane that are read and shuffled together", low=1)
    lanes: int = key(
        8, "with shards: places of an epoch that are read at once; processes and workers share them", low=1
    )
    damaged: str = key(
        "error",
        "a shard that is missing, cut short, or rotten by `data verify`; skip: train on the others",
        choices=("error", "skip"),
    )


class _Tower:
    frozen: bool
    unfreeze_epoch: int | None

    @property
    def first_trained(self) -> int | None:
        """The epoch (from 0) from which it is trained; None: it is frozen for good."""
        return self.unfreeze_epoch if self.frozen else 0


@dataclass
class TextEncoderConfig(_Tower):
    """The text tower: a transformers encoder."""

    name: str = key(
        "bert-base-uncased",
        "Hub name, local folder, mmfuse-model:FOLDER (as it is), or with pretrained: false a model type such as bert",
    )
    pretrained: bool = key(True, "false: random weights, and a vocabulary trained on the training texts")
    options: dict[str, Any] = key(
        {},
        "with pretrained: false, the architecture: {hidden_size: 128, num_hidden_layers: 2}; with tower, its options",
    )
    vocabulary: str = key(
        "wordpiece",
        "to train; wordpiece: lower case, accents kept; wordpiece_stripped: without accents, as in mmfuse 0.1",
        choices=VOCABULARIES,
        before="wordpiece_stripped",
    )
    vocab_size: int = key(8000, "largest vocabulary to train, with pretrained: false", low=100)
    max_length: int = key(128, "tokens a text is cut to, special ones included", low=4)
    truncation: str = key(
        "head", "what is kept of a longer text; head_tail: half and half", choices=("head", "tail", "head_tail")
    )
    pooling: str = key("mean", "how tokens become one vector", choices=("mean", "cls"))
    frozen: bool = key(False, "keep its weights and its eval mode; its features are then computed once")
    unfreeze_epoch: int | None = key(None, "with frozen: true, the epoch (from 0) from which it is trained", low=1)
    learning_rate: float | None = key(None, "its own learning rate; default: training.learning_rate", low=0.0)
    adapter: Any = field(
        default=None,
        metadata={"help": "trains few weights instead of all (mmfuse list adapters): a name, or {name: ..., options}"},
    )
    tower: str | None = key(
        None, "where the manifest gives features in its place, what reads them (mmfuse list towers); default: features"
    )


@dataclass
class ImageEncoderConfig(_Tower):
    """The image tower: a timm model."""

    name: str = key(
        "timm/resnet50.a1_in1k", "timm name, Hub name, local-dir:FOLDER, or mmfuse-model:FOLDER (its tower as it is)"
    )
    pretrained: bool = key(True, "false: random weights")
    options: dict[str, Any] = key({}, "keyword arguments of timm.create_model; with tower, its options")
    size: list[int] | None = key(None, "[H, W] in pixels; default: what the model was trained with")
    resize: str = key("squash", "how an image gets that size", choices=("squash", "pad", "crop"))
    background: str = key("white", "what transparent pixels show", choices=("white", "black"))
    pooling: str = key(
        "auto", "how patches become one vector; auto: the model's own way", choices=("auto", "mean", "cls")
    )
    batch_norm: str = key(
        "auto",
        "batch statistics while it is trained; auto: frozen if pretrained, else train",
        choices=("auto", "frozen", "train", "sync"),
    )
    frozen: bool = key(False, "keep its weights and its eval mode; its features are then computed once")
    unfreeze_epoch: int | None = key(None, "with frozen: true, the epoch (from 0) from which it is trained", low=1)
    learning_rate: float | None = key(None, "its own learning rate; default: training.learning_rate", low=0.0)
    adapter: Any = field(
        default=None,
        metadata={"help": "trains few weights instead of all (mmfuse list adapters): a name, or {name: ..., options}"},
    )
    tower: str | None = key(
        None, "where the manifest gives features in its place, what reads them (mmfuse list towers); default: features"
    )


@dataclass
class DecoderConfig:
    """What writes the captions of a captioning task: a transformers causal language model."""

    name: str = key("gpt2", "with pretrained: false, gpt2, bert or bart; else a Hub name or a local folder")
    pretrained: bool = key(False, "false: random weights, in the sizes below")
    mode: str = key(
        "cross_attention",
        "how it reads the fused tokens: it attends to them, or they stand before the caption",
        choices=("cross_attention", "prefix"),
    )
    hidden_dim: int = key(256, "with pretrained: false, its width", low=8)
    num_layers: int = key(3, "with pretrained: false", low=1)
    num_heads: int = key(4, "with pretrained: false; divides hidden_dim", low=1)
    options: dict[str, Any] = key({}, "with pretrained: false, more of its transformers config")
    tokenizer: str = key(
        "own",
        "own: the pretrained decoder's, or a vocabulary trained on the captions; encoder: the text encoder's",
        choices=("own", "encoder"),
    )
    vocabulary: str | None = key(
        None,
        "what is trained on the captions; default: byte_bpe, which writes every text exactly; wordpiece_stripped where "
        "text_encoder.vocabulary is",
        choices=VOCABULARIES,
    )
    vocab_size: int = key(8000, "largest vocabulary to train; byte_bpe has 261 tokens before it learns any", low=100)
    embeddings: str = key("new", "encoder: begin with the text encoder's word embeddings", choices=("new", "encoder"))
    max_length: int = key(64, "tokens a caption is cut to in training, first and last included", low=4)
    label_smoothing: float = key(0.0, "share of the probability that goes to all other tokens", low=0.0, high=0.9)
    scheduled_sampling: float = key(
        0.0, "probability that an input token of training is what the model said, not what is right", low=0.0, high=1.0
    )
    learning_rate: float | None = key(None, "its own learning rate; default: training.learning_rate", low=0.0)


@dataclass
class GenerationConfig:
    """How captions are written; kept with the model, and changed by mmfuse predict --generation KEY=VALUE."""

    num_beams: int = key(1, "1: greedy, or sampling", low=1)
    max_length: int | None = key(None, "most tokens; default: the decoder's max_length", low=1)
    min_length: int = key(0, "fewest tokens before the end may come", low=0)
    length_penalty: float = key(1.0, "with beams, the power of the length that a score is divided by")
    no_repeat_ngram_size: int = key(0, "no sequence of so many tokens twice; 0: no limit", low=0)
    repetition_penalty: float = key(1.0, "above 1, tokens that were said count less", low=0.1)
    do_sample: bool = key(False, "draw tokens instead of taking the likeliest")
    temperature: float = key(1.0, "with do_sample", low=0.01)
    top_p: float = key(1.0, "with do_sample, the share of the probability that is drawn from", low=0.01, high=1.0)
    seed: int = key(0, "with do_sample", low=0)
    prefix: str = key("", 'what every caption begins with, such as "Findings:"')


@dataclass
class TaskConfig:
    """One task's share in the loss, and for a captioning task its decoder."""

    weight: float = key(1.0, "factor of its loss", low=0.0)
    class_weights: str = key(
        "none",
        "balanced: rare classes count more (multilabel: pos_weight = negatives / positives, at most 10)",
        choices=("none", "balanced"),
    )
    metrics: list[Any] | None = key(
        None, "more metrics in its report, such as [mcc, recall]: names, or {name: ..., options} (mmfuse list metrics)"
    )
    operating_points: dict[str, Any] = key(
        {}, "by name, thresholds chosen on validation: {sens95: {sensitivity: 0.95}}; specificity, precision or cost"
    )
    head: dict[str, Any] = key({}, "options of its head (mmfuse list heads), such as {loss: huber} of a regression")
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)


@dataclass
class ModalityDropoutConfig:
    """How often a present modality is hidden in training; never both of a row."""

    text: float = key(0.0, "probability", low=0.0, high=0.9)
    image: float = key(0.0, "probability", low=0.0, high=0.9)


@dataclass
class TextAugmentationConfig:
    """Changes of the input text, never of captions and labels."""

    mask_tokens: float = key(0.0, "probability that a token is masked; special ones never are", low=0.0, high=0.9)
    shuffle_clauses: float = key(0.0, "probability that a text's sentences change places", low=0.0, high=1.0)
    synonyms: str | None = key(
        None, "YAML file, a list of lists of phrases that mean the same; each one found is exchanged half of the time"
    )


@dataclass
class AugmentationConfig:
    """Changes of the training rows after which image, text and targets still agree."""

    image: str = key(
        "none", "geometric and photometric changes; none of them mirrors", choices=("none", "natural", "radiograph")
    )
    flip: str = key(
        "none",
        "mirror half of the rows; swap: exchange left and right in text, captions and labels with it; free: sides mean "
        "nothing here",
        choices=("none", "swap", "free"),
    )
    text: TextAugmentationConfig = field(default_factory=TextAugmentationConfig)


@dataclass
class TrainingConfig:
    """The loop."""

    epochs: int = key(10, "passes over the training split", low=1)
    max_steps: int | None = key(None, "stop after this many optimiser steps", low=1)
    batch_size: int = key(32, "rows per process and forward pass", low=1)
    accumulation: int = key(1, "forward passes per optimiser step", low=1)
    learning_rate: float = key(3e-4, "peak, of all that has none of its own", low=0.0)
    optimizer: Any = key("adamw", "adamw, adam, sgd, adafactor, lion, or {name: ..., options} (mmfuse list optimizers)")
    weight_decay: float = key(0.01, "the optimizer's; not on biases, norms and gates", low=0.0)
    warmup: float = key(0.1, "share of the steps in which the rate rises", low=0.0, high=1.0)
    schedule: str = key("cosine", "what follows the warm-up", choices=("cosine", "linear", "constant"))
    clip_norm: float | None = key(1.0, "largest norm of the gradient", low=0.0)
    gradient_checkpointing: bool = key(
        False, "compute the inside of trained towers' layers again in the backward pass: less memory, more time"
    )
    mixed_precision: str | None = key(
        None,
        "half precision in the steps (bf16, fp16); auto: bf16 for the whole run where it is faster, on a CPU timed for "
        "each tower; null: none",
        choices=("auto", "bf16", "fp16"),
    )
    deterministic: bool = key(
        False, "on a GPU, the same bits in every run of the same config: slower; on a CPU they always are"
    )
    modality_dropout: ModalityDropoutConfig = field(default_factory=ModalityDropoutConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    patience: int | None = key(5, "evaluations without a better one before training stops; null: never", low=1)
    monitor: str | None = key(
        None,
        "TASK/METRIC to stop on, or a sum such as labels/auroc_macro + 0.1 * report/cider_d; default: the mean over "
        "tasks of the metric each declares",
    )
    task_weights: str = key(
        "fixed",
        "uncertainty: factors of the tasks' losses are learned (Kendall et al. 2018)",
        choices=("fixed", "uncertainty"),
    )
    objectives: list[Any] = key(
        [],
        "what the loss has beside the tasks' own: names, or {name: ..., options, weight: 1.0} (mmfuse list objectives)",
    )
    order: Any = key("by_length", "which rows, in which order: a name, or {name: ..., options} (mmfuse list orders)")
    method: Any = key("plain", "how a step is made: a name, or {name: ..., options} (mmfuse list methods)")
    checkpoint_every: int | None = key(
        None, "optimiser steps between checkpoints; default: at the end of an epoch", low=1
    )
    trackers: list[str] = key([], "beside metrics.jsonl, Accelerate's: tensorboard, wandb (extras), ...")


@dataclass
class EvaluationConfig:
    """What is asked of the scored test rows."""

    analyses: list[Any] | None = key(
        None,
        "names, or {name: ..., options} (mmfuse list analyses); default: those that are asked by themselves; []: none",
    )


@dataclass
class CacheConfig:
    """Features of frozen towers, computed once."""

    enabled: bool = key(True, "keep them on disk")
    dir: str | None = key(None, "folder; default: $MMFUSE_CACHE or ~/.cache/mmfuse")
    dtype: str = key("float32", "how they are kept; float16 halves the space", choices=("float32", "float16"))


@dataclass
class Config:
    """All of a run."""

    name: str = key(MISSING, "of the run")
    preset: str | None = key(
        None, "what is set where this file says nothing (mmfuse config --preset NAME)", choices=tuple(PRESETS)
    )
    init_from: str | None = key(None, "a model folder: its towers, fusion and heads are trained on")
    output_dir: str | None = key(None, "default: runs/NAME")
    seed: int = key(0, "fixes initialisation, data order and dropout", low=0)
    plugins: list[str] = key([], "Python files of your own: fusions, tasks, towers, metrics, ... (mmfuse list)")
    data: DataConfig = field(default_factory=DataConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    fusion: dict[str, Any] = key({"name": "concat"}, "name, and the strategy's own options (mmfuse list fusions)")
    tasks: dict[str, TaskConfig] = key({}, "by task name: weight, class_weights")
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return Path(self.output_dir or f"runs/{self.name}")


def schema() -> str:
    """The commented schema with defaults, as YAML: what `mmfuse config` prints."""
    return "\n".join(_schema_lines(Config, 0)) + "\n"


def _schema_lines(cls: type, indent: int) -> Iterator[str]:
    pad = "  " * indent
    hints = get_type_hints(cls)
    for item in dataclasses.fields(cls):
        nested, by_name = nested_in(hints[item.name])
        if nested is not None and not by_name:
            yield f"{pad}{item.name}:" + " " * 4 + f"# {(nested.__doc__ or '').strip().splitlines()[0]}"
            yield from _schema_lines(nested, indent + 1)
            continue
        default = item.default if item.default is not dataclasses.MISSING else item.default_factory()  # type: ignore[misc]
        text = "???" if default == MISSING else yaml.safe_dump(default, default_flow_style=True).splitlines()[0]
        choices = item.metadata.get("choices")
        legal = f" ({' | '.join(choices)})" if choices else ""
        yield f"{pad}{item.name}: {text}".ljust(40) + f"  # {item.metadata['help']}{legal}"
        if nested is not None:  # an example of one, by name
            yield from (f"#{line}" for line in (f"{pad}  NAME:", *_schema_lines(nested, indent + 2)))
