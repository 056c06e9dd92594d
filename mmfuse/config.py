"""The config of a training run: the dataclasses below are the schema, read strictly from YAML.

Every error names the key, what is legal, and the nearest match. A strategy's own options (`fusion`) are checked against
its constructor when the model is built.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmfuse.effect import check_effect
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError, first_line

LARGEST_SIZE = 4096
"""Of an image encoder's input, in pixels a side."""
_MAX_YAML_BYTES = 10 * 2**20
_MAX_YAML_NODES = 1_000_000


def key(default: Any, help: str, **rules: Any) -> Any:
    """A config key: its default, one line of help, and `choices`, `low` or `high` where its values are bounded."""
    metadata = {"help": help, **rules}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


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


@dataclass
class TextEncoderConfig:
    """The text tower: a transformers encoder."""

    name: str = key(
        "bert-base-uncased",
        "Hub name, local folder, mmfuse-model:FOLDER (as it is), or with pretrained: false a model type such as bert",
    )
    pretrained: bool = key(True, "false: random weights, and a WordPiece vocabulary trained on the training texts")
    options: dict[str, Any] = key(
        {}, "with pretrained: false, the architecture: {hidden_size: 128, num_hidden_layers: 2}"
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


@dataclass
class ImageEncoderConfig:
    """The image tower: a timm model."""

    name: str = key(
        "timm/resnet50.a1_in1k", "timm name, Hub name, local-dir:FOLDER, or mmfuse-model:FOLDER (its tower as it is)"
    )
    pretrained: bool = key(True, "false: random weights")
    options: dict[str, Any] = key({}, "keyword arguments of timm.create_model")
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
        "own: the pretrained decoder's, or a WordPiece vocabulary trained on the captions; encoder: the text encoder's",
        choices=("own", "encoder"),
    )
    vocab_size: int = key(8000, "largest vocabulary to train", low=100)
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
    """Changes of the training rows after which image, text and targets still agree (docs/augmentation.md)."""

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
    weight_decay: float = key(0.01, "AdamW's; not on biases, norms and gates", low=0.0)
    warmup: float = key(0.1, "share of the steps in which the rate rises", low=0.0, high=1.0)
    schedule: str = key("cosine", "what follows the warm-up", choices=("cosine", "linear", "constant"))
    clip_norm: float | None = key(1.0, "largest norm of the gradient", low=0.0)
    gradient_checkpointing: bool = key(
        False, "compute the inside of trained towers' layers again in the backward pass: less memory, more time"
    )
    mixed_precision: str | None = key(None, "autocast to half precision; null: none", choices=("bf16", "fp16"))
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
    checkpoint_every: int | None = key(
        None, "optimiser steps between checkpoints; default: at the end of an epoch", low=1
    )
    trackers: list[str] = key(["tensorboard"], "Accelerate's: tensorboard, wandb, ...")


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
    output_dir: str | None = key(None, "default: runs/NAME")
    seed: int = key(0, "fixes initialisation, data order and dropout", low=0)
    plugins: list[str] = key([], "Python files that register fusions or heads")
    data: DataConfig = field(default_factory=DataConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    fusion: dict[str, Any] = key({"name": "concat"}, "name, and the strategy's own options (mmfuse list fusions)")
    tasks: dict[str, TaskConfig] = key({}, "by task name: weight, class_weights")
    training: TrainingConfig = field(default_factory=TrainingConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return Path(self.output_dir or f"runs/{self.name}")


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a run's config.

    Args:
        path: A YAML file.
        overrides: `key=value` strings such as `training.epochs=3`; values are YAML.

    Raises:
        MmfuseError: No such file, not YAML, an unknown key, or a value that is not legal; the message says what is.
    """
    path = Path(path)
    return config_from_dict(read_yaml(path), overrides, where=str(path))


def config_from_dict(values: dict[str, Any], overrides: Iterable[str] = (), where: str = "config") -> Config:
    """A config from plain values, as strictly checked as a file.

    Args:
        values: Nested dicts, as in the YAML file.
        overrides: `key=value` strings.
        where: Named in errors.

    Raises:
        MmfuseError: An unknown key, or a value that is not legal.
    """
    layers = [(where, values), ("command line", read_overrides(overrides))]
    fusion: dict[str, Any] = {"name": "concat"}
    for _, layer in layers:
        chosen = layer.get("fusion") if isinstance(layer, dict) else None
        if isinstance(chosen, dict):  # another strategy's options do not carry over
            same = chosen.get("name", fusion["name"]) == fusion["name"]
            fusion = {**fusion, **chosen} if same else dict(chosen)
    config = parse(Config, layers)
    config.fusion = fusion
    if config.image_encoder.size is not None and (
        len(config.image_encoder.size) != 2
        or min(config.image_encoder.size) < 8
        or max(config.image_encoder.size) > LARGEST_SIZE
    ):
        raise MmfuseError(
            f"{where}: image_encoder.size: two numbers [H, W] of at least 8 and at most {LARGEST_SIZE} are expected"
        )
    dropout = config.training.modality_dropout
    if dropout.text + dropout.image > 1:
        raise MmfuseError(
            f"{where}: training.modality_dropout: never both of a row are hidden, so text {dropout.text:g} and "
            f"image {dropout.image:g} must sum to at most 1"
        )
    towers = {"text": config.text_encoder, "image": config.image_encoder}
    kept = [name for name, own in towers.items() if own.frozen and own.unfreeze_epoch is None and config.cache.enabled]
    check_live(config.training.augmentation, kept, f"{where}: ")
    check_effect(config, layers)
    return config


def check_live(config: AugmentationConfig, kept: Iterable[str], where: str = "") -> None:
    """Refuse to change inputs that are not read again, as their features are computed once.

    Args:
        config: The run's.
        kept: The modalities ("text", "image") whose encoder is frozen and whose features are kept.
        where: What the error begins with.

    Raises:
        MmfuseError: One of them would be changed.
    """
    text = {f"text.{name}": bool(value) for name, value in vars(config.text).items()}
    changes = {
        "image": {"image": config.image != "none", "flip": config.flip != "none"},
        "text": {"flip": config.flip == "swap", **text},
    }
    for modality in kept:
        for name, asked in changes[modality].items():
            if asked:
                raise MmfuseError(
                    f"{where}training.augmentation.{name}: features of the frozen {modality} encoder are computed once "
                    f"and kept, so its {modality}s cannot change; leave it out, or set {modality}_encoder.frozen=false "
                    "or cache.enabled=false"
                )


def read_overrides(overrides: Iterable[str]) -> Any:
    """Nested dicts of `key=value` strings.

    Raises:
        MmfuseError: One is no `key=value`, or its value is not YAML.
    """
    overrides = list(overrides)
    for text in overrides:
        if "=" not in text:
            raise MmfuseError(f"{text!r}: an override is key=value, for example training.epochs=3")
    mark = _stand_in("\n".join(overrides))
    try:
        return _exchange(OmegaConf.to_container(OmegaConf.from_dotlist(_exchange(overrides, "$", mark))), mark, "$")
    except (OmegaConfBaseException, yaml.YAMLError, RecursionError, *_NOT_YAML) as error:
        raise MmfuseError(f"command line: {first_line(error)}".replace(mark, "$")) from error


T = TypeVar("T")
_NOT_YAML = (ValueError, LookupError, AttributeError, TypeError)
"""What PyYAML's constructors raise of a value that is not of its tag: `!!bool maybe`, `!!int ""`, `!!timestamp x`."""


def parse(schema: type[T], layers: Iterable[tuple[str, Any]]) -> T:
    """An instance of the dataclass `schema` from plain nested values, strictly.

    Args:
        schema: A dataclass whose fields were made by `key`.
        layers: (where they come from, nested values), later ones on top.

    Raises:
        MmfuseError: An unknown or missing key, a wrong type, a value out of range.
    """
    layers = list(layers)
    try:
        mark = _stand_in(repr(layers))
    except ValueError as error:  # Python writes no number of thousands of digits, which YAML has in hexadecimal
        raise MmfuseError(f"{layers[0][0]}: it holds a number of thousands of digits") from error
    merged = OmegaConf.structured(schema)
    for where, values in layers:
        unknown = _unknown_key(values, schema)
        if unknown:
            raise MmfuseError(f"{where}: {unknown}")
        try:
            merged = OmegaConf.merge(merged, _exchange(values, "$", mark))
        except (
            OmegaConfBaseException,
            TypeError,
            ValueError,
            ArithmeticError,
            AssertionError,
            AttributeError,
        ) as error:
            # OmegaConf has no errors of its own for some values that do not fit, such as a mapping where a list stands.
            path = getattr(error, "full_key", "") or "".join(re.findall(r"full_key: (\S+)", str(error))[:1])
            raise MmfuseError(f"{where}: {path}: {first_line(error)}".replace(mark, "$")) from error
    where = layers[0][0]
    try:
        for name in sorted(OmegaConf.missing_keys(merged)):
            raise MmfuseError(f"{where}: {name} is missing: {_help_of(schema, name)}".replace(mark, "$"))
        parsed: Any = _exchange(OmegaConf.to_object(merged), mark, "$")
    except OmegaConfBaseException as error:
        said = f"{where}: {getattr(error, 'full_key', '')}: {first_line(error)}"
        raise MmfuseError(said.replace(mark, "$")) from error
    for name, value, rules in _walk(parsed):
        _check_value(name, value, rules, where)
    return parsed


def _stand_in(text: str) -> str:
    """A character for each `$`, so that OmegaConf finds no interpolation, whatever backslashes stand before one.

    `${...}` is kept for the one who knows what it stands for, and the environment is nobody's to quote. The character,
    of those that mean nothing, does not occur in `text`, nor does its number, as which YAML could have it.
    """
    lower = text.lower()
    return next(c for c in map(chr, range(0xE000, 0xF900)) if c not in text and f"{ord(c):x}" not in lower)


def _exchange(values: Any, old: str, new: str) -> Any:
    """The same values with one character for another in all their texts."""
    if isinstance(values, str):
        return values.replace(old, new)
    if isinstance(values, dict):
        return {_exchange(name, old, new): _exchange(value, old, new) for name, value in values.items()}
    if isinstance(values, list):
        return [_exchange(value, old, new) for value in values]
    if dataclasses.is_dataclass(values):
        for item in dataclasses.fields(values):
            setattr(values, item.name, _exchange(getattr(values, item.name), old, new))
    return values


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dicts of a config; `config_from_dict` reads them back."""
    return dataclasses.asdict(config)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file as plain dicts and lists; numbers such as 1e-4 are numbers, a key given twice is an error.

    Args:
        path: A path, or an fsspec URL (a string that contains `://`).

    Raises:
        MmfuseError: No such file, or not a YAML mapping.
    """
    mark = "$"
    try:
        text = read_small(path).decode("utf-8-sig")
        node = yaml.compose(text, yaml.SafeLoader)
        if not (node is None or isinstance(node, yaml.MappingNode)):
            raise MmfuseError(f"{path}: a mapping (key: value lines) is expected")
        if _nodes(node) > _MAX_YAML_NODES:
            raise MmfuseError(f"{path}: its aliases (*name) unfold to more than {_MAX_YAML_NODES} values")
        mark = _stand_in(text)
        loaded = OmegaConf.to_container(OmegaConf.load(io.StringIO(text.replace("$", mark))))
    except RecursionError as error:
        raise MmfuseError(f"{path}: not valid YAML: nested too deep, or an alias (*name) within itself") from error
    except MmfuseError:
        raise
    except (OmegaConfBaseException, yaml.YAMLError, *_NOT_YAML) as error:
        place = getattr(error, "problem_mark", None)
        line = f" line {place.line + 1}:" if place else ""
        said = str(getattr(error, "problem", None) or first_line(error)).replace(ascii(mark)[1:-1], "$")  # of a repr
        raise MmfuseError(f"{path}:{line} not valid YAML: {said.replace(mark, '$')}") from error
    return _exchange(loaded, mark, "$")


def read_small(path: str | Path) -> bytes:
    """The bytes of a YAML file: a path, or an fsspec URL (a string that contains `://`).

    Raises:
        MmfuseError: No such file, or it is too large.
    """
    try:
        if isinstance(path, str) and "://" in path:
            import fsspec  # only here: most are paths, and `mmfuse --help` is to be quick

            with fsspec.open(path, "rb") as file:
                data = file.read(_MAX_YAML_BYTES + 1)  # type: ignore[union-attr]
        else:
            path = Path(path)
            if not os.path.isfile(path):  # pathlib's raises where a name is too long
                if _is_forbidden(path):
                    raise PermissionError
                if os.path.isdir(path):
                    inside = ", ".join(sorted(p.name for p in path.glob("*.y*ml"))[:9])
                    raise MmfuseError(f"{path}: a folder; name a file{f' in it: {inside}' if inside else ''}")
                there = sorted(p.name for p in path.parent.glob("*.y*ml"))
                near = f"; in that folder, {nearest(path.name, there)}" if there else ""
                raise MmfuseError(f"{path}: no such file{near}")
            with path.open("rb") as file:
                data = file.read(min(_MAX_YAML_BYTES, path.stat().st_size) + 1)
    except MmfuseError:
        raise
    except FileNotFoundError as error:
        raise MmfuseError(f"{path}: no such file") from error
    except PermissionError as error:
        raise MmfuseError(f"{path}: may not be read (permission denied)") from error
    except Exception as error:  # every remote file system has its own exceptions
        raise MmfuseError(f"{path}: {(getattr(error, 'strerror', None) or first_line(error)).lower()}") from error
    if len(data) > _MAX_YAML_BYTES:
        raise MmfuseError(f"{path}: larger than {_MAX_YAML_BYTES} bytes")
    return data


def _is_forbidden(path: Path) -> bool:
    """Whether it may not even be known if the file is there."""
    try:
        os.stat(path)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return False


def _nodes(node: yaml.Node | None, known: dict[int, int] | None = None) -> int:
    """How many values a YAML node holds when its aliases are unfolded, which may be more than fit in memory.

    Raises:
        RecursionError: It holds itself.
    """
    known = {} if known is None else known
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        pairs = node.value if isinstance(node, yaml.MappingNode) else [node.value]
        known[id(node)] = 1 + sum(_nodes(child, known) for pair in pairs for child in pair)
    return known[id(node)]


def schema() -> str:
    """The commented schema with defaults, as YAML: what `mmfuse config` prints."""
    return "\n".join(_schema_lines(Config, 0)) + "\n"


def _schema_lines(cls: type, indent: int) -> Iterator[str]:
    pad = "  " * indent
    hints = get_type_hints(cls)
    for item in dataclasses.fields(cls):
        nested, by_name = _nested(hints[item.name])
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


def _nested(hint: Any) -> tuple[type | None, bool]:
    """The dataclass that a field's type holds, if any, and whether it holds it by name (`dict[str, X]`)."""
    if dataclasses.is_dataclass(hint):
        return hint, False  # type: ignore[return-value]
    inner = next((a for a in get_args(hint) if dataclasses.is_dataclass(a)), None)
    return inner, get_origin(hint) is dict  # type: ignore[return-value]


def _unknown_key(values: Any, cls: type, prefix: str = "") -> str | None:
    """The complaint about the first key of `values` that the schema does not know, or None."""
    hints = get_type_hints(cls)
    if values is None:
        return None
    if not isinstance(values, dict):
        return f"{prefix.rstrip('.') or 'top level'}: a mapping (key: value lines) is expected"
    for name, value in values.items():
        if name not in hints:
            return f"{prefix}{name}: no such key; {nearest(str(name), hints)}"
        nested, by_name = _nested(hints[name])
        if nested is None:
            expected = _expected_instead(hints[name], value)
            if expected:
                return f"{prefix}{name}: {expected} is expected"
            continue
        children = {f"{prefix}{name}.": value}
        if by_name:
            if not isinstance(value, dict):
                return f"{prefix}{name}: a mapping (name: ...) is expected"
            children = {f"{prefix}{name}.{child}.": options for child, options in value.items()}
        for path, child in children.items():
            complaint = _unknown_key(child, nested, path)
            if complaint:
                return complaint
    return None


def _expected_instead(hint: Any, value: Any) -> str | None:
    """What a key's type wants where `value` is a list or mapping that does not fit, or holds another one; or None."""
    if hint is Any or not isinstance(value, (list, dict)):
        return None
    container = next((kind for kind in (hint, *get_args(hint)) if get_origin(kind) in (list, dict)), None)
    if container is None:
        return "one value"
    if type(value) is not get_origin(container):
        return "a list" if get_origin(container) is list else "a mapping (key: value lines)"
    children = value.values() if isinstance(value, dict) else value
    if Any not in get_args(container) and any(child is None or isinstance(child, (list, dict)) for child in children):
        return "one value for each item"
    return None


def _help_of(cls: Any, path: str) -> str:
    item = None
    for name in path.split("."):
        item = next((i for i in dataclasses.fields(cls) if i.name == name), item)
        nested, _ = _nested(get_type_hints(cls).get(name))
        cls = nested or cls
    return item.metadata.get("help", "") if item else ""


def _walk(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for item in dataclasses.fields(config):
        value, path = getattr(config, item.name), f"{prefix}{item.name}"
        children = {path: value} if not isinstance(value, dict) else {f"{path}.{k}": v for k, v in value.items()}
        if children and all(dataclasses.is_dataclass(child) for child in children.values()):
            for name, child in children.items():
                yield from _walk(child, f"{name}.")
        else:
            yield path, value, item.metadata


def _check_value(name: str, value: Any, rules: Any, where: str) -> None:
    if value is None:
        return
    choices, low, high = rules.get("choices"), rules.get("low"), rules.get("high")
    if choices and value not in choices:
        raise MmfuseError(f"{where}: {name}: {value!r} is not legal; {nearest(str(value), choices)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise MmfuseError(f"{where}: {name}: {value} is no finite number")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"at least {low}" + (f" and at most {high}" if high is not None else "")
        raise MmfuseError(f"{where}: {name}: {value} is out of range; it must be {bounds}")
